"""What each operator costs, from the runtime's own profile, in a process that does only that."""

from __future__ import annotations

from deploy.bench.backends import backends
from deploy.bench.passes.base import CaseRun, Gathered, PassFailed
from deploy.bench.runner import brief
from deploy.errors import PocketshipError
from deploy.metrics.layers import with_layers
from deploy.metrics.operators import (
    MAX_PROFILE_BYTES,
    executorch_operators,
    onnxruntime_operators,
)
from deploy.types import Metric

ITERATIONS = 20

_PARSERS = {"executorch": executorch_operators, "onnxruntime": onnxruntime_operators}


class Operators:
    """One row for each operator, joined to the model's layers where that is certain."""

    name = "operators"
    metrics: tuple[Metric, ...] = ()

    def wants_cool(self, run: CaseRun) -> bool:
        """What an operator costs is a time."""
        return True

    def measure(self, run: CaseRun) -> Gathered:
        """Where there is no profile, the case says why and is no worse for it."""
        limits = brief(run.limits, warmup=5, iterations=ITERATIONS)
        request = run.request(limits=limits, profile_bytes=MAX_PROFILE_BYTES)
        try:
            result, answer = run.run(request)
        except (PassFailed, PocketshipError) as error:
            return Gathered(operators_reason=str(error))
        parse = _PARSERS[backends(run.device.profile)[run.job.artifact.format]]
        try:
            rows = parse(answer.profile, inferences=len(result.steady_ns), clock=run.info.clock)
        except ValueError as error:
            return Gathered(operators_reason=f"the profile cannot be used: {error}")
        warnings: tuple[str, ...] = ()
        try:
            rows = with_layers(rows, run.job.layers())
        except PocketshipError as error:
            warnings = (f"the operators have no layer names: {error}",)
        return Gathered(operators=tuple(rows), warnings=warnings)
