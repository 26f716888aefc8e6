"""The image's cache. Debian's packages come from the cache that the other tests use."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy import harness
from deploy.emulator import image, packages
from deploy.errors import DeviceError
from deploy.paths import cache_dir

pytestmark = pytest.mark.phone


@pytest.fixture
def cache(own_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own that has Debian's packages but no image yet."""
    image.build()
    adbd = harness.adbd("arm64-v8a", print)
    monkeypatch.setattr(harness, "adbd", lambda abi, progress: adbd)
    shutil.copytree(cache_dir() / "phone/debian", tmp_path / "phone/debian")
    monkeypatch.setenv("POCKETSHIP_CACHE", str(tmp_path))
    return tmp_path


def test_it_is_made_once_and_reproducibly(cache: Path) -> None:
    said: list[str] = []
    first = image.build(said.append)
    assert said == ["making the phone's initial RAM disk"]
    content = first.initrd.read_bytes()
    assert image.build(said.append) == first and len(said) == 1
    shutil.rmtree(first.initrd.parent)
    assert image.build().initrd.read_bytes() == content


@pytest.mark.parametrize("name", ["vmlinuz", "initrd", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_cache_is_made_again(cache: Path, name: str, damage: str) -> None:
    made = image.build()
    broken = made.initrd.parent / name
    good = broken.read_bytes()
    if damage == "remove":
        broken.unlink()
    else:
        cut = good[: len(good) // 2]
        broken.write_bytes(cut if damage == "cut" else cut + b"\xff" + good[len(cut) + 1 :])
    assert image.build() == made
    assert broken.read_bytes() == good


def test_what_a_killed_builder_left_is_removed(cache: Path) -> None:
    (cache / "phone/.making-123").mkdir()
    image.build()
    assert sorted(path.name[:7] for path in (cache / "phone").glob(".*")) == []


def test_two_builders_at_once_make_it_once(cache: Path) -> None:
    said: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(image.build, said.append) for _ in range(2))
        assert first.result() == second.result()
    assert said.count("making the phone's initial RAM disk") == 1


def test_a_change_of_the_userland_makes_another_image(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = image.build()
    changed = tmp_path / "userland"
    shutil.copytree(image._USERLAND, changed)
    (changed / "system/build.prop").write_text("ro.x=1\n")
    monkeypatch.setattr(image, "_USERLAND", changed)
    assert image.build().digest != first.digest


def test_old_images_do_not_pile_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        monkeypatch.setattr(image, "_FORMAT", f"test {number}")
        newest = image.build()
    kept = list((cache / "phone").glob("*/initrd"))
    assert newest.initrd in kept and len(kept) == 4


def test_a_broken_package_source_is_one_line(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(cache / "phone/debian")
    nowhere = tmp_path / "no-mirror"
    monkeypatch.setenv("POCKETSHIP_DEBIAN_MIRROR", f"file://{nowhere}")
    with pytest.raises(DeviceError, match="apt-get update for arm64 failed") as error:
        image.build()
    assert "\n" not in str(error.value) and str(nowhere) in str(error.value)
    assert not [path for path in (cache / "phone").iterdir() if path.is_dir()]


def test_a_missing_tool_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DeviceError, match="Install the package e2fsprogs"):
        packages.require_tool("mke2fs", "e2fsprogs")
