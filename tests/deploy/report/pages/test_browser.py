"""The pages in a real browser: they draw, sort, filter, link and print, and ask nobody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.report.pages import comparison, gate, run
from deploy.report.tables import plain
from tests.deploy.report import factory
from tests.deploy.report.pages import browser, examples

pytestmark = pytest.mark.skipif(
    browser.executable() is None, reason=f"no browser: none of {', '.join(browser.NAMES)}"
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    path = browser.executable()
    assert path
    with browser.started(path) as found:
        yield found


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sites")
    made = examples.report()
    run.write(made, folder / "run", series=examples.series())
    gate.write(examples.gate(), folder / "gate")
    other = factory.report(run_id="20300102-120000")
    comparison.write(made, other, folder / "compare")
    run.write(examples.sustained(), folder / "sustained")
    hostile = examples.hostile_report()
    run.write(hostile, folder / "hostile")
    twin = hostile.model_copy(update={"run_id": examples.HOSTILE[3]})
    comparison.write(hostile, twin, folder / "hostile-compare")
    return folder


@pytest.fixture
def watched(chromium: Any) -> Iterator[browser.Watched]:
    found = browser.Watched(chromium)
    yield found
    found.close()


def pages(sites: Path) -> list[Path]:
    names = ("run/*.html", "gate/*.html", "compare/*.html", "sustained/device-*.html")
    return sorted(file for name in names for file in sites.glob(name))


AXE = {"resultTypes": ["violations"], "preload": False}
# What Plotly draws is one image to a screen reader, described by its label; rows are all alike.
JUDGED = {"exclude": [[".canvas > *"], ["tbody tr:nth-child(n + 4)"]]}


@pytest.mark.soak
def test_every_page_renders_is_accessible_and_fits_a_small_phone(
    watched: browser.Watched, sites: Path
) -> None:
    """axe-core judges each page with its pictures drawn, and its colours in both schemes."""
    from axe_playwright_python.sync_playwright import Axe

    axe, drawn, found = Axe(), 0, []
    colours = AXE | {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
    for file in pages(sites):
        page = watched.open(file)
        drawn += watched.draw_all()
        for scheme, options in (("light", AXE), ("dark", colours)):
            page.emulate_media(color_scheme=scheme)
            result = axe.run(page, context=JUDGED, options=options)
            found += [
                (scheme, file.name, rule["id"], [node["target"] for node in rule["nodes"]][:3])
                for rule in result.response["violations"]
                if rule["impact"] in ("serious", "critical")
            ]
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 360, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, file.name
        page.set_viewport_size({"width": 1100, "height": 900})
    assert found == []
    assert drawn >= 18
    assert watched.troubles == []
    outside = [url for url in watched.requests if not url.startswith(sites.as_uri())]
    assert set(outside) <= {"data:,"}


def test_the_policy_lets_nothing_out(watched: browser.Watched, sites: Path) -> None:
    page = watched.open(sites / "run" / "index.html")
    blocked = """() => new Promise((resolve) => {
      document.addEventListener("securitypolicyviolation", (e) => resolve(e.blockedURI));
      fetch("https://example.invalid/").catch(() => {});
      setTimeout(() => resolve("nobody stopped it"), 2000);
    })"""
    assert page.evaluate(blocked) == "https://example.invalid/"


def first_column(page: Any, table: str, column: int = 0) -> list[str]:
    rows = page.locator(f"{table} tbody tr:not([hidden])")
    return [
        rows.nth(i).locator("th, td").nth(column).locator(".main").inner_text()
        for i in range(rows.count())
    ]


def test_headers_sort_by_keyboard_with_what_is_missing_at_the_end(
    watched: browser.Watched, sites: Path
) -> None:
    page = watched.open(sites / "run" / "index.html")
    header = page.locator("table.bought th", has_text="Per inference")
    header.locator("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    up = first_column(page, "table.bought", 2)
    ratios = [float(text.rstrip("x")) for text in up if text != "no ratio"]
    assert ratios == sorted(ratios)
    assert len(ratios) == 5
    assert up[5:] == ["no ratio"] * 3
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    down = first_column(page, "table.bought", 2)
    assert [float(text.rstrip("x")) for text in down[:5]] == ratios[::-1]
    assert down[5:] == ["no ratio"] * 3
    page.locator("table.bought th", has_text="Device").locator("button").click()
    assert header.get_attribute("aria-sort") is None
    assert first_column(page, "table.bought") == ["emulated-arm64"] * 4 + ["host"] * 4


def test_counts_sort_as_numbers(watched: browser.Watched, sites: Path) -> None:
    """As text, 1,000,000 would come before 999,999."""
    page = watched.open(sites / "run" / "device-emulated-arm64.html")
    page.locator("#time th", has_text="Load, instructions").locator("button").click()
    shown = first_column(page, "#time table", 2)
    values = [int(text.replace(",", "")) for text in shown if text != "–"]
    assert values == sorted(values)
    assert len(values) == 5


def test_the_filter_hides_rows_and_says_how_many_are_left(
    watched: browser.Watched, sites: Path
) -> None:
    page = watched.open(sites / "run" / "index.html")
    page.get_by_role("searchbox").fill("HOST executorch")
    assert first_column(page, "table.bought") == ["host"]
    assert page.locator(".filter output").inner_text() == "1 of 8 rows"
    page.get_by_role("searchbox").fill("")
    assert len(first_column(page, "table.bought")) == 8


def test_every_link_leads_to_a_page_that_is_there(watched: browser.Watched, sites: Path) -> None:
    for file in pages(sites):
        page = watched.open(file)
        links = page.eval_on_selector_all("a", "all => all.map(a => a.getAttribute('href'))")
        assert "#content" in links
        for link in links:
            assert link.startswith("#") or (file.parent / link).is_file(), link
        current = page.locator("nav a[aria-current=page]")
        assert current.count() == (0 if file.name == comparison.FILE else 1)
    page = watched.open(sites / "run" / "index.html")
    page.get_by_role("link", name="test-phone").first.click()
    assert page.locator("h1").inner_text().startswith("test-phone")


def test_the_skip_link_is_first_and_leads_to_the_content(
    watched: browser.Watched, sites: Path
) -> None:
    page = watched.open(sites / "run" / "index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"


def colour_of(page: Any) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_the_theme_changes_pictures_too_and_is_remembered(
    watched: browser.Watched, sites: Path
) -> None:
    page = watched.open(sites / "run" / "compression.html")
    watched.draw_all()
    text = "getComputedStyle(document.querySelector('.canvas .xtick text')).fill"
    light, ink = colour_of(page), page.evaluate(text)
    button = page.locator("#theme")
    button.click()
    assert button.inner_text() == "Theme: light"
    assert colour_of(page) == light
    button.click()
    assert button.inner_text() == "Theme: dark"
    dark = colour_of(page)
    assert dark != light
    page.wait_for_function(f"() => ({text}) !== '{ink}'")
    page.reload()
    assert page.locator("#theme").inner_text() == "Theme: dark"
    assert colour_of(page) == dark


def test_paper_is_light_and_without_controls(chromium: Any, sites: Path) -> None:
    watched = browser.Watched(chromium, scheme="dark")
    page = watched.open(sites / "run" / "device-test-phone.html")
    watched.draw_all()
    page.emulate_media(media="print", color_scheme="dark")
    assert colour_of(page) == "rgb(255, 255, 255)"
    for controls in ("nav", "#theme", ".filter", ".choose"):
        assert not page.locator(controls).first.is_visible()
    assert page.locator("table").first.is_visible()
    assert page.pdf()[:4] == b"%PDF"
    watched.close()


def test_pictures_show_what_was_chosen(watched: browser.Watched, sites: Path) -> None:
    page = watched.open(sites / "run" / "device-test-phone.html")
    watched.draw_all()
    said = page.locator("#explorer [data-said]")
    assert said.inner_text().startswith("800 samples, median 21.0")
    drawn = "document.querySelector('#explorer .canvas').data[0].y"
    (first,) = [case for case in examples.phone_cases() if case.id.startswith("fp32.executorch")]
    samples = first.measurements[2].samples
    assert page.evaluate(drawn) == pytest.approx(samples, abs=(max(samples) - min(samples)) / 1000)
    page.locator("#explorer [data-case]").select_option("int8.onnx, 1 thread")
    page.locator("#explorer [data-metric]").select_option("First inference, ms")
    assert said.inner_text().startswith("3 samples, median 20.")
    page.wait_for_function(f"() => ({drawn}).length === 3")
    bars = "document.querySelector('#operators .canvas').data[0].x[0]"
    before = page.evaluate(bars)
    page.locator("#operators select").select_option("1")
    page.wait_for_function(f"() => ({bars}) !== {before}")


def test_hostile_names_are_text_everywhere(watched: browser.Watched, sites: Path) -> None:
    files = sorted((sites / "hostile").glob("*.html"))
    assert len(files) == 2 + 4
    seen = ""
    for file in files:
        page = watched.open(file)
        watched.draw_all()
        assert page.title() != "owned"
        assert page.locator("body").is_visible()
        # In pictures a tag that is obeyed would be a link or bold text.
        assert page.locator(".canvas a, .canvas b, main img, main iframe").count() == 0
        handlers = "all => all.flatMap(e => [...e.attributes]).filter(a => /^on/.test(a.name))"
        assert page.eval_on_selector_all("*", handlers) == []
        hrefs = page.eval_on_selector_all("a", "all => all.map(a => a.getAttribute('href'))")
        assert all(link == "#content" or (file.parent / link).is_file() for link in hrefs)
        seen += str(page.evaluate("document.documentElement.textContent"))
        labels = page.eval_on_selector_all(
            "#boxes-latency_ms-device .ytick text", "all => all.map(t => t.textContent)"
        )
        names = [" ".join(plain(text).split()) for text in examples.HOSTILE]
        for text in labels:
            assert any(name.startswith(text.rstrip("…")) for name in names), text
    assert watched.troubles == []
    assert not set("\u202e\u2066\u2028\u2029\x1b") & set(seen)
    assert [text for text in examples.HOSTILE if plain(text) not in seen] == []


def test_two_runs_are_drawn_side_by_side_and_their_names_are_text(
    watched: browser.Watched, sites: Path
) -> None:
    page = watched.open(sites / "compare" / comparison.FILE)
    assert watched.draw_all() == 4
    for canvas in page.locator(".canvas").all():
        assert canvas.get_attribute("role") == "img"
        assert len(str(canvas.get_attribute("aria-label"))) > 40
    boxes = "#samples-latency_ms-host"
    shown = page.locator(f"{boxes} .boxlayer .trace path.box").count()
    assert shown == 2 * page.locator(f"{boxes} .ytick").count() == 12
    # In the dark pictures get other colours, on paper those of the light again.
    stroke = f"getComputedStyle(document.querySelector('{boxes} path.box')).stroke"
    light = page.evaluate(stroke)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"() => ({stroke}) !== '{light}'")
    page.emulate_media(color_scheme="dark", media="print")
    page.wait_for_function(f"() => ({stroke}) === '{light}'")
    page.emulate_media(color_scheme="light", media="screen")
    page = watched.open(sites / "hostile-compare" / comparison.FILE)
    assert watched.draw_all() >= 2
    assert page.title() != "owned"
    assert page.locator(".canvas a, .canvas b, main img, main iframe").count() == 0
    legend = page.locator("#samples-latency_ms-device .legendtext").all_text_contents()
    name = plain(f"{examples.HOSTILE[0]} {examples.HOSTILE[1]}")
    assert [name.startswith(text.rstrip("…")) for text in legend] == [True, True], legend
    assert watched.troubles == []


def test_minutes_and_temperatures_stand_below_each_other(
    watched: browser.Watched, sites: Path
) -> None:
    page = watched.open(sites / "sustained" / "device-test-phone.html")
    watched.draw_all()
    places = page.eval_on_selector_all(
        "#minutes .scatterlayer",
        "all => all.map(e => e.getBoundingClientRect()).map(box => [box.top, box.bottom])",
    )
    above, below = sorted(places)
    assert above[1] < below[0]
    titles = page.locator("#minutes :is(.xtitle, .ytitle, .y2title)").all_text_contents()
    assert sorted(titles) == ["minutes", "ms", "°C"]
    assert watched.troubles == []
