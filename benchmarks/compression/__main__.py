"""Run rows, count instructions, write the page and the JSON, print targets beside figures."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.compression import results, rows, table
from benchmarks.compression.unit import task_of
from deploy.errors import EXIT_INTERRUPTED, ConfigError, PocketshipError
from deploy.files import write_text

PAGE = results.ROOT / "docs/benchmarks/compression.md"
DATA = results.ROOT / "docs/benchmarks/compression.json"
BEGIN, END = "<!-- begin: written by make bench-compress -->", "<!-- end -->"
LATENCY_TURNS = 200
UNIT_TIMEOUT_S = 1800
"""No unit may take longer than a whole row should."""


def say(line: str) -> None:
    """Progress, apart from the targets on stdout."""
    print(f"bench: {line}", file=sys.stderr, flush=True)


def run_unit(row: rows.Row, variant: str, seed: int, fresh: bool) -> results.Result | str:
    """The unit's result, made if it is not there; a reason in words where it fails."""
    done = None if fresh else results.finished(row, variant, seed)
    if done is not None:
        return done
    name = f"{row.name}/{variant}, seed {seed}"
    folder = results.unit_folder(row.name, variant, seed)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder.with_suffix(".log")
    say(f"{name}: started; it tells in {log}")
    started = time.monotonic()
    try:
        code = start([row.name, variant, str(seed)], log)
    except subprocess.TimeoutExpired:
        return f"took more than {UNIT_TIMEOUT_S / 60:.0f} minutes"
    done = results.finished(row, variant, seed)
    if code != 0 or done is None:
        lines = log.read_text(errors="replace").strip().splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        said = (errors or lines or ["no output"])[-1]
        return f"ended with exit code {code}: {said.removeprefix('error: ')[:300]}"
    say(f"{name}: done in {time.monotonic() - started:.0f} s")
    return done


def start(words: list[str], log: Path) -> int:
    """Run :mod:`benchmarks.compression.unit` to its end; its exit code."""
    # One core a unit: the units themselves run side by side.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    with log.open("wb") as stream:
        return subprocess.run(
            [sys.executable, "-m", "benchmarks.compression.unit", *words],
            cwd=results.ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            timeout=UNIT_TIMEOUT_S,
            check=False,
        ).returncode


def run_row(row: rows.Row, seeds: int, jobs: int, fresh: bool) -> table.Units:
    """All units of a row; the first variant of each seed first, for it trains the network."""
    first, *others = row.variants
    waves = [[(first, seed) for seed in range(seeds)]]
    waves.append([(name, seed) for seed in range(seeds) for name in others])
    units: table.Units = {}
    pool = ThreadPoolExecutor(jobs)
    try:
        for wave in waves:
            answers = pool.map(lambda unit: run_unit(row, *unit, fresh), wave)
            for (variant, seed), answer in zip(wave, answers, strict=True):
                if isinstance(answer, str):
                    say(f"{row.name}/{variant}, seed {seed}: {answer}")
                else:
                    units[variant, seed] = answer
    finally:
        # After Ctrl-C what has not begun must not begin.
        pool.shutdown(cancel_futures=True)
    count_instructions(row, units)
    time_onnx(row, units)
    return units


def count_instructions(row: rows.Row, units: table.Units) -> None:
    """Fill in ``<kind>_instructions`` of the variants that ask for it."""
    from benchmarks.compression import phone

    wanted = [
        (unit, kind, results.unit_folder(row.name, variant, seed) / unit.files[kind])
        for (variant, seed), unit in units.items()
        for kind in phone.FORMATS
        if row.variants[variant].instructions
        and kind in unit.files
        and f"{kind}_instructions" not in unit.figures
    ]
    if not wanted:
        return
    counts = phone.count([(k, path) for _, k, path in wanted], task_of(row, 0), say)
    for unit, kind, path in wanted:
        name, answer = f"{kind}_instructions", counts[path]
        if isinstance(answer, str):
            unit.missing[name] = answer
        else:
            unit.missing.pop(name, None)
            unit.figures[name] = answer
        results.write(unit)


