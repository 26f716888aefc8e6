"""The compilers and build tools: which one for which kind of phone, and how they are run."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sysconfig
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import DeviceError
from deploy.harness.elf import EM_AARCH64, EM_X86_64
from deploy.types import Progress

_STEP = re.compile(r"\[(\d+)/(\d+)\]")


@dataclass(frozen=True)
class Target:
    """A kind of Linux machine that the harness is built for.

    ``machine`` is what ``uname -m`` says there, ``wheel_platform`` the tag of the wheels whose
    libraries run there.
    """

    abi: str
    machine: str
    elf_machine: int
    loader: str
    triple: str
    debian_package: str
    wheel_platform: str
    min_alignment: int

    @property
    def native(self) -> bool:
        """Whether this machine is of that kind."""
        return platform.machine() == self.machine

    @property
    def compiler_name(self) -> str:
        """Name of the C++ compiler on PATH."""
        return "g++" if self.native else f"{self.triple}-g++"


_TARGETS = {
    "arm64-v8a": Target(
        abi="arm64-v8a",
        machine="aarch64",
        elf_machine=EM_AARCH64,
        loader="ld-linux-aarch64.so.1",
        triple="aarch64-linux-gnu",
        debian_package="g++-aarch64-linux-gnu",
        wheel_platform="manylinux_2_28_aarch64",
        # Phones with 16 KiB pages load nothing below this.
        min_alignment=16 * 1024,
    ),
    "x86_64": Target(
        abi="x86_64",
        machine="x86_64",
        elf_machine=EM_X86_64,
        loader="ld-linux-x86-64.so.2",
        triple="x86_64-linux-gnu",
        debian_package="g++-x86-64-linux-gnu",
        wheel_platform="manylinux_2_28_x86_64",
        min_alignment=4 * 1024,
    ),
}


def target(abi: str) -> Target:
    """The target of an Android ABI name; ``DeviceError`` where there is no build for it."""
    if abi not in _TARGETS:
        known = ", ".join(sorted(_TARGETS))
        raise DeviceError(
            f"no build for the ABI '{abi}'", where="harness", hint=f"There is one for {known}."
        )
    return _TARGETS[abi]


def native_abi() -> str:
    """The ABI of this machine; ``DeviceError`` where there is no build for it."""
    found = next((abi for abi, one in _TARGETS.items() if one.native), None)
    return target(found or platform.machine()).abi


@dataclass(frozen=True)
class Toolchain:
    """A C++ compiler with the libraries that its programs need at run time."""

    target: Target
    compiler: Path
    version: str

    def library(self, name: str) -> Path | None:
        """Where the compiler finds the shared library ``name``; None where it does not."""
        answer = _ask(self.compiler, f"-print-file-name={name}")
        path = Path(answer)
        return path.resolve() if path.is_absolute() and path.is_file() else None


def find_toolchain(wanted: Target) -> Toolchain:
    """Find the C++ compiler for ``wanted``; ``DeviceError`` says what to install."""
    found = shutil.which(wanted.compiler_name)
    if found is None:
        package = "g++" if wanted.native else wanted.debian_package
        raise DeviceError(
            f"the C++ compiler {wanted.compiler_name} is missing",
            where=f"harness for {wanted.abi}",
            hint=f"Install it, on Debian or Ubuntu with: apt-get install {package}",
        )
    compiler = Path(found)
    return Toolchain(wanted, compiler, _ask(compiler, "--version").splitlines()[0])


def find_tool(name: str) -> Path:
    """Find ``cmake`` or ``ninja``: the one that came with our Python packages, else on PATH."""
    ours = Path(sysconfig.get_path("scripts")) / name
    found = str(ours) if ours.is_file() else shutil.which(name)
    if found is None:
        raise DeviceError(
            f"{name} is missing", where="harness", hint=f"Install it with: pip install {name}"
        )
    return Path(found)


def cmake_build(
    source: Path,
    build: Path,
    definitions: Mapping[str, str | Path],
    *,
    what: str,
    log: Path,
    progress: Progress,
) -> None:
    """Configure and build the CMake project ``source`` in ``build`` (Release).

    ``log`` gets everything that the tools print; ``DeviceError`` names it when they fail.
    """
    cmake = find_tool("cmake")
    configure: list[str] = [str(cmake), "-G", "Ninja", "-S", str(source), "-B", str(build)]
    configure.append(f"-DCMAKE_MAKE_PROGRAM={find_tool('ninja')}")
    configure.append("-DCMAKE_BUILD_TYPE=Release")
    configure += [f"-D{key}={value}" for key, value in definitions.items()]
    run_logged(configure, what=what, log=log, progress=progress)
    jobs = str(min(os.cpu_count() or 1, 4))
    run_logged(
        [str(cmake), "--build", str(build), "-j", jobs], what=what, log=log, progress=progress
    )


def run_logged(argv: Sequence[str], *, what: str, log: Path, progress: Progress) -> None:
    """Run a tool to its end, its output into ``log``; its ``[n/m]`` lines become progress.

    The tool and its children are killed when this call is interrupted. ``DeviceError`` with the
    first line that looks like an error when it fails.
    """
    progress(what)
    recent: deque[str] = deque(maxlen=200)
    # A group of its own, so that compilers started by ninja started by cmake can be killed too.
    with (
        log.open("a", encoding="utf-8") as stream,
        subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        ) as process,
    ):
        try:
            for line in process.stdout or ():
                stream.write(line)
                recent.append(line.strip())
                if step := _STEP.match(line):
                    progress(f"{what}: {step[1]}/{step[2]}")
            code = process.wait()
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    if code != 0:
        first = next((line for line in recent if "error" in line.lower()), "")
        reason = first or (recent[-1] if recent else f"exit code {code}")
        raise DeviceError(
            f"{what} failed: {reason[:300]}", where=Path(argv[0]).name, hint=f"See {log}"
        )


def _ask(compiler: Path, option: str) -> str:
    answer = subprocess.run(
        [compiler, option],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    if answer.returncode != 0 or not answer.stdout.strip():
        raise DeviceError(
            f"the C++ compiler does not answer {option}",
            where=str(compiler),
            hint="Reinstall it.",
        )
    return answer.stdout.strip()
