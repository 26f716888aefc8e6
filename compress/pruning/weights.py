"""The weights that a step works on: one entry a parameter, however many modules hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

from compress import constraints
from compress.layers import WEIGHTED, select

TYPES = (*WEIGHTED, nn.MultiheadAttention)
"""Layers whose weights may be pruned or shared; biases and norms never are."""

_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

Override = TypeVar("Override")


@dataclass(frozen=True)
class Weight:
    """A parameter of at least one selected layer.

    ``layer``: dotted name of the first layer that holds it; ``name``: of the parameter in it.
    ``holders``: all places, that one first. ``out_axis``, ``in_axis``: of output and input
    channels (of embeddings: entries and features).
    """

    layer: str
    name: str
    holders: tuple[constraints.Holder, ...]
    out_axis: int
    in_axis: int

    @property
    def full_name(self) -> str:
        """Dotted name of the parameter in a model without constraints."""
        return f"{self.layer}.{self.name}".lstrip(".")

    @property
    def module(self) -> nn.Module:
        """The first layer that holds it."""
        return self.holders[0][0]

    @property
    def value(self) -> Tensor:
        """The weight as the layer computes with it, detached."""
        value = getattr(self.module, self.name)
        assert isinstance(value, Tensor)
        return value.detach()

    @property
    def original(self) -> nn.Parameter:
        """The parameter that is trained."""
        return constraints.original_of(self.module, self.name)

    @property
    def constrained_by(self) -> list[nn.Module]:
        """What already holds of it."""
        return constraints.constraints_of(self.module, self.name)

    def take_mask(self) -> constraints.Masked:
        """Its pruning mask; where there was none, one that keeps all is put on it."""
        for constraint in self.constrained_by:
            if isinstance(constraint, constraints.Masked):
                return constraint
        mask = constraints.Masked(self.value.new_ones(self.value.shape).bool())
        constraints.constrain(self.holders, mask)
        return mask


def weights_of(
    model: nn.Module, layers: Sequence[str] = ("*",), exclude: Sequence[str] = ()
) -> list[Weight]:
    """Weights of the selected layers in the model's order.

    A parameter that several layers hold is one entry; it is left out where any of them is excluded.
    The attention projections of ``nn.MultiheadAttention`` are entries of their own. Raises
    ``CompressError`` for a pattern that matches no layer.
    """
    selected = select(model, layers, exclude, TYPES)
    excluded = select(model, exclude, (), TYPES) if exclude else {}
    barred = {id(original) for module in excluded.values() for _, original in _parameters(module)}
    places = constraints.holders_of(model)
    found: dict[int, Weight] = {}
    for layer, module in selected.items():
        for name, original in _parameters(module):
            if id(original) in found or id(original) in barred:
                continue
            own = (module, name)
            others = [holder for holder in places[id(original)] if holder != own]
            out, into = (1, 0) if isinstance(module, _TRANSPOSED) else (0, 1)
            found[id(original)] = Weight(layer, name, (own, *others), out, into)
    return list(found.values())


def overridden(
    model: nn.Module, weights: Sequence[Weight], overrides: Mapping[str, Override]
) -> dict[str, Override]:
    """Full name of a weight -> the override of the first pattern that matches its layer."""
    found: dict[str, Override] = {}
    for pattern, override in overrides.items():
        matched = set(select(model, (pattern,), (), TYPES))
        for weight in weights:
            if weight.layer in matched:
                found.setdefault(weight.full_name, override)
    return found


def _parameters(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """Names and originals of a layer's weights."""
    names = _ATTENTION if isinstance(module, nn.MultiheadAttention) else ("weight",)
    return [
        (name, constraints.original_of(module, name))
        for name in names
        if getattr(module, name, None) is not None
    ]
