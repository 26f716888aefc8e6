"""Errors and exit codes. One root (:class:`compress.errors.PocketshipError`), few leaves.

Everything else that escapes is a bug of ours: it ends with :data:`EXIT_BUG` and its traceback goes
to a log file.
"""

from __future__ import annotations

from compress.errors import CompressError, ConfigError, PocketshipError, first_line

__all__ = [
    "EXIT_BUG",
    "EXIT_INCONCLUSIVE",
    "EXIT_INTERRUPTED",
    "EXIT_OK",
    "EXIT_REGRESSED",
    "CompressError",
    "ConfigError",
    "DeviceError",
    "ExportError",
    "MeasurementError",
    "ParityError",
    "PocketshipError",
    "first_line",
]

EXIT_OK = 0
EXIT_BUG = 1
EXIT_REGRESSED = 8
EXIT_INCONCLUSIVE = 9
EXIT_INTERRUPTED = 130


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
