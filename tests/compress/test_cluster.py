"""Weights have few values, zeros stay zeros, and both hold after training and export."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from compress import constraints
from compress.cluster import Cluster, Table, cluster
from compress.errors import CompressError
from compress.fine_tune import FineTuneStep, FineTuning
from compress.journal import Run
from compress.pruning import importance
from compress.pruning.weights import weights_of
from compress.recipe import State, apply
from compress.sharing import kmeans
from compress.sharing.plan import group_count
from compress.sparsify import Prune, prune
from compress.task import Sample, Task
from tests.compress.networks import NO_TARGET, Small, classes_task, seeded, task_of
from tests.compress.test_constraints import tied

TRAINING = FineTuning(epochs=2, batch_size=32, learning_rate=0.01)


def clustered(config: Cluster, task: Task | None = None, *, keep: float | None = None) -> State:
    task = task or classes_task()
    state = State(task, copy.deepcopy(task.model), None)
    if keep is not None:
        state = prune(state, Prune(keep=keep))
    return cluster(state, config)


def values(model: nn.Module) -> dict[str, Tensor]:
    return {weight.full_name: weight.value for weight in weights_of(model)}


def distinct(value: Tensor) -> int:
    return len(value[value != 0].unique())


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("init", ["exact", "linear", "density", "random"])
def test_each_weight_is_its_nearest_centroid(init: str, half: bool) -> None:
    before = values(classes_task().model)
    after = values(clustered(Cluster(bits=3, init=init, float16_values=half)).float_model())
    for name, value in after.items():
        table = value.unique().double()
        assert len(table) <= 8
        away = (before[name].double()[..., None] - table).abs()
        assert torch.equal(value.double(), table[away.argmin(-1)])
        if half:
            assert torch.equal(value.half().float(), value)
        elif init == "exact":
            points = kmeans.Points.of(before[name].numpy())
            best = kmeans.distortion(points, kmeans.kmeans(points, 8))
            assert float((before[name] - value).double().square().sum()) == pytest.approx(best)


def test_pruned_weights_stay_zero_and_take_a_place_of_the_bits() -> None:
    task = classes_task()
    before = values(prune(State(task, copy.deepcopy(task.model), None), Prune(keep=0.3)).model)
    for config, most in ((Cluster(bits=2), 3), (Cluster(clusters=4), 4)):
        after = clustered(config, keep=0.3).float_model()
        for name, value in values(after).items():
            assert torch.equal(value != 0, before[name] != 0)
            assert distinct(value) == most
        assert set(constraints.masks(after)) == {"1.weight", "3.weight"}


@pytest.mark.parametrize("group_size", [None, 4])
def test_few_values_hold_in_training_and_export(group_size: int | None) -> None:
    later = FineTuneStep(**TRAINING.model_dump())
    steps = [
        Prune(keep=0.5),
        Cluster(bits=3, group_size=group_size, fine_tune=TRAINING),
        later,
    ]
    made = apply(classes_task(), steps)
    start = values(clustered(Cluster(bits=3, group_size=group_size), keep=0.5).float_model())
    exported = dict(made.program.named_parameters())
    for name, value in start.items():
        now = exported[name].detach()
        assert torch.equal(now == 0, value == 0)
        assert not torch.equal(now, value)
        rows = value.shape[0] // 4 if group_size else 1
        for before, after in zip(value.chunk(rows), now.chunk(rows), strict=True):
            assert 1 < distinct(after) <= 7
            # What shared a value still does.
            for one in before.unique():
                assert len(after[before == one].unique()) == 1
        assert torch.equal(now.half().float(), now)
    assert "layers share values" in made.ledger[2].notes[0]


def test_centroids_move_by_the_summed_gradient() -> None:
    """One step of plain gradient descent, worked out from the gradient by the dense weight."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4, bias=False))
    x = torch.randn(5, 6)
    task = Task(model, (x[:1],), evaluation=[Sample((x,))], metric=NO_TARGET)
    state = cluster(State(task, model, None), Cluster(clusters=3, float16_values=False))
    weight = state.float_model()[0].weight.detach().clone().requires_grad_(True)
    (x @ weight.T).square().sum().backward()
    table = weight.detach().unique()
    expected = table - 0.01 * torch.stack([weight.grad[weight == v].sum() for v in table])
    optimizer = torch.optim.SGD(state.float_model().parameters(), lr=0.01)
    state.float_model()(x).square().sum().backward()
    optimizer.step()
    torch.testing.assert_close(state.float_model()[0].weight.unique(), expected.sort().values)


def test_groups_of_output_channels() -> None:
    task = task_of(seeded(Small))
    model = task.model
    model.up = nn.ConvTranspose2d(6, 8, 2)
    after = values(clustered(Cluster(bits=1, group_size=2), task).float_model())
    for name, value in after.items():
        channels = value.movedim(1, 0) if name.startswith("up") else value
        pairs = channels.split(2) if name != "head.weight" else channels.split(1)
        assert all(distinct(pair) <= 2 for pair in pairs), name
        assert distinct(value) > 2


