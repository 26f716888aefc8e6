"""Small numbers coded by an adaptive binary range coder: headers, tables, densities.

The range coder with carry is that of Martin (1979) as LZMA arranges it; the estimate of each binary
decision adapts as the mean of what was seen (Krichevsky-Trofimov in effect) and then exponentially.
All arithmetic is on integers, so every machine decodes the same.

Writing and reading are one description: a function takes a :class:`Port`, hands it each value and
goes on with what it gets back. The writer gives back what it got, the reader what it read.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from compress.errors import CompressError

Symbols = npt.NDArray[np.uint8]

_HALF = 1 << 15
_TOP = 1 << 24
_MASK = 0xFFFFFFFF
_COUNTS = 32
# Steps towards the last decision, by how many were seen before: 1/(n + 1.5), at least 1/32.
_STEP = [max(2048, int(65536 / (count + 1.5))) for count in range(_COUNTS)]
# No decision costs less than 1/90 bit, so the reader's work is linear in the bytes it is given.
_LEAST = 65536 // 128
_MOST = 65536 - _LEAST
_FIRST = _HALF << 5
_NEXT = [min(count + 1, _COUNTS - 1) for count in range(_COUNTS)]
_LONGEST = 62
"""Most binary digits of an integer."""


class Port(Protocol):
    """Where binary decisions go to or come from; ``key`` names the decision's context."""

    @property
    def spent(self) -> float:
        """Bits until now."""

    @property
    def heads_piled(self) -> bool:
        """Whether what each table begins with goes to a pile."""

    def bit(self, key: int, value: int = 0) -> int:
        """One adaptive decision, 0 or 1."""

    def ones(self, base: int, most: int, value: int = 0) -> int:
        """How many decisions are 1 before the first 0; the contexts are ``base``, ``base`` + 1 ...

        ``CompressError`` for more than ``most``.
        """

    def even(self, count: int, value: int = 0) -> int:
        """``count`` binary digits that are 0 or 1 equally likely."""

    def symbols(self, pile: int, count: int, values: Symbols | None, digits: int = 0) -> Symbols:
        """``count`` numbers below 256 that are alike in meaning; ``pile`` names it.

        One by one they are adaptive, with the number before as context: as a tree of ``digits``,
        or as gamma codes where ``digits`` is 0.
        """


class Piles(Protocol):
    """Where numbers that are alike lie together when there are many; see ``piles``."""

    @property
    def has_heads(self) -> bool:
        """Whether there is a pile of what tables begin with."""

    def symbols(self, pile: int, count: int, values: Symbols | None) -> Symbols:
        """Put ``values`` on a pile, or take ``count`` from it where it is None."""


class _Adaptive:
    """The probability of 0 of each context (16 bits) above how often it was seen (5 bits)."""

    def __init__(self, piles: Piles | None) -> None:
        self._states: dict[int, int] = {}
        self._piles = piles
        self.heads_piled = piles is not None and piles.has_heads

    def symbols(self, pile: int, count: int, values: Symbols | None, digits: int = 0) -> Symbols:
        """See :class:`Port`."""
        if self._piles is not None:
            return self._piles.symbols(pile, count, values)
        port: Any = self
        base = (pile + 1) << 9
        given = values.tolist() if values is not None else [0] * count
        read = []
        last = 0
        for value in given:
            if digits:
                last = choice(port, base + last, digits, value)
            else:
                last = integer(port, base + min(last, 3), value)
                if last > 255:
                    raise CompressError("holds a table with impossible shares")
            read.append(last)
        return np.array(read, dtype=np.uint8)


