"""The training loop learns, keeps the best epoch, and goes on after a crash to the same weights."""

from __future__ import annotations

import copy
import functools
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compress import constraints, epochs
from compress.errors import CompressError, PocketshipError
from compress.factorize import Factorize
from compress.fine_tune import FineTuneStep, FineTuning
from compress.journal import Run
from compress.low_rank.candidates import Rank
from compress.passes import batch_count, batches
from compress.recipe import apply
from compress.samples import TensorSamples
from compress.task import Inputs, Sample, Task, TaskMetric
from compress.training import History, Training, evaluate, fit
from tests.compress.networks import classes_task, seeded

ROOT = Path(__file__).resolve().parents[2]


class Killed(BaseException):
    pass


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_learns(precision: str) -> None:
    task = classes_task()
    model = copy.deepcopy(task.model)
    before = evaluate(model, task, task.evaluation)
    history = fit(
        model,
        task,
        Training(epochs=6, batch_size=16, learning_rate=0.01, precision=precision),
        Run(),
        purpose="t",
    )
    assert evaluate(model, task, task.evaluation) > max(before, 0.8)
    assert history.best.validation == max(epoch.validation for epoch in history.epochs)
    assert evaluate(model, task, task.validation) == history.best.validation
    assert not model.training


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    task = classes_task()
    config = Training(epochs=5, optimizer="sgd", learning_rate=0.05, warmup_epochs=0.5)
    whole = copy.deepcopy(task.model)
    fit(whole, task, config, Run(seed=3), purpose="t")

    def killer(line: str) -> None:
        if "epoch 3/5" in line:
            raise Killed

    with pytest.raises(Killed):
        fit(copy.deepcopy(task.model), task, config, Run(3, killer, tmp_path), purpose="t")
    resumed = copy.deepcopy(task.model)
    history = fit(resumed, task, config, Run(3, folder=tmp_path), purpose="t")
    assert history.resumed_from == 3
    assert same(weights(whole), weights(resumed))
    # And once more: everything comes from the journal.
    again = copy.deepcopy(task.model)
    assert fit(again, task, config, Run(3, folder=tmp_path), purpose="t").resumed_from == 5
    assert same(weights(whole), weights(again))
    # Another seed, another learning rate or other weights are another training.
    other = Run(4, folder=tmp_path)
    assert fit(copy.deepcopy(task.model), task, config, other, purpose="t").resumed_from == 0


