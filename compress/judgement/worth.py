"""Was a step worth it: ``keep_if``, which drops steps, and warnings, which only say.

Both look at ledger rows alone and compare a step with the row before it (the last one kept).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import BaseModel, ConfigDict, Field

from compress.errors import CompressError
from compress.ledger import Cost, Footprint, LedgerRow

Gain = Callable[[float, float], float]
"""``(new, old) -> `` how much better new is; :meth:`compress.task.TaskMetric.gain`."""

COUNTED_TOLERANCE = 0.002
"""Relative change below which two instruction counts are the same: they repeat to 0.1 %."""
TIMED_TOLERANCE = 0.05
"""The same for times, which no statistical test stands behind here."""

_COUNTED = "instructions"
"""How the names of metrics end that are counts, not times."""
_ROUNDING = 1e-9  # 0.9 - 0.89 is a little more than 0.01.


class KeepIf(BaseModel):
    """What a step must reach to be kept, against the last row that was kept.

    Gains are shares of the row before: 0.1 asks for 10 % less. ``max_metric_drop`` is in the
    metric's own unit and is judged on validation data, never on evaluation data; below 0 it asks
    for a gain.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_metric_drop: float | None = Field(default=None, allow_inf_nan=False)
    min_packed_gain: float | None = Field(default=None, ge=0, lt=1)
    min_disk_gain: float | None = Field(default=None, ge=0, lt=1)
    min_macs_gain: float | None = Field(default=None, ge=0, lt=1)
    min_cost_gain: float | None = Field(default=None, ge=0, lt=1)

    def unknowable(self, *, has_validation: bool, has_cost: bool) -> str:
        """What is asked and cannot be known, before anything ran; empty where nothing is."""
        if self.max_metric_drop is not None and not has_validation:
            return "max_metric_drop is judged on validation data, and task.validation is empty"
        if self.min_cost_gain is not None and not has_cost:
            return "min_cost_gain needs a measured cost, and recipe.cost names no device"
        return ""


def refusal(keep_if: KeepIf, row: LedgerRow, before: LedgerRow, gain: Gain) -> str:
    """Why a step is dropped, in words; empty where it is kept.

    Raises ``CompressError`` where a figure that is asked for is not there: a step is neither kept
    nor dropped on what nobody knows.
    """
    reasons = []
    if keep_if.max_metric_drop is not None:
        new = _known(row.validation, "max_metric_drop", "there is no validation metric")
        old = _known(before.validation, "max_metric_drop", "there is no validation metric")
        drop = -gain(new, old)
        if drop > keep_if.max_metric_drop + _ROUNDING:
            reasons.append(
                f"the validation metric got worse by {drop:.4g} ({old:.4g} to {new:.4g}), "
                f"max_metric_drop is {keep_if.max_metric_drop:g}"
            )
    for key, (new_value, old_value, why) in _figures(row, before).items():
        least = getattr(keep_if, key)
        if least is None:
            continue
        new, old = _known(new_value, key, why), _known(old_value, key, why)
        won = 1 - new / old if old else 0.0
        if won < least - _ROUNDING:
            what = key.removeprefix("min_").removesuffix("_gain")
            named = {"macs": "MACs", "packed": "packed bytes", "disk": "bytes on disk"}
            reasons.append(
                f"{named.get(what, what)} {_change(new, old)} ({_number(old)} to {_number(new)}), "
                f"{key} is {least:g}"
            )
    return f"dropped: {'; '.join(reasons)}" if reasons else ""


def _figures(
    row: LedgerRow, before: LedgerRow
) -> dict[str, tuple[float | None, float | None, str]]:
    new, old = row.footprint, before.footprint
    said = [cost.reason for cost in (row.cost, before.cost) if cost is not None and cost.reason]
    reason = said[0] if said else "there are no two costs of one device and metric"
    if new is None or old is None:
        why = "there is no footprint"
        sizes = dict.fromkeys(("min_packed_gain", "min_disk_gain", "min_macs_gain"), why)
        figures: dict[str, tuple[float | None, float | None, str]] = {
            key: (None, None, why) for key, why in sizes.items()
        }
    else:
        unknown = ", ".join({**dict.fromkeys(new.macs_unknown), **dict.fromkeys(old.macs_unknown)})
        figures = {
            "min_packed_gain": (
                new.packed_bytes,
                old.packed_bytes,
                new.packed_reason or old.packed_reason,
            ),
            "min_disk_gain": (new.disk_bytes, old.disk_bytes, ""),
            "min_macs_gain": (new.macs, old.macs, f"nobody counts the MACs of {unknown}"),
        }
    new_cost, old_cost = _comparable(row, before)
    return {**figures, "min_cost_gain": (new_cost, old_cost, reason)}


def _known(value: float | None, key: str, why: str) -> float:
    if value is None:
        raise CompressError(
            f"keep_if.{key} cannot be judged: {why}",
            hint="Mend that and run again (finished trainings are kept), or take the key out.",
        )
    return value


