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

import numpy as np

from compress.errors import CompressError
from compress.packing.lanes import (
    Numbers,
    Run,
    Symbols,
    deal,
    declared_lanes,
    lanes_log,
)
from compress.packing.tables import PRECISION, TOTAL, Table

_LEAST = 1 << 24
_STATE_BYTES = 7
_WORD = 32
_MASK = (1 << _WORD) - 1
_LOW = TOTAL - 1
_ALL_SLOTS = np.arange(TOTAL)
_STEPS_AT_ONCE = 16
"""Slots of so many steps are kept, still in the cache, and then turned into symbols together."""


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


class _Slots:
    """What each of a table's 4096 slots means: whose share it lies in, how large, how far in."""

    def __init__(self, table: Table) -> None:
        self.symbols = np.repeat(np.arange(len(table.shares), dtype=np.uint8), table.shares)
        self.shares = table.shares.take(self.symbols)
        self.rests = _ALL_SLOTS - table.starts.take(self.symbols)


_Piece = tuple[_Slots, int, int]
"""A table's slots, and the symbols of a step (or of half a step) that are its own."""


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
        tables = [part.table for part in hand.parts]
        sizes = [len(table.shares) for table in tables]
        widths = [part.end - part.begin for part in hand.parts]
        offsets = np.repeat(np.cumsum(sizes, dtype=np.int64) - sizes, widths)
        shares = np.concatenate([table.shares for table in tables])
        starts = np.concatenate([table.starts for table in tables])
        for step in reversed(range(hand.steps)):
            first = hand.first + step * width
            # Symbols behind the last one are the filler's only one.
            index = np.zeros(width, dtype=np.int64)
            held = symbols[first : first + width]
            index[: len(held)] = held
            index += offsets
            yield shares[index].reshape(2, lanes), starts[index].reshape(2, lanes)


def _pull(runs: Sequence[Run], state: Numbers, words: Numbers) -> Symbols:
    total = sum(run.count for run in runs)
    lanes = len(state)
    width = 2 * lanes
    symbols = np.empty((-(-total // width), width), dtype=np.uint8)
    slots = np.empty((_STEPS_AT_ONCE, width), dtype=np.int64)
    taken = np.empty_like(state)
    is_empty = np.empty(lanes, dtype=np.bool_)
    # Logical shifts are vectorized where arithmetic ones are not; states are never negative.
    shifted = state.view(np.uint64)
    known: dict[Table, _Slots] = {}
    # As arrays these spare numpy a conversion in each of some ten thousand calls.
    low, least, word = (np.array(value) for value in (_LOW, _LEAST, _WORD))
    precision = np.array(PRECISION, dtype=np.uint64)
    row = at = 0
    for hand in deal(runs, width):
        # Most tables of a hand of several were the last one's or will be the next one's.
        known = {part.table: known.get(part.table) or _Slots(part.table) for part in hand.parts}
        parts = [(known[part.table], part.begin, part.end) for part in hand.parts]
        halves = [_half(parts, 0, lanes), _half(parts, lanes, width)]
        for done in range(0, hand.steps, _STEPS_AT_ONCE):
            steps = min(_STEPS_AT_ONCE, hand.steps - done)
            for step in range(steps):
                for half, pieces in enumerate(halves):
                    slot = slots[step, half * lanes : half * lanes + lanes]
                    np.bitwise_and(state, low, out=slot)
                    np.right_shift(shifted, precision, out=shifted)
                    # mode="clip" spares numpy a copy; no index is out of range.
                    for look, begin, end in pieces:
                        look.shares.take(slot[begin:end], out=taken[begin:end], mode="clip")
                    state *= taken
                    for look, begin, end in pieces:
                        look.rests.take(slot[begin:end], out=taken[begin:end], mode="clip")
                    state += taken
                empty = np.less(state, least, out=is_empty).nonzero()[0]
                if len(empty):
                    if at + len(empty) > len(words):
                        raise CompressError("its symbols end too early")
                    filled = state.take(empty)
                    filled <<= word
                    filled |= words[at : at + len(empty)]
                    state[empty] = filled
                    at += len(empty)
            for look, begin, end in parts:
                if end - begin == width:
                    look.symbols.take(slots[:steps], out=symbols[row : row + steps], mode="clip")
                else:
                    here = slots[:steps, begin:end]
                    symbols[row : row + steps, begin:end] = look.symbols.take(here)
            row += steps
    if at != len(words) or (state != _LEAST).any():
        raise CompressError("its symbols do not end where they should")
    return symbols.reshape(-1)[:total]


def _half(parts: list[_Piece], first: int, last: int) -> list[_Piece]:
    """The pieces of a step's parts that lie in its symbols ``first`` to ``last``, from there."""
    pieces = [(look, max(begin, first), min(end, last)) for look, begin, end in parts]
    return [(look, begin - first, end - first) for look, begin, end in pieces if begin < end]


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
        # Symbols without a share start where the next one does, "right" gives the last of these;
        # behind the last share the slots end too.
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
