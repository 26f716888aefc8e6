"""`pocketship gate` as a user starts it: outcomes, exit codes, files, resuming, bad words."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.report import certificate_files, store
from deploy.types import GateReport, Outcome
from tests.deploy.conftest import ROOT, Answer, FinishedRun, command, environment
from tests.deploy.native_adbd import NativeAdbd, hide_others, trusting

Call = Callable[..., Answer]

# Memory hardly varies, and 90 % is far beyond what noise does to the times: no clock decides here.
CALM = ("--primary", "peak_rss_kib", "--threshold", "0.9")
ONE = ("--variant", "fp32", "--format", "executorch", "--threads", "1")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POCKETSHIP_DATA", str(tmp_path / "data"))
    return tmp_path


def report_of(answer: Answer) -> GateReport:
    found = re.search(r"^Report: (.*)$", answer.out, re.M)
    assert found, answer.out + answer.err
    return store.load_gate(Path(found[1]).parent)


def model_files(finished: FinishedRun, folder: Path, **chosen: str) -> dict[str, Path]:
    """Copies of artifacts under other names: ``base="int8.pte"`` becomes ``base/model.pte``."""
    made = {}
    for name, file in chosen.items():
        made[name] = folder / name / f"model{Path(file).suffix}"
        made[name].parent.mkdir()
        shutil.copy(finished.root / "artifacts" / file, made[name])
    return made


# --- without a device: what can be seen of the files ----------------------------------------------


def test_a_larger_file_is_a_regression_and_a_smaller_one_an_improvement(
    finished: FinishedRun, call: Call, tmp_path: Path
) -> None:
    files = model_files(finished, tmp_path, small="int8.onnx", large="fp32.onnx")
    sizes = {name: path.stat().st_size for name, path in files.items()}
    small, large = sorted(files, key=lambda name: sizes[name])
    worse = call("gate", files[small].parent, files[large].parent)
    assert worse.code == 8, worse.err
    assert worse.out.startswith("REGRESSED: head is worse than base: model.onnx: bytes")
    assert f"{sizes[small]:,} → {sizes[large]:,} bytes" in worse.out
    assert "no device" in worse.out
    report = report_of(worse)
    assert (report.outcome, report.exit_code, report.device) == (Outcome.REGRESSED, 8, None)
    root = tmp_path / "reports/gate/latest"
    assert "REGRESSED" in (root / "comment.md").read_text()
    assert ET.parse(root / "junit.xml").getroot().find(".//failure") is not None
    better = call("gate", files[large], files[small], "--improved-exit-code", "10")
    assert better.code == 10
    assert report_of(better).exit_code == 0
    allowed = call("gate", files[small], files[large], "--accepted", accepted_bytes(tmp_path))
    assert allowed.code == 0, allowed.out
    assert allowed.out.startswith("PASS: what is worse was accepted on purpose: model.onnx: bytes.")
    assert "in force: *: bytes may come to 99x" in allowed.out


def accepted_bytes(folder: Path) -> Path:
    path = folder / "accepted.yaml"
    path.write_text(
        "version: 1\naccepted:\n  - {subject: '*', metric: bytes, up_to: 99, reason: why not, "
        "by: me, since: 2020-01-01, until: 2999-12-31}\n"
    )
    return path


def test_the_pipelines_own_rules_hold_where_head_is_a_run(
    finished: FinishedRun, call: Call, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(finished.root / "artifacts", base)
    manifest = base / "fp32.onnx.manifest.json"
    data = json.loads(manifest.read_text())
    with (base / "fp32.onnx").open("ab"):
        pass
    head = finished.copy(tmp_path, gate={"allow": {"bytes": 5.0}})
    budgeted = finished.copy(
        tmp_path / "b", budgets=[{"subject": "fp32.onnx", "metric": "bytes", "max": 10}]
    )
    # The same files but for base's fp32, which is the smaller int8 under its name.
    shutil.copy(base / "int8.onnx", base / "fp32.onnx")
    small = json.loads((base / "int8.onnx.manifest.json").read_text())
    data |= {key: small[key] for key in ("sha256", "bytes")}
    manifest.write_text(json.dumps(data))
    only = ("--variant", "fp32", "--format", "onnx")
    strict = call("gate", base, finished.root, *only)
    grown = data["bytes"] < Path(finished.root / "artifacts/fp32.onnx").stat().st_size
    assert strict.code == (8 if grown else 0), strict.out
    assert call("gate", base, head, *only).code == 0
    over = call("gate", budgeted, budgeted, *only)
    assert over.code == 8
    assert "limit 10" in over.out or "over its limit" in over.out


@pytest.mark.parametrize(("side", "code"), [("head", 5), ("base", 7)])
def test_a_failed_parity_stops_before_anything_is_measured(
    finished: FinishedRun, call: Call, tmp_path: Path, side: str, code: int
) -> None:
    broken = finished.copy(tmp_path)
    path = broken / "verify/parity.json"
    data = json.loads(path.read_text())
    for row in data["rows"]:
        if row["artifact"] == "fp32.executorch":
            row |= {"status": "failed", "reason": "it is a hair dryer"}
    path.write_text(json.dumps(data))
    sides = {"head": (finished.root, broken), "base": (broken, finished.root)}
    answer = call("gate", *sides[side], "--device", "host", *ONE)
    assert answer.code == code, answer.out
    assert "it is a hair dryer" in answer.out
    assert not report_of(answer).sessions


# --- with a device --------------------------------------------------------------------------------


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NativeAdbd]:
    """Our own ADB daemon on this machine, which trusts this user's key."""
    hide_others(tmp_path, monkeypatch)
    with trusting(tmp_path, monkeypatch) as daemon:
        yield daemon


