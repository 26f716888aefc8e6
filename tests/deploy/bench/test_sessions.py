"""Sessions of two versions with real processes, here and behind a real ADB daemon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from deploy import harness
from deploy.bench.job import Job
from deploy.bench.recovery import Patience
from deploy.bench.runner import PRESETS
from deploy.bench.sessions import compared, run_sessions, slots
from deploy.devices.base import Device
from deploy.devices.host import HostDevice
from deploy.types import Case, DeviceRun, Format, Metric, Session, Status
from tests.deploy.bench import fake_runner
from tests.deploy.bench.conftest import Models
from tests.deploy.bench.fake_runner import FakeBundle
from tests.deploy.native_adbd import NativeAdbd

EXACT = PRESETS["exact"]
HASTY = Patience(comeback_s=0.3, first_pause_s=0.01, longest_pause_s=0.05)

LOG = 'echo "$(basename "$(readlink -f "$model")") $(ls "{store}" | wc -l) $$" >>"{log}"'


class Rig:
    """Base and head of different content, and a runner that notes each start of itself."""

    def __init__(self, folder: Path, device: Device, behaviour: str = "") -> None:
        self.device = device
        self.log = folder / "starts"
        self.base = fake_runner.job(folder / "models", 0, size=1000)
        self.head = fake_runner.job(folder / "models", 1, size=2000)
        self.kept: list[Session] = []
        self.runs: list[DeviceRun] = []
        store = Path(device.profile.work_dir) / "store"
        note = LOG.format(store=store, log=self.log).replace("$(touch", "\\$(touch")
        self.bundle: FakeBundle = fake_runner.make(folder / "bundle", f"{note}\n{behaviour}")

    def run(self, pairs: range, done: Sequence[Session] = ()) -> list[Session]:
        return run_sessions(
            self.device,
            self.base,
            self.head,
            pairs=pairs,
            runner=self.bundle,
            limits=EXACT,
            done=done,
            keep=self.kept.append,
            reached=self.runs.append,
            patience=HASTY,
        )

    @property
    def starts(self) -> list[list[str]]:
        """Side, files in the device's store, and process id of each process, in time."""
        names = {self.base.artifact.sha256: "base", self.head.artifact.sha256: "head"}
        rows = [line.split() for line in self.log.read_text().splitlines()]
        return [[names[digest], *rest] for digest, *rest in rows]


def sides(sessions: Sequence[Session]) -> list[tuple[int, str]]:
    return [(one.pair, one.side) for one in sessions]


def test_the_order_is_abba_and_an_extension_goes_on_with_it() -> None:
    assert [side[0] for _, side in slots(range(4))] == list("bhhbbhhb")
    assert [*slots(range(4)), *slots(range(4, 7))] == list(slots(range(7)))


def test_each_session_is_a_process_of_its_own_with_both_files_there(
    device: Device, tmp_path: Path
) -> None:
    rig = Rig(tmp_path / "rig", device)
    found = rig.run(range(2))
    assert rig.kept == found
    assert [one.order for one in found] == [0, 1, 2, 3]
    assert sides(found) == [(0, "base"), (0, "head"), (1, "head"), (1, "base")]
    assert [start[0] for start in rig.starts] == ["base", "head", "head", "base"]
    # Two models and the inputs, from the first process on.
    assert {start[1] for start in rig.starts} == {"3"}
    assert len({start[2] for start in rig.starts}) == 4
    for one in found:
        job = rig.base if one.side == "base" else rig.head
        assert one.case.status is Status.OK, one.case.reason
        assert one.case.artifact_sha256 == job.artifact.sha256
        assert one.case.before is not None
        row = compared(one.case)
        assert row is not None
        assert row.metric is Metric.LATENCY_MS
        # Never the load after a push in one session and one from the cache in another.
        assert one.case.measurement(Metric.INSTALL_LOAD_MS) is None
    (run,) = rig.runs
    assert run.status is Status.OK
    assert run.info is not None


def test_what_is_done_is_not_repeated_and_an_extension_follows_it(
    host: HostDevice, tmp_path: Path
) -> None:
    rig = Rig(tmp_path / "rig", host)
    half = rig.run(range(2))[:3]
    rig.log.unlink()
    whole = rig.run(range(2), done=half)
    assert sides(whole) == [(0, "base"), (0, "head"), (1, "head"), (1, "base")]
    assert whole[:3] == half
    assert [start[0] for start in rig.starts] == ["base"]
    rig.log.unlink()
    longer = rig.run(range(2, 3), done=whole)
    assert longer[:4] == whole
    assert sides(longer)[4:] == [(2, "base"), (2, "head")]
    assert [one.order for one in longer] == [0, 1, 2, 3, 4, 5]
    assert rig.run(range(3), done=longer) == longer
    assert len(rig.starts) == 2


def test_sessions_of_another_file_are_not_taken_for_done(host: HostDevice, tmp_path: Path) -> None:
    rig = Rig(tmp_path / "rig", host)
    earlier = rig.run(range(1))
    rig.head = fake_runner.job(tmp_path / "rig" / "models", 2, size=3000)
    found = rig.run(range(1), done=earlier)
    assert found[0] == earlier[0]
    assert sides(found) == [(0, "base"), (0, "head")]
    assert found[1].case.artifact_sha256 == rig.head.artifact.sha256
    assert found[1].order == 2


