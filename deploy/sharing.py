"""A report given to others: in a format of theirs, and as a comment on a pull request."""

from __future__ import annotations

import os
from pathlib import Path

from deploy.console import Session
from deploy.errors import ConfigError
from deploy.files import write_text
from deploy.github import api, comments
from deploy.report import formats, store
from deploy.report.formats import comment as comment_format
from deploy.types import Progress

STDOUT = Path("-")


def show(folder: Path, name: str, output: Path, options: formats.Options, ui: Session) -> None:
    """A run's or a gate's report in the format ``name``, into a file or to standard output."""
    text = formats.formatted(store.load_any(folder), name, options)
    if output == STDOUT:
        if text:
            ui.say(text.removesuffix("\n"))
        return
    try:
        write_text(output, text)
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror or error}", where=str(output)
        ) from error


def comment(file: Path, repo: str, number: int, progress: Progress) -> str:
    """Post ``file`` as the one comment of its mark on a pull request; says what was done."""
    pull = comments.Pull(repo, number)
    try:
        body = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or error) if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"cannot be read: {why}", where=str(file)) from error
    mark = comment_format.marks(body)
    if not mark:
        raise ConfigError(
            "has no mark on its first line, by which it would be found again",
            where=str(file),
            hint="Make it with: pocketship report FOLDER --format comment -o FILE.",
        )
    github = api.Api(
        os.environ.get("GITHUB_TOKEN", "").strip(),
        os.environ.get("GITHUB_API_URL") or api.PUBLIC,
        progress,
    )
    posted = comments.post(github, pull, body, mark)
    more = f"; {posted.removed} of the same mark removed" if posted.removed else ""
    return f"{posted.what} {posted.url}{more}"
