"""Tiny Core ML packages: the real envelope and description, a program for our stand-in only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def field(number: int, value: bytes | str | int) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def model(inputs: Sequence[str], outputs: Sequence[str], version: int = 9) -> bytes:
    """A Model of Apple's format: description first, then something like a program."""
    features = b"".join(field(1, field(1, name) + field(3, b"\x2a\x00")) for name in inputs)
    features += b"".join(field(10, field(1, name)) for name in outputs)
    metadata = field(100, field(1, "a description"))
    return field(1, version) + field(2, features + metadata) + field(502, b"\x00" * 300)


def write_package(
    path: Path, content: bytes, weight: Sequence[Sequence[float]] = (), **behaviour: Any
) -> Path:
    """A ``.mlpackage`` folder; the stand-in's runner reads ``weight`` and ``behaviour``."""
    folder = path / "Data" / "com.apple.CoreML"
    folder.mkdir(parents=True)
    (folder / "model.mlmodel").write_bytes(content)
    root = {"author": "com.apple.CoreML", "path": "com.apple.CoreML/model.mlmodel"}
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {"A": root},
        "rootModelIdentifier": "A",
    }
    (path / "Manifest.json").write_text(json.dumps(manifest))
    (path / "weight.json").write_text(json.dumps([list(map(float, row)) for row in weight]))
    (path / "behaviour.json").write_text(json.dumps(behaviour))
    return path
