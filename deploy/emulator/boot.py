"""Waiting for a phone to come up, and saying why it does not."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from adb_shell.adb_device import AdbDeviceTcp
from adb_shell.auth.sign_pythonrsa import PythonRSASigner

from deploy.emulator import qmp
from deploy.errors import DeviceError
from deploy.types import Progress

# madvise: the kernel's huge page thread would add its instructions to everybody's count.
# panic=5: as a phone does, it reboots.
COMMAND_LINE = (
    "console=ttyAMA0 loglevel=4 panic=5 rdinit=/init transparent_hugepage=madvise nokaslr"
)

_CONSOLE_TAIL = 1 << 16
_STAGES = ("kernel up", "disk up", "network up")
_TRY_S = 15.0
_NO_PORT = "no free port on 127.0.0.1"


@dataclass(frozen=True)
class Booting:
    """A phone on its way: its folder, its supervisor, and when (``time.monotonic``) to give up."""

    folder: Path
    process: subprocess.Popen[bytes]
    deadline: float

    def ended(self) -> bool:
        """Whether its QEMU is gone."""
        return self.process.poll() is not None

    def late(self) -> bool:
        """Whether it took too long."""
        return time.monotonic() > self.deadline


def console_tail(folder: Path) -> str:
    """The last 64 KiB of the console as printable text; empty before the first character."""
    try:
        with (folder / "console.log").open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - _CONSOLE_TAIL))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "".join(c for c in text if c.isprintable() or c == "\n")


def wait_for_port(phone: Booting, wanted: int | None) -> int:
    """Wait until QEMU runs; the port on 127.0.0.1 at which it forwards ADB.

    The kernel chooses that port unless one is ``wanted``: asking for a free one before would be a
    race with everybody else on this machine.

    Raises:
        DeviceError: QEMU ended instead; a taken port gets a message of its own.
    """
    question = {"command-line": "info usernet"}
    while True:
        try:
            answer = qmp.execute(phone.folder / "qmp.sock", "human-monitor-command", question)
            if (phone.folder / "pids").exists():
                break
        except DeviceError:  # not there yet, or already gone: the process knows
            pass
        logs = f"Log: {_kept(phone.folder)}.qemu.log"
        if phone.ended():
            said = _text(phone.folder / "qemu.log")
            if "host forwarding rule" in said:
                what = f"port {wanted} on 127.0.0.1 is in use" if wanted else _NO_PORT
                raise DeviceError(what, hint="Choose another port, or stop what listens there")
            raise DeviceError(f"QEMU did not start: {said[-400:]}", hint=logs)
        if phone.late():
            raise DeviceError("QEMU did not start in time", hint=logs)
        time.sleep(0.01)
    match = re.search(r"TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s", str(answer))
    if match is None:
        raise DeviceError(f"QEMU forwards no port: {answer!r}")
    return int(match[1])


def wait_for_adb(phone: Booting, serial: str, private_key: Path, progress: Progress) -> None:
    """Wait until a shell command over ADB is answered; say each stage once.

    Raises:
        DeviceError: the phone crashed, refuses the key, or took too long.
    """
    said = 0
    while True:
        console = console_tail(phone.folder)
        while said < len(_STAGES) and f"pocketship: {_STAGES[said]}" in console:
            progress(_STAGES[said])
            said += 1
        if phone.ended():
            raise _failure("the phone's QEMU ended while it booted", phone.folder)
        if "Kernel panic" in console:
            raise _failure("the phone's kernel panicked while it booted", phone.folder)
        if "pocketship: disk failed" in console or "pocketship: network failed" in console:
            raise _failure("the phone did not come up", phone.folder)
        if phone.late():
            raise _failure("the phone did not answer over ADB in time", phone.folder)
        if said == len(_STAGES) and _answers(serial, private_key):
            progress("ADB answers")
            return
        time.sleep(0.05)


def _answers(serial: str, private_key: Path) -> bool:
    host, _, port = serial.rpartition(":")
    signer = PythonRSASigner.FromRSAKeyPath(str(private_key))
    device = AdbDeviceTcp(host, int(port), default_transport_timeout_s=_TRY_S)
    try:
        device.connect(rsa_keys=[signer], auth_timeout_s=_TRY_S, read_timeout_s=_TRY_S)
        answer = device.shell("getprop sys.boot_completed", read_timeout_s=_TRY_S)
        return str(answer).strip() == "1"
    except Exception:  # adb_shell raises a dozen kinds for "not yet"; the deadline is the judge
        return False
    finally:
        device.close()


def _failure(what: str, folder: Path) -> DeviceError:
    lines = [line.strip() for line in console_tail(folder).splitlines() if line.strip()]
    culprit = next((line for line in lines if re.search("panic|failed|cannot", line)), "")
    last = culprit or (lines[-1] if lines else "the console is empty")
    return DeviceError(f"{what}: {last[:300]}", hint=f"Console log: {_kept(folder)}.console.log")


def _kept(folder: Path) -> Path:
    return folder.parent / "logs" / folder.name


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
