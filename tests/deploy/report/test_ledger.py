"""The ledger in a report: changes against the last kept row, warnings, the waterfall picture."""

import json
import re
import xml.etree.ElementTree as ET

import pytest

from compress.ledger import Footprint, Interval
from deploy.report import ledger, render, store, waterfall, words
from deploy.types import Cost, LedgerRow, Quality
from tests.deploy.report import factory

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</title><script>alert(1)</script>\u202e\"'&"


def row(step, disk, *, cost=None, kept=True, warnings=(), metric=0.9, packed=None, **changes):
    quality = Quality(
        samples=100,
        max_abs_diff=0.1,
        sqnr_db=20.0,
        top1_agreement=0.97,
        metric="top1",
        metric_value=metric,
        metric_reference=0.9,
    )
    size = Footprint(
        parameters=1000,
        nonzeros=900,
        macs=None,
        macs_unknown=("aten.odd",),
        packed_bytes=packed,
        packed_reason="" if packed else "no container here",
        deflated_bytes=disk - 10,
        disk_bytes=disk,
        ram_bytes=disk + 7,
    )
    values = {
        "step": step,
        "parameters": 1000,
        "program_bytes": disk,
        "seconds": 1.5,
        "quality": quality,
        "interval": Interval(low=metric - 0.02, high=metric + 0.02, method="wilson"),
        "footprint": size,
        "cost": cost,
        "kept": kept,
        "warnings": warnings,
    }
    return LedgerRow(**{**values, **changes})


def cost(value, reason=""):
    return Cost(
        device="emulated-arm64",
        format="executorch",
        metric="instructions",
        tier="emulator",
        value=value,
        reason=reason,
    )


ROWS = (
    row("uncompressed", 4000, cost=cost(1000.0), packed=3000),
    row("prune", 1000, cost=cost(900.0), kept=False, warnings=("dropped: why",), packed=2000),
    row("quantize", 2000, cost=cost(1100.0), packed=1500, warnings=("costs more on x: y",)),
)


def report(*rows):
    return factory.report(ledger=rows or ROWS)


def cells(table, number):
    return {c.title: cell for c, cell in zip(table.columns, table.rows[number], strict=True)}


def test_a_change_is_against_the_last_kept_row():
    table = ledger.bought(report())
    title = "An inference on emulated-arm64, instructions"
    assert [cells(table, n)["On disk, bytes"].small for n in range(3)] == ["", "−75.0 %", "−50.0 %"]
    assert [cells(table, n)["Download, bytes"].small for n in range(3)] == [
        "",
        "−33.3 %",
        "−50.0 %",
    ]
    assert [cells(table, n)[title].small for n in range(3)] == ["", "−10.0 %", "+10.0 %"]
    assert [cells(table, n)["Kept"].text for n in range(3)] == [
        "the start",
        "no, dropped",
        "yes",
    ]
    assert cells(table, 1)["Kept"].small == "why"
    assert cells(table, 2)["Task metric"].small == "top1 [0.8800, 0.9200]"
    assert cells(table, 1)["MACs"].small == "cannot be counted: aten.odd"
    assert next(c.tier for c in table.columns if c.title == title) == "emulator"
    assert "Nothing was measured" not in " ".join(table.notes)


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        (5, None, ""),
        (5, 5, ""),
        (5, 0, "from 0"),
        (50, 100, "−50.0 %"),
        (100_011, 100_000, "+0.011 %"),
    ],
)
def test_changes_in_words(new, old, expected):
    assert ledger.change(new, old) == expected


def test_without_a_device_no_row_claims_speed():
    table = ledger.bought(report(row("uncompressed", 4000), row("quantize", 1000)))
    assert "no row says anything of speed" in " ".join(table.notes)
    assert not [c for c in table.columns if "inference" in c.title]


def test_the_terminal_says_once_that_nothing_was_measured():
    rows = (row("uncompressed", 4000), row("prune", 2000), row("quantize", 1000))
    assert list(ledger.lines(report(*rows))).count(ledger.NOT_MEASURED) == 1
    assert ledger.NOT_MEASURED not in list(ledger.lines(report()))


def test_a_step_shows_what_it_was_told_and_not_its_defaults():
    detail = {"mode": "static", "samples": 20, "budget": {"macs": 0.5, "cost": None}, "x": None}
    chosen = {"budget": {"macs": 0.5}, "layers": ["conv*"], "round": False}
    told = row("prune", 1000, detail=detail, chosen=chosen)
    table = ledger.bought(report(row("uncompressed", 4000), told))
    assert table.rows[1][0].small == 'budget.macs=0.5, layers=["conv*"], round=false'
    # Nothing chosen is no reason to show the defaults; a row of before tells all that it knows.
    untold, old = row("prune", 1000, detail=detail, chosen={}), row("prune", 1000, detail=detail)
    table = ledger.bought(report(row("uncompressed", 4000), untold, old))
    assert table.rows[1][0].small == ""
    assert table.rows[2][0].small == "budget.macs=0.5, mode=static, samples=20"


