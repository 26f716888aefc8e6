"""``calibrate`` with the real runner on this machine, from the first session to the certificate."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deploy.config import DeviceConfig
from deploy.console import Session as Ui
from deploy.devices.host import HostDevice
from deploy.errors import ConfigError, MeasurementError
from deploy.files import sha256
from deploy.gating import calibrate as calibrating
from deploy.gating import calibration_model
from deploy.gating.calibrate import Wish
from deploy.report import certificate_files
from deploy.report.comparable import device_hash
from deploy.types import Artifact, Case, Format, Metric
from tests.deploy.bench.conftest import CLASSES, FEATURES, artifact
from tests.deploy.bench.conftest import _export_onnx as export_onnx
from tests.deploy.conftest import Answer

Call = Callable[..., Answer]


class Heard(Ui):
    """What would stand on the user's terminal."""

    def __init__(self) -> None:
        self.said, self.told = io.StringIO(), io.StringIO()
        super().__init__("calibrate", self.said, self.told, None)


@pytest.fixture
def ui() -> Heard:
    return Heard()


@pytest.fixture
def wish(tmp_path: Path) -> Wish:
    """The fewest pairs of the shortest sessions, with a small model that is there already."""
    folder = tmp_path / "model"
    folder.mkdir()
    weight = np.random.default_rng(7).standard_normal((CLASSES, FEATURES), dtype=np.float32)
    path = folder / "tiny.onnx"
    export_onnx(weight, path, tmp_path / "unused.ort")
    made = artifact(path, Format.ONNX)
    (folder / f"{made.name}.manifest.json").write_text(made.model_dump_json())
    host = DeviceConfig(profile="host")
    return Wish(host, tmp_path / "certificates", folder, preset="exact", pairs=6)


