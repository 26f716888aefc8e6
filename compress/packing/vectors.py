"""Words without positions: raw, byte planes, a codebook with indices, or pairs of half bytes.

The smallest is taken, but for pairs, which may be a little larger because they are read faster.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from compress.errors import CompressError
from compress.packing import elements
from compress.packing.blocks import Block, choose, transfer_block
from compress.packing.elements import Form, Words
from compress.packing.lanes import Run, Symbols
from compress.packing.raw import RawReader
from compress.packing.sideinfo import Port, choice, integer

Kind = Literal["raw", "planes", "codebook", "pairs"]
KINDS: tuple[Kind, ...] = ("raw", "planes", "codebook", "pairs")
"""What a container stores is the place in here; version 1 has no pairs."""

_KIND, _PLANE, _ENTRIES, _HALF = range(36, 40)
_MOST_ENTRIES = 256
_SAMPLE = 4096
WORTH_MORE_SYMBOLS = 0.99
"""Of :data:`MANY` words or more: what the bits of an encoding with twice the symbols, which takes
twice as long to read, must stay below, as a share of the bits of the other."""
MANY = 4096
_LOW_HALF = 15


@dataclass(frozen=True, eq=False)
class Vector:
    """How rows x columns words are coded.

    ``blocks`` has one entry a byte plane (None: that plane is raw) or one for the indices of a
    codebook; ``raw`` has the bytes of the words, of each raw plane, or of the codebook. ``pairs``
    are of one-byte words: a symbol is the high halves of two neighbours in a row, ``raw`` has
    their low halves, which hardly differ in frequency.
    """

    form: Form
    rows: int
    columns: int
    kind: Kind
    blocks: tuple[Block | None, ...] = ()
    raw: tuple[bytes, ...] = ()
    half: int = 0
    bits: float = field(default=0.0, compare=False)

    def runs(self) -> list[Run]:
        """The runs of all blocks."""
        return [run for block in self.blocks if block for run in block.runs()]

    def coded(self) -> list[Symbols]:
        """The symbols of each of :meth:`runs`."""
        return [symbols for block in self.blocks if block for symbols in block.coded()]

    def decode(self, symbols: Symbols) -> Words:
        """The words, flat, from the symbols of :meth:`runs`."""
        if self.kind == "raw":
            return elements.words_from(self.raw[0], self.form.size)
        found, at, raws = [], 0, iter(self.raw)
        for block in self.blocks:
            if block is None:
                found.append(np.frombuffer(next(raws), dtype=np.uint8))
                continue
            count = sum(run.count for run in block.runs())
            found.append(block.decode(symbols[at : at + count]).reshape(-1))
            at += count
        if self.kind == "planes":
            return elements.from_planes(found, self.form)
        if self.kind == "pairs":
            lows = np.frombuffer(self.raw[0], dtype=np.uint8)
            return elements.from_planes([_unpaired(found[0], lows)], self.form)
        book = elements.words_from(self.raw[0], 2 if self.half else self.form.size)
        if self.half:
            book = elements.from_half(book, self.half)
        if len(found[0]) and int(found[0].max()) >= len(book):
            raise CompressError("names a codebook entry that is not there")
        return book[found[0]]


def best(words: Words, rows: int, form: Form, *, power_of_two: bool) -> Vector:
    """The smallest of the three for ``words`` (flat, of ``rows`` equal rows)."""
    columns = len(words) // rows if rows else 0
    raw = Vector(
        form,
        rows,
        columns,
        "raw",
        raw=(elements.bytes_from(words),),
        bits=8.0 * form.size * len(words),
    )
    if not len(words):
        return raw
    found = [raw, _planes(words, rows, columns, form, power_of_two)]
    if form.size > 1 or len(words) > 2 * _MOST_ENTRIES:
        found += _codebook(words, rows, columns, form, power_of_two)
    least = min(found, key=lambda vector: vector.bits)
    if form.size > 1 or columns % 2 or len(words) < MANY or least.kind == "raw":
        return least
    pairs = _pairs(words, rows, columns, form, power_of_two)
    return pairs if WORTH_MORE_SYMBOLS * pairs.bits <= least.bits else least


def _planes(words: Words, rows: int, columns: int, form: Form, power_of_two: bool) -> Vector:
    blocks: list[Block | None] = []
    raw = []
    bits = 0.0
    for plane in elements.to_planes(words, form):
        counts = np.bincount(plane, minlength=256)
        shares = counts[counts > 0] / len(plane)
        # Mantissas: what no table can win needs no search for one.
        least = float(-(shares * np.log2(shares)).sum()) * len(plane)
        block = None
        if least < 7.98 * len(plane) or len(plane) < _SAMPLE:
            block, cost = choose(plane.reshape(rows, columns), power_of_two=power_of_two)
        if block is None or cost >= 8 * len(plane):
            block, cost = None, 8.0 * len(plane)
            raw.append(plane.tobytes())
        blocks.append(block)
        bits += cost
    return Vector(form, rows, columns, "planes", tuple(blocks), tuple(raw), bits=bits)


def _codebook(
    words: Words, rows: int, columns: int, form: Form, power_of_two: bool
) -> list[Vector]:
    if len(np.unique(words[:: max(1, len(words) // _SAMPLE)])) > _MOST_ENTRIES:
        return []
    entries, index = np.unique(words, return_inverse=True)
    if len(entries) > _MOST_ENTRIES:
        return []
    order = elements.in_order(entries, form)
    rank = np.empty(len(order), dtype=np.uint8)
    rank[order] = np.arange(len(order))
    block, bits = choose(rank[index].reshape(rows, columns), power_of_two=power_of_two)
    book = entries[order]
    half = elements.half_form(book, form)
    stored = elements.bytes_from(elements.to_half(book, half) if half else book)
    bits += 8 * len(stored) + 12
    return [Vector(form, rows, columns, "codebook", (block,), (stored,), half, bits)]


def _pairs(words: Words, rows: int, columns: int, form: Form, power_of_two: bool) -> Vector:
    (plane,) = elements.to_planes(words, form)
    first, second = plane[0::2], plane[1::2]
    highs = first & ~np.uint8(_LOW_HALF) | second >> 4
    lows = (first << 4 | second & _LOW_HALF).tobytes()
    block, bits = choose(highs.reshape(rows, columns // 2), power_of_two=power_of_two)
    return Vector(form, rows, columns, "pairs", (block,), (lows,), bits=bits + 8 * len(lows))


def _unpaired(highs: Symbols, lows: Symbols) -> Symbols:
    """The bytes of which :func:`_pairs` made symbols and low halves."""
    plane = np.empty(2 * len(highs), dtype=np.uint8)
    pairs = plane.reshape(-1, 2)
    np.bitwise_or(highs & ~np.uint8(_LOW_HALF), lows >> 4, out=pairs[:, 0])
    np.bitwise_or(highs << 4, lows & _LOW_HALF, out=pairs[:, 1])
    return plane


def transfer(
    port: Port,
    form: Form,
    rows: int,
    columns: int,
    vector: Vector | None,
    *,
    raw: RawReader,
    power_of_two: bool,
) -> Vector:
    """Write what describes ``vector``, or read it (and its raw bytes) where it is None."""
    number = choice(port, _KIND, 2, KINDS.index(vector.kind) if vector else 0)
    kind = KINDS[number]
    count = rows * columns
    if kind == "raw":
        return vector or Vector(form, rows, columns, kind, raw=(raw.take(count * form.size),))
    if count == 0:
        raise CompressError("codes elements that are not there")
    blocks: list[Block | None] = []
    raws = []
    half = 0
    if kind == "codebook":
        half = choice(port, _HALF, 2, vector.half if vector else 0)
        size = 2 if half else form.size
        entries = integer(port, _ENTRIES, len(vector.raw[0]) // size - 1 if vector else 0) + 1
        impossible = half > 2 or (half and (form.kind, form.size) != ("float", 4))
        if impossible or entries > _MOST_ENTRIES:
            raise CompressError("holds a codebook of an impossible size")
        raws.append(b"" if vector else raw.take(entries * size))
    if kind == "pairs":
        if form.size > 1 or columns % 2:
            raise CompressError("holds pairs of what cannot be paired")
        raws.append(b"" if vector else raw.take(count // 2))
        columns //= 2
    for place in range(form.size if kind == "planes" else 1):
        held = vector.blocks[place] if vector else None
        if kind == "planes" and port.bit(_PLANE << 8 | place, int(held is None)):
            blocks.append(None)
            raws.append(b"" if vector else raw.take(count))
            continue
        blocks.append(transfer_block(port, rows, columns, held, power_of_two=power_of_two))
    return vector or Vector(form, rows, count // rows, kind, tuple(blocks), tuple(raws), half)
