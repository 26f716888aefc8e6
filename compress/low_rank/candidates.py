"""Which layers of a network can be replaced by factors, at which ranks, and the replacement."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compress import constraints, samples
from compress.errors import CompressError
from compress.low_rank import decompose, factors, ranks
from compress.low_rank.factors import Layer, Method, Ranks
from compress.quality import flat_outputs
from compress.task import Inputs

TYPES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers that can become factors."""


class Rank(BaseModel):
    """One rule for the rank of a layer; exactly one key is given.

    ``energy``: share of the squared singular values that is kept. ``fraction``: share of the full
    rank (of ``cp``: of the rank at which nothing is won). ``fixed``: a number, or [output channels,
    input channels] of a Tucker core. ``vbmf``: as many as are told apart from noise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    energy: float | None = Field(default=None, gt=0, le=1)
    fraction: float | None = Field(default=None, gt=0, le=1)
    fixed: int | tuple[int, int] | None = None
    vbmf: Literal[True] | None = None

    @model_validator(mode="after")
    def _one(self) -> Rank:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("needs exactly one of energy, fraction, fixed, vbmf")
        if self.fixed is not None and min(torch.tensor(self.fixed).reshape(-1).tolist()) < 1:
            raise ValueError("a rank is at least 1")
        return self


@dataclass
class Moments:
    """Sums over a layer's outputs without bias, on calibration data: count, y, y yᵀ."""

    count: int
    total: Tensor
    products: Tensor

    def mean(self) -> Tensor:
        """[out]."""
        return self.total / self.count

    def fingerprint(self) -> str:
        """Hex SHA-256."""
        digest = hashlib.sha256(str(self.count).encode())
        for tensor in (self.total, self.products):
            samples.update(digest, tensor)
        return digest.hexdigest()

    def second(self, *, centred: bool) -> Tensor:
        """Mean of y yᵀ, of y less its mean if ``centred``; [out, out]."""
        moment = self.products / self.count
        return moment - torch.outer(self.mean(), self.mean()) if centred else moment


@dataclass
class Candidate:
    """A layer that can be replaced.

    Args:
        inputs: shapes of its inputs, one a call in a forward pass.
        moments: of its outputs where the data are to decide (``svd`` only).
    """

    name: str
    layer: Layer
    method: Method
    inputs: list[tuple[int, ...]]
    moments: Moments | None = None
    _cache: dict[Ranks, list[Tensor]] = field(default_factory=dict, init=False, repr=False)

    def macs(self, chosen: Ranks | None = None) -> int:
        """Multiply-accumulates of all calls, as it is or with factors of these ranks."""
        module = self.layer if chosen is None else factors.shell(self.layer, self.method, chosen)
        return sum(factors.macs(module, shape) for shape in self.inputs)

    def pays(self, chosen: Ranks) -> bool:
        """Whether factors of these ranks need fewer multiply-accumulates."""
        return self.macs(chosen) < self.macs()

    def full(self) -> Ranks:
        """Ranks that change nothing."""
        return factors.full_ranks(self.layer, self.method)

    def weight(self) -> Tensor:
        """The weight with its constraints."""
        return self.layer.weight.detach()

    def spectra(self) -> list[tuple[Tensor, tuple[int, int]]]:
        """Singular values and shape of the matrix that each rank cuts.

        Where the data decide, they are the standard deviations of the outputs' components.
        """
        if self.method == "svd" and self.moments is not None:
            second = self.moments.second(centred=self.layer.bias is not None)
            values = torch.linalg.eigvalsh(second).flip(0).clamp_min(0).sqrt()[: self.full()[0]]
            return [(values, (len(second), len(second)))]
        modes = (0, 1) if self.method == "tucker" else (0,)
        unfolded = [decompose.unfold(self.weight(), mode) for mode in modes]
        return [(decompose.singular_values(m), (m.shape[0], m.shape[1])) for m in unfolded]

    def weights(self, chosen: Ranks, seed: int) -> list[Tensor]:
        """The factors' weights."""
        if chosen not in self._cache:
            if self.method == "svd" and self.moments is not None:
                left, right = decompose.output_svd(
                    decompose.unfold(self.weight(), 0),
                    self.moments.second(centred=self.layer.bias is not None),
                    chosen[0],
                )
                self._cache[chosen] = factors.as_kernels(left, right, self.weight().shape)
            else:
                self._cache[chosen] = factors.tensors(self.weight(), self.method, chosen, seed=seed)
        return self._cache[chosen]

    def replacement(self, chosen: Ranks, seed: int = 0) -> nn.Sequential:
        """The modules that stand for the layer."""
        weights = self.weights(chosen, seed)
        bias = None if self.layer.bias is None else self.layer.bias.detach()
        if bias is not None and self.moments is not None and self.method == "svd":
            # What the kept components lose of the mean output is a constant: the bias takes it.
            basis = torch.nn.functional.normalize(weights[1].flatten(1), dim=0)
            mean = self.moments.mean()
            bias = bias + mean - basis @ (basis.T @ mean)
        modules = factors.shell(self.layer, self.method, chosen)
        factors.fill(modules, weights, self.layer, bias)
        return modules


def find(
    model: nn.Module, chosen: Mapping[str, nn.Module], convolution: Method, example: Inputs
) -> tuple[list[Candidate], dict[str, str]]:
    """Layers that can be replaced, and why each other one of ``chosen`` cannot."""
    owners = Counter(
        id(parameter)
        for module in model.modules()
        for parameter in module.parameters(recurse=False)
    )
    shapes = _input_shapes(model, chosen, example)
    found, left = [], {}
    for name, module in chosen.items():
        reason = _hindrance(module, owners, shapes[name])
        if reason:
            left[name] = reason
            continue
        assert isinstance(module, TYPES)
        flat = isinstance(module, nn.Linear) or math.prod(module.kernel_size) == 1
        found.append(Candidate(name, module, "svd" if flat else convolution, shapes[name]))
    return found, left


