"""Whether an ADB server runs here, asked with one socket: its library is loaded only if so."""

from __future__ import annotations

import os
import socket

from deploy.android_text import printable
from deploy.errors import DeviceError

_PROBE_S = 1.0


def address() -> tuple[str, int]:
    """Where the ADB server listens, by the variables that Google's adb reads.

    Raises ``DeviceError`` for a port that is none.
    """
    port = os.environ.get("ANDROID_ADB_SERVER_PORT") or "5037"
    if not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65536:
        raise DeviceError(
            f"ANDROID_ADB_SERVER_PORT is {printable(port, 40)!r} and no port",
            hint="Unset it, or give the port of the ADB server.",
        )
    return os.environ.get("ANDROID_ADB_SERVER_ADDRESS") or "127.0.0.1", int(port)


def listens() -> bool:
    """Whether something accepts connections where the ADB server would."""
    try:
        with socket.create_connection(address(), timeout=_PROBE_S):
            return True
    except OSError:
        return False
