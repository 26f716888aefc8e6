"""Heat in whole cases: which passes wait for a cool phone, and that none goes on for ever."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest

from deploy.bench import conditions, session
from deploy.bench.agent import RunAnswer, RunRequest
from deploy.bench.job import Job
from deploy.bench.passes.base import Pass
from deploy.bench.passes.energy import IDLE_S, Energy
from deploy.bench.passes.loads import Loads
from deploy.bench.passes.memory import Memory
from deploy.bench.passes.operators import Operators
from deploy.bench.passes.timing import Timing
from deploy.bench.runner import preset
from deploy.bench.store import Traffic
from deploy.devices import profiles
from deploy.devices.base import ShellResult
from deploy.types import Case, DeviceRun, EnergySource, Metric, Status
from tests.deploy.bench.test_energy_pass import BUSY_S, CURRENT, EXACT_MJ, READABLE, FakeAgent
from tests.deploy.bench.test_energy_pass import _samples as samples
from tests.deploy.bench.test_energy_pass import job as job
from tests.deploy.scripted_phone import ScriptedPhone

NO_GAUGE = EnergySource(source="none", reason="no gauge here")


class WholeAgent(FakeAgent):
    """Prepares and cleans up as well; each run of the runner takes ``BUSY_S``."""

    traffic = Traffic()

    def prepare(self) -> None:
        """The bundle is there."""

    def clean_up(self) -> None:
        """Nothing lies there."""

    def give_up(self) -> None:
        """Nothing lies there."""


def run(
    phone: ScriptedPhone,
    agent: FakeAgent,
    jobs: Sequence[Job],
    passes: Sequence[Pass],
    monkeypatch: pytest.MonkeyPatch,
    *,
    energy: EnergySource = NO_GAUGE,
    limits: str = "release",
) -> tuple[DeviceRun, list[Case]]:
    phone.profile = profiles.load("pixel-8").model_copy(update={"energy": energy})
    phone.files["/samples"] = lambda: samples(phone, agent, energy).encode()
    monkeypatch.setattr(session, "agent_for", lambda *_: agent)
    monkeypatch.setattr(conditions, "clock_for", lambda _: phone.clock)
    return session.run_device(phone, jobs, None, preset(limits), passes=passes)  # type: ignore[arg-type]


def test_energy_is_measured_once_the_phone_is_cool_again(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timing pass has warmed the phone for five minutes."""
    phone = ScriptedPhone(supplies=READABLE, celsius=lambda t: 38.0 if BUSY_S <= t < 370 else 30.0)
    agent = WholeAgent(phone, job.artifact.bytes)
    passes = (Timing(), Energy(clock=phone.clock))
    _, (case,) = run(phone, agent, [job], passes, monkeypatch, energy=CURRENT)
    row = case.measurement(Metric.ENERGY_MJ)
    assert row is not None
    assert row.median == pytest.approx(EXACT_MJ, rel=1e-6), row.reason
    timing, measured = agent.windows
    assert measured[0] >= phone.boot_uptime + 370 + IDLE_S
    assert timing[0] == phone.boot_uptime, "a cool phone did not wait"


