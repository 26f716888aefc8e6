"""Ctrl-C, SIGTERM and kill -9 in each stage; then `--resume` goes on and repeats nothing."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deploy.conftest import (
    Answer,
    command,
    environment,
    hashes,
    report_of,
    run_command,
    write_pipeline,
)

Call = Callable[..., Answer]
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
GIT = """\
#!/bin/sh
while [ -e {hold} ]; do : > "$HELD"; sleep 0.02; done
exit 1
"""


class Interrupted:
    """A pipeline in a folder, whose runs are ended at a known point."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hold = folder / "hold"
        self.pipeline = write_pipeline(
            folder,
            task={"callable": "tiny_tasks:held"},
            recipe=None,
            targets=[{"format": "executorch"}],
            verify=None,
            # A case takes 1.5 s: the second is still under way when the first one's end is seen.
            # No other pass: judging the task's metric would load the task, which is held too.
            bench={"preset": "quick", "threads": [1, 2], "passes": []},
            budgets=None,
        )
        tools = folder / "bin"
        tools.mkdir()
        # The report stage asks git for the commit: a git that waits holds that stage.
        git = tools / "git"
        git.write_text(GIT.format(hold=shlex.quote(str(self.hold))))
        git.chmod(0o755)
        path = f"{tools}:{environment()['PATH']}"
        self.environment = environment(PATH=path, POCKETSHIP_STATE=str(folder / "state"))

    @contextlib.contextmanager
    def process(self, *words: str | Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
        """A command under way, and the file that appears when it is held."""
        # One for each process: what a killed one had started may live a moment longer.
        held = self.folder / f"held-{secrets.token_hex(4)}"
        process = subprocess.Popen(
            command(*words),
            cwd=self.folder,
            env=self.environment | {"HELD": str(held)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process, held
        finally:
            process.kill()
            process.wait()
            self.hold.unlink(missing_ok=True)

    @property
    def root(self) -> Path:
        (root,) = [p for p in (self.folder / "reports/tiny").iterdir() if p.name != "latest"]
        return root

    def end_with(self, number: signal.Signals, reached: Callable[[str], bool] | None) -> Answer:
        """Start the run (or go on with it) and send a signal at a line of progress, or at hold."""
        if reached is None:
            self.hold.touch()
        with self.process("run", self.pipeline, "--resume") as (process, held):
            assert process.stderr is not None
            lines = []
            if reached is None:
                wait_for(held, process)
            else:
                for line in process.stderr:
                    lines.append(line)
                    if reached(line):
                        break
                else:
                    pytest.fail(f"ended before that line: {lines}")
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        return Answer(process.returncode, out, "".join(lines) + err)


def wait_for(held: Path, process: subprocess.Popen[str]) -> None:
    while not held.exists():
        if process.poll() is not None:
            assert process.stderr is not None
            pytest.fail(f"ended before it was held: {process.stderr.read()}")
        threading.Event().wait(0.01)


def at(*words: str) -> Callable[[str], bool]:
    return lambda line: all(word in line for word in words)


STAGES: dict[str, Callable[[str], bool] | None] = {
    "compress": None,
    "export": at("exporting fp32 as executorch"),
    "verify": None,
    "bench": at("case", "/t2"),
    "report": None,
}
OUTPUTS = {
    "export": "compress/ledger.json",
    "verify": "artifacts/fp32.executorch.manifest.json",
    "bench": "verify/parity.json",
    "report": "bench/devices/host.json",
}
MARKS = {
    "export": "judging the uncompressed model",
    "verify": "exporting fp32",
    "bench": "verifying fp32",
    "report": "case ",
}


@pytest.mark.soak
def test_a_run_that_is_ended_in_every_stage_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    run = Interrupted(tmp_path / "it's a $(touch pwned) run")
    kept: dict[str, bytes] = {}
    for stage, reached in STAGES.items():
        if stage in OUTPUTS:
            # Ended in the stage before: that stage's output does not pass for whole.
            assert not (run.root / OUTPUTS[stage]).exists()
        for number in SIGNALS:
            answer = run.end_with(number, reached)
            if number is signal.SIGKILL:
                assert answer.code == -signal.SIGKILL
            else:
                assert answer.code == 130, answer.err
                assert "interrupted" in answer.last
                assert "--resume" in answer.last
                assert "Traceback" not in answer.err
                # What could clean up did: nothing half-written is left.
                left = [p for p in run.root.rglob(".*") if p.name != ".lock"]
                assert left == []
            assert answer.out == ""
            assert not (run.root / "report.json").exists()
            assert not (run.root.parent / "latest").exists()
            for name, content in kept.items():
                assert (run.root / name).read_bytes() == content, f"{name} was made again"
        for before, name in OUTPUTS.items():
            if list(STAGES).index(before) <= list(STAGES).index(stage):
                kept[name] = (run.root / name).read_bytes()
                assert MARKS[before] not in answer.err, "a finished stage was repeated"
        # The case that ended before the signal is kept, and is not measured again.
        if stage == "bench":
            assert "fp32.executorch@host/t1" not in answer.err
    artifacts = hashes(run.root)
    answer = run_command("run", run.pipeline, "--resume", cwd=run.folder, env=run.environment)
    assert answer.code == 0, answer.err
    assert hashes(run.root) == artifacts
    report = report_of(run.root)
    assert [case["status"] for case in report["cases"]] == ["ok", "ok"]
    assert (run.root.parent / "latest").resolve() == run.root.resolve()
    assert [p for p in run.root.rglob(".*") if p.name != ".lock"] == []
    assert not list(run.folder.rglob("pwned"))


@pytest.mark.slow
def test_a_second_pocketship_on_the_same_run_is_one_line(tmp_path: Path, call: Call) -> None:
    run = Interrupted(tmp_path / "run")
    run.hold.touch()
    with run.process("run", run.pipeline) as (first, held):
        wait_for(held, first)
        log = (run.root / "log.txt").read_bytes()
        for words in (("run", run.pipeline, "--resume"), ("verify", run.root)):
            second = call(*words)
            assert second.code == 2
            assert "another pocketship works in this folder. Wait for it to end." in second.last
        assert (run.root / "log.txt").read_bytes() == log, "the other run's log was written to"
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=60)
    assert first.returncode == 130


def test_the_way_to_go_on_names_the_folder_for_reports(tmp_path: Path) -> None:
    run = Interrupted(tmp_path / "run")
    run.hold.touch()
    other = tmp_path / "other reports"
    with run.process("compress", run.pipeline, "--reports", other) as (process, held):
        wait_for(held, process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"--resume --reports '{other}'" in err.splitlines()[-1]
