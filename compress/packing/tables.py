"""Frequency tables of symbols: how they are made, and stored in few bytes.

A table gives each of up to 256 symbols a share of 4096. What is stored of a share is a level, its
logarithm in steps of 1/1 to 1/8 octave (the step that costs least in sum is chosen), as difference
to the level before: neighbouring symbols are alike where they are sorted values. A Huffman code is
the table whose shares are powers of two, so its stored levels are its code lengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from compress.errors import CompressError
from compress.packing import huffman
from compress.packing.sideinfo import Port, Symbols, choice, entropy_bits, integer

PRECISION = 12
"""Binary digits of a share: the shares of a table add up to 2^12."""
TOTAL = 1 << PRECISION
ALPHABET = 256

_STEPS = (1, 2, 4, 8)
# 2^30 * 2^(-i/8), so that every machine makes the same shares of the same levels.
_EIGHTHS = (1073741824, 984625594, 902905651, 827968132, 759250125, 696235434, 638450708, 585461881)
_DEEPEST = 12
"""A share can be this many octaves below the largest one."""

_WEIGHTS = {
    steps: np.array(
        [0, *(_EIGHTHS[n * 8 // steps % 8] >> n // steps for n in range(steps * _DEEPEST + 1))],
        dtype=np.int64,
    )
    for steps in _STEPS
}
_ABSENT = 1
# What the moves 0 to 255 add to a level (see _moves); 1 is none.
_MOVED = np.array([0, 0, *(-(n >> 1) if n % 2 == 0 else n >> 1 for n in range(2, 256))])
TABLES, HEADS = 0, 5
"""The piles of levels, and of the four numbers that stand before them (see sideinfo.Port)."""

# Contexts of what is stored (see sideinfo.integer).
_FIRST, _LAST, _STEP, _TOP = range(16, 20)

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
    shares = np.maximum(weights * TOTAL // int(weights.sum()), weights > 0)
    over = int(shares.sum()) - TOTAL
    if over < 0:
        shares[weights.argmax()] -= over
    if over <= 0:
        return shares
    for place in np.argsort(-weights, kind="stable").tolist():
        given = min(over, int(shares[place]) - 1)
        shares[place] -= given
        over -= given
        if over <= 0:
            break
    return shares


def geometric(elements: int, marked: int, shift: int, *, power_of_two: bool) -> Table:
    """Gaps between ``marked`` of ``elements`` places in units of 2^``shift``; the last is "more".

    The shares are those of a geometric distribution and follow from the arguments alone, so that
    nothing of this table is stored. 0 < marked < elements.
    """
    stay = ((elements - marked) << 32) // elements
    for _ in range(shift):
        stay = stay * stay >> 32
    weights: list[int] = []
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
        table = _of_lengths(np.array(lengths) + 1)
        return table, table.bits(counts) + stored_bits(table)
    best: tuple[Table, float] | None = None
    logarithms = np.log2(np.maximum(counts, 1) / counts.max())
    for steps in _STEPS:
        rounded = np.rint(-logarithms * steps).astype(np.int64)
        levels = np.where(counts > 0, 1 + np.minimum(rounded, steps * _DEEPEST), 0)
        table = _of_levels(levels, steps)
        cost = table.bits(counts) + stored_bits(table)
        if best is not None and cost >= best[1]:
            break
        best = table, cost
    assert best is not None
    return best


def transfer(port: Port, table: Table | None, *, power_of_two: bool) -> Table:
    """Write ``table``, or read one where it is None; ``CompressError`` where it cannot be one."""
    levels = np.array(table.levels) if table else np.zeros(0, dtype=np.int64)
    present = levels.nonzero()[0].tolist() if table else [0]
    steps = _STEPS.index(table.steps) if table and not power_of_two else 0
    given = (present[0], present[-1] - present[0], steps, int(levels[present[0]]) if table else 0)
    first, last, steps, top = _transfer_head(port, given, power_of_two)
    count, steps = last + 1, _STEPS[steps]
    if first + count > ALPHABET:
        raise CompressError("holds a table of more than 256 symbols")
    moves = _moves(levels[first : first + count]) if table else None
    moves = port.symbols(TABLES, count - 1, moves)
    if table:
        return table
    read = np.zeros(first + count, dtype=np.int64)
    read[first] = top = min(top, ALPHABET)
    (there,) = (moves != _ABSENT).nonzero()
    later = _MOVED[moves[there]].cumsum() + top
    read[there + first + 1] = later
    if top == 0 or (len(there) and int(later.min()) <= 0):
        raise CompressError("holds a table with impossible shares")
    return _of_lengths(read) if power_of_two else _of_levels(read, steps)


def _transfer_head(
    port: Port, given: tuple[int, int, int, int], power_of_two: bool
) -> tuple[int, int, int, int]:
    """The first symbol, how many follow, the number of the step, the first symbol's level."""
    first, last, step, top = given
    if port.heads_piled:
        head = np.array(given, dtype=np.uint8)
        first, last, step, top = port.symbols(HEADS, 4, head).tolist()
        if step >= len(_STEPS) or (power_of_two and step):
            raise CompressError("holds a table with impossible shares")
        return first, last, step, top
    first = integer(port, _FIRST, first)
    last = integer(port, _LAST, last)
    step = 0 if power_of_two else choice(port, _STEP, 2, step)
    return first, last, step, integer(port, _TOP, top)


def stored_bits(table: Table) -> float:
    """About what :func:`transfer` spends on ``table``."""
    levels = np.array(table.levels)
    present = np.flatnonzero(levels)
    return 18 + entropy_bits(_moves(levels[present[0] : present[-1] + 1]))


def _moves(levels: Shares) -> Symbols:
    """Each level but the first: 0 as the one before, 1 absent, else 2 more than 0, -1, 1, -2 ...

    An absent level is no level before another.
    """
    there = np.flatnonzero(levels)
    steps = np.diff(levels[there])
    moves = np.full(len(levels), _ABSENT, dtype=np.uint8)
    moves[there[1:]] = np.where(steps == 0, 0, np.where(steps < 0, -2 * steps, 2 * steps + 1))
    return moves[1:]


def _of_levels(levels: Shares, steps: int) -> Table:
    if int(levels.max()) > steps * _DEEPEST + 1:
        raise CompressError("holds a table with impossible shares")
    weights = _WEIGHTS[steps][levels]
    return Table(normalize(weights), steps, tuple(levels.tolist()))


def _of_lengths(levels: Shares) -> Table:
    if int(levels.max()) > PRECISION + 1:
        raise CompressError("holds a code that is too long")
    shares = np.where(levels > 0, TOTAL >> np.maximum(levels - 1, 0), 0)
    if int(shares.sum()) != TOTAL:
        raise CompressError("holds lengths that are no prefix code")
    return Table(shares, 0, tuple(levels.tolist()))