def _hindrance(module: nn.Module, owners: Counter[int], shapes: Sequence[tuple[int, ...]]) -> str:
    kind = parametrize.type_before_parametrizations(module)
    if kind not in TYPES:
        return f"its type {kind.__name__} is a special one"
    if getattr(module, "groups", 1) > 1:
        return "grouped"
    if module._forward_pre_hooks or module._forward_hooks:
        return "it has forward hooks"
    if any(owners[id(parameter)] > 1 for parameter in module.parameters()):
        return "it shares a weight with another layer"
    if not shapes:
        return "the model does not call it as a layer"
    return ""


def _input_shapes(
    model: nn.Module, chosen: Mapping[str, nn.Module], example: Inputs
) -> dict[str, list[tuple[int, ...]]]:
    shapes: dict[str, list[tuple[int, ...]]] = {name: [] for name in chosen}
    handles = []
    for name, module in chosen.items():
        seen = shapes[name]

        def hook(
            _: nn.Module,
            inputs: tuple[Tensor, ...],
            named: dict[str, Any],
            seen: list[tuple[int, ...]] = seen,
        ) -> None:
            seen.append(tuple((inputs[0] if inputs else named["input"]).shape))

        handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        with torch.no_grad():
            model(*example)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def observe(model: nn.Module, found: Iterable[Candidate], seen: Sequence[Inputs]) -> None:
    """Give the SVD candidates the moments of their outputs on calibration inputs."""
    handles = []
    for candidate in found:
        if candidate.method != "svd":
            continue
        out = candidate.weight().shape[0]
        moments = Moments(0, torch.zeros(out).double(), torch.zeros(out, out).double())
        candidate.moments = moments

        def hook(layer: nn.Module, _: object, output: Tensor, moments: Moments = moments) -> None:
            rows = output if isinstance(layer, nn.Linear) else output.movedim(1, -1)
            rows = rows.reshape(-1, rows.shape[-1])
            bias = layer.bias
            rows = (rows if not isinstance(bias, Tensor) else rows - bias).double()
            moments.count += len(rows)
            moments.total += rows.sum(0)
            moments.products += rows.T @ rows

        handles.append(candidate.layer.register_forward_hook(hook))
    try:
        with torch.no_grad():
            for inputs in seen:
                flat_outputs(model(*inputs))
    finally:
        for handle in handles:
            handle.remove()


def ranks_by(rule: Rank, candidate: Candidate, round_to: int, seed: int) -> Ranks:
    """What a rule says for a layer; rounded up to a multiple but for a ``fixed`` rank."""
    full = candidate.full()
    if rule.fixed is not None:
        wanted = (rule.fixed,) if isinstance(rule.fixed, int) else rule.fixed
        if len(wanted) == 1 and len(full) == 2:
            wanted = (*wanted, *wanted)
        if len(wanted) != len(full):
            raise CompressError(
                f"{list(wanted)} is no rank of a layer with one", where=candidate.name
            )
        return tuple(min(rank, most) for rank, most in zip(wanted, full, strict=True))
    if candidate.method == "cp":
        chosen = _cp_ranks(rule, candidate, seed)
    elif rule.energy is not None:
        chosen = tuple(ranks.by_energy(values, rule.energy) for values, _ in candidate.spectra())
    elif rule.fraction is not None:
        chosen = tuple(max(1, round(rule.fraction * most)) for most in full)
    else:
        # Noise is judged on the weight itself: the data have a spectrum of their own.
        plain = replace(candidate, moments=None)
        chosen = tuple(ranks.by_vbmf(values, shape) for values, shape in plain.spectra())
    return tuple(ranks.rounded(r, round_to, most) for r, most in zip(chosen, full, strict=True))


def replace_layer(model: nn.Module, layer: nn.Module, by: nn.Module) -> nn.Module:
    """Put ``by`` at every place that holds ``layer``; returns the model (``by`` if it was all)."""
    if layer is model:
        return by
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is layer:
                setattr(parent, name, by)
    return model


def masked(candidate: Candidate) -> bool:
    """Whether a constraint of an earlier step (mask, codebook) lies on the layer's weight."""
    return bool(constraints.constraints_of(candidate.layer, "weight"))


def break_even(candidate: Candidate) -> int:
    """The largest CP rank that needs fewer multiply-accumulates; 0 where none does."""
    low, high = 0, candidate.full()[0] + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if candidate.pays((middle,)) else (low, middle)
    return low


def _cp_ranks(rule: Rank, candidate: Candidate, seed: int) -> Ranks:
    most = break_even(candidate)
    if rule.vbmf:
        raise CompressError(
            "vbmf has no meaning for a CP rank",
            where=candidate.name,
            hint="Use energy, fraction, fixed or max_metric_drop, or convolution: tucker.",
        )
    if rule.fraction is not None or most == 0:
        return (max(1, round((rule.fraction or 1) * most)),)
    assert rule.energy is not None
    # One above what pays, if that is not enough: the caller then leaves the layer alone.
    low, high = 0, most + 1
    # The error falls with the rank but for the luck of the fit; what is chosen was fitted.
    while high - low > 1:
        middle = (low + high) // 2
        fitted = candidate.weights((middle,), seed)
        error = decompose.relative_error(candidate.weight(), factors.product(fitted, "cp"))
        low, high = (low, middle) if 1 - error**2 >= rule.energy else (middle, high)
    return (high,)
