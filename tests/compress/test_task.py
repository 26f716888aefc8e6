"""What a user's task can do wrong, and what is said about it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.errors import ConfigError
from compress.task import Sample, Task, check, load_task
from tests.compress.networks import NO_TARGET, Small, seeded, task_of

MODULE = """
import torch
from compress.task import Sample, Task
def good(size=2):
    x = (torch.zeros(1, size),)
    return Task(torch.nn.Linear(size, 2), x, evaluation=[Sample(x, torch.tensor([0]))])
def wrong(): return 3
def fails(): raise FileNotFoundError("no photographs\\nsecond line")
def leaves(): raise SystemExit(0)
value = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path = list(sys.path)
    (tmp_path / "ps_task.py").write_text(MODULE)
    (tmp_path / "ps_broken.py").write_text("import ps_no_such_package\n")
    (tmp_path / "ps_script.py").write_text("import sys; sys.exit(0)\n")
    (tmp_path / "ps_syntax.py").write_text("def f(:\n")
    yield tmp_path
    sys.path[:] = path
    for name in [n for n in sys.modules if n.startswith("ps_")]:
        del sys.modules[name]


def test_load_passes_arguments(folder: Path) -> None:
    task = load_task("ps_task:good", {"size": 7}, [folder])
    assert task.example_inputs[0].shape == (1, 7)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("ps_task", "not of the form module:function"),
        ("ps_task:", "not of the form module:function"),
        (":good", "not of the form module:function"),
        ("ps_absent:good", "cannot import 'ps_absent': ModuleNotFoundError"),
        ("ps_broken:f", "No module named 'ps_no_such_package'"),
        ("ps_script:f", "cannot import 'ps_script': SystemExit"),
        ("ps_syntax:f", "cannot import 'ps_syntax': SyntaxError"),
        ("ps_task:absent", "has no function 'absent'"),
        ("ps_task:value", "has no function 'value'"),
        ("ps_task:fails", "failed: FileNotFoundError: no photographs"),
        ("ps_task:leaves", "'ps_task:leaves' failed: SystemExit"),
        ("ps_task:wrong", "returned int, not a compress.task.Task"),
    ],
)
def test_load_failures_are_one_line(folder: Path, target: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_task(target, {}, [folder])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_argument(folder: Path) -> None:
    with pytest.raises(ConfigError, match="unexpected keyword argument 'colour'"):
        load_task("ps_task:good", {"colour": 1}, [folder])


def _with(**changes: Any) -> Task:
    return replace(task_of(seeded(Small)), **changes)


IMAGE = torch.zeros(1, 3, 12, 12)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": "resnet"}, "task.model: model is str"),
        ({"metric": "top1"}, "task.metric: is str"),
        ({"example_inputs": ()}, "task.example_inputs: is empty"),
        ({"example_inputs": [IMAGE]}, "task.example_inputs: is not a tuple"),
        ({"evaluation": []}, "task.evaluation: is empty"),
        ({"evaluation": [IMAGE]}, r"task.evaluation\[0\]: is Tensor, not a Sample"),
        ({"evaluation": (x for x in [])}, "task.evaluation: is generator"),
        ({"calibration": (x for x in [])}, "task.calibration: is generator"),
        ({"calibration": [IMAGE]}, r"task.calibration\[0\]: is not a tuple"),
        ({"calibration": [(IMAGE,), (IMAGE, IMAGE)]}, r"calibration\[1\]: has 2 tensors"),
        ({"calibration": [(IMAGE[:, :2],)]}, r"tensor 0 is \[1, 2, 12, 12\]"),
        ({"evaluation": [Sample((IMAGE.double(),))]}, "torch.float64, the example input"),
        ({"evaluation": [Sample((IMAGE * math.nan,))]}, r"tensor 0 holds NaN"),
        ({"calibration": [(IMAGE + math.inf,)]}, r"tensor 0 holds NaN or infinity"),
        ({"evaluation": [Sample((IMAGE,), 3)]}, r"evaluation\[0\]: has a target of int"),
    ],
)
def test_check_faults(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check(_with(**changes))


def test_check_accepts_what_is_right() -> None:
    check(_with(metric=NO_TARGET, calibration=()))
