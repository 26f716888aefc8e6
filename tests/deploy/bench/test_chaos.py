"""A small part of ``make chaos``."""

from __future__ import annotations

import pytest

from benchmarks import chaos


@pytest.mark.soak
def test_every_case_ends_exactly_once_under_random_faults() -> None:
    outcome = chaos.run(daemons=8, phones=0, cases=2, faults=12, seed=20, max_seconds=120.0)
    assert outcome.injected.total() >= 8
    assert (outcome.lost, outcome.doubled, outcome.wrong) == (0, 0, []), outcome.in_words()
    assert set(outcome.ended.values()) == {1}
    assert len(outcome.ended) == 16
