"""What the user sees: progress, results, one line an error, and no noise of other libraries.

While a command runs, the process's own standard output and error lead to a log file, because the
libraries below (C++ ones too) write there as they like. The user's terminal is kept aside for
what pocketship itself says.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

import typer
from rich.console import Console
from rich.status import Status as Spinner
from rich.table import Table as RichTable
from rich.text import Text

from deploy.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_OK, ConfigError, PocketshipError
from deploy.paths import state_dir

_WIDE = 400
"""Columns of a table that goes to a file or pipe: there is no edge to break lines at."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


def visible(text: str) -> str:
    """``text`` with every control character but newline and tab shown as an escape.

    Names come from files, models and devices: none of them may move the cursor or set a title.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _one_line(text: str) -> str:
    return visible(" ".join(text.split()))


class Session:
    """One command's talk with its user."""

    def __init__(self, command: str, out: IO[str], err: IO[str], log: IO[bytes] | None) -> None:
        self.command = command
        self.exit_code = EXIT_OK
        self.resume_hint = ""
        self.log_path: Path | None = None
        width = None if out.isatty() else _WIDE
        self._out = Console(file=out, highlight=False, soft_wrap=True, width=width)
        self._err = Console(file=err, highlight=False, soft_wrap=True)
        self._log = log
        self._started = time.monotonic()
        self._spinner: Spinner | None = None

    @property
    def out(self) -> IO[str]:
        """Standard output as it is, for data that other programs read."""
        self._stop_spinner()
        return self._out.file

    def say(self, text: str) -> None:
        """Print a result, as it is, to standard output."""
        self._stop_spinner()
        self._out.print(Text(visible(text)))

    def progress(self, line: str) -> None:
        """Print what is going on, with the seconds since the start, to standard error."""
        elapsed = time.monotonic() - self._started
        text = Text.assemble((f"{elapsed:7.1f}s ", "dim"), _one_line(line))
        if self._err.is_terminal:
            self._stop_spinner()
            self._err.print(text)
            self._spinner = self._err.status(Text(self.command, style="dim"))
            self._spinner.start()
        else:
            self._err.print(text)
        if self._log is not None:
            self._note(f"-- {elapsed:7.1f}s {_one_line(line)}\n")

    def table(self, title: str, columns: list[tuple[str, bool]], rows: list[list[str]]) -> None:
        """Print a table; a column is its name and whether it holds numbers. Cells are no markup."""
        self._stop_spinner()
        table = RichTable(title=Text(_one_line(title)), title_justify="left", title_style="bold")
        for name, number in columns:
            table.add_column(Text(_one_line(name)), justify="right" if number else "left")
        for row in rows:
            table.add_row(*(Text(_one_line(cell)) for cell in row))
        self._out.print(table, soft_wrap=False)

    def log_to(self, path: Path) -> None:
        """Let the log go on in ``path``, with what it held so far.

        Raises:
            ConfigError: the file cannot be written.
        """
        if self._log is None:
            return
        _flush()
        self._log.seek(0)
        earlier = self._log.read()
        try:
            with path.open("ab") as stream:
                stream.write(earlier)
                stream.flush()
                os.dup2(stream.fileno(), 1)
                os.dup2(stream.fileno(), 2)
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror}", where=str(path)) from error
        self.log_path = path

    def fail(self, text: str, code: int) -> None:
        """Print one error line and choose the exit code."""
        self._stop_spinner()
        line = _one_line(text)
        self._err.print(Text.assemble(("pocketship: ", "bold red"), line))
        if self._log is not None:
            self._note(f"-- exit code {code}: {line}\n")
        self.exit_code = code

    def explain(self, error: PocketshipError) -> None:
        """One line for the user; where other code's error is behind it, its traceback is logged."""
        if error.__cause__ is not None and self._log is not None:
            self._note("".join(traceback.format_exception(error)))
        self.fail(str(error), error.exit_code)

    def crash(self, error: BaseException) -> None:
        """A bug of ours: the traceback goes to a file, one line to the user."""
        path = self.log_path
        if path is None:
            stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
            path = state_dir() / f"crash-{stamp}.log"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write("".join(traceback.format_exception(error)))
            kept = f"The traceback: {path}"
        except OSError as again:
            kept = f"The traceback could not be written: {again}"
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        self.fail(f"unexpected error in '{self.command}': {what}. {kept}", EXIT_BUG)

    def _note(self, text: str) -> None:
        # A full disk must not end a run because of its log.
        with contextlib.suppress(OSError):
            os.write(2, text.encode(errors="backslashreplace"))

    def _stop_spinner(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None


@contextlib.contextmanager
def session(command: str, *, own_streams: bool = False) -> Iterator[Session]:
    """Run a command's body; turn what it raises into one line and an exit code.

    ``own_streams`` leaves standard output and error to the body (an interactive shell).
    """
    with contextlib.ExitStack() as stack:
        if own_streams:
            ui = Session(command, sys.stdout, sys.stderr, None)
        else:
            ui = Session(command, *stack.enter_context(_streams_kept_aside()))
        stack.enter_context(_terminate_as_interrupt())
        try:
            yield ui
        except PocketshipError as error:
            ui.explain(error)
        except KeyboardInterrupt:
            # Where it went through an exec() of source text (torch has some), CPython remembers it
            # as unhandled and ends by SIGINT in place of our exit code; a new exec() forgets it.
            exec("")
            ui.fail(f"interrupted. {ui.resume_hint}".strip(), EXIT_INTERRUPTED)
        except (typer.Exit, BrokenPipeError):
            raise
        except OSError as error:
            if error.errno not in _NO_ROOM:
                ui.crash(error)
            else:
                ui.explain(_no_room(error))
        except Exception as error:
            ui.crash(error)
        finally:
            ui._stop_spinner()
    if ui.exit_code != EXIT_OK:
        raise typer.Exit(ui.exit_code)


def _no_room(error: OSError) -> ConfigError:
    wrapped = ConfigError(
        f"cannot be written or read: {error.strerror}",
        where=str(error.filename or "a file"),
        hint="What is whole is kept; mend this and give the same command again.",
    )
    wrapped.__cause__ = error
    return wrapped


def _flush() -> None:
    """Empty Python's and the C library's buffers into whatever 1 and 2 are now."""
    sys.stdout.flush()
    sys.stderr.flush()
    # Else what a C++ library printed would appear on the user's terminal when the process ends.
    ctypes.CDLL(None).fflush(None)


@contextlib.contextmanager
def _streams_kept_aside() -> Iterator[tuple[IO[str], IO[str], IO[bytes]]]:
    _flush()
    kept = os.dup(1), os.dup(2)
    with (
        os.fdopen(os.dup(kept[0]), "w", buffering=1, encoding="utf-8", errors="replace") as out,
        os.fdopen(os.dup(kept[1]), "w", buffering=1, encoding="utf-8", errors="replace") as err,
        tempfile.TemporaryFile() as log,
    ):
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield out, err, log
        finally:
            _flush()
            for target, source in zip((1, 2), kept, strict=True):
                os.dup2(source, target)
                os.close(source)


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM (what CI sends) unwinds as Ctrl-C does, so that phones stop and files stay whole."""

    def interrupt(_signum: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
