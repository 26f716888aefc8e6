"""Layers become factors: the same outputs at full rank, fewer operations, the same names."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from compress import capture, constraints
from compress.errors import CompressError
from compress.factorize import Factorize, factorize
from compress.fine_tune import FineTuning
from compress.journal import Run
from compress.low_rank import candidates, factors, rank_search
from compress.low_rank.candidates import Rank
from compress.quantize import Quantize
from compress.recipe import State, apply
from compress.samples import TensorSamples
from compress.task import Sample, Task
from compress.training import Training, evaluate, fit
from tests.compress.networks import NO_TARGET, classes_task, images, seeded


def convolution(**options: Any) -> nn.Conv2d:
    torch.manual_seed(1)
    return nn.Conv2d(6, 8, options.pop("kernel_size", 3), **options).eval()


GEOMETRIES = [
    {},
    {"stride": 2, "padding": 1},
    {"padding": "same", "dilation": 2},
    {"padding": (2, 0), "stride": (1, 2), "kernel_size": (5, 2), "bias": False},
    {"padding": (1, 2), "padding_mode": "reflect", "dilation": (1, 2)},
    {"padding": 1, "padding_mode": "circular", "stride": (2, 1)},
    {"kernel_size": 1, "stride": 2, "padding": 1},
]


@pytest.mark.parametrize("options", GEOMETRIES, ids=str)
@pytest.mark.parametrize("method", ["tucker", "cp", "svd"])
def test_factors_of_every_geometry_are_the_layer(method: factors.Method, options: Any) -> None:
    layer = convolution(**options)
    x = torch.randn(2, 6, 11, 12, generator=torch.Generator().manual_seed(2))
    if method == "cp":
        # A kernel of few components, so that CP can be exact.
        weight = layer.weight.detach().double()
        few = factors.tensors(weight, "cp", (3,), seed=1)
        layer.weight = nn.Parameter(factors.product(few, "cp").float())
        picked: tuple[int, ...] = (3,)
    else:
        picked = factors.full_ranks(layer, method)
    candidate = candidates.Candidate("layer", layer, method, [tuple(x.shape)])
    by = candidate.replacement(picked, seed=1)
    assert torch.allclose(by(x), layer(x), atol=1e-5 if method != "cp" else 1e-3)
    for module, shape in ((layer, by), (by, by)):
        with FlopCounterMode(display=False) as counter:
            module(x)
        assert counter.get_total_flops() == 2 * factors.macs(module, x.shape), shape


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("method", ["tucker", "cp", "svd"])
def test_convolutions_of_one_and_three_axes(method: factors.Method, dims: int) -> None:
    torch.manual_seed(0)
    layer = {1: nn.Conv1d, 3: nn.Conv3d}[dims](5, 6, 3, padding=1, stride=2)
    x = torch.randn(2, 5, *[7] * dims)
    candidate = candidates.Candidate("layer", layer, method, [tuple(x.shape)])
    by = candidate.replacement((4, 3) if method == "tucker" else (4,))
    weight = factors.product([p for n, p in by.named_parameters() if "weight" in n], method)
    same = copy.deepcopy(layer)
    same.weight = nn.Parameter(weight.detach())
    assert torch.allclose(by(x), same(x), atol=1e-5)


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 5), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2, bias=False), nn.ReLU(),
        nn.Flatten(), nn.Linear(216, 40), nn.ReLU(), nn.Linear(40, 5),
    )  # fmt: skip


def image_task(model: nn.Module) -> Task:
    return Task(
        model=model,
        example_inputs=images(1, 1)[0],
        calibration=images(8, 2),
        evaluation=[Sample(inputs) for inputs in images(4, 3)],
        metric=NO_TARGET,
    )


def run_step(task: Task, config: Factorize, model: nn.Module | None = None) -> State:
    assert isinstance(task.model, nn.Module)
    own = copy.deepcopy(task.model if model is None else model)
    return factorize(State(task, own, None), config)


def model_of(state: State) -> nn.Module:
    assert state.model is not None
    return state.model


def flops(model: nn.Module, task: Task) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*task.example_inputs)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("how", ["tucker", "cp", "svd"])
def test_the_step_wins_what_it_says_and_its_result_can_be_exported(how: factors.Method) -> None:
    task = image_task(seeded(lenet))
    state = run_step(task, Factorize(convolution=how, rank=Rank(fraction=0.3)))
    model = model_of(state)
    assert [type(module) for module in (model[0], model[2], model[5])] == [nn.Sequential] * 3
    assert dict(model.named_modules())["5.0"].out_features == 12
    # The last layer: 12 of 40 components, as many operations as without.
    assert type(model[7]) is (nn.Sequential if 2 * (40 + 5) < 200 else nn.Linear)
    before, after = (
        int(number.replace(",", ""))
        for number in state.notes[0].split("factorized: ")[1].split(" MACs")[0].split(" -> ")
    )
    assert (flops(seeded(lenet), task), flops(model, task)) == (2 * before, 2 * after)
    assert after < before
    program = capture.capture(model, task.example_inputs)
    got = capture.forward_of(program)(task.example_inputs)[0]
    assert torch.allclose(got, model(*task.example_inputs), atol=1e-6)
    # Nobody has touched the task's own model.
    assert isinstance(task.model, nn.Sequential)
    assert type(task.model[0]) is nn.Conv2d


def test_what_is_left_alone_and_why() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = nn.Linear(30, 30)
            self.small = nn.Linear(30, 2)
            self.left = nn.Linear(30, 30, bias=False)
            self.right = nn.Linear(30, 30, bias=False)
            self.right.weight = self.left.weight
            self.twice = nn.Linear(30, 30)
            self.grouped = nn.Conv1d(4, 8, 3, padding=1, groups=2)
            self.by_weight = nn.Linear(30, 30)
            self.attention = nn.MultiheadAttention(30, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.right(self.left(self.wide(x)))
            x = self.twice(self.twice(x).relu())
            x = self.grouped(x.repeat(1, 4, 1)).mean(1, keepdim=True)
            x = nn.functional.linear(x, self.by_weight.weight)
            return self.small(x + self.attention(x, x, x)[0])

    model = seeded(Net)
    model.alias = model.twice
    x = torch.randn(1, 1, 30)
    task = replace(
        image_task(model), example_inputs=(x,), evaluation=[Sample((x,))], calibration=[]
    )
    state = run_step(task, Factorize(rank=Rank(fixed=10)))
    made = model_of(state)
    changed = {n for n, m in made.named_children() if type(m) is nn.Sequential}
    assert changed == {"wide", "twice"}
    # A module that is used twice stays one module.
    assert made.get_submodule("alias") is made.get_submodule("twice")
    assert made.left.weight is made.right.weight
    reasons = {
        name: note.split("(")[1].split(")")[0]
        for note in state.notes
        if note.startswith("left alone")
        for name in note.split(": ")[-1].split(", ")
    }
    assert reasons["left"] == reasons["right"] == "it shares a weight with another layer"
    assert reasons["grouped"] == "grouped"
    assert reasons["by_weight"] == "the model does not call it as a layer"
    assert reasons["small"] == "its operations would not become fewer"
    assert "special" in reasons["attention.out_proj"]
    with pytest.raises(CompressError, match=r"no layer can be factorized \('grouped': grouped\)"):
        run_step(task, Factorize(layers=("grouped",), rank=Rank(energy=0.5)))
    with pytest.raises(CompressError, match=r"no layer's name matches 'wiide'.*wide"):
        run_step(task, Factorize(layers=("wiide",), rank=Rank(energy=0.5)))
    with pytest.raises(CompressError, match="overrides: no layer's name matches 'nope'"):
        run_step(task, Factorize(rank=Rank(energy=0.5), overrides={"nope": Rank(fixed=2)}))


def test_ranks_by_each_rule() -> None:
    task = image_task(seeded(lenet))

    def shape(rank: Rank, name: str, **options: Any) -> list[tuple[int, ...]]:
        config = Factorize(layers=(name,), rank=rank, **options)
        made = model_of(run_step(task, config)).get_submodule(name)
        return [tuple(p.shape[:2]) for n, p in made.named_parameters() if "weight" in n]

    assert shape(Rank(fixed=7), "5") == [(7, 216), (40, 7)]
    assert shape(Rank(fraction=0.25), "5") == [(10, 216), (40, 10)]
    assert shape(Rank(fraction=0.25), "5", round_to=8) == [(16, 216), (40, 16)]
    assert shape(Rank(fixed=7), "5", round_to=8) == [(7, 216), (40, 7)]
    assert shape(Rank(fixed=(10, 5)), "2") == [(5, 16), (10, 5), (24, 10)]
    # As many as channels: that factor is left out, and the last one has the bias.
    assert shape(Rank(fixed=(5, 3)), "0") == [(5, 3), (16, 5)]
    assert shape(Rank(fixed=6), "2", convolution="cp") == [(6, 16), (6, 1), (6, 1), (24, 6)]
    weight = seeded(lenet).get_submodule("5").weight.double()
    values = torch.linalg.svdvals(weight).square()
    rank = shape(Rank(energy=0.6), "5")[0][0]
    assert values[:rank].sum() >= 0.6 * values.sum() > values[: rank - 1].sum()
    both = run_step(task, Factorize(rank=Rank(fraction=0.3), overrides={"5": Rank(fixed=3)}))
    assert model_of(both)[5][0].out_features == 3
    found = candidates.Candidate("c", nn.Conv2d(4, 6, 3), "cp", [(1, 4, 12, 12)])
    most = candidates.break_even(found)
    assert found.pays((most,))
    assert not found.pays((most + 1,))
    (enough,) = candidates.ranks_by(Rank(energy=0.5), found, 1, seed=0)
    left = [1 - energy_lost(found, r) for r in (enough, enough - 1)]
    assert left[0] >= 0.5 > left[1]
    with pytest.raises(CompressError, match="vbmf has no meaning for a CP rank"):
        run_step(task, Factorize(convolution="cp", rank=Rank(vbmf=True)))
    with pytest.raises(CompressError, match=r"5: \[3, 4\] is no rank"):
        run_step(task, Factorize(layers=("5",), rank=Rank(fixed=(3, 4))))


def energy_lost(candidate: candidates.Candidate, rank: int) -> float:
    product = factors.product(candidate.weights((rank,), seed=0), candidate.method)
    return float((candidate.weight() - product).square().sum() / candidate.weight().square().sum())


def test_vbmf_finds_the_components_of_noisy_weights() -> None:
    model = nn.Sequential(nn.Linear(60, 80)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        low = torch.randn(80, 6, generator=generator) @ torch.randn(6, 60, generator=generator)
        model[0].weight.copy_(low + torch.randn(80, 60, generator=generator))
    x = torch.zeros(1, 60)
    task = replace(image_task(model), example_inputs=(x,), evaluation=[Sample((x,))])
    made = model_of(run_step(task, Factorize(rank=Rank(vbmf=True))))
    assert made[0][0].out_features == 6


def test_the_data_decide_where_asked_to() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 16), nn.Unflatten(1, (16, 1, 1)), nn.Conv2d(16, 12, 1))
    scale = torch.logspace(0, -2, 20)
    points = [(torch.randn(1, 20) * scale + 1,) for _ in range(300)]
    task = Task(
        model.eval(), points[0], calibration=points[:200],
        evaluation=[Sample(p) for p in points[200:]], metric=NO_TARGET,
    )  # fmt: skip
    config = Factorize(rank=Rank(fixed=5), calibration_samples=200)
    lost = {}
    for aware in (False, True):
        made = model_of(run_step(task, config.model_copy(update={"data_aware": aware})))
        with torch.no_grad():
            lost[aware] = sum(float((made(*p) - model(*p)).square().sum()) for p in points[200:])
    assert lost[True] < 0.2 * lost[False]
    with pytest.raises(CompressError, match="data_aware needs calibration data"):
        run_step(replace(task, calibration=[]), Factorize(rank=Rank(fixed=5), data_aware=True))


def test_masks_of_other_layers_and_frozen_weights_stay() -> None:
    task = image_task(seeded(lenet))
    model = copy.deepcopy(task.model)
    assert isinstance(model, nn.Sequential)
    for name in ("2", "5"):
        layer = model.get_submodule(name)
        constraints.apply_mask(layer, "weight", layer.weight.detach().abs() > 0.02)
    kept = model[2].weight.detach().clone()
    model[5].requires_grad_(False)
    state = run_step(task, Factorize(layers=("5",), rank=Rank(fixed=8)), model)
    made = model_of(state)
    assert set(constraints.masks(made)) == {"2.weight"}
    assert torch.equal(made[2].weight, kept)
    assert any("codebooks of 5 are gone" in note for note in state.notes)
    assert not any(p.requires_grad for p in made[5].parameters())
    # The factors are those of the masked weight.
    left, right = made[5][1].weight.double(), made[5][0].weight.double()
    error = (model[5].weight.double() - left @ right).square().sum()
    values = torch.linalg.svdvals(model[5].weight.double()).square()
    assert float(error) == pytest.approx(float(values[8:].sum()), rel=1e-4)


def low_rank_task() -> Task:
    """Sixteen features of which a network of two layers needs few directions; trained here."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(3, 16, generator=generator)

    def samples(size: int) -> TensorSamples:
        hidden = torch.randn(size, 3, generator=generator)
        target = (hidden[:, 0] > 0).long() + 2 * (hidden[:, 1] > 0).long()
        return TensorSamples((hidden @ basis,), target)

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 4)
    )
    task = Task(
        model=model, example_inputs=(torch.zeros(1, 16),), evaluation=samples(64),
        train=samples(256), validation=samples(100),
    )  # fmt: skip
    fit(model, task, Training(epochs=8, batch_size=32, learning_rate=0.01), Run(), purpose="t")
    return task


