"""Cases on the iOS simulator: it sees the Mac's files, so nothing is sent there.

A package is compiled once and cached, inputs are read where they lie, and each run has a folder of
its own for what it writes. The runner is the Swift one; docs/ios-simulator.md has its options.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import tempfile
from pathlib import Path

from deploy.bench import faults
from deploy.bench.agent import RunAnswer, RunnerBundle, RunRequest
from deploy.bench.coreml_package import CoreMLPackage, read_package
from deploy.bench.faults import Fault, FaultError
from deploy.bench.runner import arguments
from deploy.bench.store import Traffic, checked_bytes
from deploy.devices.simctl import Simulator
from deploy.errors import DeviceError, MeasurementError
from deploy.files import write_text
from deploy.harness.ios_simulator import compiled_model
from deploy.metrics.latency import MAX_RESULT_BYTES
from deploy.types import Artifact, Progress, TensorSpec, silent


class SimulatorAgent:
    """Runs cases on one simulator with one bundle; as :class:`deploy.bench.agent.Agent` does."""

    def __init__(
        self, device: Simulator, bundle: RunnerBundle, progress: Progress = silent
    ) -> None:
        self._device = device
        self._bundle = bundle
        self._progress = progress
        self._cases = Path(device.profile.work_dir) / "cases"
        self._compiled: dict[str, str] = {}
        self._packages: dict[str, Path] = {}
        self._unclean: list[Path] = []

    @property
    def traffic(self) -> Traffic:
        """Nothing is ever sent."""
        return Traffic()

    def prepare(self) -> None:
        """Check the bundle and make the work folder."""
        if self._bundle.abi != self._device.profile.abi:
            raise DeviceError(
                f"the runner's bundle is for {self._bundle.abi}, "
                f"the device is declared as {self._device.profile.abi}",
                where=self._device.serial,
                hint="Choose the profile that fits the device.",
            )
        self._cases.mkdir(parents=True, exist_ok=True)

    def push_content(self, path: Path, digest: str) -> str:
        """Have the content of ``digest`` where the simulator can use it; give its path there.

        A folder is a Core ML package: it is compiled. Raises ``MeasurementError`` for content that
        is not what ``digest`` says.
        """
        if path.is_dir():
            if digest not in self._compiled:
                compiled = str(compiled_model(path, digest, self._progress))
                self._compiled[digest] = compiled
                self._packages[compiled] = path
            return self._compiled[digest]
        checked_bytes(path, digest)
        return str(path.resolve())

    def run(self, request: RunRequest) -> RunAnswer:
        """Run the runner in a fresh folder, collect what it wrote, and clean up in any case.

        Raises ``DeviceError`` when the simulator is lost or late, ``MeasurementError`` when it
        cannot run this package.
        """
        self.clean_up()
        case = self._cases / secrets.token_hex(8)
        self._unclean.append(case)
        try:
            case.mkdir(parents=True)
            return self._run(case, request)
        finally:
            self._sweep()

    def clean_up(self) -> None:
        """End what still runs of earlier cases and delete their folders.

        Raises ``DeviceError`` where the simulator does not run any more.
        """
        self._device.check_booted()
        self._sweep()

    def give_up(self) -> None:
        """The simulator is lost: its processes are the Mac's, so they are ended all the same."""
        self._sweep()

    def _run(self, case: Path, request: RunRequest) -> RunAnswer:
        self._check_system(request)
        features = case / "features.json"
        write_text(features, self._features(request))
        words = arguments(
            request.backend,
            model=request.model,
            inputs=request.inputs,
            outputs=str(case / "outputs"),
            result=str(case / "result.json"),
            threads=request.threads,
            cpu_mask=request.cpu_mask,
            limits=request.limits,
            samples=request.samples,
            poll_memory_ms=request.poll_memory_ms,
            profile=str(case / "profile") if request.profile_bytes else None,
        )
        words += ["--features", str(features), "--pid-file", str(case / "pid")]
        # simctl says nothing of a working directory, so every path is absolute.
        first, *rest = self._bundle.launch
        program = str((self._bundle.folder / first).resolve())
        try:
            done = self._device.spawn([program, *rest, *words], timeout_s=request.timeout_s)
        except DeviceError as error:
            if faults.of(error) is not Fault.SLOW:
                raise
            raise FaultError(Fault.HUNG, error.what, where=self._device.serial) from error
        printed = done.stderr or done.stdout
        if done.exit_code != 0:
            return RunAnswer(done.exit_code, printed)
        with tempfile.TemporaryDirectory(prefix="pocketship-") as folder:
            result, outputs = Path(folder) / "result.json", Path(folder) / "outputs"
            self._device.pull(str(case / "result.json"), result, max_bytes=MAX_RESULT_BYTES)
            self._device.pull(str(case / "outputs"), outputs, max_bytes=request.output_bytes)
            return RunAnswer(0, printed, result.read_bytes(), outputs.read_bytes())

    def _check_system(self, request: RunRequest) -> None:
        """A model for a newer iOS is no fault of the model."""
        needed = self._package(request).needed_ios
        if self._device.ios_version < needed:
            has, wants = (".".join(map(str, v)) for v in (self._device.ios_version, needed))
            raise MeasurementError(
                f"the package needs iOS {wants} and the simulator has iOS {has}",
                where=request.artifact.name,
                hint="Install a newer runtime, or set the target's minimum_deployment_target.",
            )

    def _package(self, request: RunRequest) -> CoreMLPackage:
        path = self._packages[request.model]
        try:
            return read_package(path)
        except (OSError, ValueError) as error:
            raise MeasurementError(
                f"the package cannot be read: {error}", where=str(path)
            ) from None

    def _features(self, request: RunRequest) -> str:
        """What the runner has to know: names in order, and how the raw files hold each tensor."""
        package = self._package(request)
        artifact = request.artifact
        return json.dumps(
            {
                "model_bytes": artifact.bytes,
                "inputs": _named(package.inputs, artifact.inputs, artifact, "inputs"),
                "outputs": _named(package.outputs, artifact.outputs, artifact, "outputs"),
            }
        )

    def _sweep(self) -> None:
        while self._unclean:
            case = self._unclean[-1]
            self._end_runner(case)
            shutil.rmtree(case, ignore_errors=True)
            self._unclean.pop()

    def _end_runner(self, case: Path) -> None:
        try:
            noted = (case / "pid").read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            return
        if re.fullmatch(r"[1-9][0-9]{0,9}", noted) is None:
            return
        # The number may belong to someone else by now: only one that names this case is ended.
        asked = self._device.shell(["ps", "-ww", "-o", "command=", "-p", noted])
        if str(case) in asked.stdout:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(noted), signal.SIGKILL)


def _named(
    names: tuple[str, ...], specs: tuple[TensorSpec, ...], artifact: Artifact, what: str
) -> list[dict[str, object]]:
    if len(names) != len(specs):
        raise MeasurementError(
            f"the package has {len(names)} {what} and its manifest {len(specs)}",
            where=artifact.name,
        )
    return [
        {"name": name, "dtype": spec.dtype, "shape": list(spec.shape)}
        for name, spec in zip(names, specs, strict=True)
    ]
