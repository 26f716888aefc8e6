"""One tensor: all its words, or where the non-zeros are and their words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compress.errors import CompressError
from compress.packing import positions, vectors
from compress.packing.elements import Form, Words
from compress.packing.lanes import Run, Symbols
from compress.packing.positions import Positions
from compress.packing.raw import RawReader
from compress.packing.sideinfo import Port
from compress.packing.vectors import Vector

_SPARSE = 120  # a context
_LEAST_ZEROS = 0.02


@dataclass(frozen=True, eq=False)
class Coding:
    """How ``height`` x ``width`` words are coded; without ``where`` all are in ``what``."""

    height: int
    width: int
    where: Positions | None
    what: Vector
    where_side_bits: float = 0.0
    what_side_bits: float = 0.0
    """What the descriptions of both took, where they were read."""

    @property
    def encoding(self) -> str:
        """In words: ``raw``, ``planes``, ``codebook``, ``sparse raw`` ..."""
        return f"sparse {self.what.kind}" if self.where else self.what.kind

    @property
    def tables(self) -> int:
        """How many tables its symbols have."""
        blocks = sum(len(block.tables) for block in self.what.blocks if block)
        return blocks + (len(self.where.gaps) if self.where else 0)

    def runs(self) -> list[Run]:
        """Runs of positions, then of values."""
        return [*(self.where.runs() if self.where else []), *self.what.runs()]

    def coded(self) -> list[Symbols]:
        """The symbols of each of :meth:`runs`."""
        return [*(self.where.coded() if self.where else []), *self.what.coded()]

    def run_bits(self, symbols: Symbols) -> tuple[float, float]:
        """What the symbols of positions and those of values cost."""
        found = [0.0, 0.0]
        at = 0
        here = len(self.where.runs()) if self.where else 0
        for number, run in enumerate(self.runs()):
            counts = np.bincount(symbols[at : at + run.count])
            found[number >= here] += run.table.bits(counts)
            at += run.count
        return found[0], found[1]

    def raw(self) -> list[bytes]:
        """What goes to the raw section, in the reader's order."""
        return [*([self.where.low] if self.where else []), *self.what.raw]

    def decode(self, symbols: Symbols) -> Words:
        """The words, flat, from the symbols of :meth:`runs`."""
        if self.where is None:
            return self.what.decode(symbols)
        here = sum(run.count for run in self.where.runs())
        flat = self.where.decode(symbols[:here])
        values = self.what.decode(symbols[here:])
        words = np.zeros(self.height * self.width, dtype=values.dtype)
        words[flat] = values
        return words


def matrix_of(shape: tuple[int, ...], words: int) -> tuple[int, int]:
    """A tensor as a matrix: its first dimension (output channels) by all others."""
    if len(shape) < 2 or words == 0:
        return (1, words) if words else (0, 0)
    return shape[0], words // shape[0]


def choose(words: Words, shape: tuple[int, ...], form: Form, *, power_of_two: bool) -> Coding:
    """The coding that costs least, of every kind there is."""
    height, width = matrix_of(shape, len(words))
    dense = vectors.best(words, height, form, power_of_two=power_of_two)
    best = Coding(height, width, None, dense)
    flat = np.flatnonzero(words)
    if len(flat) and len(flat) <= (1 - _LEAST_ZEROS) * len(words):
        where = positions.of(flat, height, width, power_of_two=power_of_two)
        what = vectors.best(words[flat], 1, form, power_of_two=power_of_two)
        worth = vectors.WORTH_MORE_SYMBOLS if len(words) >= vectors.MANY else 1.0
        if where.bits + what.bits < worth * dense.bits:
            best = Coding(height, width, where, what)
    return best


def transfer(
    port: Port,
    shape: tuple[int, ...],
    words: int,
    form: Form,
    coding: Coding | None,
    *,
    raw: RawReader,
    power_of_two: bool,
) -> Coding:
    """Write what describes ``coding``, or read it where it is None."""
    height, width = matrix_of(shape, words)
    start = port.spent
    where = None
    rows, columns = height, width
    if port.bit(_SPARSE << 8, int(coding is not None and coding.where is not None)):
        if not words:
            raise CompressError("codes elements that are not there")
        given = coding.where if coding else None
        where = positions.transfer(port, height, width, given, raw=raw, power_of_two=power_of_two)
        rows, columns = (1, where.count) if where.count else (0, 0)
    middle = port.spent
    what = vectors.transfer(
        port,
        form,
        rows,
        columns,
        coding.what if coding else None,
        raw=raw,
        power_of_two=power_of_two,
    )
    return coding or Coding(height, width, where, what, middle - start, port.spent - middle)