def test_group_sizes_divide_the_channels() -> None:
    assert [group_count(channels, 32) for channels in (320, 1000, 24, 8, 997, 1)] == [
        10,
        25,
        1,
        1,
        1,
        1,
    ]
    for channels in range(1, 200):
        assert channels % group_count(channels, 7) == 0


def test_values_beyond_float16_stay_float32() -> None:
    task = classes_task()
    with torch.no_grad():
        task.model[1].weight *= 1e-7
        task.model[3].weight *= 1e7
    state = clustered(Cluster(bits=3), task)
    assert any("float32 values in 1.weight, 3.weight" in note for note in state.notes)
    for name, value in values(state.float_model()).items():
        assert bool(torch.isfinite(value).all())
        noise = (value - values(task.model)[name]).square().sum()
        assert noise < 0.1 * value.square().sum()


def test_ties_share_one_codebook() -> None:
    model, tokens = tied()
    task = Task(model, (tokens,), evaluation=[Sample((tokens,))], metric=NO_TARGET)
    after = clustered(Cluster(bits=2), task).float_model()
    assert torch.equal(after.table.weight, after.head.weight)
    assert distinct(after.head.weight.detach()) == 4
    assert len([p for p in after.parameters() if p.shape == (1, 4)]) == 3  # and two of attention


def test_clustering_again_starts_from_the_values() -> None:
    state = clustered(Cluster(bits=4), keep=0.5)
    zeros = {name: value == 0 for name, value in values(state.float_model()).items()}
    again = cluster(state, Cluster(bits=2)).float_model()
    for name, value in values(again).items():
        assert distinct(value) == 3
        assert torch.equal(value == 0, zeros[name])
    for weight in weights_of(again):
        assert len(weight.constrained_by) == 1


def test_importance_lowers_the_error_of_what_matters() -> None:
    """Inputs of one feature are thirty times as large: its weights must be met best."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 16))
    with torch.no_grad():
        model[0].weight *= 0.1  # Saturated answers would hardly depend on any weight.
    scale = torch.ones(20)
    scale[7] = 30
    inputs = [(torch.randn(1, 20) * scale,) for _ in range(32)]
    task = Task(model, inputs[0], calibration=inputs, evaluation=[Sample(inputs[0])])

    scores = importance.fisher(model, task, weights_of(model), Run(), count=64)["0.weight"]
    assert scores[:, 7].mean() > 500 * scores[:, :7].mean()

    def error(config: Cluster) -> float:
        away = values(clustered(config, task).float_model())["0.weight"] - model[0].weight.detach()
        return float((scores * away.square()).sum())

    assert error(Cluster(bits=2, importance="fisher")) < 0.6 * error(Cluster(bits=2))


def test_mean_bits_meets_its_budget_and_favours_what_matters() -> None:
    task = classes_task(64)
    task = replace(task, calibration=[(x[None],) for x in task.train.inputs[0][:32]])
    with torch.no_grad():
        task.model[3].weight *= 30  # the loss depends on it far more
    for mean in (2.5, 4.0):
        state = clustered(Cluster(mean_bits=mean, importance="fisher"), task)
        after = values(state.float_model())
        bits = sum(
            value.numel() * np.ceil(np.log2(distinct(value))) + 16 * distinct(value)
            for value in after.values()
        )
        assert bits <= mean * sum(value.numel() for value in after.values())
        assert any(note.startswith(f"widths for {mean:g} bits") for note in state.notes)
    with pytest.raises(CompressError, match=r"mean_bits: the smallest tables need"):
        clustered(Cluster(mean_bits=1, importance="fisher"), task)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "exactly one of bits, clusters and mean_bits"),
        ({"bits": 2, "clusters": 4}, "exactly one"),
        ({"bits": 2, "mean_bits": 4}, "exactly one"),
        ({"bits": 0}, "greater than or equal to 1"),
        ({"bits": 9}, "less than or equal to 8"),
        ({"mean_bits": 4}, "importance: outputs or fisher"),
        ({"bits": 4, "importance": "outputs"}, "which mean_bits asks"),
        ({"bits": 4, "damping": 1.0}, "no meaning without compensate"),
        ({"bits": 2, "overrides": {"*": {}}}, "exactly one of bits and clusters"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(given: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        Cluster(**given)


def test_overrides() -> None:
    after = values(clustered(Cluster(bits=2, overrides={"3": Table(clusters=9)})).float_model())
    assert [distinct(value) for value in after.values()] == [4, 9]


def test_an_override_may_leave_the_width_to_mean_bits() -> None:
    task = classes_task(64)
    task = replace(task, calibration=[(x[None],) for x in task.train.inputs[0][:16]])
    given = {"mean_bits": 6, "importance": "fisher"}
    config = Cluster(**given, overrides={"1": Table(group_size=12), "3": Table(bits=1)})
    state = clustered(config, task)
    after = values(state.float_model())
    assert distinct(after["3.weight"]) == 2
    assert "1.weight" in state.notes[0]
    assert "x 2 tables" in state.notes[0]
    with pytest.raises(ValidationError, match="in each override"):
        Cluster(bits=2, overrides={"1": Table(group_size=12)})
