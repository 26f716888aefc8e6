import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from deploy.report import render, sections, tables, words
from deploy.report.markdown import code, escape
from deploy.report.pages import run as pages
from deploy.report.pages import site
from deploy.report.tables import plain
from deploy.types import (
    Cost,
    LedgerRow,
    Metric,
    Outcome,
    Parity,
    Placement,
    Report,
    Status,
    Tier,
    Verdict,
)
from tests.deploy.report import factory

REPORT = factory.report()
HOSTILE = "<script>alert(1)</script>|`x`\n# [a](https://example.invalid) \u202eltr\x1b[31m @you #1"
VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """What a browser would make of a page: tags, their attributes, tables, text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[dict[str, list]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.words.append(" ")
        self.tags.append((tag, found))
        if tag == "table":
            self.tables.append({"caption": [], "columns": [], "rows": []})
        if tag == "tr":
            self.tables[-1]["rows"].append([])
        if tag in ("th", "td"):
            self.tables[-1]["rows"][-1].append((tag, found))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self.open.pop() == tag
        self.words.append(" ")

    def handle_data(self, data):
        if "style" not in self.open and "script" not in self.open:
            self.words.append(data)
        if "caption" in self.open:
            self.tables[-1]["caption"].append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def rendered(markdown: str) -> str:
    return MarkdownIt("commonmark").enable("table").render(markdown)


def shown(markdown: str) -> str:
    """The text that a reader of ``markdown`` sees."""
    return Page(rendered(markdown)).text


def hostile_report() -> Report:
    art = factory.artifact(
        HOSTILE,
        name=HOSTILE,
        tools={HOSTILE: HOSTILE},
        placement=Placement(backend="b", reason=HOSTILE),
    )
    base = factory.artifact("fp32")
    run = factory.devices()[0]
    profile = factory.profile(HOSTILE, Tier.EMULATOR, description=HOSTILE, tested_on=HOSTILE)
    info = run.info.model_copy(
        update={"model": HOSTILE, "kernel": HOSTILE, "serial": HOSTILE, "unknown": {"soc": HOSTILE}}
    )
    return factory.report(
        pipeline=HOSTILE,
        run_id=HOSTILE,
        commit=HOSTILE,
        machine={HOSTILE: HOSTILE},
        artifacts=(base, art),
        ledger=(
            LedgerRow(
                step=HOSTILE,
                detail={HOSTILE: [HOSTILE]},
                parameters=1,
                program_bytes=1,
                seconds=1,
                notes=(HOSTILE,),
                warnings=(HOSTILE,),
            ),
            LedgerRow(
                step=HOSTILE,
                parameters=1,
                program_bytes=2,
                seconds=1,
                cost=Cost(device=HOSTILE, format=HOSTILE, metric=HOSTILE, tier=HOSTILE, value=1.0),
                warnings=(HOSTILE,),
            ),
        ),
        parity=(
            Parity(
                artifact=HOSTILE,
                status=Status.FAILED,
                reason=HOSTILE,
                limits={HOSTILE: 1},
                violated=(HOSTILE,),
                quality=factory.quality(metric=HOSTILE),
            ),
        ),
        devices=(run.model_copy(update={"profile": profile, "info": info, "reason": HOSTILE}),),
        cases=(
            factory.case(art, HOSTILE, factory.measured(Metric.LATENCY_MS, 1.0, source=HOSTILE)),
            factory.case(base, HOSTILE, status=Status.FAILED, reason=HOSTILE),
        ),
        comparisons=tuple(
            row.model_copy(
                update={
                    "baseline": HOSTILE,
                    "candidate": HOSTILE,
                    "reason": row.reason and HOSTILE,
                    "device": row.device and HOSTILE,
                }
            )
            for row in REPORT.comparisons
        ),
        verdicts=(
            Verdict(
                outcome=Outcome.REGRESSED,
                subject=HOSTILE,
                metric=HOSTILE,
                value=1,
                limit=1,
                source=HOSTILE,
                reason=HOSTILE,
            ),
        ),
    )


def absent_reasons(report: Report) -> set[str]:
    reasons = {row.reason for row in report.comparisons if row.reason and row.device == ""}
    reasons |= {case.reason for case in report.cases if case.reason}
    reasons |= {
        m.reason
        for case in report.cases
        for m in case.measurements
        if m.reason and m.metric not in (Metric.LOAD_MS, Metric.FIRST_MS)
    }
    reasons |= {check.reason for check in report.parity if check.reason}
    reasons |= {a.placement.reason for a in report.artifacts if a.placement.reason}
    for run in report.devices:
        reasons |= {run.reason, run.profile.energy.reason}
        reasons |= set(run.info.unknown.values() if run.info else ())
    return {" ".join(reason.split()) for reason in reasons if reason}


def test_macs_and_planned_memory_stand_in_the_table_of_files_or_the_reason_does():
    counted = factory.artifact("int8", macs=387_246_080, unknown={"planned_bytes": "at its load"})
    table = sections.artifacts(factory.report(artifacts=(counted,)))
    titles = [column.title for column in table.columns]
    (row,) = table.rows
    assert row[titles.index("MACs")].text == "387,246,080"
    plan = row[titles.index("Planned memory, bytes")]
    assert (plan.text, plan.small) == ("unknown", "at its load")


def test_each_table_of_the_page_has_a_caption_and_scoped_headers():
    page = Page(factory.pages_text(REPORT))
    assert len(page.tables) >= 10
    for table in page.tables:
        assert "".join(table["caption"]).strip()
        header, *rows = table["rows"]
        assert rows
        assert all((tag, attrs["scope"]) == ("th", "col") for tag, attrs in header)
        for first, *others in rows:
            assert (first[0], first[1]["scope"]) == ("th", "row")
            assert [tag for tag, _ in others] == ["td"] * (len(header) - 1)


def test_the_pages_ask_nobody_for_anything():
    for text in pages.build(REPORT).values():
        page = Page(text)
        assert not {tag for tag, _ in page.tags} & {"img", "iframe", "object", "form", "base"}
        links = [attrs["href"] for tag, attrs in page.tags if tag == "link"]
        assert links == ["data:,", "assets/site.css"]
        sources = [a["src"] for tag, a in page.tags if tag == "script" and "src" in a]
        assert sources == ["assets/site.js", "assets/plots.js"]
        # Every other script is data, which no browser runs.
        kinds = {a.get("type") for tag, a in page.tags if tag == "script" and "src" not in a}
        assert kinds <= {"application/json"}
        policy = next(a["content"] for _, a in page.tags if "http-equiv" in a)
        assert policy.startswith("default-src 'none'; script-src 'self' file:;")
        assert not re.search(r"https?:|url\(|@import|@font-face", text)
        assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)


def test_the_pages_are_for_both_schemes_narrow_screens_and_paper():
    text = (Path(site.__file__).parent / "assets/site.css").read_text()
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert "tabular-nums" in text
    assert not re.search(r"https?:|url\(|@import|@font-face", text)
    for page in pages.build(REPORT).values():
        assert 'content="width=device-width, initial-scale=1"' in page


def test_the_verdict_comes_first():
    for text in (Page(factory.pages_text(REPORT)).text, shown(render.markdown(REPORT))):
        said = "REGRESSED: a figure is over its limit; 9 of 12 checks hold. Exit code 8."
        assert said in text
        assert text.index(said) < text.index("What int8 bought over fp32") < text.index("SHA-256")


def test_there_is_one_page_a_device():
    assert sum(name.startswith("device-") for name in pages.build(REPORT)) == 3
    assert render.markdown(REPORT).count("<details><summary>Device ") == 3


@pytest.mark.parametrize(
    "view", [lambda r: Page(factory.pages_text(r)).text, lambda r: shown(render.markdown(r))]
)
def test_whatever_is_missing_says_why(view):
    text = view(REPORT)
    reasons = absent_reasons(REPORT)
    assert len(reasons) > 8
    assert [reason for reason in reasons if reason not in text] == []


def test_every_figure_of_a_device_has_its_tier():
    page = pages.build(REPORT)["device-emulated-arm64.html"]
    tables = re.findall(
        r"<caption>(Load and inference|Memory, energy, output)<(.*?)</table>", page, re.S
    )
    assert len(tables) == 2
    section = "".join(content for _, content in tables)
    figures = re.findall(r'<td [^>]*class="number ">(.*?)</td>', section, re.DOTALL)
    assert len(figures) == 5 * 6
    assert all(">emulator</abbr>" in figure for figure in figures)


def test_raw_samples_are_on_the_page():
    text = Page(factory.pages_text(REPORT)).text
    assert "155330255, 155330359, 155346255" in text


def test_very_many_samples_are_cut_and_that_is_said():
    art = factory.artifact("int8")
    many = factory.case(art, "host", factory.measured(Metric.LATENCY_MS, *map(float, range(2000))))
    assert (
        "499 and 1,500 more in report.json"
        in Page(factory.pages_text(factory.report(cases=(many,)))).text
    )


def test_markdown_tables_have_equal_columns():
    text = render.markdown(hostile_report())
    blocks = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    assert len(blocks) >= 8
    for block in blocks:
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in block.strip().splitlines()}
        assert len(counts) == 1
    # And each is a table to a Markdown reader too.
    assert rendered(text).count("<table>") == len(blocks)


def test_markdown_is_short_enough_for_a_comment():
    text = render.markdown(REPORT)
    assert len(text) < 65_536
    assert len(text[: text.index("<details>")].splitlines()) < 40


def test_many_troubles_do_not_push_the_table_out_of_sight():
    verdict = next(v for v in REPORT.verdicts if v.outcome is Outcome.REGRESSED)
    many = tuple(verdict.model_copy(update={"subject": f"case-{i}"}) for i in range(50))
    text = render.markdown(factory.report(verdicts=many))
    top = text[: text.index("What int8 bought")]
    assert "- and 41 more below" in top
    assert len(top.splitlines()) < 20
    assert all(f"`case-{i}`" in text for i in range(50))


def test_hostile_names_come_out_as_text_on_the_page():
    page = Page(factory.pages_text(hostile_report()))
    assert "<script>alert" not in factory.pages_text(hostile_report())
    assert plain(HOSTILE) in page.text
    assert "⟨U+202E⟩ltr⟨U+001B⟩[31m" in page.text
    assert not set("\u202e\x1b") & set(factory.pages_text(hostile_report()))


def test_hostile_names_come_out_as_text_in_markdown():
    source = render.markdown(hostile_report())
    page = Page(rendered(source))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "a"}
    # Our own picture beside the page, and no other.
    assert [found["src"] for tag, found in page.tags if tag == "img"] == ["ledger.svg"]
    assert plain(HOSTILE) in page.text
    assert not re.search(r"@you|#1\b|https://", source)
    assert not set("\u202e\x1b") & set(source)


def test_terminal_lines_have_no_control_characters():
    lines = words.summary_lines(hostile_report())
    assert all(line == plain(line) or line.split() == plain(line).split() for line in lines)


TEXT = st.text(
    st.one_of(st.sampled_from("\\`*_{}[]()<>#|~&!$^-+=.:@/ \n\t12aw"), st.characters()), max_size=40
)


@given(TEXT)
def test_any_text_in_a_markdown_table_is_one_cell_that_shows_it(text):
    for written in (escape(text), code(text)):
        page = Page(rendered(f"| a | b |\n| --- | --- |\n| {written} | end |\n"))
        assert page.text == " ".join(f"a b {plain(text)} end".split())
        assert {tag for tag, _ in page.tags} <= {
            "table", "thead", "tbody", "tr", "th", "td", "code"
        }  # fmt: skip


@given(TEXT)
def test_any_text_in_a_markdown_list_shows_as_it_is(text):
    page = Page(rendered(f"- {escape(text)}\n"))
    assert page.text == " ".join(plain(text).split())
    assert {tag for tag, _ in page.tags} <= {"ul", "li"}


def test_letters_of_right_to_left_scripts_stay():
    assert plain("שלום عالم") == "שלום عالم"


def test_a_report_with_nothing_in_it_says_so():
    empty = factory.report(
        budgets=(),
        baseline_variant=None,
        commit=None,
        ledger=(),
        artifacts=(),
        parity=(),
        devices=(),
        cases=(),
        comparisons=(),
        verdicts=(),
        outcome=Outcome.PASS,
        exit_code=0,
    )
    for text in (Page(factory.pages_text(empty)).text, shown(render.markdown(empty))):
        assert "nothing was judged" in text
        assert "the pipeline names no baseline variant" in text
        assert "not in a Git checkout" in text


def test_a_table_of_unequal_rows_is_refused():
    with pytest.raises(ValueError, match="2 cells, 1 columns"):
        tables.Table("t", (tables.Column("a"),), ((tables.Cell("1"), tables.Cell("2")),))


def test_the_summary_scales_figures_and_keeps_ratios():
    (table,) = tables.summary(REPORT)
    first = table.plain_rows()[0][0]
    assert first == (
        "emulated-arm64",
        "ExecuTorch",
        "0.55x (155.3 → 84.66 M instructions, emulator)",
        "0.27x (18.57 → 4.998)",
        "0.40x (60.00 → 24.23, emulator)",
    )


def test_a_format_that_ran_nowhere_still_compares_its_file():
    report = factory.report(
        comparisons=tuple(row for row in REPORT.comparisons if row.device == "")
    )
    rows = tables.summary(report)[0].plain_rows()[0]
    assert [row[0] for row in rows] == ["no device"] * 4
    assert rows[0][3] == "0.27x (18.57 → 4.998)"


def test_terminal_lines_are_aligned():
    lines = words.summary_lines(REPORT)
    head = next(line for line in lines if line.startswith("Device"))
    column = head.index("File, MB")
    rows = [line for line in lines if line.startswith(("emulated-arm64  ", "host  "))]
    assert len(rows) == 8
    assert all(re.match(r"0\.2\dx ", row[column:]) for row in rows)


def test_files_are_written(tmp_path):
    markdown, page = render.write(REPORT, tmp_path)
    assert markdown.read_text() == render.markdown(REPORT)
    assert page == tmp_path / "index.html"
    for name, text in pages.build(REPORT).items():
        assert (tmp_path / name).read_text() == text
