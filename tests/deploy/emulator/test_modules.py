from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from deploy.emulator import modules
from deploy.errors import DeviceError


def module(*needed: str) -> bytes:
    return b"\x7fELF...\0license=GPL\0depends=" + ",".join(needed).encode() + b"\0name=x\0"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "6.1.0"
    drivers = root / "kernel/drivers"
    drivers.mkdir(parents=True)
    (drivers / "virtio_ring.ko").write_bytes(module())
    (drivers / "virtio.ko.xz").write_bytes(lzma.compress(module("virtio_ring")))
    (drivers / "virtio-blk.ko.gz").write_bytes(gzip.compress(module("virtio", "virtio_ring")))
    (root / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    return root


def test_what_a_module_needs_is_loaded_before_it(tree: Path) -> None:
    names = [name for name, _ in modules.load_order(tree, ("virtio_blk", "ext4", "virtio"))]
    assert names == ["virtio_ring", "virtio", "virtio_blk"]


def test_contents_are_unpacked(tree: Path) -> None:
    assert all(data.startswith(b"\x7fELF") for _, data in modules.load_order(tree, ("virtio_blk",)))


def test_a_missing_module_is_named(tree: Path) -> None:
    with pytest.raises(DeviceError, match="virtio_net"):
        modules.load_order(tree, ("virtio_net",))


def test_a_circle_is_an_error_not_a_hang(tree: Path) -> None:
    (tree / "a.ko").write_bytes(module("b"))
    (tree / "b.ko").write_bytes(module("a"))
    with pytest.raises(DeviceError, match="a b a"):
        modules.load_order(tree, ("a",))


def test_an_unknown_compression_is_an_error(tree: Path) -> None:
    (tree / "z.ko.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    with pytest.raises(DeviceError, match=r"z\.ko\.zst"):
        modules.load_order(tree, ("z",))