def test_pairs_go_in_abba_order_and_an_aa_says_so(
    finished: FinishedRun, call: Call, tmp_path: Path
) -> None:
    answer = call("gate", finished.root, finished.root, "--device", "host", *ONE, *CALM)
    assert answer.code == 0, answer.out + answer.err
    report = report_of(answer)
    assert [(s.pair, s.side) for s in report.sessions] == [
        (pair, side)
        for pair in range(6)
        for side in (("base", "head") if pair % 2 == 0 else ("head", "base"))
    ]
    assert [s.order for s in report.sessions] == list(range(12))
    assert report.device is not None
    assert report.device.info is not None
    (primary,) = [v for v in report.verdicts if v.metric == "peak_rss_kib"]
    assert primary.paired is not None
    assert len(primary.paired.ratios) == 6
    assert "the same file on both sides (A/A)" in answer.out
    assert "6 pairs of sessions" in answer.out
    assert len(list((tmp_path / "reports/gate/latest/sessions").iterdir())) == 12
    # docs/history.md says why: alternating sessions are no points of a branch's series.
    assert not list(tmp_path.rglob("*.sqlite"))


@pytest.mark.slow
def test_a_phone_over_adb_is_gated_too_and_its_serial_number_stays_private(
    finished: FinishedRun, call: Call, phone: NativeAdbd, tmp_path: Path
) -> None:
    # The known one's work folder would be a folder of this machine, outside of the test's.
    known = (ROOT / "device_profiles/generic-x86_64.yaml").read_text()
    profile = tmp_path / "profile.yaml"
    profile.write_text(known.replace("/data/local/tmp", str(tmp_path)))
    answer = call(
        *("gate", finished.root, finished.root, "--device", profile),
        *("--serial", phone.serial, *ONE, *CALM),
    )
    assert answer.code == 0, answer.out + answer.err
    report = report_of(answer)
    assert len(report.sessions) == 12
    assert report.device is not None
    assert report.device.bytes_pushed > 0
    assert "SECRET" not in (tmp_path / "reports/gate/latest/gate.json").read_text()


def test_a_device_that_is_not_there_is_invalid_with_its_reason(
    finished: FinishedRun, call: Call
) -> None:
    answer = call(
        *("gate", finished.root, finished.root, "--device", "generic-x86_64"),
        *("--serial", "127.0.0.1:1", *ONE),
    )
    assert answer.code == 7, answer.out
    assert answer.out.startswith("INVALID: what was asked could not be measured")
    assert "127.0.0.1:1" in answer.out
    report = report_of(answer)
    # The files were compared all the same.
    assert any(v.metric == "bytes" and v.outcome is Outcome.PASS for v in report.verdicts)


