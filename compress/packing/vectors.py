"""Words without positions: raw, byte planes, or a codebook with indices; whichever is smallest."""

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

Kind = Literal["raw", "planes", "codebook"]
KINDS: tuple[Kind, ...] = ("raw", "planes", "codebook")

_KIND, _PLANE, _ENTRIES, _HALF = range(36, 40)
_MOST_ENTRIES = 256
_SAMPLE = 4096


@dataclass(frozen=True, eq=False)
class Vector:
    """How rows x columns words are coded.

    ``blocks`` has one entry a byte plane (None: that plane is raw) or one for the indices of a
    codebook; ``raw`` has the bytes of the words, of each raw plane, or of the codebook.
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
    return min(found, key=lambda vector: vector.bits)


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
    if number >= len(KINDS):
        raise CompressError("holds an encoding that this version does not know")
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
    for place in range(1 if kind == "codebook" else form.size):
        held = vector.blocks[place] if vector else None
        if kind == "planes" and port.bit(_PLANE << 8 | place, int(held is None)):
            blocks.append(None)
            raws.append(b"" if vector else raw.take(count))
            continue
        blocks.append(transfer_block(port, rows, columns, held, power_of_two=power_of_two))
    return vector or Vector(form, rows, columns, kind, tuple(blocks), tuple(raws), half)
