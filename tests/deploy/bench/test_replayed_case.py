"""A case behind a real ADB daemon, recorded; then the same figures without the daemon."""

from __future__ import annotations

import shutil
from pathlib import Path

from deploy import harness
from deploy.bench.agent import bundle_folder_name
from deploy.bench.runner import PRESETS
from deploy.bench.session import run_device
from deploy.devices import profiles
from deploy.devices.recording import RecordingDevice
from deploy.devices.replay import ReplayDevice
from deploy.types import Format, Status
from tests.deploy.bench.conftest import Models
from tests.deploy.native_adbd import NativeAdbd

EXACT = PRESETS["exact"]


def test_a_replayed_case_has_the_recorded_figures(
    adbd: NativeAdbd, models: Models, bundle: harness.Bundle, tmp_path: Path
) -> None:
    device = adbd.connect(tmp_path / "dev")
    # Sending 50 MB takes its time.
    there = Path(device.profile.work_dir) / bundle_folder_name(bundle.files)
    there.mkdir(parents=True)
    for name in bundle.files:
        shutil.copy(bundle.folder / name, there / name)
    folder = tmp_path / "recording"
    recording = RecordingDevice(device, folder)
    recording.ask_questions()
    jobs = [models.job(Format.ONNX), models.job(Format.EXECUTORCH)]
    recorded, cases = run_device(recording, jobs, bundle, EXACT)
    recording.finish()
    adbd.kill()
    shutil.rmtree(device.profile.work_dir)
    assert [case.status for case in cases] == [Status.OK, Status.OK]
    assert "SECRET123" not in (folder / "getprop.txt").read_text()

    again = ReplayDevice(folder, profiles.load(folder / "profile.yaml"))
    run, replayed = run_device(again, jobs, bundle, EXACT)
    assert run.status is Status.OK, run.reason
    assert run.info is not None
    assert recorded.info is not None
    assert run.info.serial == "replay:recording"
    assert run.info.model_dump(exclude={"serial"}) == recorded.info.model_dump(exclude={"serial"})
    for old, new in zip(cases, replayed, strict=True):
        assert new.status is Status.OK, new.reason
        assert new.measurements == old.measurements
        assert (new.before, new.after) == (old.before, old.after)
        assert any("recording" in word for word in new.warnings)
        assert not any("recording" in word for word in old.warnings)

    # A part of what was recorded finds its own answers, not those of the first case.
    part = ReplayDevice(folder, profiles.load(folder / "profile.yaml"))
    _, (second,) = run_device(part, jobs[1:], bundle, EXACT)
    assert second.measurements == cases[1].measurements

    # What was not recorded does not run.
    other = ReplayDevice(folder, profiles.load(folder / "profile.yaml"))
    _, (unknown,) = run_device(other, [models.job(Format.ORT)], bundle, EXACT)
    assert unknown.status is Status.INVALID
    assert "no answer" in unknown.reason
