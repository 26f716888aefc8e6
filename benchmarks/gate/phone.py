"""The gate on the emulated phone: A/A, one convolution more, one fused activation lost.

Each comparison is one pair of sessions of two ``.pte`` files of a small network, judged by
:func:`deploy.report.gate.judge` with the default rules; instructions are counted exactly there.
Seven networks differ in weights and widths, and each change is made at one of three places, so that
no two of twenty comparisons of a kind have the same head. Each is kept as it ends: the same command
goes on where it was interrupted.
"""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gate.page import Target
from deploy import harness
from deploy.bench.agent import RunnerBundle
from deploy.bench.runner import preset
from deploy.bench.session import Job
from deploy.config import DeviceConfig
from deploy.connect import connected
from deploy.devices.base import Device
from deploy.export import executorch
from deploy.export.options import ExecuTorchTarget
from deploy.files import sha256, write_bytes
from deploy.report import gate
from deploy.types import Artifact, Format, GateRules, Metric, Outcome, Side, TensorSpec, silent

PHONE = "emulated-arm64"
COMPARISONS = 20
SHAPE, CLASSES = (1, 3, 48, 48), 10
NETWORKS, PLACES = 7, 3
KINDS = AA, CONVOLUTION, ACTIVATION = (
    "A/A",
    "one convolution more",
    "one fused activation lost",
)
Row = dict[str, Any]

_JOBS: dict[str, Job] = {}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Change:
    """What is done to head's network, and at which of its three convolutions."""

    kind: str
    place: int


def network(number: int, change: Change | None) -> Any:
    """Three convolutions with ReLU and a linear layer. The same number has the same weights.

    A lost activation is a ReLU written as ``maximum(x, 0)``, which computes the same and is not
    fused into its convolution; an extra convolution has as many channels as the one before it.
    """
    import torch
    from torch import nn

    class Unfused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("zero", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Any shape."""
            return torch.maximum(x, self.zero)

    torch.manual_seed(number)
    widths = [3, 8 + 2 * (number % 5), 16, 24 + 4 * (number % 3)]
    layers: list[nn.Module] = []
    for place, (inner, outer) in enumerate(itertools.pairwise(widths)):
        layers.append(nn.Conv2d(inner, outer, 3, padding=1, stride=1 + place % 2))
        lost = change is not None and change.kind == ACTIVATION and change.place == place
        layers.append(Unfused() if lost else nn.ReLU())
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], CLASSES)]
    if change is not None and change.kind == CONVOLUTION:
        at = 2 * change.place + 2
        width = widths[change.place + 1]
        layers[at:at] = [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers).eval()


def export(folder: Path, name: str, model: Any, inputs: Path) -> Job:
    """Write ``<name>.pte`` and make a case of it. Both sides' artifacts are called ``small``."""
    import torch

    program = torch.export.export(model, (torch.zeros(SHAPE),))
    (written,) = executorch.export(
        program, ExecuTorchTarget(format=Format.EXECUTORCH), folder, name
    )
    artifact = Artifact(
        name="small.executorch",
        variant="small",
        format=written.format,
        path=written.path.name,
        sha256=sha256(written.path),
        bytes=written.path.stat().st_size,
        inputs=(TensorSpec(name="x", dtype="float32", shape=SHAPE),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(1, CLASSES)),),
        source_sha256="0" * 64,
        tools=written.tools,
        placement=written.placement,
    )
    return Job(artifact, written.path, inputs)


def compared(folder: Path, kind: str, number: int, inputs: Path) -> tuple[Job, Job]:
    """Base and head of a comparison; a base is exported once."""
    variant = number % NETWORKS
    base = _exported(folder, variant, None, inputs)
    if kind == AA:
        return base, base
    return base, _exported(folder, variant, Change(kind, number % PLACES), inputs)


def _exported(folder: Path, variant: int, change: Change | None, inputs: Path) -> Job:
    name = f"{variant}-{change.kind}-{change.place}" if change else f"{variant}-base"
    name = name.replace(" ", "-")
    if name not in _JOBS:
        _JOBS[name] = export(folder, name, network(variant, change), inputs)
    return _JOBS[name]


