"""Certificates are found for what is compared, and a finer threshold than they allow is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from deploy.bench.runner import preset
from deploy.errors import ConfigError
from deploy.gating.measuring import Contact, Plan
from deploy.gating.meeting import Filter, meet
from deploy.gating.noise import known_noise, refuse_too_fine
from deploy.report import certificate_files
from deploy.report.comparable import device_hash
from deploy.types import (
    Certificate,
    DeviceInfo,
    DeviceRun,
    Format,
    GateRules,
    Metric,
    NoiseFigure,
    Status,
    Tier,
)
from tests.deploy.gating.test_meeting import artifact, version
from tests.deploy.report import factory

RATIOS = (0.05, -0.06, 0.04, -0.05, 0.06, -0.04)
INFO = DeviceInfo(serial="R58M42", profile="pixel-8", tier=Tier.DEVICE, os_build="build-1")
CONTACT = Contact(
    DeviceRun(profile=factory.profile("pixel-8", Tier.DEVICE), status=Status.OK, info=INFO),
    "R58M42",
    {"executorch": "1.5.1", "onnxruntime": "1.31.1"},
)


def plan(scratch: Path) -> Plan:
    sides = version(artifact("a.onnx"), artifact("a.executorch"))
    return Plan(
        meeting=meet(sides, sides, Filter()),
        threads=(1,),
        limits=preset("quick"),
        rules_pairs=6,
        scratch=scratch,
    )


def certified(folder: Path) -> Certificate:
    figure = NoiseFigure(
        metric=Metric.LATENCY_MS, pairs=6, between_sd=0.04, mde=0.2, log_ratios=RATIOS
    )
    made = Certificate(
        pocketship_version="0",
        created_utc="2026-11-20T00:00:00+00:00",
        profile="pixel-8",
        device_sha256=device_hash("R58M42"),
        os_build="build-1",
        tier=Tier.DEVICE,
        format=Format.ONNX,
        threads=1,
        preset="quick",
        artifact="other.onnx",
        artifact_sha256="0" * 64,
        runtime_version="1.31.1",
        figures=(figure,),
    )
    certificate_files.write(made, folder)
    return made


def test_the_certificate_of_this_device_is_found_and_no_other(tmp_path: Path) -> None:
    made = certified(tmp_path)
    assert known_noise(CONTACT, plan(tmp_path), tmp_path).certificates == (made,)
    newer = dataclasses.replace(CONTACT, runtimes={"onnxruntime": "1.32.0"})
    noise = known_noise(newer, plan(tmp_path), tmp_path)
    assert noise.certificates == ()
    assert any("does not count" in note and "1.32.0" in note for note in noise.notes)
    stranger = dataclasses.replace(CONTACT, identity="another")
    assert known_noise(stranger, plan(tmp_path), tmp_path).certificates == ()


def test_a_threshold_below_what_the_device_can_tell_is_refused_where_asked_for(
    tmp_path: Path,
) -> None:
    certified(tmp_path)
    noise = known_noise(CONTACT, plan(tmp_path), tmp_path)
    with pytest.raises(ConfigError, match="cannot be told from noise"):
        refuse_too_fine(noise, CONTACT, GateRules(threshold=0.01))
    refuse_too_fine(noise, CONTACT, GateRules(threshold=0.9))
    refuse_too_fine(noise, CONTACT, GateRules())
    counting = DeviceRun(
        profile=CONTACT.run.profile,
        status=Status.OK,
        info=INFO.model_copy(update={"clock": "icount"}),
    )
    refuse_too_fine(noise, dataclasses.replace(CONTACT, run=counting), GateRules(threshold=0.01))
