"""adb-shell, the Python client that pocketship itself uses, is the second judge."""

import os

import pytest
from adb_shell.adb_device import AdbDeviceTcp
from adb_shell.auth.sign_pythonrsa import PythonRSASigner
from adb_shell.exceptions import DeviceAuthError, PushFailedError
from cryptography.hazmat.primitives.asymmetric import rsa


def signer(path):
    return PythonRSASigner(path.with_suffix(".pub").read_text(), path.read_text())


@pytest.fixture
def phone(daemon, key_file):
    device = AdbDeviceTcp("127.0.0.1", daemon.port, default_transport_timeout_s=30)
    assert device.connect(rsa_keys=[signer(key_file)], auth_timeout_s=10)
    yield device
    device.close()


def test_shell_merges_streams_and_takes_large_output(phone):
    assert phone.shell("echo out; echo err >&2; exit 3; echo") == "out\nerr\n"
    assert phone.shell("false; echo $?") == "1\n"
    assert len(phone.shell("head -c 3000000 /dev/zero", decode=False)) == 3_000_000
    for number in range(50):
        assert phone.shell(f"echo {number}") == f"{number}\n"


def test_streaming_shell_yields_before_the_end(phone, tmp_path):
    lines = phone.streaming_shell(
        f"echo first; until [ -e {tmp_path}/go ]; do sleep 0.05; done; echo second"
    )
    assert next(lines) == "first\n"
    (tmp_path / "go").touch()
    assert list(lines) == ["second\n"]


def test_exec_out_is_exact(phone, tmp_path):
    content = bytes(range(256)) * 4096 + b"\r\n"
    (tmp_path / "file").write_bytes(content)
    assert phone.exec_out(f"cat {tmp_path}/file", decode=False) == content


@pytest.mark.parametrize("size", [0, 1, 65_536, 5_000_001])
def test_files_go_there_and_back(phone, tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    phone.push(str(tmp_path / "file"), f"{tmp_path}/a/b", st_mode=0o100640, mtime=1_234_567_890)
    assert (tmp_path / "a" / "b").read_bytes() == content
    assert phone.stat(f"{tmp_path}/a/b") == (0o100640, size, 1_234_567_890)
    phone.pull(f"{tmp_path}/a/b", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == content


def test_list_shows_names_sizes_and_modes(phone, tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "folder").mkdir()
    entries = {bytes(entry.filename): entry for entry in phone.list(str(tmp_path))}
    assert set(entries) == {b".", b"..", b"file", b"folder"}
    assert entries[b"file"].size == 5
    assert entries[b"folder"].mode == (tmp_path / "folder").stat().st_mode


def test_a_push_that_fails_says_why_and_the_device_stays_usable(phone, tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 300_000)
    with pytest.raises(PushFailedError, match="No such file or directory"):
        phone.push(str(tmp_path / "file"), "/proc/nowhere/file")
    assert phone.shell("echo on") == "on\n"


def test_a_wrong_key_raises(daemon, write_key):
    device = AdbDeviceTcp("127.0.0.1", daemon.port, default_transport_timeout_s=1)
    stranger = write_key(rsa.generate_private_key(65537, 2048))
    with pytest.raises(Exception) as caught:
        device.connect(rsa_keys=[signer(stranger)], auth_timeout_s=0.2)
    assert not isinstance(caught.value, AssertionError)
    assert not device.available
    with pytest.raises(DeviceAuthError):
        device.connect(rsa_keys=[], auth_timeout_s=0.2)
    device.close()