def test_the_built_in_model_is_what_it_is_said_to_be() -> None:
    state = torch.random.get_rng_state()
    network = calibration_model.model()
    assert torch.equal(torch.random.get_rng_state(), state)
    again = calibration_model.model().state_dict()
    assert all(torch.equal(value, again[name]) for name, value in network.state_dict().items())
    macs = 0

    def count(layer: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal macs
        weight: torch.Tensor = layer.weight  # type: ignore[assignment]
        macs += weight[0].numel() * output[0].numel()

    convolutions = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    assert (len(convolutions), sum(layer.groups > 1 for layer in convolutions)) == (7, 3)
    for layer in network:
        if hasattr(layer, "weight"):
            layer.register_forward_hook(count)
    network(torch.zeros(calibration_model.INPUT))
    assert f"{macs / 1e6:.0f} million" in calibration_model.DESCRIPTION


@pytest.mark.slow
def test_without_a_model_the_built_in_one_is_made(wish: Wish, ui: Heard) -> None:
    path = calibrating.calibrate(dataclasses.replace(wish, model=None), ui)
    made = certificate_files.read(path)
    assert (made.format, made.artifact) == (Format.EXECUTORCH, "calibration.executorch")


def test_a_device_is_calibrated_and_its_certificate_found_again(wish: Wish, ui: Heard) -> None:
    path = calibrating.calibrate(wish, ui)
    assert certificate_files.files(wish.folder) == [path]
    made = certificate_files.read(path)
    assert (made.profile, made.threads, made.preset) == ("host", 1, "exact")
    assert made.format is Format.ONNX
    assert made.artifact == "tiny.onnx"
    metrics = [one.metric for one in made.figures]
    assert metrics[0] is Metric.LATENCY_MS
    assert {Metric.LOAD_MS, Metric.FIRST_MS, Metric.PEAK_RSS_KIB} <= set(metrics)
    assert all(len(one.log_ratios) == 6 for one in made.figures)
    # Nothing of the way there is left.
    assert [one.name for one in (wish.folder / "unfinished").iterdir()] == []
    said = ui.said.getvalue()
    assert "minimum detectable effect" in said
    assert str(path) in said

    host = HostDevice()
    case = Case.model_validate(
        {
            "id": "other.onnx@host/t1",
            "artifact": "other.onnx",
            "artifact_sha256": "0" * 64,
            "device": "host",
            "threads": 1,
            "status": "ok",
            "runtime_version": made.runtime_version,
        }
    )
    manifest = next(Path(str(wish.model)).glob("*.manifest.json"))
    measured = Artifact.model_validate_json(manifest.read_text())
    name = calibrating.identity(host)
    found = calibrating.holding(
        case, artifact=measured, info=host.info(), identity=name, preset="exact", where=wish.folder
    )
    assert found.certificate == made
    other = calibrating.holding(
        case, artifact=measured, info=host.info(), identity=name, preset="quick", where=wish.folder
    )
    assert other.certificate is None
    assert "preset: exact then, quick now" in other.notes[0]

    calibrating.show_all(wish.folder, ui)
    shown = ui.said.getvalue().removeprefix(said)
    assert "tiny.onnx" in shown
    assert "0 days" in shown


def test_an_interrupted_calibration_goes_on(
    wish: Wish, ui: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = calibrating._keep
    kept: list[int] = []

    def interrupted(home: Path, session: calibrating.Session) -> None:
        keep(home, session)
        kept.append(session.order)
        if len(kept) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(calibrating, "_keep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        calibrating.calibrate(wish, ui)
    assert "--resume" in ui.resume_hint
    assert certificate_files.files(wish.folder) == []
    (home,) = (wish.folder / "unfinished").iterdir()
    first = [path.read_bytes() for path in sorted((home / "sessions").iterdir())]
    assert len(first) == 5

    # Another device under the same name, then the same one again.
    place = home / "device.json"
    said = place.read_text()
    place.write_text(json.dumps({"device": device_hash("another"), "os_build": "1"}))
    with pytest.raises(MeasurementError, match="another device or OS build"):
        calibrating.calibrate(wish, ui, resume=True)
    place.write_text(said)
    path = calibrating.calibrate(wish, ui, resume=True)
    assert kept == list(range(12))
    assert len(certificate_files.read(path).figures[0].log_ratios) == 6
    assert "going on with 5 sessions" in ui.told.getvalue()


def test_too_few_good_sessions_are_kept_and_give_no_certificate(
    wish: Wish, ui: Heard, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(str(wish.model), broken)
    (model,) = broken.glob("*.onnx")
    model.write_bytes(model.read_bytes()[:70])
    manifest = next(broken.glob("*.manifest.json"))
    data = json.loads(manifest.read_text())
    data |= {"bytes": 70, "sha256": sha256(model)}
    manifest.write_text(json.dumps(data))
    with pytest.raises(MeasurementError) as caught:
        calibrating.calibrate(dataclasses.replace(wish, model=broken), ui)
    assert "the first session that failed: model refused" in str(caught.value)
    assert certificate_files.files(wish.folder) == []


def test_what_cannot_be_is_refused_before_anything_is_measured(
    wish: Wish, ui: Heard, tmp_path: Path
) -> None:
    for changes, says in (
        ({"artifact": "none.onnx"}, "has no artifact none.onnx"),
        ({"model": tmp_path / "gone"}, "is not there"),
        ({"preset": "nonsense"}, "unknown bench preset"),
        ({"device": DeviceConfig(profile="nonsense")}, "nonsense"),
        ({"device": DeviceConfig(profile="host", serial="x")}, "takes no serial"),
        ({"model": None, "format_": Format.ORT}, "not made in ort"),
    ):
        wrong = dataclasses.replace(wish, **changes)
        with pytest.raises(ConfigError, match=says):
            calibrating.calibrate(wrong, ui)
    assert certificate_files.files(wish.folder) == []


def test_two_of_the_same_at_once_are_refused(wish: Wish, ui: Heard) -> None:
    at_work = calibrating._at_work(wish, wish.device, ui, resume=False)
    with at_work, pytest.raises(ConfigError, match="another pocketship"):
        calibrating.calibrate(wish, ui)


def test_devices_of_this_machine_have_its_identity_and_phones_their_own() -> None:
    host = HostDevice()
    here = calibrating.identity(host)
    assert host.profile.name in here
    other = HostDevice(host.profile.model_copy(update={"name": "host2"}))
    assert calibrating.identity(other) != here

    class Phone:
        serial = "10.0.0.1:5555"
        identity = "R5CT1"
        profile = host.profile.model_copy(update={"transport": "adb"})

    assert calibrating.identity(Phone()) == "R5CT1"  # type: ignore[arg-type]


# --- the command ----------------------------------------------------------------------------------


def test_the_command_lists_and_says_what_is_wrong(call: Call, tmp_path: Path) -> None:
    empty = call("calibrate", "--list", "-o", tmp_path)
    assert empty.code == 0
    assert "no certificates" in empty.err
    (tmp_path / f"x{certificate_files.ENDING}").write_text("{")
    assert "passed over" in call("calibrate", "--list", "-o", tmp_path).err
    assert call("calibrate").code == 2
    for words in (["--pairs", "5"], ["--format", "packed"], ["--transport", "smoke"]):
        assert call("calibrate", "host", "-o", tmp_path, *words).code == 2


def test_certificates_lie_in_the_users_data_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("POCKETSHIP_DATA", str(tmp_path / "data"))
    assert calibrating.folder() == tmp_path / "data" / "certificates"
    monkeypatch.delenv("POCKETSHIP_DATA")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert calibrating.folder() == tmp_path / "pocketship" / "certificates"
