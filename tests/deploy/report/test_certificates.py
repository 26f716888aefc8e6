"""Noise certificates: what they say, when they hold, and files that are damaged."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.errors import ConfigError, MeasurementError
from deploy.files import seal
from deploy.report import certificate_files, certificates, paired, stats
from deploy.types import (
    Certificate,
    DeviceInfo,
    Measurement,
    Metric,
    NoiseFigure,
    Session,
    Status,
    Tier,
)
from tests.deploy.report import factory

NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)
ARTIFACT = factory.artifact("fp32")
INFO = DeviceInfo(serial="R5CT1", profile="pixel-8", tier=Tier.DEVICE, os_build="build 1")


def session(pair: int, side: str, *rows: Measurement, **case: Any) -> Session:
    made = factory.case(ARTIFACT, "pixel-8", *rows, **case)
    order = 2 * pair + (side == ("head" if pair % 2 == 0 else "base"))
    return Session.model_validate({"pair": pair, "order": order, "side": side, "case": made})


def sessions(
    log_figures: Sequence[tuple[float, float]], metric: Metric = Metric.LATENCY_MS
) -> list[Session]:
    """Pairs of (base, head) as logarithms of the session's median."""
    return [
        session(pair, side, factory.measured(metric, math.exp(value), tier=Tier.DEVICE))
        for pair, both in enumerate(log_figures)
        for side, value in zip(("base", "head"), both, strict=True)
    ]


def noise(sd: float, pairs: int = 12, seed: int = 1) -> list[tuple[float, float]]:
    source = random.Random(seed)
    return [(source.gauss(1, sd), source.gauss(1, sd)) for _ in range(pairs)]


def made(found: Sequence[Session], **changes: Any) -> Certificate:
    values: dict[str, Any] = {
        "artifact": ARTIFACT,
        "info": INFO,
        "identity": "R5CT1",
        "preset": "quick",
        "pocketship_version": "0",
        "now": NOW,
    }
    return certificates.make(found, **(values | changes))


@pytest.fixture
def good() -> Certificate:
    return made(sessions(noise(0.03)))


# --- what it says ---------------------------------------------------------------------------------


def test_the_figures_are_those_of_an_independent_computation(good: Certificate) -> None:
    figures = noise(0.03)
    (one,) = good.figures
    assert one.metric is Metric.LATENCY_MS
    assert one.pairs == 6
    assert one.between_sd == pytest.approx(statistics.stdev(v for both in figures for v in both))
    assert one.log_ratios == pytest.approx([head - base for base, head in figures])
    # One-sided t quantiles of 11 degrees of freedom at 1 - 0.0125 and 0.9, from a printed table.
    spread = statistics.stdev(one.log_ratios) * math.sqrt(math.pi / 2 / 12)
    assert math.log1p(one.mde) == pytest.approx((2.593 + 1.363) * spread, rel=2e-3)


def test_the_effect_is_told_from_nothing_nine_times_out_of_ten() -> None:
    """By the gate's own test and interval, where the spread is known: simulated A/B comparisons."""
    source = random.Random(5)
    spread = 0.04
    effect = paired.detectable((spread / math.sqrt(2), -spread / math.sqrt(2)), 6)
    assert effect is not None
    told = 0
    for _ in range(300):
        ratios = [source.gauss(math.log1p(effect), spread) for _ in range(12)]
        p, interval = stats.sign_flip(ratios), stats.median_interval(ratios, 0.0125)
        assert p is not None
        assert interval is not None
        told += p.greater < 0.0125 and interval.low > 0
    assert told >= 0.9 * 300


@settings(deadline=None)
@given(st.floats(0.002, 0.2), st.floats(1.1, 3))
def test_more_noise_is_a_larger_effect(sd: float, times: float) -> None:
    figures = noise(sd)
    louder = [tuple(1 + times * (value - 1) for value in both) for both in figures]
    one = certificates.figure(sessions(figures), Metric.LATENCY_MS)
    other = certificates.figure(sessions(louder), Metric.LATENCY_MS)  # type: ignore[arg-type]
    assert isinstance(one, NoiseFigure)
    assert isinstance(other, NoiseFigure)
    assert other.mde > one.mde


def test_drift_that_both_sides_share_is_no_noise_of_the_pairs() -> None:
    """The gate sees ratios inside pairs: a device that warms up steadily is judged by those."""
    figures = [(base + 0.05 * i, head + 0.05 * i) for i, (base, head) in enumerate(noise(0.01))]
    one = certificates.figure(sessions(figures), Metric.LATENCY_MS)
    still = certificates.figure(sessions(noise(0.01)), Metric.LATENCY_MS)
    assert isinstance(one, NoiseFigure)
    assert isinstance(still, NoiseFigure)
    assert one.mde == pytest.approx(still.mde)
    assert one.between_sd > 5 * still.between_sd


