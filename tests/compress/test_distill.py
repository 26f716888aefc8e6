"""Distillation: each loss is what its paper says; a student learns what only the teacher knows."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from compress.distill import Distillation, Distilled
from compress.errors import CompressError
from compress.fine_tune import DistillStep, FineTuning, fine_tune
from compress.hints import AttentionPair, HiddenPair
from compress.journal import Run
from compress.recipe import apply
from compress.samples import TensorSamples
from compress.task import Sample, Task, TaskMetric
from compress.training import Training, fit
from tests.compress.networks import classes_task, seeded

NEGATIVE_ERROR = TaskMetric(
    "mse",
    lambda outputs, targets: float(
        sum((o - t).square().mean() for o, t in zip(outputs, targets, strict=True) if t is not None)
        / len(outputs)
    ),
    higher_is_better=False,
)


class Net(nn.Module):
    """Two convolutions with an activation that works in place, and a head."""

    def __init__(self, width: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, width, 3, stride=stride, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.head = nn.Linear(2 * width, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.second(torch.relu_(self.first(x))))
        return self.head(x.mean((2, 3)))


def image_task(student: nn.Module, teacher: nn.Module) -> Task:
    generator = torch.Generator().manual_seed(0)

    def samples(count: int) -> TensorSamples:
        return TensorSamples(
            (torch.randn(count, 2, 8, 8, generator=generator),),
            torch.randint(0, 3, (count,), generator=generator),
        )

    return Task(
        model=student, example_inputs=(torch.zeros(1, 2, 8, 8),), teacher=teacher,
        train=samples(24), validation=samples(12), evaluation=samples(4),
    )  # fmt: skip


def loss_of(config: Distillation, task: Task, student: nn.Module) -> tuple[Tensor, Sample]:
    assert task.teacher is not None
    distilled = Distilled(config, student, task.teacher, task)
    assert isinstance(task.train, TensorSamples)
    sample = task.train.batch(slice(0, 5))
    return distilled.objective()(student, sample), sample


def softmax(scores: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
    exponents = numpy.exp(scores - scores.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


def test_soft_labels_are_hintons() -> None:
    student, teacher = seeded(lambda: Net(2)), seeded(lambda: Net(4), 1)
    task = image_task(student, teacher)
    loss, sample = loss_of(Distillation(temperature=3.0, soft_weight=0.6), task, student)
    with torch.no_grad():
        mine, theirs = (net(*sample.inputs).double().numpy() for net in (student, teacher))
    p, q = softmax(theirs / 3), softmax(mine / 3)
    assert sample.target is not None
    hard = -numpy.log(softmax(mine))[numpy.arange(5), sample.target.numpy()].mean()
    soft = (p * numpy.log(p / q)).sum(-1).mean()
    assert float(loss.detach()) == pytest.approx(0.4 * hard + 0.6 * 9 * soft, rel=1e-5)


def test_classes_on_another_axis_count_each_place_once() -> None:
    """Scores [batch, classes, places] give what their rows [batch * places, classes] give."""
    student, teacher = nn.Conv1d(2, 4, 1), nn.Conv1d(2, 4, 1)
    points = torch.randn(6, 2, 5, generator=torch.Generator().manual_seed(0))
    data = TensorSamples((points,), torch.zeros(6, 5, dtype=torch.long))
    task = Task(student, (points[:1],), train=data, validation=data, teacher=teacher)
    config = Distillation(soft_weight=1.0, class_axis=1, temperature=2.0)
    got = Distilled(config, student, teacher, task).objective()(student, data.batch(slice(None)))
    p, q = ((net(points) / 2).softmax(1).double() for net in (teacher, student))
    assert float(got.detach()) == pytest.approx(
        4 * float((p * (p / q).log()).sum(1).mean().detach()), rel=1e-4
    )


def test_hints_and_attention_are_what_the_papers_say() -> None:
    student, teacher = seeded(lambda: Net(3)), seeded(lambda: Net(3), 1)
    task = image_task(student, teacher)
    plain, sample = loss_of(Distillation(soft_weight=0.5), task, student)
    hidden = (HiddenPair(student="first", weight=2.0), HiddenPair(student="head", weight=0.5))
    attention = (AttentionPair(student="second", weight=100.0),)
    config = Distillation(soft_weight=0.5, hidden=hidden, attention=attention)
    loss, _ = loss_of(config, task, student)
    x = sample.inputs[0]
    expected = float(plain.detach())
    maps = []
    with torch.no_grad():
        # Before the activation that works in place, as the layer's name says.
        expected += 2.0 * float((student.first(x) - teacher.first(x)).square().mean())
        expected += 0.5 * float((student(x) - teacher(x)).square().mean())
        for net in (student, teacher):
            energy = net.second(torch.relu(net.first(x))).square().sum(1).flatten(1)
            maps.append(energy / energy.norm(dim=1, keepdim=True))
        expected += 100.0 * float((maps[0] - maps[1]).square().mean())
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)


def test_projections_are_trained_beside_the_student_and_gone_afterwards(tmp_path: Path) -> None:
    """A thinner student with a smaller map: 1x1 convolution, and resized."""
    student, teacher = seeded(lambda: Net(2, stride=2)), seeded(lambda: Net(5), 1)
    task = image_task(student, teacher)
    pairs = (HiddenPair(student="second", weight=5.0), HiddenPair(student="first", teacher="head"))
    keys = list(student.state_dict())
    with pytest.raises(CompressError, match=r"'first' .* \[2, 2, 4, 4\], 'head' .* cannot be"):
        loss_of(Distillation(hidden=pairs), task, student)
    config = FineTuning(
        epochs=3, batch_size=8, learning_rate=0.01,
        distill=Distillation(hidden=pairs[:1], attention=(AttentionPair(student="second"),)),
    )  # fmt: skip
    assert config.distill is not None
    distilled = Distilled(config.distill, student, teacher, task, seed=7)
    extra = [name for name in distilled.trained.state_dict() if "projections" in name]
    assert [tuple(distilled.trained.state_dict()[n].shape) for n in extra] == [(10, 4, 1, 1), (10,)]
    start = copy.deepcopy(distilled.trained.state_dict())
    fit(
        student, task, config, Run(), purpose="t", objective=distilled.objective(),
        trained=distilled.trained,
    )  # fmt: skip
    assert all(not torch.equal(start[name], distilled.trained.state_dict()[name]) for name in extra)

    def once(folder: Path | None, stop: int = 99) -> nn.Module:
        class Killed(BaseException):
            pass

        def progress(line: str) -> None:
            if f"epoch {stop}/3" in line:
                raise Killed

        own = seeded(lambda: Net(2, stride=2))
        torch.manual_seed(stop)  # what the caller drew before must not matter
        try:
            fine_tune(own, task, config, Run(5, progress, folder))
        except Killed:
            return once(folder)
        return own

    whole, resumed = once(None), once(tmp_path, stop=2)
    assert list(whole.state_dict()) == keys
    for (name, value), other in zip(
        whole.state_dict().items(), resumed.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name
    for net in (whole, teacher):
        assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize(("pair", "words"), [
    (HiddenPair(student="secnd"), "the teacher has no layer 'secnd'.*second"),
    (HiddenPair(student="secnd", teacher="second"), "the student has no layer 'secnd'.*second"),
    (HiddenPair(student="unused"), "the teacher runs its layer 'unused' 0 times"),
    (AttentionPair(student="head"), r"attention needs outputs .*'head' gives \[2, 3\]"),
])  # fmt: skip
def test_pairs_that_cannot_be(pair: HiddenPair | AttentionPair, words: str) -> None:
    student = seeded(lambda: Net(2))
    task = image_task(student, seeded(lambda: Net(2), 1))
    kind = "hidden" if isinstance(pair, HiddenPair) else "attention"
    with pytest.raises(CompressError, match=words):
        loss_of(Distillation(**{kind: (pair,)}), task, student)
    assert not any(m._forward_hooks for net in (student, task.teacher) for m in net.modules())


def test_teachers_that_cannot_teach_this_student() -> None:
    student = seeded(lambda: Net(2))
    one = nn.Sequential(nn.Conv2d(2, 1, 8), nn.Flatten())
    other = nn.Sequential(nn.Flatten(), nn.Linear(128, 7))
    larger = nn.Sequential(nn.Flatten(), nn.Linear(2 * 16 * 16, 3))
    for teacher, words in (
        (other, r"the student answers \[5, 3\], the teacher \[5, 7\]"),
        (larger, r"the teacher cannot take the student's inputs \[2, 2, 8, 8\]"),
    ):
        with pytest.raises(CompressError, match=words):
            loss_of(Distillation(), image_task(student, teacher), student)
    with pytest.raises(CompressError, match=r"one class, whose softmax is always 1.*mse"):
        loss_of(Distillation(soft_weight=1.0), image_task(one, one), one)


def test_hooks_are_gone_after_a_loss_that_failed() -> None:
    class Breaks(Net):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) == 5:
                raise ValueError("five")
            return super().forward(x)

    student = seeded(lambda: Breaks(2))
    task = image_task(student, seeded(lambda: Net(2), 1))
    with pytest.raises(ValueError, match="five"):
        loss_of(Distillation(hidden=(HiddenPair(student="first"),)), task, student)
    assert not any(module._forward_hooks for module in student.modules())


def test_a_captured_graph_learns_soft_labels_only() -> None:
    net = seeded(lambda: Net(2))
    task = image_task(net, seeded(lambda: Net(2), 1))
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        net, (torch.zeros(2, 2, 8, 8),), dynamic_shapes=({0: batch},), strict=False
    )
    graph = program.module(check_guards=False)
    loss, _ = loss_of(Distillation(), task, graph)
    assert math.isfinite(float(loss.detach()))
    with pytest.raises(CompressError, match="the student is a captured graph without layers"):
        loss_of(Distillation(hidden=(HiddenPair(student="first"),)), task, graph)


def test_regression_learns_from_the_teachers_answers() -> None:
    """The targets are noise: only the teacher knows the function."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    teacher = nn.Linear(6, 2).requires_grad_(False)

    def samples(count: int, noise: float) -> TensorSamples:
        x = torch.randn(count, 6, generator=generator)
        return TensorSamples((x,), teacher(x) + noise * torch.randn(count, 2, generator=generator))

    task = Task(
        model=nn.Linear(6, 2), example_inputs=(torch.zeros(1, 6),), teacher=teacher,
        train=samples(32, 5.0), validation=samples(32, 0.0), evaluation=samples(32, 0.0),
        metric=NEGATIVE_ERROR, loss=nn.functional.mse_loss,
    )  # fmt: skip
    training = {"epochs": 30, "batch_size": 8, "learning_rate": 0.05}
    error = {}
    for weight in (0.0, 1.0):
        step = DistillStep(**training, distill=Distillation(method="mse", soft_weight=weight))
        quality = apply(task, [step]).ledger[-1].quality
        assert quality is not None
        error[weight] = quality.metric_value
    assert error[1.0] < 0.05 * error[0.0]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_every_loss_in_half_precision(precision: str) -> None:
    student = seeded(lambda: Net(2, stride=2))
    task = image_task(student, seeded(lambda: Net(4), 1))
    config = FineTuning(
        precision=precision,
        distill=Distillation(
            hidden=(HiddenPair(student="second"),), attention=(AttentionPair(student="first"),)
        ),
    )
    history = fine_tune(student, task, config, Run())
    assert math.isfinite(history.best.loss)


def test_the_step_distils_by_itself_and_needs_data() -> None:
    task = replace(classes_task(), teacher=seeded(lambda: classes_task().model, 3))
    assert DistillStep().distill == Distillation()
    made = apply(task, [DistillStep(epochs=1)])
    assert made.ledger[-1].notes[0].startswith("trained 1 epochs")
    with pytest.raises(CompressError, match=r"needs task\.train, which is empty"):
        apply(replace(task, train=[]), [DistillStep()])


def test_training_takes_no_distillation() -> None:
    assert "distill" not in Training.model_fields
