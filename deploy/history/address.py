"""Where the history is, a file or a PostgreSQL by URL, and how that is shown without secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import URL

VARIABLE = "POCKETSHIP_HISTORY"
FILE_NAME = "history.sqlite"
OFF = "none"

_FORMS = (
    "Give a file, sqlite:///FILE, or postgresql://USER@HOST/DATABASE; "
    "in a password write @ as %40, : as %3A, / as %2F and % as %25."
)


@dataclass(frozen=True)
class Address:
    """One history. ``shown`` never holds a password; exactly one of ``file`` and ``url`` is set."""

    shown: str
    file: Path | None = None
    url: URL | None = None


def chosen(
    wanted: str | None, reports: Path, environment: Mapping[str, str], base: Path = Path()
) -> Address | None:
    """The history of a run: ``wanted`` is the pipeline file's ``history``. None: it keeps none.

    ``none`` in the file is final. Otherwise the variable decides where it is set (it may hold a
    password, or ``none``), then the file, then ``history.sqlite`` in ``reports``. A relative
    file in ``wanted`` is below ``base``.
    """
    if wanted == OFF:
        return None
    given = environment.get(VARIABLE, "")
    if given == OFF:
        return None
    if given:
        return parse(given)
    if not wanted:
        return Address(*_file(reports / FILE_NAME))
    address = parse(wanted)
    return address if address.file is None else Address(*_file(base / address.file))


def of_option(text: str | None) -> Address:
    """The history that a command was pointed at; by default as a run in this folder chooses it."""
    if text:
        return parse(text)
    if address := chosen(None, Path("reports"), os.environ):
        return address
    raise ConfigError(f"{VARIABLE} is '{OFF}': no history is kept", hint="Name one with --history.")


def parse(text: str) -> Address:
    """An address as users write it; ``ConfigError`` in which no part of a password appears."""
    if "://" not in text:
        return Address(*_file(Path(text).expanduser()))
    # A file needs none of it, and it takes longer to import than most commands take.
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    scheme = text.partition("://")[0]
    try:
        url = make_url(text)
        port = url.port
    except (ArgumentError, ValueError):
        raise ConfigError("is no URL that can be read", where=f"{scheme}://...", hint=_FORMS) from (
            None
        )
    if url.get_backend_name() == "sqlite":
        if not url.database or url.database == ":memory:" or url.host:
            raise ConfigError("names no file", where="sqlite://", hint=_FORMS)
        return Address(*_file(Path(url.database).expanduser()))
    if url.drivername not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise ConfigError(f"no history can be kept in '{scheme}'", hint=_FORMS)
    # Of a password that holds an @ the rest would be taken for the host, and be shown.
    if not re.fullmatch(r"[\w.:%-]*", url.host or "") or "@" in (url.database or ""):
        raise ConfigError("is no URL that can be read", where=f"{scheme}://...", hint=_FORMS)
    place = f"{url.host or ''}{f':{port}' if port else ''}"
    user = f"{url.username}@" if url.username else ""
    shown = f"postgresql://{user}{place}/{url.database or ''}"
    return Address(shown, url=url.set(drivername="postgresql+psycopg"))


def _file(path: Path) -> tuple[str, Path]:
    return str(path), path
