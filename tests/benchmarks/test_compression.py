"""The compression benchmark's own logic: rows, targets, resumption, table; nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.compression import __main__ as bench
from benchmarks.compression import results, rows, table
from benchmarks.compression.results import Result
from benchmarks.compression.rows import Row, Target
from deploy.errors import ConfigError

CONTENT = {
    "title": "Tiny",
    "task": {"callable": "somewhere:task"},
    "seeds": 2,
    "variants": {
        "fp32": {"title": "as it is", "maker": "pocketship"},
        "small": {"title": "ours", "maker": "pocketship", "instructions": True},
    },
    "targets": [
        {
            "text": "bytes",
            "variant": "small",
            "figure": "pte_bytes",
            "kind": "times_smaller",
            "against": {"variant": "fp32", "figure": "pte_bytes"},
            "at_least": 10,
        },
        {
            "text": "accuracy",
            "variant": "small",
            "figure": "pte_top1",
            "kind": "points_lost",
            "against": {"variant": "fp32", "figure": "pte_top1"},
            "at_most": 0.5,
        },
        {"text": "plain", "variant": "small", "figure": "pte_bytes", "at_most": 95},
    ],
}


@pytest.fixture
def row() -> Row:
    return Row.model_validate({"name": "tiny", **CONTENT})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POCKETSHIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def unit(variant: str, seed: int, **figures: float) -> tuple[tuple[str, int], Result]:
    result = Result(row="tiny", variant=variant, seed=seed, key="", figures=figures)
    return (variant, seed), result


def units(*made: tuple[tuple[str, int], Result]) -> table.Units:
    return dict(made)


# --- Rows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", rows.names())
def test_rows_of_the_benchmark_are_sound(name: str) -> None:
    """Recipes validate, makers and example pipelines exist, targets ask for figures that come."""
    from benchmarks.compression.makers import MAKERS, steps_of

    row = rows.load(name)
    assert row.seeds >= 1
    for variant in row.variants.values():
        assert variant.maker in MAKERS
        if variant.maker == "pocketship":
            steps_of(variant.arguments)
    kinds = {
        name: set(variant.arguments.get("files", ["pte"])) for name, variant in row.variants.items()
    }
    for target in row.targets:
        kind = target.figure.partition("_")[0]
        of_files = {"pte", "onnx", "packed", "mlpackage"}
        assert kind not in of_files or kind in kinds[target.variant], target.text
        if target.figure.endswith("_instructions"):
            assert row.variants[target.variant].instructions


def test_rows_run_in_their_order_and_have_distinct_names() -> None:
    found = rows.names()
    assert len(set(found)) == len(found) == 4
    assert found[:2] == ["lenet-300-100", "lenet-5"]


def written(folder: Path, content: object) -> Path:
    (folder / "1-tiny.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_unknown_row_names_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no row 'big'") as caught:
        rows.load("big", written(tmp_path, CONTENT))
    assert "tiny" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seed", 3, "Extra inputs"),
        ("variants", {}, "at least 1 item"),
        ("latency", {"variant": "small", "against": "other"}, "there is no variant 'other'"),
        ("targets", [{"text": "", "variant": "big", "figure": "x", "at_most": 1}], "variant 'big'"),
        ("targets", [{"text": "", "variant": "fp32", "figure": "x"}], "at_least or at_most"),
        (
            "targets",
            [{"text": "", "variant": "fp32", "figure": "x", "kind": "share", "at_most": 1}],
            "any other kind needs one",
        ),
    ],
)
def test_unsound_rows_are_refused(tmp_path: Path, key: str, value: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rows.load("tiny", written(tmp_path, {**CONTENT, key: value}))


# --- Targets -------------------------------------------------------------------------------------


def test_targets_compare_within_each_seed(row: Row) -> None:
    """The mean of ratios, not the ratio of means; a seed without its reference is left out."""
    made = units(
        unit("fp32", 0, pte_bytes=1000, pte_top1=0.90),
        unit("fp32", 1, pte_bytes=4000, pte_top1=0.92),
        unit("small", 0, pte_bytes=100, pte_top1=0.895),
        unit("small", 1, pte_bytes=100, pte_top1=0.915),
        unit("small", 2, pte_bytes=1, pte_top1=0.1),
    )
    smaller, accuracy, plain = row.targets
    assert table.reached(smaller, made).values == (10, 40)
    assert table.judged(smaller, made) == ("25 ± 21 (2 seeds)", "reached")
    # Equal to the limit, although 0.9 - 0.895 is more than 0.005 in binary.
    assert table.reached(accuracy, made).values == (0.5, 0.5)
    assert table.judged(accuracy, made)[1] == "reached"
    assert table.judged(plain, made)[1] == "reached"  # (100 + 100 + 1) / 3


def test_target_that_is_missed_says_by_what_figure(row: Row) -> None:
    made = units(
        unit("fp32", 0, pte_bytes=1000, pte_top1=0.90),
        unit("small", 0, pte_bytes=101, pte_top1=0.89),
    )
    lines = table.target_lines(row, made)
    assert lines[0] == "missed   Tiny: bytes: asked >= 10x smaller, figure 9.901 (1 seed)"
    assert lines[1] == "missed   Tiny: accuracy: asked <= 0.5 points lost, figure 1 (1 seed)"


def test_what_was_not_run_is_neither_reached_nor_missed(row: Row) -> None:
    assert table.judged(row.targets[0], {}) == ("not run", "not run")
    assert table.target_lines(row, {})[0] == "not run  Tiny: bytes: asked >= 10x smaller"
    made = units(unit("small", 0, pte_bytes=1))
    assert table.judged(row.targets[0], made) == ("not run", "not run")
    absent = unit("small", 0)
    absent[1].missing["pte_instructions"] = "no QEMU"
    target = Target(text="", variant="small", figure="pte_instructions", at_most=1)
    assert table.judged(target, units(absent)) == ("no QEMU", "not run")


def test_table_shows_mean_spread_and_reasons(row: Row) -> None:
    failed = unit("small", 0, pte_bytes=100_000, pte_top1=0.9)
    failed[1].missing["pte_instructions"] = "no QEMU"
    failed[1].make_seconds, failed[1].measure_seconds = 90, 30
    made = units(failed, unit("small", 1, pte_bytes=200_000, pte_instructions=5e6))
    lines = table.markdown(row, made).splitlines()
    assert lines[2] == "| variant | top-1 | `.pte` bytes | instructions | minutes | seeds |"
    assert lines[4] == "| as it is | not run | not run | not run |  | 0 |"
    assert lines[5] == "| ours | 0.9 | 150,000 ± 7.1e+04 | 5,000,000 | 1.0 | 2 |"
    assert "`make bench-compress MODEL=tiny`" in table.markdown(row, made)


def test_time_is_held_against_its_limit(row: Row) -> None:
    """Two units run side by side, so a row takes half of what its units took."""
    made = units(*(unit(name, seed) for name in row.variants for seed in range(row.seeds)))
    for found in made.values():
        found.make_seconds, found.measure_seconds = 100, 20
    count = len(made)
    line = table.time_line(row, made)
    assert line == (
        f"reached  Tiny: time: asked <= 30 minutes, figure {count:.1f} ({count} of {count} units); "
        "make bench-compress MODEL=tiny"
    )
    # A part of a row reaches no limit, but it can miss one.
    made.popitem()
    assert table.time_line(row, made).startswith("not run  Tiny: time: asked <= 30 minutes, figure")
    made["fp32", 0].make_seconds = 3600
    assert table.time_line(row, made).startswith("missed   Tiny: time")
    assert "| time, minutes | <= 30 |" in table.markdown(row, made)
    assert table.time_line(row, {}).startswith("not run  Tiny: time: asked <= 30 minutes; make")
    made["fp32", 0].make_seconds = 4 * 3600
    assert table.total_time_line([(row, made), (row, {})]).startswith("missed   all rows: time:")


# --- Resumption ----------------------------------------------------------------------------------


def finish(row: Row, variant: str, seed: int) -> Result:
    result = results.blank(row, variant, seed)
    result.files = {"pte": "model.pte"}
    folder = results.unit_folder(row.name, variant, seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.pte").write_bytes(b"x")
    results.write(result)
    return result


def test_unit_is_found_again_and_made_anew_when_anything_changed(
    row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert results.finished(row, "small", 0) is None
    made = finish(row, "small", 0)
    assert results.finished(row, "small", 0) == made
    assert results.finished(row, "small", 1) is None
    changed = CONTENT | {
        "variants": CONTENT["variants"] | {"small": {"title": "ours", "maker": "torchao"}}  # type: ignore[operator]
    }
    assert results.finished(Row.model_validate({"name": "tiny", **changed}), "small", 0) is None
    # Targets are judged afterwards, and another variant is another unit.
    assert results.finished(row.model_copy(update={"targets": ()}), "small", 0) == made
    with monkeypatch.context() as patch:
        patch.setattr(results, "tool_versions", lambda: {"torch": "0"})
        assert results.finished(row, "small", 0) is None
    with monkeypatch.context() as patch:
        patch.setattr(results, "code_print", lambda: "other")
        assert results.finished(row, "small", 0) is None


@pytest.mark.parametrize("damage", ["file", "json", "cut"])
def test_damaged_unit_is_made_anew(row: Row, damage: str) -> None:
    finish(row, "small", 0)
    path = results.path_of("tiny", "small", 0)
    if damage == "file":
        (path.parent / "model.pte").unlink()
    elif damage == "json":
        path.write_text(json.dumps({"row": "tiny"}))
    else:
        path.write_text(path.read_text()[:-10])
    assert results.finished(row, "small", 0) is None


def test_code_print_covers_content_and_names(tmp_path: Path) -> None:
    (tmp_path / "compress").mkdir()
    before = results.code_print(tmp_path)
    (tmp_path / "compress/a.py").write_text("x = 1")
    one = results.code_print(tmp_path)
    (tmp_path / "compress/a.py").write_text("x = 2")
    two = results.code_print(tmp_path)
    (tmp_path / "compress/a.py").rename(tmp_path / "compress/b.py")
    assert len({before, one, two, results.code_print(tmp_path)}) == 4


def test_first_variant_of_all_seeds_comes_first_and_finished_units_are_not_run(
    row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(row, "fp32", 1)
    started: list[tuple[str, int]] = []

    def start(words: list[str], log: Path) -> int:
        variant, seed = words[1], int(words[2])
        started.append((variant, seed))
        log.write_text("")
        if (variant, seed) == ("small", 1):
            return 1
        finish(row, variant, seed)
        return 0

    monkeypatch.setattr(bench, "start", start)
    monkeypatch.setattr(bench, "count_instructions", lambda row, units: None)
    made = bench.run_row(row, 2, 1, False)
    assert started == [("fp32", 0), ("small", 0), ("small", 1)]
    # The one that failed has no result and stopped none of the others.
    assert set(made) == {("fp32", 0), ("fp32", 1), ("small", 0)}


def test_failed_unit_tells_its_error(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(words: list[str], log: Path) -> int:
        log.write_text("error: the data are not there\nnoise after it\n")
        return 2

    monkeypatch.setattr(bench, "start", start)
    answer = bench.run_unit(row, "fp32", 0, False)
    assert answer == "ended with exit code 2: the data are not there"


# --- The phone -----------------------------------------------------------------------------------


def test_counts_are_filled_in_or_their_reason(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.compression import phone

    made = {("small", seed): finish(row, "small", seed) for seed in (0, 1)}
    made["fp32", 0] = finish(row, "fp32", 0)  # does not ask for instructions
    asked = []

    def count(files: list[tuple[str, Path]], task: object, say: object) -> dict[Path, float | str]:
        asked.extend(files)
        return {files[0][1]: 123.0, files[1][1]: "no QEMU"}

    monkeypatch.setattr(phone, "count", count)
    monkeypatch.setattr(bench, "task_of", lambda row, seed: None)
    bench.count_instructions(row, made)
    folders = [path.parent.name for _, path in asked]
    assert folders == ["small-seed0", "small-seed1"]
    first, second = (results.finished(row, "small", seed) for seed in (0, 1))
    assert first is not None
    assert second is not None
    assert first.figures["pte_instructions"] == 123.0
    assert second.missing["pte_instructions"] == "no QEMU"
    # Only what has no figure is asked for again.
    asked.clear()
    monkeypatch.setattr(phone, "count", lambda files, *_: {p: 5.0 for _, p in files})
    bench.count_instructions(row, made)
    assert made["small", 0].figures["pte_instructions"] == 123.0
    assert made["small", 1].figures["pte_instructions"] == 5.0
    assert made["small", 1].missing == {}


# --- The page ------------------------------------------------------------------------------------


def test_page_keeps_its_text_and_other_rows(row: Row, tmp_path: Path) -> None:
    page, data = tmp_path / "page.md", tmp_path / "page.json"
    page.write_text(f"# Title\n\n{bench.BEGIN}\nold\n{bench.END}\n\nthe end\n")
    other = row.model_copy(update={"name": "other", "title": "Other"})
    kept = unit("fp32", 0, pte_bytes=7)
    kept[1].row = "other"
    bench.write_page(
        [(row, units(unit("small", 0, pte_bytes=5))), (other, units(kept))], page, data
    )
    text = page.read_text()
    assert text.startswith(f"# Title\n\n{bench.BEGIN}\n")
    assert text.endswith(f"{bench.END}\n\nthe end\n")
    assert "old" not in text
    assert text.index("## Tiny") < text.index("## Other")
    found = bench.published(data)
    assert found["other"]["fp32", 0].figures == {"pte_bytes": 7}
    assert found["tiny"]["small", 0].figures == {"pte_bytes": 5}
    # Written again of what it says itself, it is the same.
    bench.write_page([(row, found["tiny"]), (other, found["other"])], page, data)
    assert page.read_text() == text


def test_page_without_marks_is_left_alone(row: Row, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n")
    with pytest.raises(ConfigError, match="has no marks"):
        bench.write_page([(row, {})], page, tmp_path / "page.json")
    assert page.read_text() == "# Title\n"
    assert not (tmp_path / "page.json").exists()


def test_each_row_is_published_when_it_is_done(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who stops the second row has the first one; the last lines say what was reached."""
    page, data = tmp_path / "page.md", tmp_path / "page.json"
    page.write_text(f"{bench.BEGIN}\n{bench.END}\n")
    other = row.model_copy(update={"name": "other", "title": "Other"})
    both = {"tiny": row, "other": other}
    monkeypatch.setattr(bench.rows, "names", lambda: list(both))
    monkeypatch.setattr(bench.rows, "load", both.__getitem__)
    monkeypatch.setattr(bench, "PAGE", page)
    monkeypatch.setattr(bench, "DATA", data)
    monkeypatch.setattr(bench.results, "ROOT", tmp_path)
    monkeypatch.setattr(bench, "stored_units", lambda row: {})
    stopped: list[str] = []

    def run(row: Row, *_: object) -> table.Units:
        if row.name == "other" and not stopped:
            stopped.append(row.name)
            raise KeyboardInterrupt
        return units(unit("small", 0, pte_bytes=5))

    monkeypatch.setattr(bench, "run_row", run)
    monkeypatch.setattr("sys.argv", ["bench"])
    assert bench.main() == bench.EXIT_INTERRUPTED
    assert list(bench.published(data)) == ["tiny"]
    assert "| ours | 5 |" in page.read_text()
    written = page.read_text()
    monkeypatch.setattr("sys.argv", ["bench", "--page"])
    assert bench.main() == 0
    assert page.read_text() == written
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "not run  Tiny: bytes: asked >= 10x smaller"
    assert said[-1].startswith("not run  all rows: time: asked <= 120 minutes, figure")


def test_published_page_is_what_its_json_says(tmp_path: Path) -> None:
    """docs/benchmarks/compression.md was not edited by hand where the benchmark writes."""
    everything = bench.published(bench.DATA)
    page = tmp_path / "page.md"
    page.write_text(bench.PAGE.read_text(encoding="utf-8"))
    pairs = [(rows.load(name), everything.get(name, {})) for name in rows.names()]
    bench.write_page(pairs, page, tmp_path / "page.json")
    assert page.read_text() == bench.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "options", [["--seeds", "0"], ["--jobs", "0"], ["--model"], ["--sedes", "1"]]
)
def test_wrong_options_are_refused(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bench", *options])
    with pytest.raises(SystemExit) as caught:
        bench.main()
    assert caught.value.code == 2


def test_unknown_model_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", "--model", "lenet-9"])
    assert bench.main() == ConfigError.exit_code
    assert capsys.readouterr().err.startswith("error: MODEL: no row 'lenet-9'")
