"""Where the non-zeros of a matrix are: gaps between them, segment by segment.

Relative indices are those of Han et al., *Deep Compression* (arXiv 1510.00149), with what their
fixed number of index digits leaves on the table: within a segment (see
:mod:`compress.packing.densities`) non-zeros are equally likely everywhere, so gaps are geometric
with a known parameter, and their entropy is that of the mask itself, element by element. Coding
the gaps therefore costs what arithmetic coding of the mask in the same contexts would, but one
symbol a non-zero. The lowest digits of long gaps are even and are stored as they are. A gap beyond
the table is a filler, as in the paper, and then the rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from compress.errors import CompressError
from compress.packing import densities
from compress.packing.densities import Densities
from compress.packing.lanes import Numbers, Run, Symbols
from compress.packing.raw import RawReader
from compress.packing.sideinfo import Port, integer
from compress.packing.tables import Table, gap_shift, geometric

_FILLERS = 114  # a context


@dataclass(frozen=True, eq=False)
class Positions:
    """The marked elements of a height x width matrix.

    ``fillers`` has one number a segment that has gaps; ``low`` the packed low digits of all gaps.
    """

    height: int
    width: int
    densities: Densities
    fillers: tuple[int, ...]
    low: bytes
    gaps: list[Gaps]
    """How each segment that is neither empty nor full is coded."""
    held: tuple[Symbols, ...] = ()
    """The symbols of each run, where the positions are about to be written."""
    bits: float = 0.0

    @property
    def count(self) -> int:
        """How many elements are marked."""
        return sum(self.densities.marked)

    def runs(self) -> list[Run]:
        """One run a segment that is neither empty nor full."""
        return [
            Run(gaps.table, gaps.marked + fillers)
            for gaps, fillers in zip(self.gaps, self.fillers, strict=True)
        ]

    def coded(self) -> list[Symbols]:
        """The symbols of each of :meth:`runs`."""
        return list(self.held)

    def decode(self, symbols: Symbols) -> Numbers:
        """Flat indices of the marked elements, ascending, from the symbols of :meth:`runs`."""
        order = _Order(self.densities) if self.densities.leveled else None
        low = np.unpackbits(np.frombuffer(self.low, dtype=np.uint8))
        found = []
        at = at_low = 0
        coded = iter(zip(self.gaps, self.fillers, strict=True))
        for segment, (size, marked) in enumerate(
            zip(self.densities.sizes, self.densities.marked, strict=True)
        ):
            if marked == 0:
                continue
            if marked == size:
                places = np.arange(size)
            else:
                gaps, fillers = next(coded)
                end = at + marked + fillers
                digits = low[at_low : at_low + marked * gaps.shift]
                places = gaps.places(symbols[at:end], digits)
                at, at_low = end, at_low + marked * gaps.shift
            found.append(order.flat(segment, places) if order else places)
        # Segments interleave: marking and collecting puts them in order faster than sorting does.
        mask = np.zeros(self.height * self.width, dtype=np.bool_)
        for flat in found:
            mask[flat] = True
        return np.flatnonzero(mask)


@dataclass(frozen=True, eq=False)
class Gaps:
    """How gaps within one segment are coded."""

    segment: int
    size: int
    marked: int
    shift: int
    table: Table

    @classmethod
    def of(cls, segment: int, size: int, marked: int, power_of_two: bool) -> Gaps:
        """The table and low digits for a segment of ``size`` elements, ``marked`` of them."""
        shift = gap_shift(size, marked)
        table = geometric(size, marked, shift, power_of_two=power_of_two)
        return cls(segment, size, marked, shift, table)

    @property
    def filler(self) -> int:
        """The symbol that stands for that many units without a non-zero."""
        return len(self.table.shares) - 1

    def split(self, places: Numbers) -> tuple[Symbols, Symbols, int]:
        """Symbols, low digits (one a byte, the highest first) and fillers of ascending places."""
        gaps = np.diff(places, prepend=-1) - 1
        full, rest = np.divmod(gaps >> self.shift, self.filler)
        ends = np.cumsum(full + 1)
        symbols = np.full(int(ends[-1]), self.filler, dtype=np.uint8)
        symbols[ends - 1] = rest
        digits = gaps[:, None] >> np.arange(self.shift - 1, -1, -1) & 1
        return symbols, digits.astype(np.uint8).reshape(-1), int(full.sum())

    def places(self, symbols: Symbols, digits: Symbols) -> Numbers:
        """The opposite of :meth:`split`; ``CompressError`` where the places do not fit."""
        ending = symbols != self.filler
        if int(ending.sum()) != self.marked:
            raise CompressError("holds gaps that do not add up")
        steps = symbols.astype(np.int64) << self.shift
        weights = 1 << np.arange(self.shift - 1, -1, -1, dtype=np.int64)
        steps[ending] += digits.reshape(self.marked, self.shift) @ weights + 1
        places: Numbers = np.cumsum(steps)[ending] - 1
        if places[-1] >= self.size:
            raise CompressError("holds gaps that do not add up")
        return places


class _Order:
    """Segments as sequences: blocks (row level by column level), each row by row."""

    def __init__(self, levels: Densities) -> None:
        self._width = len(levels.columns)
        self.row_order = np.argsort(levels.rows, kind="stable")
        self.column_order = np.argsort(levels.columns, kind="stable")
        self._rows_in = np.bincount(levels.rows, minlength=16)
        self._columns_in = np.bincount(levels.columns, minlength=16)
        self._rows_before = np.cumsum(self._rows_in) - self._rows_in
        self._columns_before = np.cumsum(self._columns_in) - self._columns_in
        self._levels = levels

    def flat(self, segment: int, places: Numbers) -> Numbers:
        """Flat indices of the elements at ``places`` of a segment."""
        row_levels, starts = self._blocks(segment)
        block = np.searchsorted(starts, places, "right") - 1
        row_level = row_levels[block]
        column_level = segment + 2 - row_level
        down, right = np.divmod(places - starts[block], self._columns_in[column_level])
        rows = self.row_order[self._rows_before[row_level] + down]
        columns = self.column_order[self._columns_before[column_level] + right]
        found: Numbers = rows * self._width + columns
        return found

    def places(self, rows: Numbers, columns: Numbers) -> tuple[Numbers, Numbers]:
        """The segment of each element and its place there."""
        row_level, column_level = self._levels.rows[rows], self._levels.columns[columns]
        segments = row_level + column_level - 2
        starts = np.zeros((16, 16), dtype=np.int64)
        for segment in range(len(self._levels.marked)):
            levels, begin = self._blocks(segment)
            starts[levels, segment + 2 - levels] = begin
        down = _ranks(self.row_order)[rows] - self._rows_before[row_level]
        right = _ranks(self.column_order)[columns] - self._columns_before[column_level]
        width = self._columns_in[column_level]
        return segments, (starts[row_level, column_level] + down * width + right).astype(np.int64)

    def _blocks(self, segment: int) -> tuple[Numbers, Numbers]:
        """Row levels of a segment's blocks that are not empty, and where each begins."""
        levels = np.arange(max(1, segment + 2 - 15), min(15, segment + 1) + 1)
        sizes = self._rows_in[levels] * self._columns_in[segment + 2 - levels]
        starts = np.cumsum(sizes) - sizes
        return levels[sizes > 0], starts[sizes > 0]


