"""Corrected biases leave no layer's mean output shifted, whatever was done to the weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from compress.cluster import Cluster, cluster
from compress.recipe import State
from compress.sharing.mean_shift import correct_biases
from tests.compress.networks import Small, images, seeded, task_of


def means(model: nn.Module, names: list[str], inputs: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _, __, out, name=name: found.__setitem__(
                name, out.transpose(0, 1).flatten(1).mean(1)
            )
        )
        for name in names
    ]
    with torch.no_grad():
        model(inputs)
    for handle in handles:
        handle.remove()
    return found


def test_means_are_those_of_the_reference() -> None:
    """Also of layers behind the first: each is corrected on what corrected ones give."""
    reference = seeded(Small)
    model = copy.deepcopy(reference)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in (model.stem, model.depthwise, model.point, model.head):
            noise = torch.randn(layer.weight.shape, generator=generator)
            layer.weight += 0.3 * layer.weight.std() * noise
    inputs = images(6, 4)
    joined = torch.cat([x for (x,) in inputs])
    names = ["depthwise", "point", "head"]  # the stem has no bias
    wanted, shifted = means(reference, names, joined), means(model, names, joined)
    weights = {name: value.clone() for name, value in model.named_parameters() if "weight" in name}
    assert correct_biases(model, reference, inputs) == 3
    got = means(model, names, joined)
    for name in names:
        assert (shifted[name] - wanted[name]).abs().max() > 1e-3
        torch.testing.assert_close(got[name], wanted[name], rtol=1e-4, atol=1e-5)
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in weights.items())


class Twice(nn.Module):
    """One layer runs twice, two others hold one bias."""

    def __init__(self) -> None:
        super().__init__()
        self.again, self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5)
        self.b.bias = self.a.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(self.again(self.again(x))))


def test_what_no_single_shift_describes_is_left_alone() -> None:
    reference = seeded(Twice)
    model = copy.deepcopy(reference)
    with torch.no_grad():
        model.again.weight += 0.1
    before = copy.deepcopy(model.state_dict())
    assert correct_biases(model, reference, images(3, 1, (1, 5))) == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_step_corrects() -> None:
    task = task_of(seeded(Small))
    model = copy.deepcopy(task.model)
    state = cluster(State(task, model, None), Cluster(bits=2, bias_correction=True))
    assert "3 biases corrected" in state.notes
    joined = torch.cat([x for (x,) in task.calibration])
    got, wanted = (means(m, ["head"], joined)["head"] for m in (state.float_model(), task.model))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
