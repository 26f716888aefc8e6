"""The coders by themselves: against entropy, against independent decoding, and at their edges."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.errors import CompressError
from compress.packing import huffman, prefix, rans, sideinfo, tables, varint
from compress.packing.lanes import FEWEST_LANES, Run, Symbols, lanes_log
from compress.packing.tables import TOTAL, Table

COUNTS = st.lists(st.integers(0, 5000), min_size=1, max_size=60).filter(any)


def entropy_of(counts: list[int]) -> float:
    total = sum(counts)
    return -sum(count * math.log2(count / total) for count in counts if count)


@given(COUNTS)
def test_huffman_lengths_are_within_a_digit_of_the_entropy(counts: list[int]) -> None:
    lengths = huffman.code_lengths(np.array(counts))
    spent = sum(count * max(length, 0) for count, length in zip(counts, lengths, strict=True))
    assert entropy_of(counts) - 1e-6 <= spent
    # The bound of an unlimited code; 12 digits are enough to keep it for these counts.
    assert spent < entropy_of(counts) + sum(counts)
    used = [length for length in lengths if length >= 0]
    assert sum(2.0**-length for length in used) == 1
    assert [length >= 0 for length in lengths] == [count > 0 for count in counts]


@settings(max_examples=40)
@given(st.lists(st.integers(1, 200), min_size=2, max_size=6), st.integers(3, 5))
def test_limited_lengths_are_the_best_there_are(counts: list[int], limit: int) -> None:
    lengths = huffman.code_lengths(np.array(counts), limit)
    assert max(lengths) <= limit
    best = min(
        sum(count * length for count, length in zip(counts, tried, strict=True))
        for tried in itertools.product(range(1, limit + 1), repeat=len(counts))
        if sum(2.0**-length for length in tried) <= 1
    )
    assert sum(c * n for c, n in zip(counts, lengths, strict=True)) == best


def test_fibonacci_counts_stay_within_the_limit() -> None:
    counts = [1, 1]
    while len(counts) < 40:
        counts.append(counts[-1] + counts[-2])
    lengths = huffman.code_lengths(np.array(counts))
    assert max(lengths) == huffman.LIMIT
    assert sum(2.0**-length for length in lengths) == 1


@given(COUNTS)
def test_huffman_codes_are_prefix_free(counts: list[int]) -> None:
    table, _ = tables.fit(np.array(counts), power_of_two=True)
    codes, lengths = prefix._codes(table)
    words = [f"{code:0{n}b}" for code, n in zip(codes, lengths, strict=True) if n]
    for one, other in itertools.permutations(words, 2):
        assert not other.startswith(one)


def test_huffman_stream_is_decoded_by_the_code_book_alone() -> None:
    """One lane, read digit by digit: what the paper's decoder would do."""
    symbols = np.array([3, 0, 0, 7, 3, 3, 0, 1, 0, 0, 9, 3], dtype=np.uint8)
    table, _ = tables.fit(np.bincount(symbols), power_of_two=True)
    data = prefix.encode([Run(table, len(symbols))], symbols)
    codes, lengths = prefix._codes(table)
    book = {f"{codes[s]:0{lengths[s]}b}": s for s in range(len(codes)) if lengths[s]}
    size, at = varint.read(data, 1)
    assert (data[0], size) == (0, len(data) - at)
    word, found = "", []
    for digit in "".join(f"{byte:08b}" for byte in data[at:]):
        word += digit
        if word in book:
            found.append(book[word])
            word = ""
    assert found[: len(symbols)] == symbols.tolist()


@given(COUNTS, st.booleans())
def test_a_stored_table_is_read_as_it_was(counts: list[int], power_of_two: bool) -> None:
    table, _ = tables.fit(np.array(counts), power_of_two=power_of_two)
    assert table.shares.sum() == TOTAL
    assert ((table.shares > 0) == (np.array(counts) > 0)).all()
    writer = sideinfo.Writer()
    tables.transfer(writer, table, power_of_two=power_of_two)
    reader = sideinfo.Reader(writer.finish())
    read = tables.transfer(reader, None, power_of_two=power_of_two)
    reader.finish()
    kept = len(read.shares)
    assert np.array_equal(read.shares, table.shares[:kept])
    assert not table.shares[kept:].any()


@settings(max_examples=60)
@given(st.integers(2, 10**9), st.data(), st.booleans())
def test_gap_tables_are_whole(elements: int, data: st.DataObject, power_of_two: bool) -> None:
    marked = data.draw(st.integers(1, elements - 1))
    shift = tables.gap_shift(elements, marked)
    table = tables.geometric(elements, marked, shift, power_of_two=power_of_two)
    assert table.shares.sum() == TOTAL
    assert table.shares.min() >= 1
    assert table.constant is None
    assert 2 <= len(table.shares) <= 64


def test_levels_are_octaves_on_every_machine() -> None:
    assert tuple(round(2**30 * 2 ** (-i / 8)) for i in range(8)) == tables._EIGHTHS


