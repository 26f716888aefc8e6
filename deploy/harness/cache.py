"""Folders that are made once for a key: whole or not there, also with several makers at a time."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from deploy.errors import DeviceError
from deploy.types import Progress


def key_of(ingredients: Mapping[str, object]) -> str:
    """A short name for what a folder is made of: equal ingredients, equal name."""
    text = json.dumps(ingredients, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def made_once(
    root: Path,
    key: str,
    make: Callable[[Path], None],
    *,
    is_good: Callable[[Path], bool],
    progress: Progress,
) -> Path:
    """The folder ``root/key``, made by ``make(temporary folder)`` unless a good one is there.

    Whoever comes second waits for the first. What an earlier maker left when it was killed is
    removed; a folder that is no longer good is made again.
    """
    folder = root / key
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".{key}.lock", progress):
            if folder.is_dir() and is_good(folder):
                return folder
            _remove_leftovers(root, key)
            temporary = root / f".{key}.{os.getpid()}.making"
            temporary.mkdir()
            try:
                make(temporary)
                if folder.exists():
                    shutil.rmtree(folder)
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise DeviceError(
            f"cannot build in the cache ({error.strerror or error})",
            where=str(error.filename or root),
            hint="Free some space, or set POCKETSHIP_CACHE to a folder that can be written.",
        ) from error
    return folder


@contextlib.contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    # The lock dies with its holder, also by kill -9; the empty file stays.
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that builds the same")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _remove_leftovers(root: Path, key: str) -> None:
    for leftover in root.glob(f".{key}.*.making"):
        shutil.rmtree(leftover, ignore_errors=True)
