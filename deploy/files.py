"""Writing and hashing files so that nothing partial is ever taken for whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from compress.files import replacing as replacing
from compress.files import write_bytes as write_bytes
from deploy.errors import ConfigError

SEAL = "content_sha256"
"""The key of a JSON file that holds :func:`seal` of all else in it."""

_CHUNK = 1 << 20


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` (UTF-8), whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """Hex SHA-256 of one file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def seal(content: object) -> str:
    """Hex SHA-256 of parsed JSON without its own :data:`SEAL`: a guard against accidental edits.

    Over the parsed values, so that neither layout nor a field that a later version adds with a
    default breaks the files written before it.
    """
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if key != SEAL}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def check_seal(content: object, sealed: object, *, where: Path, hint: str) -> None:
    """Raise ``ConfigError`` where ``content`` is not what its :func:`seal` was made of."""
    if sealed != seal(content):
        raise ConfigError(
            f"was edited after it was written: its content does not fit its {SEAL}",
            where=str(where),
            hint=hint,
        )


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
