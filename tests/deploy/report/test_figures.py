import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.report import figures
from deploy.types import Metric


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (14.4321, "14.43"),
        (0.026012, "0.02601"),
        (12345.6, "12,346"),
        (0.0000032, "3.200e-06"),
        (-1.5, "-1.500"),
        (float("inf"), "not finite"),
    ],
)
def test_four_digits_are_significant(value, text):
    assert figures.significant(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5446, "0.54x"), (0.9981, "0.998x"), (1.0, "1.000x"), (0.0071, "0.0071x"), (12.3, "12.30x")],
)
def test_ratios_near_one_keep_a_digit_more(value, text):
    assert figures.ratio(value) == text


def test_counts_are_written_in_full():
    assert figures.figure(Metric.INSTRUCTIONS, 84_590_607) == "84,590,607"
    assert figures.figure(Metric.PEAK_RSS_KIB, 1024.5) == "1,024.5"
    assert figures.figure("bytes", 18_567_712) == "18,567,712"


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_what_is_shown_is_the_value_to_four_digits(value):
    shown = float(figures.significant(value).replace(",", ""))
    assert shown == pytest.approx(value, rel=6e-4)


@given(st.floats(min_value=0))
def test_every_ratio_and_limit_is_text(value):
    assert figures.ratio(value).endswith("x")
    assert figures.limit(value)


def test_every_metric_has_a_title_and_a_unit():
    assert set(Metric) <= set(figures.TITLES)
    assert set(Metric) <= set(figures.UNITS)
