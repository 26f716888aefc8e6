"""What one run of a recipe carries: seed, progress, and a journal of work that is finished.

A recipe is made again from its start after a crash. Everything in it is deterministic, so only
what takes long is kept: each training leaves its state under a name made of all that went into it,
and is taken from there when the same training is asked for again. No module is ever pickled; the
files hold tensors and numbers and are read with ``weights_only``. Each file carries the SHA-256 of
its content: one that was cut or changed costs time, never a wrong result.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from compress import samples
from compress.code_print import code_print
from compress.errors import CompressError, first_line
from compress.files import write_bytes
from compress.task import Task


def _silent(_: str) -> None:
    pass


@dataclass(frozen=True)
class Run:
    """The surroundings of one ``recipe.apply``.

    Args:
        seed: everything random is drawn from generators made of it, see :meth:`generator`.
        progress: receives one short line about what is going on.
        folder: where the journal lies; None keeps nothing, and an interrupted run starts afresh.
        place: what is running now, such as ``recipe step 2 (prune)``; begins progress lines.
    """

    seed: int = 0
    progress: Callable[[str], None] = _silent
    folder: Path | None = None
    place: str = ""
    _prints: dict[int, tuple[Task, str]] = field(default_factory=dict, compare=False, repr=False)

    def say(self, text: str) -> None:
        """Tell the user, with the place in front."""
        self.progress(f"{self.place}: {text}" if self.place else text)

    def generator(self, *purpose: object) -> torch.Generator:
        """A generator that depends on the seed, the place and ``purpose`` only."""
        return torch.Generator().manual_seed(self.derived_seed(*purpose))

    def derived_seed(self, *purpose: object) -> int:
        """A 63-bit seed made of the run's seed, the place and ``purpose``."""
        text = json.dumps([self.seed, self.place, [str(part) for part in purpose]])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1

    def data_print(self, task: Task) -> str:
        """Fingerprint of the task's training and validation data, computed once."""
        if id(task) not in self._prints:
            parts = [samples.fingerprint(task.train), samples.fingerprint(task.validation)]
            self._prints[id(task)] = (task, "".join(parts))
        return self._prints[id(task)][1]

    def keep(self, key: str, values: dict[str, Any]) -> None:
        """Store tensors, numbers, strings and containers of them under ``key``, atomically.

        Raises ``CompressError`` where the folder cannot be written; nothing is half-written then.
        """
        if self.folder is None:
            return
        stream = io.BytesIO()
        torch.save(values, stream)
        self._write(f"{key}.state", stream.getvalue())

    def kept(self, key: str) -> dict[str, Any] | None:
        """What was stored under ``key``; None where nothing usable is there."""
        content = self._read(f"{key}.state")
        if content is None:
            return None
        try:
            values = torch.load(io.BytesIO(content), weights_only=True)
        except Exception as error:
            self.say(f"{key}.state cannot be read ({first_line(error)}); doing that part again")
            return None
        return values if isinstance(values, dict) else None

    def forget(self, key: str) -> None:
        """Remove what was stored under ``key``."""
        if self.folder is not None:
            for suffix in ("state", "json"):
                (self.folder / f"{key}.{suffix}").unlink(missing_ok=True)

    def remember(self, key: str, compute: Callable[[], Any]) -> Any:
        """A JSON value that is computed once a journal: a measured cost, a chosen rank."""
        content = self._read(f"{key}.json")
        if content is not None:
            try:
                return json.loads(content)
            except ValueError:
                self.say(f"{key}.json cannot be read; doing that part again")
        value = compute()
        if self.folder is not None:
            self._write(f"{key}.json", json.dumps(value, allow_nan=False).encode())
        return value

    def check_writable(self) -> None:
        """Raise ``CompressError`` now, and not after an hour of training, for a bad folder."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError("no permission to write")
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    def _write(self, name: str, content: bytes) -> None:
        assert self.folder is not None
        head = hashlib.sha256(content).hexdigest().encode() + b"\n"
        try:
            write_bytes(self.folder / name, head + content)
        except OSError as error:
            raise _unwritable(self.folder / name, error) from error

    def _read(self, name: str) -> bytes | None:
        """A file's content; None where it is not there or not what was written."""
        path = None if self.folder is None else self.folder / name
        if path is None or not path.is_file():
            return None
        try:
            head, _, content = path.read_bytes().partition(b"\n")
        except OSError as error:
            self.say(f"{name} cannot be read ({error.strerror}); doing that part again")
            return None
        if head != hashlib.sha256(content).hexdigest().encode():
            self.say(f"{name} is damaged; doing that part again")
            return None
        return content


def _unwritable(path: Path, error: OSError) -> CompressError:
    return CompressError(
        f"the journal cannot be written: {error.strerror or error}",
        where=str(path),
        hint="Free space or mend the permissions and run again: what was kept is still there.",
    )


def key_of(*parts: object) -> str:
    """A name for the journal: 32 hex digits of SHA-256.

    ``parts`` are JSON values; modules, which count with their weights, structure and code; exported
    programs (graph and weights); and functions, which count with their code
    (:mod:`compress.code_print`).
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, ExportedProgram):
            graphs = [m for m in part.graph_module.modules() if isinstance(m, fx.GraphModule)]
            text = "".join(str(graph.graph) for graph in graphs) + str(part.graph_signature)
            digest.update(f"{len(text)}:{text}".encode())
            for name, value in sorted({**part.state_dict, **part.constants}.items()):
                digest.update(name.encode())
                samples.update(digest, value if isinstance(value, torch.Tensor) else None)
        elif isinstance(part, nn.Module):
            state = part.state_dict()
            digest.update(f"{type(part).__name__} {len(state)} {code_print(part)}".encode())
            for name, value in state.items():
                digest.update(name.encode())
                samples.update(digest, value if isinstance(value, torch.Tensor) else None)
        elif callable(part):
            digest.update(f"code {code_print(part)}".encode())
        else:
            text = json.dumps(part, sort_keys=True, default=str)
            digest.update(f"{len(text)}:{text}".encode())
    return digest.hexdigest()[:32]


def finite_weights(model: nn.Module, where: str) -> None:
    """Raise ``CompressError`` that names the first weight with NaN or infinity.

    Running statistics of normalisation layers count too; other buffers may hold infinity, as the
    masks of attention do.
    """
    statistics = ((n, b) for n, b in model.named_buffers() if n.endswith(_STATISTICS))
    for name, value in (*model.named_parameters(), *statistics):
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CompressError(
                f"the weight '{name}' holds NaN or infinity",
                where=where,
                hint="Lower the learning rate, or clip gradients (clip_grad_norm).",
            )


_STATISTICS = ("running_mean", "running_var")
