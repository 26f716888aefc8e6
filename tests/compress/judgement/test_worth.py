"""keep_if and warnings: pure functions of two ledger rows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from compress.errors import CompressError
from compress.judgement.worth import KeepIf, refusal, warnings
from compress.ledger import Cost, Footprint, Interval, LedgerRow, Quality
from compress.task import TOP1, TaskMetric

LOSS = TaskMetric("loss", lambda outputs, targets: 0.0, higher_is_better=False)
SIZE = Footprint(
    parameters=1000,
    nonzeros=1000,
    macs=10_000,
    packed_bytes=3000,
    deflated_bytes=3600,
    disk_bytes=4000,
    ram_bytes=5000,
)
COST = Cost(
    device="phone", format="executorch", metric="instructions", tier="emulator", value=1_000_000.0
)


def row(metric: float = 0.9, *, cost: Cost | None = None, **size: Any) -> LedgerRow:
    quality = Quality(
        samples=100,
        max_abs_diff=0.1,
        sqnr_db=20.0,
        top1_agreement=None,
        metric="top1",
        metric_value=metric,
        metric_reference=0.9,
    )
    return LedgerRow(
        step="s",
        parameters=SIZE.parameters,
        program_bytes=SIZE.disk_bytes,
        seconds=1,
        quality=quality,
        interval=Interval(low=metric - 0.03, high=metric + 0.03, method="wilson"),
        validation=metric,
        footprint=SIZE.model_copy(update=size),
        cost=cost,
    )


def costing(value: float | None, **changes: Any) -> Cost:
    return COST.model_copy(update={"value": value, **changes})


# --- keep_if --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep_if", "after", "reason"),
    [
        ({"max_metric_drop": 0.01}, row(0.89), ""),
        ({"max_metric_drop": 0.01}, row(0.88), "got worse by 0.02 (0.9 to 0.88), max_metric_drop"),
        ({"max_metric_drop": -0.02}, row(0.91), "max_metric_drop is -0.02"),
        ({"max_metric_drop": -0.02}, row(0.92), ""),
        ({"min_packed_gain": 0.1}, row(packed_bytes=2700), ""),
        ({"min_packed_gain": 0.1}, row(packed_bytes=2701), "packed bytes fell by 10.0%"),
        ({"min_disk_gain": 0.0}, row(), ""),
        (
            {"min_disk_gain": 0.0},
            row(disk_bytes=4001),
            "bytes on disk grew by 0.0% (4,000 to 4,001)",
        ),
        ({"min_macs_gain": 0.3}, row(macs=10_000), "MACs unchanged"),
        ({"min_macs_gain": 0.3}, row(macs=7000), ""),
        ({"min_cost_gain": 0.1}, row(cost=costing(900_000)), ""),
        ({"min_cost_gain": 0.1}, row(cost=costing(950_000)), "cost fell by 5.0%"),
    ],
)
def test_a_step_that_misses_a_condition_is_dropped(
    keep_if: dict[str, float], after: LedgerRow, reason: str
) -> None:
    said = refusal(KeepIf(**keep_if), after, row(cost=COST), TOP1.gain)
    assert bool(said) == bool(reason)
    assert reason in said


def test_every_condition_must_hold_and_every_miss_is_named() -> None:
    wanted = KeepIf(max_metric_drop=0.01, min_disk_gain=0.5, min_macs_gain=0.1)
    said = refusal(wanted, row(0.8, macs=5000), row(), TOP1.gain)
    assert said.startswith("dropped: ")
    assert "max_metric_drop" in said
    assert "min_disk_gain" in said
    assert "min_macs_gain" not in said
    assert refusal(KeepIf(), row(0.1, disk_bytes=9999), row(), TOP1.gain) == ""


def test_a_loss_gets_worse_upwards() -> None:
    wanted = KeepIf(max_metric_drop=0.01)
    assert refusal(wanted, row(0.95), row(0.9), LOSS.gain)
    assert not refusal(wanted, row(0.5), row(0.9), LOSS.gain)


def test_evaluation_data_decide_nothing() -> None:
    after = row(0.1).model_copy(update={"validation": 0.9})
    assert refusal(KeepIf(max_metric_drop=0), after, row(0.9), TOP1.gain) == ""


@pytest.mark.parametrize(
    ("keep_if", "change", "why"),
    [
        ({"max_metric_drop": 0.1}, {"validation": None}, "no validation metric"),
        (
            {"min_macs_gain": 0.1},
            {"footprint": SIZE.model_copy(update={"macs": None, "macs_unknown": ("aten.x",)})},
            "nobody counts the MACs of aten.x",
        ),
        (
            {"min_packed_gain": 0.1},
            {"footprint": SIZE.model_copy(update={"packed_bytes": None, "packed_reason": "why"})},
            "why",
        ),
        (
            {"min_cost_gain": 0.1},
            {"cost": costing(None, reason="the phone is off")},
            "phone is off",
        ),
        ({"min_cost_gain": 0.1}, {"cost": costing(1.0, tier="host")}, "no two costs"),
        ({"min_disk_gain": 0.1}, {"footprint": None}, "no footprint"),
    ],
)
def test_what_nobody_knows_is_refused(
    keep_if: dict[str, float], change: dict[str, Any], why: str
) -> None:
    good = row(cost=COST)
    unknown = good.model_copy(update=change)
    for after, before in ((unknown, good), (good, unknown)):
        with pytest.raises(CompressError, match=rf"keep_if\.{next(iter(keep_if))} cannot.*{why}"):
            refusal(KeepIf(**keep_if), after, before, TOP1.gain)


def test_what_cannot_be_known_is_said_before_anything_runs() -> None:
    everything = {"has_validation": True, "has_cost": True}
    asked = KeepIf(max_metric_drop=0, min_cost_gain=0, min_disk_gain=0)
    assert asked.unknowable(**everything) == ""
    assert "task.validation is empty" in asked.unknowable(has_validation=False, has_cost=True)
    assert "recipe.cost" in asked.unknowable(has_validation=True, has_cost=False)
    assert KeepIf(min_macs_gain=0.1).unknowable(has_validation=False, has_cost=False) == ""


@pytest.mark.parametrize("wrong", [{"min_disk_gain": 1.0}, {"min_disk_gain": -0.1}, {"typo": 1}])
def test_impossible_conditions(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        KeepIf(**wrong)


# --- warnings -------------------------------------------------------------------------------------


def said(after: LedgerRow, before: LedgerRow, metric: TaskMetric = TOP1) -> str:
    return " | ".join(warnings(after, before, metric.gain))


def test_a_step_that_changed_nothing_is_silent() -> None:
    assert said(row(), row()) == ""
    assert said(row(cost=COST), row(cost=COST)) == ""


def test_made_things_worse() -> None:
    text = said(row(0.86), row(0.9))
    assert text.startswith("made things worse: top1 0.9 to 0.86, outside the 95% interval 0.87")
    # Inside the interval, or better, or something was won for it.
    assert said(row(0.88), row(0.9)) == ""
    assert said(row(0.96), row(0.9)) == ""
    for won in ("packed_bytes", "deflated_bytes", "disk_bytes", "macs"):
        assert "worse" not in said(row(0.5, **{won: 1000}), row(0.9)), won
    cheaper = row(0.5, cost=costing(500_000.0))
    assert "worse" not in said(cheaper, row(0.9, cost=COST))
    assert "worse" in said(row(0.5, deflated_bytes=3590), row(0.9))
    assert "worse" in said(row(0.96), row(0.9), LOSS)


def test_zeros_that_nothing_skips() -> None:
    text = said(row(nonzeros=100, packed_bytes=500), row())
    assert text.startswith("90% of the parameters are zeros: they shrink the download alone; ")
    assert "zeros" not in said(row(nonzeros=100, macs=1000), row())
    assert "zeros" not in said(row(nonzeros=100, disk_bytes=1000), row())
    assert "zeros" not in said(row(nonzeros=995), row())
    # Not again at a later step that leaves them as they are.
    assert said(row(nonzeros=100, packed_bytes=500), row(nonzeros=100, packed_bytes=500)) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (500_000.0, ""),
        (1_000_500.0, "no measured speed-up on phone: instructions 1,000,000 to 1,000,500 (emula"),
        (1_100_000.0, "costs more on phone: instructions 1,000,000 to 1,100,000 (emulator)"),
        (None, "the cost on phone was not measured: gone"),
    ],
)
def test_measured_costs(value: float | None, text: str) -> None:
    reason = "gone" if value is None else ""
    found = said(row(macs=5000, cost=costing(value, reason=reason)), row(cost=COST))
    assert text in found
    assert bool(found) == bool(text)


def test_noise_of_times_is_no_news() -> None:
    timed = {"metric": "latency_ms", "tier": "host"}
    before = row(cost=costing(10.0, **timed))
    assert said(row(cost=costing(10.4, **timed)), before) == ""
    assert said(row(cost=costing(10.6, **timed)), before).endswith("ran there made longer too")
    assert "no measured speed-up" in said(row(macs=5000, cost=costing(9.6, **timed)), before)
    assert said(row(macs=5000, cost=costing(9.4, **timed)), before) == ""


def test_costs_that_do_not_compare() -> None:
    other = costing(1.0, metric="latency_ms", tier="host")
    assert "the row before has no such figure" in said(row(cost=other), row(cost=COST))


def test_without_a_device_a_step_says_nothing_of_speed() -> None:
    # The ledger says it once; only zeros, which a user takes for speed, are explained each time.
    assert said(row(macs=5000), row()) == ""
    assert said(row(disk_bytes=1000), row()) == ""
    assert said(row(nonzeros=100, packed_bytes=500), row()).endswith("no speed-up")


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5))
def test_a_dropped_step_lost_more_than_allowed(old: float, new: float, allowed: float) -> None:
    dropped = bool(refusal(KeepIf(max_metric_drop=allowed), row(new), row(old), TOP1.gain))
    assert dropped == (old - new > allowed + 1e-9)
