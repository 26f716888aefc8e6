"""The rows of the benchmark as data: networks, the variants that are made of them, targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deploy.errors import ConfigError

FOLDER = Path(__file__).parent / "rows"


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskOf(_Frozen):
    """``module:function`` in examples/ and its arguments; with ``seeded`` it also gets ``seed``."""

    callable: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    seeded: bool = True


class Variant(_Frozen):
    """One way to make the network smaller.

    ``maker`` is a name in :data:`benchmarks.compression.makers.MAKERS`, ``arguments`` are its own
    (a recipe's ``steps``, for one), ``task_arguments`` replace the row's. ``instructions``: count
    them on the emulated phone.
    """

    title: str
    maker: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    task_arguments: dict[str, Any] = Field(default_factory=dict)
    instructions: bool = False


class Reference(_Frozen):
    """A figure of another variant of the same seed."""

    variant: str
    figure: str


class Target(_Frozen):
    """One condition on the mean over seeds.

    ``value`` is the figure itself; ``times_smaller`` is reference / figure; ``share`` is figure /
    reference; ``points_lost`` is 100 * (reference - figure).
    """

    text: str
    variant: str
    figure: str
    kind: Literal["value", "times_smaller", "share", "points_lost"] = "value"
    against: Reference | None = None
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _whole(self) -> Target:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("a target has either at_least or at_most")
        if (self.kind == "value") != (self.against is None):
            raise ValueError("a target of kind value has no reference, any other kind needs one")
        return self

    def holds(self, value: float) -> bool:
        """Whether ``value`` reaches the target; a figure equal to the limit does."""
        if self.at_least is not None:
            return value >= self.at_least
        assert self.at_most is not None
        return value <= self.at_most


class Latency(_Frozen):
    """Two variants whose ``.onnx`` are timed here in turns; the figure is the median ratio."""

    variant: str
    against: str


class Row(_Frozen):
    """A network, its variants in the order in which they are made, and what should be reached."""

    name: str
    title: str
    task: TaskOf
    seeds: int = Field(ge=1)
    variants: dict[str, Variant] = Field(min_length=1)
    latency: Latency | None = None
    targets: tuple[Target, ...] = ()

    @model_validator(mode="after")
    def _known_variants(self) -> Row:
        named = [target.variant for target in self.targets]
        named += [target.against.variant for target in self.targets if target.against]
        named += [self.latency.variant, self.latency.against] if self.latency else []
        for variant in named:
            if variant not in self.variants:
                raise ValueError(f"there is no variant '{variant}'")
        return self


def names(folder: Path = FOLDER) -> list[str]:
    """All rows, in the order in which they are run: that of the numbers before their names."""
    return [path.stem.partition("-")[2] for path in sorted(folder.glob("[0-9]*-*.yaml"))]


def load(name: str, folder: Path = FOLDER) -> Row:
    """Read one row; ``ConfigError`` where there is none of that name or it is not sound."""
    found = sorted(folder.glob(f"[0-9]*-{name}.yaml"))
    if name not in names(folder) or not found:
        raise ConfigError(
            f"no row '{name}'", where="MODEL", hint=f"Use one of {', '.join(names(folder))}."
        )
    try:
        content = yaml.safe_load(found[0].read_text(encoding="utf-8"))
        return Row.model_validate({"name": name, **content})
    except (yaml.YAMLError, ValidationError, TypeError) as error:
        raise ConfigError(str(error), where=found[0].name) from error
