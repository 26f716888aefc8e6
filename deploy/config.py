"""The pipeline file: YAML in, a validated :class:`PipelineConfig` out, or one line why not.

Keys are checked strictly. An error names the file, the line, the key's path and, where a key is
nearly right, the one that was probably meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, JsonValue, ValidationError, field_validator

import compress.steps  # noqa: F401 - registers them
from compress.recipe import StepConfig, step_union
from deploy import strict_yaml
from deploy.errors import ConfigError
from deploy.export.options import Target
from deploy.types import ARTIFACT_METRICS, Budget, Format, GateRules, Model
from deploy.verify.parity import ParityLimits

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
if TYPE_CHECKING:
    Step = StepConfig
else:
    Step = step_union()


REACH_S = 120.0
"""A phone that restarts takes about a minute; in the middle of a run it gets as long."""

PassName = Literal["loads", "memory", "operators", "task"]
"""What can be looked at beside time: :data:`deploy.bench.passes.choice.MADE`."""


class TaskConfig(Model):
    """Where model and data come from: a Python callable, or a saved ``.pt2`` program alone.

    With ``program`` there are no data: parity is judged on ``random_samples`` seeded random inputs,
    and the report says so.
    """

    callable: str | None = None
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    program: Path | None = None
    random_samples: int = Field(default=16, gt=0, le=1000)

    @field_validator("callable")
    @classmethod
    def _has_colon(cls, value: str | None) -> str | None:
        if value is not None and ":" not in value:
            raise ValueError("is not of the form module:function")
        return value


class DeviceConfig(Model):
    """One device: a profile (``auto``: the phone's properties choose it), and a phone's serial.

    ``transport`` forces a way to it. ``wait_s`` is how long to wait for it, while another
    pocketship uses it and while it does not answer; None: not for the former, and for the latter
    :data:`REACH_S`, or not at all where it is optional. An ``optional`` device that cannot be had
    is left out and the report says so; without it the run is INVALID. ``passes`` replaces
    ``bench.passes`` on this device.
    """

    profile: str
    serial: str | None = None
    transport: Literal["tcp", "usb", "adb-server"] | None = None
    wait_s: float | None = Field(default=None, ge=0, le=86400)
    optional: bool = False
    passes: tuple[PassName, ...] | None = None

    @property
    def busy_s(self) -> float:
        """Seconds to wait while another pocketship uses it."""
        return self.wait_s or 0.0

    @property
    def reach_s(self) -> float:
        """Seconds to wait while it does not answer."""
        if self.wait_s is not None:
            return self.wait_s
        return 0.0 if self.optional else REACH_S

    @property
    def name_or_star(self) -> str:
        """The profile's name; ``*`` for ``auto`` and for a path: the phone, the file knows it."""
        is_path = "/" in self.profile or self.profile.endswith((".yaml", ".yml"))
        return "*" if is_path or self.profile == "auto" else self.profile


class BenchConfig(Model):
    """How cases are measured. ``threads``: one case for each number.

    ``passes``: what is looked at beside time, on every device; None: what the preset has, and
    nothing on devices whose profile sets its own iterations. ``task_samples``: at most so many of
    the evaluation samples are run on a device. ``minutes``: how long ``sustained`` measures.
    """

    preset: Literal["quick", "release", "sustained", "exact"] = "quick"
    threads: tuple[Annotated[int, Field(ge=1, le=64)], ...] = Field(default=(1,), min_length=1)
    passes: tuple[PassName, ...] | None = None
    task_samples: int = Field(default=64, ge=1, le=100_000)
    minutes: int = Field(default=10, ge=10, le=30)


class Requirements(Model):
    """What the compressed model must keep of the uncompressed one, on the evaluation data."""

    min_sqnr_db: float | None = None
    min_top1_agreement: float | None = Field(default=None, ge=0, le=1)
    max_metric_drop: float | None = None


class CostConfig(Model):
    """Where the ledger measures what one inference costs after each step; ``bench.preset`` holds.

    ``device``, ``serial`` and ``transport`` are as in ``devices``, where it need not be named.
    """

    device: str
    serial: str | None = None
    transport: Literal["tcp", "usb", "adb-server"] | None = None
    wait_s: float | None = Field(default=None, ge=0, le=86400)
    format: Literal[Format.EXECUTORCH, Format.ONNX] = Format.EXECUTORCH
    threads: int = Field(default=1, ge=1, le=64)

    @property
    def wanted(self) -> DeviceConfig:
        """The device, as in ``devices``."""
        return DeviceConfig(
            profile=self.device,
            serial=self.serial,
            transport=self.transport,
            wait_s=self.wait_s,
        )


class RecipeConfig(Model):
    """The compressed variant: its name, its steps, what it must keep, where steps are measured."""

    name: Name = "compressed"
    steps: tuple[Step, ...] = Field(min_length=1)
    require: Requirements = Requirements()
    cost: CostConfig | None = None

    def complaints(self) -> Iterator[str]:
        """What is wrong across keys."""
        for number, step in enumerate(self.steps):
            wants = step.keep_if is not None and step.keep_if.min_cost_gain is not None
            if wants and self.cost is None:
                yield (
                    f"recipe.steps[{number}].keep_if.min_cost_gain: nothing is measured; "
                    "name a device in recipe.cost"
                )


class GateConfig(GateRules):
    """What `pocketship gate` takes for a change where this pipeline is its head.

    ``accepted``: the file of changes that were signed off, looked for beside the pipeline file.
    """

    accepted: Path | None = None

    @property
    def rules(self) -> GateRules:
        """The rules alone, as a gate's report keeps them."""
        return GateRules.model_validate(self.model_dump(exclude={"accepted"}))


class PipelineConfig(Model):
    """A whole pipeline file."""

    version: Literal[1]
    name: Name
    seed: int = Field(default=0, ge=0)
    task: TaskConfig
    baseline: Name | None = "fp32"
    recipe: RecipeConfig | None = None
    targets: tuple[Target, ...] = Field(min_length=1)
    verify: dict[Name, ParityLimits] = Field(default_factory=dict)
    devices: tuple[DeviceConfig, ...] = ()
    bench: BenchConfig = BenchConfig()
    budgets: tuple[Budget, ...] = ()
    gate: GateConfig = GateConfig()
    reports: Path = Path("reports")
    history: str | None = Field(default=None, min_length=1)

    @field_validator("history", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        # YAML reads `off` and `no` as false.
        return "none" if value is False else value

    @field_validator("devices", mode="before")
    @classmethod
    def _bare_names(cls, value: Any) -> Any:
        if isinstance(value, list):
            return [{"profile": item} if isinstance(item, str) else item for item in value]
        return value

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the models that are exported, the baseline first."""
        recipe = (self.recipe.name,) if self.recipe else ()
        return ((self.baseline,) if self.baseline else ()) + recipe

    def complaints(self) -> Iterator[str]:
        """What is wrong across keys."""
        if bool(self.task.callable) == bool(self.task.program):
            yield "task: give either 'callable' or 'program'"
        if not self.variants:
            yield "nothing to export: give a recipe or keep the baseline"
        if len(set(self.variants)) != len(self.variants):
            yield f"recipe.name: '{self.variants[0]}' is the baseline's name too"
        for unknown in sorted(set(self.verify) - set(self.variants)):
            choices = ", ".join(self.variants)
            yield f"verify.{unknown}: no such variant; there are: {choices}"
        if _repeated([target.format for target in self.targets]):
            yield "targets: a format appears twice"
        if _repeated([device.profile for device in self.devices if device.profile != "auto"]):
            yield "devices: a profile appears twice"
        if _repeated(self.bench.threads):
            yield "bench.threads: a number appears twice"
        if self.history and re.search(r"://[^/]*:[^/]*@|pass\w*=", self.history):
            yield "history: holds a password; leave it out and set POCKETSHIP_HISTORY"
        if self.recipe:
            yield from self.recipe.complaints()
        yield from self._budgets_without_subject()

    def _budgets_without_subject(self) -> Iterator[str]:
        formats = [made for target in self.targets for made in target.formats()]
        artifacts = [f"{variant}.{made}" for variant in self.variants for made in formats]
        cases = [
            f"{artifact}@{device.name_or_star}/t{threads}"
            for artifact in artifacts
            for device in self.devices
            for threads in self.bench.threads
        ]
        for number, budget in enumerate(self.budgets):
            names = artifacts if budget.metric in ARTIFACT_METRICS else cases
            subject = budget.subject
            if not any(
                name == subject or fnmatchcase(name, subject) or fnmatchcase(subject, name)
                for name in names
            ):
                choices = ", ".join(names[:4]) or "none"
                yield (
                    f"budgets[{number}]: '{budget.subject}' is no subject of {budget.metric}; "
                    f"there are: {choices}{', ...' if len(names) > 4 else ''}"
                )


def _repeated(values: Sequence[object]) -> bool:
    return len(set(values)) != len(values)


def load(path: Path) -> PipelineConfig:
    """Read and validate a pipeline file; raises ``ConfigError`` with file, line and key."""
    data, tree = strict_yaml.parse(path, missing="Write one: pocketship init FILE.")
    if not isinstance(data, dict):
        raise ConfigError(
            "is not a mapping", where=str(path), hint="See pocketship init for an example."
        )
    try:
        config = PipelineConfig.model_validate(data)
    except ValidationError as error:
        raise strict_yaml.explain(error, path, tree, PipelineConfig) from error
    for complaint in config.complaints():
        raise ConfigError(complaint, where=str(path))
    try:
        json.dumps(config.model_dump(mode="json"), allow_nan=False)
    except ValueError as error:
        raise ConfigError("holds a number that is not finite", where=str(path)) from error
    return config


def json_schema() -> str:
    """JSON Schema of a pipeline file, for editors."""
    schema = PipelineConfig.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "pocketship pipeline"
    # A device may be a bare profile name.
    items = schema["properties"]["devices"]["items"]
    schema["properties"]["devices"]["items"] = {"anyOf": [{"type": "string"}, items]}
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"
