"""The agent: everything that one case needs on a device, in the order in which it happens.

``prepare`` -> ``push_content`` -> ``run`` (which collects) -> clean up, always. The agent decides
nothing about a case; it hands back what the runner said and wrote.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deploy.android_text import parse_sha256sum, printable
from deploy.bench import leftovers
from deploy.bench.faults import Fault, FaultError
from deploy.bench.runner import Preset, arguments
from deploy.bench.store import Store, Traffic
from deploy.devices.base import Device
from deploy.errors import DeviceError
from deploy.metrics.latency import MAX_RESULT_BYTES
from deploy.types import Progress, silent


class RunnerBundle(Protocol):
    """What the agent needs of :class:`deploy.harness.Bundle`."""

    @property
    def abi(self) -> str:
        """``arm64-v8a`` or ``x86_64``."""

    @property
    def folder(self) -> Path:
        """Where the files are on this machine."""

    @property
    def files(self) -> Mapping[str, str]:
        """File name to SHA-256."""

    @property
    def launch(self) -> Sequence[str]:
        """Words that start the runner with the bundle's folder as working directory."""


@dataclass(frozen=True)
class RunRequest:
    """One run of the runner; paths are the device's."""

    backend: str
    model: str
    model_suffix: str
    inputs: str
    output_bytes: int
    threads: int
    cpu_mask: str | None
    limits: Preset
    timeout_s: float
    samples: int = 0
    poll_memory_ms: int = 0
    profile_bytes: int = 0
    """Largest profile that is taken; 0: none is asked for."""


@dataclass(frozen=True)
class RunAnswer:
    """What a run left: exit code, what was printed, and on exit code 0 the files' content."""

    exit_code: int
    printed: str
    result: bytes = b""
    outputs: bytes = b""
    profile: bytes = b""


# Data reaches these scripts as positional parameters only.
_SET_UP = 'mkdir -p -- "$1" && ln -s -- "$2" "$1/$3"'
_LAUNCH = 'echo $$ >"$1/pid" && shift && exec "$@"'
_SIZES_AND_HASHES = '{ stat -c "%s %n" -- "$@"; sha256sum -- "$@"; } 2>&1; true'


