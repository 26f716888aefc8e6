"""One unit in a process of its own: make one variant for one seed, measure it, leave its JSON.

python -m benchmarks.compression.unit ROW VARIANT SEED
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.compression import results, rows
from compress.errors import PocketshipError
from compress.task import Task, load_task

EXAMPLES = results.ROOT / "examples"
JUDGED = {"evaluation": 10_000}
"""The figures are of the whole test set; recipes report on a part of it while they run."""


def task_of(row: rows.Row, seed: int, more: Mapping[str, Any] = {}) -> Task:
    """The row's task; the network that it trains is kept in the cache."""
    arguments = {**row.task.arguments, **more, **({"seed": seed} if row.task.seeded else {})}
    return load_task(row.task.callable, arguments, [EXAMPLES])


@contextlib.contextmanager
def alone(row: str, name: str, seed: int) -> Iterator[None]:
    """Wait for another process that makes the same unit, such as one that a killed run left."""
    path = results.unit_folder(row, name, seed).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make(row: rows.Row, name: str, seed: int) -> results.Result:
    """Make and measure; the JSON file is written last, so that it vouches for the others."""
    # Importing these takes seconds; a wrong name should not.
    import torch

    from benchmarks.compression.figures import measured
    from benchmarks.compression.makers import MAKERS, Job

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    variant = row.variants[name]
    if variant.maker not in MAKERS:
        known = ", ".join(MAKERS)
        raise rows.ConfigError(f"no maker '{variant.maker}'", where=name, hint=f"Use {known}.")
    result = results.blank(row, name, seed)
    folder = results.unit_folder(row.name, name, seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    task = task_of(row, seed, variant.task_arguments)
    started = time.monotonic()
    made = MAKERS[variant.maker](
        Job(
            task=task,
            arguments=variant.arguments,
            seed=seed,
            folder=folder,
            journal=results.folder() / "journal",
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    )
    result.make_seconds = round(time.monotonic() - started, 1)
    started = time.monotonic()
    judged = task_of(row, seed, JUDGED if row.task.seeded else {})
    result.figures = {**made.figures, **measured(made, judged)}
    result.measure_seconds = round(time.monotonic() - started, 1)
    result.notes = made.notes
    result.files = {kind: path.name for kind, path in made.files.items()}
    results.write(result)
    return result


def main() -> int:
    """Exit code 0 when the unit's JSON is there."""
    name, variant, seed = sys.argv[1:]
    try:
        with alone(name, variant, int(seed)):
            result = make(rows.load(name), variant, int(seed))
    except PocketshipError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(", ".join(f"{key} {value:.6g}" for key, value in result.figures.items()), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
