"""The frame of a packed file: sections with their lengths, and a checksum over everything.

::

    magic "PSHP", version 2          4 + 1 bytes
    coder, how metadata is stored    1 + 1 bytes
    lengths of the five sections, length of the metadata as it was      LEB128 each
    side information, piles, raw bytes, coded symbols, metadata
    the first 8 bytes of the SHA-256 of all before
"""

from __future__ import annotations

import hashlib
import lzma
import zlib
from dataclasses import dataclass
from typing import Any

from compress.errors import CompressError
from compress.packing import varint

MAGIC = b"PSHP"
VERSION = 2
"""What is written. Version 1 is read too: it has no pairs and one pile less."""
CHECKSUM_BYTES = 8
MAX_METADATA_BYTES = 1 << 28

_START = len(MAGIC) + 3
_STORED, _DEFLATED, _LZMA = range(3)
_WORTH_SQUEEZING = 32
_LARGEST_DICTIONARY = 1 << 24


@dataclass(frozen=True)
class Sections:
    """What a packed file holds. ``coder`` 0 is rANS, 1 is Huffman; a small file has no piles."""

    coder: int
    side: bytes
    piles: bytes
    raw: bytes
    symbols: bytes
    metadata: bytes
    version: int = VERSION


def write(sections: Sections) -> bytes:
    """The whole file."""
    how, stored = _squeeze(sections.metadata)
    parts = (sections.side, sections.piles, sections.raw, sections.symbols, stored)
    lengths = [*(len(part) for part in parts), len(sections.metadata)]
    start = MAGIC + bytes([sections.version, sections.coder, how])
    body = b"".join([start, *(varint.write(length) for length in lengths), *parts])
    return body + hashlib.sha256(body).digest()[:CHECKSUM_BYTES]


def read(data: bytes) -> Sections:
    """The sections of a file; ``CompressError`` where it is another file, cut off or damaged."""
    if data[: len(MAGIC)] != MAGIC:
        raise CompressError("is no packed container")
    if len(data) < _START + CHECKSUM_BYTES:
        raise CompressError("is cut off")
    version, coder, how = data[len(MAGIC) : _START]
    if not 1 <= version <= VERSION:
        raise CompressError(
            f"has format version {version}; this pocketship reads 1 to {VERSION}",
            hint="Unpack it with the pocketship that wrote it.",
        )
    # Not a copy, which of megabytes takes as long as reading some of them.
    body, checksum = memoryview(data)[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if hashlib.sha256(body).digest()[:CHECKSUM_BYTES] != checksum:
        raise CompressError("is damaged or cut off: its checksum does not fit")
    if coder > 1 or how > _LZMA:
        raise CompressError("holds an encoding that this version does not know")
    at = _START
    lengths = []
    for _ in range(6):
        length, at = varint.read(data, at)
        lengths.append(length)
    *stored, metadata_bytes = lengths
    if sum(stored) != len(body) - at:
        raise CompressError("has sections that do not fill it")
    parts = []
    for length in stored:
        parts.append(data[at : at + length])
        at += length
    side, piles, raw, symbols, squeezed = parts
    metadata = _expand(how, squeezed, metadata_bytes)
    return Sections(coder, side, piles, raw, symbols, metadata, version)


def _filters(size: int) -> list[dict[str, Any]]:
    """Raw LZMA, whose dictionary is ours to choose: a hostile file cannot ask for gigabytes."""
    dictionary = min(_LARGEST_DICTIONARY, max(4096, 1 << size.bit_length()))
    return [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": dictionary}]


def _squeeze(metadata: bytes) -> tuple[int, bytes]:
    if len(metadata) < _WORTH_SQUEEZING:
        return _STORED, metadata
    deflated = zlib.compress(metadata, 9, wbits=-15)
    filters = _filters(len(metadata))
    squeezed = lzma.compress(metadata, lzma.FORMAT_RAW, filters=filters)
    forms = [(_STORED, metadata), (_DEFLATED, deflated), (_LZMA, squeezed)]
    return min(forms, key=lambda form: len(form[1]))


def _expand(how: int, stored: bytes, size: int) -> bytes:
    if size > MAX_METADATA_BYTES:
        raise CompressError(f"declares {size:,} bytes of metadata")
    try:
        if how == _STORED:
            found, whole = stored, True
        elif how == _DEFLATED:
            inflate = zlib.decompressobj(wbits=-15)
            found = inflate.decompress(stored, size + 1)
            whole = inflate.eof and not inflate.unused_data
        else:
            expand = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_filters(size))
            found = expand.decompress(stored, size + 1)
            whole = not expand.unused_data
    except (zlib.error, lzma.LZMAError, EOFError) as error:
        raise CompressError("holds metadata that cannot be expanded") from error
    if not whole or len(found) != size:
        raise CompressError("holds metadata of another length than it declares")
    return found
