"""The sync service by hand: what Google's client hides, and what no client would send."""

import os
import stat
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.android_harness.adbd.daemon import eventually
from tests.android_harness.adbd.wire import Wire, request

STAT2 = struct.Struct("<4sI2Q4IQ3q")
DONE = b"DONE" + struct.pack("<I", 1_000_000_000)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def sync(wire):
    return wire.stream("sync:")


def push(path, content=b"", mode=0o100644):
    """A whole push."""
    parts = [content[at : at + 65_536] for at in range(0, len(content), 65_536)]
    return (
        request(b"SEND", f"{path},{mode}")
        + b"".join(request(b"DATA", part) for part in parts)
        + DONE
    )


def pulled(sync, path):
    sync.write(request(b"RECV", str(path)))
    content = b""
    while True:
        name, length = struct.unpack("<4sI", sync.read(8))
        if name == b"DONE":
            assert length == 0
            return content
        assert name == b"DATA"
        assert 0 < length <= 65_536
        content += sync.read(length)


@pytest.mark.parametrize("mode", [0o100644, 0o100755, 0o100400, 0o100000, 0o777, 0o106777])
def test_a_push_keeps_permissions_and_time_but_grants_no_set_user_id(sync, tmp_path, mode):
    sync.write(push(tmp_path / "file", b"content", mode))
    assert sync.answer() == (b"OKAY", b"")
    status = (tmp_path / "file").stat()
    assert status.st_mode == stat.S_IFREG | (mode & 0o777)
    assert status.st_mtime == 1_000_000_000


@pytest.mark.parametrize("cut", [b"", b"DATA", request(b"DATA", b"y" * 60_000)[:-1]])
@pytest.mark.parametrize("how", ["connection", "stream"])
def test_a_cut_push_leaves_nothing(daemon, key, tmp_path, cut, how):
    (tmp_path / "old").write_bytes(b"old")
    with Wire(daemon.port, key) as wire:
        streams = []
        for name in ("old", "new"):
            sync = wire.stream("sync:")
            head = request(b"SEND", f"{tmp_path}/{name},33188") + request(b"DATA", b"x" * 65_536)
            sync.write(head + cut)
            streams.append(sync)
        during = names(tmp_path)
        assert [name for name in during if not name.startswith(".adbd-")] == ["old"]
        assert len(during) == 3
        if how == "stream":
            for sync in streams:
                sync.close()
            wire.run("true")
            assert names(tmp_path) == ["old"]
    eventually(lambda: names(tmp_path) == ["old"], "the temporary files are gone")
    assert (tmp_path / "old").read_bytes() == b"old"


def test_sigterm_in_a_push_leaves_nothing(start_daemon, key, tmp_path):
    daemon = start_daemon()
    with Wire(daemon.port, key) as wire:
        head = request(b"SEND", f"{tmp_path}/new,33188") + request(b"DATA", b"x" * 65_536)
        wire.stream("sync:").write(head)
        assert len(names(tmp_path)) == 1
        assert daemon.stop() == 0
    assert names(tmp_path) == []


def test_a_failed_push_leaves_nothing_and_the_session_goes_on(sync, tmp_path):
    (tmp_path / "folder").mkdir()
    sync.write(push(tmp_path / "folder", b"x" * 200_000) + push(tmp_path / "next", b"next"))
    name, text = sync.answer()
    assert (name, b"Is a directory" in text) == (b"FAIL", True)
    assert sync.answer() == (b"OKAY", b"")
    assert names(tmp_path) == ["folder", "next"]


def test_a_rename_that_fails_is_reported(sync, tmp_path):
    sync.write(request(b"SEND", f"{tmp_path}/x,33188") + request(b"DATA", b"x"))
    (tmp_path / "x").mkdir()
    sync.write(DONE)
    assert sync.answer() == (b"FAIL", b"cannot rename: Is a directory")
    assert names(tmp_path) == ["x"]


