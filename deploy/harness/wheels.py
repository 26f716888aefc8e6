"""The runtimes' native libraries, out of the Python packages that bring them.

Measured is the version that the model was exported and verified with: the one installed here. For
another kind of machine pip fetches the wheel of the same version.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from deploy.errors import DeviceError
from deploy.harness.toolchain import Target, run_logged
from deploy.types import Progress

RUNTIMES = ("executorch", "onnxruntime")

# What of a wheel a build needs; the rest (Python code, tests) is not unpacked.
_WANTED = {
    "executorch": ("executorch/include/", "executorch/lib/", "executorch/share/"),
    "onnxruntime": ("onnxruntime/capi/libonnxruntime.so.",),
}


def installed_versions() -> dict[str, str]:
    """Versions of the runtimes installed here; ``DeviceError`` where one is missing."""
    versions = {}
    for name in RUNTIMES:
        try:
            # A local label ("+cpu") is no part of the version that a registry knows.
            versions[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            raise DeviceError(
                f"the Python package {name} is missing",
                where="harness",
                hint=f"Install it with: pip install {name}",
            ) from None
    return versions


def package_folder(
    name: str, version: str, target: Target, *, wheels: Path, unpacked: Path, progress: Progress
) -> Path:
    """The folder of package ``name`` with its native parts for ``target``.

    For this kind of machine that is the installed package. Otherwise the wheel is downloaded to
    ``wheels`` (kept) and its native parts are unpacked below ``unpacked``.
    """
    if target.native:
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise DeviceError(f"the Python package {name} cannot be found", where="harness")
        return Path(next(iter(spec.submodule_search_locations)))
    wheel = _download(name, version, target, wheels, progress)
    progress(f"unpacking {wheel.name}")
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member.startswith(_WANTED[name]) and not member.endswith("/"):
                    archive.extract(member, unpacked)
    except (zipfile.BadZipFile, EOFError) as error:
        wheel.unlink(missing_ok=True)
        raise DeviceError(
            f"the downloaded wheel is damaged ({error})",
            where=wheel.name,
            hint="It was removed; run again.",
        ) from error
    return unpacked / name


def _download(name: str, version: str, target: Target, wheels: Path, progress: Progress) -> Path:
    pattern = f"{name}-{version}*{target.wheel_platform.rpartition('_')[2]}.whl"
    folder = wheels / f"{name}-{version}-{target.wheel_platform}"
    if found := sorted(folder.glob(pattern)):
        return found[0]
    wheels.mkdir(parents=True, exist_ok=True)
    # Into a folder of its own and renamed: an interrupted download leaves no half wheel behind.
    with tempfile.TemporaryDirectory(prefix=".download-", dir=wheels) as temporary:
        files = Path(temporary) / "files"
        argv = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
        argv += ["--no-input", "--no-deps", "--only-binary=:all:", "--progress-bar", "off"]
        argv += ["--platform", target.wheel_platform, "--dest", str(files), f"{name}=={version}"]
        run_logged(
            argv,
            what=f"downloading {name} {version} for {target.machine}",
            log=wheels / f"{name}-{version}.log",
            progress=progress,
        )
        found = sorted(files.glob(pattern))
        if not found:
            raise DeviceError(
                f"pip downloaded no wheel of {name} {version}", where=target.wheel_platform
            )
        shutil.rmtree(folder, ignore_errors=True)
        files.replace(folder)
        return folder / found[0].name
