"""Lengths of Huffman codes of at most 12 digits.

Code lengths come from the package-merge algorithm (Larmore and Hirschberg, *A fast algorithm for
optimal length-limited Huffman codes*, 1990). Codes are canonical: shorter ones first, equal ones in
the symbols' order (Schwartz and Kallick, 1964), so a decoder needs nothing but the lengths.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from compress.errors import CompressError

LIMIT = 12

Numbers = npt.NDArray[np.int64]


def code_lengths(counts: Numbers, limit: int = LIMIT) -> list[int]:
    """Length of each symbol's code; -1 for a symbol that does not occur, 0 for one that is alone.

    Among all prefix codes of at most ``limit`` digits these have the shortest sum for ``counts``.
    """
    lengths = [-1] * len(counts)
    seen = [int(symbol) for symbol in np.flatnonzero(counts)]
    if len(seen) > 1 << limit:
        raise CompressError(f"{len(seen)} symbols have no code of {limit} digits")
    for symbol in seen:
        lengths[symbol] = 0
    if len(seen) < 2:
        return lengths
    leaves = sorted((int(counts[symbol]), (symbol,)) for symbol in seen)
    packages: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(limit):
        merged = sorted([*leaves, *packages], key=lambda package: package[0])
        packages = [
            (one[0] + two[0], one[1] + two[1])
            for one, two in zip(merged[::2], merged[1::2], strict=False)
        ]
    for _, symbols in packages[: len(seen) - 1]:
        for symbol in symbols:
            lengths[symbol] += 1
    return lengths
