"""The commands ``pack`` and ``unpack``: files in, files out, and a table of what was gained."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path
from typing import get_args

import torch

from compress import archive, entropy
from deploy.console import Session
from deploy.errors import ConfigError
from deploy.files import write_bytes

_COLUMNS = (
    ("Tensor", False),
    ("dtype", False),
    ("Shape", False),
    ("Encoding", False),
    ("Bytes", True),
    ("Packed", True),
    ("Ratio", True),
    ("Bits a weight", True),
    ("zlib -9", True),
)


def pack(model: Path, output: Path, coder: str, ui: Session) -> None:
    """Write the packed file of ``model`` and show what became of each tensor.

    Raises:
        ConfigError: ``model`` cannot be read or is no model, ``output`` cannot be written.
        CompressError: a tensor cannot be packed.
    """
    coders: tuple[entropy.Coder, ...] = get_args(entropy.Coder)
    chosen = next((known for known in coders if known == coder), None)
    if chosen is None:
        raise ConfigError(f"no coder '{coder}'", hint=f"Choose one of: {', '.join(coders)}.")
    data = _read(model)
    _check_other(model, output)
    ui.progress(f"packing {model}: {len(data):,} bytes")
    packed = archive.pack_file(data, where=str(model), coder=chosen)
    _write(output, packed)
    _show(packed, len(data), ui)
    ui.say(f"{output}: {len(packed):,} bytes of {len(data):,} ({len(data) / len(packed):.2f} x)")


def unpack(packed: Path, output: Path, max_bytes: int, ui: Session) -> None:
    """Write the model that ``packed`` holds.

    Raises:
        ConfigError: ``packed`` cannot be read, ``output`` cannot be written.
        CompressError: ``packed`` is damaged, no packed model, or larger than ``max_bytes``.
    """
    data = _read(packed)
    _check_other(packed, output)
    model = archive.unpack_file(data, where=str(packed), max_bytes=max_bytes)
    _write(output, model)
    ui.say(f"{output}: {len(model):,} bytes")


def _show(packed: bytes, model_bytes: int, ui: Session) -> None:
    rows = []
    tensors = entropy.unpack(packed, max_bytes=sys.maxsize)
    original = deflated = 0
    coded = 0.0
    for row in entropy.describe(packed, max_bytes=sys.maxsize):
        raw = tensors[row.name].reshape(-1).view(torch.uint8).numpy().tobytes()
        by_zlib = len(zlib.compress(raw, 9))
        original, deflated = original + len(raw), deflated + by_zlib
        coded += row.packed_bytes
        bits = row.bits_per_weight
        cells = (
            row.name,
            row.dtype,
            "x".join(map(str, row.shape)) or "scalar",
            row.encoding,
            f"{len(raw):,}",
            f"{row.packed_bytes:,.1f}",
            f"{len(raw) / row.packed_bytes:.2f}" if row.packed_bytes else "",
            f"{bits:.3f}" if bits is not None else "",
            f"{by_zlib:,}",
        )
        rows.append(list(cells))
    ratio = f"{original / coded:.2f}" if coded else ""
    total = [
        "all tensors",
        "",
        "",
        "",
        f"{original:,}",
        f"{coded:,.1f}",
        ratio,
        "",
        f"{deflated:,}",
    ]
    rest = len(packed) - coded
    others = f"{model_bytes - original:,}"
    rows += [total, ["graph and frame", "", "", "", others, f"{rest:,.1f}", "", "", ""]]
    ui.table("Packed", list(_COLUMNS), rows)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _check_other(source: Path, output: Path) -> None:
    if output.exists() and output.samefile(source):
        raise ConfigError("is the input too", where=str(output), hint="Give another name.")


def _write(path: Path, data: bytes) -> None:
    try:
        write_bytes(path, data)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(path)) from error
