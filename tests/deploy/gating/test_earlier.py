"""A base of another time: which of its figures count, when they are refused, what they decide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from deploy.errors import ConfigError
from deploy.gating import earlier
from deploy.gating.earlier import Past
from deploy.gating.meeting import Filter, Meeting, meet
from deploy.gating.sides import Version
from deploy.history import address, database, record
from deploy.report import gate
from deploy.types import Case, DeviceRun, GateRules, Outcome, Session, Side, Status
from tests.deploy.conftest import FinishedRun
from tests.deploy.history import made_reports as made

ON = made.device()
RULES = GateRules(secondary=())


def case(*milliseconds: float, **changes: object) -> Case:
    (found,) = made.report(1, on=ON).cases
    return found.model_copy(update={"measurements": (made.latency(*milliseconds),), **changes})


def version(*cases: Case, on: DeviceRun = ON, kind: str = "run") -> Version:
    artifacts = () if kind == "history" else (made.artifact(),)
    side = Side.model_validate({"label": "there", "kind": kind, "artifacts": artifacts})
    return Version(side=side, cases=cases, devices=(on,))


def met(*cases: Case, on: DeviceRun = ON) -> Meeting:
    return meet(version(*cases, on=on), version(), Filter())


def head(*milliseconds: float) -> list[Session]:
    return [
        Session(pair=pair, order=pair, side="head", case=case(value))
        for pair, value in enumerate(milliseconds)
    ]


def outcome(meeting: Meeting, sessions: Sequence[Session]) -> Outcome:
    found = gate.judge(meeting.base.side, meeting.head.side, sessions, rules=RULES, design="stored")
    (verdict,) = [v for v in found if v.source == gate.PRIMARY]
    return verdict.outcome


def test_every_earlier_case_of_the_same_file_is_a_session() -> None:
    other = case(1.0, artifact_sha256="f" * 64)
    failed = case(1.0, status=Status.FAILED, reason="crash", measurements=())
    elsewhere = case(1.0, device="another", id="int8.executorch@another/t1")
    two = case(1.0, threads=2)
    meeting = met(case(10.0), other, failed, elsewhere, two, case(11.0))
    found = earlier.sessions(meeting, "pixel", (1,), ())
    assert [s.case.measurements[0].median for s in found] == [10.0, 11.0]
    assert {s.side for s in found} == {"base"}
    assert len({s.order for s in found}) == 2


def test_no_figure_of_the_device_is_refused_with_those_that_there_are() -> None:
    meeting = met(case(1.0))
    with pytest.raises(ConfigError, match=r"no figures of pixel-9 .*has figures of pixel"):
        earlier.sessions(meeting, "pixel-9", (1,), ())
    with pytest.raises(ConfigError, match="no figures of pixel"):
        earlier.sessions(meeting, "pixel", (2,), ())


def test_another_devices_figures_pass_on_request_under_this_ones_name() -> None:
    (one,) = earlier.sessions(met(case(1.0)), "pixel-9", (1,), ("device",))
    assert (one.case.id, one.case.device) == ("int8.executorch@pixel-9/t1", "pixel-9")
    two = case(1.0, device="another")
    with pytest.raises(ConfigError, match="which one"):
        earlier.sessions(met(case(1.0), two), "pixel-9", (1,), ("device",))


@pytest.mark.parametrize(
    ("now", "runtime", "kind"),
    [
        (made.device(os_build="build-2"), "1.5.1", "os-build"),
        (made.device("another"), "1.5.1", "device"),
        (ON, "9.9", "runtime"),
    ],
)
def test_what_must_not_be_compared_is_invalid_unless_asked(
    now: DeviceRun, runtime: str, kind: str
) -> None:
    meeting = met(case(10.0, runtime_version="1.5.1"))
    base = earlier.sessions(meeting, "pixel", (1,), ())
    ours = Session(pair=0, order=5, side="head", case=case(10.0, runtime_version=runtime))
    (verdict,) = earlier.refused(meeting, base, [ours], now, ())
    assert verdict.outcome is Outcome.INVALID
    assert f"--across {kind}" in verdict.reason
    assert earlier.refused(meeting, base, [ours], now, (kind,)) == ()


def test_one_earlier_run_decides_nothing_and_six_do() -> None:
    slower = head(12.0, 12.1, 12.2, 12.3, 12.1, 12.2)
    many = met(*(case(value) for value in (10.0, 10.1, 10.2, 10.3, 10.1, 10.2)))
    base = earlier.sessions(many, "pixel", (1,), ())
    assert outcome(many, [*base, *slower]) is Outcome.REGRESSED
    one = met(case(10.0))
    base = earlier.sessions(one, "pixel", (1,), ())
    assert outcome(one, [*base, *slower]) is Outcome.INVALID


def test_a_branch_of_a_history_is_a_base(finished: FinishedRun, tmp_path: Path) -> None:
    from deploy.gating import sides

    run = sides.find(sides.Wish(label="head", name=str(finished.root), here=tmp_path), str)
    assert run.config is not None
    config = run.config.model_copy(update={"name": "lenet"})
    ours = Version(side=version().side, config=config)
    past = Past(address.parse(str(tmp_path / "history.sqlite")), "main")
    meeting = meet(version(kind="history"), ours, Filter())
    assert meeting.names == ("int8.executorch",)
    slower = head(12.0, 12.1, 12.2, 12.3, 12.1, 12.2)
    with pytest.raises(ConfigError, match="no history yet"):
        past.sessions(meeting, slower, ON, ())
    store = database.connect(past.address)
    for number in range(1, 9):
        content = made.report(number, on=ON, cases=(case(10 + number / 10),))
        record.add(store, content, branch="main" if number < 8 else "other")
    base = past.sessions(meeting, slower, ON, ())
    # As many as head has, the newest, the oldest of them first.
    assert [s.case.measurements[0].median for s in base] == [10.2, 10.3, 10.4, 10.5, 10.6, 10.7]
    assert outcome(meeting, [*base, *slower]) is Outcome.REGRESSED
    assert past.sessions(meeting, slower, made.device("another"), ()) == []
