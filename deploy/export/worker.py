"""Exporting one variant in a process of its own: ``python -m deploy.export.worker``.

The converters are single-threaded and print as they like, and a crash in one must not take the run
along. A request comes as one JSON line on standard input; one JSON line for each written file
goes to standard output. Standard input stays open while whoever asked is alive.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import IO

from pydantic import TypeAdapter

from compress.capture import load_program
from deploy.errors import PocketshipError
from deploy.export import EXPORTERS
from deploy.export.options import Target
from deploy.export.parallel import Answer, Request


def main() -> int:
    """Serve one request; exit code 0 where every format was written or its refusal was told."""
    # Ctrl-C reaches the whole process group; the one who asked ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The converters print; only answers may reach the pipe.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = Request.model_validate_json(sys.stdin.readline())
    threading.Thread(target=_die_with_asker, daemon=True).start()
    target: Target
    for target in TypeAdapter(list[Target]).validate_python(request.targets):
        _say(answers, Answer(begun=target.format))
        try:
            program = load_program(Path(request.program))
            exporter = EXPORTERS[target.format]
            for written in exporter(program, target, Path(request.folder), request.variant):
                _say(answers, Answer.of(written))
        except PocketshipError as error:
            refusal = {"what": error.what, "where": error.where, "hint": error.hint}
            _say(answers, Answer(error=refusal, exit_code=error.exit_code))
            return 0
    return 0


def _say(answers: IO[str], answer: Answer) -> None:
    answers.write(json.dumps(answer.model_dump(mode="json")) + "\n")
    answers.flush()


def _die_with_asker() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
