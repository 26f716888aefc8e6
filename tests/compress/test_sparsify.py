"""Pruning keeps what an independent computation keeps, at every point of a ramp and ever after."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from compress import constraints
from compress.errors import CompressError
from compress.fine_tune import FineTuneStep, FineTuning
from compress.journal import Run
from compress.pruning import importance
from compress.pruning.sparsity_patterns import cubic_sparsity, largest, n_of_m
from compress.pruning.weights import weights_of
from compress.recipe import State, apply
from compress.sparsify import Amount, Prune, prune
from compress.task import Sample, Task
from compress.training import fit
from tests.compress.networks import NO_TARGET, Small, classes_task, seeded, task_of
from tests.compress.test_constraints import tied


def pruned(config: Prune, task: Task | None = None, run: Run | None = None) -> nn.Module:
    task = task or classes_task()
    state = State(task, copy.deepcopy(task.model), None, run=run or Run())
    return prune(state, config).float_model()


def notes_of(config: Prune, task: Task) -> tuple[str, ...]:
    return prune(State(task, copy.deepcopy(task.model), None), config).notes


def values(model: nn.Module) -> dict[str, Tensor]:
    return {weight.full_name: weight.value for weight in weights_of(model)}


SCORES = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0]), min_size=1, max_size=40)


@given(scores=SCORES, data=st.data())
def test_largest_keeps_exactly_so_many_and_of_ties_the_first(
    scores: list[float], data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, len(scores)))
    cut = data.draw(st.integers(0, len(scores)))
    parts = [torch.tensor(scores[:cut]), torch.tensor(scores[cut:])]
    masks = largest(parts, count)
    got = [index for index, kept in enumerate(torch.cat(masks).tolist()) if kept]
    ranked = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    assert got == sorted(ranked[:count])


@given(
    shape=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    axis=st.integers(0, 1),
    m=st.integers(2, 6),
    data=st.data(),
)
def test_n_of_m_in_every_run(shape: list[int], axis: int, m: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, m - 1))
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(m))
    mask = n_of_m(scores, n, m, axis)
    for rows, kept in zip(
        scores.movedim(axis, -1).reshape(-1, shape[axis]),
        mask.movedim(axis, -1).reshape(-1, shape[axis]),
        strict=True,
    ):
        for start in range(0, shape[axis], m):
            run = rows[start : start + m].numpy()
            best = set(np.argsort(-run)[:n].tolist())
            assert {i for i, k in enumerate(kept[start : start + m].tolist()) if k} == best


def test_cubic_schedule() -> None:
    """Zhu & Gupta, equation 1, worked out by hand for 0 to 0.8 over steps 10 to 20."""
    expected = {0: 0.0, 10: 0.0, 12: 0.8 * (1 - 0.512), 15: 0.7, 19: 0.7992, 20: 0.8, 99: 0.8}
    for step, sparsity in expected.items():
        assert cubic_sparsity(step, 10, 20, 0.0, 0.8) == pytest.approx(sparsity)
    assert cubic_sparsity(15, 10, 20, 0.4, 0.8) == pytest.approx(0.8 - 0.4 / 8)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_magnitude_against_a_sort_in_numpy(scope: str) -> None:
    before = values(classes_task().model)
    model = pruned(Prune(keep=0.23, scope=scope))
    pools = [[name] for name in before] if scope == "layer" else [list(before)]
    for pool in pools:
        whole = np.concatenate([before[name].numpy().ravel() for name in pool])
        limit = np.sort(np.abs(whole))[::-1][round(0.23 * whole.size) - 1]
        for name in pool:
            expected = torch.where(before[name].abs() >= float(limit), before[name], 0.0)
            assert torch.equal(values(model)[name], expected)
    for name, parameter in model.named_parameters():
        if "bias" in name:
            assert torch.equal(parameter, classes_task().model.get_parameter(name))


def test_thresholds() -> None:
    before = values(classes_task().model)
    absolute = values(pruned(Prune(threshold=0.1)))
    deviations = values(pruned(Prune(threshold=0.8, threshold_unit="std")))
    for name, weight in before.items():
        assert torch.equal(absolute[name] != 0, weight.abs() > 0.1)
        assert torch.equal(deviations[name] != 0, weight.abs() > 0.8 * weight.numpy().std())
    with pytest.raises(CompressError, match=r"threshold 9 leaves no weight"):
        pruned(Prune(threshold=9))


def test_overrides_and_exclusions() -> None:
    config = Prune(keep=0.5, overrides={"1": Amount(keep=0.1), "*": Amount(pattern="1:4")})
    model = pruned(config)
    assert int((values(model)["1.weight"] != 0).sum()) == 24
    assert int((values(model)["3.weight"] != 0).sum()) == 24
    model = pruned(Prune(keep=0.5, exclude=("1",)))
    assert bool(values(model)["1.weight"].all())
    with pytest.raises(CompressError, match="no layer's name matches 'head'"):
        pruned(Prune(keep=0.5, overrides={"head": Amount(keep=0.1)}))
    # An override takes its layer out of the global competition.
    model = pruned(Prune(keep=0.5, scope="global", overrides={"3": Amount(keep=0.25)}))
    counts = {name: int((value != 0).sum()) for name, value in values(model).items()}
    assert counts == {"1.weight": 120, "3.weight": 24}


def test_pattern_on_convolutions() -> None:
    task = task_of(seeded(Small))
    notes = notes_of(Prune(pattern="2:4"), task)
    assert any("depthwise.weight: its input axis is too short" in note for note in notes)
    after = values(pruned(Prune(pattern="2:4"), task))
    assert bool(after["depthwise.weight"].all())
    # Three input channels: the one run is short, and two of it stay.
    assert int((after["stem.weight"] != 0).sum()) == 8 * 2 * 9
    assert int((after["point.weight"] != 0).sum()) == 8 * 4


def test_memory_order_does_not_matter() -> None:
    task = task_of(seeded(Small))
    plain = pruned(Prune(keep=0.3), task)
    task.model.to(memory_format=torch.channels_last)
    assert not task.model.stem.weight.is_contiguous()
    other = pruned(Prune(keep=0.3), task)
    for name, value in values(plain).items():
        assert torch.equal(value, values(other)[name])


def test_ties_and_attention() -> None:
    model, tokens = tied()
    task = Task(model, (tokens,), evaluation=[Sample((tokens,))], metric=NO_TARGET)
    made = apply(task, [Prune(keep=0.2)])
    after = pruned(Prune(keep=0.2), task)
    assert torch.equal(after.table.weight, after.head.weight)
    assert int((after.head.weight != 0).sum()) == round(0.2 * 66)
    assert int((after.attention.in_proj_weight != 0).sum()) == round(0.2 * 108)
    assert int((after.attention.out_proj.weight != 0).sum()) == round(0.2 * 36)
    outputs = made.program.module()(tokens)
    torch.testing.assert_close(outputs, after(tokens))
    # Excluding one of the two excludes what they share.
    after = pruned(Prune(keep=0.2, exclude=("head",)), task)
    assert bool(after.table.weight.all())


def test_taylor_is_the_mean_of_weight_times_gradient() -> None:
    """One linear layer under a squared loss: gradient = 2/N * (W x - y) x^T, worked out here."""
    generator = torch.Generator().manual_seed(0)
    points, wanted = (torch.randn(8, n, generator=generator) for n in (5, 3))
    model = nn.Sequential(nn.Linear(5, 3, bias=False))
    samples = [Sample((points[i : i + 1],), wanted[i : i + 1]) for i in range(8)]
    task = Task(
        model, (points[:1],), evaluation=samples, train=samples, validation=samples,
        loss=nn.functional.mse_loss, metric=NO_TARGET,
    )  # fmt: skip
    weight = model[0].weight.detach().numpy()
    found = weights_of(model)
    got = importance.taylor(model, task, found, Run(), count=99, batch_size=8)["0.weight"]
    error = points.numpy() @ weight.T - wanted.numpy()
    np.testing.assert_allclose(
        got, np.abs(weight * (2 / error.size * error.T @ points.numpy())), rtol=1e-4, atol=1e-6
    )
    # Batches of two: the mean of absolute values, not the absolute value of the mean.
    got = importance.taylor(model, task, found, Run(), count=99, batch_size=2)["0.weight"]
    order = torch.randperm(8, generator=Run().generator("taylor")).reshape(4, 2).numpy()
    each = [np.abs(weight * (2 / 6 * error[two].T @ points.numpy()[two])) for two in order]
    np.testing.assert_allclose(got, np.mean(each, axis=0), rtol=1e-4, atol=1e-6)


def test_taylor_prunes_inputs_that_carry_nothing() -> None:
    """A feature that is always zero has large weights that no answer depends on."""
    task = classes_task()
    for part in (task.train, task.validation, task.evaluation):
        part.inputs[0][..., 3] = 0
    with torch.no_grad():
        task.model[1].weight[:, 3] = 5.0
    config = Prune(keep=0.5, method="taylor", layers=("1",))
    inputs = [(x[None],) for x in task.train.inputs[0][:40]]
    for data in (task, replace(task, train=(), validation=(), calibration=inputs)):
        assert not bool(pruned(config, data)[1].weight[:, 3].any())
    assert bool(pruned(Prune(keep=0.5, layers=("1",)), task)[1].weight[:, 3].all())
    with pytest.raises(CompressError, match=r"needs task\.train or task\.calibration"):
        pruned(config, replace(task, train=(), validation=(), calibration=()))


def test_fisher_of_a_softmax_layer() -> None:
    """E over labels of the squared gradient is, by weight [c, i], p_c (1 - p_c) x_i^2."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4))
    x = torch.tensor([[0.5, -1.0, 2.0]])
    task = Task(model, (x,), calibration=[(x,)] * 1500, evaluation=[Sample((x,))])
    got = importance.fisher(model, task, weights_of(model), Run(), count=1500)["0.weight"]
    chances = model(x).softmax(-1)[0].detach()
    expected = (chances * (1 - chances))[:, None] * x[0].square()
    torch.testing.assert_close(got, expected, rtol=0.2, atol=0.01)


