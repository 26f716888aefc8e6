"""The transfer benchmark's table: medians, ratios to Google's adb, reasons in place of figures."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

pytest.importorskip(
    "deploy.harness", reason="the benchmark builds the ADB daemon by deploy.harness"
)
adb_transfer = pytest.importorskip("benchmarks.adb_transfer")

ROOT = Path(__file__).resolve().parents[2]


def shown(rows: list[object]) -> list[list[str]]:
    console = Console(file=io.StringIO(), width=160)
    console.print(adb_transfer.table(rows))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return [
        [c.strip() for c in line.strip("│").split("│")] for line in text.splitlines() if "│" in line
    ]


def test_ratios_are_within_one_target() -> None:
    row = adb_transfer.Row
    rows = [
        row("daemon", "adb", "29", [100.0, 90.0, 400.0], [50.0]),
        row("daemon", "adb-shell", "0.4", [25.0], [10.0]),
        row("phone", "adb-shell", "0.4", [5.0], [4.0]),
    ]
    assert shown(rows) == [
        ["daemon", "adb 29", "100.0", "50.0", "1.00", "1.00", "3"],
        ["daemon", "adb-shell 0.4", "25.0", "10.0", "0.25", "0.20", "1"],
        ["phone", "adb-shell 0.4", "5.0", "4.0", "", "", "1"],
    ]


def test_what_was_not_measured_has_a_reason_and_no_figure() -> None:
    rows = [adb_transfer.Row("phone", "all", reason="no QEMU")]
    assert shown(rows) == [["phone", "all", "not run", "no QEMU", "", "", "0"]]


class Loses:
    """A client that brings back something else than was sent."""

    name, version = "loses", "1"

    def push(self, local: Path, remote: str) -> None:
        pass

    def pull(self, remote: str, local: Path) -> None:
        local.write_bytes(b"something else")

    def close(self) -> None:
        pass


def test_a_fast_wrong_answer_is_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_transfer, "connect", lambda serial, key: ([Loses()], {"adb": "absent"}))
    payload = tmp_path / "payload"
    payload.write_bytes(b"what was sent")
    rows = adb_transfer.measure(
        "daemon", ("127.0.0.1:1", "/x"), key=tmp_path, payload=payload, repeats=2
    )
    assert [(row.client, row.push_mb_s, row.pull_mb_s) for row in rows] == [
        ("loses", [], []),
        ("adb", [], []),
    ]
    assert "not what was sent" in rows[0].reason
    assert rows[1].reason == "absent"


@pytest.mark.slow
@pytest.mark.adb
@pytest.mark.skipif(not shutil.which("adb"), reason="needs Google's adb")
def test_both_clients_are_measured_against_the_real_daemon(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.adb_transfer",
            "--no-phone",
            "--megabytes=1",
            "--repeats=1",
        ],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / adb_transfer.RESULT).read_text())["rows"]
    assert [row["client"] for row in rows] == ["adb", "adb-shell"]
    assert all(len(row["push_mb_s"]) == len(row["pull_mb_s"]) == 1 for row in rows)
