"""The one root of every error that a user can cause or meet, and the leaves of this package.

They stand here and not in ``deploy`` because ``compress`` is the lower of the two packages.
"""

from __future__ import annotations


class PocketshipError(Exception):
    """A failure that is explained to the user in one line.

    Args:
        what: what failed, with the offending value.
        where: on what it failed: a file with a line or key path, a device serial, an artifact.
        hint: what the user can do next.
    """

    exit_code = 1

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


def first_line(error: BaseException, limit: int = 300) -> str:
    """The first line with words of a foreign error's text, cut to ``limit`` characters."""
    for line in str(error).splitlines():
        if line.strip():
            return line.strip()[:limit]
    return type(error).__name__
