"""Where a task metric lies: what the spread over evaluation samples allows to say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from compress.errors import ConfigError, first_line
from compress.ledger import Interval
from compress.quality import figure
from compress.task import TaskMetric

LEVEL = 0.95
RESAMPLES = 2000
"""Draws of the bootstrap of a mean of scores."""
_CHUNK = 1 << 22  # Elements that are drawn at once.
_CALLS = 200
_SAMPLES_IN_ALL = 400_000


def interval_of(
    metric: TaskMetric,
    outputs: Sequence[Tensor],
    targets: Sequence[Tensor | None],
    *,
    seed: int = 0,
) -> Interval | None:
    """The metric's interval over evaluation samples, independent samples assumed.

    Scores that are all 0 or 1 give Wilson's interval; other scores, a bootstrap of their mean. A
    metric without scores is computed anew on each resample of the samples: at most 200 times, and
    on at most 400,000 samples in all (but 40 times at least), because it is the user's code. None
    where there are fewer than two samples, or where the metric fails on a resample (a rank
    correlation of equal values, for one). Raises ``ConfigError`` where ``scores`` fails or its mean
    is not the metric.
    """
    if len(outputs) < 2:
        return None
    if metric.scores is None:
        return _bootstrap_metric(metric, outputs, targets, seed)
    scores = _scores(metric, outputs, targets)
    if len(scores) < 2:
        return None
    if set(scores) <= {0.0, 1.0}:
        return wilson(round(sum(scores)), len(scores))
    return bootstrap_mean(scores, seed=seed)


def wilson(successes: int, count: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a share (J. Am. Stat. Assoc. 22, 1927); count > 0.

    It stays within [0, 1] and has a width also at 0 and at ``count`` successes.
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    half /= 1 + z * z / count
    # At the ends the exact bounds are 0 and 1; rounding may miss them by 1e-17.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == count else centre + half
    return Interval(low=low, high=high, level=level, method="wilson")


def bootstrap_mean(
    scores: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Interval:
    """Percentile bootstrap (Efron, Ann. Stat. 7, 1979) of the mean of ``scores``."""
    values = torch.tensor(scores, dtype=torch.float64)
    count = len(values)
    generator = torch.Generator().manual_seed(seed)
    means = []
    rows = max(1, _CHUNK // count)
    for start in range(0, resamples, rows):
        shape = (min(rows, resamples - start), count)
        drawn = torch.randint(count, shape, generator=generator, dtype=torch.int32)
        means.append(values[drawn].mean(dim=1))
    return _percentiles(torch.cat(means), level)


def _bootstrap_metric(
    metric: TaskMetric, outputs: Sequence[Tensor], targets: Sequence[Tensor | None], seed: int
) -> Interval | None:
    count = len(outputs)
    resamples = max(40, min(_CALLS, _SAMPLES_IN_ALL // count))
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(resamples):
        drawn = torch.randint(count, (count,), generator=generator).tolist()
        try:
            again = figure(metric, [outputs[i] for i in drawn], [targets[i] for i in drawn])
        except ConfigError:
            # The whole set has a figure; that a part of it has none is no fault of the user's.
            return None
        values.append(again)
    return _percentiles(torch.tensor(values, dtype=torch.float64), LEVEL)


def _percentiles(values: Tensor, level: float) -> Interval:
    tail = (1 - level) / 2
    low, high = torch.quantile(values, torch.tensor([tail, 1 - tail], dtype=values.dtype)).tolist()
    return Interval(low=low, high=high, level=level, method="bootstrap", resamples=len(values))


def _scores(
    metric: TaskMetric, outputs: Sequence[Tensor], targets: Sequence[Tensor | None]
) -> list[float]:
    assert metric.scores is not None
    where = f"task.metric '{metric.name}'"
    try:
        scores = [float(score) for score in metric.scores(outputs, targets)]
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"scores failed: {type(error).__name__}: {first_line(error)}",
            where=where,
            hint="It gets one output tensor and one target a sample and returns numbers.",
        ) from error
    if not all(map(math.isfinite, scores)):
        raise ConfigError("scores has a number that is not finite", where=where)
    mean = math.fsum(scores) / len(scores) if scores else math.nan
    value = figure(metric, outputs, targets)
    if not math.isclose(mean, value, rel_tol=1e-5, abs_tol=1e-7):
        raise ConfigError(
            f"has scores of mean {mean:.6g}, but is {value:.6g}",
            where=where,
            hint="scores are the terms whose mean the metric is; leave them out otherwise.",
        )
    return scores
