"""What exporting leaves: files, each with a manifest that vouches for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from compress.capture import load_program
from compress.judgement.macs import count_macs
from deploy import __version__, workspace
from deploy.errors import ConfigError
from deploy.export.options import Target, Written
from deploy.export.parallel import Request
from deploy.export.planned_memory import planned_bytes
from deploy.files import sha256, tree_digest
from deploy.stored.compressed import kept_steps
from deploy.types import (
    Artifact,
    TensorSpec,
)
from deploy.workspace import RunFolder


def _manifest(folder: RunFolder, name: str) -> Path:
    return folder.artifacts / f"{name}.manifest.json"


def export_requests(folder: RunFolder) -> list[Request]:
    """For each variant the targets whose files are not there yet, or not whole."""
    requests = []
    for variant in folder.config.variants:
        missing = [t for t in folder.config.targets if not _is_exported(folder, variant, t)]
        if missing:
            request = Request(
                variant=variant,
                program=str(folder.compress / f"{variant}.pt2"),
                folder=str(folder.artifacts),
                targets=tuple(target.model_dump(mode="json") for target in missing),
            )
            requests.append(request)
    return requests


def _is_exported(folder: RunFolder, variant: str, target: Target) -> bool:
    """Whether every file of that target is there, with the content that its manifest says."""
    source = sha256(folder.compress / f"{variant}.pt2")
    for wanted in target.formats():
        try:
            artifact = workspace.read_json(_manifest(folder, f"{variant}.{wanted}"), Artifact)
        except ConfigError:
            return False
        if artifact.source_sha256 != source or workspace.damage(artifact, folder.artifacts):
            return False
    return True


def write_manifest(folder: RunFolder, variant: str, written: Written) -> Artifact:
    """Describe a file that an exporter wrote; the manifest is written last, so it vouches."""
    source = folder.compress / f"{variant}.pt2"
    recipe = () if variant == folder.config.baseline else kept_steps(folder)
    artifact = described(variant, load_program(source), source, written, recipe)
    workspace.write_json(_manifest(folder, artifact.name), artifact)
    return artifact


def described(
    variant: str,
    program: Any,
    source: Path,
    written: Written,
    recipe: tuple[dict[str, Any], ...] = (),
) -> Artifact:
    """What is known of a file that an exporter wrote of ``program``, which lies at ``source``."""
    digest, size = tree_digest(written.path)
    macs = count_macs(program)
    planned, no_plan = planned_bytes(written.path, written.format)
    unknown = {
        "macs": "" if macs.total is not None else f"nobody counts {', '.join(macs.unknown)}",
        "planned_bytes": no_plan,
    }
    return Artifact(
        name=f"{variant}.{written.format}",
        variant=variant,
        format=written.format,
        path=written.path.name,
        sha256=digest,
        bytes=size,
        inputs=specs(program, program.graph_signature.user_inputs),
        outputs=specs(program, program.graph_signature.user_outputs),
        source_sha256=sha256(source),
        tools={"pocketship": __version__, **written.tools},
        recipe=recipe,
        placement=written.placement,
        macs=macs.total,
        planned_bytes=planned,
        unknown={field: why for field, why in unknown.items() if why},
    )


def specs(program: Any, names: Sequence[Any]) -> tuple[TensorSpec, ...]:
    """The tensors of a program's graph that have these names, in order."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    return tuple(
        TensorSpec(
            name=str(name),
            dtype=str(values[name].dtype).removeprefix("torch."),
            shape=tuple(int(size) for size in values[name].shape),
        )
        for name in names
        if isinstance(values.get(name), Tensor)
    )
