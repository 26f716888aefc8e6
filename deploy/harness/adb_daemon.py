"""The ADB daemon of the emulated phone, built from ``android_harness/adbd``."""

from __future__ import annotations

import shutil
from pathlib import Path

from deploy import files as files_
from deploy.errors import DeviceError
from deploy.harness.cache import key_of, made_once
from deploy.harness.elf import read_elf
from deploy.harness.toolchain import Target, cmake_build, find_toolchain, target
from deploy.paths import cache_dir, harness_dir
from deploy.types import Progress, silent

NAME = "adbd"


def adbd(abi: str, progress: Progress = silent) -> Path:
    """The daemon's program file for ``abi``, built on first use and then cached.

    For ``arm64-v8a`` it is linked statically and needs nothing but a kernel. Raises ``DeviceError``
    when the compiler is missing or the build fails.
    """
    wanted = target(abi)
    toolchain = find_toolchain(wanted)
    sources = harness_dir() / NAME
    if not (sources / "CMakeLists.txt").is_file():
        raise DeviceError("the sources of the ADB daemon are missing", where=str(sources))
    static = abi == "arm64-v8a"
    key = key_of(
        {
            "sources": files_.tree_digest(sources)[0],
            "abi": abi,
            "static": static,
            "compiler": toolchain.version,
        }
    )
    root = cache_dir() / "harness"

    def make(folder: Path) -> None:
        definitions: dict[str, str | Path] = {
            "CMAKE_CXX_COMPILER": toolchain.compiler,
            "ADBD_STATIC": "ON" if static else "OFF",
            "CMAKE_EXE_LINKER_FLAGS": "-s",
        }
        if not wanted.native:
            definitions["CMAKE_SYSTEM_NAME"] = "Linux"
            definitions["CMAKE_SYSTEM_PROCESSOR"] = wanted.machine
        cmake_build(
            sources,
            folder / "work",
            definitions,
            what=f"building {NAME} for {abi}",
            log=root / f"build-{NAME}-{abi}.log",
            progress=progress,
        )
        shutil.copy2(_program(folder / "work"), folder / NAME)
        shutil.rmtree(folder / "work")

    folder = made_once(
        root,
        f"{NAME}-{abi}-{key}",
        make,
        is_good=lambda made: _is_good(made / NAME, wanted, static=static),
        progress=progress,
    )
    return folder / NAME


def _program(build: Path) -> Path:
    found = [path for path in sorted(build.rglob(NAME)) if path.is_file()]
    if len(found) != 1:
        raise DeviceError(f"the build made {len(found)} programs named {NAME}", where=str(build))
    return found[0]


def _is_good(program: Path, wanted: Target, *, static: bool) -> bool:
    try:
        elf = read_elf(program)
    except (OSError, ValueError):
        return False
    return elf.machine == wanted.elf_machine and not (static and elf.needed)
