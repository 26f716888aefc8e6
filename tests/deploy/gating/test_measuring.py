"""How many pairs, when more, what a lost device leaves; the sessions are stood in for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.bench.runner import preset
from deploy.config import DeviceConfig
from deploy.errors import ConfigError, DeviceError
from deploy.gating import measuring
from deploy.gating.measuring import EXACT_PAIRS, Contact, Measured, Plan
from deploy.gating.meeting import Filter, meet
from deploy.types import Case, DeviceInfo, DeviceRun, Session, Status, Tier, silent
from tests.deploy.gating.test_meeting import artifact, version
from tests.deploy.report import factory

BASE = artifact("a.onnx", "b"), artifact("a.coreml", "b")
HEAD = artifact("a.onnx"), artifact("a.coreml")


class Stage:
    """A device whose sessions are written down and never run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, scratch: Path, *, counts: bool) -> None:
        self.asked: list[tuple[str, range]] = []
        self.kept: list[Session] = []
        self.lost_in_pair: int | None = None
        profile = factory.profile("host")
        clock = "icount" if counts else "monotonic"
        info = DeviceInfo.model_validate(
            {"serial": "host", "profile": "host", "tier": Tier.HOST, "clock": clock}
        )
        self.device = SimpleNamespace(serial="host", profile=profile, info=lambda: info)
        self.run = DeviceRun(profile=profile, status=Status.OK, info=info)
        self.plan = Plan(
            meeting=meet(version(*BASE), version(*HEAD), Filter()),
            threads=(1,),
            limits=preset("exact"),
            rules_pairs=6,
            scratch=scratch,
        )
        monkeypatch.setattr(measuring, "connected", self._connected)
        monkeypatch.setattr(measuring, "bundle", lambda abi, progress: SimpleNamespace(versions={}))
        monkeypatch.setattr(measuring, "run_sessions", self._sessions)

    @contextlib.contextmanager
    def _connected(self, wanted: object, progress: object) -> Iterator[Any]:
        yield self.device

    def _sessions(
        self, device: object, base: Any, head: Any, *, pairs: range, **others: Any
    ) -> None:
        self.asked.append((head.artifact.name, pairs))
        there = {(s.pair, s.side) for s in others["done"]}
        for pair in pairs:
            for side, job in (("base", base), ("head", head)):
                if (pair, side) in there:
                    continue
                case = Case(
                    id=f"{job.artifact.name}@host/t1",
                    artifact=job.artifact.name,
                    artifact_sha256=job.artifact.sha256,
                    device="host",
                    threads=1,
                    status=Status.OK,
                )
                made = {"pair": pair, "order": 0, "side": side, "case": case}
                others["keep"](Session.model_validate(made))
        lost = self.lost_in_pair is not None and self.lost_in_pair in pairs
        others["reached"](
            self.run.model_copy(update={"status": Status.INVALID, "reason": "unplugged"})
            if lost
            else self.run
        )

    def measure(self, *, more: bool = False, **changes: Any) -> Measured:
        plan = Plan(**{**vars(self.plan), **changes})
        return measuring.measure(
            DeviceConfig(profile="host"),
            plan,
            done=[],
            keep=self.kept.append,
            met=lambda contact: None,
            more=lambda found: more,
            progress=silent,
        )


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Stage]:
    return lambda *, counts=False: Stage(monkeypatch, tmp_path, counts=counts)


def test_six_pairs_and_twice_as_many_where_they_do_not_decide(
    stage: Callable[..., Stage],
) -> None:
    decided = stage()
    assert not decided.measure().extended
    # What no runner takes is not asked of the device.
    assert decided.asked == [("a.onnx", range(6))]
    open_ = stage()
    measured = open_.measure(more=True)
    assert measured.extended
    assert open_.asked == [("a.onnx", range(6)), ("a.onnx", range(6, 12))]
    assert [s.order for s in measured.sessions] == list(range(24))
    assert open_.kept == measured.sessions


def test_counted_instructions_need_two_pairs_and_no_more(stage: Callable[..., Stage]) -> None:
    counting = stage(counts=True)
    assert not counting.measure(more=True).extended
    assert counting.asked == [("a.onnx", range(EXACT_PAIRS))]
    asked_for = stage(counts=True)
    asked_for.measure(pairs=8)
    assert asked_for.asked == [("a.onnx", range(8))]


def test_a_lost_device_ends_it_with_what_was_measured(stage: Callable[..., Stage]) -> None:
    losing = stage()
    losing.lost_in_pair = 3
    measured = losing.measure(more=True)
    assert (measured.device.status, measured.device.reason) == (Status.INVALID, "unplugged")
    assert measured.device.info is not None
    assert len(losing.asked) == 1
    assert len(measured.sessions) == 12


def test_a_device_that_cannot_be_had_keeps_what_was_measured_before(
    stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = stage()
    before = there.measure().sessions

    def refuse(wanted: object, progress: object) -> Any:
        raise DeviceError("nobody answers", where="host")

    monkeypatch.setattr(measuring, "connected", refuse)
    measured = measuring.measure(
        DeviceConfig(profile="host"),
        there.plan,
        done=before,
        keep=there.kept.append,
        met=lambda contact: None,
        more=lambda found: True,
        progress=silent,
    )
    assert measured.device.status is Status.INVALID
    assert "nobody answers" in measured.device.reason
    assert measured.sessions == before


def test_whoever_meets_the_device_may_refuse_it_before_anything_runs(
    stage: Callable[..., Stage],
) -> None:
    there = stage()

    def refuse(contact: Contact) -> None:
        assert contact.run.info is not None
        raise ConfigError("not this one")

    with pytest.raises(ConfigError, match="not this one"):
        measuring.measure(
            DeviceConfig(profile="host"),
            there.plan,
            done=[],
            keep=there.kept.append,
            met=refuse,
            more=lambda found: False,
            progress=silent,
        )
    assert not there.asked


def test_the_latest_attempt_at_a_place_counts_and_other_files_do_not(
    stage: Callable[..., Stage],
) -> None:
    there = stage()
    first = there.measure().sessions
    again = first[3].model_copy(update={"order": 50})
    foreign = first[4].model_copy(
        update={"order": 51, "case": first[4].case.model_copy(update={"artifact_sha256": "f" * 64})}
    )
    counted = measuring.counted([*first, again, foreign], there.plan.meeting)
    assert len(counted) == 12
    assert counted[-1] == again
    assert first[3] not in counted
    assert first[4] in counted
