"""Constraints on weights that hold while they are trained, as torch parametrizations.

A pruning mask or a codebook is part of the model: whatever trains it afterwards (fine-tuning,
distillation) keeps it without knowing of it, copies carry it, and ``state_dict`` holds it. Before a
model is exported, or its structure changes, :func:`materialize` writes the constrained values back
as plain weights; zeros stay exact zeros, so that :func:`mask_zeros` can take the mask up again.

A parameter that several modules hold (a *tie*) gets one constraint for all of them and stays one
parameter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Holder = tuple[nn.Module, str]
"""A module and the name under which it holds a parameter."""


class Masked(nn.Module):
    """weight = original * mask. ``mask``: bool, the weight's shape; False is pruned.

    While ``regrows`` is set, the gradient passes to pruned weights as well, so that they can grow
    until a new mask lets them in again (Guo et al., *Dynamic Network Surgery*, arXiv 1608.04493).
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask.detach().clone().to(torch.bool))
        self.regrows = False

    def forward(self, original: Tensor) -> Tensor:
        """The weight with exact zeros; their gradient is zero too, unless it ``regrows``."""
        # Not a product: 0 * -1 is -0.0 and 0 * inf is NaN.
        masked = torch.where(self.mask, original, original.new_zeros(()))
        if self.regrows:
            return straight_through(original, masked)
        return masked

    def right_inverse(self, weight: Tensor) -> Tensor:
        """What has to be stored so that the weight is this one."""
        return weight


