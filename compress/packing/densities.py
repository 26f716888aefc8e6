"""How likely an element of a matrix is to be non-zero, by its row and its column.

After pruning, whole columns (inputs that carry little, such as the border of an image) and rows
differ in density by orders of magnitude. Each row and each column gets a level, the logarithm of
its density in steps of an octave or half of one; an element's likelihood follows from the sum of
its two levels (the product of the margins is the maximum-likelihood estimate of a model of rank
one). Elements of equal sum are a *segment*: one density, which is stored exactly as a count. Level
0 is a row or column without any non-zero; no element of it is coded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from compress.errors import CompressError
from compress.packing.lanes import Numbers
from compress.packing.sideinfo import Port, choice, entropy_bits, integer

LONGEST_SIDE = 1 << 20
"""Rows or columns beyond this have no levels."""
_DIGITS = 4
_TOP = (1 << _DIGITS) - 1
_ROUNDS = 4

ROWS, COLUMNS = 2, 3
"""The piles of levels (see sideinfo.Port.symbols)."""

_WHICH, _MARKED = 112, 113  # contexts


@dataclass(frozen=True, eq=False)
class Densities:
    """Levels of ``rows`` and ``columns`` and, for each segment, how many elements are marked.

    ``marked[s]`` belongs to the ``sizes[s]`` elements whose levels add up to s + 2. ``leveled`` has
    digit 0 set where rows have levels of their own and digit 1 where columns have; the other side
    is at level 1. Where it is 0 there is one segment and the sides are left out.
    """

    rows: Numbers
    columns: Numbers
    leveled: int
    sizes: tuple[int, ...]
    marked: tuple[int, ...]
    side_bits: float = 0.0
    """What storing this takes, without the positions themselves."""


def choose(rows: Numbers, columns: Numbers, height: int, width: int) -> Densities:
    """The levels that cost least for a matrix marked at (rows[i], columns[i])."""
    by_row = np.bincount(rows, minlength=height)
    by_column = np.bincount(columns, minlength=width)
    best: tuple[float, Densities] | None = None
    short = min(height, width) > 1 and max(height, width) <= LONGEST_SIDE
    for steps, leveled in (
        (0, 0),
        *((octave, side) for octave in (1, 2) for side in (1, 2, 3) if short),
    ):
        ones = np.ones(height, np.int64), np.ones(width, np.int64)
        row_levels = _levels(by_row, width, steps) if leveled & 1 else ones[0]
        column_levels = _levels(by_column, height, steps) if leveled & 2 else ones[1]
        sizes = _sizes(row_levels, column_levels)
        sums = row_levels[rows] + column_levels[columns] - 2
        marked = np.bincount(sums, minlength=len(sizes))
        found = Densities(
            row_levels, column_levels, leveled, tuple(sizes.tolist()), tuple(marked.tolist())
        )
        side = float((2 * np.log2(1 + marked) + 1).sum())
        for digit, levels in ((1, row_levels), (2, column_levels)):
            side += entropy_bits(levels.astype(np.uint8)) if leveled & digit else 0
        bits = side + _entropy(marked, sizes)
        if best is None or bits < best[0]:
            best = bits, replace(found, side_bits=side)
    assert best is not None
    return best[1]


def transfer(port: Port, height: int, width: int, densities: Densities | None) -> Densities:
    """Write ``densities`` of a matrix, or read them where it is None."""
    leveled = choice(port, _WHICH, 2, densities.leveled if densities else 0)
    if leveled and max(height, width) > LONGEST_SIDE:
        raise CompressError("declares levels of too many rows")
    sides: list[Numbers] = []
    for digit, count, side in (
        (1, height, densities.rows if densities else None),
        (2, width, densities.columns if densities else None),
    ):
        if not leveled:
            break
        if not leveled & digit:
            sides.append(np.ones(count, dtype=np.int64))
            continue
        given = None if side is None else side.astype(np.uint8)
        read = port.symbols(ROWS if digit == 1 else COLUMNS, count, given, _DIGITS)
        if len(read) and int(read.max()) > _TOP:
            raise CompressError("declares an impossible density")
        sides.append(read.astype(np.int64))
    none = np.zeros(0, dtype=np.int64)
    rows, columns = sides or (none, none)
    sizes = _sizes(rows, columns).tolist() if leveled else [height * width]
    marked = []
    for segment, size in enumerate(sizes):
        held = densities.marked[segment] if densities else 0
        marked.append(integer(port, _MARKED, held) if size else 0)
        if marked[-1] > size:
            raise CompressError("has more non-zeros than elements")
    return densities or Densities(rows, columns, leveled, tuple(sizes), tuple(marked))


def _sizes(rows: Numbers, columns: Numbers) -> Numbers:
    in_level = [np.bincount(side, minlength=_TOP + 1)[1:] for side in (rows, columns)]
    sizes = np.convolve(in_level[0], in_level[1])
    used = np.flatnonzero(sizes)
    return sizes[: used[-1] + 1] if len(used) else sizes[:0]


def _entropy(marked: Numbers, sizes: Numbers) -> float:
    """Bits of saying which ``marked`` of ``sizes`` elements are marked, in sum."""
    inner = (marked > 0) & (marked < sizes)
    m, n = marked[inner].astype(float), sizes[inner].astype(float)
    return float((n * np.log2(n) - m * np.log2(m) - (n - m) * np.log2(n - m)).sum())


def _levels(counts: Numbers, length: int, steps: int) -> Numbers:
    """Levels of lines (rows or columns) of ``length`` elements of which ``counts`` are marked.

    Each line gets the level that codes it and the level's own name in the fewest bits together;
    what names cost follows from how often they were chosen in the round before.
    """
    top = max(1, int(counts.max()))
    likely = np.minimum(top / length * 2.0 ** ((np.arange(1, _TOP + 1) - _TOP) / steps), 0.98)
    costs = -np.outer(counts, np.log2(likely)) - np.outer(length - counts, np.log2(1 - likely))
    costs = np.hstack([np.where(counts == 0, 0.0, np.inf)[:, None], costs])
    levels = np.argmin(costs, axis=1)
    for _ in range(_ROUNDS):
        names = np.bincount(levels, minlength=_TOP + 1) + 0.05
        levels = np.argmin(costs - np.log2(names / names.sum()), axis=1)
    # The sums, and so the segments, begin at the lowest level in use.
    lowest = levels[levels > 0].min() if (levels > 0).any() else 1
    return np.where(levels > 0, levels - lowest + 1, 0).astype(np.int64)
