"""Our int8 ``.onnx`` against ONNX Runtime's own static quantization of the same fp32 ``.onnx``.

    python -m benchmarks.onnx_static [--repeats 200] [--program PT2] [--json FILE]

Both are calibrated on the same inputs of examples/efficientnet_lite0.py and run with one thread and
the session options of ``verify`` and the native runner; the two and fp32 take turns, so that a
change of the machine's load meets all of them. Milliseconds depend on this machine and on what else
runs on it: only the ratio of one run says something.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from compress.capture import load_program
from compress.quantize import Quantize
from compress.recipe import apply
from compress.task import Task, load_task
from deploy.errors import EXIT_INTERRUPTED, PocketshipError
from deploy.export import EXPORTERS
from deploy.export.options import OnnxTarget
from deploy.files import write_text
from deploy.types import Format

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
WARM_UP = 10
Feed = dict[str, NDArray[Any]]


@dataclass
class Result:
    """Samples in milliseconds by name, and what ONNX Runtime made of each model on this machine."""

    onnxruntime_version: str
    samples_ms: dict[str, list[float]] = field(default_factory=dict)
    kernels: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def medians_ms(self) -> dict[str, float]:
        """The median of each model's samples."""
        return {name: statistics.median(samples) for name, samples in self.samples_ms.items()}

    @property
    def ratio(self) -> float:
        """Median of ours / onnxruntime within each turn: above 1, ours is slower."""
        turns = zip(self.samples_ms["ours"], self.samples_ms["onnxruntime"], strict=True)
        return statistics.median(ours / theirs for ours, theirs in turns)


class _Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]  # has no types
    """Feeds one model input after another to ONNX Runtime's calibration."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def quantize_statically(fp32: Path, destination: Path, feeds: Sequence[Feed]) -> None:
    """ONNX Runtime's own static quantization: QDQ, uint8 activations, int8 weights per channel.

    With its recommended preprocessing; everything else is as ``quantize_static`` has it.
    """
    prepared = destination.with_suffix(".prepared.onnx")
    quant_pre_process(fp32, prepared)
    quantization.quantize_static(
        prepared,
        destination,
        _Calibration(feeds),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
    )


def session(path: Path, optimized: Path | None = None) -> Any:
    """As ``verify`` and the native runner open a model: one thread, exact u8 x s8 products."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    if optimized is not None:
        options.log_severity_level = 4  # it warns that such a file is for this machine only
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def interleaved(models: dict[str, Path], inputs: Sequence[NDArray[Any]], repeats: int) -> Result:
    """Time every model ``repeats`` times in turn, each beginning a turn as often as the others."""
    result = Result(onnxruntime.__version__)
    sessions = {}
    for name, path in models.items():
        with tempfile.TemporaryDirectory(prefix="pocketship-bench-") as scratch:
            optimized = Path(scratch) / "optimized.onnx"
            sessions[name] = session(path, optimized)
            nodes = onnx.load(optimized, load_external_data=False).graph.node
        result.kernels[name] = dict(Counter(node.op_type for node in nodes).most_common())
        result.samples_ms[name] = []
    feeds = {
        name: dict(zip((i.name for i in s.get_inputs()), inputs, strict=True))
        for name, s in sessions.items()
    }
    order = list(sessions)
    for turn in range(-WARM_UP, repeats):
        order = [*order[1:], order[0]]
        for name in order:
            start = time.perf_counter()
            sessions[name].run(None, feeds[name])
            if turn >= 0:
                result.samples_ms[name].append((time.perf_counter() - start) * 1000)
    return result


def compare(task: Task, folder: Path, *, repeats: int = 200, program: Any = None) -> Result:
    """Export, quantize both ways into ``folder``, and time fp32, ours and ONNX Runtime's.

    ``program`` is the task's model already quantized by ``compress``, to save that time.
    """
    export = EXPORTERS[Format.ONNX]
    target = OnnxTarget(format=Format.ONNX, ort=False)
    made = apply(task, [Quantize()] if program is None else [])
    (fp32,) = export(made.baseline, target, folder, "fp32")
    (ours,) = export(made.program if program is None else program, target, folder, "int8")
    names = [value.name for value in onnx.load(fp32.path).graph.input]
    feeds = [
        {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        for inputs in task.calibration or ()
    ]
    static = folder / "static.onnx"
    quantize_statically(fp32.path, static, feeds)
    models = {"fp32": fp32.path, "ours": ours.path, "onnxruntime": static}
    inputs = [np.ascontiguousarray(tensor.numpy()) for tensor in task.example_inputs]
    return interleaved(models, inputs, repeats)


def main() -> int:
    """Print the medians and the ratio; exit code 0, or that of what failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--program", type=Path, help="the quantized program, to save quantizing")
    parser.add_argument("--json", type=Path, help="write samples and kernels here")
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1")
    try:
        program = load_program(arguments.program) if arguments.program else None
        with tempfile.TemporaryDirectory(prefix="pocketship-bench-") as folder:
            task = load_task("efficientnet_lite0:task", {"crops_per_image": 1}, [EXAMPLES])
            result = compare(task, Path(folder), repeats=arguments.repeats, program=program)
    except PocketshipError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    for name, median in result.medians_ms.items():
        lowest = min(result.samples_ms[name])
        print(f"{name:12} {median:8.2f} ms median {lowest:8.2f} ms lowest {result.kernels[name]}")
    print(f"ours / onnxruntime: {result.ratio:.3f} (median of {arguments.repeats} turns)")
    if arguments.json:
        summary = {"medians_ms": result.medians_ms, "ratio": result.ratio}
        write_text(arguments.json, json.dumps({**summary, **asdict(result)}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
