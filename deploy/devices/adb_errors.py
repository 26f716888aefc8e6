"""What can go wrong on the way to a phone, each as one line with what to do about it."""

from __future__ import annotations

from adb_shell import exceptions

from deploy.android_text import printable
from deploy.devices.adb_link import NotReady, Refused, ShellCut, TooMuchData
from deploy.errors import DeviceError


def explained(what: str, error: Exception, seconds: float, serial: str) -> DeviceError:
    """A call that failed on a live connection. ``what`` names it, ``seconds`` is its limit."""
    what = printable(what)
    if isinstance(error, TimeoutError | exceptions.AdbTimeoutError):
        text = f"{what}: no end within {seconds:g} s"
        hint = "Raise the profile's time-outs, or check the phone."
    elif isinstance(error, TooMuchData):
        text = f"{what}: the device sent more than is allowed"
        hint = "This is not the content that was asked for; check the phone."
    elif isinstance(error, ShellCut):
        text = f"the shell ended before {what} did"
        hint = "Is the phone out of memory, or was ADB restarted on it?"
    elif isinstance(error, ConnectionError):
        text = f"{what}: the connection to the device was cut"
        hint = "Check cable, network and whether the phone restarted."
    elif isinstance(
        error, Refused | exceptions.PushFailedError | exceptions.AdbCommandFailureException
    ):
        text = f"{what}: the device refused: {printable(_device_words(error), 160)}"
        hint = "Check the free space and the rights of the folder on the device."
    elif isinstance(error, OSError):
        text = f"{what}: {printable(error.strerror or str(error))}"
        hint = "Check the file and the free space on this computer."
    else:
        # adb-shell passes on whatever a malformed answer makes it stumble over.
        text = f"{what}: an answer that is not ADB: {printable(repr(error), 100)}"
        hint = "Check the phone and the address."
    return DeviceError(text, where=serial, hint=hint)


def unreachable(error: Exception, seconds: float, serial: str) -> DeviceError:
    """A connection that could not be made within ``seconds``."""
    if isinstance(error, ConnectionRefusedError):
        text = "connection refused: nothing listens there"
        hint = "Start the emulated phone, or `adb tcpip 5555` and check the address."
    elif isinstance(error, ConnectionError):
        text = "what listens there closed the connection"
        hint = "Is it an ADB daemon, and has the phone finished starting?"
    elif isinstance(error, TimeoutError | exceptions.AdbTimeoutError):
        text = f"no answer within {seconds:g} s"
        hint = "Is the phone on, in the same network, and is ADB enabled on it?"
    elif isinstance(error, OSError):
        text = f"cannot connect: {printable(error.strerror or str(error))}"
        hint = "Check the address and that ADB is enabled on the phone."
    else:
        said = printable(str(error) or repr(error), 100)
        text, hint = f"what answers there does not speak ADB: {said}", "Check the port."
    return NotReady(text, state="offline", where=serial, hint=hint)


def unauthorised(serial: str, *, without_key_at: str = "") -> DeviceError:
    """The device does not know our key; ``without_key_at`` says where none was found."""
    if without_key_at:
        text = f"the device wants an ADB key and there is none at {without_key_at}"
        hint = "`adb keygen ~/.android/adbkey` makes one; or name a key that it knows."
    else:
        text = "the device did not accept this computer's ADB key"
        hint = "Accept the key on the phone's screen, or authorise it when the phone is started."
    return NotReady(text, state="unauthorised", where=serial, hint=hint)


def _device_words(error: Exception) -> str:
    words = error.args[0] if error.args else ""
    return (
        words.decode("utf-8", errors="replace")
        if isinstance(words, bytes | bytearray)
        else str(words)
    )
