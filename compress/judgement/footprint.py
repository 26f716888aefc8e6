"""What a program weighs: parameters, work, and bytes on the way to, on and in a phone."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from compress.capture import Weight, count_parameters, weight_bytes, weights
from compress.judgement.activations import peak_activation_bytes
from compress.judgement.macs import count_macs
from compress.ledger import Footprint


def footprint(program: ExportedProgram) -> Footprint:
    """Count a program's parameters, MACs and bytes; see :class:`Footprint` for each."""
    stored = weights(program)
    macs = count_macs(program)
    disk = weight_bytes(program)
    activations = peak_activation_bytes(program)
    packed, reason = packed_bytes({weight.name: weight.tensor for weight in stored})
    return Footprint(
        parameters=count_parameters(program),
        nonzeros=sum(count_nonzeros(weight, program) for weight in stored if not weight.is_qparam),
        macs=macs.total,
        macs_unknown=macs.unknown,
        packed_bytes=packed,
        packed_reason=reason,
        deflated_bytes=deflated_bytes(weight.tensor for weight in stored),
        disk_bytes=disk,
        ram_bytes=None if activations is None else disk + activations,
    )


def packed_bytes(tensors: Mapping[str, Tensor]) -> tuple[int | None, str]:
    """Bytes of the packed container, or None with the reason."""
    try:
        container = importlib.import_module("compress.entropy")
    except ModuleNotFoundError as error:
        if error.name != "compress.entropy":
            raise
        return None, "this pocketship has no packed container"
    return int(container.packed_size(tensors)), ""


def deflated_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of all tensors' content, one after another, as one zlib stream (level 6)."""
    deflate = zlib.compressobj(6)
    size = 0
    for tensor in tensors:
        if tensor.numel():
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            size += len(deflate.compress(flat.view(torch.uint8).numpy().data))
    return size + len(deflate.flush())


def count_nonzeros(weight: Weight, program: ExportedProgram) -> int:
    """Elements whose real value is not zero: of an integer weight those off its zero point."""
    tensor = weight.tensor.detach()
    if not (tensor.is_floating_point() or tensor.is_complex()):
        zero = _zero_points(weight, program)
        if zero is not None:
            return int((tensor.to(torch.int64) != zero).sum())
    return int(torch.count_nonzero(tensor))


def _zero_points(weight: Weight, program: ExportedProgram) -> Tensor | None:
    """The integer that means 0, in a shape that broadcasts; None where nothing dequantizes it."""
    for user in weight.node.users:
        schema = getattr(user.target, "_schema", None)
        base = "" if schema is None else str(schema.name).partition("::")[2]
        if schema is None or not base.startswith("dequantize") or user.args[0] is not weight.node:
            continue
        names = [argument.name for argument in schema.arguments]
        given = {**dict(zip(names, user.args, strict=False)), **user.kwargs}
        zero = _constant(given.get("zero_point", given.get("zero_points")), program)
        if zero is None:
            return None
        shape = weight.tensor.shape
        if isinstance(block := given.get("block_size"), list | tuple):
            return _spread(zero, [int(size) for size in block], shape)
        if zero.numel() == 1:
            return zero.reshape(())
        axis = int(given["axis"])
        return zero.reshape([-1 if axis % len(shape) == d else 1 for d in range(len(shape))])
    return None


def _constant(value: object, program: ExportedProgram) -> Tensor | None:
    if isinstance(value, fx.Node):
        signature = program.graph_signature
        name = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }.get(value.name)
        value = {**program.state_dict, **program.constants}.get(name or "")
    if isinstance(value, int | float):
        return torch.tensor(int(value))
    return value.detach().to(torch.int64) if isinstance(value, Tensor) else None


def _spread(zero: Tensor, block: list[int], shape: torch.Size) -> Tensor | None:
    """Zero points of blocks of size ``block``, one for each element."""
    grid = [size // width for size, width in zip(shape, block, strict=True)]
    if zero.numel() == 1:
        return zero.reshape(())
    if zero.numel() != torch.Size(grid).numel():
        return None
    zero = zero.reshape(grid)
    for axis, width in enumerate(block):
        zero = zero.repeat_interleave(width, dim=axis)
    return zero