@st.composite
def runs_of_symbols(draw: st.DrawFn) -> tuple[list[Run], Symbols, bool]:
    power_of_two = draw(st.booleans())
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    runs, coded = [], []
    for _ in range(draw(st.integers(0, 6))):
        count = draw(st.sampled_from([1, 2, 31, 32, 33, 700]))
        spread = draw(st.sampled_from([1, 3, 50]))
        held = np.clip(np.abs(random.normal(0, spread, count)), 0, 255).astype(np.uint8)
        table, _ = tables.fit(np.bincount(held, minlength=4) + 1, power_of_two=power_of_two)
        runs.append(Run(table, count))
        coded.append(held)
    return runs, np.concatenate([np.zeros(0, dtype=np.uint8), *coded]), power_of_two


@settings(max_examples=60, deadline=None)
@given(runs_of_symbols())
def test_runs_come_back(case: tuple[list[Run], Symbols, bool]) -> None:
    runs, symbols, power_of_two = case
    if power_of_two:
        assert np.array_equal(prefix.decode(runs, prefix.encode(runs, symbols)), symbols)
    data = rans.encode(runs, symbols)
    assert np.array_equal(rans.decode(runs, data), symbols)
    if len(symbols):
        many = rans.encode(runs, symbols, lanes=16)
        assert np.array_equal(rans.decode(runs, many), symbols)


@pytest.mark.parametrize("count", [300, 20_000, 400_000])
def test_rans_is_within_a_hundredth_of_the_entropy(count: int) -> None:
    random = np.random.default_rng(count)
    symbols = np.clip(np.rint(random.laplace(128, 6, count)), 0, 255).astype(np.uint8)
    counts = np.bincount(symbols)
    table, bits = tables.fit(counts, power_of_two=False)
    data = rans.encode([Run(table, count)], symbols)
    entropy = entropy_of(counts.tolist())
    assert 8 * len(data) < 1.01 * entropy + 8 * 12 + (
        bits - table.bits(counts) if count < 999 else 0
    )
    # The table is small beside what it saves.
    assert bits - table.bits(counts) < 8 * 90


def test_rans_beats_huffman_where_one_symbol_rules() -> None:
    symbols = (np.random.default_rng(1).random(100_000) < 0.02).astype(np.uint8)
    counts = np.bincount(symbols)
    sizes = []
    for coder, power_of_two in ((rans, False), (prefix, True)):
        table, _ = tables.fit(counts, power_of_two=power_of_two)
        sizes.append(len(coder.encode([Run(table, len(symbols))], symbols)))
    assert sizes[0] < 0.16 * sizes[1]


def test_small_payloads_do_not_pay_for_lanes() -> None:
    assert lanes_log(8 * 5_000, 10_000) == 0
    for payload in (10**5, 10**6, 10**7):
        lanes = 1 << lanes_log(8 * payload, payload)
        assert lanes >= FEWEST_LANES
        assert lanes * 7 < 0.006 * payload


def test_a_share_of_zero_cannot_be_decoded_to() -> None:
    """Symbols that do not occur, also the first and the last, in a loop and in numpy."""
    table = Table(np.array([0, 2000, 0, 0, 2096, 0]))
    symbols = np.array([1, 4, 4, 1] * 50, dtype=np.uint8)
    runs = [Run(table, 90), Run(table, 110)]
    for lanes in (1, 16, 32):
        data = rans.encode(runs, symbols, lanes=lanes)
        assert np.array_equal(rans.decode(runs, data), symbols)


@given(st.binary(max_size=80), st.integers(1, 300))
def test_foreign_streams_end_in_symbols_or_one_error(data: bytes, count: int) -> None:
    for coder, power_of_two in ((rans, False), (prefix, True)):
        table, _ = tables.fit(np.array([5, 1, 9, 2]), power_of_two=power_of_two)
        try:
            assert len(coder.decode([Run(table, count)], data)) == count
        except CompressError:
            continue


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(-(2**40), 2**40)), max_size=80))
def test_side_information_comes_back(values: list[tuple[int, int]]) -> None:
    writer = sideinfo.Writer()
    for kind, value in values:
        sideinfo.integer(writer, kind, abs(value))
        sideinfo.choice(writer, 50 + kind, 7, abs(value) % 128)
        writer.even(9, abs(value) % 512)
    spent = writer.spent
    data = writer.finish()
    assert len(data) <= spent / 8 + 1
    reader = sideinfo.Reader(data)
    for kind, value in values:
        assert sideinfo.integer(reader, kind) == abs(value)
        assert sideinfo.choice(reader, 50 + kind, 7) == abs(value) % 128
        assert reader.even(9) == abs(value) % 512
    reader.finish()


def test_side_information_learns() -> None:
    writer = sideinfo.Writer()
    for _ in range(1000):
        sideinfo.integer(writer, 1, 2)
    assert len(writer.finish()) < 40


@given(st.binary(max_size=12))
def test_reading_past_the_end_is_an_error(data: bytes) -> None:
    reader = sideinfo.Reader(data)
    with pytest.raises(CompressError):
        for _ in range(100_000):
            sideinfo.integer(reader, 0)
            reader.even(20)


@given(st.integers(0, 2**62 - 1), st.binary(max_size=3))
def test_varints_come_back(value: int, more: bytes) -> None:
    data = varint.write(value)
    assert varint.read(more + data + more, len(more)) == (value, len(more) + len(data))
    with pytest.raises(CompressError):
        varint.read(data[:-1], 0)
