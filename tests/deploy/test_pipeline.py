"""The whole path with an emulated phone at its end, twice; without a baseline."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.emulator import machine
from tests.deploy.conftest import Answer, report_of, write_pipeline

Call = Callable[..., Answer]


def measured(report: dict[str, Any], device: str, metric: str) -> dict[str, list[float]]:
    """Samples of a metric by artifact, of single-threaded cases on a device."""
    return {
        case["artifact"]: row["samples"]
        for case in report["cases"]
        if case["device"] == device and case["threads"] == 1
        for row in case["measurements"]
        if row["metric"] == metric and row["status"] == "ok"
    }


@pytest.mark.soak
@pytest.mark.phone
@pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="QEMU is missing")
def test_two_runs_count_the_same_instructions_of_the_same_bytes(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POCKETSHIP_STATE", str(tmp_path / "state"))
    file = write_pipeline(
        tmp_path,
        task={"callable": "tiny_tasks:counted"},
        targets=[{"format": "executorch"}, {"format": "onnx", "ort": False}],
        devices=["host", "emulated-arm64"],
        bench={"preset": "exact", "threads": [1]},
        verify={"int8": {"min_sqnr_db": 15}},
    )
    # A key that is given as null, not one that is left out: that would be fp32.
    file.write_text(file.read_text() + "baseline: null\n")
    reports = []
    for number in (1, 2):
        answer = call("run", file)
        assert answer.code == 0, answer.err
        # Not the phone of the run before: it was stopped, and its disk is gone.
        assert "starting the emulated phone" in answer.err
        assert machine.running() == []
        reports.append(report_of((tmp_path / "reports/tiny/latest").resolve()))
        phone = reports[-1]["devices"][1]
        assert phone["bytes_pushed"] > 10_000_000, f"run {number}: the bundle was there already"
    one, two = reports
    assert one["run_id"] != two["run_id"]
    names = ["int8.executorch", "int8.onnx"]
    for report in reports:
        assert [artifact["name"] for artifact in report["artifacts"]] == names
        assert [case["status"] for case in report["cases"]] == ["ok"] * 4
        assert (report["baseline_variant"], report["comparisons"]) == (None, [])
    for first, second in zip(one["artifacts"], two["artifacts"], strict=True):
        assert first["sha256"] == second["sha256"], first["name"]
    counts = [
        statistics.median(measured(r, "emulated-arm64", "instructions")["int8.executorch"])
        for r in reports
    ]
    assert counts[0] > 1_000_000
    assert counts[1] == pytest.approx(counts[0], rel=0.001)
    # A clock that counts instructions tells no milliseconds, and this machine's tells no counts.
    assert measured(one, "emulated-arm64", "latency_ms") == {}
    assert set(measured(one, "host", "latency_ms")) == set(names)
    assert measured(one, "host", "instructions") == {}
