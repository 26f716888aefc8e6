"""Programs: what is refused, what is counted, what survives a round trip to disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compress.capture import (
    capture,
    count_parameters,
    drop_unused,
    forward_of,
    load_program,
    weight_bytes,
)
from compress.errors import CompressError, ConfigError
from compress.recipe import apply
from tests.compress.networks import IMAGE, Small, images, made_of, seeded, task_of, token_task


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_dynamic_control_flow_is_refused_in_one_line() -> None:
    with pytest.raises(CompressError) as caught:
        capture(Branching(), (torch.ones(2),), name="branching")
    text = str(caught.value)
    assert text.startswith("branching: torch.export refuses the model")
    assert "\n" not in text
    assert "torch.cond" in text


def test_memory_order_of_examples_does_not_matter() -> None:
    model, (x,) = seeded(Small), images(1, 5)[0]
    permuted = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not permuted.is_contiguous()
    plain, other = capture(model, (x,)), capture(model, (permuted,))
    assert str(plain.graph) == str(other.graph)
    strides = [node.meta["val"].stride() for node in other.graph.nodes if "val" in node.meta]
    assert strides == [n.meta["val"].stride() for n in plain.graph.nodes if "val" in n.meta]
    # Not bit-equal: convolution takes another path for another memory order.
    torch.testing.assert_close(forward_of(other)((permuted,)), forward_of(plain)((x,)))


def test_two_inputs_one_of_them_integers() -> None:
    task = token_task()
    program = capture(task.model, task.example_inputs)  # type: ignore[arg-type]
    expected = task.model(*task.evaluation[0].inputs)  # type: ignore[operator]
    assert torch.equal(forward_of(program)(task.evaluation[0].inputs)[0], expected)
    assert count_parameters(program) == 11 * 6 + 6 * 4 + 4


@pytest.mark.parametrize("quantized", [False, True], ids=["fp32", "int8"])
def test_saved_program_computes_the_same(tmp_path: Path, quantized: bool) -> None:
    made = made_of(Small) if quantized else apply(task_of(seeded(Small)), [])
    torch.export.save(made.program, tmp_path / "m.pt2")
    loaded = load_program(tmp_path / "m.pt2")
    for inputs, expected in zip(images(8, 3), made.program_outputs, strict=True):
        assert torch.equal(forward_of(loaded)(inputs)[0], expected[0])
    assert weight_bytes(loaded) == made.ledger[-1].program_bytes
    assert count_parameters(loaded) == made.ledger[-1].parameters


def test_unreadable_programs(tmp_path: Path) -> None:
    good = tmp_path / "good.pt2"
    torch.export.save(capture(seeded(Small), (torch.zeros(IMAGE),)), good)
    data = good.read_bytes()
    cases = {"absent.pt2": None, "empty.pt2": b"", "text.pt2": b"not a program"}
    cases |= {f"cut{share}.pt2": data[: len(data) * share // 10] for share in (1, 5, 9)}
    torch.save({"weights": torch.zeros(3)}, tmp_path / "foreign.pt2")
    for name, content in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    for name in (*cases, "foreign.pt2"):
        with pytest.raises(ConfigError) as caught:
            load_program(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.unread = nn.Parameter(torch.zeros(1000))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def test_shared_weights_count_once_and_unread_ones_not_at_all() -> None:
    program = capture(Tied().eval(), (torch.zeros(1, 4),))
    assert count_parameters(program) == 4 * 4 + 4
    assert weight_bytes(program) == 4 * (4 * 4 + 4)


def test_counts_of_a_quantized_program() -> None:
    row = made_of(Small).ledger[-1]
    int8 = 8 * 3 * 9 + 8 * 9 + 8 * 8 + 5 * 8
    biases = 8 + 8 + 8 + 5  # batch norm is folded into the first one
    assert row.parameters == int8 + biases
    qparams = row.program_bytes - int8 - 4 * biases
    # A scale of 4 bytes a channel; zero points (int64) are all zero and may be one tensor.
    assert 4 * 29 + 8 * 8 <= qparams <= (4 + 8) * 29


def test_drop_unused_keeps_the_outputs() -> None:
    x = torch.ones(1, 4)
    graph = capture(Tied().eval(), (x,)).module(check_guards=False)
    graph.register_buffer("dead", torch.zeros(7))
    before = graph(x)
    drop_unused(graph)
    assert torch.equal(graph(x), before)
    assert not hasattr(graph, "dead")
    assert {name for name, _ in graph.named_parameters()} == {"second.weight", "second.bias"}