TRAINING = FineTuning(epochs=2, batch_size=32, learning_rate=0.01)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_masks_hold_in_this_and_later_trainings(optimizer: str) -> None:
    config = TRAINING.model_copy(update={"optimizer": optimizer, "weight_decay": 0.01})
    task = classes_task()
    before = pruned(Prune(keep=0.3), task)
    later = FineTuneStep(**config.model_dump())
    made = apply(task, [Prune(keep=0.3, fine_tune=config), later])
    zeros = {name: value == 0 for name, value in values(before).items()}
    for name, parameter in made.program.named_parameters():
        if name in zeros:
            assert torch.equal(parameter == 0, zeros[name])
            assert not torch.equal(parameter, values(before)[name])
    assert "not zero (30.00%)" not in made.ledger[1].notes[0]  # 72 of 240 and 29 of 96
    assert "101 of 336 weights" in made.ledger[1].notes[0]


def test_frozen_weights_are_pruned_and_not_trained() -> None:
    task = classes_task()
    task.model[1].weight.requires_grad_(False)
    before = values(task.model)["1.weight"]
    model = pruned(Prune(keep=0.5, method="taylor", fine_tune=TRAINING), task)
    after = values(model)["1.weight"]
    assert int((after != 0).sum()) == 120
    assert torch.equal(after, torch.where(after != 0, before, 0.0))


