"""Frequency tables of symbols: how they are made, and stored in few bytes.

A table gives each of up to 256 symbols a share of 4096. What is stored of a share is a level, its
logarithm in steps of 1/1 to 1/8 octave (the step that costs least in sum is chosen), as difference
to the level before: neighbouring symbols are alike where they are sorted values. A Huffman code is
the table whose shares are powers of two, so its stored levels are its code lengths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from compress.errors import CompressError
from compress.packing import huffman
from compress.packing.sideinfo import Meter, Port, choice, integer

PRECISION = 12
"""Binary digits of a share: the shares of a table add up to 2^12."""
TOTAL = 1 << PRECISION
ALPHABET = 256

_STEPS = (1, 2, 4, 8)
# 2^30 * 2^(-i/8), so that every machine makes the same shares of the same levels.
_EIGHTHS = (1073741824, 984625594, 902905651, 827968132, 759250125, 696235434, 638450708, 585461881)
_DEEPEST = 12
"""A share can be this many octaves below the largest one."""

# Contexts of what is stored (see sideinfo.integer).
_FIRST, _LAST, _STEP, _ABSENT, _SAME, _SIGN, _SIZE, _TOP = range(16, 24)

Shares = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Table:
    """Shares of the symbols 0 to len(shares) - 1, of :data:`TOTAL` in sum.

    ``levels`` is what is stored of them, in ``steps`` an octave: 0 for a symbol that does not
    occur, 1 for the largest share. A table that follows from other numbers has none.
    """

    shares: Shares
    steps: int = 0
    levels: tuple[int, ...] = ()

    @cached_property
    def starts(self) -> Shares:
        """The sum of the shares before each symbol."""
        return np.cumsum(self.shares) - self.shares

    @cached_property
    def constant(self) -> int | None:
        """The only symbol that can occur, None where there are several."""
        top = int(np.argmax(self.shares))
        return top if self.shares[top] == TOTAL else None

    def bits(self, counts: Shares) -> float:
        """What symbols that occur ``counts`` times each cost, in bits."""
        seen = np.flatnonzero(counts)
        shares = self.shares[seen] / TOTAL
        return float(-(counts[seen] * np.log2(shares)).sum())


def normalize(weights: Shares) -> Shares:
    """Shares of 4096 in the proportion of ``weights`` (whole numbers), at least 1 where not 0."""
    total = int(weights.sum())
    shares = np.where(weights > 0, np.maximum(1, weights * TOTAL // total), 0)
    order = np.argsort(-weights, kind="stable")
    over = int(shares.sum()) - TOTAL
    if over < 0:
        shares[order[0]] -= over
    for place in order:
        if over <= 0:
            break
        given = min(over, int(shares[place]) - 1)
        shares[place] -= given
        over -= given
    return shares


def geometric(elements: int, marked: int, shift: int, *, power_of_two: bool) -> Table:
    """Gaps between ``marked`` of ``elements`` places, in units of 2^``shift``; the last symbol: more.

    The shares are those of a geometric distribution and follow from the arguments alone, so that
    nothing of this table is stored. 0 < marked < elements.
    """
    stay = ((elements - marked) << 32) // elements
    for _ in range(shift):
        stay = stay * stay >> 32
    weights = []
    tail = 1 << 32
    while len(weights) < 63 and tail > 1 << 21:
        following = tail * stay >> 32
        weights.append(tail - following)
        tail = following
    shares = normalize(np.maximum(np.array([*weights, tail], dtype=np.int64) >> 8, 1))
    if not power_of_two:
        return Table(shares)
    lengths = huffman.code_lengths(shares)
    return Table(np.array([TOTAL >> length for length in lengths], dtype=np.int64))


def gap_shift(elements: int, marked: int) -> int:
    """How many low digits of a gap are so even that a table is not worth it: 2^shift * p <= 1/4."""
    return max(0, (elements // (4 * marked)).bit_length() - 1)


def fit(counts: Shares, *, power_of_two: bool) -> tuple[Table, float]:
    """The table for symbols that occur ``counts`` times, and what both cost together, in bits."""
    if power_of_two:
        lengths = huffman.code_lengths(counts)
        table = _of_lengths([length + 1 if length >= 0 else 0 for length in lengths])
        return table, table.bits(counts) + stored_bits(table)
    best: tuple[Table, float] | None = None
    logarithms = np.log2(np.maximum(counts, 1) / counts.max())
    for steps in _STEPS:
        rounded = np.rint(-logarithms * steps).astype(np.int64)
        levels = np.where(counts > 0, 1 + np.minimum(rounded, steps * _DEEPEST), 0)
        table = _of_levels(levels.tolist(), steps)
        cost = table.bits(counts) + stored_bits(table)
        if best is not None and cost >= best[1]:
            break
        best = table, cost
    assert best is not None
    return best


def transfer(port: Port, table: Table | None, *, power_of_two: bool) -> Table:
    """Write ``table``, or read one where it is None; ``CompressError`` where it cannot be one."""
    levels = list(table.levels) if table else []
    first = next((at for at, level in enumerate(levels) if level), 0)
    first = integer(port, _FIRST, first)
    count = integer(port, _LAST, len(levels) - first - 1 if table else 0) + 1
    if first + count > ALPHABET:
        raise CompressError("holds a table of more than 256 symbols")
    steps = 1
    if not power_of_two:
        index = _STEPS.index(table.steps) if table else 0
        steps = _STEPS[choice(port, _STEP, 2, index)]
    read = [0] * first
    before, turn, absent = integer(port, _TOP, levels[first] if table else 0), 0, 0
    read.append(before)
    for place in range(first + 1, first + count):
        level = levels[place] if table else 0
        absent = port.bit(_ABSENT << 8 | absent, int(level == 0))
        if absent:
            read.append(0)
            continue
        moved = 1 - port.bit(_SAME << 8 | turn, int(level == before))
        if moved:
            down = port.bit(_SIGN << 8 | turn, int(level < before))
            size = 1 + integer(port, _SIZE, abs(level - before) - 1 if table else 0)
            before += -size if down else size
            turn = 1 + down
        else:
            turn = 0
        read.append(before)
    if table:
        return table
    if min(read) < 0 or max(read) == 0:
        raise CompressError("holds a table with impossible shares")
    return _of_lengths(read) if power_of_two else _of_levels(read, steps)


def stored_bits(table: Table) -> float:
    """What :func:`transfer` spends on ``table`` when no context has learned anything yet."""
    meter = Meter()
    transfer(meter, table, power_of_two=table.steps == 0)
    return meter.bits


def _of_levels(levels: list[int], steps: int) -> Table:
    if max(levels) > steps * _DEEPEST + 1:
        raise CompressError("holds a table with impossible shares")
    weights = [
        _EIGHTHS[(level - 1) * 8 // steps % 8] >> (level - 1) // steps if level else 0
        for level in levels
    ]
    return Table(normalize(np.array(weights, dtype=np.int64)), steps, tuple(levels))


def _of_lengths(levels: list[int]) -> Table:
    if max(levels) > PRECISION + 1:
        raise CompressError("holds a code that is too long")
    shares = np.array([TOTAL >> level - 1 if level else 0 for level in levels], dtype=np.int64)
    if shares.sum() != TOTAL:
        raise CompressError("holds lengths that are no prefix code")
    return Table(shares, 0, tuple(levels))
