"""Rules that say whether head is slower: ours, those of other tools, and what is done by hand.

Each gets the same devices and as much of their time as its tool would take, in its tool's order;
head's figures are multiplied by the change that is to be found. Each gives one word a device.
The others' rules are written anew from their documentation and source, as said at each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import stats as scipy_stats

from benchmarks.gate.devices import Floats, Measured, abba
from deploy.report import paired
from deploy.types import GateRules, Outcome, Paired

Words = list[Outcome]
THRESHOLD = GateRules().threshold
PAIRS = GateRules().pairs


@dataclass(frozen=True)
class Trial:
    """Devices to be judged: their time series, the change, and an A/A run of each before.

    ``shown`` and ``certificates`` remember what ours computed, by device (and look).
    """

    measured: Measured
    change: float
    certified: Measured
    shown: dict[tuple[int, bool], Paired] = field(default_factory=dict)
    certificates: dict[int, float | None] = field(default_factory=dict)

    def mde(self, device: int) -> float | None:
        """What the device's noise certificate, an A/A run of twelve pairs, says."""
        if device not in self.certificates:
            values = self.certified.sessions[device]
            base, head = abba(len(values) // 2)
            ratios = list(np.log(values[head] / values[base]))
            self.certificates[device] = paired.detectable(ratios, PAIRS)
        return self.certificates[device]

    def look(self, device: int, extended: bool) -> Paired:
        """The evidence of a device's first or extended look."""
        if (device, extended) not in self.shown:
            base, head = abba(2 * PAIRS if extended else PAIRS)
            row = self.measured.sessions[device]
            found = paired.evidence(
                paired.Series(tuple(row[base]), tuple((1 + self.change) * row[head])),
                alpha=paired.ALPHA / 2 if extended else paired.ALPHA,
                margin=THRESHOLD,
                mde=None,
                stored=False,
                seed=0,
            )
            assert found is not None
            self.shown[device, extended] = found
        return self.shown[device, extended]


def ours(trial: Trial, *, certificate: bool = True, both: bool = False) -> Words:
    """``deploy.report.paired``, six pairs ABBA and six more where they do not decide.

    ``both`` is the rule that was not taken: a regression must exceed the minimum detectable effect,
    too.
    """
    words = []
    for device in range(len(trial.measured.sessions)):
        mde = trial.mde(device) if certificate else None
        changes = {"mde": mde, "margin": paired.tolerance(THRESHOLD, mde) if both else THRESHOLD}
        for extended in (False, True):
            shown = trial.look(device, extended).model_copy(update=changes)
            word = paired.outcome(shown)
            if word is not Outcome.INCONCLUSIVE:
                break
        words.append(word)
    return words


def extended(trial: Trial) -> int:
    """How many devices the first six pairs leave undecided."""
    return sum(
        paired.outcome(trial.look(device, False).model_copy(update={"mde": trial.mde(device)}))
        is Outcome.INCONCLUSIVE
        for device in range(len(trial.measured.sessions))
    )


def told(trial: Trial) -> int:
    """Of how many devices one of the two looks tells the change from nothing, large or small."""
    found = 0
    for device in range(len(trial.measured.sessions)):
        for extended in (False, True):
            shown = trial.look(device, extended)
            if shown.p_worse < shown.alpha and shown.interval[0] > 1:
                found += 1
                break
    return found


def detectable(sd: float) -> float:
    """The minimum detectable effect where sessions are known to vary by ``sd`` independently.

    The formula knows the spread of log ratios alone, ``sd`` times sqrt(2): that of two values.
    """
    effect = paired.detectable((sd, -sd), PAIRS)
    assert effect is not None
    return effect


def hyperfine(trial: Trial) -> Words:
    """Welch's t-test on 12 processes of base, then 12 of head; p < 0.05 and head slower.

    hyperfine runs one command after the other; its scripts/welch_ttest.py takes 0.05.
    """
    values = trial.measured.sessions
    half = values.shape[1] // 2
    return _welch(values[:, :half], (1 + trial.change) * values[:, half:])


def welch_abba(trial: Trial) -> Words:
    """The same test on the same 24 processes in our order."""
    base, head = abba(trial.measured.sessions.shape[1] // 2)
    values = trial.measured.sessions
    return _welch(values[:, base], (1 + trial.change) * values[:, head])


def _welch(base: Floats, head: Floats) -> Words:
    p = scipy_stats.ttest_ind(head, base, axis=1, equal_var=False).pvalue
    return _words(p < 0.05, head.mean(axis=1) / base.mean(axis=1))


def google_benchmark(trial: Trial) -> Words:
    """Mann-Whitney's U on 20 repetitions in one process of each; p < 0.05 and head slower.

    tools/compare.py of Google Benchmark: alpha 0.05, at least 9 repetitions advised.
    """
    values = trial.measured.iterations
    return _u_test(values[:, 0], (1 + trial.change) * values[:, 1], 0.05)


def pooled_iterations(trial: Trial) -> Words:
    """The same test on all iterations of six ABBA pairs, as if they were independent."""
    base, head = abba(PAIRS)
    values = trial.measured.iterations
    count = len(values)
    return _u_test(
        values[:, base].reshape(count, -1),
        (1 + trial.change) * values[:, head].reshape(count, -1),
        0.05,
    )


def asv(trial: Trial) -> Words:
    """``asv continuous``: U test with p < 0.002 on two processes a side, and a factor above 1.1.

    asv/_stats.py (``is_different``) and its default factor; 10 samples a process, base first.
    """
    values = trial.measured.iterations[:, :4, :10]
    count = len(values)
    base = values[:, :2].reshape(count, -1)
    head = (1 + trial.change) * values[:, 2:].reshape(count, -1)
    return _u_test(base, head, 0.002, factor=1.1)


def fixed_threshold(trial: Trial) -> Words:
    """One process of each; head's median more than 5 % above base's."""
    values = trial.measured.sessions
    ratio = (1 + trial.change) * values[:, 1] / values[:, 0]
    return _words(np.ones(len(ratio), dtype=bool), ratio, factor=1.05)


def _u_test(base: Floats, head: Floats, alpha: float, factor: float = 1.0) -> Words:
    p = scipy_stats.mannwhitneyu(head, base, axis=1, alternative="two-sided").pvalue
    return _words(p < alpha, np.median(head, axis=1) / np.median(base, axis=1), factor)


def _words(significant: npt.NDArray[np.bool_], ratio: Floats, factor: float = 1.0) -> Words:
    words = []
    for certain, value in zip(significant, ratio, strict=True):
        if certain and value > factor:
            words.append(Outcome.REGRESSED)
        elif certain and value < 1 / factor:
            words.append(Outcome.IMPROVED)
        else:
            words.append(Outcome.PASS)
    return words


@dataclass(frozen=True)
class Contender:
    """One rule with what it measures: processes a side."""

    name: str
    about: str
    judge: Callable[[Trial], Words]


def _without(trial: Trial) -> Words:
    return ours(trial, certificate=False)


def _both(trial: Trial) -> Words:
    return ours(trial, both=True)


OURS = "pocketship"
CONTENDERS: Sequence[Contender] = (
    Contender(OURS, "6 ABBA pairs, 6 more where undecided, noise certificate of 12 pairs", ours),
    Contender("pocketship, no certificate", "the same, PASS means below 3 %", _without),
    Contender("margin of both kinds", "the same, but a regression must exceed the MDE too", _both),
    Contender("hyperfine", "Welch's t, 12 processes of base, then 12 of head, 0.05", hyperfine),
    Contender("Welch, ABBA", "the same test on 12 ABBA pairs", welch_abba),
    Contender(
        "Google Benchmark", "U test, 20 iterations of 1 process each, 0.05", google_benchmark
    ),
    Contender("U test, pooled", "U test, all iterations of 6 ABBA pairs, 0.05", pooled_iterations),
    Contender("asv", "U test, 2 processes each, 0.002, and a factor of 1.1", asv),
    Contender("fixed 5 %", "medians of 1 process each", fixed_threshold),
)


def upper_bound(hits: int, of: int, confidence: float = 0.975) -> float:
    """Clopper and Pearson's one-sided upper bound of a share."""
    if hits >= of:
        return 1.0
    return float(scipy_stats.beta.ppf(confidence, hits + 1, of - hits))


def lower_bound(hits: int, of: int, confidence: float = 0.975) -> float:
    """The lower one."""
    return 1 - upper_bound(of - hits, of, confidence)
