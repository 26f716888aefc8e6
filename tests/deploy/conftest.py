"""One finished run of a tiny network, made by the real command, and ways to call commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import filelock
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

PIPELINE: dict[str, Any] = {
    "version": 1,
    "name": "tiny",
    "task": {"callable": "tiny_tasks:noisy"},
    "recipe": {
        "name": "int8",
        "steps": [{"kind": "quantize"}],
        "require": {"min_sqnr_db": 10},
    },
    "targets": [{"format": "executorch"}, {"format": "onnx"}, {"format": "coreml"}],
    "verify": {"fp32": {"min_sqnr_db": 60}, "int8": {"min_sqnr_db": 15}},
    "devices": ["host"],
    "bench": {"preset": "exact", "threads": [1, 2]},
    "budgets": [{"subject": "*.executorch", "metric": "bytes", "max": 100000}],
}


@dataclass(frozen=True)
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        return self.err.splitlines()[-1]


def write_pipeline(folder: Path, /, **changes: object) -> Path:
    """A pipeline file with the task module beside it; a change to None leaves the key out."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).with_name("tiny_tasks.py"), folder)
    merged = {**PIPELINE, "reports": str(folder / "reports"), **changes}
    file = folder / "pipeline.yaml"
    wanted = {key: value for key, value in merged.items() if value is not None}
    file.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
    return file


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **changes}


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "deploy.cli", *map(str, words)]


def run_command(
    *words: str | Path, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 300
) -> Answer:
    """The command as a user starts it: a process of its own, its output into pipes."""
    done = subprocess.run(
        command(*words),
        cwd=cwd,
        env=env or environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """The same in this process, which has torch already."""

    def run(*words: str | Path) -> Answer:
        from deploy.cli import app

        capfd.readouterr()
        path = list(sys.path)
        sys.modules.pop("tiny_tasks", None)
        try:
            with pytest.raises(SystemExit) as ended:
                app(list(map(str, words)))
        finally:
            sys.path[:] = path
            sys.modules.pop("tiny_tasks", None)
        code = ended.value.code
        assert code is None or isinstance(code, int)
        return Answer(code or 0, *capfd.readouterr())

    return run


@dataclass(frozen=True)
class FinishedRun:
    """A run folder that came out of ``pocketship run``, and what the command printed."""

    root: Path
    pipeline: Path
    answer: Answer

    def copy(self, to: Path, **config: object) -> Path:
        """Another run folder of the same content; ``config`` changes its pipeline's keys."""
        root = to / "reports" / self.root.parent.name / self.root.name
        shutil.copytree(self.root, root)
        path = root / "run.json"
        asked = json.loads(path.read_text())
        # The same task; pytest's own capture would let what `noisy` prints through.
        asked["config"] |= {"task": {"callable": "tiny_tasks:tiny"}, **config}
        path.write_text(json.dumps(asked))
        return root


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Made once for all workers of pytest-xdist; read it, or :meth:`FinishedRun.copy` it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # each worker has a folder of its own there
    folder = shared / "finished it's $(touch pwned)"
    said = shared / "finished.json"
    with filelock.FileLock(shared / "finished.lock"):
        if not said.exists():
            made = run_command("run", write_pipeline(folder), cwd=folder)
            assert made.code == 0, made.err
            said.write_text(json.dumps(astuple(made)))
    answer = Answer(*json.loads(said.read_text()))
    return FinishedRun((folder / "reports/tiny/latest").resolve(), folder / "pipeline.yaml", answer)


def hashes(root: Path) -> dict[str, str]:
    """Each artifact's hash by its manifest."""
    found = {}
    for path in (root / "artifacts").glob("*.manifest.json"):
        manifest = json.loads(path.read_text())
        found[manifest["name"]] = manifest["sha256"]
    return found


def report_of(root: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((root / "report.json").read_text())
    return loaded
