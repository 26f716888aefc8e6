"""Which files of base and head are compared, and the jobs that measure them alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from deploy.bench.job import Job
from deploy.errors import ConfigError
from deploy.files import sha256, write_bytes
from deploy.gating.bare import UNKNOWN_PLACEMENT
from deploy.gating.sides import Version
from deploy.types import Artifact, Format, TensorSpec


@dataclass(frozen=True)
class Filter:
    """What of the two sides is asked for; empty: everything."""

    variants: tuple[str, ...] = ()
    formats: tuple[Format, ...] = ()

    def lets_pass(self, artifact: Artifact) -> bool:
        """Whether the artifact is asked for."""
        return (not self.variants or artifact.variant in self.variants) and (
            not self.formats or artifact.format in self.formats
        )


@dataclass(frozen=True)
class Meeting:
    """Both sides, narrowed to what was asked for; ``names`` are the artifacts that both have."""

    base: Version
    head: Version
    names: tuple[str, ...]

    @property
    def same(self) -> tuple[str, ...]:
        """The artifacts whose files are equal on both sides: comparing them is an A/A test."""
        return tuple(
            name for name in self.names if _sha256(self.base, name) == _sha256(self.head, name)
        )

    def notes(self) -> tuple[str, ...]:
        """What a reader should know beside the verdicts."""
        told = []
        if self.same:
            which = "base and head" if len(self.same) == len(self.names) else ", ".join(self.same)
            told.append(f"{which}: the same file on both sides (A/A): only noise can differ")
        unplaced = [
            name
            for name in self.names
            if not (_placed(self.base, name) and _placed(self.head, name))
        ]
        if unplaced:
            told.append(
                f"{', '.join(unplaced)}: without a manifest on a side, so partitions, the "
                "delegated share and MACs are not compared"
            )
        unverified = [
            name for name in self.names if name not in {row.artifact for row in self.head.parity}
        ]
        if unverified:
            told.append(f"{', '.join(unverified)}: nobody verified what head's file computes")
        return tuple(told)


def _sha256(version: Version, name: str) -> str:
    """Of a file that the side has; a history has figures only."""
    return next((a.sha256 for a in version.side.artifacts if a.name == name), "")


def _placed(version: Version, name: str) -> bool:
    backends = (a.placement.backend for a in version.side.artifacts if a.name == name)
    return UNKNOWN_PLACEMENT.backend not in backends


def meet(base: Version, head: Version, wanted: Filter) -> Meeting:
    """Pair the artifacts of the same name.

    Two model files that were named as such meet under head's name where they are of one format; a
    history meets all that head has. Raises ``ConfigError`` where nothing meets.
    """
    base, head = _narrowed(base, wanted), _narrowed(head, wanted)
    if base.side.kind == "history":
        return _of_history(base, head)
    if _is_single(base) and _is_single(head):
        ours, theirs = head.side.artifacts[0], base.side.artifacts[0]
        if ours.format is theirs.format:
            base = _renamed(base, ours)
    there = {artifact.name for artifact in base.side.artifacts}
    names = tuple(a.name for a in head.side.artifacts if a.name in there)
    if not names:
        raise ConfigError(
            f"have no artifact in common: base has {_names(base)}; head has {_names(head)}",
            where=f"{base.side.label} and {head.side.label}",
            hint="Artifacts meet by name, VARIANT.FORMAT; --variant and --format narrow them.",
        )
    return _placed_alike(Meeting(base, head, names))


def _of_history(base: Version, head: Version) -> Meeting:
    """Everything that head has: which of it the history knows is found once it was measured."""
    names = tuple(artifact.name for artifact in head.side.artifacts)
    if not names:
        raise ConfigError(
            "has no artifact that was asked for",
            where=f"head {head.side.label}",
            hint="--variant and --format narrow what is compared.",
        )
    return Meeting(base, head, names)


def _placed_alike(meeting: Meeting) -> Meeting:
    """What is unknown of one side because its file came bare, is left out of the other, too."""
    bare = {
        name
        for name in meeting.names
        if not (_placed(meeting.base, name) and _placed(meeting.head, name))
    }

    def without(version: Version) -> Version:
        artifacts = tuple(
            artifact.model_copy(
                update={
                    "placement": UNKNOWN_PLACEMENT,
                    "macs": None,
                    "unknown": {**artifact.unknown, "macs": UNKNOWN_PLACEMENT.reason},
                }
            )
            if artifact.name in bare
            else artifact
            for artifact in version.side.artifacts
        )
        return replace(version, side=version.side.model_copy(update={"artifacts": artifacts}))

    return Meeting(without(meeting.base), without(meeting.head), meeting.names)


def _narrowed(version: Version, wanted: Filter) -> Version:
    kept = tuple(filter(wanted.lets_pass, version.side.artifacts))
    return replace(version, side=version.side.model_copy(update={"artifacts": kept}))


def _is_single(version: Version) -> bool:
    return version.side.kind == "artifacts" and len(version.side.artifacts) == 1


def _renamed(version: Version, like: Artifact) -> Version:
    (artifact,) = version.side.artifacts
    renamed = artifact.model_copy(update={"name": like.name, "variant": like.variant})
    return replace(
        version,
        side=version.side.model_copy(update={"artifacts": (renamed,)}),
        files={like.name: version.files[artifact.name]},
    )


def _names(version: Version) -> str:
    names = [artifact.name for artifact in version.side.artifacts]
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") if names else "none"


def jobs(meeting: Meeting, name: str, threads: int, scratch: Path) -> tuple[Job, Job]:
    """What base and head are asked on the device: the same inputs wherever both take them.

    The inputs are head's, else base's, else random ones that are written into ``scratch``. Outputs
    are held against a side's program only where the inputs are that program's.
    """
    ours, theirs = meeting.head.artifact(name), meeting.base.artifact(name)
    alike = _shapes(ours.inputs) == _shapes(theirs.inputs)
    head_inputs = meeting.head.inputs.get(name)
    base_inputs = meeting.base.inputs.get(name)
    if alike:
        shared = head_inputs or base_inputs or random_inputs(ours.inputs, scratch)
        chosen = {"head": shared, "base": shared}
    else:
        chosen = {
            "head": head_inputs or random_inputs(ours.inputs, scratch),
            "base": base_inputs or random_inputs(theirs.inputs, scratch),
        }
    return (
        _job(meeting.base, theirs, chosen["base"], threads),
        _job(meeting.head, ours, chosen["head"], threads),
    )


def head_job(meeting: Meeting, name: str, threads: int, scratch: Path) -> Job:
    """What head alone is asked, where base is not measured."""
    artifact = meeting.head.artifact(name)
    inputs = meeting.head.inputs.get(name) or random_inputs(artifact.inputs, scratch)
    return _job(meeting.head, artifact, inputs, threads)


def _job(version: Version, artifact: Artifact, inputs: Path, threads: int) -> Job:
    own = version.inputs.get(artifact.name)
    fits = own is not None and (own == inputs or sha256(own) == sha256(inputs))
    return Job(
        artifact=artifact,
        path=version.files[artifact.name],
        inputs=inputs,
        reference=version.outputs.get(artifact.name) if fits else None,
        threads=threads,
    )


def _shapes(specs: Sequence[TensorSpec]) -> list[tuple[str, tuple[int, ...]]]:
    return [(spec.dtype, spec.shape) for spec in specs]


def random_inputs(specs: Sequence[TensorSpec], folder: Path) -> Path:
    """A raw file of inputs for these tensors: normal numbers, and zeros for whole ones.

    Zero is the one index that every embedding has. The same specs give the same file. Raises
    ``ConfigError`` for an element type that no runtime takes.
    """
    random = torch.Generator().manual_seed(0)
    content = b"".join(_random(spec, random) for spec in specs)
    path = folder / f"inputs-{hashlib.sha256(content).hexdigest()[:16]}.bin"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)
    return path


def _random(spec: TensorSpec, random: torch.Generator) -> bytes:
    dtype = getattr(torch, spec.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise ConfigError(
            f"no inputs of {spec.dtype} can be made",
            where=f"input '{spec.name}'",
            hint="Compare run folders or pipelines, which bring inputs of their own.",
        )
    if dtype.is_floating_point:
        values = torch.randn(spec.shape, generator=random).to(dtype)
    else:
        values = torch.zeros(spec.shape, dtype=dtype)
    if dtype is torch.bfloat16:
        return bytes(values.view(torch.int16).numpy().tobytes())
    return bytes(values.numpy().tobytes())
