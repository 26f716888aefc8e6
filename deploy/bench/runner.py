"""How the native runner is called, and what its end means."""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace

from deploy.android_text import printable
from deploy.errors import ConfigError
from deploy.types import BenchOverride, Format, Status

BACKENDS: dict[Format, str] = {
    Format.EXECUTORCH: "executorch",
    Format.ONNX: "onnxruntime",
    Format.ORT: "onnxruntime",
}
"""Formats that the native runner takes, and with which backend."""


@dataclass(frozen=True)
class Preset:
    """How much is measured; the runner's limits of the same names (docs/architecture.md)."""

    name: str
    warmup_iterations: int
    warmup_seconds: float
    iterations: int
    min_seconds: float
    max_seconds: float
    passes: tuple[str, ...] = ()
    """Passes beside timing that a pipeline gets where it names none (docs/passes.md)."""
    per_minute: bool = False
    """Whether steady figures are medians of minutes instead of single inferences."""


PRESETS: dict[str, Preset] = {
    # LiteRT's benchmark_model: at least 50 runs and 1 s, at most 150 s.
    "quick": Preset("quick", 10, 0.5, 50, 1.0, 150.0, ("loads", "memory", "task")),
    # MLPerf Mobile's single stream: at least 1024 queries and 60 s.
    "release": Preset(
        "release", 10, 0.5, 1024, 60.0, 900.0, ("loads", "memory", "operators", "task")
    ),
    # A phone that gets warm: the order of devices at minute 1 is not the order at minute 30.
    "sustained": Preset("sustained", 10, 0.5, 50, 600.0, 750.0, ("loads", "memory"), True),
    # For counted instructions, which repeat exactly.
    "exact": Preset("exact", 1, 0.0, 3, 0.0, 150.0),
}


SUSTAINED_MINUTES = 10
_MAX_BEYOND_S = 150.0


def preset(name: str, minutes: int = SUSTAINED_MINUTES) -> Preset:
    """The preset of that name; ``ConfigError`` where there is none.

    ``minutes`` is how long ``sustained`` measures; the others do not ask.
    """
    if name not in PRESETS:
        raise ConfigError(
            f"unknown bench preset {name!r}", hint=f"Use one of {', '.join(PRESETS)}."
        )
    chosen = PRESETS[name]
    if chosen.per_minute:
        seconds = minutes * 60.0
        return replace(chosen, min_seconds=seconds, max_seconds=seconds + _MAX_BEYOND_S)
    return chosen


def plan(chosen: Preset, override: BenchOverride | None) -> Preset:
    """``chosen`` with a profile's iterations in place of the preset's, which then also end it."""
    if override is None:
        return chosen
    return replace(
        chosen,
        warmup_iterations=override.warmup_iterations,
        warmup_seconds=0.0,
        iterations=override.iterations,
        min_seconds=0.0,
        per_minute=False,
    )


def brief(limits: Preset, *, warmup: int, iterations: int, seconds: float = 0.0) -> Preset:
    """``limits`` for a pass that needs fewer inferences; never more than ``limits`` has."""
    return replace(
        limits,
        warmup_iterations=min(warmup, limits.warmup_iterations),
        warmup_seconds=0.0,
        iterations=min(iterations, limits.iterations),
        min_seconds=min(seconds, limits.min_seconds),
        per_minute=False,
    )


def load_only(limits: Preset) -> Preset:
    """``limits`` for the load and the first inference alone."""
    return brief(limits, warmup=0, iterations=0)


def arguments(
    backend: str,
    *,
    model: str,
    inputs: str,
    outputs: str,
    result: str,
    threads: int,
    cpu_mask: str | None,
    limits: Preset,
    samples: int = 0,
    poll_memory_ms: int = 0,
    profile: str | None = None,
) -> list[str]:
    """The runner's options (without the program). Paths are the device's.

    ``samples``: the inputs hold so many and each is run once. ``poll_memory_ms``: poll the memory
    beside the inferences. ``profile``: the file that gets what each operator costs.
    """
    words = [
        *("--backend", backend),
        *("--model", model),
        *("--inputs", inputs),
        *("--outputs", outputs),
        *("--result", result),
        *("--warmup-iterations", str(limits.warmup_iterations)),
        *("--warmup-seconds", f"{limits.warmup_seconds:g}"),
        *("--iterations", str(limits.iterations)),
        *("--min-seconds", f"{limits.min_seconds:g}"),
        *("--max-seconds", f"{limits.max_seconds:g}"),
        *("--threads", str(threads)),
    ]
    if cpu_mask is not None:
        words += ["--cpu-mask", cpu_mask]
    if samples:
        words += ["--samples", str(samples)]
    if poll_memory_ms:
        words += ["--poll-memory-ms", str(poll_memory_ms)]
    if profile is not None:
        words += ["--profile", profile]
    return words


def pinning(mask: str | None, threads: int) -> str | None:
    """``mask`` if it has a core for each thread; threads that share a core measure their queue."""
    if mask is None or int(mask, 16).bit_count() < threads:
        return None
    return mask


_MODEL_TO_BLAME = {
    3: "the model cannot be loaded",
    4: "the inputs do not fit the model",
    5: "a runtime library is missing or has the wrong version",
    6: "the inference failed",
}
_AROUND_TO_BLAME = {
    2: "the runner does not take our options",
    7: "the runner could not write its results",
    126: "the runner could not be started",
    127: "the runner could not be started",
}
_CRASHES = {
    signal.SIGILL: "an instruction that this processor does not have",
    signal.SIGTRAP: "the runtime stopped itself",
    signal.SIGABRT: "the runtime stopped itself",
    signal.SIGBUS: "bad memory access",
    signal.SIGFPE: "bad arithmetic",
    signal.SIGKILL: "the system does this when memory runs out",
    signal.SIGSEGV: "bad memory access",
}


def interpret_exit(code: int, output: str) -> tuple[Status, str]:
    """What an exit code and the runner's one line on stderr say about the case.

    ``failed`` blames the model or the runtime; ``invalid`` blames everything around them.
    """
    line = _runner_line(output)
    if code == 0:
        return Status.OK, ""
    if code in _MODEL_TO_BLAME:
        return Status.FAILED, line or f"{_MODEL_TO_BLAME[code]} (exit code {code}, no message)"
    if code > 128:
        return _interpret_signal(code - 128, line)
    what = _AROUND_TO_BLAME.get(code, f"the runner ended with exit code {code}")
    return Status.INVALID, f"{what}: {line or f'exit code {code}, no message'}"


def _interpret_signal(number: int, line: str) -> tuple[Status, str]:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    said = f" ({line})" if line else ""
    if number in _CRASHES:
        return (
            Status.FAILED,
            f"the runner was ended by {name}: {_CRASHES[signal.Signals(number)]}{said}",
        )
    return Status.INVALID, f"the runner was ended by {name} from outside{said}"


def _runner_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("bench_runner:")]
    return printable((own or lines or [""])[-1], 300)
