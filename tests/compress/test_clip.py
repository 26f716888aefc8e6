"""Clipping against numpy, and what it must leave alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress import constraints
from compress.clip import ClipWeights, clip_weights, limit_of
from compress.cluster import Cluster, cluster
from compress.errors import CompressError
from compress.pruning.weights import weights_of
from compress.recipe import State
from compress.sparsify import Prune, prune
from tests.compress.networks import classes_task


def clipped(config: ClipWeights, *, keep: float | None = None) -> nn.Module:
    task = classes_task()
    state = State(task, copy.deepcopy(task.model), None)
    if keep is not None:
        state = prune(state, Prune(keep=keep))
    return clip_weights(state, config).float_model()


def values(model: nn.Module) -> dict[str, Tensor]:
    return {weight.full_name: weight.value for weight in weights_of(model)}


@pytest.mark.parametrize("per_channel", [False, True])
def test_percentile_and_deviations(per_channel: bool) -> None:
    for name, before in values(classes_task().model).items():
        weight = before.double().numpy()
        axis = 1 if per_channel else None
        wanted = np.percentile(np.abs(weight), 80, axis=axis, keepdims=True)
        config = ClipWeights(percentile=80, per_channel=per_channel)
        np.testing.assert_allclose(
            values(clipped(config))[name], np.clip(weight, -wanted, wanted), rtol=1e-6
        )
        wanted = 1.2 * weight.std(axis=axis, keepdims=True)
        config = ClipWeights(method="std", deviations=1.2, per_channel=per_channel)
        np.testing.assert_allclose(
            values(clipped(config))[name], np.clip(weight, -wanted, wanted), rtol=1e-6
        )


def test_least_squared_error_of_a_quantizer() -> None:
    """A normal sample with one far outlier: no limit among many gives a smaller error."""
    generator = torch.Generator().manual_seed(0)
    values = torch.cat([torch.randn(4000, generator=generator), torch.tensor([40.0])]).double()

    def error(limit: float, bits: int) -> float:
        scale = limit / (2 ** (bits - 1) - 1)
        quantized = (values / scale).round().clamp(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1)
        return float((quantized * scale - values).square().sum())

    for bits in (3, 4, 8):
        limit = limit_of(values, ClipWeights(method="mse", bits=bits))
        grid = [error(float(at), bits) for at in np.linspace(0.2, 40, 400)]
        assert error(limit, bits) <= min(grid) * 1.02
    assert limit_of(values, ClipWeights(method="mse", bits=3)) < 39


def test_masks_hold_and_zeros_do_not_count() -> None:
    before = values(prune(State(classes_task(), classes_task().model, None), Prune(keep=0.3)).model)
    after = clipped(ClipWeights(percentile=50), keep=0.3)
    for name, value in values(after).items():
        alive = before[name][before[name] != 0].abs().numpy()
        assert torch.equal(value != 0, before[name] != 0)
        assert float(value.abs().max()) == pytest.approx(np.percentile(alive, 50))
    assert set(constraints.masks(after)) == set(before)


def test_shared_values_are_refused() -> None:
    task = classes_task()
    state = cluster(State(task, copy.deepcopy(task.model), None), Cluster(bits=2))
    with pytest.raises(CompressError, match=r"1\.weight: .*Put clip_weights before"):
        clip_weights(state, ClipWeights())
