"""What a bundle has to know of an ELF file: its machine, its libraries, its page alignment."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

EM_X86_64 = 62
EM_AARCH64 = 183

_PT_LOAD = 1
_PT_DYNAMIC = 2
_DT_NEEDED = 1
_DT_STRTAB = 5
_DT_SONAME = 14
_MAX_NAME = 4096


@dataclass(frozen=True)
class Elf:
    """One 64-bit little-endian ELF file.

    ``alignment`` is the smallest alignment of its loadable segments in bytes: a kernel with larger
    pages than that cannot load it. ``needed`` are its DT_NEEDED names in the file's order.
    """

    machine: int
    needed: tuple[str, ...]
    soname: str | None
    alignment: int


def read_elf(path: Path) -> Elf:
    """Read the headers of ``path``; ``ValueError`` where it is no usable ELF file."""
    return parse_elf(path.read_bytes())


def parse_elf(data: bytes) -> Elf:
    """Read the headers of an ELF file's content (System V ABI, chapters 4 and 5).

    Any content is allowed; what is not a sound 64-bit little-endian ELF file is a ``ValueError``.
    """
    try:
        return _parse(data)
    except struct.error as error:
        raise ValueError(f"damaged ELF file: {error}") from error


def _parse(data: bytes) -> Elf:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no 64-bit little-endian ELF file")
    (machine,) = struct.unpack_from("<H", data, 18)
    (table,) = struct.unpack_from("<Q", data, 32)
    entry_size, count = struct.unpack_from("<HH", data, 54)
    loads: list[tuple[int, int, int]] = []  # address, file offset, size in the file
    alignments: list[int] = []
    dynamic: tuple[int, int] | None = None
    for index in range(count):
        kind, _, offset, address, _, size, _, align = struct.unpack_from(
            "<IIQQQQQQ", data, table + index * entry_size
        )
        if kind == _PT_LOAD:
            loads.append((address, offset, size))
            alignments.append(align)
        elif kind == _PT_DYNAMIC:
            dynamic = (offset, size)
    if not loads:
        raise ValueError("the ELF file has no loadable segment")
    names = _dynamic_names(data, dynamic, loads) if dynamic else {}
    return Elf(
        machine=machine,
        needed=tuple(names.get(_DT_NEEDED, ())),
        soname=next(iter(names.get(_DT_SONAME, ())), None),
        alignment=min(alignments),
    )


def _dynamic_names(
    data: bytes, dynamic: tuple[int, int], loads: list[tuple[int, int, int]]
) -> dict[int, list[str]]:
    offset, size = dynamic
    if offset + size > len(data):
        raise ValueError("the ELF file's dynamic section lies outside the file")
    references: list[tuple[int, int]] = []
    strings: int | None = None
    for tag, value in struct.iter_unpack("<qQ", data[offset : offset + size // 16 * 16]):
        if tag == 0:
            break
        if tag == _DT_STRTAB:
            strings = value
        elif tag in (_DT_NEEDED, _DT_SONAME):
            references.append((tag, value))
    if not references:
        return {}
    base = next(
        (
            at + strings - address
            for address, at, length in loads
            if strings is not None and address <= strings < address + length
        ),
        None,
    )
    if base is None:
        raise ValueError("the ELF file's string table lies outside its segments")
    names: dict[int, list[str]] = {}
    for tag, value in references:
        end = data.find(b"\0", base + value, base + value + _MAX_NAME)
        if end < 0:
            raise ValueError("a name in the ELF file has no end")
        names.setdefault(tag, []).append(data[base + value : end].decode("utf-8", "replace"))
    return names