class _StraightThrough(torch.autograd.Function):
    """The second argument forwards, its gradient to the first."""

    @staticmethod
    def forward(_: object, original: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(_: object, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def straight_through(original: Tensor, value: Tensor) -> Tensor:
    """``value``, whose gradient goes to ``original`` unchanged."""
    result = _StraightThrough.apply(original, value.detach())  # type: ignore[no-untyped-call]
    assert isinstance(result, Tensor)
    return result


class SharedValues(nn.Module):
    """weight = codebook[indices]: weights that share a few values (arXiv 1510.00149).

    The parameter is the codebook, ``[groups, values]``; its gradient is the sum over the weights
    that use a value. ``indices`` has the weight's shape and counts from 1; 0 is a weight that is
    zero and stays so. Groups are equal slices of the weight along ``axis``. With ``half`` every
    value is rounded to what float16 can hold, and the gradient passes the rounding unchanged.
    """

    indices: Tensor

    def __init__(
        self, indices: Tensor, values: int, *, groups: int = 1, axis: int = 0, half: bool = False
    ) -> None:
        super().__init__()
        kind = torch.uint8 if values < 256 else torch.int32
        self.register_buffer("indices", indices.detach().to(kind).contiguous())
        self.values, self.groups, self.axis, self.half_values = values, groups, axis, half

    @property
    def mask(self) -> Tensor:
        """False where the weight is pruned."""
        return self.indices != 0

    def forward(self, codebook: Tensor) -> Tensor:
        """The weight that the codebook gives."""
        if self.half_values:
            codebook = straight_through(codebook, rounded_to_half(codebook))
        table = torch.cat([codebook.new_zeros(self.groups, 1), codebook], dim=1).reshape(-1)
        # index_select and not indexing: the sums of its backward are made in a fixed order.
        return table.index_select(0, self._slots()).view(self.indices.shape)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The codebook that is nearest to ``weight`` under these indices: means of each cluster."""
        slots, size = self._slots(), self.groups * (self.values + 1)
        flat = weight.detach().double().reshape(-1)
        sums = torch.zeros(size, dtype=torch.float64).index_add_(0, slots, flat)
        counts = torch.bincount(slots, minlength=size).clamp(min=1)
        means = (sums / counts).view(self.groups, self.values + 1)[:, 1:]
        return means.to(weight.dtype).contiguous()

    def _slots(self) -> Tensor:
        """Place of each weight's value in the table of all groups, flat."""
        slots = self.indices.long()
        if self.groups > 1:
            channels = slots.shape[self.axis]
            group = torch.arange(channels) // (channels // self.groups)
            shape = [1] * slots.ndim
            shape[self.axis] = channels
            slots = slots + (group * (self.values + 1)).view(shape)
        return slots.reshape(-1)


def rounded_to_half(values: Tensor) -> Tensor:
    """The nearest values that float16 holds, in the dtype of ``values``."""
    return values.half().to(values.dtype)


class Binary(nn.Module):
    """weight = scale * sign(original), as XNOR-Net does (Rastegari et al., arXiv 1603.05279).

    The scale of an output channel (slice along ``axis``) is the mean of |original| over its
    weights that are not zero; zeros stay zero. The gradient passes the sign unchanged where
    |original| <= 1 and is zero elsewhere (that paper's straight-through estimator); through the
    scale it is exact.
    """

    def __init__(self, axis: int = 0) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, original: Tensor) -> Tensor:
        """The weight: two values, and zero where ``original`` is zero, in each channel."""
        others = [a for a in range(original.ndim) if a != self.axis]
        alive = (original != 0).sum(others, keepdim=True).clamp(min=1)
        scale = original.abs().sum(others, keepdim=True) / alive
        passing = original.clamp(-1, 1)
        return scale * straight_through(passing, original.sign())

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The weight itself: signs and means of what was binarized are its own."""
        return weight


def constrain(holders: Sequence[Holder], constraint: nn.Module) -> None:
    """Put ``constraint`` on one parameter, behind those that it has.

    ``holders`` are all modules that hold it (see :func:`holders_of`); it stays one parameter.
    """
    (first, name), *others = holders
    fresh = [
        (module, attribute)
        for module, attribute in others
        if not parametrize.is_parametrized(module, attribute)
    ]
    # Registering replaces the parameter's content in place, once for each holder: the others get
    # a copy of their own for that moment.
    for module, attribute in fresh:
        value = getattr(module, attribute)
        setattr(module, attribute, nn.Parameter(value.detach().clone(), value.requires_grad))
    for module, attribute in holders:
        _own_class(module)
        parametrize.register_parametrization(module, attribute, constraint)
    for module, attribute in fresh:
        _list(module, attribute).original = _list(first, name).original


def apply_mask(module: nn.Module, name: str, mask: Tensor, *others: Holder) -> None:
    """Constrain the parameter ``name`` of ``module``; a mask that is there gets narrower.

    ``others``: further modules that hold the same parameter.
    """
    for constraint in constraints_of(module, name):
        if isinstance(constraint, Masked):
            constraint.mask &= mask.to(torch.bool)
            return
    constrain([(module, name), *others], Masked(mask))


def constraints_of(module: nn.Module, name: str) -> list[nn.Module]:
    """The parametrizations on a parameter, in the order that they are applied."""
    if not parametrize.is_parametrized(module, name):
        return []
    return list(_list(module, name).children())


def original_of(module: nn.Module, name: str) -> nn.Parameter:
    """The parameter that is trained: the weight itself, or what its constraints are applied to."""
    held = _list(module, name).original if parametrize.is_parametrized(module, name) else None
    parameter = getattr(module, name) if held is None else held
    assert isinstance(parameter, nn.Parameter)
    return parameter


def holders_of(model: nn.Module) -> dict[int, list[Holder]]:
    """``id`` of each parameter (see :func:`original_of`) -> all places that hold it, in order."""
    found: dict[int, list[Holder]] = {}
    for module in model.modules():
        if isinstance(module, parametrize.ParametrizationList):
            continue
        own = [name for name, value in module._parameters.items() if value is not None]
        for name in (*_parametrized(module), *own):
            found.setdefault(id(original_of(module, name)), []).append((module, name))
    return found


def masks(model: nn.Module) -> dict[str, Tensor]:
    """Dotted parameter name -> mask, of all parameters that must keep zeros.

    Of several masks on one parameter this is what all of them leave.
    """
    found: dict[str, Tensor] = {}
    for prefix, module in model.named_modules():
        for name in _parametrized(module):
            for constraint in constraints_of(module, name):
                full = f"{prefix}.{name}".lstrip(".")
                if isinstance(constraint, Masked | SharedValues):
                    mask = constraint.mask & found.get(full, constraint.mask)
                    if isinstance(constraint, Masked) or not bool(mask.all()):
                        found[full] = mask
    return found


def materialize(model: nn.Module) -> nn.Module:
    """Write constrained values back as plain parameters, in place; returns the model."""
    for places in holders_of(model).values():
        release(places)
    return model


def release(holders: Sequence[Holder]) -> None:
    """:func:`materialize` one parameter, in all places that hold it."""
    constrained = [(m, name) for m, name in holders if parametrize.is_parametrized(m, name)]
    if not constrained:
        return
    with torch.no_grad():
        value = getattr(*constrained[0]).detach().clone()
        for module, name in constrained:
            _own_class(module)
            # The values were computed before: what is stored may be of another shape.
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
        parameter = getattr(*constrained[0])
        parameter.set_(value)
        parameter.grad = None  # of the shape that was stored


def mask_zeros(model: nn.Module, names: Iterable[str]) -> None:
    """Mask what is zero now in the named parameters, so that later training keeps it zero."""
    places = holders_of(model)
    for full in names:
        owner, _, name = full.rpartition(".")
        module = model.get_submodule(owner)
        others = [h for h in places.get(id(original_of(module, name)), ()) if h != (module, name)]
        apply_mask(module, name, getattr(module, name).detach() != 0, *others)


def _own_class(module: nn.Module) -> None:
    """Give a parametrized module a class that no copy of it shares.

    torch makes a class for each parametrized module, and ``deepcopy`` lets the copy have the same
    one: what is then taken from, or put on, the one would break the other.
    """
    if parametrize.is_parametrized(module):
        own = type(module)
        content = {k: v for k, v in vars(own).items() if k not in ("__dict__", "__weakref__")}
        module.__class__ = type(own.__name__, own.__bases__, content)


def _list(module: nn.Module, name: str) -> parametrize.ParametrizationList:
    lists = module.parametrizations
    assert isinstance(lists, nn.ModuleDict)
    found = lists[name]
    assert isinstance(found, parametrize.ParametrizationList)
    return found


def _parametrized(module: nn.Module) -> list[str]:
    if not parametrize.is_parametrized(module):
        return []
    lists = module.parametrizations
    assert isinstance(lists, nn.ModuleDict)
    return list(lists)