def bundle_folder_name(files: Mapping[str, str]) -> str:
    """``bundle-<hash>`` of a bundle's names and hashes."""
    text = "".join(f"{name}\0{files[name]}\n" for name in sorted(files))
    return f"bundle-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class Agent:
    """Runs cases on one device with one bundle."""

    def __init__(self, device: Device, bundle: RunnerBundle, progress: Progress = silent) -> None:
        self._device = device
        self._bundle = bundle
        self._progress = progress
        self._store = Store(device, progress)
        self._bundle_folder = ""
        self._unclean: list[str] = []
        self._synced_bytes = 0

    @property
    def traffic(self) -> Traffic:
        """What was pushed, and what was there already."""
        return self._store.traffic

    def prepare(self) -> None:
        """Make the work folder and have the bundle there, every file verified by its hash.

        To be called again after the device restarted: nothing known from before is relied on.
        """
        if self._bundle.abi != self._device.profile.abi:
            raise FaultError(
                Fault.NOT_STARTED,
                f"the runner's bundle is for {self._bundle.abi}, "
                f"the device is declared as {self._device.profile.abi}",
                where=self._device.serial,
                hint="Choose the profile that fits the device.",
            )
        self._store.forget()
        self._store.prepare()
        files = self._bundle.files
        self._bundle_folder = self._store.put_folder(
            self._bundle.folder, files, bundle_folder_name(files)
        )

    def push_content(self, path: Path, digest: str) -> str:
        """Have a file on the device by its SHA-256; give its path there."""
        return self._store.put(path, digest)

    def run(self, request: RunRequest) -> RunAnswer:
        """Run the runner in a fresh folder, collect what it wrote, and clean up in any case.

        Raises ``DeviceError`` when the device is lost or late, or when the runner said that all is
        well and its files are not there as they must be.
        """
        self.clean_up()
        case = f"{self._device.profile.work_dir}/cases/{leftovers.new_name()}"
        self._unclean.append(case)
        try:
            return self._run(case, request)
        finally:
            # Where the device is out of reach now, the next call of clean_up does it.
            with contextlib.suppress(DeviceError):
                self.clean_up()

    def clean_up(self) -> None:
        """End what still runs of earlier cases and delete their folders: they disturb the next.

        Raises ``DeviceError`` when the device is out of reach; what is left is tried again.
        """
        while self._unclean:
            self._device.shell(["sh", "-c", leftovers.CLEAN_UP, "sh", self._unclean[-1]])
            leftovers.release(self._unclean.pop().rpartition("/")[2])

    def give_up(self) -> None:
        """The device is lost: what is left there is for whoever meets it next."""
        for case in self._unclean:
            leftovers.release(case.rpartition("/")[2])
        self._unclean.clear()

    def _run(self, case: str, request: RunRequest) -> RunAnswer:
        # ONNX Runtime tells its two formats apart by the name's ending, so the model keeps it.
        suffix = request.model_suffix
        model = f"model{suffix if re.fullmatch(r'[.][a-z0-9]{1,12}', suffix) else ''}"
        self._store.must(
            ["sh", "-c", _SET_UP, "sh", case, request.model, model], "make a case's folder"
        )
        self._settle()
        words = arguments(
            request.backend,
            model=f"{case}/{model}",
            inputs=request.inputs,
            outputs=f"{case}/outputs",
            result=f"{case}/result.json",
            threads=request.threads,
            cpu_mask=request.cpu_mask,
            limits=request.limits,
            samples=request.samples,
            poll_memory_ms=request.poll_memory_ms,
            profile=f"{case}/profile" if request.profile_bytes else None,
        )
        launch = ["sh", "-c", _LAUNCH, "sh", case, *self._bundle.launch, *words]
        started = time.monotonic()
        try:
            done = self._device.shell(launch, cwd=self._bundle_folder, timeout_s=request.timeout_s)
        except DeviceError as error:
            if time.monotonic() - started < request.timeout_s:
                raise
            what = f"no end within {request.timeout_s:g} s"
            raise FaultError(Fault.HUNG, what, where=self._device.serial) from error
        printed = done.stderr or done.stdout
        if done.exit_code != 0:
            return RunAnswer(done.exit_code, printed)
        limits = {"result.json": MAX_RESULT_BYTES, "outputs": request.output_bytes}
        if request.profile_bytes:
            limits["profile"] = request.profile_bytes
        return RunAnswer(0, printed, *self._collect(case, limits))

    def _settle(self) -> None:
        """Let the device write back what was pushed, or it does so during the measurement."""
        if self._synced_bytes != self.traffic.bytes_pushed:
            self._device.shell(["sync"])
            self._synced_bytes = self.traffic.bytes_pushed

    def _collect(self, case: str, limits: Mapping[str, int]) -> list[bytes]:
        """Files of a case, each of at most so many bytes, and whole: hashed there and here."""
        said = self._device.shell(["sh", "-c", _SIZES_AND_HASHES, "sh", *limits], cwd=case).stdout
        names = "|".join(re.escape(name) for name in limits)
        rows = re.findall(rf"^([0-9]{{1,18}}) ({names})\r?$", said, re.MULTILINE)
        sizes = {name: size for size, name in rows}
        hashes = parse_sha256sum(said)
        for name, limit in limits.items():
            if name not in sizes or name not in hashes:
                what = f"the runner left no {name}: {printable(said, 160)}"
                raise FaultError(Fault.GARBAGE, what, where=self._device.serial)
            if int(sizes[name]) > limit:
                what = f"{name} has {sizes[name]} bytes, more than {limit}"
                raise FaultError(Fault.GARBAGE, what, where=self._device.serial)
        with tempfile.TemporaryDirectory(prefix="pocketship-") as folder:
            found = []
            for name, limit in limits.items():
                local = Path(folder) / name
                self._device.pull(f"{case}/{name}", local, max_bytes=limit)
                found.append(local.read_bytes())
                if hashlib.sha256(found[-1]).hexdigest() != hashes[name]:
                    what = f"{name} has another content here than on the device"
                    raise FaultError(Fault.DAMAGED, what, where=self._device.serial)
            return found
