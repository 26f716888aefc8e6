"""What is coupled goes together; what cannot be removed exactly is left alone, with a reason."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from compress.errors import CompressError
from compress.pruning.channel_groups import ChannelGroup, find_groups, remove, silence
from tests.compress.structures import (
    SHAPE,
    Dense,
    Grouped,
    MobileNet,
    ResNet,
    Shared,
    Slim,
    Transformer,
    conv_bn,
    made,
    probe,
)

EXAMPLE = (torch.zeros(SHAPE),)
NETWORKS = [ResNet, MobileNet, Dense, Grouped, Shared, Slim, Transformer]


def groups_of(model: nn.Module) -> tuple[list[ChannelGroup], dict[str, str]]:
    return find_groups(model, EXAMPLE, probe())


def some_units(groups: list[ChannelGroup], seed: int) -> list[tuple[ChannelGroup, list[int]]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (g, torch.randperm(g.units, generator=generator)[: max(1, g.units // 3)].tolist())
        for g in groups
    ]


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("seed", [1, 2])
def test_channels_that_are_zero_can_go(make: Callable[[], nn.Module], seed: int) -> None:
    """Zeroed where they are made (filter, bias, batch norm), not where they are read."""
    model = made(make)
    groups, _ = groups_of(model)
    assert groups
    chosen = some_units(groups, seed)
    for group, units in chosen:
        for part in group.slices:
            gone = [
                channel
                for channel, root in zip(part.channels, part.roots, strict=True)
                if group.unit[root] in units
            ]
            if part.side == "in":
                continue
            layer = None if part.axis is not None else model.get_submodule(part.layer)
            if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                layer.weight.data[gone] = 0
                if layer.bias is not None:
                    layer.bias.data[gone] = 0
                if isinstance(layer, nn.BatchNorm2d):
                    layer.running_mean.data[gone] = 0
            elif isinstance(layer, nn.ConvTranspose2d):
                layer.weight.data[:, gone] = 0
                layer.bias.data[gone] = 0
    wanted = model(*probe(8))
    before = sum(p.numel() for p in model.parameters())
    remove(model, chosen)
    assert sum(p.numel() for p in model.parameters()) < before
    assert torch.allclose(model(*probe(8)), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (MobileNet, ["stem.0", *(f"blocks.{n}.conv.0.0" for n in range(3)), "blocks.1.conv.2"]),
        (Dense, ["first", "second", "third", "hidden"]),
        (Grouped, ["first", "grouped", "up", "squeeze", "last"]),
        (Shared, ["stem"]),
        (Slim, ["conv1", "conv2", "fc1"]),
    ],
)
def test_nothing_is_left_without_need(make: Callable[[], nn.Module], names: list[str]) -> None:
    groups, left = groups_of(made(make))
    assert sorted(group.name for group in groups) == sorted(names)
    assert left == {}


def test_coupled_layers() -> None:
    model = made(ResNet)
    groups, left = groups_of(model)
    filters = {frozenset(group.filters()) for group in groups}
    assert filters == {
        frozenset({"stem", "layer1.0.conv2", "layer1.1.conv2"}),
        frozenset({"layer2.0.conv2", "layer2.0.down", "layer2.1.conv2"}),
        *(frozenset({f"layer{a}.{b}.conv1"}) for a in (1, 2) for b in (0, 1)),
    }
    assert left == {}
    assert {group.name for group in groups} >= {"stem", "layer1.0.conv1"}
    remove(model, some_units(groups, 0))
    widths = {model.stem.out_channels, *(block.conv2.out_channels for block in model.layer1)}
    assert widths == {6}
    assert model.layer2[0].conv1.in_channels == 6


def test_layers_keep_their_other_channels() -> None:
    model = made(Slim)
    groups, _ = groups_of(model)
    old = copy.deepcopy(model)
    by_name = {group.name: group for group in groups}
    remove(model, [(by_name["conv1"], [1, 4]), (by_name["conv2"], [0])])
    stay = [0, 2, 3, 5, 6, 7]
    assert torch.equal(model.conv1.weight, old.conv1.weight[stay])
    assert torch.equal(model.bn1.running_var, old.bn1.running_var[stay])
    assert torch.equal(model.conv2.weight, old.conv2.weight[1:][:, stay])
    # Flattened 4 x 4 places of each channel.
    assert torch.equal(model.fc1.weight, old.fc1.weight[:, 16:])
    assert model.fc1.in_features == 15 * 16


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 4, 3),
        nn.Conv2d(6, 9, 3, groups=3),
        nn.ConvTranspose2d(6, 4, 3),
        nn.ConvTranspose2d(6, 4, 3, groups=2),
        nn.Linear(6, 4),
    ],
)
def test_silenced_inputs_are_not_read(layer: nn.Module) -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

    model = Around()
    part = next(
        part
        for group in groups_of(made(lambda: nn.Sequential(nn.Conv2d(3, 6, 1), Last())))[0]
        for part in group.slices
        if part.side == "in"
    )
    group = ChannelGroup("g", tuple(range(6)), (copy.copy(part),))
    object.__setattr__(group.slices[0], "layer", "layer")
    object.__setattr__(group.slices[0], "channels", tuple(range(6)))
    object.__setattr__(group.slices[0], "roots", tuple(range(6)))
    x = torch.randn(2, 6, 5, 6 if isinstance(layer, nn.Linear) else 5)
    axis = -1 if isinstance(layer, nn.Linear) else 1
    without = x.clone()
    without.index_fill_(axis, torch.tensor([1, 3]), 0.0)
    wanted = layer(without)
    silence(model, [(group, [1, 3])])
    assert torch.allclose(layer(x), wanted, atol=1e-6)


class Last(nn.Module):
    def __init__(self, inner: int = 6) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).mean((2, 3))


class Around(nn.Module):
    """A convolution of 8 channels, a way to use them, and a last layer."""

    def __init__(self, use: Callable[[nn.Module, Tensor], Tensor], inner: int = 8) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.extra = nn.ModuleList([nn.GroupNorm(2, 8), nn.Conv1d(1, 1, 3, padding=1)])
        self.register_buffer("scale", torch.rand(1, 8, 1, 1))
        self.use, self.last = use, Last(inner)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.use(self, self.conv(x)))


def _chunked(_: nn.Module, x: Tensor) -> Tensor:
    left, right = x.chunk(2, 1)
    return torch.cat([left, right.relu()], 1)


def _shuffled(_: nn.Module, x: Tensor) -> Tensor:
    size = x.shape
    return x.view(size[0], 2, 4, *size[2:]).transpose(1, 2).reshape(size)


def _channel_attention(model: nn.Module, x: Tensor) -> Tensor:
    weights = model.extra[1](x.mean((2, 3))[:, None])
    return x * weights[:, 0, :, None, None].sigmoid()


@pytest.mark.parametrize(
    ("use", "reason"),
    [
        (lambda model, x: model.extra[0](x), "group norm"),
        (lambda model, x: x.softmax(1), "split or mixed"),
        (lambda model, x: x * model.scale, "split or mixed"),
        (lambda model, x: x.roll(1, 1), "split or mixed"),
        (lambda model, x: x * float("nan"), "split or mixed"),
        (_shuffled, "split or mixed"),
        (_channel_attention, "split or mixed"),
    ],
    ids=["group-norm", "softmax", "buffer", "roll", "nan", "shuffle", "channel-attention"],
)
def test_left_alone(use: Callable[[nn.Module, Tensor], Tensor], reason: str) -> None:
    model = made(lambda: Around(use))
    groups, left = groups_of(model)
    assert groups == []
    assert reason in left["conv"]


def test_both_halves_of_a_gate_go_together() -> None:
    def gate(_: nn.Module, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        return left * right.sigmoid()

    model = made(lambda: Around(gate, 4))
    groups, left = groups_of(model)
    assert left == {}
    assert [(group.size, group.units, group.step) for group in groups] == [(8, 4, 2)]
    old = copy.deepcopy(model)
    remove(model, [(groups[0], [1])])
    assert torch.equal(model.conv.weight, old.conv.weight[[0, 2, 3, 4, 6, 7]])
    assert torch.equal(model.last.conv.weight, old.last.conv.weight[:, [0, 2, 3]])


def test_attention_and_what_it_adds_to_are_left_alone() -> None:
    groups, left = groups_of(made(Transformer))
    assert [group.filters() for group in groups] == [["up"]]
    assert "split or mixed" in left["qkv"]
    assert any("attention heads" in reason or "layer norm" in reason for reason in left.values())


def test_what_is_added_to_the_input_is_left_alone() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1)
            self.last = Last(3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(x + self.outer(self.inner(x).relu()))

    groups, left = groups_of(made(Whole))
    assert [group.name for group in groups] == ["inner"]
    assert list(left) == ["outer"]


@pytest.mark.parametrize("outer", [3, 9])
def test_a_depthwise_convolution_of_the_input_is_left_alone(outer: int) -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, outer, 3, groups=3), Last(outer))

    groups, left = groups_of(made(network))
    if outer == 3:
        assert (groups, list(left)) == ([], ["0"])
    else:
        # Three filters for each channel of the input: one of each can go, the input stays.
        assert [(group.name, group.units, group.step) for group in groups] == [("0", 3, 3)]


def test_tied_weights_are_left_alone() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = conv_bn(3, 6)
            self.second, self.third = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
            self.third.weight = self.second.weight
            self.last = Last(6)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.third(self.second(self.first(x)).relu()))

    groups, left = groups_of(made(Tied))
    assert groups == []
    assert all("shares a weight" in reason for reason in left.values())


def test_several_outputs_stay() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Conv2d(3, 8, 1)
            self.boxes, self.scores = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 6, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            x = self.trunk(x).relu()
            return {"boxes": self.boxes(x), "scores": self.scores(x).sigmoid(), "features": x * 2}

    groups, left = groups_of(made(Heads))
    assert (groups, left) == ([], {})  # even the trunk is an output


def test_frozen_parameters_stay_frozen_and_the_model_as_it_is() -> None:
    model = made(Slim)
    model.conv1.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    groups, _ = groups_of(model)
    assert [len(m._forward_hooks) for m in model.modules()] == [0] * len(list(model.modules()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.conv1.weight.requires_grad
    assert {group.name for group in groups} == {"conv1", "conv2", "fc1"}
    remove(model, [(groups[-1], [0]), (groups[0], [0])])
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == {"conv1.weight"}


def test_a_model_without_autograd_is_one_error() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Slim()

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                return self.inner(x)

    with pytest.raises(CompressError, match="no output depends on a parameter through autograd"):
        groups_of(made(Cut))


def test_what_torch_pruning_cannot_trace_is_one_error() -> None:
    """Of torch-pruning 1.6.1: it does not know the widths of chunks that are joined again."""
    with pytest.raises(
        CompressError, match=r"dependencies cannot be traced: \w+Error: .*\. Channel"
    ):
        groups_of(made(lambda: Around(_chunked)))


def test_a_model_that_fails_is_one_error() -> None:
    with pytest.raises(CompressError, match="inference on the example inputs fails: RuntimeError"):
        groups_of(made(lambda: nn.Conv2d(5, 4, 1)))
