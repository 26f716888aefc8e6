"""rANS: range asymmetric numeral systems, static and interleaved.

Duda, *Asymmetric numeral systems* (arXiv 1311.2540); interleaving as in Giesen, *Interleaved
entropy coders* (arXiv 1402.3392). A lane's state x lies in [2^24, 2^56). Shares have 12 digits, so
two symbols can be taken from a state before it needs a 32-bit word again (the borders of the
interval stay whole because 2^24 is a multiple of 4096 * 4096).

Stream: log2 of the lanes (1 byte), the lanes' states (7 bytes each), the words that the reader
takes, in its order. Everything is little-endian. A reader that ends with all words taken and all
states at 2^24 has read what was written.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from compress.errors import CompressError
from compress.packing.lanes import (
    Numbers,
    Run,
    Symbols,
    deal,
    declared_lanes,
    lanes_log,
    symbols_of,
)
from compress.packing.tables import PRECISION, TOTAL, Table

_LEAST = 1 << 24
_STATE_BYTES = 7
_WORD = 32
_MASK = (1 << _WORD) - 1
_LOW = TOTAL - 1


def encode(runs: Sequence[Run], symbols: Symbols, *, lanes: int = 0) -> bytes:
    """Code all runs' symbols, one run after the other; ``lanes`` 0 takes as many as pay."""
    if not len(symbols):
        return b""
    bits, at = 0.0, 0
    for run in runs:
        bits += run.table.bits(np.bincount(symbols[at : at + run.count]))
        at += run.count
    log = lanes.bit_length() - 1 if lanes else lanes_log(bits, len(symbols))
    states, words = _push_one(runs, symbols) if log == 0 else _push(runs, symbols, 1 << log)
    packed = b"".join(int(state).to_bytes(_STATE_BYTES, "little") for state in states)
    return bytes([log]) + packed + words


def decode(runs: Sequence[Run], data: bytes) -> Symbols:
    """The symbols of all runs; ``CompressError`` where ``data`` is not their code."""
    lanes = declared_lanes(runs, data)
    if not lanes:
        return np.zeros(0, dtype=np.uint8)
    start = 1 + lanes * _STATE_BYTES
    if len(data) < start or (len(data) - start) % 4:
        raise CompressError("its symbols end too early")
    states = [
        int.from_bytes(data[at : at + _STATE_BYTES], "little")
        for at in range(1, start, _STATE_BYTES)
    ]
    words = np.frombuffer(data, dtype="<u4", offset=start)
    if lanes == 1:
        return _pull_one(runs, states[0], words.tolist())
    return _pull(runs, np.array(states, dtype=np.int64), words.astype(np.int64))


@dataclass(frozen=True)
class _Mixed:
    """The tables of a step that several runs share: searched, for they are used once."""

    bounds: Numbers
    shares: Numbers
    starts: Numbers
    which: Numbers

    @classmethod
    def of(cls, tables: Sequence[Table], which: Numbers, lanes: int) -> _Mixed:
        starts = [table.starts for table in tables]
        bounds = [start + (at << PRECISION) for at, start in enumerate(starts)]
        shares = np.concatenate([table.shares for table in tables])
        return cls(np.concatenate(bounds), shares, np.concatenate(starts), which.reshape(2, lanes))

    def look(self, half: int, slot: Numbers) -> tuple[Numbers, Numbers]:
        """The share that each lane's slot lies in, and how far from its start."""
        # Symbols without a share start where the next one does; "right" gives the last of these.
        table = self.which[half] << PRECISION
        at = np.searchsorted(self.bounds, slot + table, "right") - 1
        return self.shares[at], slot - self.starts[at]


def _push(runs: Sequence[Run], symbols: Symbols, lanes: int) -> tuple[Numbers, bytes]:
    state = np.full(lanes, _LEAST, dtype=np.int64)
    words = []
    for shares, starts in _pairs_backwards(runs, symbols, lanes):
        full = np.flatnonzero(state >= shares[0] * shares[1] << _WORD)
        if len(full):
            words.append((state[full] & _MASK).astype("<u4"))
            state[full] >>= _WORD
        for half in (1, 0):
            times = state // shares[half]
            state += (times << PRECISION) - times * shares[half] + starts[half]
    return state, b"".join(word.tobytes() for word in reversed(words))