@pytest.mark.soak
def test_kill_9_loses_no_session_and_resume_goes_on(finished: FinishedRun, tmp_path: Path) -> None:
    words = ("gate", finished.root, finished.root, "--device", "host", *ONE, *CALM)
    env = environment(POCKETSHIP_DATA=str(tmp_path / "data"))
    with subprocess.Popen(
        command(*words), cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "pair 3, head" in line:
                process.send_signal(signal.SIGKILL)
                break
    (root,) = (tmp_path / "reports/gate").iterdir()
    kept = {path.name: path.read_bytes() for path in (root / "sessions").iterdir()}
    assert len(kept) >= 5
    assert not (root / "gate.json").exists()
    done = subprocess.run(
        command(*words, "--resume"), cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"going on with {root}" in done.stderr
    report = store.load_gate(root)
    assert len(report.sessions) == 12
    for name, content in kept.items():
        assert (root / "sessions" / name).read_bytes() == content
    # It ended, so the same words begin a new one; a file that was edited is refused before that.
    (root / "gate.json").write_text((root / "gate.json").read_text().replace("PASS", "IMPROVED"))
    again = subprocess.run(
        command(*words, "--resume"), cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert again.returncode == 2
    assert "edited after it was written" in again.stderr


@pytest.mark.soak
def test_ctrl_c_while_it_measures_leaves_what_resume_finishes(
    finished: FinishedRun, tmp_path: Path
) -> None:
    """To the whole process group, as a terminal sends it: the runner under way gets it too."""
    words = ("gate", finished.root, finished.root, "--device", "host", *ONE, *CALM)
    env = environment(POCKETSHIP_DATA=str(tmp_path / "data"))
    process = subprocess.Popen(
        command(*words),
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if "pair 3, head" in line:
                os.killpg(process.pid, signal.SIGINT)
                break
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    last = err.splitlines()[-1]
    assert "interrupted. What is measured is kept; go on with: pocketship gate" in last
    assert last.endswith("--resume")
    assert "Traceback" not in err
    assert out == ""
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # Nothing that it started lives on.
    (root,) = (tmp_path / "reports/gate").iterdir()
    kept = {path.name: path.read_bytes() for path in (root / "sessions").iterdir()}
    assert 5 <= len(kept) < 12
    assert not (root / "gate.json").exists()
    assert [path for path in root.rglob(".*") if path.name != ".lock"] == []
    # A session that Ctrl-C ended is no session: nothing of the model failed.
    assert {json.loads(text)["session"]["case"]["status"] for text in kept.values()} == {"ok"}

    done = subprocess.run(
        command(*words, "--resume"), cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"going on with {root}" in done.stderr
    report = store.load_gate(root)
    assert [(s.pair, s.side) for s in report.sessions] == [
        (pair, side)
        for pair in range(6)
        for side in (("base", "head") if pair % 2 == 0 else ("head", "base"))
    ]
    for name, content in kept.items():
        assert (root / "sessions" / name).read_bytes() == content
    assert len(list((root / "sessions").iterdir())) == 12


@pytest.mark.slow
def test_a_certificate_that_was_just_made_is_found_named_and_held_to(
    finished: FinishedRun, call: Call, tmp_path: Path
) -> None:
    made = call(
        *("calibrate", "host", finished.root, "--artifact", "fp32.executorch"),
        *("--preset", "exact", "--pairs", "6"),
    )
    assert made.code == 0, made.err
    (path,) = (tmp_path / "data" / "certificates").glob("*.json")
    certificate = certificate_files.read(path)
    answer = call("gate", finished.root, finished.root, "--device", "host", *ONE, *CALM)
    assert answer.code == 0, answer.out + answer.err
    report = report_of(answer)
    assert report.certificates == (certificate,)
    assert f"noise certificate of {certificate.created_utc[:10]} (executorch, 1 thread)" in (
        answer.out
    )
    (primary,) = [v for v in report.verdicts if v.metric == "peak_rss_kib"]
    (figure,) = [one for one in certificate.figures if one.metric == "peak_rss_kib"]
    assert primary.paired is not None
    assert primary.paired.mde == figure.mde
    # Finer than its noise: refused before anything is measured. Another thread count is another.
    fine = (*CALM[:3], "0.00001")
    refused = call("gate", finished.root, finished.root, "--device", "host", *ONE, *fine)
    assert refused.code == 2, refused.out
    assert "cannot be told from noise here" in refused.last
    assert f"certificate of {certificate.created_utc[:10]}" in refused.last


# --- revisions and pipelines ----------------------------------------------------------------------


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=T", "-c", "user.email=t@example.org")
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


@pytest.mark.soak
def test_a_revision_against_the_working_tree(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.deploy.conftest import write_pipeline

    # The built runner stays where it is; only revisions are cached here.
    monkeypatch.setattr("deploy.gating.revisions.cache_dir", lambda: tmp_path / "cache")
    repository = tmp_path / "repository"
    pipeline = write_pipeline(
        repository / "models",
        task={"callable": "tiny_tasks:tiny"},
        recipe=None,
        targets=[{"format": "executorch"}],
        verify=None,
        devices=None,
        budgets=None,
        reports="reports",
    )
    git(repository, "init", "-q", "-b", "main")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "base")
    tasks = repository / "models/tiny_tasks.py"
    # The same module name on both sides, with different content.
    tasks.write_text(
        tasks.read_text().replace("Conv2d(1, 4, 3)", "Conv2d(1, 8, 3)").replace("4 * 6", "8 * 6")
    )
    monkeypatch.chdir(repository)
    answer = call("gate", "git:main", pipeline, "--reports", tmp_path / "reports")
    assert answer.code == 8, answer.out + answer.err
    assert "fp32.executorch: bytes" in answer.out
    report = report_of(answer)
    assert (report.base.kind, report.head.kind) == ("revision", "pipeline")
    assert report.base.commit is not None
    assert report.head.commit == f"{report.base.commit}+"
    assert not (repository / "reports").exists()
    # Made once: the same commit against itself repeats nothing, and is an A/A.
    again = call("gate", "main", "HEAD", "--pipeline", "models/pipeline.yaml")
    assert again.code == 0, again.out + again.err
    assert again.err.count("was made before") == 2
    assert "A/A" in again.out
    missing = call("gate", "main", "HEAD", "--pipeline", "models/other.yaml")
    assert missing.code == 2
    assert "has no file models/other.yaml" in missing.last


def test_a_pipeline_that_fails_says_which_side_and_why(call: Call, tmp_path: Path) -> None:
    from tests.deploy.conftest import write_pipeline

    pipeline = write_pipeline(tmp_path / "p", task={"callable": "tiny_tasks:raises"})
    answer = call("gate", pipeline, pipeline)
    assert answer.code == 2
    assert "base" in answer.last
    assert "the data" in answer.last
    assert len(answer.last.splitlines()) == 1


# --- bad words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--device", "nonsense"], "nonsense"),
        (["--serial", "127.0.0.1:1"], "--serial without --device"),
        (["--device", "host", "--transport", "carrier-pigeon"], "no transport"),
        (["--format", "nonsense"], "--format: no 'nonsense'"),
        (["--primary", "beauty"], "--primary: no 'beauty'"),
        (["--threshold", "0"], "--threshold"),
        (["--threshold", "nan"], "--threshold"),
        (["--pairs", "3"], "--pairs"),
        (["--across", "time"], "--across: no 'time'"),
        (["--improved-exit-code", "8"], "means something else"),
        (["--pipeline", "/etc/passwd"], "not inside a repository"),
        (["--pipeline", "../p.yaml"], "not inside a repository"),
        (["--accepted", "missing.yaml"], "missing.yaml"),
        (["--variant", "nonsense"], "no artifact in common"),
    ],
)
def test_wrong_words_are_one_line_and_exit_code_2(
    finished: FinishedRun, call: Call, words: list[str], says: str
) -> None:
    answer = call("gate", finished.root, finished.root, *words)
    assert answer.code == 2, answer.err
    assert says in answer.last
    assert "Traceback" not in answer.err


def test_a_revision_without_its_pipelines_name_says_what_to_give(
    finished: FinishedRun, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "commit", "-qm", "empty", "--allow-empty")
    monkeypatch.setattr("deploy.gating.revisions.cache_dir", lambda: tmp_path / "cache")
    answer = call("gate", "main", finished.root)
    assert answer.code == 2
    assert "--pipeline FILE" in answer.last


def test_the_hint_to_go_on_never_shows_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    from deploy.gating import command as command_
    from deploy.gating.comparing import Comparison, Overrides
    from deploy.gating.folder import Wanted
    from deploy.gating.meeting import Filter
    from deploy.history import address

    url = "postgresql://me:s3cret@db.example.org/history"
    asked = Comparison(
        Wanted(base="main", head="p.yaml", working_folder="/"),
        None,
        Overrides(),
        Filter(),
        history=address.parse(url),
    )
    options = command_.Options(history=url)
    for words in (["--history", url], [f"--history={url}"]):
        monkeypatch.setattr("sys.argv", ["pocketship", "gate", "main", "p.yaml", *words])
        hint = command_._again(asked, options)
        assert "s3cret" not in hint
        assert hint.endswith("--resume")
