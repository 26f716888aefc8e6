"""How much memory a file's runtime will allocate for tensors, where the file itself says so.

ExecuTorch plans memory ahead of time: a ``.pte`` holds, for each method, the sizes of the buffers
in which every tensor between its operators has a fixed place (https://pytorch.org/executorch,
"Memory Planning"). The other formats leave that to their runtime, on the device.

The file is a FlatBuffer of ExecuTorch's schema ``program.fbs``. Only four of its fields are read
here, so that this needs neither the runtime nor a trusted file; a field's number never changes in
a FlatBuffers schema.
"""

from __future__ import annotations

import struct
from pathlib import Path

from deploy.errors import ExportError
from deploy.types import Format

METHOD = "forward"
"""The method that is exported, and run."""

_IDENTIFIER = b"ET12"
_EXECUTION_PLANS = 1  # of a Program
_NAME, _BUFFER_SIZES = 0, 8  # of an ExecutionPlan
_MOST = 1 << 16
"""Methods or buffers that are read; a damaged length must not be walked."""

_ELSEWHERE: dict[Format, str] = {
    Format.ONNX: "ONNX Runtime plans memory when it loads the model",
    Format.ORT: "ONNX Runtime plans memory when it loads the model",
    Format.COREML: "Core ML plans memory on the device",
    Format.PACKED: "a packed program is unpacked before anything runs it",
}


def planned_bytes(path: Path, format_: Format) -> tuple[int | None, str]:
    """Bytes of the planned buffers of ``forward``, or None with the reason.

    Of a ``.pte`` they hold inputs, outputs and what passes between operators and delegates; what
    a delegate allocates for itself inside (XNNPACK's workspace and packed weights) is not in it.
    """
    if format_ is not Format.EXECUTORCH:
        return None, _ELSEWHERE[format_]
    try:
        return sum(buffer_sizes(path.read_bytes())), ""
    except ExportError as error:
        return None, error.what


def buffer_sizes(program: bytes, method: str = METHOD) -> tuple[int, ...]:
    """Bytes of each planned buffer of a method of a ``.pte``.

    Raises ``ExportError`` where the content is no ExecuTorch program, or has no such method.
    """
    if program[4:8] != _IDENTIFIER:
        raise ExportError("it is no ExecuTorch program: its FlatBuffer has another identifier")
    try:
        for plan in _tables(program, _field(program, _offset(program, 0), _EXECUTION_PLANS)):
            if _text(program, _field(program, plan, _NAME)) == method.encode():
                # The first stands for constants, and the runtime ignores it.
                return _sizes(program, _field(program, plan, _BUFFER_SIZES))[1:]
    except (struct.error, ValueError):
        raise ExportError("its memory plan cannot be read: the file is damaged") from None
    raise ExportError(f"it has no method {method!r}")


def _offset(data: bytes, at: int) -> int:
    """Where the unsigned offset that stands at ``at`` leads."""
    return at + int(struct.unpack_from("<I", data, at)[0])


def _field(data: bytes, table: int, number: int) -> int:
    """Where the table or vector in a field lies; 0 where the field is not set."""
    # The signed distance to the vtable, which lies before the table or behind it.
    vtable = table - int(struct.unpack_from("<i", data, table)[0])
    if vtable < 0:
        raise ValueError("a table before the file")
    size = int(struct.unpack_from("<H", data, vtable)[0])
    entry = 4 + 2 * number
    at = int(struct.unpack_from("<H", data, vtable + entry)[0]) if entry + 2 <= size else 0
    return _offset(data, table + at) if at else 0


def _length(data: bytes, vector: int) -> int:
    count = int(struct.unpack_from("<I", data, vector)[0])
    if count > _MOST:
        raise ValueError("more than there can be")
    return count


def _tables(data: bytes, vector: int) -> list[int]:
    if not vector:
        return []
    return [_offset(data, vector + 4 + 4 * i) for i in range(_length(data, vector))]


def _text(data: bytes, vector: int) -> bytes:
    return data[vector + 4 : vector + 4 + _length(data, vector)] if vector else b""


def _sizes(data: bytes, vector: int) -> tuple[int, ...]:
    if not vector:
        return ()
    sizes = struct.unpack_from(f"<{_length(data, vector)}q", data, vector + 4)
    if any(size < 0 for size in sizes):
        raise ValueError("a buffer of less than nothing")
    return sizes