def test_ranks_by_the_held_out_metric(tmp_path: Path) -> None:
    task = low_rank_task()
    assert isinstance(task.model, nn.Module)
    start = evaluate(task.model, task, task.validation)
    seen: dict[float, int] = {}
    for allowed in (0.0, 0.3):
        config = Factorize(layers=("0", "2"), max_metric_drop=allowed)
        made = model_of(run_step(task, config))
        assert start - evaluate(made, task, task.validation) <= allowed + 1e-9
        seen[allowed] = flops(made, task)
    assert seen[0.3] < seen[0.0] < flops(task.model, task)
    # A second run takes the ranks from the journal.
    said: list[str] = []
    for tuned in (None, FineTuning()):
        said.clear()
        run = Run(0, said.append, tmp_path)
        state = State(task, copy.deepcopy(task.model), None, run=run)
        again = model_of(factorize(state, config.model_copy(update={"fine_tune": tuned})))
        assert any("ranks down to" in line for line in said) is (tuned is None)
        assert flops(again, task) == seen[0.3]
    with pytest.raises(CompressError, match=r"max_metric_drop needs task\.validation"):
        run_step(replace(task, validation=[]), config)


class _Cost:
    def __init__(self, full: int) -> None:
        self.full = full

    def macs(self, chosen: tuple[int, ...] | None = None) -> int:
        return self.full if chosen is None else chosen[0]


