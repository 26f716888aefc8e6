"""Errors that a user can cause or meet. One root, few leaves, one exit code each.

Everything else that escapes is a bug of ours and ends with :data:`EXIT_BUG` and a traceback in the
run's log file.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_BUG = 1
EXIT_REGRESSED = 8
EXIT_INCONCLUSIVE = 9
EXIT_INTERRUPTED = 130


class PocketshipError(Exception):
    """A failure that is explained to the user in one line.

    Args:
        what: what failed, with the offending value.
        where: on what it failed: a file with a line or key path, a device serial, an artifact.
        hint: what the user can do next.
    """

    exit_code = EXIT_BUG

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.hint:
            text = f"{text.rstrip('.')}. {self.hint}"
        return " ".join(text.split())


class ConfigError(PocketshipError):
    """The pipeline file, a device profile, the task or an option is wrong."""

    exit_code = 2


class CompressError(PocketshipError):
    """A compression step cannot be applied, or its result misses what the pipeline requires."""

    exit_code = 3


class ExportError(PocketshipError):
    """A model cannot be exported for a runtime."""

    exit_code = 4


class ParityError(PocketshipError):
    """An artifact does not compute what the program that it came from computes."""

    exit_code = 5


class DeviceError(PocketshipError):
    """A device cannot be found, started, reached or authorised."""

    exit_code = 6


class MeasurementError(PocketshipError):
    """A case could not be measured; never a statement about the model."""

    exit_code = 7
