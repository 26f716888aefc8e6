from __future__ import annotations

import gzip
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.emulator import cpio

MEMBERS = [
    cpio.folder("system"),
    cpio.file("system/tool", b"#!/bin/sh\n", 0o755),
    cpio.file("system/empty", b""),
    cpio.link("bin", "system"),
]


def read(data: bytes) -> list[cpio.Member]:
    """The kernel's view of an archive, after its buffer format document."""
    members = []
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        assert fields[2] == fields[3] == fields[5] == 0, "owner root, no time"
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        assert data[at + 110 + name_size - 1] == 0
        body = at + (110 + name_size + 3) // 4 * 4
        at = body + (size + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert not data[at:].strip(b"\0")
            return members
        content = data[body : body + size]
        members.append(cpio.Member(name, mode, content, (fields[9], fields[10])))


def test_archive_is_what_the_kernel_reads() -> None:
    nodes = [cpio.folder("dev"), cpio.node("dev/console", 5, 1, 0o600)]
    assert read(cpio.archive(MEMBERS + nodes)) == MEMBERS + nodes


PARTS = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1).filter(
    lambda part: part not in (".", "..")
)


@given(st.dictionaries(st.lists(PARTS, min_size=1).map("/".join), st.binary(), max_size=8))
def test_any_files_come_back(files: dict[str, bytes]) -> None:
    members = [cpio.file(path, data) for path, data in files.items() if path != "TRAILER!!!"]
    assert read(cpio.archive(members)) == members


@pytest.mark.parametrize("path", ["/abs", "", "a//b", "../up", "a/./b", "nul\0"])
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="no path"):
        cpio.archive([cpio.file(path, b"")])


def test_a_path_stands_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        cpio.archive([cpio.file("a", b""), cpio.file("a", b"")])


def test_compressed_archives_can_follow_each_other() -> None:
    first, second = (cpio.compress(cpio.archive(part)) for part in (MEMBERS[:2], MEMBERS[2:]))
    assert len(first) % 4 == 0
    assert first == cpio.compress(cpio.archive(MEMBERS[:2])), "equal input, equal bytes"
    assert first[4:8] == b"\0\0\0\0", "no time in the gzip header"
    assert read(gzip.decompress(first)) == MEMBERS[:2]
    assert gzip.decompress(first + second).count(b"TRAILER!!!") == 2


@pytest.mark.parametrize("tool", [["cpio", "-idm", "--quiet"], ["bsdtar", "-xf", "-"]])
def test_other_programs_unpack_it(tool: list[str], tmp_path: Path) -> None:
    if shutil.which(tool[0]) is None:
        pytest.skip(f"{tool[0]} is not installed")
    subprocess.run(tool, input=cpio.archive(MEMBERS), cwd=tmp_path, check=True)
    assert (tmp_path / "system/tool").read_bytes() == b"#!/bin/sh\n"
    assert stat.S_IMODE((tmp_path / "system/tool").stat().st_mode) == 0o755
    assert (tmp_path / "bin").readlink() == Path("system")
