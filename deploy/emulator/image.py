"""Kernel and initial RAM disk of the emulated phone, made once and cached.

``<cache>/phone/debian/``   what came from Debian: kernel, its modules in loading order, busybox
``<cache>/phone/<hash>/``   ``vmlinuz``, ``initrd``, ``manifest.json``; the hash covers all it was
                            made of: Debian's packages, our userland, our ADB daemon, this code
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.emulator import cpio, modules, packages
from deploy.emulator.apt_sources import debian_sources
from deploy.errors import DeviceError
from deploy.files import sha256, write_text
from deploy.paths import cache_dir
from deploy.types import Progress, silent

_FORMAT = "1"
"""Raise it when this module makes something else of the same parts."""

_USERLAND = Path(__file__).resolve().parent / "userland"
_MANIFEST = "manifest.json"
_UNFINISHED = ".making-"
_KEPT_IMAGES = 4


@dataclass(frozen=True)
class Image:
    """A whole image: both files were checked against the manifest's hashes.

    ``digest`` names what it was made of; ``versions`` are Debian's package versions.
    """

    digest: str
    kernel: Path
    initrd: Path
    versions: dict[str, str]


def build(progress: Progress = silent) -> Image:
    """Make the image, or take it from the cache after checking it.

    It is the same for all profiles; what differs comes at start (:mod:`deploy.emulator.guest`).

    Raises:
        DeviceError: a tool or a Debian source is missing, or fetching or building failed.
    """
    # Imported here: it needs the cross compiler only when an image is made.
    from deploy import harness

    root = cache_dir() / "phone"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root, progress):
            base = _debian(root, progress)
            adbd = harness.adbd("arm64-v8a", progress)
            parts = {
                "format": _FORMAT,
                "debian": sha256(base / _MANIFEST),
                "userland": _userland_digest(),
                "adbd": sha256(adbd),
            }
            digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
            folder = root / digest
            if not _whole(folder):
                progress("making the phone's initial RAM disk")
                _make(folder, base, adbd, parts)
            return _load(folder, digest)
    except OSError as error:
        raise DeviceError(f"cannot make the phone's image: {error}", where=str(root)) from None


@contextlib.contextmanager
def _locked(root: Path, progress: Progress) -> Iterator[None]:
    with (root / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another pocketship that makes the phone's image")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left_over in root.glob(f"{_UNFINISHED}*"):  # of a builder that was killed
            shutil.rmtree(left_over, ignore_errors=True)
        yield


def _debian(root: Path, progress: Progress) -> Path:
    folder = root / "debian"
    if _whole(folder):
        return folder
    with _replacing_folder(folder) as made, _scratch(root) as work:
        apt = packages.PrivateApt(work / "apt", debian_sources())
        progress("fetching Debian's package index for arm64")
        apt.update()
        kernel_name = packages.kernel_package(apt)
        versions = {}
        for name in (kernel_name, packages.SHELL_PACKAGE):
            progress(f"downloading {name}")
            package = apt.download(name, work)
            packages.unpack(package, work / "root", progress)
            versions[package.name] = f"{package.version} sha256:{package.sha256}"
        release = kernel_name.removeprefix("linux-image-")
        _copy(work / "root", f"boot/vmlinuz-{release}", made / "vmlinuz")
        busybox = next(
            (p for p in ("bin/busybox", "usr/bin/busybox") if (work / "root" / p).is_file()),
            "bin/busybox",
        )
        _copy(work / "root", busybox, made / "busybox")
        module_root = next(
            (p for p in (work / "root").glob(f"**/lib/modules/{release}") if p.is_dir()), None
        )
        if module_root is None:
            raise DeviceError(f"{kernel_name} has no lib/modules/{release}")
        names = []
        for name, data in modules.load_order(module_root):
            (made / f"{name}.ko").write_bytes(data)
            names.append(f"{name}.ko")
        _write_manifest(made, {"versions": versions, "modules": names})
    return folder


def _copy(root: Path, name: str, to: Path) -> None:
    source = root / name
    if not source.is_file() or source.is_symlink():
        raise DeviceError(f"the Debian package has no file /{name}")
    shutil.copyfile(source, to)


def _make(folder: Path, base: Path, adbd: Path, parts: dict[str, str]) -> None:
    with _replacing_folder(folder) as made:
        shutil.copyfile(base / "vmlinuz", made / "vmlinuz")
        manifest = json.loads((base / _MANIFEST).read_text(encoding="utf-8"))
        content = cpio.archive(_members(base, manifest["modules"], adbd))
        (made / "initrd").write_bytes(cpio.compress(content))
        _write_manifest(made, {"versions": manifest["versions"], "parts": parts})


def _members(base: Path, module_names: list[str], adbd: Path) -> Iterator[cpio.Member]:
    for name in ("dev", "proc", "sys", "data", "lib", "lib/modules", "system", "system/bin"):
        yield cpio.folder(name)
    for name in ("system/etc", "vendor", "vendor/etc", "mnt"):
        yield cpio.folder(name)
    # As on Android, where these are links too.
    yield cpio.link("bin", "system/bin")
    yield cpio.link("etc", "system/etc")
    yield cpio.node("dev/console", 5, 1, 0o600)
    yield cpio.node("dev/null", 1, 3, 0o666)
    yield cpio.file("system/bin/busybox", (base / "busybox").read_bytes(), 0o755)
    yield cpio.file("system/bin/adbd", adbd.read_bytes(), 0o755)
    for name in module_names:
        yield cpio.file(f"lib/modules/{name}", (base / name).read_bytes())
    yield cpio.file("system/etc/modules", "".join(f"{n}\n" for n in module_names).encode())
    for path, relative in _userland():
        if relative == "system/etc/applets":
            for applet in path.read_text(encoding="utf-8").split():
                yield cpio.link(f"system/bin/{applet}", "busybox")
        # Packaging may lose the executable bit, so the place decides.
        program = relative == "init" or relative.startswith("system/bin/")
        yield cpio.file(relative, path.read_bytes(), 0o755 if program else 0o644)


def _userland() -> list[tuple[Path, str]]:
    found = sorted(path for path in _USERLAND.rglob("*") if path.is_file())
    return [(path, path.relative_to(_USERLAND).as_posix()) for path in found]


def _userland_digest() -> str:
    digest = hashlib.sha256()
    for path, relative in _userland():
        digest.update(f"{relative}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    temporary = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=root))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    with _scratch(folder.parent) as temporary:
        yield temporary
        if folder.exists():
            shutil.rmtree(folder)
        temporary.chmod(0o755)
        temporary.rename(folder)


def _write_manifest(folder: Path, content: dict[str, Any]) -> None:
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    text = json.dumps({**content, "files": files}, indent=1, sort_keys=True)
    write_text(folder / _MANIFEST, text + "\n")


def _whole(folder: Path) -> bool:
    try:
        files = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["files"]
        return bool(files) and all(sha256(folder / name) == files[name] for name in files)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _load(folder: Path, digest: str) -> Image:
    manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    os.utime(folder)
    images = [p for p in folder.parent.iterdir() if (p / "initrd").is_file()]
    for old in sorted(images, key=lambda p: p.stat().st_mtime, reverse=True)[_KEPT_IMAGES:]:
        shutil.rmtree(old, ignore_errors=True)
    return Image(digest, folder / "vmlinuz", folder / "initrd", manifest["versions"])