def _ranks(order: Numbers) -> Numbers:
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order))
    return ranks


def _all_gaps(levels: Densities, power_of_two: bool) -> list[Gaps]:
    return [
        Gaps.of(segment, size, marked, power_of_two)
        for segment, (size, marked) in enumerate(zip(levels.sizes, levels.marked, strict=True))
        if 0 < marked < size
    ]


def of(flat: Numbers, height: int, width: int, *, power_of_two: bool) -> Positions:
    """Positions of the elements whose flat indices are ``flat``, ascending and not empty."""
    rows, columns = np.divmod(flat, width)
    levels = densities.choose(rows, columns, height, width)
    if levels.leveled:
        segments, places = _Order(levels).places(rows, columns)
    else:
        segments, places = np.zeros_like(flat), flat
    held, fillers, low = [], [], []
    bits = levels.side_bits
    all_gaps = _all_gaps(levels, power_of_two)
    for gaps in all_gaps:
        here = np.sort(places[segments == gaps.segment])
        symbols, digits, filled = gaps.split(here)
        held.append(symbols)
        low.append(digits)
        fillers.append(filled)
        bits += gaps.table.bits(np.bincount(symbols)) + len(digits) + 2 * math.log2(1 + filled) + 1
    packed = np.packbits(np.concatenate(low)).tobytes() if low else b""
    return Positions(height, width, levels, tuple(fillers), packed, all_gaps, tuple(held), bits)


def transfer(
    port: Port,
    height: int,
    width: int,
    positions: Positions | None,
    *,
    raw: RawReader,
    power_of_two: bool,
) -> Positions:
    """Write what describes ``positions``, or read it (and its low digits) where it is None."""
    levels = densities.transfer(port, height, width, positions.densities if positions else None)
    fillers = []
    low = 0
    all_gaps = positions.gaps if positions else _all_gaps(levels, power_of_two)
    for number, gaps in enumerate(all_gaps):
        fillers.append(integer(port, _FILLERS, positions.fillers[number] if positions else 0))
        if fillers[-1] * gaps.filler << gaps.shift > gaps.size:
            raise CompressError("holds gaps that do not add up")
        low += gaps.marked * gaps.shift
    if positions:
        return positions
    packed = raw.take((low + 7) // 8)
    return Positions(height, width, levels, tuple(fillers), packed, all_gaps)
