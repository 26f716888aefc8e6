"""Constraints hold in training, copies do not disturb each other, ties stay one parameter."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress import constraints
from compress.constraints import Binary, Masked, SharedValues
from compress.pruning.weights import weights_of


class Tied(nn.Module):
    """Embedding and head share one parameter; an attention layer between them."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        return self.head(self.attention(x, x, x, need_weights=False)[0])


def tied() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Tied().eval(), torch.randint(0, 11, (2, 5))


def shared(weight: Tensor, values: int, **options: object) -> SharedValues:
    generator = torch.Generator().manual_seed(1)
    indices = torch.randint(0, values + 1, weight.shape, generator=generator)
    return SharedValues(indices, values, **options)


def test_a_copy_and_its_original_do_not_share_what_is_taken_from_one() -> None:
    """torch lets a deep copy of a parametrized module have the same class as the module."""
    model = nn.Sequential(nn.Linear(3, 2))
    constraints.apply_mask(model[0], "weight", torch.tensor([[1, 0, 1], [0, 1, 1]]))
    twin, third = copy.deepcopy(model), copy.deepcopy(model)
    constraints.materialize(twin)
    constraints.apply_mask(third[0], "bias", torch.tensor([True, False]))
    x = torch.randn(4, 3)
    assert torch.equal(model(x), twin(x))
    assert bool(model[0].bias.all())
    assert torch.equal(third[0].bias != 0, torch.tensor([True, False]))


def test_the_model_that_was_exported_by_the_recipe_goes_on() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    constraints.apply_mask(model[0], "weight", torch.ones(2, 3))
    constraints.materialize(copy.deepcopy(model))
    assert list(constraints.masks(model)) == ["0.weight"]
    assert not torch.isnan(model(torch.zeros(1, 3))).any()


@pytest.mark.parametrize("kind", ["masked", "shared", "binary"])
def test_a_tie_stays_one_parameter(kind: str) -> None:
    model, tokens = tied()
    (weight,) = [w for w in weights_of(model) if w.full_name == "table.weight"]
    assert len(weight.holders) == 2
    value = weight.value
    constraint = {
        "masked": lambda: Masked(value > 0),
        "shared": lambda: shared(value, 3),
        "binary": Binary,
    }[kind]()
    constraints.constrain(weight.holders, constraint)
    assert model.table.weight.equal(model.head.weight)
    other = copy.deepcopy(model)
    for one in (model, other):
        optimizer = torch.optim.Adam(one.parameters(), lr=0.1)
        one(tokens).square().sum().backward()
        optimizer.step()
        assert one.table.weight.equal(one.head.weight)
        before = one(tokens)
        constraints.materialize(one)
        assert one.table.weight is one.head.weight
        assert one.head.weight.shape == value.shape
        assert torch.equal(one(tokens), before)
        assert all(p.grad is None or p.grad.shape == p.shape for p in one.parameters())


def test_mask_zeros_takes_a_tie_up_again_as_one() -> None:
    model, _ = tied()
    (weight, *_) = weights_of(model)
    constraints.apply_mask(model.table, "weight", weight.value > 0, (model.head, "weight"))
    names = list(constraints.masks(model))
    assert names == ["table.weight", "head.weight"]
    constraints.materialize(model)
    constraints.mask_zeros(model, names)
    lists = [m.parametrizations["weight"] for m in (model.table, model.head)]
    assert lists[0].original is lists[1].original
    assert lists[0][0] is lists[1][0]
    assert [len(found) for found in lists] == [1, 1]


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    values=st.integers(1, 300),
    axis=st.integers(0, 1),
    grouped=st.booleans(),
)
def test_shared_values_are_a_table_look_up(
    shape: list[int], values: int, axis: int, grouped: bool
) -> None:
    channels = shape[axis]
    groups = channels if grouped else 1
    generator = torch.Generator().manual_seed(values)
    indices = torch.randint(0, values + 1, shape, generator=generator)
    codebook = torch.randn(groups, values, generator=generator, requires_grad=True)
    constraint = SharedValues(indices, values, groups=groups, axis=axis)
    weight = constraint(codebook)
    upstream = torch.randn(shape, generator=generator)
    weight.backward(upstream)
    gradient = torch.zeros(groups, values)
    for place in torch.cartesian_prod(*(torch.arange(size) for size in shape)):
        at = tuple(place.tolist())
        index, group = int(indices[at]), (at[axis] if grouped else 0)
        expected = 0.0 if index == 0 else float(codebook.detach()[group, index - 1])
        assert float(weight.detach()[at]) == expected
        if index:
            gradient[group, index - 1] += upstream[at]
    torch.testing.assert_close(codebook.grad, gradient, rtol=1e-4, atol=1e-5)
    # What is used of a codebook comes back from the weight, exactly.
    again = constraint(constraint.right_inverse(weight))
    assert torch.equal(again, weight)


def test_half_values_are_rounded_and_still_learn() -> None:
    weight = torch.randn(4, 3)
    constraint = shared(weight, 5, half=True)
    codebook = torch.randn(1, 5, requires_grad=True)
    value = constraint(codebook)
    assert torch.equal(value.half().float(), value)
    value.sum().backward()
    counts = torch.bincount(constraint.indices.reshape(-1).long(), minlength=6)[1:]
    assert torch.equal(codebook.grad[0], counts.float())


def test_binary_weight_and_its_gradient() -> None:
    """Against the formulas, with one pruned weight and one beyond the clip of the estimator."""
    original = torch.tensor([[0.5, -0.25, 0.0], [2.0, -0.1, 0.9]], requires_grad=True)
    weight = Binary()(original)
    scales = [0.375, 1.0]
    expected = torch.tensor([[scales[0], -scales[0], 0.0], [scales[1], -scales[1], scales[1]]])
    torch.testing.assert_close(weight, expected)
    upstream = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    weight.backward(upstream)
    sign = original.detach().sign()
    through_scale = sign * (upstream * sign).sum(1, keepdim=True) / torch.tensor([[2.0], [3.0]])
    passes = (original.detach().abs() <= 1).float() * torch.tensor(scales)[:, None]
    torch.testing.assert_close(original.grad, through_scale + upstream * passes)


def test_masks_stack_on_shared_values() -> None:
    linear = nn.Linear(4, 3)
    constraint = shared(linear.weight, 2)
    constraints.constrain([(linear, "weight")], constraint)
    narrow = torch.rand(3, 4) < 0.5
    constraints.apply_mask(linear, "weight", narrow)
    model = nn.Sequential(linear)
    assert torch.equal(constraints.masks(model)["0.weight"], narrow & constraint.mask)
    kept = linear.weight.detach()
    assert torch.equal(kept != 0, narrow & constraint.mask)
