"""Every contender on every kind of device: counts of the five words."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.gate import contenders, devices, intervals

SDS = (0.03, 0.05, 0.15)
CHANGES = {0.0: SDS, 0.02: (0.03, 0.05), 0.10: SDS}
"""Changes to be judged, with the variations at which they are."""


@dataclass(frozen=True)
class Cell:
    """One contender on one kind of device: how often it said what."""

    kind: str
    sd: float
    change: float
    contender: str
    devices: int
    said: dict[str, int]
    extended: int | None = None

    def share(self, word: str) -> float:
        """Share of devices of which it said this."""
        return self.said.get(word, 0) / self.devices


def cells(task: tuple[int, float, float, int, int]) -> list[Cell]:
    """All contenders on the same devices. ``task``: kind, sd, change, devices, seed."""
    number, sd, change, count, seed = task
    kind = devices.KINDS[number]
    # The same devices for every change, so that power and false alarms are of the same ones.
    random = np.random.default_rng([seed, number, round(1000 * sd)])
    trial = contenders.Trial(
        devices.measure(random, kind, sd, count), change, devices.measure(random, kind, sd, count)
    )
    found = []
    for contender in contenders.CONTENDERS:
        said = Counter(str(word) for word in contender.judge(trial))
        more = contenders.extended(trial) if contender.name == contenders.OURS else None
        found.append(Cell(kind.name, sd, change, contender.name, count, dict(said), more))
    return found


def at_the_effect(count: int, seed: int) -> list[dict[str, float]]:
    """Changes as large as the minimum detectable effect, on independent sessions."""
    found = []
    for sd in SDS:
        random = np.random.default_rng([seed, 99, round(1000 * sd)])
        measured = devices.measure(random, devices.KINDS[0], sd, count)
        change = contenders.detectable(sd)
        hits = contenders.told(contenders.Trial(measured, change, measured))
        found.append({"sd": sd, "mde": change, "told": hits, "devices": count})
    return found


def run(count: int, seed: int) -> dict[str, object]:
    """All cells and the intervals' errors, as they stand in the JSON."""
    started = time.monotonic()
    tasks = [
        (number, sd, change, count, seed)
        for number in range(len(devices.KINDS))
        for change, sds in CHANGES.items()
        for sd in sds
    ]
    with ProcessPoolExecutor(max_workers=min(2, os.cpu_count() or 1)) as workers:
        missed = workers.submit(intervals.misses, count, seed)
        effects = workers.submit(at_the_effect, count, seed)
        rows = [asdict(cell) for found in workers.map(cells, tasks) for cell in found]
        return {
            "devices": count,
            "seed": seed,
            "cells": rows,
            "intervals": missed.result(),
            "effects": effects.result(),
            "seconds": round(time.monotonic() - started, 1),
        }


def read(part: dict[str, object]) -> Iterator[Cell]:
    """The cells of the JSON's part."""
    rows = part["cells"]
    assert isinstance(rows, list)
    for row in rows:
        yield Cell(**row)
