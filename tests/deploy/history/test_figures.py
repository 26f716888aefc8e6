"""The summary of samples against independent computations, and packing that loses nothing."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from deploy.history import figures

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.sampled_from(["latency_ms", "energy_mj", 'ü"\\'])


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(NAMES, st.lists(NUMBERS, max_size=8)))
def test_packed_samples_come_back_bit_for_bit(samples: dict[str, list[float]]) -> None:
    back = figures.unpack(figures.pack(samples))
    assert {name: [value.hex() for value in values] for name, values in back.items()} == {
        name: [value.hex() for value in values] for name, values in samples.items()
    }


def test_packed_times_take_about_four_bytes_each() -> None:
    drawn = random.Random(1)
    times = [round(14.4 * (1 + 0.03 * drawn.gauss(0, 1)), 6) for _ in range(1024)]
    assert len(figures.pack({"latency_ms": times})) < 4.5 * len(times)


@pytest.mark.parametrize(
    "data", [b"", b"nonsense", figures.pack({"x": [1.0] * 50})[:-3]], ids=["none", "other", "cut"]
)
def test_damaged_samples_are_told(data: bytes) -> None:
    with pytest.raises(ValueError, match="packed samples"):
        figures.unpack(data)


def test_a_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "MAX_UNPACKED_BYTES", 1000)
    with pytest.raises(ValueError, match="too large"):
        figures.unpack(zlib.compress(b" " * 10_000))


@pytest.mark.parametrize("n", [*range(1, 40), 100, 1000, 1001, 5000])
def test_the_interval_of_a_median_covers_it(n: int) -> None:
    """The ranks' coverage by the binomial distribution; one rank narrower would not reach it."""
    found = figures.median_interval(list(range(n)))
    binomial = stats.binom(n, 0.5)
    if found is None:
        assert 1 - 2 * 0.5**n < figures.LEVEL
        return
    low, high = int(found[0]), int(found[1])
    assert low + high == n - 1

    def coverage(rank: int) -> float:
        return 1 - 2 * float(binomial.cdf(rank))

    assert coverage(low) >= figures.LEVEL - (0.001 if n > 1000 else 1e-12)
    if n <= 1000:
        assert coverage(low + 1) < figures.LEVEL
