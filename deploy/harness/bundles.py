"""Bundles: everything that a Linux kernel needs to run ``bench_runner``, in one folder."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from deploy import files as files_
from deploy.errors import DeviceError
from deploy.harness.cache import key_of, made_once
from deploy.harness.elf import Elf, read_elf
from deploy.harness.toolchain import Target, Toolchain, cmake_build, find_toolchain, target
from deploy.harness.wheels import RUNTIMES, installed_versions, package_folder
from deploy.paths import cache_dir, harness_dir
from deploy.types import Model, Progress, silent

MANIFEST = "bundle.json"
RUNNER = "bench_runner"

_RECIPE = 1  # counts changes of this file that change what a bundle holds
_OWN_LIBRARIES = ("libps_executorch.so", "libps_onnxruntime.so")


class BundleManifest(Model):
    """What ``bundle.json`` says: see :class:`Bundle`."""

    abi: str
    files: dict[str, str]
    launch: tuple[str, ...]
    versions: dict[str, str]


class Bundle(BundleManifest):
    """A folder with the dynamic loader, the C and C++ libraries, the runtimes and the runner.

    ``files`` maps each file's name to its hex SHA-256; there are no sub-folders. ``launch`` is the
    command, to be started with the folder as working directory and followed by the runner's
    arguments. Files that are to be executable: :attr:`executables`.
    """

    folder: Path

    @property
    def hash(self) -> str:
        """Hex SHA-256 over all names and contents: equal bundles have equal hashes."""
        digest = hashlib.sha256()
        for name, content in sorted(self.files.items()):
            digest.update(f"{name}\0{content}\n".encode())
        return digest.hexdigest()

    @property
    def executables(self) -> tuple[str, ...]:
        """Names of the files that need the executable bit; the others are libraries."""
        return tuple(word[2:] for word in self.launch if word.startswith("./"))

    def manifest(self) -> BundleManifest:
        """What is stored beside the files: all but the folder."""
        return BundleManifest(**self.model_dump(exclude={"folder"}))


def load(folder: Path) -> Bundle:
    """Read a bundle from its folder; ``ValueError`` unless each file has the content it should."""
    text = (folder / MANIFEST).read_text(encoding="utf-8")
    manifest = BundleManifest.model_validate_json(text)
    for name, content in manifest.files.items():
        if files_.sha256(folder / name) != content:
            raise ValueError(f"{name} changed")
    return Bundle(**manifest.model_dump(), folder=folder)


def bundle(abi: str, progress: Progress = silent) -> Bundle:
    """The bundle for ``abi`` (``arm64-v8a`` or ``x86_64``), built on first use and then cached.

    Raises ``DeviceError`` when a compiler, a wheel or a library is missing, or the build fails.
    """
    wanted = target(abi)
    toolchain = find_toolchain(wanted)
    versions = {**installed_versions(), "compiler": toolchain.version}
    sources = harness_dir() / "runner"
    ingredients = {
        "recipe": _RECIPE,
        "abi": abi,
        "sources": files_.tree_digest(sources)[0],
        "toolchain_file": files_.tree_digest(harness_dir() / "cmake")[0],
        "versions": versions,
        # A system update changes these without changing the compiler's version.
        "libraries": {
            name: files_.sha256(path)
            for name in (wanted.loader, "libc.so.6", "libstdc++.so.6")
            if (path := toolchain.library(name))
        },
    }
    root = cache_dir() / "harness"

    def make(folder: Path) -> None:
        _make(toolchain, sources, versions, folder, root=root, progress=progress)

    folder = made_once(
        root, f"bundle-{abi}-{key_of(ingredients)}", make, is_good=is_good, progress=progress
    )
    return load(folder)


def is_good(folder: Path) -> bool:
    """Whether a folder is a bundle that is whole."""
    try:
        load(folder)
    except (OSError, ValueError, ValidationError):
        return False
    return True


def _make(
    toolchain: Toolchain,
    sources: Path,
    versions: dict[str, str],
    folder: Path,
    *,
    root: Path,
    progress: Progress,
) -> None:
    wanted = toolchain.target
    work = folder / "work"
    packages = {
        name: package_folder(
            name,
            versions[name],
            wanted,
            wheels=root / "wheels",
            unpacked=work / "wheels",
            progress=progress,
        )
        for name in RUNTIMES
    }
    definitions: dict[str, str | Path] = {
        "executorch_DIR": packages["executorch"] / "share" / "cmake",
        "CMAKE_CXX_COMPILER": toolchain.compiler,
    }
    if not wanted.native:
        definitions["CMAKE_TOOLCHAIN_FILE"] = sources.parent / "cmake" / f"{wanted.triple}.cmake"
    cmake_build(
        sources,
        work / "build",
        definitions,
        what=f"building {RUNNER} for {wanted.abi}",
        log=root / f"build-{wanted.abi}.log",
        progress=progress,
    )
    onnxruntime = _onnxruntime_library(packages["onnxruntime"])
    progress(f"collecting the libraries for {wanted.abi}")
    roots = {name: work / "build" / name for name in (RUNNER, *_OWN_LIBRARIES)}
    roots[onnxruntime.name] = onnxruntime
    roots[wanted.loader] = _required(toolchain, wanted.loader, "the bundle")
    chosen = _closure(toolchain, roots, [packages["executorch"] / "lib"])
    for name, path in chosen.items():
        shutil.copyfile(path, folder / name)
        executable = name in (RUNNER, wanted.loader)
        (folder / name).chmod(0o755 if executable else 0o644)
    shutil.rmtree(work)
    result = Bundle(
        abi=wanted.abi,
        folder=folder,
        files={name: files_.sha256(folder / name) for name in sorted(chosen)},
        launch=(f"./{wanted.loader}", "--library-path", ".", f"./{RUNNER}"),
        versions=versions,
    )
    files_.write_text(folder / MANIFEST, result.manifest().model_dump_json(indent=2) + "\n")


def _onnxruntime_library(package: Path) -> Path:
    found = sorted((package / "capi").glob("libonnxruntime.so.*"))
    if len(found) != 1:
        raise DeviceError(
            f"expected one libonnxruntime.so.* and found {len(found)}",
            where=str(package / "capi"),
            hint="Reinstall onnxruntime.",
        )
    return found[0]


def _closure(
    toolchain: Toolchain, roots: Mapping[str, Path], folders: Sequence[Path]
) -> dict[str, Path]:
    """``roots`` and every library that any of them needs, by the name that it is asked for."""
    chosen: dict[str, Path] = {}
    waiting = list(roots.items())
    while waiting:
        name, path = waiting.pop()
        if name in chosen:
            continue
        elf = _checked_elf(toolchain.target, name, path)
        chosen[name] = path
        for needed in elf.needed:
            local = next((f / needed for f in folders if (f / needed).is_file()), None)
            waiting.append((needed, local or _required(toolchain, needed, name)))
    return chosen


def _required(toolchain: Toolchain, name: str, for_whom: str) -> Path:
    path = toolchain.library(name)
    if path is None:
        raise DeviceError(
            f"{for_whom} needs {name}, which the compiler does not have",
            where=str(toolchain.compiler),
            hint=f"Reinstall it, on Debian or Ubuntu: {toolchain.target.debian_package}",
        )
    return path


def _checked_elf(wanted: Target, name: str, path: Path) -> Elf:
    try:
        elf = read_elf(path)
    except (OSError, ValueError) as error:
        raise DeviceError(f"{name} cannot be used ({error})", where=str(path)) from error
    if elf.machine != wanted.elf_machine:
        raise DeviceError(f"{name} is for another machine than {wanted.machine}", where=str(path))
    if elf.alignment < wanted.min_alignment:
        raise DeviceError(
            f"{name} is aligned to {elf.alignment} bytes and not to {wanted.min_alignment}",
            where=str(path),
        )
    return elf