class Writer(_Adaptive):
    """A :class:`Port` that codes what it is given; :meth:`finish` gives the bytes."""

    def __init__(self, piles: Piles | None = None) -> None:
        super().__init__(piles)
        self._low = 0
        self._range = _MASK
        self._out = bytearray()

    def bit(self, key: int, value: int = 0) -> int:
        """Code one adaptive decision."""
        state = self._states.get(key, _FIRST)
        zero, count = state >> 5, state & 31
        bound = (self._range >> 16) * zero
        if value:
            self._low += bound
            self._range -= bound
            zero -= (zero - _LEAST) * _STEP[count] >> 16
        else:
            self._range = bound
            zero += (_MOST - zero) * _STEP[count] >> 16
        self._states[key] = zero << 5 | _NEXT[count]
        while self._range < _TOP:
            self._shift()
        return value

    def ones(self, base: int, most: int, value: int = 0) -> int:
        """Code ``value`` ones and a zero."""
        if value > most:
            raise CompressError("is too large a number to be stored")
        for place in range(value + 1):
            self.bit(base + place, int(place < value))
        return value

    def even(self, count: int, value: int = 0) -> int:
        """Code ``count`` equally likely digits of ``value``, the highest first."""
        for place in range(count - 1, -1, -1):
            self._range >>= 1
            if value >> place & 1:
                self._low += self._range
            while self._range < _TOP:
                self._shift()
        return value

    @property
    def spent(self) -> float:
        """Bits until now."""
        return 8 * len(self._out) + 32 - math.log2(self._range)

    def finish(self) -> bytes:
        """The shortest ending that still lies in the interval; the reader takes zeros behind it."""
        for kept in range(5):
            scale = 1 << (32 - 8 * kept)
            rounded = -(-self._low // scale) * scale
            if rounded < self._low + self._range:
                self._low = rounded
                for _ in range(kept):
                    self._shift()
                self._carry()
                return bytes(self._out)
        raise AssertionError("an interval of 2^24 holds a multiple of one")

    def _carry(self) -> None:
        if self._low > _MASK:
            place = len(self._out) - 1
            while self._out[place] == 0xFF:
                self._out[place] = 0
                place -= 1
            self._out[place] += 1
            self._low &= _MASK

    def _shift(self) -> None:
        self._carry()
        self._out.append(self._low >> 24)
        self._low = self._low << 8 & _MASK
        self._range = self._range << 8 & _MASK


class Reader(_Adaptive):
    """A :class:`Port` that reads what a :class:`Writer` left; ``CompressError`` past the end."""

    def __init__(self, data: bytes, piles: Piles | None = None) -> None:
        super().__init__(piles)
        self._data = data
        self._at = 4
        self._range = _MASK
        self._code = int.from_bytes(data[:4].ljust(4, b"\0"), "big")

    def bit(self, key: int, value: int = 0) -> int:
        """Read one adaptive decision."""
        state = self._states.get(key, _FIRST)
        zero, count = state >> 5, state & 31
        bound = (self._range >> 16) * zero
        if self._code < bound:
            self._range = bound
            value = 0
            zero += (_MOST - zero) * _STEP[count] >> 16
        else:
            self._code -= bound
            self._range -= bound
            value = 1
            zero -= (zero - _LEAST) * _STEP[count] >> 16
        self._states[key] = zero << 5 | _NEXT[count]
        while self._range < _TOP:
            self._shift()
        return value

    def ones(self, base: int, most: int, value: int = 0) -> int:
        """Read ones up to a zero: :meth:`bit` in a loop of its own, for most bits come this way."""
        states, code, span = self._states, self._code, self._range
        for found in range(most + 1):
            state = states.get(base + found, _FIRST)
            zero, count = state >> 5, state & 31
            bound = (span >> 16) * zero
            one = code >= bound
            if one:
                code -= bound
                span -= bound
                zero -= (zero - _LEAST) * _STEP[count] >> 16
            else:
                span = bound
                zero += (_MOST - zero) * _STEP[count] >> 16
            states[base + found] = zero << 5 | _NEXT[count]
            if span < _TOP:
                self._code, self._range = code, span
                while self._range < _TOP:
                    self._shift()
                code, span = self._code, self._range
            if not one:
                self._code, self._range = code, span
                return found
        raise CompressError("holds a number of more than 62 binary digits")

    def even(self, count: int, value: int = 0) -> int:
        """Read ``count`` equally likely digits."""
        value = 0
        for _ in range(count):
            self._range >>= 1
            one = self._code >= self._range
            if one:
                self._code -= self._range
            value = value << 1 | one
            while self._range < _TOP:
                self._shift()
        return value

    @property
    def spent(self) -> float:
        """Bits until now."""
        return 8 * self._at - math.log2(self._range)

    def finish(self) -> None:
        """Refuse bytes that nothing has read."""
        if self._at < len(self._data):
            raise CompressError("holds header bytes that belong to nothing")

    def _shift(self) -> None:
        at = self._at
        if at >= len(self._data) + 4:
            raise CompressError("its header ends too early")
        following = self._data[at] if at < len(self._data) else 0
        self._code = (self._code << 8 | following) & _MASK
        self._range = self._range << 8 & _MASK
        self._at = at + 1


def integer(port: Port, kind: int, value: int = 0) -> int:
    """A whole number >= 0 by Elias gamma (of value + 1): length and highest digit are adaptive.

    ``kind`` is a context number of the caller's; small numbers should be the likely ones.
    """
    length = (value + 1).bit_length() - 1
    base = kind << 8
    seen = port.ones(base, _LONGEST, length)
    if seen == 0:
        return 0
    rest = value + 1 - (1 << length)
    below = seen - 1
    high = port.bit(base + 64 + seen, rest >> below & 1)
    low = port.even(below, rest & ((1 << below) - 1))
    return (1 << seen | high << below | low) - 1


def signed(port: Port, kind: int, value: int = 0) -> int:
    """A whole number of either sign, as 0, -1, 1, -2, 2 ..."""
    folded = integer(port, kind, value * 2 if value >= 0 else -value * 2 - 1)
    return -(folded + 1 >> 1) if folded & 1 else folded >> 1


def choice(port: Port, kind: int, digits: int, value: int = 0) -> int:
    """One of 2^``digits`` (at most 7) names, all adaptive: a binary tree of contexts."""
    base = kind << 8
    node = 1
    for place in range(digits - 1, -1, -1):
        node = node << 1 | port.bit(base + node, value >> place & 1)
    return node - (1 << digits)


def entropy_bits(values: Symbols) -> float:
    """About what ``count`` numbers take that are coded by how often each occurs."""
    counts = np.bincount(values)
    counts = counts[counts > 0]
    if not len(counts):
        return 0.0
    plain = float(-(counts * np.log2(counts / len(values))).sum())
    # What an adaptive coder spends on learning: half a logarithm for each frequency.
    return plain + (len(counts) - 1) * 0.5 * math.log2(len(values)) + 2
