"""What both coders of symbols share: the runs that they code, dealt to lanes.

All symbols of a container are one sequence of runs, each with a table of its own. They are dealt to
N lanes like cards (symbol t to lane t mod N) so that numpy handles one symbol of every lane at a
time. A lane costs some bytes, so a small container has one lane and a loop over symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compress.errors import CompressError
from compress.packing.tables import TOTAL, Table

Symbols = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

FEWEST_LANES = 16
"""More than one lane are at least so many: fewer are not faster than a loop."""
_MOST_LANES_LOG = 12
_LONGEST_LANE = 1 << 20
_BYTES_A_LANE = 1500
_MANY_BYTES = 1 << 20
"""From here on lanes are four times as many: numpy's calls then take a quarter of the time."""
NOTHING = Table(np.array([TOTAL], dtype=np.int64))
"""The table of a symbol that costs nothing; it fills the last hand."""


@dataclass(frozen=True)
class Run:
    """``count`` symbols of one table that is not constant; they follow each other."""

    table: Table
    count: int


@dataclass(frozen=True)
class Part:
    """The symbols ``begin`` to ``end`` of each step of a hand: those of one table."""

    table: Table
    begin: int
    end: int


@dataclass(frozen=True)
class Hand:
    """Symbols ``first`` to ``first + steps * width`` of the sequence, dealt ``width`` at a time.

    A step's symbols belong to ``parts``, which follow each other from 0 to the width. Only a hand
    of one step has several: it holds the end of one run and the start of the next.
    """

    first: int
    steps: int
    parts: tuple[Part, ...]


def lanes_log(payload_bits: float, symbols: int) -> int:
    """log2 of how many lanes pay: about 1 for each 1500 to 3000 bytes, which costs about 0.2 %.

    From a megabyte on four times as many, up to 4096.
    """
    lanes = max(1, int(payload_bits / 8 / _BYTES_A_LANE))
    if payload_bits / 8 >= _MANY_BYTES:
        lanes *= 4
    log = lanes.bit_length() - 1
    if 1 << log < FEWEST_LANES:
        log = 0
    while symbols > _LONGEST_LANE << log:
        log = max(FEWEST_LANES.bit_length() - 1, log + 1)
    return min(log, _MOST_LANES_LOG)


def check_lanes(log: int, symbols: int) -> int:
    """The lanes that a container declares; ``CompressError`` where reading would take hours."""
    lanes = 1 << min(log, _MOST_LANES_LOG + 1)
    if log > _MOST_LANES_LOG or 1 < lanes < FEWEST_LANES:
        raise CompressError("declares an impossible number of lanes")
    if log < _MOST_LANES_LOG and symbols > _LONGEST_LANE << log:
        raise CompressError("declares too few lanes for its symbols")
    return lanes


def declared_lanes(runs: Sequence[Run], data: bytes) -> int:
    """The lanes that coded runs begin with, 0 where the runs are empty; ``CompressError`` as above.

    Both coders call it first: symbols that belong to nothing are an error too.
    """
    total = sum(run.count for run in runs)
    if not total and data:
        raise CompressError("holds symbols that belong to nothing")
    return check_lanes(data[0] if data else 255, total) if total else 0


def deal(runs: Sequence[Run], width: int) -> Iterator[Hand]:
    """Cut the sequence into hands of whole steps; the last one is filled up with nothing."""
    total = sum(run.count for run in runs)
    filler = -total % width
    tables = [run.table for run in runs] + [NOTHING]
    ends = np.cumsum([run.count for run in runs] + [filler])
    at = 0
    while at < total:
        run = int(np.searchsorted(ends, at, "right"))
        if steps := int(ends[run] - at) // width:
            yield Hand(at, steps, (Part(tables[run], 0, width),))
            at += steps * width
            continue
        last = int(np.searchsorted(ends, at + width - 1, "right"))
        bounds = [0, *(np.minimum(ends[run : last + 1], at + width) - at).tolist()]
        parts = zip(tables[run : last + 1], bounds, bounds[1:], strict=False)
        yield Hand(at, 1, tuple(Part(*part) for part in parts if part[1] < part[2]))
        at += width


def symbols_of(
    runs: Sequence[Run],
    slots: npt.NDArray[np.uint16],
    layout: Callable[[Table], tuple[Numbers, Numbers | None]],
) -> Symbols:
    """The symbols whose shares the slots (0 to 4095) lie in.

    ``layout`` says how a table fills its slots: shares in the order in which they lie, and whose
    they are (None: of symbol 0, 1, 2 ...).
    """
    symbols = np.empty(sum(run.count for run in runs), dtype=np.uint8)
    at = 0
    for run in runs:
        shares, names = layout(run.table)
        names = np.arange(len(shares)) if names is None else names
        by_slot = np.repeat(names.astype(np.uint8), shares)
        end = at + run.count
        by_slot.take(slots[at:end], out=symbols[at:end], mode="clip")
        at = end
    return symbols
