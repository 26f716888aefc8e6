"""A finished run: what it printed and left, and each stage again on a copy of it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from adb_shell.auth.keygen import keygen

from deploy import harness, pipeline, stored, workspace
from deploy.bench.absence import Absent
from deploy.bench.session import case_id
from deploy.config import DeviceConfig
from deploy.devices import adb, profiles
from deploy.devices.host import HostDevice
from deploy.files import sha256, tree_digest
from deploy.types import Case, DeviceRun, Status, silent
from tests.deploy.conftest import Answer, FinishedRun, hashes, report_of
from tests.deploy.native_adbd import NativeAdbd, running
from tests.deploy.scripted_phone import ScriptedPhone

pytestmark = pytest.mark.slow  # The run that they share takes most of a minute.

Call = Callable[..., Answer]
NAMES = [f"{v}.{f}" for v in ("fp32", "int8") for f in ("executorch", "onnx", "ort", "coreml")]


@pytest.fixture
def root(finished: FinishedRun, tmp_path: Path) -> Path:
    return finished.copy(tmp_path)


def log_of(root: Path) -> str:
    return (root / "log.txt").read_text(encoding="utf-8", errors="replace")


# --- what a run prints and leaves -----------------------------------------------------------------


def test_standard_output_is_the_result_and_nothing_else(finished: FinishedRun) -> None:
    lines = finished.answer.out.splitlines()
    assert lines[0].startswith("PASS: all ")
    assert lines[0].endswith("Exit code 0.")
    assert lines[-1] == f"Report: {finished.root / 'index.html'}"
    assert "NOISE" not in finished.answer.out
    assert "\x1b" not in finished.answer.out


def test_standard_error_is_progress_and_nothing_else(finished: FinishedRun) -> None:
    """Three exporters and three runtimes at work, and not one line of theirs."""
    lines = finished.answer.err.splitlines()
    for line in lines:
        seconds, _, rest = line.strip().partition("s ")
        assert float(seconds) >= 0, line
        assert rest, line
    for words in (
        "loading the task; what it prints itself is in log.txt",
        "recipe step 1 (quantize)",
        "exporting int8 as coreml",
        "verifying int8.ort on 8 samples",
        "fp32.onnx@host/t2",
        "writing the report",
    ):
        assert any(words in line for line in lines), words
    assert "\x1b" not in finished.answer.err


def test_what_others_print_is_in_the_log(finished: FinishedRun) -> None:
    log = log_of(finished.root)
    for way in ("print", "stderr", "fd 1", "fd 2", "child"):
        assert f"NOISE {way}\n" in log
    assert "writing the report" in log


def test_nothing_half_written_is_left(finished: FinishedRun) -> None:
    assert [p.name for p in finished.root.rglob(".*")] == [workspace.LOCK]
    assert not list(finished.pipeline.parent.rglob("pwned"))


def test_manifests_say_what_the_files_are(finished: FinishedRun) -> None:
    assert sorted(hashes(finished.root)) == sorted(NAMES)
    report = report_of(finished.root)
    assert [artifact["name"] for artifact in report["artifacts"]] == NAMES
    for artifact in report["artifacts"]:
        path = finished.root / "artifacts" / artifact["path"]
        assert tree_digest(path) == (artifact["sha256"], artifact["bytes"])
        source = finished.root / "compress" / f"{artifact['variant']}.pt2"
        assert artifact["source_sha256"] == sha256(source)
        assert artifact["inputs"][0]["shape"] == [1, 1, 8, 8]
        assert artifact["outputs"][0]["shape"] == [1, 4]
        assert bool(artifact["recipe"]) == (artifact["variant"] == "int8")


def test_the_report_has_every_case_on_its_device(finished: FinishedRun) -> None:
    report = report_of(finished.root)
    assert [case["id"] for case in report["cases"]] == [
        f"{name}@host/t{threads}" for name in NAMES for threads in (1, 2)
    ]
    for case in report["cases"]:
        apple = case["artifact"].endswith("coreml")
        assert case["status"] == ("not_run" if apple else "ok")
        assert bool(case["reason"]) == apple
        if not apple:
            raw = finished.root / "bench/raw" / f"{case['id'].replace('/', '_')}.json"
            assert json.loads(raw.read_text())["threads"] == case["threads"]


# --- stages alone ---------------------------------------------------------------------------------


def comparable(root: Path) -> dict[str, Any]:
    """A report without what a clock decides."""
    report = report_of(root)
    for case in report["cases"]:
        for key in ("wall_seconds", "before", "after"):
            case[key] = None
        # The first load after a push is there only where this run pushed the model.
        rows = [(m["metric"], m["status"]) for m in case["measurements"]]
        case["measurements"] = [row for row in rows if row[0] != "install_load_ms"]
    for device in report["devices"]:
        for key in ("bytes_pushed", "bytes_already_there", "push_mb_s"):
            device[key] = None
    keys = ("artifacts", "parity", "devices", "cases", "ledger", "outcome", "exit_code")
    return {key: report[key] for key in keys}


@pytest.mark.soak
def test_stages_one_after_another_give_what_run_gives(
    finished: FinishedRun, tmp_path: Path, call: Call
) -> None:
    root = finished.copy(tmp_path, targets=[{"format": "executorch"}])
    for output in ("artifacts", "verify", "bench"):
        shutil.rmtree(root / output)
    for name in ("report.json", "report.md", "index.html"):
        (root / name).unlink()
    answers = [call(stage, root) for stage in ("export", "verify", "bench", "report")]
    assert [answer.code for answer in answers] == [0, 0, 0, 0], answers
    assert answers[0].out.strip() == f"2 files in {root / 'artifacts'}"
    wanted = comparable(finished.root)
    for key, name in (("artifacts", "format"), ("parity", "artifact"), ("cases", "artifact")):
        wanted[key] = [row for row in wanted[key] if row[name].endswith("executorch")]
    assert comparable(root) == wanted
    assert (root.parent / "latest").resolve() == root


def test_report_again_is_the_same_report(root: Path, call: Call) -> None:
    before = (root / "report.json").read_bytes()
    (root / "report.json").write_text("{cut off")
    assert call("report", root).code == 0
    assert (root / "report.json").read_bytes() == before


def test_verify_again_keeps_what_was_measured(root: Path, call: Call) -> None:
    cases = report_of(root)["cases"]
    answer = call("verify", root)
    assert answer.code == 0
    assert "case 1" not in answer.err
    assert report_of(root)["cases"] == cases


@pytest.mark.soak
def test_a_changed_artifact_is_refused_until_it_is_exported_again(root: Path, call: Call) -> None:
    before = hashes(root)
    path = root / "artifacts/int8.pte"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    for stage in ("verify", "bench", "report"):
        answer = call(stage, root)
        assert answer.code == 4
        assert "int8.pte: changed since it was exported" in answer.last
        assert f"pocketship export {root} makes it again" in answer.last
    assert (root / "bench/cases").is_dir(), "results were thrown away before the check"
    with workspace.exclusive(workspace.open_run(root)):
        from deploy import pipeline

        said: list[str] = []
        # What `run --resume` does: only what is damaged is made again.
        pipeline.run_export(workspace.open_run(root), said.append)
    assert [line for line in said if "exporting" in line] == ["exporting int8 as executorch"]
    assert hashes(root) == before


@pytest.mark.parametrize("damage", ["missing", "link", "empty manifest", "outside"])
def test_damage_of_every_kind_is_one_line(root: Path, call: Call, damage: str) -> None:
    path = root / "artifacts/fp32.onnx"
    manifest = root / "artifacts/fp32.onnx.manifest.json"
    if damage == "missing":
        path.unlink()
    elif damage == "link":
        (root / "artifacts/fp32.mlpackage/x").symlink_to("/etc/passwd")
    elif damage == "empty manifest":
        manifest.write_text("")
    else:
        data = json.loads(manifest.read_text())
        manifest.write_text(json.dumps({**data, "path": "../compress/fp32.pt2"}))
    answer = call("report", root)
    assert answer.code == (2 if damage == "empty manifest" else 4)
    assert "pocketship: " in answer.last
    assert "Traceback" not in answer.err


def place(root: Path, name: str, data: bytes) -> None:
    """Put other content in an artifact's place, with a manifest that fits it."""
    manifest = root / "artifacts" / f"{name}.manifest.json"
    described = json.loads(manifest.read_text())
    path = root / "artifacts" / described["path"]
    path.write_bytes(data)
    described |= {"sha256": sha256(path), "bytes": len(data)}
    manifest.write_text(json.dumps(described))


