"""What a student learns from a teacher's hidden layers, besides its answers.

Hints: Romero et al., "FitNets: Hints for Thin Deep Nets" (arXiv 1412.6550). Attention transfer:
Zagoruyko & Komodakis, "Paying More Attention to Attention" (arXiv 1612.03928).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from compress.errors import CompressError, PocketshipError, first_line
from compress.quality import flat_outputs
from compress.samples import Sample


class _Pair(BaseModel):
    """Two layers by dotted name; the teacher's has the same name if left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    student: str = Field(min_length=1)
    teacher: str | None = None

    @property
    def taught(self) -> str:
        """Name of the teacher's layer."""
        return self.student if self.teacher is None else self.teacher


class HiddenPair(_Pair):
    """The student's output shall be the teacher's; projected where their widths differ."""

    weight: float = Field(default=1.0, gt=0)


class AttentionPair(_Pair):
    """Both shall look at the same places: compares normalised energies over the channels.

    The default weight is that of the paper (beta = 1000, on the mean over places and samples).
    """

    weight: float = Field(default=1000.0, gt=0)


class Watched:
    """Collects outputs of named layers while the block runs; leaves no hook behind, ever.

    ``with Watched(model, names, "the student") as outputs: model(...)`` fills ``outputs`` with
    name -> tensor. Raises ``CompressError`` for a name that is no layer, a layer that the forward
    pass does not call or calls more than once, and one that returns something else than a tensor.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], whose: str) -> None:
        self.names, self.whose = sorted(set(names)), whose
        self.outputs: dict[str, Tensor] = {}
        self._calls: dict[str, int] = dict.fromkeys(self.names, 0)
        self._handles: list[RemovableHandle] = []
        layers = dict(model.named_modules(remove_duplicate=False)) if names else {}
        if names and isinstance(model, torch.fx.GraphModule):
            raise CompressError(
                f"{whose} is a captured graph without layers to compare",
                where="distill",
                hint="Leave out hidden and attention here (quantization-aware training); soft "
                "labels work.",
            )
        for name in self.names:
            if name not in layers:
                close = difflib.get_close_matches(name, layers, n=3, cutoff=0.5)
                raise CompressError(
                    f"{whose} has no layer '{name}'",
                    where="distill",
                    hint=f"There are {', '.join(close or [n for n in layers if n][:5])}.",
                )
        self._layers = {name: layers[name] for name in self.names}

    def __enter__(self) -> dict[str, Tensor]:
        for name, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(self._hook(name)))
        return self.outputs

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        for name, calls in self._calls.items() if kind is None else ():
            if calls != 1:
                raise CompressError(
                    f"{self.whose} runs its layer '{name}' {calls} times",
                    where="distill",
                    hint="Name a layer that runs once in a forward pass.",
                )

    def _hook(self, name: str) -> Any:
        def hook(_: nn.Module, __: object, output: object) -> None:
            self._calls[name] += 1
            if not isinstance(output, Tensor):
                raise CompressError(
                    f"layer '{name}' of {self.whose} returns {type(output).__name__}, no tensor",
                    where="distill",
                    hint="Name a layer within it.",
                )
            # A copy: the layer behind may be an activation that works in place.
            self.outputs[name] = output.clone()

        return hook


class Hints:
    """The loss of hidden layers, with its projections.

    Args:
        taught: the teacher's outputs for ``sample``, by layer name.
        seed: projections start from it.
    """

    def __init__(
        self,
        hidden: Sequence[HiddenPair],
        attention: Sequence[AttentionPair],
        student: nn.Module,
        *,
        taught: Mapping[str, Tensor],
        sample: Sample,
        seed: int,
    ) -> None:
        self.hidden, self.attention = hidden, attention
        pairs = (*hidden, *attention)
        self.student_layers = [pair.student for pair in pairs]
        self.teacher_layers = [pair.taught for pair in pairs]
        with Watched(student, self.student_layers, "the student") as learnt:
            _run(student, sample)
        self.projections = nn.ModuleDict()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for number, hint in enumerate(hidden):
                projection = _projection(hint, learnt[hint.student], taught[hint.taught])
                if projection is not None:
                    self.projections[str(number)] = projection
        for pair in attention:
            _check_spatial(pair.student, learnt[pair.student])
            _check_spatial(pair.taught, taught[pair.taught])

    def loss(self, learnt: Mapping[str, Tensor], taught: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum over all pairs."""
        total = torch.zeros(())
        for number, hint in enumerate(self.hidden):
            mine, theirs = learnt[hint.student], taught[hint.taught]
            if str(number) in self.projections:
                mine = self.projections[str(number)](mine)
            mine, theirs = mine.float(), theirs.float()  # the resizing knows no half precision
            total = total + hint.weight * functional.mse_loss(_resized(mine, theirs), theirs)
        for pair in self.attention:
            mine, theirs = (_attention(learnt[pair.student]), _attention(taught[pair.taught]))
            total = total + pair.weight * functional.mse_loss(
                functional.normalize(_resized(mine, theirs).flatten(1)),
                functional.normalize(theirs.flatten(1)),
            )
        return total


