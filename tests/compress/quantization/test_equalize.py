"""Equalization keeps the float function for every input, and evens out what it says it does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

from compress.quantization.equalize import equalize, groups_of, proven_bounds
from compress.quantization.float_graph import float_graph
from compress.recipe import State
from tests.compress.networks import seeded, task_of

SHAPE = (1, 4, 9, 9)


class Chain(nn.Module):
    """An inverted residual with batch norm, then grouped and plain convolutions."""

    def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.act = act
        self.expand, self.norm = nn.Conv2d(4, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.depth = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.project = nn.Conv2d(12, 4, 1)
        self.grouped = nn.Conv2d(4, 8, 3, groups=2)
        self.last = nn.Conv2d(8, 6, 1)
        self.norm.running_var.uniform_(0.01, 5)
        self.norm.running_mean.normal_()
        with torch.no_grad():
            # Channels of very different sizes, some of which never reach a clamp at 6.
            spread = torch.logspace(-3, 0, 12)
            self.depth.weight *= spread.view(-1, 1, 1, 1)
            self.depth.bias *= spread
            self.grouped.weight[2] *= 50

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm(self.expand(x)))
        y = x + self.project(self.act(F.pad(self.act(self.depth(y)), (0, 0, 0, 0))))
        return self.last(self.act(self.grouped(y)))


class Relu(Chain):
    def __init__(self) -> None:
        super().__init__(F.relu)


class Relu6(Chain):
    def __init__(self) -> None:
        super().__init__(F.relu6)


class Perceptron(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 3))


class Branches(nn.Module):
    """One of two readers is a GELU: nothing can be scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(4, 4, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(F.relu(y)) + self.c(F.gelu(y))


def graph_of(make: Callable[[], nn.Module]) -> GraphModule:
    task = task_of(seeded(make), SHAPE)
    return float_graph(State(task, task.model, None))  # type: ignore[arg-type]


@pytest.mark.parametrize("by", ["weights", "activations"])
@pytest.mark.parametrize("make", [Relu, Relu6, Perceptron, Branches])
def test_the_function_stays_for_inputs_far_from_calibration(
    make: Callable[[], nn.Module], by: str
) -> None:
    model, graph = seeded(make), graph_of(make)
    calibration = [(torch.randn(SHAPE) * 0.1,) for _ in range(2)]
    before = {name: value.clone() for name, value in graph.named_parameters()}
    equalize(graph, calibration, by)  # type: ignore[arg-type]
    changed = any(not torch.equal(before[n], v) for n, v in graph.named_parameters())
    assert changed == (make is not Branches)
    for size in (0.1, 1.0, 100.0):
        x = torch.randn(SHAPE) * size
        expected = model(x)
        assert float((graph(x) - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def test_weight_ranges_become_equal() -> None:
    graph = graph_of(Relu)
    equalize(graph, [(torch.randn(SHAPE),)], "weights")
    first, second = graph.get_parameter("grouped.weight"), graph.get_parameter("last.weight")
    rows = first.flatten(1).abs().amax(1)
    columns = second.abs().amax((0, 2, 3))
    torch.testing.assert_close(rows, columns, rtol=0.02, atol=0)


def test_activation_ranges_become_more_equal() -> None:
    def spread(graph: GraphModule) -> float:
        nodes = [n for n in graph.graph.nodes if str(n.target) == "aten.relu.default"]

        class Watch(torch.fx.Interpreter):
            def run_node(self, n: torch.fx.Node) -> Tensor:
                value: Tensor = super().run_node(n)
                if n is nodes[0]:
                    self.seen = value.amax((0, 2, 3))
                return value

        watch = Watch(graph)
        watch.run(x)
        return float(watch.seen.max() / watch.seen[watch.seen > 0].min())

    torch.manual_seed(1)
    x = torch.randn(SHAPE)
    before, after = graph_of(Relu), graph_of(Relu)
    equalize(after, [(x,)], "activations")
    assert spread(after) < 1.1 < 3 < spread(before)


def test_proven_bounds_hold_and_are_reached() -> None:
    graph = graph_of(Relu6)
    group = next(g for g in groups_of(graph) if g.name.startswith("depth"))
    low, high = proven_bounds(graph, group.firsts[0])
    layer = seeded(Relu6).depth
    worst = torch.where(layer.weight > 0, 6.0, 0.0)[:, 0][None]  # one patch a channel
    reached = F.conv2d(worst, layer.weight, layer.bias, groups=12)[0, :, 0, 0]
    torch.testing.assert_close(high, reached)
    assert bool((low <= layer.bias).all())
    assert float(proven_bounds(graph, groups_of(graph)[0].firsts[0])[1].max()) == torch.inf


def test_a_floor_is_absorbed_by_the_next_bias() -> None:
    class Floor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 3, 1)
            nn.init.constant_(self.a.bias, 50.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(F.relu(self.a(F.relu6(x))))

    model, graph = seeded(Floor), graph_of(Floor)
    notes = equalize(graph, [(torch.randn(SHAPE),)], "weights")
    assert notes[1] == "biases of 4 channels absorbed by the layer behind"
    x = torch.randn(SHAPE) * 30
    torch.testing.assert_close(graph(x), model(x), rtol=1e-4, atol=1e-4)