def test_a_link_is_pushed_as_a_link(sync, tmp_path):
    sync.write(push(tmp_path / "a" / "link", b"../aim\0", stat.S_IFLNK | 0o777))
    assert sync.answer() == (b"OKAY", b"")
    assert (tmp_path / "a" / "link").readlink() == Path("../aim")
    assert (tmp_path / "a" / "link").lstat().st_mtime == 1_000_000_000
    sync.write(push(tmp_path / "long", b"x" * 5000, stat.S_IFLNK | 0o777))
    assert sync.answer()[0] == b"FAIL"
    sync.write(push(tmp_path / "none", b"", stat.S_IFLNK | 0o777))
    assert sync.answer()[0] == b"FAIL"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("/no-comma", b"missing mode"),
        ("{}/x,", b"bad mode"),
        ("{}/x,0x1ff", b"bad mode"),
        ("{}/x,-1", b"bad mode"),
        ("{}/x,99999999999", b"bad mode"),
        ("{}/x,33188 ", b"bad mode"),
        (",33188", b"Is a directory"),
        ("{}/x/,33188", b"Is a directory"),
    ],
)
def test_a_malformed_push_is_refused_and_the_session_goes_on(sync, tmp_path, what, text):
    sync.write(request(b"SEND", what.format(tmp_path)) + request(b"DATA", b"dropped") + DONE)
    name, said = sync.answer()
    assert name == b"FAIL"
    assert text in said
    assert pulled(sync, "/dev/null") == b""
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"STAT" + struct.pack("<I", 1025), b"path too long"),
        (b"RECV" + struct.pack("<I", 0xFFFFFFFF), b"path too long"),
        (b"SEND" + struct.pack("<I", 1 << 20), b"path too long"),
        (b"GARB" + struct.pack("<I", 0), b"unknown command"),
        (b"SND2" + struct.pack("<I", 4), b"unknown command"),
        (request(b"SEND", "{}/x,33188") + b"DATA\x01\x00\x01\x00", b"oversize data message"),
        (request(b"SEND", "{}/x,33188") + b"STAT\x01\x00\x00\x00/", b"expected DATA or DONE"),
    ],
)
def test_a_broken_protocol_is_refused_and_ends_the_stream(sync, wire, tmp_path, sent, text):
    if b"{}" in sent:
        sent = request(b"SEND", f"{tmp_path}/x,33188") + sent[sent.index(b"33188") + 5 :]
    sync.write(sent)
    assert sync.answer() == (b"FAIL", text)
    assert sync.read_to_end() == b""
    assert names(tmp_path) == []
    assert wire.run("true")[2] == 0


def test_quit_ends_the_stream(sync):
    sync.write(b"QUIT" + struct.pack("<I", 0))
    assert sync.read_to_end() == b""


def test_the_longest_path_is_taken(sync, tmp_path):
    path = str(tmp_path)
    while len(path) < 1024 - 201:
        path += "/" + "d" * 200
    path += "/" + "f" * (1023 - len(path))
    sync.write(push(path, b"deep"))
    assert sync.answer() == (b"OKAY", b"")
    assert pulled(sync, path) == b"deep"


