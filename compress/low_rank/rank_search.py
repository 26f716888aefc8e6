"""Ranks by the metric on held-out data: the fewest operations within a loss that is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from compress.low_rank.candidates import Candidate
from compress.low_rank.factors import Ranks

Choice = dict[str, Ranks]
"""Layer name -> ranks; a layer that is not in it stays as it is."""


@dataclass(frozen=True)
class Trial:
    """One layer alone at some ranks: what that costs, and what the metric loses."""

    name: str
    ranks: Ranks
    macs: int
    drop: float


def search(
    ladders: Mapping[str, Sequence[Ranks]],
    found: Mapping[str, Candidate],
    drop_of: Callable[[Choice], float],
    allowed: float,
    say: Callable[[str], None],
) -> Choice:
    """Ranks for which the metric drops by at most ``allowed``.

    First each layer is tried alone, from its highest ranks down to the first that loses too much.
    Then all layers together take their lowest ranks that lose at most t alone; the largest t is
    found by bisection. Last, each layer in turn (that with most to win first) is lowered further
    as long as the whole stays within. Every choice that is returned was measured as a whole, so
    that wrong guesses of the first two phases cost operations and never the metric.

    Args:
        ladders: ranks to try for each layer, falling.
        drop_of: how much worse the metric is with a choice than with none.

    About as many calls of ``drop_of`` as the ladders have rungs, and a few more a layer.
    """
    trials: dict[str, list[Trial]] = {}
    for place, (name, ladder) in enumerate(ladders.items(), start=1):
        trials[name] = []
        for ranks in ladder:
            trial = Trial(name, ranks, found[name].macs(ranks), drop_of({name: ranks}))
            if trial.drop > allowed:
                break
            trials[name].append(trial)
        tried = [t.ranks for t in trials[name]]
        say(
            f"layer {place}/{len(ladders)} '{name}': ranks down to {tried[-1] if tried else 'none'}"
        )
    best = _together(trials, drop_of, allowed)
    return _lowered(best, ladders, found, drop_of, allowed)


def _together(
    trials: Mapping[str, Sequence[Trial]], drop_of: Callable[[Choice], float], allowed: float
) -> Choice:
    def at(limit: float) -> Choice:
        return {
            name: min(fit, key=lambda t: t.macs).ranks
            for name, tried in trials.items()
            if (fit := [t for t in tried if t.drop <= limit])
        }

    limits = sorted({t.drop for tried in trials.values() for t in tried})
    low, high = -1, len(limits)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if drop_of(at(limits[middle])) <= allowed else (low, middle)
    return at(limits[low]) if low >= 0 else {}


def _lowered(
    best: Choice,
    ladders: Mapping[str, Sequence[Ranks]],
    found: Mapping[str, Candidate],
    drop_of: Callable[[Choice], float],
    allowed: float,
) -> Choice:
    def now(name: str) -> int:
        return found[name].macs(best.get(name))

    for name in sorted(ladders, key=now, reverse=True):
        for ranks in ladders[name]:
            if found[name].macs(ranks) >= now(name):
                continue
            tried = {**best, name: ranks}
            if drop_of(tried) > allowed:
                break
            best = tried
    return best
