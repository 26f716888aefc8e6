"""The journal: what it gives back is what was kept, or nothing; failures to write are one line."""

from __future__ import annotations

import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.code_print import code_print
from compress.errors import CompressError
from compress.journal import Run, finite_weights, key_of
from tests.compress.networks import seeded

VALUES = {"weights": {"a": torch.arange(6.0).reshape(2, 3)}, "rows": [[1, 0.5]], "name": "x"}


def file_of(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    run = Run(folder=tmp_path / "new" / "journal")
    run.keep("k", VALUES)
    back = run.kept("k")
    assert back is not None
    assert torch.equal(back.pop("weights")["a"], VALUES["weights"]["a"])  # type: ignore[index]
    assert back == {"rows": [[1, 0.5]], "name": "x"}
    assert run.kept("other") is None
    run.forget("k")
    assert run.kept("k") is None
    nowhere = Run()
    nowhere.keep("k", VALUES)
    assert nowhere.kept("k") is None


def test_every_flipped_byte_and_every_cut_is_noticed(tmp_path: Path) -> None:
    said: list[str] = []
    run = Run(progress=said.append, folder=tmp_path)
    run.keep("k", VALUES)
    path = file_of(tmp_path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(bytes(damaged))
        assert run.kept("k") is None, place
    for length in (0, 10, 64, 65, 66, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert run.kept("k") is None, length
    assert said[-1] == "k.state is damaged; doing that part again"
    path.write_bytes(whole)
    assert run.kept("k") is not None


def test_a_remembered_value_is_computed_once_and_again_if_damaged(tmp_path: Path) -> None:
    calls: list[int] = []

    def compute() -> dict[str, Any]:
        calls.append(1)
        return {"rank": [4, 8], "share": 0.1}

    run = Run(folder=tmp_path)
    assert run.remember("k", compute) == run.remember("k", compute) == compute()
    assert len(calls) == 2
    path = file_of(tmp_path)
    # A digit that is flipped is still JSON, and must not be believed.
    path.write_bytes(path.read_bytes().replace(b"[4, 8]", b"[4, 9]"))
    assert run.remember("k", compute) == {"rank": [4, 8], "share": 0.1}
    assert len(calls) == 3


def test_a_journal_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    run = Run(folder=blocked / "journal")
    for act in (run.check_writable, lambda: run.keep("k", VALUES)):
        with pytest.raises(CompressError, match=r"journal.*cannot be written: Not a directory"):
            act()
    assert run.kept("k") is None


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    """The kernel itself refuses to make files larger than a limit, as a full disk would."""
    run = Run(folder=tmp_path)
    run.keep("k", VALUES)
    before = file_of(tmp_path).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(CompressError, match="the journal cannot be written: File too large"):
            run.keep("k", {"big": torch.zeros(5000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file_of(tmp_path).read_bytes() == before


def _loss(scale: float) -> Callable[[Tensor], Tensor]:
    def loss(x: Tensor) -> Tensor:
        return x.square().mean() * scale

    return loss


class Custom(nn.Module):
    def __init__(self, power: int, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.power, self.after = power, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.layer(x) ** self.power)


class Edited(Custom):
    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.layer(x) * self.power)


def test_keys_tell_apart_what_computes_differently() -> None:
    def net(activation: nn.Module) -> nn.Module:
        return seeded(lambda: nn.Sequential(nn.Linear(3, 3), activation))

    keys = [
        key_of(net(nn.ReLU())),
        key_of(net(nn.GELU())),
        key_of(net(nn.Dropout(0.1))),
        key_of(net(nn.Dropout(0.2))),
        key_of(seeded(lambda: Custom(1, torch.relu))),
        key_of(seeded(lambda: Custom(2, torch.relu))),
        key_of(seeded(lambda: Custom(2, _loss(1.0)))),
        key_of(seeded(lambda: Edited(2, _loss(1.0)))),
        key_of(_loss(1.0)),
        key_of(_loss(2.0)),
        key_of(partial(torch.mean, dim=1)),
        key_of(partial(torch.mean, dim=2)),
    ]
    assert len(set(keys)) == len(keys)
    # Neither the mode nor the object matters.
    model = net(nn.ReLU())
    model.train()
    assert key_of(model) == keys[0]
    assert key_of(_loss(2.0)) == keys[9]
    assert key_of(seeded(lambda: Custom(2, _loss(1.0)))) == keys[6]


def test_code_of_any_kind_has_a_print() -> None:
    class Callable_:
        def __init__(self) -> None:
            self.self = [self]

        def __call__(self, x: float) -> float:
            return x

    values = [None, 3, "x", len, torch.relu, Callable_(), Callable_().__call__, {1, 2}, [len], {}]
    assert len({code_print(value) for value in values}) == len(values)


def test_statistics_that_are_not_finite_are_named_and_other_buffers_may_be() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2))
    model.register_buffer("mask", torch.full((2, 2), -torch.inf))
    finite_weights(model, "here")
    model[0].running_var[1] = torch.nan
    with pytest.raises(CompressError, match=r"here: the weight '0\.running_var' holds NaN"):
        finite_weights(model, "here")
