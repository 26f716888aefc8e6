"""Reports for others: the comment on a pull request."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.console import session

commands = typer.Typer()


@commands.command()
def comment(
    file: Annotated[Path, typer.Argument(help="A comment.md.", show_default=False)],
    repo: Annotated[str, typer.Option(help="The repository, as OWNER/NAME.")],
    pull: Annotated[int, typer.Option(min=1, help="Number of the pull request.")],
) -> None:
    """Post a comment on a pull request on GitHub, or edit the one that is there."""
    with session("comment") as ui:
        from deploy import sharing

        ui.say(sharing.comment(file, repo, pull, ui.progress))
