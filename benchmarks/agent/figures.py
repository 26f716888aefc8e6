"""What a part of the benchmark hands back: rows with a target, and all samples as evidence."""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

_RESAMPLES = 10_000
_WORDS = {">=": operator.ge, "<=": operator.le, "==": operator.eq}


@dataclass(frozen=True)
class Row:
    """One figure. ``target`` None: shown for comparison, nothing was promised."""

    what: str
    value: float
    unit: str
    relation: Literal[">=", "<=", "=="] = ">="
    target: float | None = None
    note: str = ""
    interval: tuple[float, float] | None = None
    """Of 95 %, where the figure is noisier than the target is strict."""

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, nothing where there is no target; ``unclear`` within the noise."""
        if self.target is None:
            return ""
        answers = {_WORDS[self.relation](v, self.target) for v in self.interval or (self.value,)}
        if len(answers) == 2:
            return "unclear"
        return "met" if answers.pop() else "missed"

    @property
    def wanted(self) -> str:
        """The target in words."""
        return "" if self.target is None else f"{self.relation} {self.target:g}"


@dataclass
class Part:
    """The rows of one part, and the samples that they come from."""

    name: str
    rows: list[Row] = field(default_factory=list)
    samples: dict[str, Any] = field(default_factory=dict)
    not_run: str = ""


def say(line: str) -> None:
    """Progress, apart from the tables on stdout."""
    print(f"bench-agent: {line}", file=sys.stderr, flush=True)


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Median of the log ratios with its 95 % percentile bootstrap interval over pairs."""
    logs = np.log(ratios)
    drawn = np.random.default_rng(0).choice(logs, (_RESAMPLES, len(logs)))
    low, high = np.exp(np.quantile(np.median(drawn, axis=1), [0.025, 0.975]))
    return float(low), float(np.exp(np.median(logs))), float(high)
