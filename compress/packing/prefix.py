"""Coding symbols with canonical Huffman codes.

Each lane is a bit stream of its own, padded with zeros to whole bytes, so that numpy decodes one
symbol of every lane at a time. A table's shares are powers of two here: a code of n digits has the
share 2^(12 - n), and the codes in canonical order fill the 4096 slots one after the other, so the
next 12 digits of a lane are the slot.

Stream: log2 of the lanes (1 byte), bytes of each lane (LEB128), the lanes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from compress.errors import CompressError
from compress.packing import varint
from compress.packing.lanes import (
    Numbers,
    Part,
    Run,
    Symbols,
    deal,
    declared_lanes,
    lanes_log,
    symbols_of,
)
from compress.packing.tables import PRECISION, TOTAL, Table


def encode(runs: Sequence[Run], symbols: Symbols) -> bytes:
    """Code all runs' symbols, one run after the other."""
    if not len(symbols):
        return b""
    codes, lengths, at = [], [], 0
    for run in runs:
        code, length = _codes(run.table)
        held = symbols[at : at + run.count]
        codes.append(code[held])
        lengths.append(length[held])
        at += run.count
    all_codes, all_lengths = np.concatenate(codes), np.concatenate(lengths)
    log = lanes_log(float(all_lengths.sum()), len(symbols))
    lanes = [
        _bits(all_codes[lane :: 1 << log], all_lengths[lane :: 1 << log])
        for lane in range(1 << log)
    ]
    sizes = b"".join(varint.write(len(lane)) for lane in lanes)
    return bytes([log]) + sizes + b"".join(lanes)


def decode(runs: Sequence[Run], data: bytes) -> Symbols:
    """The symbols of all runs; ``CompressError`` where ``data`` is not their code."""
    lanes = declared_lanes(runs, data)
    if not lanes:
        return np.zeros(0, dtype=np.uint8)
    sizes, at = [], 1
    for _ in range(lanes):
        size, at = varint.read(data, at)
        sizes.append(size)
    if sum(sizes) != len(data) - at:
        raise CompressError("its symbols end too early")
    ends = np.cumsum(sizes, dtype=np.int64)
    padded = np.frombuffer(data[at:] + bytes(3), dtype=np.uint8).astype(np.int32)
    windows = padded[:-2] << 16 | padded[1:-1] << 8 | padded[2:]
    starts = (ends - sizes) * 8
    slots, reached = (_pull_one if lanes == 1 else _pull)(runs, windows, starts)
    over = ends * 8 - reached
    last = padded[np.maximum(ends - 1, 0)] & (1 << np.clip(over, 0, 7)) - 1
    if (over < 0).any() or (over > 7).any() or last.any():
        raise CompressError("its symbols do not end where they should")
    return symbols_of(runs, slots, _canonical)


def _canonical(table: Table) -> tuple[Numbers, Numbers]:
    """Shares in the order of the codes, and whose they are."""
    order = np.argsort(-table.shares, kind="stable")
    order = order[: np.count_nonzero(table.shares)]
    return table.shares[order], order


def _shares(part: Part) -> Numbers:
    return _canonical(part.table)[0]


def _codes(table: Table) -> tuple[Numbers, Numbers]:
    """Code and length of each symbol."""
    shares, order = _canonical(table)
    codes, lengths = np.zeros((2, len(table.shares)), dtype=np.int64)
    lengths[order] = _digits(shares)
    codes[order] = (np.cumsum(shares) - shares) // shares
    return codes, lengths


def _digits(shares: Numbers) -> Numbers:
    return PRECISION - np.log2(shares).astype(np.int64)


def _bits(codes: Numbers, lengths: Numbers) -> bytes:
    owner = np.repeat(np.arange(len(codes)), lengths)
    place = np.cumsum(lengths)[owner] - np.arange(len(owner)) - 1
    return np.packbits((codes[owner] >> place & 1).astype(np.uint8)).tobytes()


def _pull(
    runs: Sequence[Run], windows: np.typing.NDArray[np.int32], at: Numbers
) -> tuple[np.typing.NDArray[np.uint16], Numbers]:
    lanes = len(at)
    total = sum(run.count for run in runs)
    slots = np.empty((-(-total // lanes), lanes), dtype=np.uint16)
    row = 0
    for hand in deal(runs, lanes):
        digits = np.empty(lanes, dtype=np.int64)
        by_slot = [np.repeat(_digits(shares), shares) for shares in map(_shares, hand.parts)]
        for _ in range(hand.steps):
            window = windows.take(at >> 3, mode="clip")
            slot = window >> (PRECISION - (at & 7)) & (TOTAL - 1)
            slots[row] = slot
            row += 1
            for lengths, part in zip(by_slot, hand.parts, strict=True):
                here = slice(part.begin, part.end)
                lengths.take(slot[here], out=digits[here], mode="clip")
            at = at + digits
    return slots.reshape(-1), at


def _pull_one(
    runs: Sequence[Run], windows: np.typing.NDArray[np.int32], starts: Numbers
) -> tuple[np.typing.NDArray[np.uint16], Numbers]:
    """The same with one lane, without numpy: some hundred symbols are not worth its calls."""
    slots: list[int] = []
    ahead: list[int] = windows.tolist()
    at, end = int(starts[0]), 8 * len(ahead)
    for run in runs:
        shares = _canonical(run.table)[0]
        bounds = (np.cumsum(shares) - shares).tolist()
        digits = _digits(shares).tolist()
        for _ in range(run.count):
            if at >= end:
                raise CompressError("its symbols end too early")
            slot = ahead[at >> 3] >> (PRECISION - (at & 7)) & (TOTAL - 1)
            slots.append(slot)
            at += digits[bisect_right(bounds, slot) - 1]
    return np.array(slots, dtype=np.uint16), np.array([at])