def test_masks_hold_and_frozen_parameters_stay() -> None:
    task = classes_task()
    model = copy.deepcopy(task.model)
    first = model[1]
    assert isinstance(first, nn.Linear)
    frozen = model[3].bias.requires_grad_(False).clone()
    mask = torch.rand(first.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.4
    constraints.apply_mask(first, "weight", mask)
    fit(model, task, Training(epochs=2), Run(), purpose="t")
    constraints.materialize(model)
    assert torch.equal(model[1].weight != 0, mask)
    assert torch.equal(model[3].bias, frozen)


def test_nan_names_the_place_and_keeps_the_best_epoch() -> None:
    task = classes_task()
    model = copy.deepcopy(task.model)
    seen: list[int] = []

    def objective(net: nn.Module, sample: Sample) -> torch.Tensor:
        seen.append(1)
        loss = nn.functional.cross_entropy(net(*sample.inputs), sample.target)
        return loss * float("nan") if len(seen) == 7 else loss

    best: list[list[torch.Tensor]] = []
    run = Run(progress=lambda _: best.append(weights(model)))
    with pytest.raises(CompressError, match=r"t, epoch 2, batch 3: the loss is nan"):
        config = Training(epochs=3, batch_size=64)
        fit(model, task, config, run, purpose="t", objective=objective)
    assert same(best[0], weights(model))


def test_early_stop() -> None:
    task = classes_task()
    config = Training(epochs=50, patience=2, learning_rate=1e-9, schedule="constant")
    history = fit(copy.deepcopy(task.model), task, config, Run(), purpose="t")
    assert (len(history.epochs), history.best.number) == (3, 1)


def run_of(task: Task, config: Training, **options: Any) -> tuple[nn.Module, History]:
    model = copy.deepcopy(task.model)
    assert isinstance(model, nn.Module)
    return model, fit(model, task, config, Run(**options), purpose="t")


class Stateful(nn.Module):
    """Batch normalisation and dropout, and a parameter that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(10, 10), nn.Linear(10, 10)
        self.second.weight = self.first.weight
        self.norm, self.drop, self.head = nn.BatchNorm1d(10), nn.Dropout(0.3), nn.Linear(10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.second(self.first(x.flatten(1)).relu()))
        return self.head(self.drop(x))


def noisy(inputs: Inputs, generator: torch.Generator) -> Inputs:
    return tuple(x + 0.1 * torch.randn(x.shape, generator=generator) for x in inputs)


def stateful_task() -> Task:
    return replace(classes_task(128), model=seeded(Stateful), augment=noisy)


@pytest.mark.parametrize("options", [
    {"precision": "fp16", "clip_grad_norm": 0.5},
    {"optimizer": "adamw", "weight_decay": 0.1, "keep": "last", "patience": 3},
    {"optimizer": "sgd", "momentum": 0.0, "precision": "bf16"},
], ids=str)  # fmt: skip
def test_resuming_after_each_epoch_is_exact(options: dict[str, Any], tmp_path: Path) -> None:
    task = stateful_task()
    config = Training(epochs=4, batch_size=50, learning_rate=0.02, **options)
    whole, history = run_of(task, config, seed=1)
    last = history.epochs[-1].number
    for stop in range(1, last + 1):

        def killer(line: str, stop: int = stop) -> None:
            if f"epoch {stop}/" in line:
                raise Killed

        folder = tmp_path / str(stop)
        with pytest.raises(Killed):
            run_of(task, config, seed=1, folder=folder, progress=killer)
        torch.manual_seed(stop)
        resumed, again = run_of(task, config, seed=1, folder=folder)
        assert same(weights(whole), weights(resumed)), stop
        assert (again.epochs, again.best) == (history.epochs, history.best)
        assert again.resumed_from == stop
    shared = resumed
    assert isinstance(shared, Stateful)
    assert shared.first.weight is shared.second.weight


SCRIPT = """
import sys, torch
from pathlib import Path
from dataclasses import replace
torch.set_num_threads(1)
from compress.recipe import apply
from tests.compress import test_training as here

calls = 0
def blocking(inputs, generator):
    # The second of three batches of the second epoch of the second step.
    global calls
    calls += 1
    if calls == 3 * 3 + 3 + 2:
        print("in the middle", flush=True)
        sys.stdin.read()
    return here.noisy(inputs, generator)

task = replace(here.stateful_task(), augment=here.counted)
here.augmenting[0] = blocking
apply(task, here.STEPS, seed=2, journal=Path(sys.argv[1]))
"""
STEPS = [
    FineTuneStep(epochs=3, batch_size=50),
    Factorize(layers=("head",), rank=Rank(fixed=2), fine_tune=FineTuning(epochs=3, batch_size=50)),
]
# In a list: the code's fingerprint sees functions by name, and the child's is another one.
augmenting = [noisy]


def counted(inputs: Inputs, generator: torch.Generator) -> Inputs:
    """What the task augments with: the test's child process blocks in it."""
    return augmenting[0](inputs, generator)


def recipe_weights(task: Task, **options: Any) -> dict[str, torch.Tensor]:
    return dict(apply(task, STEPS, seed=2, **options).program.state_dict)


@pytest.mark.slow
def test_a_recipe_that_was_killed_in_an_epoch_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    task = replace(stateful_task(), augment=counted)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert child.stdout is not None
        for line in child.stdout:
            if line == "in the middle\n":
                child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        child.stdout.close()
        whole = recipe_weights(task)
        said: list[str] = []
        resumed = recipe_weights(task, journal=tmp_path, progress=said.append)
    finally:
        torch.set_num_threads(threads)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    # Step 1 came from the journal whole, step 2 went on after its first epoch.
    epochs = [line for line in said if ", loss " in line]
    assert [line.split(": ")[2].split(",")[0] for line in epochs] == ["epoch 2/3", "epoch 3/3"]


def test_a_damaged_or_foreign_checkpoint_costs_time_only(tmp_path: Path) -> None:
    task = classes_task(64)
    config = Training(epochs=2, batch_size=32)
    whole, _ = run_of(task, config, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    run = Run(folder=tmp_path)
    content = path.read_bytes()
    saved = run.kept(path.stem)
    assert saved is not None
    kept = saved["kept_weights"]
    first = next(iter(kept))
    damages: list[Any] = [
        {},
        {**saved, "epochs": []},
        {**saved, "epochs": [[2, 0.1, 0.2]]},
        {**saved, "epochs": [["x"]]},
        {**saved, "kept_weights": {}},
        {**saved, "kept_weights": {**kept, "extra": torch.zeros(1)}},
        {**saved, "kept_weights": {**kept, first: kept[first][:1]}},
        {**saved, "kept_weights": {**kept, first: kept[first].double()}},
        {**saved, "epochs": saved["epochs"][:1]},  # unfinished, but without what goes on
    ]
    for damage in damages:
        run.keep(path.stem, damage)
        said: list[str] = []
        again, history = run_of(task, config, folder=tmp_path, progress=said.append)
        assert history.resumed_from == 0
        assert "does not fit" in said[0]
        assert same(weights(whole), weights(again))
    path.write_bytes(content[:-20])
    again, history = run_of(task, config, folder=tmp_path)
    assert (history.resumed_from, same(weights(whole), weights(again))) == (0, True)


def test_an_edited_loss_or_activation_is_another_training(tmp_path: Path) -> None:
    task = classes_task(64)
    config = Training(epochs=1)
    run_of(task, config, folder=tmp_path)
    assert run_of(task, config, folder=tmp_path)[1].resumed_from == 1
    smooth = replace(task, loss=functools.partial(nn.functional.cross_entropy, label_smoothing=0.1))
    assert run_of(smooth, config, folder=tmp_path)[1].resumed_from == 0
    other = copy.deepcopy(task.model)
    assert isinstance(other, nn.Sequential)
    other[2] = nn.GELU()
    assert run_of(replace(task, model=other), config, folder=tmp_path)[1].resumed_from == 0


def test_whatever_ends_a_training_leaves_the_best_weights_and_evaluation_mode() -> None:
    task = stateful_task()
    model = copy.deepcopy(task.model)
    assert isinstance(model, nn.Module)
    start = weights(model)

    def interrupted(inputs: Inputs, generator: torch.Generator) -> Inputs:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, replace(task, augment=interrupted), Training(), Run(), purpose="t")
    assert same(start, weights(model))
    assert not model.training
    with pytest.raises(CompressError, match=r"t, epoch 1: the weight 'head\.weight' holds NaN"):
        # The loss of the last batch is fine, the step that follows it is not.
        def objective(net: nn.Module, sample: Sample) -> torch.Tensor:
            loss = nn.functional.cross_entropy(net(*sample.inputs), sample.target)
            return loss + 0 * (net.head.weight - net.head.weight).abs().sqrt().sum()

        fit(model, task, Training(batch_size=128), Run(), purpose="t", objective=objective)
    assert same(start, weights(model))


def test_lower_may_be_better_and_last_may_be_kept() -> None:
    """The true metric of a linear fit rises first: with a rate too high the first epoch is best."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 4, generator=generator)
    data = TensorSamples((x,), x.sum(1, keepdim=True))
    values = iter([3.0, 1.0, 2.0, 1.0, 5.0] * 4)
    metric = TaskMetric("error", lambda o, t: next(values), higher_is_better=False)
    torch.manual_seed(0)
    task = Task(
        nn.Linear(4, 1), (x[:1],), train=data, validation=data, metric=metric,
        loss=nn.functional.mse_loss,
    )  # fmt: skip
    config = Training(epochs=5, batch_size=8)
    _, history = run_of(task, config)
    assert (history.best.number, history.best.validation) == (2, 1.0)
    _, history = run_of(task, config.model_copy(update={"patience": 1}))
    assert [e.validation for e in history.epochs] == [3.0, 1.0, 2.0]
    # Patience looks at the best epoch also where the last one is kept.
    values = iter([3.0, 1.0, 2.0, 1.0, 5.0])
    model, history = run_of(task, config.model_copy(update={"patience": 2, "keep": "last"}))
    assert (len(history.epochs), history.best.number) == (4, 4)
    best, _ = run_of(replace(task, metric=replace(metric, compute=lambda o, t: 1.0)), config)
    assert not same(weights(best), weights(model))


@pytest.mark.parametrize(("count", "size", "sizes"), [
    (10, 4, [4, 4, 2]), (9, 4, [4, 4]), (5, 8, [5]), (1, 8, [1]), (3, 1, [1, 1, 1]), (8, 4, [4, 4]),
])  # fmt: skip
def test_batches_of_one_pass(count: int, size: int, sizes: list[int]) -> None:
    data = TensorSamples((torch.arange(count).float()[:, None],), torch.arange(count))
    task = Task(nn.Linear(1, 1), (torch.zeros(1, 1),), train=data)
    made = list(batches(task, size, torch.Generator().manual_seed(0)))
    assert [len(sample.inputs[0]) for sample in made] == sizes
    assert batch_count(count, size) == len(sizes)
    seen = [int(v) for sample in made for v in sample.inputs[0]]
    assert len(set(seen)) == len(seen)
    assert all(torch.equal(s.inputs[0][:, 0].long(), s.target) for s in made)


@pytest.mark.parametrize("size", [1, 3, 500])
def test_a_list_of_samples_trains_as_one_tensor_does(size: int) -> None:
    task = classes_task(7)
    loose = replace(
        task,
        train=[Sample(s.inputs, s.target.reshape(())) for s in task.train],
        validation=list(task.validation),
    )
    config = Training(epochs=2, batch_size=size)
    one, two = run_of(task, config)[0], run_of(loose, config)[0]
    assert same(weights(one), weights(two))
    assert not same(weights(one), weights(task.model))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 2)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.layer(left + right), left


def absolute_error(outputs: Any, targets: Any) -> float:
    errors = [(o - t).abs().mean() for o, t in zip(outputs, targets, strict=True)]
    return float(sum(errors)) / len(errors)


def test_several_inputs_and_a_loss_of_ones_own() -> None:
    torch.manual_seed(0)
    left, right = torch.randn(2, 40, 5)
    data = TensorSamples((left, right), (left + right)[:, :2])
    task = Task(
        seeded(TwoInputs), (left[:1], right[:1]), train=data, validation=data,
        loss=lambda output, target: (output - target).abs().mean(),
        metric=TaskMetric("l1", absolute_error, higher_is_better=False),
    )  # fmt: skip
    _, history = run_of(task, Training(epochs=20, batch_size=10, learning_rate=0.05))
    assert history.best.validation < 0.2 * history.epochs[0].validation


def test_frozen_batch_normalisation_keeps_its_statistics() -> None:
    task = stateful_task()
    model = copy.deepcopy(task.model)
    assert isinstance(model, Stateful)
    model.norm.requires_grad_(False)
    frozen = [value.clone() for value in model.norm.state_dict().values()]
    fit(model, task, Training(), Run(), purpose="t")
    assert same(frozen, list(model.norm.state_dict().values()))


def _shapes(inputs: Inputs, generator: torch.Generator) -> Inputs:
    return tuple(x[:, :, :5] for x in inputs)


def _raises(inputs: Inputs, generator: torch.Generator) -> Inputs:
    raise ValueError("no luck")


@pytest.mark.parametrize(("changes", "words"), [
    ({"augment": _raises}, r"task\.augment: failed: ValueError: no luck"),
    ({"augment": _shapes}, r"task\.augment: made .*5\]"),
    ({"train": []}, r"training needs task\.train"),
    ({"validation": []}, r"training needs task\.validation"),
    ({"loss": lambda o, t: (o - t).mean()}, r"the loss of a training batch fails: RuntimeError"),
    ({"loss": lambda o, t: o.detach().mean()}, "the loss has no gradient"),
    ({"train": [Sample((torch.zeros(1, 1, 10),), torch.zeros(1)),
                Sample((torch.zeros(1, 1, 10),), torch.zeros(1, 2))]}, "cannot be joined"),
])  # fmt: skip
def test_mistakes_are_one_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(PocketshipError, match=words):
        run_of(replace(classes_task(16), **changes), Training())


def test_an_unwritable_journal_is_told_before_training(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    said: list[str] = []
    with pytest.raises(CompressError, match="the journal cannot be written"):
        run_of(classes_task(16), Training(), folder=blocked / "x", progress=said.append)
    assert not said


def test_hooks_and_progress_count_the_batches_that_are_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(epochs, "SAY_EVERY_S", -1.0)  # a word after each batch
    task = classes_task(33)
    seen: list[tuple[int, int]] = []
    after: list[int] = []
    said: list[str] = []
    fit(
        copy.deepcopy(task.model), task, Training(epochs=2, batch_size=16),
        Run(progress=said.append, place="recipe step 1 (x)"), purpose="t",
        before_batch=lambda *at: seen.append(at), after_batch=lambda: after.append(1),
    )  # fmt: skip
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert len(after) == 4
    assert said[0].startswith("recipe step 1 (x): t: epoch 1/2, batch 1/2, loss ")
    assert said[2].startswith("recipe step 1 (x): t: epoch 1/2, loss ")
    assert "s left" in said[2]
    assert "s left" not in said[-1]


def test_the_rate_warms_up_and_falls_as_a_cosine() -> None:
    rates: list[float] = []

    class Watching(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    task = classes_task(40)
    config = Training(epochs=5, batch_size=20, learning_rate=0.1, warmup_epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "Adam", Watching)
        run_of(task, config)
    expected = [0.1 / 3, 0.2 / 3] + [0.05 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    assert rates == pytest.approx(expected)
