"""How large the pages of a large report are, and how fast they open in Chromium.

    python -m benchmarks.pages

1,000 cases with 1,000 samples each, made up, on four devices, and the comparison of two such runs.
The last lines print each target beside the figure reached.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.report import compare
from deploy.report.pages import comparison, run
from deploy.types import Case, DeviceRun, Format, Metric, Report, Status, Tier
from tests.deploy.report import factory
from tests.deploy.report.pages import browser, examples

CASES, SAMPLES, DEVICES = 1000, 1000, 4
MOST_BYTES = 20_000_000
MOST_SECONDS = 2.0
_OPENED = 5


def large_report(cases: int = CASES, samples: int = SAMPLES, devices: int = DEVICES) -> Report:
    """So many cases with a latency of so many samples, spread over devices of tier ``device``.

    Half of the variants' artifacts are compared with the baseline's, as in a real report.
    """
    draw = random.Random(0)
    runs: list[DeviceRun] = []
    for number in range(devices):
        one = examples.phone()
        profile = one.profile.model_copy(update={"name": f"phone-{number}"})
        runs.append(one.model_copy(update={"profile": profile}))
    made = [factory.artifact(f"v{number}") for number in range(cases // devices)]
    found = []
    for of in made:
        for one in runs:
            centre = draw.uniform(5, 50)
            latency = [centre * draw.lognormvariate(0, 0.05) for _ in range(samples)]
            found.append(
                factory.case(
                    of,
                    one.profile.name,
                    factory.measured(Metric.LOAD_MS, centre * 2, tier=Tier.DEVICE),
                    factory.measured(Metric.FIRST_MS, centre * 1.5, tier=Tier.DEVICE),
                    factory.measured(Metric.LATENCY_MS, *latency, tier=Tier.DEVICE),
                    factory.measured(Metric.PEAK_RSS_KIB, 1000 * centre, tier=Tier.DEVICE),
                    before=examples.state(60.0 * len(found), 30.0),
                    after=examples.state(60.0 * len(found) + 30, 31.0),
                )
            )
    return factory.report().model_copy(
        update={
            "artifacts": tuple(made),
            "devices": tuple(runs),
            "cases": tuple(found),
            "parity": (),
            "verdicts": (),
            "baseline_variant": "v0",
            "comparisons": compare.comparisons(found, made, "v0", devices=runs),
        }
    )


def other_run(report: Report) -> Report:
    """The same cases made once more, 2 % slower and with other noise."""
    draw = random.Random(1)

    def again(case: Case) -> Case:
        rows = tuple(
            row.model_copy(
                update={
                    "samples": tuple(1.02 * x * draw.lognormvariate(0, 0.02) for x in row.samples)
                }
            )
            for row in case.measurements
        )
        return case.model_copy(update={"measurements": rows})

    cases = tuple(again(case) for case in report.cases)
    return report.model_copy(update={"run_id": "20300102-120000", "cases": cases})


def opened(chromium: Any, file: Path) -> float:
    """Seconds from asking for ``file`` until it is loaded and could be painted."""
    watched = browser.Watched(chromium)
    begun = time.perf_counter()
    page = watched.open(file)
    page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    took = time.perf_counter() - begun
    watched.close()
    if watched.troubles:
        sys.exit(f"{file.name}: {'; '.join(watched.troubles)}")
    return took


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the pages, open them, print a table and the targets; 1 where one is missed."""
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    path = browser.executable()
    if path is None:
        sys.exit(f"no browser: none of {', '.join(browser.NAMES)}")
    report = large_report()
    assert all(case.status is Status.OK for case in report.cases)
    assert {of.format for of in report.artifacts} == {Format.EXECUTORCH}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun = time.perf_counter()
        run.write(report, folder)
        wrote = time.perf_counter() - begun
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        total = sum(file.stat().st_size for file in files)
        # Its own folder in use; here it shares the assets.
        both = comparison.write(report, other_run(report), folder).stat().st_size
        print(f"{CASES:,} cases with {SAMPLES:,} samples each on {DEVICES} devices")
        print(f"written in {wrote:.1f} s")
        print(f"| page | bytes | opens in, s (median of {_OPENED}) |")
        print("| --- | ---: | ---: |")
        times = {}
        with browser.started(path) as chromium:
            for file in sorted(folder.glob("*.html")):
                times[file.name] = statistics.median(opened(chromium, file) for _ in range(_OPENED))
                print(f"| {file.name} | {file.stat().st_size:,} | {times[file.name]:.2f} |")
        assets = sum(file.stat().st_size for file in (folder / "assets").iterdir())
        print(f"| assets | {assets:,} | |")
    total_both = both + assets
    index, side_by_side = times["index.html"], times[comparison.FILE]
    cores, load = os.cpu_count(), os.getloadavg()[1]
    print(f"\n{cores} cores, load average of the last 5 minutes {load:.1f}")
    print(f"all files: {total:,} bytes; target below {MOST_BYTES:,}: {_held(total < MOST_BYTES)}")
    print(
        f"a comparison: {total_both:,} bytes; target below {MOST_BYTES:,}: "
        f"{_held(total_both < MOST_BYTES)}"
    )
    for name, seconds in (("index.html", index), (comparison.FILE, side_by_side)):
        held = _held(seconds < MOST_SECONDS)
        print(f"{name}: {seconds:.2f} s; target below {MOST_SECONDS:g}: {held}")
    small = max(total, total_both) < MOST_BYTES
    return 0 if small and max(index, side_by_side) < MOST_SECONDS else 1


def _held(good: bool) -> str:
    return "reached" if good else "MISSED"


if __name__ == "__main__":
    sys.exit(main())
