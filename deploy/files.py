"""Writing and hashing files so that nothing partial is ever taken for whole."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path

_CHUNK = 1 << 20


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` if the block succeeds.

    The temporary file is removed when the block raises, so a reader never sees half a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` (UTF-8), whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def sha256(path: Path) -> str:
    """Hex SHA-256 of one file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def tree_digest(path: Path) -> tuple[str, int]:
    """Hash and size in bytes of a file, or of a folder's whole content.

    A folder's hash covers each file's relative POSIX path and content hash in sorted order; links
    are refused with ``ValueError`` because what they point at may lie outside.
    """
    if path.is_file() and not path.is_symlink():
        return sha256(path), path.stat().st_size
    digest = hashlib.sha256()
    total = 0
    for member in sorted(path.rglob("*")):
        if member.is_symlink():
            raise ValueError(f"{member} is a link")
        if member.is_file():
            relative = member.relative_to(path).as_posix()
            digest.update(f"{relative}\0{sha256(member)}\n".encode())
            total += member.stat().st_size
    return digest.hexdigest(), total
