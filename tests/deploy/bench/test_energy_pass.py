"""The energy pass on a scripted phone whose power is known: idle 0.5 W, running 2.5 W."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from deploy.android_text import GaugeSample, parse_gauge_samples
from deploy.bench import gauges
from deploy.bench.agent import Agent, RunAnswer, RunRequest
from deploy.bench.job import Job
from deploy.bench.passes.base import CaseRun
from deploy.bench.passes.energy import Energy
from deploy.bench.runner import PRESETS
from deploy.devices import profiles
from deploy.devices.base import ShellResult
from deploy.files import sha256
from deploy.types import (
    Artifact,
    EnergySource,
    Format,
    Measurement,
    Placement,
    Status,
    TensorSpec,
)
from tests.deploy.native_adbd import NativeAdbd
from tests.deploy.perfetto_trace import rail_packet
from tests.deploy.scripted_phone import ScriptedPhone

IDLE_MW, RUN_MW, VOLTS = 500.0, 2500.0, 4.0
BUSY_S, INFERENCE_MS = 70.0, 20.0
SUPPLY = "/sys/class/power_supply/battery/"
READABLE = "".join(
    f"{SUPPLY}{node}\n"
    for node in ("type=Battery", "current_now=1", "voltage_now=4000000", "charge_counter=3000000")
)


@dataclass
class FakeAgent:
    """Runs for ``BUSY_S`` of the phone's time, or as long as it is asked to."""

    phone: ScriptedPhone
    model_bytes: int
    windows: list[tuple[float, float]] = field(default_factory=list)

    def push_content(self, path: Path, digest: str) -> str:
        return f"/data/{digest}"

    def run(self, request: RunRequest) -> RunAnswer:
        busy = max(BUSY_S, request.limits.min_seconds)
        self.windows.append((self.phone.uptime, self.phone.uptime + busy))
        self.phone.sleep(busy)
        one = int(INFERENCE_MS * 1e6)
        result = {
            "schema": 1, "runner_version": "1", "backend": "onnxruntime", "runtime_version": "1",
            "arch": "x", "model_bytes": self.model_bytes, "threads": 1, "cpu_mask": None,
            "affinity_applied": False, "load_ns": 8 * one, "first_ns": 2 * one,
            "warmup_ns": [one] * 10, "steady_ns": [one] * (round(busy * 1e9) // one - 20),
            "stopped_by": "min_seconds", "baseline_rss_kib": 1, "loaded_rss_kib": 1,
            "peak_rss_kib": 1, "inputs": [],
            "outputs": [{"name": "y", "dtype": "float32", "shape": [1], "bytes": 4}],
        }  # fmt: skip
        return RunAnswer(0, "", json.dumps(result).encode(), b"0000")

    def power_mw(self, uptime: float) -> float:
        running = any(start < uptime <= end for start, end in self.windows)
        return RUN_MW if running else IDLE_MW

    def used_mj(self, uptime: float) -> float:
        """The exact integral of the power since boot."""
        extra = sum(max(0.0, min(uptime, end) - start) for start, end in self.windows)
        return IDLE_MW * uptime + (RUN_MW - IDLE_MW) * extra


@pytest.fixture
def job(tmp_path: Path) -> Job:
    path, inputs = tmp_path / "m.onnx", tmp_path / "inputs"
    path.write_bytes(b"model")
    inputs.write_bytes(b"")
    spec = TensorSpec(name="y", dtype="float32", shape=(1,))
    made = Artifact(
        name="m.onnx", variant="m", format=Format.ONNX, path="m.onnx", sha256=sha256(path),
        bytes=5, inputs=(), outputs=(spec,), source_sha256="", tools={},
        placement=Placement(backend="cpu"),
    )  # fmt: skip
    return Job(made, path, inputs)


def measured(
    phone: ScriptedPhone, job: Job, energy: EnergySource, preset: str = "release"
) -> tuple[Measurement, FakeAgent]:
    phone.profile = profiles.load("pixel-8").model_copy(update={"energy": energy})
    agent = FakeAgent(phone, job.artifact.bytes)
    phone.files |= {
        "/samples": lambda: _samples(phone, agent, energy).encode(),
        "perfetto-traces": lambda: _trace(phone, agent),
    }
    run = CaseRun(phone, phone.info(), job, cast(Agent, agent), PRESETS[preset])
    (row,) = Energy(clock=phone.clock).measure(run).measurements
    return row, agent


def _samples(phone: ScriptedPhone, agent: FakeAgent, energy: EnergySource) -> str:
    lines = []
    for n in range(int(phone.passed) + 1):
        up = phone.boot_uptime + n
        if energy.source == "charge_counter":
            first = 3_000_000 - 100 * int(agent.used_mj(up) / (3.6 * VOLTS) / 100)
        else:
            # Milliamperes that are negative while the battery discharges.
            first = -round(agent.power_mw(up) / VOLTS) + 0
        lines.append(f"{up:.2f} {first} {round(VOLTS * 1e6)}")
    return "\n".join(lines) + "\n"


SHARES = {
    "S2M_VDD_CPUCL2": 0.5,
    "S3M_VDD_CPUCL1": 0.25,
    "S4M_VDD_CPUCL0": 0.1,
    "S1M_VDD_MIF": 0.1,
    "WCN3998_VDD13 [from PP1304_L2C]": 0.05,
}
"""Power rails as Pixels name them, with the share that each has of the phone's power here."""


def _trace(phone: ScriptedPhone, agent: FakeAgent) -> bytes:
    rows = []
    for n in range(4 * int(phone.passed) + 1):
        up = phone.boot_uptime + n / 4
        rows += [
            (index, round(up * 1000), round(agent.used_mj(up) * 1000 * share))
            for index, share in enumerate(SHARES.values())
        ]
    return rail_packet({n: (name, "") for n, name in enumerate(SHARES)}, rows)


CURRENT = EnergySource(source="current_voltage", current_sign=-1, current_scale_ua=1000.0)
COUNTER = EnergySource(source="charge_counter")
RAILS = EnergySource(source="power_rails")
EXACT_MJ = (RUN_MW - IDLE_MW) * INFERENCE_MS / 1000


@pytest.mark.parametrize("energy", [CURRENT, RAILS], ids=lambda e: e.source)
def test_the_energy_of_an_inference_is_the_exact_integral(job: Job, energy: EnergySource) -> None:
    phone = ScriptedPhone(supplies=READABLE, answers={"perfetto --txt": ShellResult(0, "4711\n")})
    row, agent = measured(phone, job, energy)
    assert row.status is Status.OK, row.reason
    assert row.median == pytest.approx(EXACT_MJ, rel=1e-6)
    assert row.interval is not None
    assert row.interval[0] <= EXACT_MJ <= row.interval[1]
    assert "500.0 mW idle" in row.source
    assert len(agent.windows) == 1
    assert any(words[:2] in (["rm", "-rf"], ["rm", "-f"]) for words in phone.said)


def of_profile(folder: Path, rails: str) -> EnergySource:
    path = folder / "my-pixel.yaml"
    path.write_text(
        "{name: my-pixel, description: x, transport: adb, tier: device, abi: arm64-v8a,\n"
        f"work_dir: /data/local/tmp/ps, energy: {{source: power_rails, rails: {rails}}}}}\n"
    )
    return profiles.load(path).energy


@pytest.mark.parametrize(
    ("rails", "share", "says"),
    [
        ("[]", 1.0, "all 5 power rails through perfetto"),
        ("[S1M_VDD_MIF]", 0.1, "power rail S1M_VDD_MIF through perfetto"),
        ("['WCN3998_VDD13 [from PP1304_L2C]']", 0.05, "rail WCN3998_VDD13 [from PP1304_L2C] thr"),
        (
            "[S4M_VDD_CPUCL0, S2M_VDD_CPUCL2, S3M_VDD_CPUCL1]",
            0.85,
            "the sum of power rails S2M_VDD_CPUCL2, S3M_VDD_CPUCL1, S4M_VDD_CPUCL0 through",
        ),
    ],
    ids=["all", "one", "brackets", "the processor's"],
)
def test_a_profile_names_the_rails_that_count(
    job: Job, tmp_path: Path, rails: str, share: float, says: str
) -> None:
    phone = ScriptedPhone(answers={"perfetto --txt": ShellResult(0, "4711\n")})
    row, _ = measured(phone, job, of_profile(tmp_path, rails))
    assert row.median == pytest.approx(EXACT_MJ * share, rel=1e-6)
    assert says in row.source
    assert f"{IDLE_MW * share:.1f} mW idle" in row.source


def test_a_rail_that_the_phone_does_not_have_leaves_no_figure(job: Job, tmp_path: Path) -> None:
    """Without it the sum would be a smaller figure that nobody asked for."""
    phone = ScriptedPhone(answers={"perfetto --txt": ShellResult(0, "4711\n")})
    row, agent = measured(
        phone, job, of_profile(tmp_path, "[S2M_VDD_CPUCL2, VDD_TPU, S2S_VDD_G3D]")
    )
    assert agent.windows == [], "a second's trace told it, not the minutes of the run"
    assert any(words[:2] == ["rm", "-f"] for words in phone.said)
    assert (row.status, row.samples) == (Status.UNAVAILABLE, ())
    assert "no power rail S2S_VDD_G3D, VDD_TPU (energy.rails of the profile)" in row.reason
    assert row.reason.endswith("there are: " + ", ".join(sorted(SHARES)))


def test_a_glance_that_tells_of_no_rails_decides_nothing(job: Job, tmp_path: Path) -> None:
    phone = ScriptedPhone(answers={"perfetto --txt": ShellResult(0, "4711\n")})
    phone.files["pocketship-"] = lambda: b""
    energy = of_profile(tmp_path, "[S1M_VDD_MIF]")
    row, agent = measured(phone, job, energy)
    assert len(agent.windows) == 1
    assert "the trace has no power rails" in row.reason


def test_rails_work_while_charging_and_batteries_do_not(job: Job) -> None:
    answers = {"perfetto --txt": ShellResult(0, "4711\n")}
    row, _ = measured(ScriptedPhone(usb=True, answers=answers), job, RAILS)
    assert row.status is Status.OK
    row, agent = measured(ScriptedPhone(usb=True, supplies=READABLE), job, CURRENT)
    assert row.status is Status.UNAVAILABLE
    assert "plugged in (USB)" in row.reason
    assert agent.windows == [], "nothing is run for a figure that cannot be had"


def test_a_charge_counter_gets_longer_windows_and_an_interval_of_its_steps(job: Job) -> None:
    phone = ScriptedPhone(supplies=READABLE)
    row, agent = measured(phone, job, COUNTER)
    assert row.status is Status.OK, row.reason
    ((start, end),) = agent.windows
    assert end - start >= 300
    assert row.interval is not None
    assert row.interval[0] <= EXACT_MJ <= row.interval[1]
    assert row.interval[1] - row.interval[0] > 0.002 * EXACT_MJ


def denied(phone: ScriptedPhone) -> None:
    phone.supplies = (
        f"{SUPPLY}type=Battery\n{SUPPLY}current_now=cat: {SUPPLY}current_now: Permission denied\n"
    )


def no_battery(phone: ScriptedPhone) -> None:
    phone.supplies = "/sys/class/power_supply/ac/type=Mains\n"


def no_perfetto(phone: ScriptedPhone) -> None:
    phone.answers["command -v perfetto"] = ShellResult(1, "")


def perfetto_refuses(phone: ScriptedPhone) -> None:
    phone.answers["perfetto --txt"] = ShellResult(1, "Permission denied (/data/misc)")


UNSCALED = EnergySource(source="current_voltage", reason="never checked on this phone")


@pytest.mark.parametrize(
    ("change", "energy", "says"),
    [
        (denied, CURRENT, "current_now: .*Permission denied"),
        (no_battery, CURRENT, "shows no battery"),
        (lambda _: None, UNSCALED, "sign and the scale .*never checked on this phone"),
        (no_perfetto, RAILS, "no perfetto"),
        (perfetto_refuses, RAILS, "Permission denied"),
        (lambda _: None, EnergySource(source="none", reason="no gauge here"), "no gauge here"),
    ],
    ids=["denied", "no battery", "unscaled", "no perfetto", "refused", "none"],
)
def test_what_cannot_be_measured_says_why(
    job: Job, change: Callable[[ScriptedPhone], Any], energy: EnergySource, says: str
) -> None:
    phone = ScriptedPhone(supplies=READABLE)
    change(phone)
    row, agent = measured(phone, job, energy)
    assert (row.status, row.samples) == (Status.UNAVAILABLE, ())
    assert re.search(says, row.reason), row.reason
    assert agent.windows == []


def test_the_sampler_runs_on_by_itself_and_ends_with_its_folder(
    adbd: NativeAdbd, tmp_path: Path
) -> None:
    nodes = {"now": "-250\n", "volts": "4000000\n"}
    for name, text in nodes.items():
        (tmp_path / name).write_text(text)
    folder = tmp_path / "it's a folder"
    device = adbd.connect(tmp_path / "dev")
    words = [str(folder), str(tmp_path / "now"), str(tmp_path / "volts"), "1000"]
    assert device.shell(["sh", "-c", gauges._SAMPLE, "sh", *words]).exit_code == 0
    samples: list[GaugeSample] = []
    for _ in range(4000):
        if samples:
            break
        threading.Event().wait(0.005)
        with contextlib.suppress(FileNotFoundError):
            samples = parse_gauge_samples((folder / "samples").read_text())
    assert (samples[0].first, samples[0].second) == (-250, 4_000_000)
    shutil.rmtree(folder)
    everything = ["sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null"]
    for _ in range(400):
        if "/volts" not in device.shell(everything).stdout:
            return
        threading.Event().wait(0.05)
    raise AssertionError("the sampler still runs")


def test_a_short_preset_measures_no_energy(job: Job) -> None:
    phone = ScriptedPhone(supplies=READABLE)
    row, agent = measured(phone, job, CURRENT, preset="quick")
    assert row.status is Status.NOT_RUN
    assert "60 s" in row.reason
    assert (agent.windows, phone.passed) == ([], 0.0)