def warnings(row: LedgerRow, before: LedgerRow, gain: Gain) -> tuple[str, ...]:
    """What a user should know of a step before believing in it; empty for a good one."""
    said = [*_worse(row, before, gain), *_zeros(row, before), *_speed(row, before)]
    return tuple(said)


def _worse(row: LedgerRow, before: LedgerRow, gain: Gain) -> Sequence[str]:
    """The metric fell out of the interval that it had, and nothing was won for it."""
    if row.quality is None or before.quality is None or before.interval is None:
        return ()
    new, old, had = row.quality.metric_value, before.quality.metric_value, before.interval
    if had.low <= new <= had.high or gain(new, old) >= 0 or _won(row, before):
        return ()
    return (
        f"made things worse: {row.quality.metric} {old:.4g} to {new:.4g}, outside the "
        f"{had.level:.0%} interval {had.low:.4g} to {had.high:.4g} before, "
        "and no byte, MAC or cost was won",
    )


def _won(row: LedgerRow, before: LedgerRow) -> bool:
    new, old = row.footprint, before.footprint
    cost, cost_before = _comparable(row, before)
    pairs: list[tuple[float | None, float | None]] = []
    if new is not None and old is not None:
        pairs += [(new.packed_bytes, old.packed_bytes), (new.deflated_bytes, old.deflated_bytes)]
        pairs += [(new.disk_bytes, old.disk_bytes), (new.macs, old.macs)]
        # One bit that compresses better is no gain.
        if any(b is not None and a is not None and a < 0.99 * b for a, b in pairs):
            return True
    if cost is None or cost_before is None or row.cost is None:
        return False
    return cost < cost_before * (1 - _tolerance(row.cost))


def _zeros(row: LedgerRow, before: LedgerRow) -> Sequence[str]:
    """Weights became zero, but nothing that is stored or computed became less."""
    new, old = row.footprint, before.footprint
    if new is None or old is None or new.macs is None or old.macs is None:
        return ()
    if new.nonzeros >= 0.99 * old.nonzeros or new.macs < old.macs:
        return ()
    if new.disk_bytes < old.disk_bytes:
        return ()
    return (
        f"{1 - new.nonzeros / new.parameters:.0%} of the parameters are zeros: they shrink the "
        "download alone; XNNPACK stores and computes them as others: no speed-up",
    )


def _speed(row: LedgerRow, before: LedgerRow) -> Sequence[str]:
    if row.cost is None:
        return ()  # The ledger says once that nothing was measured.
    expected = _lighter(row.footprint, before.footprint)
    text = _costs(row, row.cost, before, expected=expected)
    return (text,) if text else ()


def _costs(row: LedgerRow, cost: Cost, before: LedgerRow, *, expected: bool) -> str:
    """What the measured costs say against the step; ``expected``: it promised to be faster."""
    if cost.value is None:
        return f"the cost on {cost.device} was not measured: {cost.reason}"
    new, old = _comparable(row, before)
    if new is None or old is None:
        return f"no measured speed-up on {cost.device}: the row before has no such figure"
    figures = f"{cost.metric} {_number(old)} to {_number(new)} ({cost.tier})"
    if new > old * (1 + _tolerance(cost)):
        counted = cost.metric.endswith(_COUNTED)
        doubt = "" if counted else "; a time, which whatever else ran there made longer too"
        return f"costs more on {cost.device}: {figures}{doubt}"
    if expected and new > old * (1 - _tolerance(cost)):
        return f"no measured speed-up on {cost.device}: {figures}"
    return ""


def _lighter(new: Footprint | None, old: Footprint | None) -> bool:
    """Whether a reader could expect a faster model: fewer MACs, bytes on disk or non-zeros."""
    if new is None or old is None:
        return False
    if new.macs is not None and old.macs is not None and new.macs < old.macs:
        return True
    return new.disk_bytes < old.disk_bytes or new.nonzeros < 0.99 * old.nonzeros


def _comparable(row: LedgerRow, before: LedgerRow) -> tuple[float | None, float | None]:
    """The two costs, None where they are not of one device, tier and metric."""
    new, old = row.cost, before.cost
    if new is None or old is None or _of(new) != _of(old):
        return None, None
    return new.value, old.value


def _of(cost: Cost) -> tuple[str, str, str, str]:
    return cost.device, cost.format, cost.metric, cost.tier


def _tolerance(cost: Cost) -> float:
    return COUNTED_TOLERANCE if cost.metric.endswith(_COUNTED) else TIMED_TOLERANCE


def _change(new: float, old: float) -> str:
    if not old or new == old:
        return "unchanged" if new == old else "grew from 0"
    share = abs(1 - new / old)
    return f"{'fell' if new < old else 'grew'} by {share:.1%}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.4g}"
