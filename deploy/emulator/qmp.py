"""A client for QEMU's machine protocol (QMP): one command, one answer."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from deploy.errors import DeviceError

_LONGEST_LINE = 1 << 20


def execute(
    path: Path, command: str, arguments: dict[str, Any] | None = None, *, timeout_s: float = 10.0
) -> Any:
    """Run one QMP command on the machine whose monitor socket is ``path``; return its answer.

    Raises:
        DeviceError: nobody answers there, or QEMU refuses the command.
    """
    try:
        with _connect(path, timeout_s) as link, link.makefile("rwb") as stream:
            _read(stream, "QMP")
            for name, values in (("qmp_capabilities", None), (command, arguments)):
                request = {"execute": name, **({"arguments": values} if values else {})}
                stream.write(json.dumps(request).encode() + b"\n")
                stream.flush()
                answer = _read(stream, "return", "error")
                if "error" in answer:
                    reason = answer["error"].get("desc", "no reason given")
                    raise DeviceError(f"QEMU refuses {name}: {reason}", where=str(path))
            return answer["return"]
    except (OSError, ValueError) as error:
        raise DeviceError(f"QEMU's monitor does not answer: {error}", where=str(path)) from None


def _connect(path: Path, timeout_s: float) -> socket.socket:
    # A socket's path may have only 107 bytes; through the folder's descriptor it is always short.
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.settimeout(timeout_s)
        link.connect(f"/proc/self/fd/{folder}/{path.name}")
    except BaseException:
        link.close()
        raise
    finally:
        os.close(folder)
    return link


def _read(stream: Any, *wanted: str) -> dict[str, Any]:
    """The next message with one of the ``wanted`` keys; events in between are skipped."""
    while True:
        line = stream.readline(_LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise ValueError("the connection ended")
        message = json.loads(line)
        if isinstance(message, dict) and any(key in message for key in wanted):
            return message
