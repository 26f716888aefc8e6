"""The integers inside our int8 ``.onnx`` against those of the ``.pte`` of the same program.

    python -m benchmarks.onnx_integers [--program PT2] [--tensors 8] [--inputs 4] [--json FILE]

Quantized tensors, evenly spread over the depth of examples/efficientnet_lite0.py's network, are
made outputs of both files: of the ``.pte`` by exporting a program that also returns them, of the
``.onnx`` as it is shipped by naming them as outputs of its graph. Each runtime then computes them
from the image on. XNNPACK and ONNX Runtime are also held to the torch program, which computes in
float between two quantizations: so it shows whose integers move.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from benchmarks.onnx_static import EXAMPLES, session
from compress.capture import capture, load_program
from compress.errors import CompressError
from compress.quality import flat_outputs
from compress.quantize import Quantize
from compress.recipe import apply
from compress.task import Inputs, load_task
from deploy.errors import EXIT_INTERRUPTED, PocketshipError
from deploy.export import EXPORTERS
from deploy.export.options import ExecuTorchTarget, OnnxTarget
from deploy.files import write_text
from deploy.types import Format
from deploy.verify.parity import executorch

Integers = NDArray[np.int64]
_QUANTIZE = "quantized_decomposed.quantize_per_tensor.default"  # registered by torchao only


@dataclass(frozen=True)
class Difference:
    """How far two files' integers of one tensor are apart, over all inputs, in steps."""

    tensor: str
    pair: str
    count: int
    equal_share: float
    within_one_share: float
    largest: int

    @classmethod
    def of(cls, tensor: str, pair: str, a: Integers, b: Integers) -> Difference:
        """Compare integers of the same shape."""
        steps = np.abs(a - b)
        return cls(
            tensor,
            pair,
            steps.size,
            float((steps == 0).mean()),
            float((steps <= 1).mean()),
            int(steps.max()),
        )


@dataclass(frozen=True)
class Tap:
    """A quantized tensor of the program: its name there, and its scale and zero point."""

    name: str
    scale: float
    zero: int

    def integers(self, values: torch.Tensor) -> Integers:
        """The integers that dequantize to ``values``; exact for what the scale was applied to."""
        steps = (values.double() / self.scale).round().long() + self.zero
        found: Integers = steps.numpy()
        return found


def taps(program: ExportedProgram) -> list[Tap]:
    """All activations that the program quantizes for each tensor with int8, in order.

    Without those that were padded: the ``.onnx`` has them without their border of zeros.
    """
    quantizers = [node for node in program.graph.nodes if str(node.target) == _QUANTIZE]
    return [
        Tap(node.name, float(node.args[1]), int(node.args[2]))
        for node in quantizers
        if node.args[5] is torch.int8 and not _padded(node.args[0])
    ]


def _padded(node: Node) -> bool:
    """Whether a pad made the values, perhaps with a quantization behind it."""
    while "quantize_per_tensor" in str(node.target):
        node = node.args[0]  # type: ignore[assignment]
    return "pad" in str(node.target)


def with_outputs(program: ExportedProgram, names: Sequence[str], inputs: Inputs) -> ExportedProgram:
    """A program that returns the dequantized values of these tensors, and then its own outputs."""
    module = program.module(check_guards=False)
    assert isinstance(module, GraphModule)
    module = copy.deepcopy(module)
    found = {node.name: node for node in module.graph.nodes}
    (end,) = (node for node in module.graph.nodes if node.op == "output")
    shown: list[Node] = []
    for name in names:
        (reader, *_) = (user for user in found[name].users if "dequantize" in str(user.target))
        with module.graph.inserting_before(end):
            shown.append(module.graph.node_copy(reader))
    own = end.args[0] if isinstance(end.args[0], tuple | list) else (end.args[0],)
    end.args = ((*shown, *own),)
    module.graph.set_codegen(torch.fx.graph.CodeGen())
    module.recompile()
    return capture(module, inputs, name="the program with more outputs")


