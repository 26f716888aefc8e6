"""How many bits each layer gets, when all of them share one budget."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from compress.errors import CompressError

Choice = tuple[float, float]
"""(size, error) of one layer at one number of bits."""


def allocate(choices: Sequence[Sequence[Choice]], budget: float) -> list[int]:
    """One choice a layer with sizes of at most ``budget`` in sum and a small sum of errors.

    Starts from the smallest choice of each layer and always takes the step that removes most error
    for its size, along the lower convex hull of each layer's choices: the solution of the relaxed
    problem (Shoham & Gersho, *Efficient bit allocation*, 1988), but for the last step that does
    not fit. Returns the index of each layer's choice. Raises ``CompressError`` where the smallest
    choices are above the budget.
    """
    hulls = [_hull(layer) for layer in choices]
    taken = [0] * len(choices)
    used = sum(layer[hull[0]][0] for layer, hull in zip(choices, hulls, strict=True))
    if used > budget:
        raise CompressError(
            f"the smallest tables need {used / 8:.0f} bytes, the budget is {budget / 8:.0f}",
            where="mean_bits",
            hint="Raise it, or choose a larger group_size.",
        )
    queue = [entry for index in range(len(choices)) if (entry := _step(index, choices, hulls, 0))]
    heapq.heapify(queue)
    while queue:
        _, index, extra = heapq.heappop(queue)
        if used + extra > budget:
            continue
        used += extra
        taken[index] += 1
        if entry := _step(index, choices, hulls, taken[index]):
            heapq.heappush(queue, entry)
    return [hull[place] for hull, place in zip(hulls, taken, strict=True)]


def _step(
    index: int, choices: Sequence[Sequence[Choice]], hulls: list[list[int]], place: int
) -> tuple[float, int, float] | None:
    """(-error removed by size, layer, extra size) of the next choice on a layer's hull."""
    if place + 1 >= len(hulls[index]):
        return None
    (size, error), (more, less) = (choices[index][hulls[index][place + step]] for step in (0, 1))
    return (less - error) / (more - size), index, more - size


def _hull(layer: Sequence[Choice]) -> list[int]:
    """Indices of the choices on the lower convex hull, sizes rising and errors falling."""
    hull: list[int] = []
    for index in sorted(range(len(layer)), key=lambda i: layer[i]):
        size, error = layer[index]
        if hull and error >= layer[hull[-1]][1]:
            continue
        while len(hull) > 1:
            (s0, e0), (s1, e1) = layer[hull[-2]], layer[hull[-1]]
            if (e0 - e1) * (size - s1) > (e1 - error) * (s1 - s0):
                break
            hull.pop()
        hull.append(index)
    return hull
