"""Which kernel modules the phone needs, and in which order they can be loaded.

There is no depmod in the phone: each module names what it depends on in its ``.modinfo``
section (``depends=a,b``), and the order follows from that here.
"""

from __future__ import annotations

import gzip
import lzma
import re
from pathlib import Path

from deploy.errors import DeviceError

WANTED = ("virtio_mmio", "virtio_pci", "virtio_blk", "virtio_net", "ext4")

_SUFFIX = re.compile(r"\.ko(\.[a-z0-9]+)?$")


def _name(path: str) -> str:
    return _SUFFIX.sub("", path.rsplit("/", 1)[-1]).replace("-", "_")


def read(path: Path) -> bytes:
    """A module's content, unpacked where the package holds it compressed.

    Raises:
        DeviceError: it is compressed in a way that we do not know.
    """
    data = path.read_bytes()
    if path.suffix == ".xz":
        data = lzma.decompress(data)
    elif path.suffix == ".gz":
        data = gzip.decompress(data)
    if not data.startswith(b"\x7fELF"):
        raise DeviceError(f"{path.name} is no kernel module that can be read")
    return data


def depends(data: bytes) -> tuple[str, ...]:
    """Names of the modules that the module with this content depends on."""
    match = re.search(rb"\0depends=([^\0]*)\0", data)
    names = match[1].decode("ascii", errors="replace") if match else ""
    return tuple(name.replace("-", "_") for name in names.split(",") if name)


def load_order(root: Path, wanted: tuple[str, ...] = WANTED) -> list[tuple[str, bytes]]:
    """Names and contents of ``wanted`` modules and all they depend on, in loading order.

    Args:
        root: ``lib/modules/<release>`` of an unpacked kernel package.
        wanted: module names with underscores; those built into the kernel are left out.

    Raises:
        DeviceError: a module is neither there nor built in, or the dependencies form a circle.
    """
    files = {_name(path.name): path for path in sorted(root.rglob("*.ko*"))}
    builtin_list = root / "modules.builtin"
    lines = builtin_list.read_text().splitlines() if builtin_list.is_file() else []
    builtin = {_name(line) for line in lines}
    ordered: dict[str, bytes] = {}
    open_names: list[str] = []

    def visit(name: str) -> None:
        if name in ordered or name in builtin:
            return
        if name in open_names:
            raise DeviceError(f"kernel modules depend on each other: {' '.join(open_names)} {name}")
        if name not in files:
            raise DeviceError(f"the kernel package has no module {name}", where=root.name)
        open_names.append(name)
        data = read(files[name])
        for needed in depends(data):
            visit(needed)
        open_names.pop()
        ordered[name] = data

    for name in wanted:
        visit(name)
    return list(ordered.items())
