"""The pipeline file: YAML in, a validated :class:`PipelineConfig` out, or one line why not.

Keys are checked strictly. An error names the file, the line, the key's path and, where a key is
nearly right, the one that was probably meant.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import Field, JsonValue, ValidationError, field_validator
from pydantic_core import ErrorDetails

import compress.steps  # noqa: F401 - registers them
from compress.recipe import StepConfig, step_union
from deploy.errors import ConfigError, first_line
from deploy.export.options import Target
from deploy.types import ARTIFACT_METRICS, Budget, Format, Model
from deploy.verify.parity import ParityLimits

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
if TYPE_CHECKING:
    Step = StepConfig
else:
    Step = step_union()


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

    ``transport`` forces a way to it, ``wait_s`` is how long to wait for another pocketship that
    uses it. An ``optional`` device that cannot be had is left out and the report says so; without
    it the run is INVALID. ``passes`` replaces ``bench.passes`` on this device.
    """

    profile: str
    serial: str | None = None
    transport: Literal["tcp", "usb", "adb-server"] | None = None
    wait_s: float = Field(default=0, ge=0, le=86400)
    optional: bool = False
    passes: tuple[PassName, ...] | None = None

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
    wait_s: float = Field(default=0, ge=0, le=86400)
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
    data, tree = _parse(path)
    if not isinstance(data, dict):
        raise ConfigError(
            "is not a mapping", where=str(path), hint="See pocketship init for an example."
        )
    try:
        config = PipelineConfig.model_validate(data)
    except ValidationError as error:
        raise _explain(error.errors()[0], path, tree, len(error.errors())) from error
    for complaint in config.complaints():
        raise ConfigError(complaint, where=str(path))
    try:
        json.dumps(config.model_dump(mode="json"), allow_nan=False)
    except ValueError as error:
        raise ConfigError("holds a number that is not finite", where=str(path)) from error
    return config


def _parse(path: Path) -> tuple[Any, Any]:
    """The file's values, and its YAML nodes, which know their lines."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        hint = "Write one: pocketship init FILE."
        raise ConfigError("no such file", where=str(path), hint=hint) from error
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", where=str(path)) from error
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse(tree, path)
        return yaml.safe_load(text), tree
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "no YAML"
        raise ConfigError(f"is not valid YAML: {problem}", where=where) from error
    except RecursionError as error:
        raise ConfigError("is nested too deep", where=str(path)) from error
    except (ValueError, OverflowError) as error:
        # Such as a date with a month 13: YAML's syntax allows it, its value does not exist.
        reason = first_line(error)
        raise ConfigError(f"holds an impossible value: {reason}", where=str(path)) from error


def _refuse(tree: Any, path: Path) -> None:
    """Raise for what YAML lets pass and nobody means: a key twice, an alias, ``.nan``, ``.inf``."""
    seen: set[int] = set()
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if node is None:
            continue
        where = f"{path}:{node.start_mark.line + 1}"
        if id(node) in seen and not isinstance(node, yaml.ScalarNode):
            # Aliases of aliases grow without bound, or hold themselves.
            raise ConfigError("YAML aliases (&, *) are not allowed", where=where)
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:float":
            if node.value.lstrip("+-").lower() in {".inf", ".nan"}:
                raise ConfigError(f"{node.value} is no finite number", where=where)
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            names = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in names:
                        line = key.start_mark.line + 1
                        raise ConfigError(
                            f"the key '{key.value}' appears twice in one mapping",
                            where=f"{path}:{line}",
                        )
                    names.add(key.value)
                nodes += [key, value]


def json_schema() -> str:
    """JSON Schema of a pipeline file, for editors."""
    schema = PipelineConfig.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "pocketship pipeline"
    # A device may be a bare profile name.
    items = schema["properties"]["devices"]["items"]
    schema["properties"]["devices"]["items"] = {"anyOf": [{"type": "string"}, items]}
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def _explain(error: ErrorDetails, path: Path, tree: Any, count: int) -> ConfigError:
    keys, node = _walk(tree, error["loc"])
    dotted = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")
    hint = f"{count - 1} more problem(s) in this file." if count > 1 else ""
    if error["type"] == "extra_forbidden":
        message = "unknown key"
        if close := difflib.get_close_matches(str(keys[-1]), _known_keys(error["loc"]), n=1):
            message += f"; did you mean '{close[0]}'?"
    else:
        message = error["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        value = error.get("input")
        if isinstance(value, str | int | float | bool) and error["type"] != "missing":
            message += f" (got {value!r})"
    where = f"{path}:{node.start_mark.line + 1}" if node is not None else str(path)
    return ConfigError(f"{dotted}: {message}", where=where, hint=hint)


def _walk(tree: Any, loc: Sequence[int | str]) -> tuple[list[int | str], Any]:
    """Follow an error's location through the YAML nodes; drops pydantic's union tags from it."""
    keys: list[int | str] = []
    node, found = tree, tree
    for key in loc:
        if isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            if key >= len(node.value):
                break
            node = found = node.value[key]
            keys.append(key)
        elif isinstance(node, yaml.MappingNode):
            pairs = {k.value: (k, v) for k, v in node.value}
            if str(key) in pairs:
                found, node = pairs[str(key)]
                keys.append(key)
            elif key == loc[-1]:
                keys.append(key)
    return keys or list(loc), found


def _known_keys(loc: Sequence[int | str]) -> list[str]:
    """Every key that any model of the pipeline file knows; close enough for a suggestion."""
    names: set[str] = set()
    schema = PipelineConfig.model_json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        names |= set(part.get("properties", {}))
    return sorted(names - {str(loc[-1])})
