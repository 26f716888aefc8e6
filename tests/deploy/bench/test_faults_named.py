"""The closed list of faults and its page."""

from __future__ import annotations

import ast
import errno
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from adb_shell import exceptions

from deploy.bench import faults
from deploy.bench.faults import CONSEQUENCES, Fault, FaultError
from deploy.bench.leftovers import has_ended, new_name
from deploy.bench.recovery import Patience
from deploy.bench.runner import interpret_exit
from deploy.devices.adb_transport import TooMuchData
from deploy.errors import DeviceError, MeasurementError
from deploy.types import Status

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/reliability.md"


def test_every_fault_has_a_consequence_and_stands_on_the_page() -> None:
    assert set(CONSEQUENCES) == set(Fault)
    page = PAGE.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z ]+)` \| .*? \| (invalid|failed) \| (?:yes|no)", page, re.M))
    assert rows == {str(fault): one.status.value for fault, one in CONSEQUENCES.items()}
    for fault, consequence in CONSEQUENCES.items():
        said = re.search(rf"^\| `{fault}` \|.*\| (yes|no)[^|]*\|$", page, re.M)
        assert said, fault
        assert (said[1] == "yes") is consequence.retried, fault
        assert consequence.remedy.endswith(".")


def test_only_what_is_not_the_models_fault_is_tried_again() -> None:
    retried = {fault for fault, one in CONSEQUENCES.items() if one.retried}
    assert all(CONSEQUENCES[fault].status is Status.INVALID for fault in retried)
    assert Fault.LOST not in retried
    assert Fault.HUNG not in retried


def test_the_page_names_tests_that_exist() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = page.partition("## Fault, outcome, test")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "---" not in line][1:]
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)` \|$", table, re.M)
    assert len(rows) == len(named) > 20
    for file, test in named:
        path = ROOT / file if "/" in file else Path(__file__).with_name(file)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert test in functions, f"{PAGE.name} names {file}::{test}"


def raised_from(cause: BaseException, what: str = "what") -> DeviceError:
    try:
        raise DeviceError(what) from cause
    except DeviceError as error:
        return error


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (FaultError(Fault.HUNG, "late"), Fault.HUNG),
        (MeasurementError("the file changed"), Fault.LOCAL),
        (raised_from(TimeoutError()), Fault.SLOW),
        (raised_from(subprocess.TimeoutExpired("sh", 1)), Fault.SLOW),
        (raised_from(exceptions.AdbTimeoutError()), Fault.SLOW),
        (raised_from(ConnectionResetError()), Fault.CUT),
        (raised_from(ConnectionRefusedError()), Fault.CUT),
        (raised_from(exceptions.InvalidChecksumError()), Fault.DAMAGED),
        (raised_from(exceptions.PushFailedError("no")), Fault.REFUSED),
        (raised_from(PermissionError()), Fault.REFUSED),
        (raised_from(TooMuchData()), Fault.GARBAGE),
        (raised_from(OSError(errno.ENOSPC, "full")), Fault.NO_ROOM),
        (raised_from(ValueError(), f"sh: {os.strerror(errno.ENOSPC)}"), Fault.NO_ROOM),
        (DeviceError("nobody knows"), Fault.CUT),
    ],
)
def test_errors_are_named_by_what_they_were_raised_from(error: DeviceError, fault: Fault) -> None:
    assert faults.of(error) is fault


def test_every_exit_code_has_one_name_and_blames_the_same() -> None:
    for code in range(1, 256):
        status, _ = interpret_exit(code, "")
        assert CONSEQUENCES[faults.of_exit(code, "")].status is status, code
    assert faults.of_exit(128 + signal.SIGKILL, "") is Fault.KILLED
    assert faults.of_exit(128 + signal.SIGSEGV, "") is Fault.CRASHED
    assert faults.of_exit(7, "bench_runner: No space left on device") is Fault.NO_ROOM


def test_pauses_grow_and_are_bounded() -> None:
    patience = Patience(first_pause_s=0.5, longest_pause_s=3.0)
    assert [patience.pause_s(n) for n in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_an_ended_process_is_told_from_a_living_one() -> None:
    own = new_name().rpartition("-")[0]
    machine, pid, started = own.split("-")
    assert not has_ended(own)
    # Its number belongs to another process by now.
    assert has_ended(f"{machine}-{pid}-{int(started) - 1}")
    child = subprocess.Popen(["sleep", "60"])
    try:
        stat = Path(f"/proc/{child.pid}/stat").read_text()
        name = f"{machine}-{child.pid}-{stat.rpartition(')')[2].split()[19]}"
        assert not has_ended(name)
        child.kill()
        child.wait()
        assert has_ended(name)
    finally:
        child.kill()
        child.wait()
    # Nobody here knows what lives on another machine.
    assert not has_ended(f"{'0' * 12}-{pid}-{int(started) - 1}")
