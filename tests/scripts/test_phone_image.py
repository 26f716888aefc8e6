"""`make phone-image` and `make demo` on a machine that cannot build the native parts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytest.importorskip("deploy.harness", reason="the native parts are built by deploy.harness")


def build(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it with an empty cache and no compiler in reach."""
    bare = tmp_path / "bin"
    bare.mkdir()
    return subprocess.run(
        [sys.executable, "-m", "scripts.phone_image", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": str(bare), "POCKETSHIP_CACHE": str(tmp_path / "cache")},
    )


def test_missing_compiler_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    done = build(tmp_path)
    assert done.returncode == 6
    assert len(done.stderr.splitlines()) == 1
    assert "g++" in done.stderr


def test_demo_goes_on_without_it(tmp_path: Path) -> None:
    done = build(tmp_path, "--if-possible")
    assert done.returncode == 0
    assert "g++" in done.stderr
    assert "going on without it" in done.stdout
