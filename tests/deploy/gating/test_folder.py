"""A gate's folder: what goes on, what begins anew, and files that were edited or cut off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.errors import ConfigError
from deploy.files import seal, write_text
from deploy.gating import folder
from deploy.gating.folder import GateFolder, Wanted
from deploy.report import store
from deploy.types import (
    Case,
    DeviceInfo,
    DeviceRun,
    GateReport,
    GateRules,
    Measurement,
    Metric,
    Outcome,
    Session,
    Side,
    Status,
    Tier,
)
from tests.deploy.report import factory

WANTED = Wanted(base="a", head="b", working_folder="/here", device="host")


def a_session(order: int = 0, **changes: object) -> Session:
    case = Case(
        id="m.onnx@host/t1",
        artifact="m.onnx",
        artifact_sha256="0" * 64,
        device="host",
        threads=1,
        status=Status.OK,
        measurements=(
            Measurement(
                metric=Metric.LATENCY_MS,
                unit="ms",
                tier=Tier.HOST,
                source="test",
                status=Status.OK,
                samples=(1.0, 2.0),
            ),
        ),
    )
    made = Session(pair=order // 2, order=order, side="base" if order % 2 else "head", case=case)
    return made.model_copy(update=changes)


def result(place: GateFolder, outcome: Outcome) -> GateReport:
    side = Side(label="a", kind="run")
    return GateReport(
        pocketship_version="0",
        run_id=place.asked.run_id,
        created_utc=place.asked.created_utc,
        seed=0,
        base=side,
        head=side,
        rules=GateRules(),
        device=None,
        outcome=outcome,
        exit_code=0,
    )


def test_sessions_come_back_as_they_were_in_order_of_time(tmp_path: Path) -> None:
    place = folder.create(tmp_path, WANTED)
    kept = [a_session(order) for order in range(12)]
    keep = folder.keeper(place)
    for session in reversed(kept):
        keep(session)
    assert folder.sessions(place) == kept


@pytest.mark.parametrize("change", ["samples", "cut off", "no session", "seal too"])
def test_a_session_that_was_edited_or_cut_off_is_refused(tmp_path: Path, change: str) -> None:
    place = folder.create(tmp_path, WANTED)
    folder.keeper(place)(a_session())
    (path,) = place.sessions.iterdir()
    text = path.read_text()
    if change == "samples":
        text = text.replace("2.0", "1.5")
    elif change == "cut off":
        text = text[: len(text) // 2]
    elif change == "no session":
        text = "[]"
    else:
        data = json.loads(text)
        del data["session"]["case"]
        data["content_sha256"] = seal(data["session"])
        text = json.dumps(data)
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"edited|cut off|no session") as raised:
        folder.sessions(place)
    assert str(path) in str(raised.value)
    assert "without --resume" in raised.value.hint


def test_only_the_same_words_go_on(tmp_path: Path) -> None:
    assert folder.unfinished(tmp_path, WANTED) is None
    older, newer = folder.create(tmp_path, WANTED), folder.create(tmp_path, WANTED)
    found = folder.unfinished(tmp_path, WANTED)
    assert found is not None
    assert found.root == newer.root != older.root
    other = WANTED.model_copy(update={"device": "pixel-8"})
    assert folder.unfinished(tmp_path, other) is None


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_gate_that_ended_is_not_gone_on_with_unless_it_is_invalid(
    tmp_path: Path, outcome: Outcome
) -> None:
    place = folder.create(tmp_path, WANTED)
    store.write(result(place, outcome), place.root)
    found = folder.unfinished(tmp_path, WANTED)
    assert (found is not None) == (outcome is Outcome.INVALID)


def test_a_result_that_was_edited_is_refused(tmp_path: Path) -> None:
    place = folder.create(tmp_path, WANTED)
    path = store.write(result(place, Outcome.REGRESSED), place.root)
    path.write_text(path.read_text().replace("REGRESSED", "PASS"))
    with pytest.raises(ConfigError, match="edited after it was written"):
        folder.unfinished(tmp_path, WANTED)


def test_where_a_side_was_made_is_remembered(tmp_path: Path) -> None:
    place = folder.create(tmp_path, WANTED).remember("head", tmp_path / "run")
    found = folder.unfinished(tmp_path, WANTED)
    assert found is not None
    assert (found.made("head"), found.made("base")) == (tmp_path / "run", None)
    assert place == found


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "")
    with pytest.raises(ConfigError, match="cannot write here") as raised:
        folder.create(tmp_path / "file", WANTED)
    assert "--reports" in raised.value.hint


def device(**info: object) -> DeviceRun:
    profile = factory.profile("pixel-8", Tier.DEVICE, transport="adb")
    answered = DeviceInfo(serial="abc", profile=profile.name, tier=Tier.DEVICE, os_build="1")
    return DeviceRun(profile=profile, status=Status.OK, info=answered.model_copy(update=info))


def test_a_gate_goes_on_with_the_same_device_and_build_only(tmp_path: Path) -> None:
    place = folder.create(tmp_path, WANTED)
    folder.recognise(place, device())
    folder.recognise(place, device(memory_total_kib=5))
    for other in (device(os_build="2"), device(serial="xyz")):
        with pytest.raises(ConfigError, match="another device"):
            folder.recognise(place, other)