def test_no_energy_is_measured_on_a_phone_that_stays_hot(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = ScriptedPhone(supplies=READABLE, celsius=lambda t: 41.0 if t >= BUSY_S else 30.0)
    agent = WholeAgent(phone, job.artifact.bytes)
    passes = (Timing(), Energy(clock=phone.clock))
    _, (case,) = run(phone, agent, [job], passes, monkeypatch, energy=CURRENT)
    assert case.status is Status.OK, "the figures of the other passes stay"
    row = case.measurement(Metric.ENERGY_MJ)
    assert row is not None
    assert (row.status, row.samples) == (Status.INVALID, ())
    assert row.reason.startswith("thermal: the battery has 41.0 °C")
    assert len(agent.windows) == 1, "nothing was run for it"
    assert not any("/samples" in " ".join(words) for words in phone.said)


def test_a_phone_that_gets_hot_in_the_energy_pass_gives_no_energy(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = ScriptedPhone(supplies=READABLE, status=lambda t: 1 if t > BUSY_S + IDLE_S else 0)
    agent = WholeAgent(phone, job.artifact.bytes)
    passes = (Timing(), Energy(clock=phone.clock))
    _, (case,) = run(phone, agent, [job], passes, monkeypatch, energy=CURRENT)
    row = case.measurement(Metric.ENERGY_MJ)
    assert row is not None
    assert (case.status, row.status) == (Status.OK, Status.INVALID)
    assert row.reason == "thermal: the status changed from none to light while the case ran"
    assert any(words[:2] == ["rm", "-rf"] for words in phone.said), "the sampler was ended"


@pytest.mark.parametrize(
    ("limits", "energy"), [("release", NO_GAUGE), ("quick", CURRENT)], ids=["no gauge", "too short"]
)
def test_nobody_waits_for_energy_that_is_not_measured(
    job: Job, monkeypatch: pytest.MonkeyPatch, limits: str, energy: EnergySource
) -> None:
    phone = ScriptedPhone(supplies=READABLE, celsius=lambda t: 45.0 if t >= BUSY_S else 30.0)
    agent = WholeAgent(phone, job.artifact.bytes)
    passes = (Timing(), Energy(clock=phone.clock))
    run(phone, agent, [job], passes, monkeypatch, energy=energy, limits=limits)
    assert phone.passed == BUSY_S


def test_times_wait_for_a_cool_phone_and_pages_do_not(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = ScriptedPhone(celsius=lambda t: 45.0 if t >= BUSY_S else 30.0)
    agent = WholeAgent(phone, job.artifact.bytes)
    passes = (Timing(), Memory(), Loads(), Operators())
    _, (case,) = run(phone, agent, [job], passes, monkeypatch)
    assert case.status is Status.OK
    statuses = {row.metric: row.status for row in case.measurements}
    assert statuses[Metric.PSS_KIB] is Status.UNAVAILABLE, "it ran; this runner polled nothing"
    for metric in (Metric.LOAD_MS, Metric.FIRST_MS):
        assert statuses[metric] is Status.INVALID
    assert case.operators_reason.startswith("thermal: the battery has 45.0 °C")
    assert len(agent.windows) == 2


def test_a_warning_that_each_pass_would_give_is_given_once(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = ScriptedPhone(sections={"dumpsys_battery": ""})
    agent = WholeAgent(phone, job.artifact.bytes)
    _, (case,) = run(phone, agent, [job], (Timing(), Loads()), monkeypatch)
    assert len(agent.windows) == 4
    assert len([word for word in case.warnings if "battery's temperature" in word]) == 1


# --- sustained ------------------------------------------------------------------------------------


class HeatingAgent(WholeAgent):
    """Infers as the native runner does, ten times slower from the second minute on."""

    def __init__(self, phone: ScriptedPhone, model_bytes: int) -> None:
        super().__init__(phone, model_bytes)
        self.requests: list[RunRequest] = []

    def run(self, request: RunRequest) -> RunAnswer:
        self.requests.append(request)
        limits, start = request.limits, self.phone.passed
        self.windows.append((self.phone.uptime, 0.0))
        steady: list[int] = []
        minutes: list[int] = []
        for count in itertools.count(1):
            passed = self.phone.passed - start
            while len(minutes) <= passed // 60:
                minutes.append(0)
            minutes[-1] += 1
            one = 0.2 if passed < 60 else 2.0
            self.phone.sleep(one)
            steady.append(round(one * 1e9))
            passed += one
            enough = count >= limits.iterations and passed >= limits.min_seconds
            if enough or passed >= limits.max_seconds:
                break
        self.windows[-1] = (self.windows[-1][0], self.phone.uptime)
        told: dict[str, Any] = json.loads(self.template(request))
        told |= {"steady_ns": steady, "steady_minutes": minutes}
        return RunAnswer(0, "", json.dumps(told).encode(), b"0000")

    def template(self, request: RunRequest) -> bytes:
        passed, windows = self.phone.passed, list(self.windows)
        answer = super().run(request)
        self.phone.passed, self.windows[:] = passed, windows
        return answer.result


@pytest.mark.parametrize("critical", [False, True])
def test_sustained_ends_by_its_time_on_a_phone_that_gets_too_hot(
    job: Job, monkeypatch: pytest.MonkeyPatch, critical: bool
) -> None:
    """Its case does not count, the next one is not begun, and the phone is left as it was."""
    phone = ScriptedPhone(status=lambda t: (4 if critical else 2) if t > 90 else 0)
    # What the journal of changed settings on the phone says whenever it is asked.
    changed = "fixed-performance-mode pocketship-changed 1 false\n"
    phone.answers['cd -- "$1"'] = ShellResult(0, changed)
    agent = HeatingAgent(phone, job.artifact.bytes)
    kept: list[Case] = []
    phone.profile = profiles.load("pixel-8")
    monkeypatch.setattr(session, "agent_for", lambda *_: agent)
    monkeypatch.setattr(conditions, "clock_for", lambda _: phone.clock)
    device_run, cases = session.run_device(
        phone,
        [job, job],
        None,  # type: ignore[arg-type]
        preset("sustained", 10),
        passes=(Timing(loads=False), Loads(), Memory()),
        keep=lambda case, _: kept.append(case),
    )
    (request,) = agent.requests
    ((start, end),) = agent.windows
    assert request.limits.min_seconds <= end - start <= request.limits.max_seconds
    assert request.timeout_s > request.limits.max_seconds
    word = "critical" if critical else "moderate"
    hot, waited = cases
    assert kept == cases
    assert [case.status for case in cases] == [Status.INVALID] * 2
    assert hot.reason == f"thermal: the status changed from none to {word} while the case ran"
    assert hot.measurements == (), "no figure of a hot phone passes for one"
    assert waited.reason.startswith(f"thermal: the thermal status is {word}, and it did not cool")
    assert phone.passed < request.limits.max_seconds + conditions.WAIT_S + 30
    assert device_run.status is Status.OK
    switched = [w[-1] for w in phone.said if "set-fixed-performance-mode-enabled" in w]
    assert switched == ["false", "true", "false"], "an earlier run's, ours, and back"


def test_sustained_on_a_phone_that_slows_down_without_a_word_shows_it(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone = ScriptedPhone()
    agent = HeatingAgent(phone, job.artifact.bytes)
    _, (case,) = run(phone, agent, [job], (Timing(),), monkeypatch, limits="sustained")
    latency = case.measurement(Metric.LATENCY_MS)
    assert latency is not None
    assert latency.samples == (200.0, *[2000.0] * 9)
