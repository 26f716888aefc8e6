"""The command: its help, its pages, its exit codes, and one line for each thing that is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import typer

from deploy import __version__, errors
from deploy.cli import app
from tests.deploy.conftest import (
    ROOT,
    Answer,
    environment,
    report_of,
    run_command,
    write_pipeline,
)
from tests.deploy.tiny_tasks import Net

Call = Callable[..., Answer]
PAGE = ROOT / "docs/cli.md"


def commands(
    group: Any = None, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    group = group or typer.main.get_command(app)
    subcommands = getattr(group, "commands", None)
    if subcommands is None:
        yield path, group
        return
    for name, command in subcommands.items():
        yield from commands(command, (*path, name))


# --- help and documentation -----------------------------------------------------------------------


def test_help_of_every_command_is_there_and_loads_nothing_heavy() -> None:
    script = """
import sys
from deploy.cli import app
for words in {words!r}:
    assert app([*words, "--help"], standalone_mode=False) in (0, None)
heavy = {{"torch", "executorch", "onnxruntime", "coremltools", "onnx", "numpy"}} & set(sys.modules)
assert not heavy, heavy
"""
    every = [list(path) for path, _ in commands()] + [[], ["phone"]]
    done = subprocess.run(
        [sys.executable, "-c", script.format(words=every)],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for path, command in commands():
        assert f"pocketship {' '.join(path)}" in done.stdout.replace("-c", "pocketship")
        assert command.help


def test_every_command_and_option_is_documented_and_exists() -> None:
    page = PAGE.read_text(encoding="utf-8")
    titles = set(re.findall(r"^### `pocketship ([a-z ]+?)(?: [A-Z\[-].*)?`$", page, re.M))
    assert titles == {" ".join(path) for path, _ in commands()}
    sections = re.split(r"^### `pocketship ", page, flags=re.M)[1:]
    for path, command in commands():
        name = " ".join(path)
        (section,) = [s for s in sections if re.match(rf"{name}[ `]", s) and s[len(name)] in " `"]
        section = re.split(r"^## ", section, flags=re.M)[0]
        options = {o for p in command.params for o in p.opts if o.startswith("--")} - {"--help"}
        assert set(re.findall(r"`(--[a-z-]+)", section)) - {"--help"} == options, name


def test_every_exit_code_is_documented() -> None:
    codes = {
        value.exit_code
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.PocketshipError)
    }
    codes |= {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    page = PAGE.read_text(encoding="utf-8")
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.M)} == codes
    epilog = str(typer.main.get_command(app).epilog)
    assert {int(code) for code in re.findall(r"\b(\d+) ", epilog)} == codes


def test_version(call: Call) -> None:
    answer = call("--version")
    assert (answer.code, answer.out) == (0, f"pocketship {__version__}\n")


@pytest.mark.parametrize("words", [["nonsense"], ["run"], ["run", "a", "--nonsense"], ["phone"]])
def test_wrong_usage_is_exit_code_2(call: Call, words: list[str]) -> None:
    assert call(*words).code == 2


# --- small commands -------------------------------------------------------------------------------


def test_init_gives_a_file_that_becomes_right(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = call("init")
    assert answer.code == 0
    assert "next: pocketship check pipeline.yaml" in answer.out
    text = Path("pipeline.yaml").read_text()
    again = call("init")
    assert again.code == 2
    assert "pipeline.yaml: exists already" in again.last
    assert Path("pipeline.yaml").read_text() == text
    # The task that it names is the user's to write.
    missing = call("check", "pipeline.yaml")
    assert missing.code == 2
    assert "cannot import 'my_task'" in missing.last
    write_pipeline(tmp_path / "mine")
    (tmp_path / "pipeline.yaml").write_text(text.replace("my_task:task", "tiny_tasks:tiny"))
    (tmp_path / "mine/tiny_tasks.py").rename(tmp_path / "tiny_tasks.py")
    right = call("check", "pipeline.yaml")
    assert right.code == 0, right.err
    assert "4 calibration and 8 evaluation samples" in right.out
    assert not Path("reports").exists()


def test_init_where_nothing_can_be_written(call: Call, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    answer = call("init", tmp_path / "file/pipeline.yaml")
    assert answer.code == 2
    assert "cannot be written" in answer.last


@pytest.mark.parametrize("of", ["pipeline", "report", "gate"])
def test_schema_is_a_schema(call: Call, of: str) -> None:
    answer = call("schema", "--of", of)
    assert answer.code == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(answer.out))
    assert answer.err == ""


def test_schema_of_something_else(call: Call) -> None:
    answer = call("schema", "--of", "poem")
    assert answer.code == 2
    assert "no schema of 'poem'. Choose one of: pipeline, report, gate." in answer.last


def test_doctor_says_each_thing_and_as_json_the_same(call: Call) -> None:
    answer = call("doctor", "--json")
    found = json.loads(answer.out)
    assert {"name", "ok", "found", "needed_for", "how", "required"} == set(found[0])
    words = call("doctor")
    assert words.code == answer.code
    lines = words.out.splitlines()
    assert len(lines) == len(found) + 1
    for check, line in zip(found, lines, strict=False):
        assert line.startswith("ok" if check["ok"] else "missing")
        assert check["name"] in line
        if not check["ok"]:
            assert check["how"] in line


def test_devices_and_phones_when_none_runs(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKETSHIP_STATE", str(tmp_path))
    listed = call("phone", "list")
    assert (listed.code, listed.out) == (0, "")
    assert "no emulated phone runs" in listed.err
    devices = call("devices")
    assert devices.code == 0
    for profile in (ROOT / "device_profiles").glob("*.yaml"):
        assert (profile.stem in devices.out) == (profile.stem != "auto")
    stop = call("phone", "stop")
    assert stop.code == 6
    assert "no emulated phone runs" in stop.last
    assert call("phone", "shell", "127.0.0.1:1", "true").code == 6
    unknown = call("phone", "start", "nokia-3310")
    assert unknown.code == 2
    assert "there is no device profile 'nokia-3310'" in unknown.last


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "schema", "--of", "report"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.wait(60)
    assert "Traceback" not in err
    assert "Exception ignored" not in err


# --- a wrong pipeline, before anything is computed ------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"task": {"callable": "nowhere:task"}}, "cannot import 'nowhere': ModuleNotFoundError"),
        ({"task": {"callable": "broken:task"}}, "cannot import 'broken': ZeroDivisionError"),
        ({"task": {"callable": "leaves:task"}}, "cannot import 'leaves': SystemExit: 3"),
        ({"task": {"callable": "tiny_tasks:absent"}}, "has no function 'absent'"),
        ({"task": {"callable": "tiny_tasks:wrong_type"}}, "returned int, not a compress.task.Task"),
        ({"task": {"callable": "tiny_tasks:exits"}}, "failed: SystemExit: bye"),
        (
            {"task": {"callable": "tiny_tasks:raises"}},
            r"RuntimeError: the data [red]are[/red]\x1b]0;owned\x07 not there",
        ),
        ({"task": {"callable": "tiny_tasks:takes_size"}}, "check task.arguments"),
        ({"task": {"callable": "tiny_tasks:no_evaluation"}}, "task.evaluation: is empty"),
        ({"task": {"program": "absent.pt2"}}, "absent.pt2: no such file"),
        ({"task": {"program": "tiny_tasks.py"}}, "is not a program that this torch can load"),
        ({"devices": ["pixle-8"]}, "there is no device profile 'pixle-8'"),
        ({"devices": ["./absent.yaml"]}, "this device profile does not exist"),
        ({"devices": ["pixel-8"]}, "device 'pixel-8': needs a serial"),
        ({"devices": [{"profile": "pixel-8", "serial": "a b"}]}, "'a b' is no serial"),
        (
            {"devices": [{"profile": "pixel-8", "serial": "abc", "transport": "tcp"}]},
            "'abc' is not HOST:PORT",
        ),
        ({"devices": [{"profile": "host", "transport": "usb"}]}, "a transport needs a serial"),
        ({"devices": [{"profile": "host", "serial": "a:1"}]}, "takes no serial"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:40],
)
def test_what_is_wrong_before_a_run_is_one_line(
    call: Call, tmp_path: Path, changes: dict[str, object], expected: str
) -> None:
    file = write_pipeline(tmp_path, **changes)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)\n")
    for words in (("check", file), ("run", file)):
        answer = call(*words)
        assert answer.code == 2, answer.err
        assert expected in answer.last
        assert answer.last.startswith("pocketship: ")
        assert answer.out == ""
        assert "Traceback" not in answer.err
    if "devices" in changes:
        assert not (tmp_path / "reports").exists(), "a run was begun"


def test_a_folder_for_reports_that_cannot_be_written(call: Call, tmp_path: Path) -> None:
    file = write_pipeline(tmp_path)
    (tmp_path / "in the way").touch()
    for place in (tmp_path / "in the way", Path("/proc/pocketship")):
        answer = call("run", file, "--reports", place)
        assert answer.code == 2
        assert f"{place}/tiny: cannot write here" in answer.last
        assert "--reports" in answer.last


def test_a_log_in_the_way_is_one_line(call: Call, tmp_path: Path) -> None:
    """`--resume` into a folder where the log cannot be written."""
    file = write_pipeline(tmp_path, task={"callable": "tiny_tasks:raises"})
    assert call("run", file).code == 2
    (root,) = (tmp_path / "reports/tiny").iterdir()
    (root / "log.txt").unlink()
    (root / "log.txt").mkdir()
    answer = call("run", file, "--resume")
    assert answer.code == 2
    assert "log.txt: cannot be written: Is a directory" in answer.last


# --- a model, a metric, a recipe that do not do ---------------------------------------------------


@pytest.mark.parametrize(
    ("function", "code", "expected"),
    [
        ("untraceable", 3, "torch.export refuses the model"),
        ("bad_metric", 2, "task.metric 'mine': failed: KeyError: 'no such label'"),
        ("nan_metric", 2, "task.metric 'mine': gave nan, which is not a finite number"),
    ],
)
def test_what_is_wrong_with_a_task_at_work(
    call: Call, tmp_path: Path, function: str, code: int, expected: str
) -> None:
    answer = call("run", write_pipeline(tmp_path, task={"callable": f"tiny_tasks:{function}"}))
    assert answer.code == code, answer.err
    assert expected in answer.last
    assert "Traceback" not in answer.err
    (root,) = (tmp_path / "reports/tiny").iterdir()
    assert not (root / "compress").exists()
    if function != "nan_metric":
        assert "Traceback" in (root / "log.txt").read_text()


@pytest.mark.slow
def test_a_recipe_that_loses_too_much_stops_the_run(call: Call, tmp_path: Path) -> None:
    recipe = {"name": "int8", "steps": [{"kind": "quantize"}], "require": {"min_sqnr_db": 90}}
    file = write_pipeline(tmp_path, recipe=recipe)
    answer = call("run", file)
    assert answer.code == 3
    assert "variant 'int8': the recipe lost too much: min_sqnr_db" in answer.last
    (root,) = (tmp_path / "reports/tiny").iterdir()
    assert not (root / "artifacts").exists()
    # Going on does not compute it again, and says the same.
    again = call("run", file, "--resume")
    assert again.code == 3
    assert "running" not in again.err


@pytest.mark.slow
def test_a_saved_program_is_judged_on_random_inputs_and_the_report_says_so(
    call: Call, tmp_path: Path
) -> None:
    file = write_pipeline(
        tmp_path,
        task={"program": "model.pt2", "random_samples": 5},
        recipe=None,
        targets=[{"format": "executorch"}],
        verify={"fp32": {"min_sqnr_db": 60}},
        devices=None,
        budgets=None,
        seed=7,
    )
    exported = torch.export.export(Net().eval(), (torch.zeros(1, 1, 8, 8),))
    torch.export.save(exported, tmp_path / "model.pt2")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    before = Path.cwd()
    os.chdir(elsewhere)
    try:
        answer = call("run", file)
    finally:
        os.chdir(before)
    assert answer.code == 0, answer.err
    root = (tmp_path / "reports/tiny/latest").resolve()
    note = "no data: judged on 5 random inputs (seed 7)"
    assert report_of(root)["ledger"][0]["notes"] == [note]
    for page in ("report.md", "compression.html"):
        assert note in (root / page).read_text().replace("\\", ""), page
    assert report_of(root)["devices"] == []


def test_the_module_runs_as_a_program_too(tmp_path: Path) -> None:
    answer = run_command("check", tmp_path / "absent.yaml", cwd=tmp_path)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err == (
        f"pocketship: {tmp_path}/absent.yaml: no such file. Write one: pocketship init FILE.\n"
    )
