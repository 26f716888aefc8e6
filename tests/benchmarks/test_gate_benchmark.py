import json

import numpy as np
import pytest

from benchmarks.gate import __main__ as command
from benchmarks.gate import contenders, devices, page, phone, simulated
from deploy.report.gate import PRIMARY, judge
from deploy.types import GateRules, Outcome
from tests.deploy.report.comparisons import sessions, side

KIND = {kind.name: kind for kind in devices.KINDS}


def trial(kind="independent", sd=0.03, change=0.0, count=60, seed=1):
    random = np.random.default_rng(seed)
    measured, certified = (devices.measure(random, KIND[kind], sd, count) for _ in range(2))
    return contenders.Trial(measured, change, certified)


def test_the_benchmark_judges_as_the_gate_does():
    made = trial(sd=0.05, change=0.06, count=25)
    without = contenders.ours(made, certificate=False)
    for row, word in zip(made.measured.sessions, without, strict=True):
        answers = []
        for pairs in (6, 12):
            base, head = devices.abba(pairs)
            taken = sessions([float(v) for v in row[base]], [float(1.06 * v) for v in row[head]])
            found = judge(side(), side(), taken, rules=GateRules(), extended=pairs == 12)
            answers += [v.outcome for v in found if v.source == PRIMARY]
        first, second = answers
        assert word is (second if first is Outcome.INCONCLUSIVE else first)
    assert len(set(without)) > 1


def test_the_sessions_lie_in_time_as_they_are_measured():
    assert devices.abba(3) == ([0, 3, 4], [1, 2, 5])


@pytest.mark.parametrize("kind", ["independent", "autocorrelated", "alternating", "heavy tails"])
def test_devices_vary_between_sessions_by_what_is_said(kind):
    values = np.log(devices.measure(np.random.default_rng(3), KIND[kind], 0.05, 1500).sessions)
    assert values.std() == pytest.approx(0.05, rel=0.2)


def test_a_drift_fools_what_measures_one_side_after_the_other_and_not_pairs():
    made = trial("drift", sd=0.01)
    assert contenders.hyperfine(made).count(Outcome.REGRESSED) > 50
    assert contenders.welch_abba(made).count(Outcome.REGRESSED) < 10
    assert contenders.ours(made).count(Outcome.REGRESSED) < 5


def test_iterations_that_are_taken_for_independent_find_what_is_not_there():
    made = trial()
    assert contenders.pooled_iterations(made).count(Outcome.REGRESSED) > 10
    assert contenders.asv(made).count(Outcome.REGRESSED) < 10
    large = trial(change=0.5)
    for contender in contenders.CONTENDERS:
        assert contender.judge(large).count(Outcome.REGRESSED) == 60, contender.name


def test_a_change_as_large_as_the_effect_is_mostly_told_from_nothing():
    assert contenders.detectable(0.03) == pytest.approx(0.0626, abs=0.001)
    made = trial(change=contenders.detectable(0.03), count=200)
    assert 170 < contenders.told(made) < 200


def test_bounds_of_shares_are_clopper_and_pearsons():
    assert contenders.upper_bound(0, 100) == pytest.approx(1 - 0.025 ** (1 / 100))
    assert contenders.lower_bound(100, 100) == pytest.approx(0.025 ** (1 / 100))


def cell(kind, sd, change, regressed, count=1000):
    said = {"REGRESSED": regressed, "PASS": count - regressed}
    return simulated.Cell(kind, sd, change, contenders.OURS, count, said, 0)


def part(false=10, found=960, count=1000):
    rows = [
        cell(kind.name, sd, change, found if change == page.LARGE else false, count)
        for kind in devices.KINDS
        for change, sds in simulated.CHANGES.items()
        for sd in sds
    ]
    return {"cells": [vars(row) for row in rows]}


def test_targets_are_held_to_the_bounds_of_the_figures():
    assert all(target.met for target in page.targets(part()))
    assert [t.met for t in page.targets(part(false=45))] == [False, False, False, True]
    assert [t.met for t in page.targets(part(found=905))] == [True, True, True, False]


def test_the_page_keeps_what_people_wrote(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(simulated, "SDS", (0.03,))
    monkeypatch.setattr(simulated, "CHANGES", {0.0: (0.03,), 0.1: (0.03,)})
    monkeypatch.setattr(devices, "KINDS", devices.KINDS[:1])
    monkeypatch.setattr(page, "NAMED", ("independent",))
    target = tmp_path / "gate.md"
    target.write_text(f"before\n{command.BEGIN}\nfigures of last year\n{command.END}\nafter\n")
    rows = [
        vars(simulated.Cell("independent", 0.03, change, one.name, 1000, {"PASS": 1000}, 0))
        for change in simulated.CHANGES
        for one in contenders.CONTENDERS
    ]
    misses = {"t": {"independent": {"above": 0.02, "below": 0.03, "width": 0.1}}}
    effects = [{"sd": 0.03, "mde": 0.0625, "told": 930, "devices": 1000}]
    measured = {
        "cells": rows,
        "intervals": misses,
        "effects": effects,
        "devices": 1000,
        "seed": 1,
        "seconds": 2.0,
    }
    command.write(target, {"simulated": measured})
    text = target.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "last year" not in text
    assert "| t | 2.0 | 3.0 |" in text
    assert "| 3 % | 6.25 % | 93 % |" in text
    assert command.report({"simulated": measured}) == 1
    assert "MISSED  power" in capsys.readouterr().out.splitlines()[-1]
    json.dumps(measured)


def phone_part(**changes):
    rows = [
        {"kind": kind, "number": n, "outcome": word, "instructions": word, "base": 1.0, "head": 1.1}
        for kind, word in (
            (phone.AA, "PASS"),
            (phone.CONVOLUTION, "REGRESSED"),
            (phone.ACTIVATION, "REGRESSED"),
        )
        for n in range(3)
    ]
    for index, change in changes.items():
        rows[int(index.removeprefix("row"))].update(change)
    return {"comparisons": 3, "rows": rows}


def test_the_phones_targets_need_every_comparison():
    assert all(target.met for target in phone.targets(phone_part()))
    lost = phone_part(row3={"instructions": "PASS"}, row8={"instructions": "INVALID"})
    assert [target.met for target in phone.targets(lost)] == [True, False, False]
    empty = phone_part(row0={"outcome": "INVALID", "instructions": "none"})
    assert [target.met for target in phone.targets(empty)] == [False, True, True]


def test_no_two_changes_on_the_phone_are_the_same():
    made = {(n % phone.NETWORKS, n % phone.PLACES) for n in range(phone.COMPARISONS)}
    assert len(made) == phone.COMPARISONS


def test_comparisons_that_were_made_are_not_made_again():
    rows = [{"kind": kind, "number": n} for kind in phone.KINDS for n in range(2)]
    phone.run(2, print, done=rows, keep=lambda rows: pytest.fail("nothing is missing"))


def test_the_networks_of_the_phone_differ_as_they_are_called():
    import torch

    x = torch.randn(phone.SHAPE)
    for number in range(3):
        plain = phone.network(number, None)
        same = phone.network(number, None)
        lost = phone.network(number, phone.Change(phone.ACTIVATION, number))
        more = phone.network(number, phone.Change(phone.CONVOLUTION, number))
        assert torch.equal(plain(x), same(x))
        assert torch.equal(plain(x), lost(x))
        count = [sum(isinstance(m, torch.nn.Conv2d) for m in net) for net in (plain, more)]
        assert count == [3, 4]