@pytest.mark.parametrize("figures", [[(1.0, 1.0)] * 12, noise(0.0002)])
def test_a_device_that_hardly_varies_is_not_believed(figures: list[tuple[float, float]]) -> None:
    certificate = made(sessions(figures))
    (one,) = certificate.figures
    # As in the independent computation above, with the floor for the spread.
    floor = math.expm1((2.593 + 1.363) * 0.001 * math.sqrt(math.pi / 2 / 12))
    assert one.mde == pytest.approx(floor, rel=2e-3)
    assert one.between_sd < 0.001
    (note,) = certificates.notes(certificate, now=NOW)
    assert "less than 0.1%" in note
    assert "not believed" in note
    assert certificates.notes(made(sessions(noise(0.03))), now=NOW) == ()


def test_a_side_that_is_favoured_though_both_are_the_same_file_is_told() -> None:
    figures = [(base, head + 0.2) for base, head in noise(0.02)]
    (note,) = certificates.notes(made(sessions(figures)), now=NOW)
    assert "two sides that are the same file" in note


def test_the_uncertainty_of_the_spread_is_the_chi_squared_one() -> None:
    found = certificates.spread_interval([0.0] * 12)
    assert found is not None
    # 11 degrees of freedom: quantiles 3.816 and 21.920 of a printed table.
    assert found.low == pytest.approx(math.sqrt(11 / 21.920), rel=1e-3)
    assert found.high == pytest.approx(math.sqrt(11 / 3.816), rel=1e-3)
    assert certificates.spread_interval([0.1]) is None


# --- sessions that cannot be used -----------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_figure_without_a_logarithm_gives_no_certificate(value: float) -> None:
    found = sessions(noise(0.03))
    spoilt = factory.measured(Metric.LATENCY_MS, value, tier=Tier.DEVICE)
    found[5] = session(2, "head", spoilt)
    with pytest.raises(MeasurementError, match="not a positive number") as caught:
        made(found)
    assert "pair 3, head" in str(caught.value)


def test_secondary_metrics_that_cannot_be_used_are_left_out() -> None:
    rows = zip(noise(0.03), noise(0.05), strict=True)
    found = []
    for pair, (latency, load) in enumerate(rows):
        for i, side in enumerate(("base", "head")):
            both = (
                factory.measured(Metric.LATENCY_MS, math.exp(latency[i]), tier=Tier.DEVICE),
                factory.measured(Metric.LOAD_MS, math.exp(load[i]), tier=Tier.DEVICE),
                factory.measured(Metric.FIRST_MS, 0.0, tier=Tier.DEVICE),
            )
            found.append(session(pair, side, *both))
    assert [one.metric for one in made(found).figures] == [Metric.LATENCY_MS, Metric.LOAD_MS]


def test_lost_sessions_take_their_pair_along_and_too_few_give_none() -> None:
    found = sessions(noise(0.03, 8))
    for pair in (1, 4):
        found[2 * pair] = session(pair, "base", status=Status.INVALID, reason="device lost: x")
    assert len(made(found).figures[0].log_ratios) == 6
    found[0] = session(0, "base", status=Status.INVALID, reason="device lost: cable")
    with pytest.raises(MeasurementError) as caught:
        made(found)
    assert "5 whole pairs" in str(caught.value)
    assert "device lost: cable" in str(caught.value)
    with pytest.raises(MeasurementError, match="no session has a figure"):
        made([])


@pytest.mark.parametrize(
    "changes", [{"artifact_sha256": "1" * 64}, {"threads": 2}, {"runtime_version": "9"}]
)
def test_sessions_of_two_kinds_give_none(changes: dict[str, Any]) -> None:
    found = sessions(noise(0.03))
    row = factory.measured(Metric.LATENCY_MS, 2.7, tier=Tier.DEVICE)
    found[5] = session(2, "head", row, **changes)
    with pytest.raises(MeasurementError, match="not all of one file"):
        made(found)


def test_counted_instructions_are_certified_where_there_are_no_times() -> None:
    found = sessions([(18.2, 18.2)] * 6, Metric.INSTRUCTIONS)
    assert [one.metric for one in made(found).figures] == [Metric.INSTRUCTIONS]


# --- when it holds --------------------------------------------------------------------------------


