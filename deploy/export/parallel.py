"""Several variants at once, each in a worker process; the converters use one core each."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from deploy.errors import ConfigError, ExportError, PocketshipError
from deploy.export.options import Written
from deploy.types import Format, Model, Placement

_RAISED: dict[int, type[PocketshipError]] = {
    ConfigError.exit_code: ConfigError,
    ExportError.exit_code: ExportError,
}


class Request(Model):
    """What a worker is asked: export ``program`` to every target, into ``folder``."""

    variant: str
    program: str
    folder: str
    targets: tuple[dict[str, Any], ...]


class Answer(Model):
    """One line of a worker: a format begun, a file written, or why it cannot be."""

    begun: Format | None = None
    format: Format | None = None
    path: str = ""
    placement: Placement | None = None
    tools: dict[str, str] = Field(default_factory=dict)
    error: dict[str, str] | None = None
    exit_code: int = 0

    @classmethod
    def of(cls, written: Written) -> Answer:
        """The line that tells of a written file."""
        return cls(
            format=written.format,
            path=str(written.path),
            placement=written.placement,
            tools=written.tools,
        )


def export_all(requests: Sequence[Request]) -> Iterator[tuple[str, Format | Written]]:
    """Run a worker for each request; yield (variant, format begun or file written) as they come.

    When one fails, the others are ended and its error is raised; files that were written stay.
    """
    lines: queue.Queue[tuple[str, Answer | int]] = queue.Queue()
    with contextlib.ExitStack() as stack:
        for request in requests:
            worker = stack.enter_context(_worker(request))
            threading.Thread(
                target=_listen, args=(request.variant, worker, lines), daemon=True
            ).start()
        running = len(requests)
        while running:
            variant, answer = lines.get()
            if isinstance(answer, int):
                running -= 1
                if answer != 0:
                    raise _died(variant, answer)
            elif answer.error is not None:
                raise _RAISED.get(answer.exit_code, ExportError)(
                    answer.error["what"], where=answer.error["where"], hint=answer.error["hint"]
                )
            elif answer.begun is not None:
                yield variant, answer.begun
            elif answer.format is not None and answer.placement is not None:
                file = Path(answer.path)
                yield variant, Written(answer.format, file, answer.placement, answer.tools)


@contextlib.contextmanager
def _worker(request: Request) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.export.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        # A checkout need not be installed for its worker to find it.
        cwd=Path(__file__).resolve().parent.parent.parent,
    )
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(request.model_dump_json() + "\n")
            process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()


def _listen(
    variant: str, worker: subprocess.Popen[str], lines: queue.Queue[tuple[str, Answer | int]]
) -> None:
    assert worker.stdout is not None
    # The stream is closed under our feet when another worker fails.
    with contextlib.suppress(ValueError, OSError):
        for line in worker.stdout:
            with contextlib.suppress(ValidationError):
                lines.put((variant, Answer.model_validate_json(line)))
    lines.put((variant, worker.wait()))


def _died(variant: str, code: int) -> ExportError:
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return ExportError(
        f"the exporting process {how}",
        where=variant,
        hint="The run's log.txt says more; out of memory is a common cause.",
    )
