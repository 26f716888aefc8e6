"""Factors: what they stand for, how near they are, and how many are worth keeping."""

from __future__ import annotations

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorly.decomposition import partial_tucker
from torch import Tensor

from compress.low_rank import decompose, factors, ranks

shapes = st.tuples(st.integers(1, 7), st.integers(1, 7))


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=40, deadline=None)
@given(shape=shapes, seed=st.integers(0, 1000), data=st.data())
def test_the_error_of_an_svd_is_what_was_left_out(
    shape: tuple[int, int], seed: int, data: st.DataObject
) -> None:
    matrix = randn(*shape, seed=seed)
    rank = data.draw(st.integers(1, min(shape)))
    left, right = decompose.svd(matrix, rank)
    assert (left.shape, right.shape) == ((shape[0], rank), (rank, shape[1]))
    values = numpy.linalg.svd(matrix.numpy(), compute_uv=False)
    error = float(torch.linalg.vector_norm(matrix - left @ right))
    assert error == pytest.approx(float(numpy.sqrt((values[rank:] ** 2).sum())), abs=1e-9)
    # Both factors carry the same range.
    assert torch.allclose(left.norm(dim=0), right.norm(dim=1), atol=1e-9)


def test_tucker_is_as_near_as_tensorly_and_within_its_bounds() -> None:
    weight = randn(9, 7, 3, 3)
    found = decompose.tucker2(weight, (5, 4))
    assert [tuple(t.shape) for t in (found.out, found.core, found.into)] == [
        (9, 5), (5, 4, 3, 3), (7, 4),
    ]  # fmt: skip
    error = decompose.relative_error(weight, found.weight())
    (core, (out, into)), _ = partial_tucker(weight.numpy(), rank=[5, 4], modes=[0, 1], tol=1e-10)
    theirs = torch.einsum("ab...,oa,ib->oi...", *map(torch.from_numpy, (core, out, into)))
    assert error == pytest.approx(decompose.relative_error(weight, theirs), rel=1e-3)
    # Not nearer than either unfolding allows, not farther than both together.
    left_out = [
        float(decompose.singular_values(decompose.unfold(weight, mode))[rank:].square().sum())
        for mode, rank in ((0, 5), (1, 4))
    ]
    squared = (error * float(weight.norm())) ** 2
    assert max(left_out) - 1e-9 <= squared <= sum(left_out) + 1e-9


@pytest.mark.parametrize("kernel", [(3, 3), (3,), (2, 3, 2)])
def test_full_ranks_give_the_weight(kernel: tuple[int, ...]) -> None:
    weight = randn(4, 3, *kernel)
    for method, full in (("tucker", (4, 3)), ("tucker", (4, 2)), ("svd", (4,))):
        product = factors.product(factors.tensors(weight, method, full), method)
        near = decompose.relative_error(weight, product)
        assert near < 1e-12 if full[-1] != 2 else 0.1 < near < 1


def test_cp_finds_a_weight_that_has_few_components() -> None:
    parts = [randn(axis, 2, seed=axis) for axis in (6, 5, 3, 4)]
    weight = decompose.cp_weight(parts)
    assert torch.allclose(
        weight[1, 2, 0, 3], sum(parts[0][1] * parts[1][2] * parts[2][0] * parts[3][3])
    )
    found = decompose.cp(weight, 2, seed=3)
    assert decompose.relative_error(weight, decompose.cp_weight(found)) < 1e-3
    norms = torch.stack([factor.norm(dim=0) for factor in found])
    assert torch.allclose(norms, norms[:1].expand_as(norms))
    again = decompose.cp(weight, 2, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    product = factors.product(factors.tensors(weight, "cp", (2,), seed=3), "cp")
    assert torch.allclose(product, decompose.cp_weight(found))


def test_components_of_the_outputs_serve_the_data_better_than_those_of_the_weight() -> None:
    weight = randn(12, 20)
    inputs = randn(500, 20, seed=1) * torch.logspace(0, -3, 20, dtype=torch.float64)
    outputs = inputs @ weight.T
    moment = outputs.T @ outputs / len(outputs)

    def lost(pair: tuple[Tensor, Tensor]) -> float:
        return float((outputs - inputs @ (pair[0] @ pair[1]).T).square().sum())

    aware = decompose.output_svd(weight, moment, 4)
    assert lost(aware) < 0.5 * lost(decompose.svd(weight, 4))
    # The best that any four directions of the outputs can do (Eckart-Young on the outputs).
    best = float(decompose.singular_values(outputs)[4:].square().sum())
    assert best <= lost(aware) <= 1.05 * best
    full = decompose.output_svd(weight, moment, 12)
    assert torch.allclose(full[0] @ full[1], weight)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=8), st.floats(0.05, 1.0))
def test_energy_is_met_by_the_fewest(values: list[float], share: float) -> None:
    fallen = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    rank = ranks.by_energy(fallen, share)
    energy = fallen.square()
    total = float(energy.sum())
    assert float(energy[:rank].sum()) >= share * total * (1 - 1e-9)
    assert rank == 1 or float(energy[: rank - 1].sum()) < share * total
    assert ranks.by_energy(torch.zeros(3), share) == 1


@pytest.mark.parametrize(("rows", "columns"), [(60, 60), (40, 120), (200, 30)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_variational_bayes_tells_signal_from_noise(rows: int, columns: int, scale: float) -> None:
    noise = randn(rows, columns, seed=1)
    signal = randn(rows, 5, seed=2) @ randn(5, columns, seed=3)
    for matrix, rank in ((noise, 1), (noise + signal, 5)):
        values = decompose.singular_values(scale * matrix)
        assert ranks.by_vbmf(values, (rows, columns)) == rank
    exact = decompose.singular_values(scale * signal)
    assert ranks.by_vbmf(exact, (rows, columns)) == 5
    assert ranks.by_vbmf(torch.zeros(rows), (rows, columns)) == 1


def test_rounding() -> None:
    assert [ranks.rounded(r, 8, 30) for r in (1, 8, 9, 25, 30)] == [8, 8, 16, 30, 30]
