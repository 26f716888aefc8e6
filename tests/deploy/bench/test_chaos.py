"""A small part of ``make chaos``."""

from __future__ import annotations

import shutil

import pytest

from benchmarks import chaos

NEEDS_QEMU = pytest.mark.skipif(
    shutil.which("qemu-system-aarch64") is None, reason="QEMU is missing"
)


@pytest.mark.soak
@pytest.mark.parametrize("phones", [0, pytest.param(1, marks=NEEDS_QEMU)])
def test_every_case_ends_exactly_once_under_random_faults(phones: int) -> None:
    outcome = chaos.run(
        daemons=8 - phones, phones=phones, cases=2, faults=12, seed=20, max_seconds=120.0
    )
    assert outcome.injected.total() >= 8
    assert (outcome.lost, outcome.doubled, outcome.wrong) == (0, 0, []), outcome.in_words()
    assert set(outcome.ended.values()) == {1}
    assert len(outcome.ended) == 16
