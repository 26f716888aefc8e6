"""Constraints on weights that hold while they are trained, as torch parametrizations.

A pruning mask or a codebook is part of the model: whatever trains it afterwards (fine-tuning,
distillation) keeps it without knowing of it, copies carry it, and ``state_dict`` holds it. Before a
model is exported, or its structure changes, :func:`materialize` writes the constrained values back
as plain weights; zeros stay exact zeros, so that :func:`mask_zeros` can take the mask up again.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Masked(nn.Module):
    """weight = original * mask. ``mask``: bool, the weight's shape; False is pruned."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask.detach().clone().to(torch.bool))

    def forward(self, original: Tensor) -> Tensor:
        """The weight with exact zeros; their gradient is zero too."""
        # Not a product: 0 * -1 is -0.0 and 0 * inf is NaN.
        return torch.where(self.mask, original, original.new_zeros(()))


def apply_mask(module: nn.Module, name: str, mask: Tensor) -> None:
    """Constrain the parameter ``name`` of ``module``; a mask that is there gets narrower."""
    for constraint in constraints_of(module, name):
        if isinstance(constraint, Masked):
            constraint.mask &= mask.to(torch.bool)
            return
    parametrize.register_parametrization(module, name, Masked(mask))


def constraints_of(module: nn.Module, name: str) -> list[nn.Module]:
    """The parametrizations on a parameter, in the order that they are applied."""
    if not parametrize.is_parametrized(module, name):
        return []
    lists = module.parametrizations
    assert isinstance(lists, nn.ModuleDict)
    return list(lists[name].children())


def masks(model: nn.Module) -> dict[str, Tensor]:
    """Dotted parameter name -> mask, of all parameters that have one."""
    found = {}
    for prefix, module in model.named_modules():
        for name in _parametrized(module):
            for constraint in constraints_of(module, name):
                if isinstance(constraint, Masked):
                    found[f"{prefix}.{name}".lstrip(".")] = constraint.mask
    return found


def materialize(model: nn.Module) -> nn.Module:
    """Write constrained values back as plain parameters, in place; returns the model."""
    for module in list(model.modules()):
        for name in _parametrized(module):
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return model


def mask_zeros(model: nn.Module, names: Iterable[str]) -> None:
    """Mask what is zero now in the named parameters, so that later training keeps it zero."""
    for full in names:
        owner, _, name = full.rpartition(".")
        module = model.get_submodule(owner)
        weight = getattr(module, name)
        apply_mask(module, name, weight.detach() != 0)


def _parametrized(module: nn.Module) -> list[str]:
    if not parametrize.is_parametrized(module):
        return []
    lists = module.parametrizations
    assert isinstance(lists, nn.ModuleDict)
    return list(lists)
