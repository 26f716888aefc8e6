"""What compression changed, in sentences: for whoever reads one line and no table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from deploy.report import compare
from deploy.report.tables import candidates, plain
from deploy.types import Comparison, Metric, Report

_NOUNS: dict[str, tuple[str, str, str]] = {
    compare.BYTES: ("files are", "smaller", "larger"),
    Metric.LATENCY_MS: ("an inference takes", "less time", "more time"),
    Metric.INSTRUCTIONS: ("an inference takes", "fewer instructions", "more instructions"),
    Metric.PEAK_RSS_KIB: ("peak memory is", "lower", "higher"),
    Metric.ENERGY_MJ: ("an inference takes", "less energy", "more energy"),
}


def sentences(report: Report) -> tuple[str, ...]:
    """One line a candidate and place: ``int8 on host (host): an inference takes 26 % less time``.

    A range where runtimes differ. Places are devices; files belong to none.
    """
    found = []
    for candidate in candidates(report):
        rows = [row for row in report.comparisons if row.candidate == candidate]
        for device in dict.fromkeys(row.device for row in rows):
            here = [row for row in rows if row.device == device and row.ratio is not None]
            told = list(_told(here))
            if told:
                tiers = "/".join(dict.fromkeys(str(row.tier) for row in here))
                place = f" on {plain(device)} ({tiers})" if device else ""
                found.append(f"{plain(candidate)}{place}: {', '.join(told)}.")
    return tuple(found)


def _told(rows: Sequence[Comparison]) -> Iterator[str]:
    for metric, (verb, less, more) in _NOUNS.items():
        ratios = [row.ratio for row in rows if row.metric == metric and row.ratio is not None]
        if ratios:
            yield f"{verb} {_span(min(ratios), max(ratios), less, more)}"


def _span(low: float, high: float, less: str, more: str) -> str:
    first, last = _share(low, less, more), _share(high, less, more)
    if first == last:
        return first
    for word in (less, more):
        if first.endswith(word) and last.endswith(word):
            small, large = sorted((first, last), key=lambda text: float(text.partition(" ")[0]))
            return f"{small.partition(' ')[0]} to {large}"
    return f"{first} to {last}"


def _share(ratio: float, less: str, more: str) -> str:
    """``45 % less time``; a digit behind the point where there would be only one before it."""
    share = 100 * abs(ratio - 1)
    if share < 0.05:
        return "as before"
    return f"{share:.{0 if share >= 10 else 1}f} % {less if ratio < 1 else more}"
