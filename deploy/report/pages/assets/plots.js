// Draws the figures of a page with Plotly when they come near the window: the large script is loaded
// only then, so a page opens at once however many figures it has.
"use strict";

(() => {
  const PLOTLY = new URL("plotly.min.js", document.currentScript.src).href;
  const NARROW = 480;
  const HISTOGRAM_FROM = 8; // Fewer samples are told apart by eye.
  const drawn = new Map(); // canvas -> function that gives {data, layout, height}
  let loading = null;

  function plotly() {
    loading ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = PLOTLY;
      script.onload = () => resolve(window.Plotly);
      script.onerror = () => reject(new Error("assets/plotly.min.js is missing"));
      document.head.append(script);
    });
    return loading;
  }

  function colours() {
    const style = getComputedStyle(document.documentElement);
    return (name) => style.getPropertyValue(`--${name}`).trim();
  }

  function themed(figure, width) {
    const of = colours();
    const axis = {
      gridcolor: of("line"), linecolor: of("line"), zerolinecolor: of("soft"), automargin: true,
      tickfont: { color: of("soft") },
    };
    const data = figure.data.map((trace) => {
      const colour = of(`c${trace.meta?.colour ?? 0}`);
      const made = { ...trace, line: { width: 1.5, ...trace.line, color: colour } };
      if (trace.type !== "box") made.marker = { ...trace.marker, color: colour };
      else made.fillcolor = `${colour}55`;
      for (const bar of ["error_x", "error_y"]) {
        if (trace[bar]) made[bar] = { thickness: 1.5, width: 4, ...trace[bar], color: colour };
      }
      return made;
    });
    const layout = {
      ...figure.layout,
      height: figure.height,
      margin: { l: 8, r: 12, t: 8, b: 40 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: of("ink") },
      hoverlabel: { bgcolor: of("paper"), bordercolor: of("line"), font: { color: of("ink") } },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      dragmode: false,
    };
    if (layout.showlegend) {
      layout.margin.t = 36;
      // A narrow window has one entry a line: they get room of their own, not the picture's.
      const entries = data.filter((trace) => trace.showlegend !== false).length;
      if (width < NARROW) layout.height += 19 * Math.max(0, entries - 2);
    }
    for (const key of ["xaxis", "yaxis", "xaxis2", "yaxis2"]) {
      if (figure.layout[key] || !key.endsWith("2")) {
        const own = figure.layout[key] ?? {};
        layout[key] = { ...axis, ...own, title: { ...own.title, font: { color: of("soft"), size: 12 } } };
      }
    }
    if (width < NARROW && layout.yaxis.ticktext) {
      layout.yaxis.ticktext = layout.yaxis.ticktext.map(shortened);
      layout.yaxis.tickfont = { ...layout.yaxis.tickfont, size: 11 };
    }
    if (figure.layout.shapes) {
      layout.shapes = figure.layout.shapes.map((shape) => ({
        ...shape, fillcolor: of("band"), line: { ...shape.line, color: of("soft") },
      }));
    }
    return { data, layout };
  }

  // Labels hold entities for what Plotly would take for tags: none may be cut in its middle.
  function shortened(text) {
    const parts = text.match(/&#?\w+;|[^]/gu) ?? [];
    return parts.length > 18 ? `${parts.slice(0, 17).join("")}…` : text;
  }

  async function draw(canvas) {
    const library = await plotly();
    const { data, layout } = themed(drawn.get(canvas)(), canvas.clientWidth);
    canvas.style.minHeight = `${layout.height}px`;
    await library.react(canvas, data, layout, { displayModeBar: false, responsive: true, doubleClick: false });
  }

  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        near.unobserve(entry.target);
        entry.target.dataset.state = "drawn";
        draw(entry.target).catch((error) => { entry.target.textContent = `Not drawn: ${error.message}.`; });
      }
    }
  }, { rootMargin: "300px" });

  function again(canvas) {
    if (canvas.dataset.state === "drawn") draw(canvas);
  }

  function frames(figure, content) {
    const select = figure.querySelector("select");
    const canvas = figure.querySelector(".canvas");
    drawn.set(canvas, () => content[select ? Number(select.value) : 0]);
    select?.addEventListener("change", () => again(canvas));
    near.observe(canvas);
  }

  function samplesOf(row) {
    let place = 0;
    return row.deltas.split(",").map((delta) => {
      place += Number(delta);
      return row.start + row.step * place;
    });
  }

  function sampled(row) {
    const values = samplesOf(row);
    const [start, width, counts] = row.bins;
    const many = values.length > 300;
    const counted = row.n >= HISTOGRAM_FROM;
    return {
      height: 320,
      data: [
        {
          type: "scatter", mode: many ? "lines" : "lines+markers", y: values,
          x: values.map((_, index) => (row.stretch > 1 ? Math.floor(index / 2) * row.stretch : index)),
          line: { width: many ? 1 : 0.75 }, marker: { size: 5 },
          hovertemplate: "%{y:,.6g}<extra></extra>", meta: { colour: 0 },
        },
        {
          type: "bar", orientation: "h", xaxis: "x2", x: counts,
          y: counts.map((_, index) => start + width * (index + (width ? 0.5 : 0))),
          width: width ? counts.map(() => width) : undefined,
          hovertemplate: "%{x} samples<extra></extra>", meta: { colour: 5 },
        },
      ].slice(0, counted ? 2 : 1),
      layout: {
        xaxis: { domain: [0, counted ? 0.74 : 1], title: { text: "sample" }, zeroline: false },
        ...(counted && { xaxis2: { domain: [0.78, 1], title: { text: "how many" }, nticks: 3 } }),
        yaxis: { title: { text: row.unit }, zeroline: false },
        showlegend: false, bargap: 0.05,
      },
    };
  }

  function explorer(figure, cases) {
    const canvas = figure.querySelector(".canvas");
    const which = figure.querySelector("[data-case]");
    const metric = figure.querySelector("[data-metric]");
    const tier = figure.querySelector("[data-tier]");
    const said = figure.querySelector("[data-said]");
    const option = (text, index) => new Option(text, String(index));
    which.append(...cases.map((one, index) => option(one.case, index)));
    const row = () => cases[Number(which.value)].rows[Number(metric.value)];
    const tell = () => {
      const now = row();
      tier.textContent = now.tier;
      tier.className = `tier tier-${now.tier}`;
      const stretch = now.stretch > 1 ? ` Each pair of points is the lowest and highest of ${now.stretch} samples.` : "";
      said.textContent = `${now.n.toLocaleString("en")} samples, median ${now.median.toLocaleString("en", { maximumSignificantDigits: 6 })} ${now.unit}. ` +
        `Drawn to a thousandth of their range; report.json has them in full.${stretch}`;
    };
    const chooseCase = () => {
      const before = metric.selectedOptions[0]?.textContent;
      const { rows } = cases[Number(which.value)];
      const same = rows.findIndex((one) => one.metric === before);
      const fullest = rows.findIndex((one) => one.n === Math.max(...rows.map((other) => other.n)));
      metric.replaceChildren(...rows.map((one, index) => option(one.metric, index)));
      metric.value = String(same < 0 ? fullest : same);
      tell();
    };
    chooseCase();
    which.addEventListener("change", () => { chooseCase(); again(canvas); });
    metric.addEventListener("change", () => { tell(); again(canvas); });
    drawn.set(canvas, () => sampled(row()));
    near.observe(canvas);
  }

  for (const figure of document.querySelectorAll("figure.plot")) {
    const script = figure.querySelector('script[type="application/json"]');
    if (!script) continue;
    const content = JSON.parse(script.textContent);
    if (figure.classList.contains("explorer")) explorer(figure, content);
    else frames(figure, content);
  }

  const redraw = () => { for (const canvas of drawn.keys()) again(canvas); };
  document.addEventListener("themechange", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  // Paper is light, whatever the screen is, and holds what nobody scrolled to.
  matchMedia("print").addEventListener("change", () => {
    for (const canvas of drawn.keys()) {
      near.unobserve(canvas);
      canvas.dataset.state = "drawn";
      draw(canvas);
    }
  });
  // Before anybody prints; nobody waits for it.
  if (drawn.size) window.addEventListener("load", () => setTimeout(plotly, 500));
})();