def other_version(data: bytes) -> bytes:
    # A flatbuffer's file identifier stands at bytes 4 to 8; another one is another format version.
    assert data[4:6] == b"ET"
    return data[:4] + b"ET99" + data[8:]


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("fp32.executorch", other_version),
        ("fp32.executorch", lambda data: data[: len(data) // 2]),
        ("fp32.executorch", lambda data: b""),
        ("fp32.onnx", lambda data: data[: len(data) // 2]),
        ("int8.ort", lambda data: data[:100]),
    ],
    ids=["pte of another version", "pte cut off", "pte empty", "onnx cut off", "ort cut off"],
)
def test_an_artifact_that_its_runtime_cannot_load_fails_parity(
    root: Path, call: Call, name: str, damage: Callable[[bytes], bytes]
) -> None:
    path = (
        root
        / "artifacts"
        / json.loads((root / "artifacts" / f"{name}.manifest.json").read_text())["path"]
    )
    place(root, name, damage(path.read_bytes()))
    # Bench does not measure what is not verified as it is now.
    unverified = call("bench", root)
    assert unverified.code == 2
    assert "1 artifacts are not verified as they are now" in unverified.last
    answer = call("verify", root)
    assert answer.code == 5
    assert "its runtime cannot load it" in answer.out
    assert answer.out.startswith("REGRESSED: an artifact does not compute")
    (row,) = [row for row in report_of(root)["parity"] if row["artifact"] == name]
    assert row["status"] == "failed"
    # Nor what is verified and failed; and the case of the earlier content is gone.
    assert call("bench", root).code == 5
    assert not [case for case in report_of(root)["cases"] if case["artifact"] == name]


def test_another_models_file_fails_parity(root: Path, call: Call) -> None:
    """It loads and runs; only its numbers tell."""
    from compress.capture import load_program
    from deploy.export import executorch
    from deploy.export.options import ExecuTorchTarget
    from deploy.types import Format

    program = load_program(root / "compress/fp32.pt2")
    with torch.no_grad():
        program.state_dict["fc.weight"].mul_(1.5)
    target = ExecuTorchTarget(format=Format.EXECUTORCH)
    (made,) = executorch.export(program, target, root.parent, "other")
    place(root, "fp32.executorch", made.path.read_bytes())
    answer = call("verify", root)
    assert answer.code == 5
    assert "min_sqnr_db" in answer.out


def test_a_folder_that_is_no_run(tmp_path: Path, call: Call) -> None:
    for stage in ("export", "verify", "bench", "report"):
        answer = call(stage, tmp_path)
        assert answer.code == 2
        assert "is not a run folder (no run.json)" in answer.last


def test_a_run_that_was_not_compressed(root: Path, call: Call) -> None:
    shutil.rmtree(root / "compress")
    answer = call("export", root)
    assert answer.code == 2
    assert "has no compressed model yet" in answer.last
    assert "--resume" in answer.last
    assert (root / "artifacts").is_dir(), "it was thrown away although nothing can replace it"


def test_export_does_not_pass_what_the_recipe_lost(
    finished: FinishedRun, tmp_path: Path, call: Call
) -> None:
    recipe = {"name": "int8", "steps": [{"kind": "quantize"}], "require": {"min_sqnr_db": 90}}
    answer = call("export", finished.copy(tmp_path, recipe=recipe))
    assert answer.code == 3
    assert "the recipe lost too much: min_sqnr_db" in answer.last


def test_a_limit_that_is_exceeded_is_exit_code_8(
    finished: FinishedRun, tmp_path: Path, call: Call
) -> None:
    budgets = [{"subject": "int8.executorch", "metric": "bytes", "max": 100}]
    root = finished.copy(tmp_path, budgets=budgets)
    answer = call("report", root)
    assert answer.code == 8
    assert "int8.executorch: bytes" in answer.out
    assert report_of(root)["exit_code"] == 8


# --- devices --------------------------------------------------------------------------------------


def devices_of(root: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = report_of(root)["devices"]
    return found


@pytest.mark.parametrize(("optional", "code"), [(False, 7), (True, 0)])
def test_a_phone_that_does_not_answer(
    finished: FinishedRun, tmp_path: Path, call: Call, optional: bool, code: int
) -> None:
    # Port 1 of this machine: nobody listens there.
    phone = {"profile": "pixel-8", "serial": "127.0.0.1:1", "optional": optional, "wait_s": 0}
    root = finished.copy(tmp_path, devices=[{"profile": "host"}, phone])
    shutil.rmtree(root / "bench/cases")
    answer = call("bench", root)
    assert answer.code == code, answer.err
    here, there = devices_of(root)
    assert here["status"] == "ok"
    assert there["status"] == ("not_run" if optional else "invalid")
    assert "127.0.0.1:1" in there["reason"]
    # It is said where the user looks, also when it is allowed.
    assert "pixel-8" in answer.out
    assert "127.0.0.1:1" in answer.out


@pytest.fixture
def adbd(tmp_path: Path) -> Iterator[NativeAdbd]:
    with running(harness.adbd(HostDevice().profile.abi), tmp_path / "adbd") as daemon:
        yield daemon


def test_a_key_that_the_phone_does_not_know(
    finished: FinishedRun,
    tmp_path: Path,
    call: Call,
    adbd: NativeAdbd,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Our real daemon, which trusts another key than this user's."""
    home = tmp_path / "home"
    (home / ".android").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    # How long a person has to accept the key on the phone's screen: nobody is there.
    monkeypatch.setitem(adb.connect.__kwdefaults__, "auth_timeout_s", 1.0)
    keygen(str(home / ".android/adbkey"))
    phone = {"profile": "generic-arm64", "serial": adbd.serial}
    root = finished.copy(tmp_path, devices=[phone])
    answer = call("bench", root)
    assert answer.code == 7
    (device,) = devices_of(root)
    assert device["status"] == "invalid"
    assert "key" in device["reason"]
    assert adbd.serial in device["reason"]


@pytest.mark.parametrize(("optional", "code"), [(True, 0), (False, 7)])
def test_without_qemu_a_run_is_host_only(
    finished: FinishedRun,
    tmp_path: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    optional: bool,
    code: int,
) -> None:
    phone = {"profile": "emulated-arm64", "optional": optional}
    root = finished.copy(tmp_path, devices=[{"profile": "host"}, phone])
    tools = tmp_path / "tools"
    tools.mkdir()
    for folder in reversed(os.environ["PATH"].split(os.pathsep)):
        for program in Path(folder).glob("*"):
            if not program.name.startswith("qemu-"):
                (tools / program.name).unlink(missing_ok=True)
                (tools / program.name).symlink_to(program)
    monkeypatch.setenv("PATH", str(tools))
    answer = call("bench", root)
    assert answer.code == code, answer.err
    here, there = devices_of(root)
    assert here["status"] == "ok"
    assert there["status"] == ("not_run" if optional else "invalid")
    assert "qemu-system-aarch64" in there["reason"]
    assert "emulated-arm64" in answer.out


def test_a_profile_that_is_given_by_its_path(
    finished: FinishedRun, tmp_path: Path, call: Call
) -> None:
    from deploy.paths import profiles_dir

    text = (profiles_dir() / "host.yaml").read_text()
    mine = tmp_path / "mine.yaml"
    mine.write_text(text.replace("name: host", "name: my-machine"))
    root = finished.copy(tmp_path, devices=[{"profile": str(mine)}])
    shutil.rmtree(root / "bench")
    answer = call("bench", root)
    assert answer.code == 0, answer.err
    report = report_of(root)
    assert [device["status"] for device in report["devices"]] == ["ok"]
    assert report["cases"][0]["id"] == "fp32.executorch@my-machine/t1"
    folder = workspace.open_run(root)
    assert len(stored.cases(folder, workspace.artifacts_of(folder))) == 16


class Flaky:
    """Stands for connecting and measuring; what each turn of a device ends with is scripted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **ends: list[str]) -> None:
        self.ends = {name.replace("_", "-"): list(script) for name, script in ends.items()}
        self.jobs: list[tuple[str, int]] = []
        monkeypatch.setattr(pipeline, "at_once", self.at_once)
        monkeypatch.setattr(pipeline, "bundle", lambda *_: None)
        monkeypatch.setattr(pipeline, "run_device", self.run_device)

    @contextlib.contextmanager
    def at_once(self, wanted: DeviceConfig, _: object) -> Iterator[ScriptedPhone]:
        if self.ends[wanted.profile][0] == "absent":
            self.ends[wanted.profile].pop(0)
            raise Absent("connection refused", where="S")
        yield ScriptedPhone(profile=profiles.load(wanted.profile))

    def run_device(self, device: Any, jobs: Any, *_: Any, keep: Any, **__: Any) -> Any:
        name = device.profile.name
        self.jobs.append((name, len(jobs)))
        lost = self.ends[name].pop(0) == "lost"
        status, reason = (Status.INVALID, "device lost: no answer.") if lost else (Status.OK, "")
        for number, job in enumerate(jobs):
            bad = lost and number > 0
            case = Case(
                id=case_id(job.artifact.name, name, job.threads),
                artifact=job.artifact.name,
                artifact_sha256=job.artifact.sha256,
                device=name,
                threads=job.threads,
                status=Status.INVALID if bad else Status.OK,
                reason=reason if bad else "",
            )
            keep(case, None)
        info = device.info()
        return DeviceRun(profile=device.profile, status=status, reason=reason, info=info), []


def test_a_lost_phone_that_is_back_goes_on_with_what_is_missing(
    finished: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flaky = Flaky(monkeypatch, host=["ok"], pixel_8=["lost", "ok"])
    root = finished.copy(tmp_path, devices=[{"profile": "pixel-8", "serial": "S"}, "host"])
    shutil.rmtree(root / "bench")
    folder = workspace.open_run(root)
    pipeline.run_bench(folder, silent)
    assert flaky.jobs == [("pixel-8", 16), ("host", 16), ("pixel-8", 15)]
    cases = stored.cases(folder, workspace.artifacts_of(folder))
    assert [case.status for case in cases] == [Status.OK] * 32
    assert [row.status for row in stored.devices(folder)] == [Status.OK] * 2


@pytest.mark.parametrize(
    ("script", "reason", "known"),
    [(["lost", "absent"], "device lost: no answer.", True), (["absent"] * 2, "refused", False)],
    ids=["lost", "absent"],
)
def test_a_phone_that_stays_away_has_one_outcome(
    finished: FinishedRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: list[str],
    reason: str,
    known: bool,
) -> None:
    """A lost one keeps what was known of it; the next look at it does not overwrite that."""
    Flaky(monkeypatch, host=["ok"], pixel_8=script)
    phone = {"profile": "pixel-8", "serial": "S", "wait_s": 0}
    root = finished.copy(tmp_path, devices=[phone, "host"])
    shutil.rmtree(root / "bench")
    folder = workspace.open_run(root)
    pipeline.run_bench(folder, silent)
    row, host = stored.devices(folder)
    assert (row.status, host.status) == (Status.INVALID, Status.OK)
    assert reason in row.reason
    assert (row.info is not None) is known
