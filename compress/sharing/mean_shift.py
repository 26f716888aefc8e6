"""Biases that take up the shift of each layer's mean output: empirical bias correction.

Nagel et al., *Data-Free Quantization Through Weight Equalization and Bias Correction*
(arXiv 1906.04721), section 4.2 and appendix D: layers are corrected in the order in which they run,
each on what the corrected ones before it give. Here in one pass over all inputs at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.quality import flat_outputs
from compress.samples import Inputs, Sample, batch

_CORRECTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def correct_biases(model: nn.Module, reference: nn.Module, inputs: Sequence[Inputs]) -> int:
    """Change ``model`` in place; returns how many biases were corrected.

    ``reference`` is the same model with its weights as they were. A layer without a bias, or that
    does not run exactly once, is left alone: its shift goes on to the layers behind it. Inputs are
    joined along axis 0.
    """
    joined = batch([Sample(one) for one in inputs], torch.arange(len(inputs))).inputs
    wanted: dict[str, list[Tensor]] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            wanted.setdefault(name, []).append(_mean(output, name, reference))

        return hook

    _run(reference, joined, record)
    names = {name for name, means in wanted.items() if len(means) == 1}

    def correct(name: str) -> Callable[..., Tensor | None]:
        def hook(layer: Any, _: object, output: Tensor) -> Tensor | None:
            if name not in names:
                return None
            shift = wanted[name][0] - _mean(output, name, model)
            layer.bias.add_(shift)
            shape = [1] * output.ndim
            shape[_axis(layer, output)] = -1
            return output + shift.view(shape)

        return hook

    _run(model, joined, correct)
    return len(names)


def _axis(layer: nn.Module, output: Tensor) -> int:
    """Of the output's channels."""
    return output.ndim - 1 if isinstance(layer, nn.Linear) else 1


def _mean(output: Tensor, name: str, model: nn.Module) -> Tensor:
    """[channels]"""
    axis = _axis(model.get_submodule(name), output)
    return output.movedim(axis, 0).flatten(1).mean(1)


def _run(model: nn.Module, inputs: Inputs, hook_of: Callable[[str], Any]) -> None:
    shared: dict[int, int] = {}
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _CORRECTED) and module.bias is not None
    }
    for layer in layers.values():
        shared[id(layer.bias)] = shared.get(id(layer.bias), 0) + 1
    handles = [
        layer.register_forward_hook(hook_of(name))
        for name, layer in layers.items()
        if shared[id(layer.bias)] == 1
    ]
    try:
        with torch.no_grad():
            flat_outputs(model(*inputs))
    finally:
        for handle in handles:
            handle.remove()
