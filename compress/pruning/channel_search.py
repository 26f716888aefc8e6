"""How wide each group of layers stays, so that a figure meets its limit: numbers only, no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Widths = tuple[int, ...]
Figure = Callable[[Widths], float]
"""What a model of these widths costs; never more where no width is larger."""


@dataclass(frozen=True)
class Ranked:
    """A group with ``units`` that can go one by one, in the order of ``rank`` (ascending).

    ``least`` units stay; what stays is a multiple of ``multiple``, or all.
    """

    units: int
    rank: tuple[float, ...]
    least: int
    multiple: int

    def width(self, gone: int) -> int:
        """Units left after ``gone`` were chosen: up to the next multiple, never more than all."""
        return min(self.units, -(-(self.units - gone) // self.multiple) * self.multiple)

    @property
    def narrowest(self) -> int:
        """The least width there is."""
        return self.width(max(self.units - self.least, 0))


def widths_within(
    groups: Sequence[Ranked], allowed: float, figure: Figure, *, refill: bool
) -> Widths:
    """Widths whose figure is at most ``allowed``; the narrowest ones where none is.

    The units of all groups go in one order, by rank, and as few of them as possible: found by
    bisection. A group loses ``multiple`` units at once, which can be more than was needed;
    ``refill`` then gives groups back as much as still fits, the most important units first.
    ``figure`` is asked about log2(units) times, and with ``refill`` about once more a group.
    """
    queue = sorted(
        (rank, index, place)
        for index, group in enumerate(groups)
        for place, rank in enumerate(group.rank[: max(group.units - group.least, 0)])
    )

    def after(length: int) -> Widths:
        gone = [0] * len(groups)
        for _, index, _ in queue[:length]:
            gone[index] += 1
        return tuple(group.width(n) for group, n in zip(groups, gone, strict=True))

    low, high = 0, len(queue)
    if figure(after(high)) > allowed:
        return after(high)
    if figure(after(low)) <= allowed:
        return after(low)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if figure(after(middle)) <= allowed else (middle, high)
    widths = after(high)
    return _refilled(groups, widths, allowed, figure) if refill else widths


def _refilled(groups: Sequence[Ranked], widths: Widths, allowed: float, figure: Figure) -> Widths:
    full = set()
    while True:
        best = max(
            (
                (group.rank[group.units - width - 1], index)
                for index, (group, width) in enumerate(zip(groups, widths, strict=True))
                if width < group.units and index not in full
            ),
            default=None,
        )
        if best is None:
            return widths
        index = best[1]
        wider = min(groups[index].units, widths[index] + groups[index].multiple)
        candidate = (*widths[:index], wider, *widths[index + 1 :])
        if figure(candidate) <= allowed:
            widths = candidate
        else:
            full.add(index)
