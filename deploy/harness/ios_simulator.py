"""The runner for the iOS simulator, and Core ML packages compiled for it, by Apple's own tools.

Both need a Mac with Xcode and were never yet run on one. Both are made once and cached by the hash
of what they are made of.
"""

from __future__ import annotations

import platform
from pathlib import Path

from deploy import files as files_
from deploy import xcrun
from deploy.errors import DeviceError, MeasurementError
from deploy.harness.bundles import MANIFEST, RUNNER, Bundle, is_good, load
from deploy.harness.cache import key_of, made_once
from deploy.paths import cache_dir, ios_harness_dir
from deploy.types import Progress, silent

ABI = "ios-simulator"
"""In place of an Android ABI: in profiles and bundles."""

MINIMUM_IOS = "17.0"

_ASK_TIMEOUT_S = 60.0
_BUILD_TIMEOUT_S = 600.0
_MODEL_TIMEOUT_S = 900.0


def target_triple() -> str:
    """What swiftc builds for: simulators have the Mac's own architecture."""
    arch = "x86_64" if platform.machine().lower() in ("x86_64", "amd64") else "arm64"
    return f"{arch}-apple-ios{MINIMUM_IOS}-simulator"


def bundle(progress: Progress = silent) -> Bundle:
    """A bundle with the Swift runner alone: Core ML belongs to the system.

    Raises ``DeviceError`` where there is no Xcode or the build fails.
    """
    compiler = _asked(["--sdk", "iphonesimulator", "swiftc", "--version"])
    sdk = _asked(["--sdk", "iphonesimulator", "--show-sdk-version"])
    sources = ios_harness_dir() / "runner"
    versions = {"compiler": compiler, "sdk": f"iphonesimulator {sdk}", "target": target_triple()}
    ingredients = {"sources": files_.tree_digest(sources)[0], "versions": versions}

    def make(folder: Path) -> None:
        progress(f"building {RUNNER} for the iOS simulator")
        _compile_runner(sources, folder / RUNNER)
        made = Bundle(
            abi=ABI,
            folder=folder,
            files={RUNNER: files_.sha256(folder / RUNNER)},
            launch=(f"./{RUNNER}",),
            versions=versions,
        )
        files_.write_text(folder / MANIFEST, made.manifest().model_dump_json(indent=2) + "\n")

    folder = made_once(
        cache_dir() / "harness",
        f"bundle-{ABI}-{key_of(ingredients)}",
        make,
        is_good=is_good,
        progress=progress,
    )
    return load(folder)


def compiled_model(package: Path, digest: str, progress: Progress = silent) -> Path:
    """The ``.mlmodelc`` of a Core ML package, compiled by ``coremlcompiler`` and cached.

    ``digest`` is the package's SHA-256 as :func:`deploy.files.tree_digest` says. Raises
    ``MeasurementError`` where the package is not that, or cannot be compiled; ``DeviceError`` where
    there is no Xcode.
    """
    try:
        actual = files_.tree_digest(package)[0]
    except (OSError, ValueError) as error:
        raise MeasurementError(f"cannot be read: {error}", where=str(package)) from None
    if actual != digest:
        raise MeasurementError(
            "the package changed: its SHA-256 is not the recorded one",
            where=str(package),
            hint="Export it again.",
        )
    ingredients = {"package": digest, "compiler": _asked(["coremlcompiler", "version"])}

    def make(folder: Path) -> None:
        progress(f"compiling {package.name}")
        done = xcrun.run(
            ["coremlcompiler", "compile", str(package.resolve()), str(folder)],
            timeout_s=_MODEL_TIMEOUT_S,
        )
        if done.exit_code != 0:
            raise MeasurementError(
                f"coremlcompiler refuses the package: {done.words}", where=package.name
            )
        found = sorted(folder.glob("*.mlmodelc"))
        if len(found) != 1:
            raise MeasurementError(
                f"coremlcompiler left {len(found)} compiled models and not one", where=package.name
            )
        # One name for all: the folder is what tells them apart.
        found[0].rename(folder / "model.mlmodelc")
        made = files_.tree_digest(folder / "model.mlmodelc")[0]
        files_.write_text(folder / "model.sha256", made + "\n")

    folder = made_once(
        cache_dir() / "coreml",
        key_of(ingredients),
        make,
        is_good=_is_whole,
        progress=progress,
    )
    return folder / "model.mlmodelc"


def _compile_runner(sources: Path, program: Path) -> None:
    names = [str(path) for path in sorted(sources.glob("*.swift"))]
    done = xcrun.run(
        [
            *("--sdk", "iphonesimulator", "swiftc"),
            *("-target", target_triple()),
            # Swift 6's checks of concurrency refuse mach_task_self_, which the C header declares
            # as a variable.
            *("-swift-version", "5", "-O", "-whole-module-optimization"),
            *("-module-name", RUNNER),
            *names,
            *("-o", str(program)),
        ],
        timeout_s=_BUILD_TIMEOUT_S,
    )
    if done.exit_code != 0 or not program.is_file():
        errors = [line for line in done.stderr.splitlines() if "error:" in line]
        raise DeviceError(
            f"building {RUNNER} failed: {(errors or [done.words])[0].strip()[:300]}",
            where="xcrun swiftc",
            hint="Please report it with the version of Xcode: it was written without a Mac.",
        )


def _asked(words: list[str]) -> str:
    done = xcrun.run(words, timeout_s=_ASK_TIMEOUT_S)
    lines = (done.stdout or done.stderr).strip().splitlines()
    if done.exit_code != 0 or not lines:
        raise DeviceError(
            f"does not answer: {done.words}",
            where="xcrun " + " ".join(words),
            hint="Install Xcode and choose it: sudo xcode-select -s /Applications/Xcode.app.",
        )
    return lines[0].strip()[:200]


def _is_whole(folder: Path) -> bool:
    try:
        wanted = (folder / "model.sha256").read_text(encoding="ascii").strip()
        return files_.tree_digest(folder / "model.mlmodelc")[0] == wanted
    except (OSError, ValueError):
        return False