RAMP = Prune(
    keep=0.1,
    schedule="cubic",
    start_epoch=0.5,
    end_epoch=2.5,
    update_every=3,
    fine_tune=TRAINING,
)


@pytest.mark.parametrize("method", ["magnitude", "taylor"])
def test_ramp_follows_the_schedule(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 samples in batches of 32 are 8 batches an epoch: the ramp is from batch 4 to 20."""
    seen: dict[int, list[int]] = {}

    def watched(model: nn.Module, *args: object, **kwargs: object) -> object:
        inner = kwargs["before_batch"] if kwargs["purpose"] == "ramp" else None

        def before(step: int, total: int) -> None:
            assert total == 24
            inner(step, total)
            seen[step] = [int((value != 0).sum()) for value in values(model).values()]

        return fit(model, *args, **{**kwargs, "before_batch": before if inner else None})

    monkeypatch.setattr("compress.fine_tune.fit", watched)
    config = RAMP.model_copy(update={"method": method, "taylor_batches": 2})
    model = pruned(config)
    for step, counts in seen.items():
        last = max((s for s in range(4, min(step, 20) + 1) if (s - 4) % 3 == 0), default=None)
        at = 20 if step >= 20 else last
        sparsity = 0.0 if at is None else 0.9 - 0.9 * (1 - (at - 4) / 16) ** 3
        for count, size in zip(counts, (240, 96), strict=True):
            assert count == max(round((1 - sparsity) * size), round(0.1 * size))
    assert [int((v != 0).sum()) for v in values(model).values()] == [24, 10]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("regrow", [False, True])
def test_a_ramp_that_was_killed_ends_as_the_uninterrupted_one(tmp_path: Path, regrow: bool) -> None:
    config = RAMP.model_copy(update={"regrow": regrow, "settle_epochs": 1.0 if regrow else 0.0})

    def killer(line: str) -> None:
        if "ramp: epoch 2/" in line:
            raise Killed

    whole = pruned(config, run=Run(7))
    with pytest.raises(Killed):
        pruned(config, run=Run(7, killer, tmp_path))
    lines: list[str] = []
    resumed = pruned(config, run=Run(7, lines.append, tmp_path))
    assert not any("epoch 1/" in line and "ramp" in line for line in lines)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    # Another final share is another training, although it begins with the same weights.
    lines.clear()
    pruned(config.model_copy(update={"keep": 0.2}), run=Run(7, lines.append, tmp_path))
    assert any("ramp: epoch 1/" in line for line in lines)


def test_weights_grow_back_only_where_it_is_allowed() -> None:
    """A ramp that starts at once prunes by the untrained weights; training shows better ones."""
    config = RAMP.model_copy(update={"start_epoch": 0.0, "end_epoch": 0.3, "update_every": 1})
    first = pruned(Prune(keep=0.1))
    regrown = pruned(config.model_copy(update={"regrow": True, "settle_epochs": 4.0}))
    assert [int((v != 0).sum()) for v in values(regrown).values()] == [24, 10]
    for name, value in values(regrown).items():
        assert not torch.equal(value != 0, values(first)[name] != 0)
    assert not any(m.regrows for m in regrown.modules() if isinstance(m, constraints.Masked))


def test_pruning_again_prunes_more() -> None:
    task = classes_task()
    model = prune(State(task, copy.deepcopy(task.model), None), Prune(keep=0.5)).float_model()
    half = {name: value != 0 for name, value in values(model).items()}
    model = prune(State(task, model, None), Prune(keep=0.25)).float_model()
    for name, value in values(model).items():
        assert int((value != 0).sum()) == value.numel() // 4
        assert not bool(((value != 0) & ~half[name]).any())
        assert len(constraints.constraints_of(*weights_holder(model, name))) == 1


def weights_holder(model: nn.Module, name: str) -> constraints.Holder:
    return next(w.holders[0] for w in weights_of(model) if w.full_name == name)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"keep": 0.0}, "greater than 0"),
        ({"keep": 1.0}, "less than 1"),
        ({"keep": -0.5}, "greater than 0"),
        ({}, "exactly one of keep, threshold and pattern"),
        ({"keep": 0.5, "threshold": 1.0}, "exactly one of"),
        ({"pattern": "4:4"}, "prunes nothing"),
        ({"pattern": "0:4"}, "pattern"),
        ({"keep": 0.5, "schedule": "cubic"}, "needs fine_tune"),
        ({"keep": 0.5, "regrow": True}, "regrow needs"),
        ({"keep": 0.5, "schedule": "cubic", "start_epoch": 5, "fine_tune": {}}, "end_epoch"),
        ({"pattern": "2:4", "schedule": "cubic", "fine_tune": {}}, "one_shot"),
        ({"threshold": 1, "threshold_unit": "std", "method": "taylor"}, "Taylor"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(given: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        Prune(**given)


@settings(max_examples=30, deadline=None)
@given(keep=st.floats(0.001, 0.999), seed=st.integers(0, 99))
def test_exact_counts(keep: float, seed: int) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(seed % 7 + 1, 5), nn.Linear(5, 3))
    task = Task(model, (torch.zeros(1, seed % 7 + 1),), evaluation=[], metric=NO_TARGET)
    for name, value in values(pruned(Prune(keep=keep), task)).items():
        assert int((value != 0).sum()) == max(round(keep * value.numel()), 1), name
    everything = torch.cat([v.ravel() for v in values(model).values()])
    found = [v.ravel() for v in values(pruned(Prune(keep=keep, scope="global"), task)).values()]
    assert int((torch.cat(found) != 0).sum()) == max(round(keep * len(everything)), 1)
