"""ExportedProgram -> ``.psk``: the program packed without loss, to be stored or sent.

No runtime loads it: ``pocketship unpack`` gives the program back, bit for bit.
"""

from __future__ import annotations

import io
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compress import archive
from deploy.errors import CompressError, ExportError, first_line
from deploy.export.options import PackedTarget, Written
from deploy.files import write_bytes
from deploy.types import Format, Placement


def export(program: Any, options: PackedTarget, folder: Path, stem: str) -> tuple[Written, ...]:
    """Pack ``program`` and write ``<stem>.psk``."""
    import torch

    buffer = io.BytesIO()
    try:
        torch.export.save(program, buffer)
        data = archive.pack_file(buffer.getvalue(), where=stem, coder=options.coder)
    except CompressError as error:
        raise ExportError(error.what, where=stem, hint=error.hint) from error
    except Exception as error:
        raise ExportError(
            f"torch cannot save the program: {type(error).__name__}: {first_line(error)}",
            where=stem,
            hint="Leave out target 'packed'.",
        ) from error
    path = folder / f"{stem}.psk"
    write_bytes(path, data)
    where = Placement(backend="none", reason="a packed program is unpacked before anything runs it")
    return (Written(Format.PACKED, path, where, {"torch": version("torch")}),)