def test_a_finer_threshold_than_the_device_can_tell_is_refused(good: Certificate) -> None:
    mde = good.figures[0].mde
    latency = Metric.LATENCY_MS
    assert certificates.too_fine([good], latency, mde * 1.01) == ""
    why = certificates.too_fine([good], latency, mde * 0.99)
    assert f"{mde:.2%}" in why
    assert "2026-05-20" in why
    # More pairs tell less of a change.
    assert certificates.too_fine([good], latency, mde * 0.99, pairs=12) == ""
    assert certificates.too_fine([good], Metric.LOAD_MS, 1e-6) == ""
    assert certificates.too_fine([], latency, 1e-6) == ""


MOVED = {
    "device": {"device_sha256": "0" * 64},
    "OS build": {"os_build": "build 2"},
    "runtime version": {"runtime_version": "1.6.0"},
    "format": {"runtime": "onnx"},
    "number of threads": {"threads": 4},
    "preset": {"preset": "release"},
    "tier": {"tier": Tier.EMULATOR},
}


@pytest.mark.parametrize("what", MOVED)
def test_it_does_not_hold_elsewhere_and_says_why(
    good: Certificate, tmp_path: Path, what: str
) -> None:
    certificate_files.write(good, tmp_path)
    here = certificates.place(good)
    assert certificate_files.find(tmp_path, here).certificate == good
    found = certificate_files.find(tmp_path, dataclasses.replace(here, **MOVED[what]))
    assert found.certificate is None
    if what == "device":
        assert found.notes == ()  # Another device's: nobody's business here.
    else:
        (note,) = found.notes
        assert f"does not count: {what}: " in note
        assert " then, " in note
        assert good.device_sha256 not in note


def test_the_newest_that_holds_counts_and_its_age_is_told(tmp_path: Path) -> None:
    old = made(sessions(noise(0.03)), now=NOW - timedelta(days=200))
    new = made(sessions(noise(0.02)), now=NOW - timedelta(days=100))
    for one in (new, old):
        certificate_files.write(one, tmp_path)
    assert certificate_files.find(tmp_path, certificates.place(new)).certificate == new
    assert certificates.age_days(new, now=NOW) == pytest.approx(100)
    assert "100 days old" in certificates.notes(new, now=NOW)[0]
    assert "future" in certificates.notes(new, now=NOW - timedelta(days=300))[0]
    undated = new.model_copy(update={"created_utc": "yesterday"})
    assert certificates.age_days(undated) is None
    assert "cannot be read" in certificates.notes(undated)[0]


def test_an_empty_or_missing_folder_holds_nothing(good: Certificate, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        assert certificate_files.find(folder, certificates.place(good)).certificate is None


# --- files ----------------------------------------------------------------------------------------


def test_it_comes_back_as_it_was_written(good: Certificate, tmp_path: Path) -> None:
    path = certificate_files.write(good, tmp_path / "new" / "folder")
    assert certificate_files.read(path) == good
    assert "R5CT1" not in path.read_text()
    assert certificate_files.files(path.parent) == [path]


def _version(data: dict[str, Any]) -> None:
    data["schema_version"] = 2


def _edited(data: dict[str, Any]) -> None:
    data["figures"][0]["mde"] = 0.001


def _unsealed(data: dict[str, Any]) -> None:
    del data["content_sha256"]


def _resealed(data: dict[str, Any]) -> None:
    del data["content_sha256"], data["tier"]
    data["content_sha256"] = seal(data)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_version, "of version 2, and this pocketship reads 1"),
        (_edited, "was edited"),
        (_unsealed, "was edited"),
        (_resealed, "tier: Field required"),
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_refused_and_passed_over(
    good: Certificate, tmp_path: Path, change: Any, says: str
) -> None:
    path = certificate_files.write(good, tmp_path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(ConfigError, match=says) as caught:
        certificate_files.read(path)
    assert "pocketship calibrate" in str(caught.value)
    found = certificate_files.find(tmp_path, certificates.place(good))
    assert found.certificate is None
    assert "passed over" in found.notes[0]


def test_a_file_that_is_cut_off_anywhere_is_refused(good: Certificate, tmp_path: Path) -> None:
    path = certificate_files.write(good, tmp_path)
    whole = path.read_bytes()
    for length in range(0, len(whole.rstrip()), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(ConfigError):
            certificate_files.read(path)
    for other in (b"[]", b"null", b"{}", b"\xff"):
        path.write_bytes(other)
        with pytest.raises(ConfigError):
            certificate_files.read(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        certificate_files.read(tmp_path / "none")
