"""Side information of large containers: numbers that are alike in meaning, coded all together.

Coding them one by one with adaptive contexts (:mod:`compress.packing.sideinfo`) is what a small
container needs, but it is slow. A large one has enough of them to pay for a table for each pile
(table levels, classes, densities, names), and so for the fast coder of symbols.
"""

from __future__ import annotations

import numpy as np

from compress.errors import CompressError
from compress.packing import rans, varint
from compress.packing.lanes import Run
from compress.packing.sideinfo import Reader, Symbols, Writer
from compress.packing.tables import fit, transfer

PILES = 6
_PILES_OF_1 = 5
"""Version 1 had none of what tables begin with (see tables.HEADS)."""
_MOST = 1 << 26


class PileWriter:
    """Collects the piles; :meth:`finish` gives their bytes."""

    has_heads = True

    def __init__(self) -> None:
        self._piles: list[list[Symbols]] = [[] for _ in range(PILES)]

    def symbols(self, pile: int, count: int, values: Symbols | None) -> Symbols:
        """Put ``values`` on a pile."""
        assert values is not None and len(values) == count
        self._piles[pile].append(values)
        return values

    @property
    def count(self) -> int:
        """How many numbers there are on all piles."""
        return sum(len(values) for pile in self._piles for values in pile)

    def finish(self) -> bytes:
        """Counts, tables, then the coded symbols of all piles."""
        port = Writer()
        counts, runs, coded = b"", [], []
        for pile in self._piles:
            values = np.concatenate([np.zeros(0, dtype=np.uint8), *pile])
            counts += varint.write(len(values))
            if not len(values):
                continue
            table, _ = fit(np.bincount(values, minlength=256), power_of_two=False)
            transfer(port, table, power_of_two=False)
            if table.constant is None:
                runs.append(Run(table, len(values)))
                coded.append(values)
        tables = port.finish()
        symbols = np.concatenate([np.zeros(0, dtype=np.uint8), *coded])
        # Many for so few bytes; but who has piles at all has megabytes.
        lanes = min(4096, 1 << max(6, (len(symbols) >> 7).bit_length()))
        stream = rans.encode(runs, symbols, lanes=lanes)
        return counts + varint.write(len(tables)) + tables + stream


class PileReader:
    """Takes numbers from the piles again; ``CompressError`` where there are not so many."""

    def __init__(self, data: bytes, version: int) -> None:
        self.has_heads = version > 1
        counts, at = [], 0
        for _ in range(PILES if self.has_heads else _PILES_OF_1):
            count, at = varint.read(data, at)
            counts.append(count)
        size, at = varint.read(data, at)
        if size > len(data) - at or sum(counts) > _MOST:
            raise CompressError("holds header bytes that belong to nothing")
        port = Reader(data[at : at + size])
        tables = [transfer(port, None, power_of_two=False) if count else None for count in counts]
        port.finish()
        known = list(zip(tables, counts, strict=True))
        runs = [Run(table, n) for table, n in known if table and table.constant is None]
        symbols = rans.decode(runs, data[at + size :])
        self._piles = []
        at = 0
        for table, count in known:
            if table is None or table.constant is not None:
                value = table.constant if table else 0
                self._piles.append(np.full(count, value, dtype=np.uint8))
                continue
            self._piles.append(symbols[at : at + count])
            at += count
        self._at = [0] * len(self._piles)

    def symbols(self, pile: int, count: int, values: Symbols | None) -> Symbols:
        """The next ``count`` of a pile."""
        end = self._at[pile] + count
        if end > len(self._piles[pile]):
            raise CompressError("its header ends too early")
        found = self._piles[pile][self._at[pile] : end]
        self._at[pile] = end
        return found

    def finish(self) -> None:
        """Refuse numbers that nothing has taken."""
        if any(at < len(pile) for at, pile in zip(self._at, self._piles, strict=True)):
            raise CompressError("holds header bytes that belong to nothing")