def test_a_cost_that_was_not_measured_says_why():
    rows = (row("uncompressed", 4000, cost=cost(None, "the phone is off")), row("q", 1000))
    text = render.markdown(report(*rows))
    assert "the phone is off" in text
    assert "no device was named for this row" in text


def test_everything_is_where_a_reader_looks():
    made = report()
    for text in (render.markdown(made), factory.pages_text(made)):
        assert "1 prune: dropped: why" in text
        assert "2 quantize: costs more on x: y" in text
        assert "no container here" not in text
    terminal = "\n".join(words.summary_lines(made))
    assert "1 prune (dropped)" in terminal
    assert "    ! dropped: why" in terminal
    assert "1,100 instructions on emulated-arm64 (+10.0 %, emulator)" in terminal


def test_a_report_of_before_footprints_is_still_read(tmp_path):
    old = LedgerRow(step="quantize", parameters=10, program_bytes=40, seconds=1)
    made = factory.report(ledger=(old.model_copy(update={"step": "uncompressed"}), old))
    data = json.loads(store.write(made, tmp_path).read_text())
    for found in data["ledger"]:
        for key in ("footprint", "interval", "validation", "cost", "kept", "warnings"):
            del found[key]
    # As a pocketship of before wrote it.
    rows = tuple(LedgerRow.model_validate(found) for found in data["ledger"])
    assert rows == made.ledger
    for view in (render.markdown(made), factory.pages_text(made)):
        assert "this report was made without footprints" in view
    assert waterfall.waterfall(made)


# --- the picture ----------------------------------------------------------------------------------


def drawn(made):
    return ET.fromstring(waterfall.waterfall(made, standalone=True))


def bars(root, kind):
    return [r for r in root.iter(f"{SVG}rect") if r.get("class") == kind]


def test_bars_are_as_long_as_their_figures():
    root = drawn(report())
    left = [float(r.get("width")) for r in bars(root, "wf-left")]
    # Three panels: packed, on disk, instructions; the dropped step has no such bar.
    packed, disk, count = left[:2], left[2:4], left[4:]
    assert packed[1] / packed[0] == pytest.approx(1500 / 3000, abs=0.01)
    assert disk[1] / disk[0] == pytest.approx(2000 / 4000, abs=0.01)
    assert count[1] == count[0]
    won = bars(root, "wf-won")
    assert [float(r.get("width")) for r in won] == pytest.approx(
        [packed[0] / 2, disk[0] / 2], abs=1
    )
    # What was added begins where the row before ended.
    (lost,) = bars(root, "wf-lost")
    assert float(lost.get("width")) / count[0] == pytest.approx(0.1, abs=0.01)
    hatched = [float(r.get("width")) for r in bars(root, "wf-dropped")]
    assert hatched[1] / disk[0] == pytest.approx(1000 / 4000, abs=0.01)
    for rect in root.iter(f"{SVG}rect"):
        assert float(rect.get("x")) >= 0
        assert float(rect.get("x")) + float(rect.get("width")) <= float(root.get("width"))


def test_the_picture_has_its_content_as_text():
    root = drawn(report())
    assert root.get("role") == "img"
    ids = {element.get("id"): element.text for element in root.iter() if element.get("id")}
    assert set(root.get("aria-labelledby").split()) == set(ids)
    assert "1 prune: 1,000 (−75.0 %), dropped" in ids["wf-desc"]
    assert "2 quantize: 1,100 (+10.0 %)" in ids["wf-desc"]


def test_a_panel_without_all_figures_is_left_out():
    rows = (ROWS[0], row("prune", 1000, cost=cost(None, "off")), ROWS[2])
    text = waterfall.waterfall(report(*rows))
    assert "Bytes of weights on disk" in text
    assert "download" not in text
    assert "an inference on" not in text


def test_nothing_to_show_is_no_picture(tmp_path):
    made = report(ROWS[0])
    assert waterfall.waterfall(made) == ""
    render.write(made, tmp_path)
    assert not (tmp_path / "ledger.svg").exists()
    assert "ledger.svg" not in (tmp_path / "report.md").read_text()


def test_the_picture_lies_beside_the_markdown_and_in_the_page(tmp_path):
    render.write(report(), tmp_path)
    assert "![What each step bought](ledger.svg)" in (tmp_path / "report.md").read_text()
    assert ET.parse(tmp_path / "ledger.svg").getroot().tag == f"{SVG}svg"
    page = (tmp_path / "compression.html").read_text()
    assert page.count("<svg") == 1
    assert not re.search(r"https?:|url\(", page)


def test_names_from_elsewhere_are_text():
    made = factory.report(
        pipeline=HOSTILE, ledger=(ROWS[0], row(HOSTILE, 1000, cost=cost(5.0), packed=9))
    )
    root = drawn(made)
    assert not list(root.iter(f"{SVG}script"))
    assert "script>alert" in "".join(root.itertext())
    assert "\u202e" not in waterfall.waterfall(made)
    assert "<script>alert" not in factory.pages_text(made)