def _run(student: nn.Module, sample: Sample) -> None:
    """A forward pass that changes nothing (evaluation mode: no running statistics)."""
    modes = [(module, module.training) for module in student.modules()]
    student.eval()
    try:
        with torch.no_grad():
            flat_outputs(student(*sample.inputs))
    except PocketshipError:
        raise
    except Exception as error:
        raise CompressError(
            f"the student fails on a training batch: {type(error).__name__}: {first_line(error)}",
            where="distill",
        ) from error
    finally:
        for module, training in modes:
            module.training = training


def _projection(pair: HiddenPair, mine: Tensor, theirs: Tensor) -> nn.Module | None:
    """What brings the student's width to the teacher's; None where they are equal.

    [batch, channels, height, width]: 1x1 convolution. [batch, tokens, features] with equally many
    tokens, and [batch, features]: linear layer. [batch, channels, length]: 1x1 convolution.
    """
    if mine.ndim != theirs.ndim or not 2 <= mine.ndim <= 4:
        raise _incomparable(pair, mine, theirs)
    if mine.shape[1:] == theirs.shape[1:]:
        return None
    if mine.ndim == 4:
        wide, narrow = mine.shape[1], theirs.shape[1]
        return None if wide == narrow else nn.Conv2d(wide, narrow, 1)
    if mine.ndim == 2 or mine.shape[1] == theirs.shape[1]:
        return nn.Linear(mine.shape[-1], theirs.shape[-1])
    if mine.shape[2] == theirs.shape[2]:
        return nn.Conv1d(mine.shape[1], theirs.shape[1], 1)
    raise _incomparable(pair, mine, theirs)


def _check_spatial(name: str, output: Tensor) -> None:
    if output.ndim != 4:
        raise CompressError(
            "attention needs outputs [batch, channels, height, width], "
            f"'{name}' gives {list(output.shape)}",
            where="distill",
            hint="Use hidden for this pair.",
        )


def _incomparable(pair: HiddenPair, mine: Tensor, theirs: Tensor) -> CompressError:
    return CompressError(
        f"'{pair.student}' of the student gives {list(mine.shape)}, "
        f"'{pair.taught}' of the teacher {list(theirs.shape)}: they cannot be compared",
        where="distill",
        hint="Pair layers whose outputs differ in channels, or in height and width, only.",
    )


def _attention(features: Tensor) -> Tensor:
    """[batch, channels, height, width] -> mean square over the channels, [batch, 1, ...]."""
    return features.float().square().mean(dim=1, keepdim=True)


def _resized(mine: Tensor, theirs: Tensor) -> Tensor:
    """The student's map in the teacher's height and width (bilinear, antialiased)."""
    if mine.ndim != 4 or mine.shape[2:] == theirs.shape[2:]:
        return mine
    size = list(theirs.shape[2:])
    return functional.interpolate(
        mine, size=size, mode="bilinear", align_corners=False, antialias=True
    )