def onnx_taps(model: Any, wanted: Sequence[Tap]) -> dict[str, str]:
    """Program's name -> name in the ``.onnx`` of each tensor that the exporter kept.

    A tensor is the same if it has the same name (the exporter takes the program's), scale and,
    but for the shift of 128 to unsigned, zero point.
    """
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    quantizers = {n.output[0]: n for n in model.graph.node if n.op_type == "QuantizeLinear"}
    same: dict[str, str] = {}
    for tap in wanted:
        node = quantizers.get(tap.name)
        if node is None or node.input[1] not in constants:
            continue
        zero = constants[node.input[2]]
        shift = 128 if zero.dtype == np.uint8 else 0
        if (
            np.float32(tap.scale) == constants[node.input[1]]
            and int(zero.reshape(())) == tap.zero + shift
        ):
            same[tap.name] = node.output[0]
    return same


def compare(
    program: ExportedProgram, inputs: Sequence[Inputs], folder: Path, count: int
) -> list[Difference]:
    """Export both ways into ``folder``, run ``inputs``, compare ``count`` tensors' integers."""
    target = OnnxTarget(format=Format.ONNX, ort=False)
    (shipped,) = EXPORTERS[Format.ONNX](program, target, folder, "int8")
    model = onnx.load(shipped.path)
    every = taps(program)
    kept = onnx_taps(model, every)
    usable = [tap for tap in every if tap.name in kept]
    if not usable:
        raise CompressError("the .onnx has no quantized tensor under the program's name")
    places = np.unique(np.linspace(0, len(usable) - 1, min(count, len(usable))).round())
    chosen = [usable[int(place)] for place in places]
    tapped = with_outputs(program, [tap.name for tap in chosen], inputs[0])
    (pte,) = EXPORTERS[Format.EXECUTORCH](
        tapped, ExecuTorchTarget(format=Format.EXECUTORCH), folder, "tapped"
    )
    for tap in chosen:
        model.graph.output.append(onnx.ValueInfoProto(name=kept[tap.name]))
    path = folder / "tapped.onnx"
    onnx.save(model, path)
    opened, forward = session(path), executorch(pte.path)
    feeds = [value.name for value in opened.get_inputs()]
    ours = [kept[tap.name] for tap in chosen]
    made: dict[str, list[list[Integers]]] = {"pte": [], "onnx": [], "program": []}
    reference = tapped.module(check_guards=False)
    for one in inputs:
        arrays = (np.ascontiguousarray(tensor.numpy()) for tensor in one)
        answers = opened.run(ours, dict(zip(feeds, arrays, strict=True)))
        made["onnx"].append(
            [a.astype(np.int64) - (128 if a.dtype == np.uint8 else 0) for a in answers]
        )
        with torch.no_grad():
            exact = flat_outputs(reference(*one))
        for name, values in (("pte", forward(one)), ("program", exact)):
            made[name].append(
                [tap.integers(value) for tap, value in zip(chosen, values, strict=False)]
            )
    found = []
    for left, right in (("onnx", "pte"), ("pte", "program"), ("onnx", "program")):
        for place, tap in enumerate(chosen):
            a, b = (np.stack([row[place] for row in made[side]]) for side in (left, right))
            found.append(Difference.of(tap.name, f"{left}/{right}", a, b))
    return found


def main() -> int:
    """Print shares and largest differences; exit code 0, or that of what failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--program", type=Path, help="the quantized program, to save quantizing")
    parser.add_argument("--tensors", type=int, default=8)
    parser.add_argument("--inputs", type=int, default=4, help="evaluation crops, one a photograph")
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    if arguments.tensors < 1 or arguments.inputs < 1:
        parser.error("--tensors and --inputs must be at least 1")
    try:
        task = load_task("efficientnet_lite0:task", {"crops_per_image": 1}, [EXAMPLES])
        if arguments.program:
            program = load_program(arguments.program)
        else:
            program = apply(task, [Quantize()]).program
        inputs = [sample.inputs for sample in task.evaluation[: arguments.inputs]]
        with tempfile.TemporaryDirectory(prefix="pocketship-bench-") as folder:
            found = compare(program, inputs, Path(folder), arguments.tensors)
    except PocketshipError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    for row in found:
        print(
            f"{row.pair:13} {row.tensor:26} {row.count:9} integers, {row.equal_share:8.3%} equal, "
            f"{row.within_one_share:8.3%} within one step, largest {row.largest}"
        )
    if arguments.json:
        write_text(arguments.json, json.dumps([asdict(row) for row in found], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
