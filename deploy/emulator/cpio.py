"""Initial RAM disks: the ``newc`` cpio format, written reproducibly.

Format: Linux ``Documentation/driver-api/early-userspace/buffer-format.rst``. Equal members give
equal bytes: no clock, no real inode, no real owner goes in.
"""

from __future__ import annotations

import gzip
import stat
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """A file, folder, link or device node of the archive.

    ``mode`` holds the type bits as well; ``data`` is a file's content or a link's target;
    ``device`` is (major, minor) of a node.
    """

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(path: str, mode: int = 0o755) -> Member:
    """A folder."""
    return Member(path, stat.S_IFDIR | mode)


def file(path: str, data: bytes, mode: int = 0o644) -> Member:
    """A regular file."""
    return Member(path, stat.S_IFREG | mode, data)


def link(path: str, target: str) -> Member:
    """A symbolic link."""
    return Member(path, stat.S_IFLNK | 0o777, target.encode())


def node(path: str, major: int, minor: int, mode: int) -> Member:
    """A character device."""
    return Member(path, stat.S_IFCHR | mode, device=(major, minor))


def archive(members: Iterable[Member]) -> bytes:
    """The members in the given order as one uncompressed archive, padded to 512 bytes.

    Raises:
        ValueError: a path is absolute, empty, climbs out, holds NUL, or stands twice.
    """
    out = bytearray()
    seen: set[str] = set()
    inode = 0
    for inode, member in enumerate(members, start=1):
        parts = member.path.split("/")
        if "\0" in member.path or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"{member.path!r} is no path of an archive")
        if member.path in seen:
            raise ValueError(f"{member.path!r} stands twice in the archive")
        seen.add(member.path)
        out += _entry(member, inode)
    out += _entry(Member("TRAILER!!!", 0), 0)
    out += b"\0" * (-len(out) % 512)
    return bytes(out)


def _entry(member: Member, inode: int) -> bytes:
    name = member.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(member.mode) else 1
    fields = (
        inode,
        member.mode,
        0,  # owner
        0,  # group
        links,
        0,  # modification time
        len(member.data),
        0,  # device of the file system: major
        0,  # and minor
        *member.device,
        len(name),
        0,  # checksum, unused in this variant
    )
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    entry = header + name
    entry += b"\0" * (-len(entry) % 4)
    entry += member.data
    return entry + b"\0" * (-len(entry) % 4)


def compress(data: bytes) -> bytes:
    """gzip with no time in it, padded with NUL to 4 bytes so that another archive can follow."""
    packed = gzip.compress(data, compresslevel=9, mtime=0)
    return packed + b"\0" * (-len(packed) % 4)
