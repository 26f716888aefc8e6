"""ExportedProgram -> ``.onnx`` and ``.ort``.

``torch.onnx.export(dynamo=True)`` makes the model, ONNX Runtime's own converter the ORT format.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deploy.errors import ExportError, first_line
from deploy.export.onnx_integers import for_onnx, pack_int4
from deploy.export.onnx_rewrite import make_unsigned, rewrite
from deploy.export.options import OnnxTarget, Written
from deploy.files import write_bytes
from deploy.types import Format, Placement

_CONVERT_TIMEOUT_S = 600
_REASON = "ONNX Runtime's CPU provider runs every operator itself; nothing is delegated"


def export(program: Any, options: OnnxTarget, folder: Path, stem: str) -> tuple[Written, ...]:
    """Write ``<stem>.onnx`` and, if asked for, ``<stem>.ort``."""
    import torch

    try:
        given = for_onnx(program)
        exported = torch.onnx.export(
            given.program, dynamo=True, verbose=False, opset_version=given.opset
        )
        if exported is None:
            raise ExportError("torch.onnx.export returned nothing", where=stem)
        model = exported.model_proto
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(
            f"torch.onnx.export refuses the program: {type(error).__name__}: {first_line(error)}",
            where=stem,
            hint="An operator may have no ONNX translation; see torch.onnx's operator list.",
        ) from error
    strip_provenance(model)
    unshare_weights(model)
    rewrite(model)
    signed = deepcopy(model)
    pack_int4(signed, only_fused=True)
    pack_int4(model)
    if options.activations == "uint8":
        make_unsigned(model)
    path = folder / f"{stem}.onnx"
    write_bytes(path, model.SerializeToString(deterministic=True))
    tools = {name: version(name) for name in ("torch", "onnx", "onnxscript", "torchao")}
    written = [Written(Format.ONNX, path, _placement(model, given.notes), tools)]
    if options.ort:
        runtime = {**tools, "onnxruntime": version("onnxruntime")}
        ort = _ort_of_signed(signed, folder, stem)
        written.append(Written(Format.ORT, ort, _placement(model, given.notes), runtime))
    return tuple(written)


def _ort_of_signed(model: Any, folder: Path, stem: str) -> Path:
    """The ``.ort`` always has signed activations.

    Its kernels are chosen when it is made, for ARM, where int8 takes fewer instructions; and on x86
    without VNNI nothing could keep its uint8 x int8 products from saturating any more. Weights of 4
    bits take a byte each in it where ONNX Runtime has no operator of its own for them.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{stem}.") as scratch:
        source = Path(scratch) / f"{stem}.onnx"
        source.write_bytes(model.SerializeToString(deterministic=True))
        return to_ort(source, folder / f"{stem}.ort")


def strip_provenance(model: Any) -> None:
    """Remove names of source files, stack traces and class names, in place.

    They carry paths of the exporting machine into the app and make equal models differ in bytes.
    """
    del model.metadata_props[:]
    model.doc_string = ""
    for graph in _graphs(model):
        for part in (graph, *graph.node, *graph.initializer, *graph.value_info):
            _strip(part)
        for value in (*graph.input, *graph.output):
            _strip(value)
    for function in model.functions:
        _strip(function)
        for node in function.node:
            _strip(node)


def _graphs(model: Any) -> Iterator[Any]:
    """The model's graph and those inside its control flow operators."""
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        yield graph
        for node in graph.node:
            graphs += [a.g for a in node.attribute if a.HasField("g")]
            graphs += [g for a in node.attribute for g in a.graphs]


def unshare_weights(model: Any) -> None:
    """Give each layer its own DequantizeLinear of its weight, and that its own tensors, in place.

    The exporter lets equal ones be shared: scales, zero points, and all of a weight that several
    layers use. ONNX Runtime's transformer that turns int8 weights into uint8 on x86
    (``session.x64quantprecision``) then fails with "Attempt to replace the existing tensor". The
    integers and scales stay the same; a weight of several layers is in the file once for each.
    """
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in list(model.graph.node):
        if node.op_type == "DequantizeLinear" and node.input[0] in initializers:
            _one_reader_each(model.graph, node)
    uses = Counter(name for node in model.graph.node for name in node.input)
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in initializers:
            continue
        for position, kind in enumerate(("weight", "scale", "zero_point")):
            if len(node.input) <= position or uses[node.input[position]] < 2:
                continue
            own = model.graph.initializer.add()
            own.CopyFrom(initializers[node.input[position]])
            own.name = f"{node.output[0]}.{kind}"
            uses[node.input[position]] -= 1
            node.input[position] = own.name
    # The body of an If or Loop reads tensors of the graph around it.
    read = {value.name for graph in _graphs(model) for value in graph.output}
    read |= {name for graph in _graphs(model) for node in graph.node for name in node.input}
    for name in initializers.keys() - read:
        model.graph.initializer.remove(initializers[name])


def _one_reader_each(graph: Any, shared: Any) -> None:
    """Copy the node ``shared`` in front of each operator but the first that reads its output."""
    output = shared.output[0]
    readers = [node for node in graph.node if output in node.input]
    for number, reader in enumerate(readers[1:], start=1):
        own = type(shared)()
        own.CopyFrom(shared)
        own.name, own.output[0] = f"{shared.name}.{number}", f"{output}.{number}"
        for position, name in enumerate(reader.input):
            if name == output:
                reader.input[position] = own.output[0]
        graph.node.insert(0, own)  # it reads weights only, so it can stand first


def _strip(part: Any) -> None:
    del part.metadata_props[:]
    part.doc_string = ""


def to_ort(source: Path, destination: Path) -> Path:
    """Convert ``.onnx`` to the ORT format for ARM with ONNX Runtime's own tool.

    It runs as a process of its own, because it takes folders, writes beside its input and prints.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    # Beside the result: what kill -9 leaves there is swept by the next pocketship in that folder.
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{source.stem}.") as scratch:
        model = Path(scratch) / source.name
        model.write_bytes(source.read_bytes())
        command = [sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort"]
        command += ["--optimization_style", "Fixed", "--target_platform", "arm", scratch]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_CONVERT_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ExportError(
                f"conversion to ORT format took longer than {_CONVERT_TIMEOUT_S} s",
                where=source.name,
            ) from error
        result = model.with_suffix(".ort")
        if done.returncode != 0 or not result.is_file():
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            raise ExportError(
                f"ONNX Runtime cannot convert to ORT format: {lines[-1] if lines else 'no word'}",
                where=source.name,
            )
        write_bytes(destination, result.read_bytes())
    return destination


def _placement(model: Any, notes: Iterable[str]) -> Placement:
    operators = Counter(node.op_type for node in model.graph.node)
    return Placement(
        backend="onnxruntime-cpu",
        total=sum(operators.values()),
        reason="; ".join((_REASON, *notes)),
    )
