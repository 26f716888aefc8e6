"""Content on a device, by hash: on this machine through the real protocol."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from deploy.bench import store as store_module
from deploy.bench.store import Store
from deploy.devices import profiles
from deploy.devices.host import HostDevice
from deploy.errors import DeviceError, MeasurementError


@pytest.fixture
def device(tmp_path: Path) -> HostDevice:
    # A folder's name must never become shell syntax.
    work_dir = tmp_path / 'it\'s $(touch pwned) "here" \\n'
    return HostDevice(profiles.load("host").model_copy(update={"work_dir": str(work_dir)}))


def fresh(device: HostDevice) -> Store:
    store = Store(device)
    store.prepare()
    return store


def content(tmp_path: Path, data: bytes, name: str = "a model.pte") -> tuple[Path, str]:
    path = tmp_path / name
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


def names(store: Store) -> list[str]:
    return sorted(p.name for p in Path(store.folder).iterdir())


def test_the_same_content_is_sent_once(device: HostDevice, tmp_path: Path) -> None:
    path, digest = content(tmp_path, os.urandom(5000))
    first = fresh(device)
    remote = first.put(path, digest)
    assert Path(remote).read_bytes() == path.read_bytes()
    assert (first.traffic.bytes_pushed, first.traffic.bytes_already_there) == (5000, 0)
    assert first.traffic.mb_s is not None
    second = fresh(device)
    assert second.put(path, digest) == remote
    assert (second.traffic.bytes_pushed, second.traffic.bytes_already_there) == (0, 5000)
    assert second.traffic.mb_s is None
    assert names(second) == [digest]
    assert not list(tmp_path.rglob("pwned"))


@pytest.mark.parametrize("damage", [b"", b"x" * 5000])
def test_damaged_content_is_replaced(device: HostDevice, tmp_path: Path, damage: bytes) -> None:
    path, digest = content(tmp_path, os.urandom(5000))
    remote = fresh(device).put(path, digest)
    Path(remote).write_bytes(damage)
    again = fresh(device)
    again.put(path, digest)
    assert again.traffic.bytes_pushed == 5000
    assert Path(remote).read_bytes() == path.read_bytes()


def test_a_file_that_changed_is_not_sent(device: HostDevice, tmp_path: Path) -> None:
    path, digest = content(tmp_path, b"exported")
    path.write_bytes(b"replaced")
    store = fresh(device)
    with pytest.raises(MeasurementError, match=r"a model\.pte.*changed"):
        store.put(path, digest)
    assert names(store) == []


def test_content_that_arrives_damaged_is_not_kept(
    device: HostDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, digest = content(tmp_path, os.urandom(5000))
    real = device.push
    sent = []

    def lossy(local: Path, remote: str, *, mode: int = 0o644) -> None:
        real(local, remote, mode=mode)
        sent.append(remote)
        os.truncate(remote, 4000)

    monkeypatch.setattr(device, "push", lossy)
    store = fresh(device)
    with pytest.raises(DeviceError, match="damaged"):
        store.put(path, digest)
    assert len(sent) == 2
    assert names(store) == []


def bundle(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    folder = tmp_path / "bundle"
    folder.mkdir()
    files = {}
    for name in ("runner", "libx.so.1"):
        _, files[name] = content(folder, os.urandom(3000), name)
    return folder, files


def test_a_folder_is_exactly_what_it_should_be(device: HostDevice, tmp_path: Path) -> None:
    source, files = bundle(tmp_path)
    store = fresh(device)
    folder = Path(store.put_folder(source, files, "bundle-1"))
    assert sorted(p.name for p in folder.iterdir()) == sorted(files)
    assert all(os.access(p, os.X_OK) for p in folder.iterdir())

    (folder / "runner").write_bytes(b"half")
    repaired = fresh(device)
    repaired.put_folder(source, files, "bundle-1")
    assert (repaired.traffic.bytes_pushed, repaired.traffic.bytes_already_there) == (3000, 3000)
    assert (folder / "runner").read_bytes() == (source / "runner").read_bytes()

    (folder / "libforeign.so").write_bytes(b"x")
    cleaned = fresh(device)
    cleaned.put_folder(source, files, "bundle-1")
    assert sorted(p.name for p in folder.iterdir()) == sorted(files)

    assert fresh(device).put_folder(source, files, "bundle-1") == str(folder)


@pytest.mark.parametrize("name", ["../evil", "a b", "-rf", ".hidden", "a/b", ""])
def test_a_bundle_cannot_write_elsewhere(device: HostDevice, tmp_path: Path, name: str) -> None:
    with pytest.raises(MeasurementError, match="plain file name"):
        fresh(device).put_folder(tmp_path, {name: "0" * 64}, "bundle-1")


def test_the_longest_unused_content_makes_room(
    device: HostDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_STORE_BYTES", 10_000)
    digests = []
    for age, number in ((300, 0), (100, 1), (200, 2)):
        path, digest = content(tmp_path, os.urandom(4000), f"m{number}")
        remote = fresh(device).put(path, digest)
        digests.append(digest)
        stamp = Path(remote).stat().st_mtime - age
        os.utime(remote, (stamp, stamp))
        if number == 1:
            assert len(names(fresh(device))) == 2
    # The third pushed out the first; the next pushes out the third, used before the second.
    path, digest = content(tmp_path, os.urandom(4000), "m3")
    store = fresh(device)
    store.put(path, digest)
    assert names(store) == sorted([digests[1], digest])


def test_content_of_this_session_is_never_deleted(
    device: HostDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_STORE_BYTES", 1)
    store = fresh(device)
    for number in range(3):
        store.put(*content(tmp_path, os.urandom(4000), f"m{number}"))
    assert len(names(store)) == 3


def test_a_full_device_says_how_much_is_missing(
    device: HostDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SPARE_BYTES", 1 << 60)
    with pytest.raises(DeviceError, match="do not fit"):
        fresh(device).put(*content(tmp_path, b"x"))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    profile = profiles.load("host").model_copy(update={"work_dir": str(blocker / "dev")})
    with pytest.raises(DeviceError, match="cannot make its folders"):
        Store(HostDevice(profile)).prepare()


def test_leftovers_of_interrupted_runs_go_after_hours(device: HostDevice) -> None:
    store = fresh(device)
    old, new = Path(store.folder) / ".old.tmp", Path(store.folder) / ".new.tmp"
    case = Path(device.profile.work_dir) / "cases" / "0123"
    case.mkdir()
    for path in (old, new):
        path.write_text("")
    past = new.stat().st_mtime - 24 * 3600
    for path in (old, case):
        os.utime(path, (past, past))
    fresh(device)
    assert not old.exists()
    assert not case.exists()
    assert new.exists()
