"""ExportedProgram -> ``.mlpackage``. Conversion runs on Linux too; prediction needs macOS."""

from __future__ import annotations

import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deploy.errors import ExportError, first_line
from deploy.export.coreml_operators import teach_coremltools
from deploy.export.half_precision import in_single_precision
from deploy.export.integer_layers import float_activations
from deploy.export.options import CoreMLTarget, Written
from deploy.export.palettes import palettize
from deploy.types import Format, Placement


def export(program: Any, options: CoreMLTarget, folder: Path, stem: str) -> tuple[Written, ...]:
    """Convert ``program`` to an ML Program and write ``<stem>.mlpackage``."""
    import coremltools as ct

    target = getattr(ct.target, options.minimum_deployment_target)
    teach_coremltools()
    try:
        program, floats = float_activations(in_single_precision(program))
        # coremltools takes the ATen dialect, torch.export gives the training dialect.
        model = ct.convert(
            program.run_decompositions({}),
            minimum_deployment_target=target,
            skip_model_load=True,
        )
    except Exception as error:
        raise ExportError(
            f"coremltools refuses the program: {type(error).__name__}: {first_line(error)}",
            where=stem,
            hint="Give pooling layers an explicit stride; leave out target 'coreml' otherwise.",
        ) from error
    reason = "Core ML chooses CPU, GPU or Neural Engine on the device"
    if floats:
        reason += f"; {floats} linear layers have float activations: it quantizes none at run time"
    if options.palettes == "auto":
        model, palettes = palettize(model, grouped=options.minimum_deployment_target == "iOS18")
        if palettes:
            reason += f"; {len(palettes)} weights stored as palettes"
    path = folder / f"{stem}.mlpackage"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{stem}.") as scratch:
        made = Path(scratch) / path.name
        model.save(str(made))
        if path.exists():
            shutil.rmtree(path)
        made.rename(path)
    where = Placement(backend="coreml", reason=reason)
    tools = {name: version(name) for name in ("torch", "coremltools", "torchao")}
    return (Written(Format.COREML, path, where, tools),)