def test_stat_of_both_versions(sync, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    os.truncate(file, 5_000_000_000)  # sparse; more than 32 bits
    status, link = file.stat(), (tmp_path / "link").lstat()
    sync.write(b"".join(request(n, str(file)) for n in (b"STAT", b"STA2", b"LST2")))
    name, mode, size, modified = struct.unpack("<4s3I", sync.read(16))
    assert (name, mode, size) == (b"STAT", status.st_mode, 0xFFFFFFFF)
    assert modified == int(status.st_mtime)
    for name in (b"STA2", b"LST2"):
        assert STAT2.unpack(sync.read(72)) == (
            *(name, 0, status.st_dev, status.st_ino, status.st_mode, status.st_nlink),
            *(status.st_uid, status.st_gid, 5_000_000_000),
            *(int(status.st_atime), int(status.st_mtime), int(status.st_ctime)),
        )
    sync.write(b"".join(request(n, f"{tmp_path}/link") for n in (b"STAT", b"STA2", b"LST2")))
    assert struct.unpack("<4s3I", sync.read(16))[1] == link.st_mode
    assert STAT2.unpack(sync.read(72))[4] == status.st_mode
    assert STAT2.unpack(sync.read(72))[4] == link.st_mode
    sync.write(b"".join(request(n, f"{tmp_path}/none") for n in (b"STAT", b"STA2", b"LST2")))
    assert struct.unpack("<4s3I", sync.read(16)) == (b"STAT", 0, 0, 0)
    assert sync.read(72) == struct.pack("<4sI", b"STA2", 2) + bytes(64)
    assert sync.read(72) == struct.pack("<4sI", b"LST2", 2) + bytes(64)


@pytest.mark.parametrize("max_payload", [512, 1 << 20])
def test_a_large_folder_is_listed_whole_in_both_versions(daemon, key, tmp_path, max_payload):
    names = {f"{number:03}" + "n" * 252 for number in range(300)} | {"ünï", "a b"}
    for name in names:
        (tmp_path / name).touch()
    with Wire(daemon.port, key, max_payload=max_payload) as wire:
        sync = wire.stream("sync:")
        for command, size in ((b"LIST", 20), (b"LIS2", 76)):
            sync.write(request(command, str(tmp_path)))
            found = []
            while (entry := sync.read(size))[:4] != b"DONE":
                name = sync.read(struct.unpack_from("<I", entry, size - 4)[0]).decode()
                status = (tmp_path / name).lstat()
                assert entry[:4] == (b"DENT" if size == 20 else b"DNT2")
                assert struct.unpack_from("<I", entry, 4 if size == 20 else 24)[0] == status.st_mode
                found.append(name)
            assert entry[4:] == bytes(size - 4)
            assert sorted(found) == sorted(names | {".", ".."})


def test_a_folder_that_is_not_there_is_listed_as_empty(sync):
    sync.write(request(b"LIST", "/nowhere") + request(b"LIS2", "/nowhere"))
    assert sync.read(20 + 76) == b"DONE" + bytes(16) + b"DONE" + bytes(72)


def test_a_fifo_and_a_terminal_do_not_stop_the_daemon(sync, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    assert pulled(sync, tmp_path / "fifo") == b""
    sync.write(push(tmp_path / "fifo", b"x"))
    assert sync.answer()[0] == b"FAIL"
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    sync.write(request(b"RECV", str(tmp_path)))
    assert sync.answer() == (b"FAIL", b"read failed: Is a directory")
    sync.write(request(b"RECV", f"{tmp_path}/none"))
    assert sync.answer() == (b"FAIL", b"cannot open: No such file or directory")


def test_an_endless_file_blocks_no_other_stream(wire):
    zeros = wire.stream("sync:")
    zeros.send(request(b"RECV", "/dev/zero"))
    while wire.receive()[0] != b"WRTE":
        pass
    assert wire.run("echo other")[0] == b"other\n"


def test_a_heap_of_requests_in_one_packet_is_answered_in_order(sync, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    one = request(b"LST2", f"{tmp_path}/file")
    count = (1 << 20) // len(one)
    sync.send(one * count)
    inode = (tmp_path / "file").stat().st_ino
    for _ in range(count):
        name, error, _, found, *_ = STAT2.unpack(sync.read(72))
        assert (name, error, found) == (b"LST2", 0, inode)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.binary(max_size=3000), cuts=st.lists(st.integers(1, 400), min_size=1, max_size=40)
)
def test_requests_may_be_cut_anywhere(sync, tmp_path, content, cuts):
    """Packets cut a push, a stat and a pull at arbitrary bytes; the result is the same."""
    path = tmp_path / "cut"
    message = push(path, content) + request(b"STAT", str(path)) + request(b"RECV", str(path))
    while message:
        for size in cuts:
            if message[:size]:
                sync.write(message[:size])
            message = message[size:]
    assert sync.answer() == (b"OKAY", b"")
    assert struct.unpack("<4s3I", sync.read(16))[2:] == (len(content), 1_000_000_000)
    back = b""
    while (head := struct.unpack("<4sI", sync.read(8)))[0] == b"DATA":
        back += sync.read(head[1])
    assert back == content