# The third process of the rig is ended from outside, as by somebody who cleans up.
ONE_ENDED = '[ "$(wc -l <"{log}")" -eq 3 ] && kill -TERM $$'


def test_an_invalid_session_is_measured_once_more(host: HostDevice, tmp_path: Path) -> None:
    folder = tmp_path / "rig"
    rig = Rig(folder, host, ONE_ENDED.format(log=folder / "starts"))
    found = rig.run(range(2))
    assert [one.case.status for one in found] == [Status.OK] * 4
    assert sides(found) == [(0, "base"), (0, "head"), (1, "base"), (1, "head")]
    spoilt = [one for one in rig.kept if one.case.status is Status.INVALID]
    assert sides(spoilt) == [(1, "head")]
    assert "SIGTERM" in spoilt[0].case.reason
    assert found[-1].order == 4


def test_where_nothing_works_it_is_kept_as_invalid_and_a_resume_tries_again(
    host: HostDevice, tmp_path: Path
) -> None:
    folder = tmp_path / "rig"
    broken = folder / "broken"
    rig = Rig(folder, host, f'[ -e "{broken}" ] && kill -TERM $$')
    broken.touch()
    found = rig.run(range(2))
    assert {one.case.status for one in found} == {Status.INVALID}
    assert len(rig.starts) == 4
    broken.unlink()
    again = rig.run(range(2), done=found)
    assert {one.case.status for one in again} == {Status.OK}
    assert len(again) == 4


def test_a_head_that_crashes_is_not_tried_again(host: HostDevice, tmp_path: Path) -> None:
    rig = Rig(tmp_path / "rig", host, '[ "$(wc -c <"$model")" -eq 2000 ] && kill -SEGV $$')
    found = rig.run(range(2))
    expected = {"base": Status.OK, "head": Status.FAILED}
    assert all(one.case.status is expected[one.side] for one in found)
    assert len(rig.starts) == 4
    assert rig.run(range(2), done=found) == found


def test_a_lost_device_leaves_its_sessions_invalid_and_resume_goes_on(
    adbd: NativeAdbd, tmp_path: Path
) -> None:
    device = adbd.connect(tmp_path / "dev")
    rig = Rig(tmp_path / "rig", device)

    def keep(session: Session) -> None:
        rig.kept.append(session)
        if len(rig.kept) == 2:
            adbd.kill()

    def run(connected: Device, done: Sequence[Session]) -> list[Session]:
        return run_sessions(
            connected,
            rig.base,
            rig.head,
            pairs=range(2),
            runner=rig.bundle,
            limits=EXACT,
            done=done,
            keep=keep,
            reached=rig.runs.append,
            patience=HASTY,
        )

    found = run(device, ())
    ok, invalid = Status.OK, Status.INVALID
    assert [one.case.status for one in found] == [ok, ok, invalid, invalid]
    assert all(one.case.reason.startswith("device lost: ") for one in found[2:])
    assert rig.runs[-1].status is invalid
    adbd.port = adbd.start()
    whole = run(adbd.connect(tmp_path / "dev"), rig.kept)
    assert whole[:2] == found[:2]
    assert [one.case.status for one in whole] == [ok] * 4
    assert sides(whole) == [(0, "base"), (0, "head"), (1, "head"), (1, "base")]


def test_a_format_that_never_runs_there_says_so(
    host: HostDevice, models: Models, tmp_path: Path
) -> None:
    rig = Rig(tmp_path / "rig", host)
    rig.base = rig.head = models.job(Format.COREML)
    found = rig.run(range(1))
    assert [one.case.status for one in found] == [Status.NOT_RUN] * 2
    assert not rig.log.exists()


def test_the_real_runner_on_both_sides(
    host: HostDevice, models: Models, bundle: harness.Bundle
) -> None:
    job: Job = models.job(Format.ONNX)
    said: list[str] = []
    found = run_sessions(
        host, job, job, pairs=range(1), runner=bundle, limits=EXACT, progress=said.append
    )
    assert [one.case.status for one in found] == [Status.OK] * 2
    assert found[0].case.measurement(Metric.PEAK_RSS_KIB) is not None
    assert any("pair 1, head: " in line and line.endswith(" ms") for line in said)


def test_the_count_is_what_is_compared_where_there_is_one() -> None:
    row = {"tier": "emulator", "source": "runner", "status": "ok", "samples": (3.0,)}
    count = {**row, "metric": "instructions", "unit": "instructions"}
    missing = {
        **row,
        "metric": "latency_ms",
        "unit": "ms",
        "status": "unavailable",
        "reason": "counts instructions",
        "samples": (),
    }
    case = Case.model_validate(
        {
            "id": "a@b/t1",
            "artifact": "a",
            "artifact_sha256": "0" * 64,
            "device": "b",
            "threads": 1,
            "status": "ok",
            "measurements": (missing, count),
        }
    )
    found = compared(case)
    assert found is not None
    assert found.metric is Metric.INSTRUCTIONS
    assert compared(case.model_copy(update={"measurements": case.measurements[:1]})) is None


@pytest.mark.parametrize("pairs", [range(0), range(3, 3)])
def test_no_pairs_are_no_sessions(host: HostDevice, tmp_path: Path, pairs: range) -> None:
    rig = Rig(tmp_path / "rig", host)
    assert rig.run(pairs) == []
    assert rig.runs == []
