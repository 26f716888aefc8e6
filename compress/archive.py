"""Programs (``.pt2``) and state dicts (``.pt``) as packed containers, and back.

A ``.pt2`` is a zip archive without compression: a file for each weight and constant, and the graph
and its bookkeeping beside them. The weights become the container's tensors, all other members its
metadata, unread; so a program that comes back has the same members with the same bytes. Nothing is
unpickled on the way, but for a ``.pt``, which torch loads with ``weights_only``.
"""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress import entropy
from compress.entropy import Coder
from compress.errors import CompressError, ConfigError, first_line
from compress.packing import varint
from compress.packing.elements import words_of

_PROGRAM, _STATE_DICT = b"\1", b"\2"
_CONFIGS = {"weights", "constants"}
_MAX_MEMBERS = 1 << 20
# torch's ScalarType numbers in a .pt2 (torch/_export/serde/schema.py).
_DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    10: torch.complex64,
    11: torch.complex128,
    12: torch.bool,
    13: torch.bfloat16,
    28: torch.uint16,
    29: torch.float8_e4m3fn,
    30: torch.float8_e5m2,
}


def pack_file(data: bytes, *, where: str, coder: Coder = "auto") -> bytes:
    """The container of a ``.pt2`` program's or a ``.pt`` state dict's bytes.

    Raises:
        ConfigError: ``data`` is neither of them.
        CompressError: it holds a tensor that cannot be packed.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = _members(archive, where)
    except zipfile.BadZipFile as error:
        raise _neither(where, error) from error
    if any(name.endswith("/archive_format") for name in members):
        return _pack_program(members, coder, where)
    return _pack_state_dict(data, coder, where)


def unpack_file(data: bytes, *, where: str, max_bytes: int = entropy.MAX_BYTES) -> bytes:
    """The bytes of the ``.pt2`` or ``.pt`` that was packed; ``CompressError`` as ``unpack`` has it.

    All members of a program, and all tensors of a state dict, are equal to the original's.
    """
    try:
        tensors = entropy.unpack(data, max_bytes=max_bytes)
        metadata = entropy.metadata_of(data)
        kind, rest = metadata[:1], metadata[1:]
        if kind == _PROGRAM:
            return _unpack_program(tensors, rest)
    except CompressError as error:
        raise CompressError(error.what, where=where, hint=error.hint) from error
    if kind != _STATE_DICT:
        raise CompressError(
            "holds tensors, but neither a program nor a state dict",
            where=where,
            hint="compress.entropy.unpack gives its tensors.",
        )
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def _members(archive: zipfile.ZipFile, where: str) -> dict[str, bytes]:
    """All members by name. torch stores them as they are, so none can be larger than the file."""
    found: dict[str, bytes] = {}
    for info in archive.infolist():
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise _neither(where, f"{info.filename} is compressed or encrypted")
        if info.filename in found or not _is_plain(info.filename):
            raise _neither(where, f"the member {info.filename!r} is doubled or leads elsewhere")
        found[info.filename] = archive.read(info)
    return found


def _is_plain(name: str) -> bool:
    path = PurePosixPath(name)
    clean = not path.is_absolute() and ".." not in path.parts and "\\" not in name
    return clean and name.isprintable() and bool(name) and not name.endswith("/")


def _neither(where: str, why: object) -> ConfigError:
    reason = first_line(why) if isinstance(why, BaseException) else str(why)
    return ConfigError(
        f"is neither a program (.pt2) nor a state dict (.pt): {reason}",
        where=where,
        hint="Save it with torch.export.save, or torch.save(model.state_dict(), ...).",
    )


def _pack_program(members: Mapping[str, bytes], coder: Coder, where: str) -> bytes:
    """Metadata: for each member its name, then 0 and its bytes, or 1 where it is a tensor."""
    named = _payloads(members, where)
    tensors = {}
    metadata = bytearray(_PROGRAM)
    for name, data in members.items():
        encoded = name.encode()
        metadata += varint.write(len(encoded)) + encoded
        if name in named:
            title, tensor = named[name]
            tensors[title] = tensor
            metadata += b"\1"
        else:
            metadata += b"\0" + varint.write(len(data)) + data
    ordered = {named[name][0]: tensors[named[name][0]] for name in members if name in named}
    return _checked(ordered, coder, bytes(metadata))


def _payloads(members: Mapping[str, bytes], where: str) -> dict[str, tuple[str, Tensor]]:
    """Weight and constant members as tensors: member -> name in the program, tensor."""
    found: dict[str, tuple[str, Tensor]] = {}
    taken: set[str] = set()
    for name, data in members.items():
        path = PurePosixPath(name)
        if not name.endswith("_config.json") or path.parent.name not in _CONFIGS:
            continue
        try:
            entries = json.loads(data)["config"].items()
            for title, entry in entries:
                member = str(path.parent / entry["path_name"])
                if entry["use_pickle"] or member in found or member not in members:
                    continue
                label = title if title not in taken else member
                taken.add(label)
                found[member] = label, _tensor(members[member], entry["tensor_meta"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _neither(where, f"{name} cannot be read") from error
    return found


def _tensor(data: bytes, meta: Mapping[str, Any]) -> Tensor:
    """A payload in the shape that its program gives it, or flat where it is laid out otherwise."""
    dtype = _DTYPES.get(meta["dtype"], torch.uint8)
    if len(data) % dtype.itemsize:
        dtype = torch.uint8
    if not data:
        return torch.zeros(0, dtype=dtype)
    flat = torch.frombuffer(bytearray(data), dtype=dtype)
    shape = [int(size["as_int"]) for size in meta["sizes"]]
    strides = [int(stride["as_int"]) for stride in meta["strides"]]
    if torch.Size(shape).numel() != len(flat):
        return flat
    shaped = flat.reshape(shape)
    return shaped if list(shaped.stride()) == strides else flat


def _unpack_program(tensors: Mapping[str, Tensor], metadata: bytes) -> bytes:
    payloads = iter(tensors.values())
    names: set[str] = set()
    buffer = io.BytesIO()
    at = 0
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        while at < len(metadata):
            name, at = _take(metadata, at)
            title = name.decode("utf-8", errors="replace")
            if title in names or not _is_plain(title) or len(names) >= _MAX_MEMBERS:
                raise CompressError(f"holds the impossible member {title[:100]!r}")
            names.add(title)
            kind, at = metadata[at : at + 1], at + 1
            if kind == b"\1":
                tensor = next(payloads, None)
                if tensor is None:
                    raise CompressError("holds fewer tensors than its program")
                content = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
            elif kind == b"\0":
                content, at = _take(metadata, at)
            else:
                raise CompressError("holds a program that this version does not know")
            # A date of its own, so that the same container gives the same file.
            archive.writestr(zipfile.ZipInfo(title, (1980, 1, 1, 0, 0, 0)), content)
    if next(payloads, None) is not None:
        raise CompressError("holds more tensors than its program")
    return buffer.getvalue()


def _take(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = varint.read(data, at)
    if size > len(data) - at:
        raise CompressError("holds a program that is cut off")
    return data[at : at + size], at + size


def _pack_state_dict(data: bytes, coder: Coder, where: str) -> bytes:
    try:
        loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise _neither(where, error) from error
    if not isinstance(loaded, Mapping):
        raise _neither(where, f"it holds a {type(loaded).__name__}")
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise _neither(where, f"its entry {name!r} is a {type(value).__name__}, no tensor")
    return _checked(dict(loaded), coder, _STATE_DICT)


def _checked(tensors: Mapping[str, Tensor], coder: Coder, metadata: bytes) -> bytes:
    """A container that was unpacked again and held against ``tensors``, bit for bit."""
    packed = entropy.pack(tensors, coder=coder, metadata=metadata)
    back = entropy.unpack(packed, max_bytes=sys.maxsize)
    for name, tensor in tensors.items():
        if not np.array_equal(words_of(back[name], name), words_of(tensor, name)):
            raise AssertionError(f"{name} does not come back bit for bit")
    return packed