def time_onnx(row: rows.Row, units: table.Units) -> None:
    """Fill in ``onnx_latency_ratio``: median of ours / theirs within each of many turns."""
    if row.latency is None:
        return
    from benchmarks import onnx_static

    for seed in range(row.seeds):
        ours = units.get((row.latency.variant, seed))
        theirs = units.get((row.latency.against, seed))
        if ours is None or theirs is None or "onnx_latency_ratio" in ours.figures:
            continue
        models = {
            name: results.unit_folder(row.name, unit.variant, seed) / unit.files["onnx"]
            for name, unit in (("ours", ours), ("onnxruntime", theirs))
        }
        say(f"{row.name}: timing {' and '.join(models)} in turns")
        inputs = [tensor.contiguous().numpy() for tensor in task_of(row, seed).example_inputs]
        timed = onnx_static.interleaved(models, inputs, LATENCY_TURNS)
        ours.figures["onnx_latency_ratio"] = timed.ratio
        ours.figures["onnx_latency_ms"] = timed.medians_ms["ours"]
        results.write(ours)


def stored_units(row: rows.Row) -> table.Units:
    """What earlier runs left of a row, made of the present definition, code and tools."""
    found = {}
    for variant in row.variants:
        for seed in range(row.seeds):
            result = results.finished(row, variant, seed)
            if result is not None:
                found[variant, seed] = result
    return found


def published(data: Path) -> dict[str, table.Units]:
    """The units in the JSON beside the page, by row; empty where there is none."""
    found: dict[str, table.Units] = {}
    if data.exists():
        for unit in json.loads(data.read_text(encoding="utf-8"))["units"]:
            result = results.Result.model_validate(unit)
            found.setdefault(result.row, {})[result.variant, result.seed] = result
    return found


def write_page(everything: list[tuple[rows.Row, table.Units]], page: Path, data: Path) -> None:
    """The JSON, and the part of the page between its two marks."""
    flat = [unit.model_dump() for _, units in everything for _, unit in sorted(units.items())]
    text = page.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"has no marks '{BEGIN}' and '{END}'", where=page.name)
    sections = "\n".join(table.markdown(row, units) for row, units in everything)
    write_text(data, json.dumps({"schema_version": 1, "units": flat}, indent=1) + "\n")
    write_text(page, f"{head}{BEGIN}\n\n{sections}\n{END}{tail}")


def main() -> int:
    """Exit code 0 when every unit that was asked for has figures, 6 when one has none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compression")
    parser.add_argument("--model", help=f"one row: {', '.join(rows.names())}")
    parser.add_argument("--seeds", type=int, help="seeds of each row, instead of the row's own")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--fresh", action="store_true", help="make units again that are there")
    parser.add_argument("--page", action="store_true", help="write the page of the JSON, run none")
    arguments = parser.parse_args()
    if arguments.jobs < 1 or (arguments.seeds is not None and arguments.seeds < 1):
        parser.error("--seeds and --jobs must be at least 1")
    try:
        if arguments.model:
            rows.load(arguments.model)
        known = [rows.load(name) for name in rows.names()]
        before = published(DATA)
        everything = {row.name: before.get(row.name, {}) for row in known}
        wanted = [row for row in known if arguments.model in (None, row.name)]
        failed = 0
        for row in [] if arguments.page else wanted:
            started = time.monotonic()
            seeds = arguments.seeds or row.seeds
            units = run_row(row, seeds, arguments.jobs, arguments.fresh)
            failed += seeds * len(row.variants) - len(units)
            say(f"{row.name}: {(time.monotonic() - started) / 60:.1f} minutes")
            everything[row.name] = stored_units(row) | units
            # After each row: who stops the next one has this one.
            write_page([(row, everything[row.name]) for row in known], PAGE, DATA)
        pairs = [(row, everything[row.name]) for row in known]
        write_page(pairs, PAGE, DATA)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except PocketshipError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    say(f"table: {PAGE.relative_to(results.ROOT)}")
    for row, units in pairs:
        for line in (*table.target_lines(row, units), table.time_line(row, units)):
            print(line)
    print(table.total_time_line(pairs))
    return 6 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
