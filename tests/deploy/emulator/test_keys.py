from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from deploy.emulator.keys import ensure_key, public_path, read_public
from deploy.errors import DeviceError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_key_is_made_once_for_its_owner_only(home: Path) -> None:
    private = ensure_key()
    assert private == home / ".android/adbkey"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    made = (private.read_bytes(), public_path(private).read_bytes())
    ensure_key()
    assert (private.read_bytes(), public_path(private).read_bytes()) == made
    assert sorted(path.name for path in private.parent.iterdir()) == ["adbkey", "adbkey.pub"]


@pytest.mark.adb
def test_the_public_half_is_what_google_adb_derives(home: Path) -> None:
    if shutil.which("adb") is None:
        pytest.skip("Google's adb is not installed")
    private = ensure_key()
    told = subprocess.run(["adb", "pubkey", str(private)], capture_output=True, text=True)
    assert told.stdout.split()[0] == read_public(public_path(private)).split()[0]


def test_a_lost_public_half_comes_back(home: Path) -> None:
    public = public_path(ensure_key())
    encoded = read_public(public).split()[0]
    public.unlink()
    ensure_key()
    assert read_public(public).split()[0] == encoded


def test_halves_that_do_not_belong_together_are_told(home: Path) -> None:
    private = ensure_key()
    private.unlink()
    with pytest.raises(DeviceError, match="not the public half"):
        ensure_key()


def test_what_is_no_public_key_is_refused(home: Path) -> None:
    private = ensure_key()
    junk = home / "junk.pub"
    two = home / "two.pub"
    two.write_text(public_path(private).read_text() * 2)
    for text in ("", "not base64 at all", "QUJD user@host"):
        junk.write_text(text)
        with pytest.raises(DeviceError, match="not a public ADB key"):
            read_public(junk)
    for path in (private, two):
        with pytest.raises(DeviceError, match="not a public ADB key"):
            read_public(path)
    with pytest.raises(DeviceError, match="No such file"):
        read_public(home / "absent.pub")


def test_a_home_that_cannot_hold_a_key_is_one_line(home: Path) -> None:
    (home / ".android").write_text("a file")
    with pytest.raises(DeviceError, match="cannot make the ADB key"):
        ensure_key()
