"""Widths meet the limit, keep the rules, and leave as little unused as they can."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from compress.pruning.channel_search import Ranked, Widths, widths_within


@st.composite
def groups(draw: st.DrawFn) -> Ranked:
    units = draw(st.integers(2, 12))
    rank = sorted(draw(st.lists(st.integers(0, 20), min_size=units, max_size=units)))
    return Ranked(
        units,
        tuple(map(float, rank)),
        draw(st.integers(1, units)),
        draw(st.sampled_from([1, 2, 4])),
    )


def allowed_widths(group: Ranked) -> set[int]:
    multiples = range(group.multiple, group.units, group.multiple)
    return {width for width in multiples if width >= group.least} | {group.units}


@settings(max_examples=150, deadline=None)
@given(st.lists(groups(), min_size=1, max_size=4), st.floats(0.05, 1.0), st.booleans())
def test_limit_rules_and_order(ranked: list[Ranked], share: float, refill: bool) -> None:
    def figure(widths: Widths) -> float:
        """As in a chain of layers: products of neighbours."""
        padded = (3, *widths, 5)
        return float(sum(a * b for a, b in itertools.pairwise(padded)))

    limit = share * figure(tuple(group.units for group in ranked))
    widths = widths_within(ranked, limit, figure, refill=refill)
    assert all(width in allowed_widths(group) for group, width in zip(ranked, widths, strict=True))
    narrowest = tuple(min(allowed_widths(group)) for group in ranked)
    if figure(narrowest) > limit:
        assert widths == narrowest
        return
    assert figure(widths) <= limit
    wider = [
        (*widths[:i], min(group.units, widths[i] + group.multiple), *widths[i + 1 :])
        for i, group in enumerate(ranked)
        if widths[i] < group.units
    ]
    if refill:
        assert all(figure(one) > limit for one in wider)
    # Without multiples what went ranks nowhere above what stayed and could have gone.
    elif all(group.multiple == 1 for group in ranked):
        went = [group.rank[group.units - w - 1] for group, w in zip(ranked, widths, strict=True)
                if w < group.units]  # fmt: skip
        stayed = [group.rank[group.units - w] for group, w in zip(ranked, widths, strict=True)
                  if w > group.least]  # fmt: skip
        assert not went or not stayed or max(went) <= min(stayed)
        assert not wider or any(figure(one) > limit for one in wider)


def test_refill_starts_with_the_most_important() -> None:
    """Four units of the first go at once where one was enough; the third is wider again for it."""
    first = Ranked(8, tuple(range(8)), 1, 4)
    second = Ranked(4, (5.0, 5.0, 9.0, 9.0), 1, 1)
    third = Ranked(4, (0.0, 4.0, 9.0, 9.0), 1, 1)

    def figure(widths: Widths) -> float:
        return float(sum(widths))

    ranked = [first, second, third]
    assert widths_within(ranked, 12.0, figure, refill=False) == (4, 4, 3)
    assert widths_within(ranked, 12.0, figure, refill=True) == (4, 4, 4)


def test_few_questions() -> None:
    asked = []

    def figure(widths: Widths) -> float:
        asked.append(widths)
        return float(widths[0])

    one = Ranked(1000, tuple(map(float, range(1000))), 1, 1)
    assert widths_within([one], 400.0, figure, refill=False) == (400,)
    assert len(asked) <= 12
