"""From a module to the program that is exported, saved and judged."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram

from compress.errors import CompressError, ConfigError, first_line
from compress.quality import Forward, flat_outputs
from compress.task import Inputs


def capture(
    model: nn.Module,
    example_inputs: Inputs,
    *,
    name: str = "model",
    dynamic_batch: bool = False,
) -> ExportedProgram:
    """``torch.export`` of a module (already in eval mode) with static shapes.

    With ``dynamic_batch`` axis 0 of every input is one dimension of any size: what is trained is
    run with other batches than what is exported.

    Inputs are traced contiguous: a permuted example would put its memory order into the program,
    and Core ML refuses such a program.

    Raises ``CompressError`` with torch's own reason where the model cannot be traced.
    """
    try:
        with torch.no_grad():
            contiguous = tuple(tensor.contiguous() for tensor in example_inputs)
            if not dynamic_batch:
                return torch.export.export(model, contiguous, strict=False)
            # Sizes 0 and 1 are special to torch.export: it would fix a batch of one.
            batches = tuple(torch.cat([tensor, tensor]) for tensor in contiguous)
            batch = torch.export.Dim("batch")
            shapes = tuple({0: batch} for _ in batches)
            return torch.export.export(model, batches, dynamic_shapes=shapes)
    except Exception as error:
        raise CompressError(
            f"torch.export refuses the model: {type(error).__name__}: {first_line(error)}",
            where=name,
            hint="Data-dependent control flow must be rewritten (torch.where, torch.cond); "
            "torch.export.export(model, inputs) alone shows the place.",
        ) from error


def forward_of(program: ExportedProgram) -> Forward:
    """A callable that runs the program on a tuple of tensors and returns a flat tuple."""
    module = program.module(check_guards=False)

    def forward(inputs: Inputs) -> tuple[torch.Tensor, ...]:
        return flat_outputs(module(*inputs))

    return forward


def load_program(path: Path) -> ExportedProgram:
    """Read a saved ``.pt2``; ``ConfigError`` where the file is missing, cut off or of another kind.

    ``torch.export.load`` reads weights without executing pickled code (``weights_only``).
    """
    if not path.is_file():
        raise ConfigError("no such file", where=str(path))
    # A quantized program names operators that exist only once this module is imported.
    import torch.ao.quantization.fx._decomposed

    if _names_torchao(path):
        import torchao.quantization.quant_primitives  # noqa: F401
    try:
        return torch.export.load(path)
    except Exception as error:
        raise ConfigError(
            f"is not a program that this torch can load: {first_line(error)}",
            where=str(path),
            hint="Save it again with torch.export.save.",
        ) from error


def _names_torchao(path: Path) -> bool:
    """Whether an operator of torchao is in the file; importing that takes seconds."""
    try:
        with zipfile.ZipFile(path) as archive:
            graphs = [name for name in archive.namelist() if name.endswith(".json")]
            return any(b"torch.ops.torchao." in archive.read(name) for name in graphs)
    except (OSError, zipfile.BadZipFile, zlib.error):
        return False  # Loading says what is wrong with it.


def count_parameters(program: ExportedProgram) -> int:
    """Elements of all weights (batch-norm statistics too), without scales and zero points."""
    return sum(stored.tensor.numel() for stored in weights(program) if not stored.is_qparam)


def weight_bytes(program: ExportedProgram) -> int:
    """Bytes of all weights as the program holds them, quantization scales and zero points too."""
    return sum(s.tensor.numel() * s.tensor.element_size() for s in weights(program))


def drop_unused(graph: torch.fx.GraphModule) -> None:
    """Delete parameters and buffers that no node reads: conversion leaves the float weights."""
    for node in list(graph.graph.nodes):
        if node.op == "get_attr" and not node.users:
            graph.graph.erase_node(node)
    read = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    names = [name for name, _ in (*graph.named_parameters(), *graph.named_buffers())]
    for name in set(names) - read:
        owner, _, attribute = name.rpartition(".")
        delattr(graph.get_submodule(owner), attribute)
    graph.recompile()


@dataclass(frozen=True)
class Weight:
    """A tensor that a program stores, and the node that stands for it.

    ``is_qparam``: it is only a scale or a zero point of others.
    """

    name: str
    tensor: torch.Tensor
    node: torch.fx.Node
    is_qparam: bool


def weights(program: ExportedProgram) -> list[Weight]:
    """Each tensor that an operator reads, once, in the order of the graph; scalars are left out."""
    signature = program.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    values = {**program.state_dict, **program.constants}
    found: dict[tuple[int, torch.Size, torch.dtype], Weight] = {}
    for node in program.graph.nodes:
        if node.op != "placeholder" or node.name not in names or not node.users:
            continue
        tensor = values[names[node.name]]
        if tensor.ndim == 0:
            continue
        is_qparam = all(
            "quantize" in str(user.target) and user.args[0] is not node for user in node.users
        )
        # Empty tensors have no address of their own.
        key = (tensor.data_ptr(), tensor.shape, tensor.dtype)
        found.setdefault(key, Weight(names[node.name], tensor, node, is_qparam))
    return list(found.values())
