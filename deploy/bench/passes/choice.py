"""Which passes a case gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from deploy.bench.passes.base import Pass
from deploy.bench.passes.energy import Energy
from deploy.bench.passes.loads import Loads
from deploy.bench.passes.memory import Memory
from deploy.bench.passes.operators import Operators
from deploy.bench.passes.task import TaskMetric
from deploy.bench.passes.timing import Timing
from deploy.bench.runner import Preset
from deploy.types import DeviceProfile

MADE: dict[str, Callable[[], Pass]] = {
    "loads": Loads,
    "memory": Memory,
    "operators": Operators,
    "task": TaskMetric,
}
"""Passes beside timing by the names that the pipeline file has for them, in their order."""


def passes_for(
    asked: Sequence[str] | None, preset: Preset, profile: DeviceProfile
) -> tuple[Pass, ...]:
    """Timing, then what was asked for, each at most once and in the order of :data:`MADE`.

    Energy is always the last: where there is none to be had its row says why, at no cost.

    Where nothing was asked for the preset decides; but a device whose profile sets its own
    iterations, because a process is dear there, gets timing alone.
    """
    if asked is None:
        asked = preset.passes if profile.bench is None else ()
    return (
        Timing(loads="loads" not in asked),
        *(make() for name, make in MADE.items() if name in asked),
        Energy(),
    )
