"""This machine as a device: the same protocol, so that the same steps run here as on a phone."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from deploy.android_text import (
    big_core_mask,
    parse_cpu_max_frequencies,
    parse_cpuinfo,
    parse_meminfo,
    printable,
)
from deploy.devices import profiles
from deploy.devices.adb_link import TooMuchData
from deploy.devices.base import ShellResult
from deploy.errors import DeviceError
from deploy.files import replacing
from deploy.paths import cache_dir
from deploy.types import DeviceInfo, DeviceProfile

MAX_OUTPUT_BYTES = 16 << 20
_ABIS = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "arm64-v8a", "arm64": "arm64-v8a"}


class HostDevice:
    """This machine. Commands are started without a shell, each in a process group of its own."""

    def __init__(self, profile: DeviceProfile | None = None) -> None:
        declared = profile or profiles.load("host")
        machine = platform.machine()
        work_dir = Path(declared.work_dir)
        if not work_dir.is_absolute():
            work_dir = cache_dir() / work_dir
        self._profile = declared.model_copy(
            update={
                "abi": _ABIS.get(machine.lower(), machine),
                "work_dir": str(work_dir),
            }
        )

    @property
    def serial(self) -> str:
        """Always ``host``."""
        return "host"

    @property
    def profile(self) -> DeviceProfile:
        """The declared profile, with this machine's architecture and an absolute work folder."""
        return self._profile

    def info(self) -> DeviceInfo:
        """Ask the operating system what this machine is."""
        unknown: dict[str, str] = {
            "manufacturer": "not read on this machine",
            "soc": "not read on this machine",
        }
        cpu = parse_cpuinfo(_text(Path("/proc/cpuinfo")))
        memory = parse_meminfo(_text(Path("/proc/meminfo")))
        mask, mask_reason = self._big_cores()
        if mask is None:
            unknown["big_core_mask"] = mask_reason
        if cpu.model_name is None:
            unknown["model"] = "/proc/cpuinfo has no model name"
        if memory.total_kib is None:
            unknown["memory_total_kib"] = "/proc/meminfo has no MemTotal"
        return DeviceInfo(
            serial=self.serial,
            profile=self.profile.name,
            tier=self.profile.tier,
            model=cpu.model_name,
            abi=self.profile.abi,
            os_build=_os_name(),
            kernel=platform.release(),
            # The processors this process may use: a container often has fewer than the machine.
            cpu_count=len(os.sched_getaffinity(0)),
            big_core_mask=mask,
            memory_total_kib=memory.total_kib,
            unknown=unknown,
        )

    def shell(
        self, argv: Sequence[str], *, timeout_s: float | None = None, cwd: str | None = None
    ) -> ShellResult:
        """Run a program to its end; its whole process group dies with a time-out or Ctrl-C."""
        words = list(argv)
        if not words or any("\0" in word for word in words):
            raise DeviceError("an empty command or one with a NUL character", where=self.serial)
        limit = self.profile.shell_timeout_s if timeout_s is None else timeout_s
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                process = subprocess.Popen(
                    [*_dies_with_us(), *words],
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                return ShellResult(127, "", f"{error.filename}: not found")
            except NotADirectoryError as error:
                return ShellResult(127, "", f"{error.filename}: not a folder")
            except OSError as error:
                return ShellResult(126, "", f"{words[0]}: {error.strerror}")
            try:
                process.wait(limit)
            except subprocess.TimeoutExpired:
                raise DeviceError(
                    f"{printable(words[0], 60)} did not end within {limit:g} s",
                    where=self.serial,
                    hint="Raise the profile's time-outs, or measure less.",
                ) from None
            finally:
                # Whatever ended the wait: nothing of the group stays behind.
                _kill_group(process)
            code = process.returncode
            return ShellResult(
                code if code >= 0 else 128 - code,
                _read_output(out, self.serial),
                _read_output(err, self.serial),
            )

    def push(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        """Copy a file to ``remote``, whole or not at all."""
        self._copy(local, Path(remote), mode)

    def pull(self, remote: str, local: Path, *, max_bytes: int) -> None:
        """Copy a file from ``remote``; more than ``max_bytes`` is refused."""
        source = Path(remote)
        try:
            size = source.stat().st_size
        except OSError as error:
            raise DeviceError(f"cannot read {remote}: {error.strerror}", where="host") from None
        if size > max_bytes:
            raise DeviceError(f"{remote} has {size} bytes, more than {max_bytes}", where="host")
        self._copy(source, local, None)

    def close(self) -> None:
        """Nothing is held open."""

    def _copy(self, source: Path, target: Path, mode: int | None) -> None:
        try:
            with replacing(target) as temporary:
                shutil.copyfile(source, temporary)
                if mode is not None:
                    temporary.chmod(mode)
        except OSError as error:
            raise DeviceError(
                f"cannot copy {source} to {target}: {error.strerror}",
                where=self.serial,
                hint="Check the free space and the rights of the folder.",
            ) from None

    @staticmethod
    def _big_cores() -> tuple[str | None, str]:
        pattern = "cpu[0-9]*/cpufreq/cpuinfo_max_freq"
        nodes = sorted(Path("/sys/devices/system/cpu").glob(pattern))
        listing = "".join(f"{node} {_text(node).strip()}\n" for node in nodes)
        frequencies = parse_cpu_max_frequencies(listing)
        if not frequencies:
            return None, "this machine does not show cpuinfo_max_freq"
        return big_core_mask(frequencies), "all cores have the same maximum frequency"


def _dies_with_us() -> list[str]:
    """Prefix for a program that the kernel ends when this process ends, also by kill -9."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read_output(stream: IO[bytes], serial: str) -> str:
    size = stream.seek(0, os.SEEK_END)
    if size > MAX_OUTPUT_BYTES:
        what = f"a command printed more than {MAX_OUTPUT_BYTES} bytes"
        raise DeviceError(what, where=serial) from TooMuchData()
    stream.seek(0)
    return stream.read().decode("utf-8", errors="replace")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.platform())
    except OSError:
        return platform.platform()
