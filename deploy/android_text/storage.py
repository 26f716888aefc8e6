"""Storage: free space and hashes of files."""

from __future__ import annotations

import re

_DF = re.compile(
    r"^.*?[ \t]([0-9]{1,18})[ \t]+([0-9]{1,18})[ \t]+([0-9]{1,18})[ \t]+[0-9]{1,3}%[ \t]"
)


def parse_df_available_kib(text: str) -> int | None:
    """Available KiB from ``df -kP FOLDER`` (toybox, busybox and coreutils agree on the columns)."""
    for line in reversed(text.strip().split("\n")):
        if match := _DF.match(line):
            return int(match.group(3))
    return None


def parse_sha256sum(text: str) -> dict[str, str]:
    """Path to hex SHA-256 from ``sha256sum`` lines; names that coreutils escapes are skipped."""
    hashes: dict[str, str] = {}
    for line in text.split("\n"):
        match = re.match(r"^([0-9a-f]{64})[ \t][ *](.+)$", line.removesuffix("\r"))
        if match:
            hashes[match.group(2)] = match.group(1)
    return hashes
