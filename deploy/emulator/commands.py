"""What ``pocketship phone`` does with phones that run: find, stop, shell."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence

from adb_shell.adb_device import AdbDeviceTcp
from adb_shell.auth.sign_pythonrsa import PythonRSASigner

from deploy.emulator import machine
from deploy.emulator.keys import ensure_key
from deploy.emulator.machine import Phone
from deploy.errors import DeviceError

_CONNECT_S = 60.0
_ONE_SHOT_S = 600.0


def find(serial: str) -> Phone:
    """The running phone with this serial, ``127.0.0.1:PORT``.

    Raises:
        DeviceError: none has it; says which run.
    """
    phones = machine.running()
    for phone in phones:
        if phone.serial == serial:
            return phone
    known = ", ".join(phone.serial for phone in phones)
    hint = f"Running: {known}" if known else "None runs: pocketship phone start"
    raise DeviceError(f"no emulated phone {serial!r}", hint=hint)


def stop(serial: str | None, *, everyone: bool = False) -> list[Phone]:
    """Stop one phone, the only one (``serial`` None), or all; return those that were stopped.

    Raises:
        DeviceError: no such phone, none runs, or several do and none is named.
    """
    if everyone:
        chosen = machine.running()
    elif serial is not None:
        chosen = [find(serial)]
    else:
        chosen = machine.running()
        if not chosen:
            raise DeviceError("no emulated phone runs")
        if len(chosen) > 1:
            known = ", ".join(phone.serial for phone in chosen)
            raise DeviceError("several phones run", hint=f"Name one, or give --all: {known}")
    for phone in chosen:
        phone.stop()
    return chosen


def shell(serial: str, command: Sequence[str] = ()) -> int:
    """Run ``command`` (or an interactive shell) on a phone, on this terminal; its exit code.

    The words are joined with blanks and read by the phone's shell, as ``adb shell`` does it.
    Google's adb is used where it is installed; without it there is only one command at a time.

    Raises:
        DeviceError: no such phone, or it cannot be reached.
    """
    phone = find(serial)
    if adb := shutil.which("adb"):
        return _google_shell(adb, phone.serial, command)
    if not command:
        raise DeviceError(
            "an interactive shell needs Google's adb",
            hint="Install the package adb, or give a command",
        )
    return _one_shot(phone.serial, " ".join(command))


def _google_shell(adb: str, serial: str, command: Sequence[str]) -> int:
    ensure_key()
    done = subprocess.run(
        [adb, "connect", serial], capture_output=True, text=True, check=False, timeout=_CONNECT_S
    )
    said = (done.stdout + done.stderr).strip()
    if "connected to" not in said or "cannot" in said or "failed" in said:
        hint = "If the adb server runs with another key: adb kill-server"
        raise DeviceError(f"adb cannot connect: {said[-300:]}", where=serial, hint=hint)
    return subprocess.run([adb, "-s", serial, "shell", *command], check=False).returncode


def _one_shot(serial: str, command: str) -> int:
    host, _, port = serial.rpartition(":")
    device = AdbDeviceTcp(host, int(port), default_transport_timeout_s=_CONNECT_S)
    # The old shell service has no exit codes: the shell prints it behind an unguessable mark.
    mark = secrets.token_hex(16)
    try:
        signer = PythonRSASigner.FromRSAKeyPath(str(ensure_key()))
        device.connect(rsa_keys=[signer], auth_timeout_s=_CONNECT_S)
        script = f"(\n{command}\n)\necho {mark}$?"
        text = device.shell(script, read_timeout_s=_ONE_SHOT_S, timeout_s=_ONE_SHOT_S)
    except Exception as error:  # adb_shell and sockets raise a dozen kinds; all mean "not reached"
        raise DeviceError(f"the shell did not answer: {error}", where=serial) from None
    finally:
        device.close()
    output, found, code = str(text).rpartition(mark)
    sys.stdout.write(output if found else str(text))
    sys.stdout.flush()
    if not found or not code.strip().isdigit():
        raise DeviceError("the shell ended without an exit code", where=serial)
    return int(code)
