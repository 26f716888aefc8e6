"""The reader of perfetto's power rails against an encoder that was written apart from it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.android_text import Rail, parse_power_rails
from tests.deploy.perfetto_trace import message, number, rail_packet, varint

OTHER = message(1, number(8, 5) + message(33, b"\x0a\x03abc") + varint(99 << 3 | 5) + b"1234")
CPU, DISPLAY = ("S4M_VDD_CPUCL0", "cpu"), ("VSYS_PWR_DISPLAY", "display")


def test_rails_with_their_counters() -> None:
    trace = (
        OTHER
        + rail_packet({0: CPU, 7: DISPLAY}, [(0, 1000, 50), (7, 1001, 2**40)])
        + OTHER
        + rail_packet({}, [(7, 1251, 2**40 + 9), (0, 1250, 75), (3, 1, 1)])
    )
    found = parse_power_rails(trace)
    assert found.problem == ""
    assert found.rails == (
        Rail(*CPU, ((1000, 50), (1250, 75))),
        Rail(*DISPLAY, ((1001, 2**40), (1251, 2**40 + 9))),
    )


def test_a_trace_that_ends_early_gives_what_came_before() -> None:
    whole = rail_packet({0: CPU}, [(0, 1, 1)])
    found = parse_power_rails(whole + rail_packet({}, [(0, 2, 5)])[:-1])
    assert found.rails == (Rail(*CPU, ((1, 1),)),)
    assert "damaged" in found.problem


def test_compressed_packets_are_named() -> None:
    assert "compressed" in parse_power_rails(message(1, message(50, b"x"))).problem
    assert parse_power_rails(b"").rails == ()


readings = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2**50), st.integers(0, 2**63)), max_size=20
)


@given(readings)
def test_what_is_written_is_read(rows: list[tuple[int, int, int]]) -> None:
    names = {i: (f"rail{i}", "x") for i in range(4)}
    found = parse_power_rails(rail_packet(names, rows))
    expected: dict[int, dict[int, int]] = {}
    for index, ms, uj in rows:
        expected.setdefault(index, {}).setdefault(ms, uj)
    assert {r.name: dict(r.readings) for r in found.rails} == {
        f"rail{i}": values for i, values in expected.items()
    }


@settings(max_examples=200)
@given(readings, st.integers(0, 400), st.binary(max_size=12), st.integers(0, 20))
def test_no_bytes_make_it_crash(
    rows: list[tuple[int, int, int]], at: int, junk: bytes, cut: int
) -> None:
    trace = OTHER + rail_packet({0: CPU, 1: DISPLAY}, rows)
    at = min(at, len(trace))
    for rail in parse_power_rails(trace[:at] + junk + trace[at + cut :]).rails:
        assert rail.readings == tuple(sorted(set(rail.readings)))