def _pairs_backwards(
    runs: Sequence[Run], symbols: Symbols, lanes: int
) -> Iterator[tuple[Numbers, Numbers]]:
    """Shares and starts, each [2, lanes], of two symbols a lane; the last pair comes first."""
    width = 2 * lanes
    for hand in reversed(list(deal(runs, width))):
        sizes = [len(table.shares) for table in hand.tables]
        offsets: Numbers = np.cumsum(sizes, dtype=np.int64) - sizes
        shares = np.concatenate([table.shares for table in hand.tables])
        starts = np.concatenate([table.starts for table in hand.tables])
        for step in reversed(range(hand.steps)):
            first = hand.first + step * width
            # Symbols behind the last one are the filler's only one.
            index = np.zeros(width, dtype=np.int64)
            held = symbols[first : first + width]
            index[: len(held)] = held
            if hand.which is not None:
                index += offsets[hand.which]
            yield shares[index].reshape(2, lanes), starts[index].reshape(2, lanes)


def _pull(runs: Sequence[Run], state: Numbers, words: Numbers) -> Symbols:
    total = sum(run.count for run in runs)
    lanes = len(state)
    slots = np.empty((-(-total // (2 * lanes)) * 2, lanes), dtype=np.uint16)
    slot, taken = np.empty_like(state), np.empty_like(state)
    row = at = 0
    for hand in deal(runs, 2 * lanes):
        mixed = None if hand.which is None else _Mixed.of(hand.tables, hand.which, lanes)
        shares = np.repeat(hand.tables[0].shares, hand.tables[0].shares)
        rests = np.arange(TOTAL) - np.repeat(hand.tables[0].starts, hand.tables[0].shares)
        for _ in range(hand.steps):
            for half in (0, 1):
                np.bitwise_and(state, _LOW, out=slot)
                slots[row] = slot
                row += 1
                state >>= PRECISION
                if mixed is not None:
                    share, rest = mixed.look(half, slot)
                    state *= share
                    state += rest
                    continue
                # mode="clip" spares numpy a copy; no index is out of range.
                shares.take(slot, out=taken, mode="clip")
                state *= taken
                rests.take(slot, out=taken, mode="clip")
                state += taken
            empty = np.flatnonzero(state < _LEAST)
            if len(empty):
                if at + len(empty) > len(words):
                    raise CompressError("its symbols end too early")
                state[empty] = state[empty] << _WORD | words[at : at + len(empty)]
                at += len(empty)
    if at != len(words) or (state != _LEAST).any():
        raise CompressError("its symbols do not end where they should")
    return symbols_of(runs, slots.reshape(-1), lambda table: (table.shares, None))


def _push_one(runs: Sequence[Run], symbols: Symbols) -> tuple[list[int], bytes]:
    """The same with one lane, without numpy: some hundred symbols are not worth its calls."""
    shares: list[int] = []
    starts: list[int] = []
    at = 0
    for run in runs:
        held = symbols[at : at + run.count]
        shares += run.table.shares[held].tolist()
        starts += run.table.starts[held].tolist()
        at += run.count
    if len(shares) % 2:
        shares.append(TOTAL)
        starts.append(0)
    state = _LEAST
    words = []
    for at in range(len(shares) - 2, -1, -2):
        if state >= shares[at] * shares[at + 1] << _WORD:
            words.append(state & _MASK)
            state >>= _WORD
        for place in (at + 1, at):
            times, rest = divmod(state, shares[place])
            state = (times << PRECISION) + rest + starts[place]
    return [state], np.array(words[::-1], dtype="<u4").tobytes()


def _pull_one(runs: Sequence[Run], state: int, words: list[int]) -> Symbols:
    symbols: list[int] = []
    total = sum(run.count for run in runs)
    words.reverse()
    for run in runs:
        shares, starts = run.table.shares.tolist(), run.table.starts.tolist()
        # As in _Mixed.look; behind the last share the slots end too.
        for _ in range(run.count):
            slot = state & _LOW
            symbol = bisect_right(starts, slot) - 1
            symbols.append(symbol)
            state = (state >> PRECISION) * shares[symbol] + slot - starts[symbol]
            if state < _LEAST and (len(symbols) % 2 == 0 or len(symbols) == total):
                if not words:
                    raise CompressError("its symbols end too early")
                state = state << _WORD | words.pop()
    if words or state != _LEAST:
        raise CompressError("its symbols do not end where they should")
    return np.array(symbols, dtype=np.uint8)
