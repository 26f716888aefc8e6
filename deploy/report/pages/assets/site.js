// Theme, sortable and filterable tables. Loaded before the page is shown, so that a chosen theme does
// not flash; without it every page still reads from top to bottom.
"use strict";

(() => {
  const THEMES = ["auto", "light", "dark"];
  const KEY = "pocketship-theme";
  const FILTER_FROM = 8; // Rows below which a filter would only be in the way.

  function remembered() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // Storage may be closed to pages from a disk.
    }
  }

  function setTheme(name) {
    const theme = THEMES.includes(name) ? name : "auto";
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // Then it holds for this page only.
    }
    return theme;
  }

  function themeButton() {
    const button = document.getElementById("theme");
    let now = setTheme(remembered());
    const say = () => { button.textContent = `Theme: ${now}`; };
    say();
    button.hidden = false;
    button.addEventListener("click", () => {
      now = setTheme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
      say();
      document.dispatchEvent(new Event("themechange"));
    });
  }

  // A cell's main text as a number: counts have separators, ratios an x behind them.
  function numberIn(cell) {
    const text = cell.querySelector(".main").textContent.replace(/,/g, "").replace(/−/g, "-");
    const value = Number.parseFloat(text);
    return Number.isNaN(value) ? null : value;
  }

  function sorter(table, column, numeric) {
    const body = table.tBodies[0];
    return (descending) => {
      const keyed = Array.from(body.rows, (row) => {
        const cell = row.cells[column];
        const key = numeric ? numberIn(cell) : cell.querySelector(".main").textContent;
        return { row, key };
      });
      keyed.sort((a, b) => {
        // What was not measured is neither the least nor the most: it stays at the end.
        if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
        const order = numeric ? a.key - b.key : a.key.localeCompare(b.key, "en", { numeric: true });
        return descending ? -order : order;
      });
      body.append(...keyed.map((one) => one.row));
    };
  }

  function sortable(table) {
    const headers = Array.from(table.tHead.rows[0].cells);
    headers.forEach((header, column) => {
      const title = header.querySelector(".title");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = title.textContent;
      title.replaceWith(button);
      const sort = sorter(table, column, header.classList.contains("number"));
      button.addEventListener("click", () => {
        const descending = header.getAttribute("aria-sort") === "ascending";
        for (const other of headers) other.removeAttribute("aria-sort");
        header.setAttribute("aria-sort", descending ? "descending" : "ascending");
        sort(descending);
      });
    });
  }

  function filterable(table) {
    const rows = Array.from(table.tBodies[0].rows);
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const box = document.createElement("p");
    box.className = "filter";
    const label = document.createElement("label");
    const input = document.createElement("input");
    const count = document.createElement("output");
    input.type = "search";
    label.append("Filter ", input);
    box.append(label, " ", count);
    input.setAttribute("aria-label", `Filter the rows of: ${table.caption.textContent}`);
    const total = rows.length.toLocaleString("en");
    count.textContent = `${total} rows`;
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, index) => {
        row.hidden = !words.every((word) => texts[index].includes(word));
        if (!row.hidden) shown += 1;
      });
      count.textContent = words.length ? `${shown.toLocaleString("en")} of ${total} rows` : `${total} rows`;
    });
    table.closest(".scroll").before(box);
  }

  setTheme(remembered());
  document.addEventListener("DOMContentLoaded", () => {
    themeButton();
    for (const table of document.querySelectorAll("table:not(.facts)")) {
      const rows = table.tBodies[0].rows.length;
      if (rows > 1) sortable(table);
      if (rows >= FILTER_FROM) filterable(table);
    }
  });
})();
