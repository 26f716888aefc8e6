"""The iOS simulator through ``xcrun simctl``. Never yet run on a Mac: see docs/ios-simulator.md.

A simulated device shares the Mac's kernel and file system. So files need no transfer, commands of
:meth:`Simulator.shell` run on the Mac itself (a simulator has no shell), and only programs that
were built for the simulator are started inside of it, with :meth:`Simulator.spawn`.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy import xcrun
from deploy.android_text import printable
from deploy.devices.base import ShellResult
from deploy.devices.host import HostDevice
from deploy.devices.simctl_text import (
    Listing,
    Runtime,
    Simulated,
    created_udid,
    is_udid,
    newest_ios,
    parse_list,
    parse_version,
)
from deploy.errors import DeviceError
from deploy.types import DeviceInfo, DeviceProfile, Progress, SimulatorSpec, silent

LIST_TIMEOUT_S = 120.0
"""The first call after an update of Xcode sets up its simulators before it answers."""

BOOT_TIMEOUT_S = 600.0
"""A new device migrates its data at its first boot: minutes on a shared CI machine."""

_CHANGE_TIMEOUT_S = 120.0
_OURS = re.compile(r"pocketship-([0-9]{1,10})-[0-9a-f]{8}")
_SIMCTL_FAILED = "An error was encountered processing the command"


class Simulator:
    """A booted simulator. ``created``: pocketship made it; ``booted``: pocketship booted it."""

    def __init__(
        self,
        profile: DeviceProfile,
        device: Simulated,
        runtime: Runtime,
        *,
        model: str,
        created: bool,
        booted: bool,
        progress: Progress = silent,
    ) -> None:
        self._mac = HostDevice(profile)
        self._profile = profile.model_copy(update={"work_dir": self._mac.profile.work_dir})
        self._device = device
        self._runtime = runtime
        self._model = model
        self._created = created
        self._booted = booted
        self._progress = progress
        self._closed = False

    @property
    def serial(self) -> str:
        """The device's identifier (UDID)."""
        return self._device.udid

    @property
    def profile(self) -> DeviceProfile:
        """The declared profile with an absolute work folder, which is one of the Mac's."""
        return self._profile

    @property
    def ios_version(self) -> tuple[int, ...]:
        """Version of the simulated system, as (17, 5)."""
        return self._runtime.version

    def info(self) -> DeviceInfo:
        """What is simulated. Raises ``DeviceError`` where the device does not run any more."""
        self.check_booted()
        mac = "a simulator computes on the Mac's processor and has no hardware of its own"
        return DeviceInfo(
            serial=self.serial,
            profile=self.profile.name,
            tier=self.profile.tier,
            model=f"{self._model} (simulated)",
            manufacturer="Apple",
            abi=platform.machine(),
            os_build=f"{self._runtime.name} ({self._runtime.build or 'unknown build'})",
            kernel=platform.release(),
            cpu_count=os.cpu_count(),
            properties={"name": self._device.name, "runtime": self._runtime.identifier},
            unknown={"soc": mac, "memory_total_kib": mac, "big_core_mask": mac},
        )

    def shell(
        self, argv: Sequence[str], *, timeout_s: float | None = None, cwd: str | None = None
    ) -> ShellResult:
        """Run a command on the Mac, whose files and processes are the simulator's too."""
        return self._mac.shell(argv, timeout_s=timeout_s, cwd=cwd)

    def push(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        """Copy a file on the Mac, whole or not at all."""
        self._mac.push(local, remote, mode=mode)

    def pull(self, remote: str, local: Path, *, max_bytes: int) -> None:
        """Copy a file on the Mac; more than ``max_bytes`` is refused."""
        self._mac.pull(remote, local, max_bytes=max_bytes)

    def spawn(self, argv: Sequence[str], *, timeout_s: float) -> ShellResult:
        """Run a program that was built for the simulator, by its absolute path, to its end.

        A signal gives 128 + its number. A time-out ends simctl, but perhaps not the program, which
        is no child of it: whoever starts one that may hang has to know its process id. Raises
        ``DeviceError`` where simctl cannot start it, and after ``timeout_s`` seconds.
        """
        done = xcrun.run(["simctl", "spawn", self.serial, *argv], timeout_s=timeout_s)
        if _SIMCTL_FAILED in done.stderr:
            # Its exit code is the low byte of Apple's error number: 149 must not pass for a signal.
            raise DeviceError(
                f"simctl cannot run the program: {printable(done.words)}",
                where=self.serial,
                hint="Look at its state with: xcrun simctl list devices.",
            )
        return ShellResult(done.exit_code, done.stdout, done.stderr)

    def check_booted(self) -> None:
        """Raise ``DeviceError`` unless the device still runs."""
        now = listing().device(self.serial)
        if now is None or not now.booted:
            state = f"is in the state {now.state!r}" if now else "is not there any more"
            raise DeviceError(
                f"the simulator {state}",
                where=self.serial,
                hint="Leave it alone while pocketship measures.",
            )

    def close(self) -> None:
        """Leave the Mac as it was: shut down what we booted, delete what we created."""
        if self._closed:
            return
        self._closed = True
        _undo(self.serial, created=self._created, booted=self._booted, progress=self._progress)


def connect(
    profile: DeviceProfile, udid: str | None = None, *, progress: Progress = silent
) -> Simulator:
    """A booted simulator: the one of that ``udid``, or a new one as the profile describes it.

    Raises ``DeviceError`` where there is no xcrun, no fitting runtime or device type, or the device
    does not boot; then nothing of ours stays behind.
    """
    seen = listing()
    for left in _leftovers(seen):
        progress(f"{profile.name}: deleting {left.name}, which an interrupted run left")
        _undo(left.udid, created=True, booted=left.state != "Shutdown", progress=progress)
    if udid is not None:
        device, runtime = _existing(seen, udid)
    else:
        device, runtime = _create(seen, profile, progress)
    created, booted = udid is None, not device.booted
    try:
        if booted:
            progress(f"{profile.name}: booting {device.name} with {runtime.name}")
            _must(["bootstatus", device.udid, "-b"], "boot the simulator", timeout_s=BOOT_TIMEOUT_S)
        return Simulator(
            profile,
            device,
            runtime,
            model=seen.type_name(device.device_type),
            created=created,
            booted=booted,
            progress=progress,
        )
    except BaseException:
        _undo(device.udid, created=created, booted=booted, progress=progress)
        raise


def listing() -> Listing:
    """All devices, runtimes and device types. Raises ``DeviceError``."""
    done = _must(["list", "-j"], "list the simulators", timeout_s=LIST_TIMEOUT_S)
    try:
        return parse_list(done.stdout)
    except ValueError as error:
        raise DeviceError(
            f"the answer of simctl list -j {error}",
            where="xcrun simctl",
            hint="See what it prints; pocketship knows the format of Xcode 11 and later.",
        ) from None


@dataclass(frozen=True)
class Seen:
    """A simulator as ``pocketship devices`` shows it. ``hint`` says what to do, where something."""

    udid: str
    name: str
    state: str
    model: str
    os_build: str
    hint: str = ""

    @property
    def usable(self) -> bool:
        """Whether a pipeline can name it as ``serial``."""
        return self.state in ("Booted", "Shutdown") and bool(self.os_build)


def listed() -> list[Seen]:
    """The iOS simulators of this machine, empty where there is no xcrun.

    Raises ``DeviceError`` where there is one and it does not answer as it should.
    """
    if not xcrun.available():
        return []
    found = listing()
    rows = []
    for device in found.devices:
        runtime = found.runtime(device.runtime)
        if runtime is not None and runtime.platform != "iOS":
            continue
        if runtime is None and not device.unavailable:
            continue
        rows.append(
            Seen(
                udid=device.udid,
                name=device.name,
                state="offline" if device.unavailable else device.state,
                model=found.type_name(device.device_type),
                os_build=f"{runtime.name} ({runtime.build})" if runtime else "",
                hint=device.unavailable and f"{device.unavailable}; install its runtime in Xcode",
            )
        )
    return rows


def _existing(seen: Listing, udid: str) -> tuple[Simulated, Runtime]:
    device = seen.device(udid)
    if device is None:
        raise DeviceError(
            "there is no simulator of this identifier",
            where=udid,
            hint="List them with: pocketship devices; or leave the serial out.",
        )
    runtime = seen.runtime(device.runtime)
    if device.unavailable or runtime is None or runtime.platform != "iOS":
        raise DeviceError(
            f"this simulator cannot be used: {device.unavailable or 'it is no iOS device'}",
            where=udid,
            hint="Choose another one, or install its runtime in Xcode (Settings, Components).",
        )
    return device, runtime


def _create(seen: Listing, profile: DeviceProfile, progress: Progress) -> tuple[Simulated, Runtime]:
    spec = profile.simulator or SimulatorSpec()
    runtime = newest_ios(seen.runtimes, parse_version(spec.minimum_ios) or ())
    if runtime is None:
        there = ", ".join(sorted(one.name for one in seen.runtimes)) or "none"
        raise DeviceError(
            f"no runtime of iOS {spec.minimum_ios} or later is installed; there are: {there}",
            where=profile.name,
            hint="Install one with: xcodebuild -downloadPlatform iOS.",
        )
    known = runtime.device_types or tuple(one.identifier for one in seen.device_types)
    if spec.device_type not in known:
        phones = [seen.type_name(one) for one in known if ".iPhone-" in one]
        raise DeviceError(
            f"{runtime.name} has no device type {spec.device_type}; it has: "
            f"{', '.join(phones[-5:]) or 'none'}",
            where=profile.name,
            hint="Name another one in the profile (simulator.device_type), "
            "see: xcrun simctl list devicetypes.",
        )
    name = f"pocketship-{os.getpid()}-{secrets.token_hex(4)}"
    progress(f"{profile.name}: creating {name}")
    words = ["create", name, spec.device_type, runtime.identifier]
    done = _must(words, "create a simulator", timeout_s=_CHANGE_TIMEOUT_S)
    udid = created_udid(done.stdout)
    if udid is None:
        raise DeviceError(
            f"simctl create answers no identifier: {printable(done.stdout, 120)!r}",
            where="xcrun simctl",
            hint=f"Delete the device {name} by hand if it is there.",
        )
    device = Simulated(udid, name, "Shutdown", runtime.identifier, spec.device_type)
    return device, runtime


def _leftovers(seen: Listing) -> list[Simulated]:
    """Devices that a pocketship created which runs no more."""
    left = []
    for device in seen.devices:
        found = _OURS.fullmatch(device.name)
        if found and is_udid(device.udid) and not _alive(int(found.group(1))):
            left.append(device)
    return left


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _undo(udid: str, *, created: bool, booted: bool, progress: Progress) -> None:
    """Shut down and delete, each tried; what fails is told and is no reason to lose results."""
    steps = (["shutdown"] if booted else []) + (["delete"] if created else [])
    for step in steps:
        try:
            done = xcrun.run(["simctl", step, udid], timeout_s=_CHANGE_TIMEOUT_S)
        except DeviceError as error:
            progress(f"{udid}: {error}")
            continue
        # A device that never came up cannot be shut down: what counts is that it is off.
        if done.exit_code != 0 and "current state: Shutdown" not in done.stderr:
            progress(f"{udid}: simctl {step} failed: {printable(done.words)}")


def _must(words: Sequence[str], what: str, *, timeout_s: float) -> xcrun.Done:
    done = xcrun.run(["simctl", *words], timeout_s=timeout_s)
    if done.exit_code != 0:
        raise DeviceError(
            f"cannot {what}: {printable(done.words)}",
            where=f"xcrun simctl {words[0]}",
            hint="Is Xcode chosen (xcode-select -p) and its licence accepted?",
        )
    return done