def test_the_search_meets_the_bound_whatever_the_metric_does() -> None:
    """A metric in which layers hurt each other: alone each is harmless, together they are not."""
    found: Any = {name: _Cost(100) for name in "abc"}
    ladders = {name: [(80,), (50,), (20,)] for name in "abc"}
    tried: Counter[str] = Counter()

    def drop_of(choice: rank_search.Choice) -> float:
        tried[str(sorted(choice.items()))] += 1
        won = [100 - ranks[0] for ranks in choice.values()]
        return 0.001 * sum(won) * (1 if len(won) == 1 else len(won) ** 2)

    best = rank_search.search(ladders, found, drop_of, 0.2, lambda _: None)
    assert best
    assert drop_of(best) <= 0.2
    assert sum(tried.values()) < 30
    assert (
        rank_search.search(ladders, found, lambda c: 1.0 if c else 0.0, 0.2, lambda _: None) == {}
    )
    # Nothing hurts: everything as low as it goes.
    free = rank_search.search(ladders, found, lambda c: 0.0, 0.2, lambda _: None)
    assert free == dict.fromkeys("abc", (20,))


@pytest.mark.parametrize("options", [
    {}, {"rank": {"energy": 0.9}, "max_metric_drop": 0.1}, {"rank": {}},
    {"rank": {"energy": 0.9, "fraction": 0.1}}, {"rank": {"energy": 1.5}}, {"rank": {"fixed": 0}},
])  # fmt: skip
def test_rules_that_say_nothing_or_two_things(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Factorize(**options)


def test_weights_that_are_not_finite_are_named() -> None:
    task = image_task(seeded(lenet))
    model = copy.deepcopy(task.model)
    assert isinstance(model, nn.Sequential)
    with torch.no_grad():
        model[5].weight[0, 0] = float("nan")
    with pytest.raises(CompressError, match=r"'5\.weight' holds NaN"):
        run_step(task, Factorize(rank=Rank(energy=0.9)), model)


@pytest.mark.slow
def test_factors_are_fine_tuned_and_quantized_after() -> None:
    task = classes_task()
    assert isinstance(task.model, nn.Module)
    tuned = FineTuning(epochs=4, batch_size=32, learning_rate=0.01)
    made = apply(task, [Factorize(layers=("1",), rank=Rank(fixed=4), fine_tune=tuned), Quantize()])
    after, quantized = (row.quality for row in made.ledger[1:])
    assert after is not None
    assert quantized is not None
    assert after.metric_value > 0.8
    assert quantized.metric_value > after.metric_value - 0.05
    int8 = [t for t in made.program.state_dict.values() if t.dtype == torch.int8]
    assert sorted(t.numel() for t in int8) == [4 * 10, 4 * 24, 4 * 24]
