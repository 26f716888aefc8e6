"""Blocks of symbols: a matrix whose rows may have different tables.

Rows of a weight matrix (its output channels) differ in how widely their values are spread. They are
put into classes by k-means on code length (each row goes to the table that codes it shortest), with
as many classes as pay for their tables and for naming each row's class.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from compress.errors import CompressError
from compress.packing.lanes import Numbers, Run, Symbols
from compress.packing.sideinfo import Port, entropy_bits, integer
from compress.packing.tables import ALPHABET, Table, fit, transfer

_CLASS_DIGITS = 3
_ROUNDS = 6
_LEAST_ROWS = 8
_MOST_ROWS = 1 << 20
_LEAST_COLUMNS = 12

CLASSES = 1
"""The pile of rows' classes (see sideinfo.Port.symbols)."""

_COUNT = 32  # a context


@dataclass(frozen=True, eq=False)
class Block:
    """``rows`` of ``columns`` symbols each; row r has table ``classes[r]``, or all the only one."""

    rows: int
    columns: int
    tables: tuple[Table, ...]
    classes: Numbers | None
    held: Symbols = field(default_factory=lambda: np.zeros((0, 0), dtype=np.uint8))
    """The symbols [rows, columns], where the block is about to be written."""

    def runs(self) -> list[Run]:
        """One run a table, without those that cost nothing."""
        return [Run(table, count) for table, count in self._counts if table.constant is None]

    def coded(self) -> list[Symbols]:
        """The symbols of each of :meth:`runs`."""
        return [
            self.held[self._where(number)].reshape(-1)
            for number, table in enumerate(self.tables)
            if table.constant is None
        ]

    def decode(self, symbols: Symbols) -> Symbols:
        """The block [rows, columns] from the symbols of its runs, one after the other."""
        if self.classes is None and self.tables[0].constant is None:
            return symbols.reshape(self.rows, self.columns)
        found = np.empty((self.rows, self.columns), dtype=np.uint8)
        at = 0
        for number, (table, count) in enumerate(self._counts):
            where = self._where(number)
            if table.constant is not None:
                found[where] = table.constant
                continue
            found[where] = symbols[at : at + count].reshape(-1, self.columns)
            at += count
        return found

    def _where(self, number: int) -> Any:
        return slice(None) if self.classes is None else self.classes == number

    @cached_property
    def _counts(self) -> list[tuple[Table, int]]:
        if self.classes is None:
            return [(self.tables[0], self.rows * self.columns)]
        rows = np.bincount(self.classes, minlength=len(self.tables))
        return [
            (table, int(count) * self.columns)
            for table, count in zip(self.tables, rows, strict=True)
        ]


def choose(symbols: Symbols, *, power_of_two: bool) -> tuple[Block, float]:
    """The block for symbols [rows, columns] that costs least, and its bits with all it stores."""
    rows, columns = symbols.shape
    counts = np.bincount(symbols.reshape(-1), minlength=ALPHABET)
    table, bits = fit(counts, power_of_two=power_of_two)
    best = Block(rows, columns, (table,), None, symbols), bits + 1
    if (
        not _LEAST_ROWS <= rows <= _MOST_ROWS
        or columns < _LEAST_COLUMNS
        or table.constant is not None
    ):
        return best
    used = int(symbols.max()) + 1
    keys = symbols + np.arange(rows)[:, None] * used
    by_row = np.bincount(keys.reshape(-1), minlength=rows * used).reshape(rows, used)
    for wanted in (2, 3, 4, 6, 8):
        classes = _classes(by_row, wanted)
        fits = [
            fit(by_row[classes == number].sum(0), power_of_two=power_of_two)
            for number in range(int(classes.max()) + 1)
        ]
        cost = sum(bits for _, bits in fits) + entropy_bits(classes.astype(np.uint8))
        if cost >= best[1]:
            break
        best = Block(rows, columns, tuple(table for table, _ in fits), classes, symbols), cost
    return best


def transfer_block(
    port: Port, rows: int, columns: int, block: Block | None, *, power_of_two: bool
) -> Block:
    """Write what describes ``block``, or read it where it is None."""
    count = integer(port, _COUNT, len(block.tables) - 1 if block else 0) + 1
    if count > 1 << _CLASS_DIGITS or (count > 1 and not count <= rows <= _MOST_ROWS):
        raise CompressError("declares more tables than rows")
    tables = tuple(
        transfer(port, block.tables[number] if block else None, power_of_two=power_of_two)
        for number in range(count)
    )
    classes = _transfer_classes(port, count, block.classes if block else None, rows)
    return block or Block(rows, columns, tables, classes)


def _transfer_classes(port: Port, count: int, classes: Numbers | None, rows: int) -> Numbers | None:
    if count == 1:
        return None
    given = None if classes is None else classes.astype(np.uint8)
    read = port.symbols(CLASSES, rows, given, _CLASS_DIGITS)
    if int(read.max()) >= count:
        raise CompressError("names a table that is not there")
    return read.astype(np.int64)


def _classes(by_row: Numbers, wanted: int) -> Numbers:
    """k-means with code length as distance; from rows ordered by how far they are spread."""
    totals = np.maximum(by_row.sum(1), 1)
    places = np.arange(by_row.shape[1])
    mean = (by_row @ places) / totals
    spread = (by_row @ places**2) / totals - mean**2
    classes = np.argsort(np.argsort(spread, kind="stable"), kind="stable") * wanted // len(by_row)
    for _ in range(_ROUNDS):
        sums = np.stack([by_row[classes == number].sum(0) for number in range(wanted)]) + 0.02
        lengths = -np.log2(sums / sums.sum(1, keepdims=True))
        classes = np.argmin(by_row @ lengths.T, axis=1)
    # Number the classes that are left without a gap.
    return np.unique(classes, return_inverse=True)[1].astype(np.int64)