def run(count: int, say: Say, *, done: list[Row], keep: Callable[[list[Row]], None]) -> None:
    """Make the comparisons that ``done`` lacks; ``keep`` gets all rows whenever one is added."""
    import torch

    there = {(row["kind"], row["number"]) for row in done}
    missing = [(k, n) for n in range(count) for k in KINDS if (k, n) not in there]
    if not missing:
        return
    _JOBS.clear()
    torch.manual_seed(0)
    with (
        tempfile.TemporaryDirectory(prefix="pocketship-bench-gate-") as scratch,
        connected(DeviceConfig(profile=PHONE), say) as device,
    ):
        inputs = Path(scratch) / "inputs.bin"
        write_bytes(inputs, torch.randn(SHAPE).numpy().tobytes())
        runner = harness.bundle(device.profile.abi, say)
        for kind, number in missing:
            base, head = compared(Path(scratch), kind, number, inputs)
            row = _judged(device, runner, base, head)
            done.append({"kind": kind, "number": number, **row})
            keep(done)
            say(f"{kind} {number + 1}: {row['instructions']}, {row['reason']}")


def _judged(device: Device, runner: RunnerBundle, base: Job, head: Job) -> Row:
    from deploy.bench.sessions import run_sessions

    sessions = run_sessions(
        device,
        base,
        head,
        pairs=range(1),
        runner=runner,
        limits=preset("exact"),
        keep=lambda session: None,
        progress=silent,
    )
    found = gate.judge(
        Side(label="base", kind="artifacts", artifacts=(base.artifact,)),
        Side(label="head", kind="artifacts", artifacts=(head.artifact,)),
        sessions,
        rules=GateRules(),
    )
    counted = next((v for v in found if v.metric == Metric.INSTRUCTIONS), None)
    return {
        "outcome": str(gate.decide(found).outcome),
        "instructions": str(counted.outcome) if counted else "none",
        "base": counted.base_value if counted else None,
        "head": counted.value if counted else None,
        "reason": counted.reason if counted else "; ".join(v.reason for v in found),
    }


def targets(part: dict[str, Any]) -> list[Target]:
    """No A/A comparison is REGRESSED as a whole; every change is found in the instructions."""
    count = part["comparisons"]
    found = []
    for kind, asked in ((AA, 0), (CONVOLUTION, count), (ACTIVATION, count)):
        rows = [row for row in part["rows"] if row["kind"] == kind]
        key = "outcome" if kind == AA else "instructions"
        hits = sum(row[key] == Outcome.REGRESSED for row in rows)
        judged = sum(row["instructions"] in (Outcome.PASS, Outcome.REGRESSED) for row in rows)
        # An A/A comparison that came to nothing shows nothing.
        met = hits == asked and judged == len(rows) == count
        found.append(
            Target(
                f"emulated phone, {kind}, REGRESSED {asked} of {count}",
                f"{hits} of {len(rows)}{_range(rows)}",
                met,
            )
        )
    return found


def _range(rows: list[dict[str, Any]]) -> str:
    changes = sorted(row["head"] / row["base"] - 1 for row in rows if row["base"] and row["head"])
    if not changes:
        return ""
    return f", instructions {changes[0]:+.3%} to {changes[-1]:+.3%}"


def tables(part: dict[str, Any]) -> list[str]:
    """Markdown: what was said of each kind of comparison."""
    lines = [
        f"{part['comparisons']} comparisons of each kind, one pair of sessions each.",
        "",
        "| comparison | instructions of base | change | said of instructions |",
        "| --- | ---: | ---: | --- |",
    ]
    for kind in KINDS:
        rows = [row for row in part["rows"] if row["kind"] == kind]
        bases = [row["base"] for row in rows if row["base"]]
        if not bases:
            continue
        said = Counter(row["instructions"] for row in rows)
        words = ", ".join(f"{word} {number}" for word, number in sorted(said.items()))
        change = _range(rows).removeprefix(", instructions ")
        lines.append(f"| {kind} | {min(bases):,.0f} to {max(bases):,.0f} | {change} | {words} |")
    return lines
