"""Devices that are not there: which are waited for, how long, and that nobody else waits."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from deploy.bench import absence, fleet
from deploy.bench.absence import Absent, Lost, check_lost, until_there
from deploy.bench.waiting import Clock
from deploy.devices import profiles
from deploy.devices.adb_errors import explained, unauthorised, unreachable
from deploy.devices.adb_link import NotReady, ShellCut
from deploy.devices.base import Device
from deploy.errors import ConfigError, DeviceError
from deploy.types import DeviceRun, Progress, Status, silent
from tests.deploy.scripted_phone import ScriptedPhone

GONE = Absent("connection refused", where="1.2.3.4:5555", hint="Start it.")


def caused(error: Exception) -> DeviceError:
    """What a transport raises in the middle of connecting."""
    try:
        raise explained("getprop", error, 30, "S") from error
    except DeviceError as raised:
        return raised


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (unreachable(ConnectionRefusedError(), 20, "S"), True),
        (unreachable(TimeoutError(), 20, "S"), True),
        (NotReady("the ADB server knows no such device", state="offline"), True),
        (caused(ConnectionResetError()), True),
        (caused(TimeoutError()), True),
        (caused(ShellCut()), True),
        (unauthorised("S"), False),
        (NotReady("in use by process 7", state="busy"), False),
        (NotReady("this user may not", state="no permissions"), False),
        (DeviceError("this is an emulator, and the profile 'pixel-8' is a phone's"), False),
        (caused(ValueError("no ADB")), False),
    ],
    ids=lambda value: str(value)[:40],
)
def test_only_what_passes_by_itself_is_waited_for(error: DeviceError, passes: bool) -> None:
    found = absence.absent(error)
    assert (found is not None) is passes
    if found is not None:
        assert (found.what, found.where, found.hint) == (error.what, error.where, error.hint)


@dataclass
class Late:
    """A device that comes at a certain second of its own clock."""

    comes_at: float
    passed: float = 0.0
    attempts: list[float] = field(default_factory=list)

    def attempt(self) -> str:
        self.attempts.append(self.passed)
        if self.passed < self.comes_at:
            raise GONE
        return "there"

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.passed, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.passed += seconds


def test_a_device_that_comes_late_is_taken() -> None:
    late, said = Late(comes_at=95.0), list[str]()
    assert until_there(late.attempt, "phone", 120.0, said.append, late.clock) == "there"
    assert 95 <= late.passed <= 95 + absence.LONGEST_PAUSE_S
    assert said[0] == "phone: connection refused; waiting for it for 120 s"
    assert said[1].startswith("phone: not there yet, after 6")
    assert said[2].startswith("phone: is there, after ")
    assert len(said) == 3
    assert len(late.attempts) < 20, "an absent phone is not asked without end"


def test_a_device_that_does_not_come_is_given_up_at_the_bound() -> None:
    late = Late(comes_at=1e9)
    with pytest.raises(Absent, match="connection refused; waited 120 s") as caught:
        until_there(late.attempt, "phone", 120.0, silent, late.clock)
    assert late.attempts[-1] == late.passed == 120.0, "the last look is at the very end"
    assert (caught.value.where, caught.value.hint) == (GONE.where, GONE.hint)


def test_without_a_bound_and_for_other_errors_nobody_waits() -> None:
    said: list[str] = []
    late = Late(comes_at=5.0)
    with pytest.raises(Absent, match=r"connection refused\. Start it"):
        until_there(late.attempt, "phone", 0.0, said.append, late.clock)

    def busy() -> None:
        raise NotReady("in use", state="busy")

    with pytest.raises(NotReady, match="in use"):
        until_there(busy, "phone", 60.0, said.append, late.clock)
    assert until_there(lambda: 1, "phone", 60.0, said.append, late.clock) == 1
    assert (late.passed, said) == (0.0, [])


# --- many devices ---------------------------------------------------------------------------------

AWAY = ("pixel-8", "galaxy-s23", "xiaomi-13")


class Shelf:
    """Devices whose turns are plain functions; ``log`` has what happened in its order."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.given_up: dict[str, str] = {}
        self.turns: list[fleet.Turn] = []

    def add(
        self,
        name: str,
        serve: Callable[[fleet.Guard, Progress], None],
        wait_s: float = 0.0,
    ) -> None:
        def logged(guard: fleet.Guard, say: Progress) -> None:
            self.log.append((name, "asked"))
            serve(guard, say)
            self.log.append((name, "served"))

        def give_up(error: DeviceError, _: Progress) -> None:
            assert name not in self.given_up, "one outcome"
            self.given_up[name] = error.what

        self.turns.append(fleet.Turn(profiles.load(name), logged, wait_s, give_up))

    def run(self) -> None:
        fleet.serve_all(self.turns, self.said.append)

    def count(self, name: str, what: str) -> int:
        return self.log.count((name, what))


def there(guard: fleet.Guard, _: Progress) -> None:
    guard(ScriptedPhone())


def gone(*_: Any) -> None:
    raise GONE


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    monkeypatch.setattr(absence, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(absence, "LONGEST_PAUSE_S", 0.002)
    yield Shelf()


def wait_for(event: threading.Event) -> None:
    assert event.wait(30)


def test_an_absent_phone_is_taken_when_it_comes_while_others_work(shelf: Shelf) -> None:
    """Its own bound is over at once: what others need for their work is not lost time."""
    served = threading.Event()
    looks: list[int] = []

    def late(guard: fleet.Guard, say: Progress) -> None:
        looks.append(1)
        say("others may use the ADB key")
        if len(looks) < 5:
            raise GONE
        guard(ScriptedPhone())
        say("case 1/1")
        say("case 1/1")
        served.set()

    def works(guard: fleet.Guard, _: Progress) -> None:
        guard(ScriptedPhone())
        wait_for(served)

    shelf.add("pixel-8", late)
    shelf.add("galaxy-s23", works)
    shelf.run()
    assert shelf.given_up == {}
    assert shelf.count("pixel-8", "served") == shelf.count("galaxy-s23", "served") == 1
    assert shelf.said[1].endswith("refused; waiting for it while other devices are at work")
    came = [line.startswith("pixel-8: is there, after") for line in shelf.said].index(True)
    assert shelf.said[came + 1 :] == ["case 1/1", "case 1/1"]
    assert shelf.said.count("others may use the ADB key") == 1


def test_phones_that_never_come_hold_nobody_up_and_have_one_outcome(shelf: Shelf) -> None:
    for name in ("pixel-8", "galaxy-s23"):
        shelf.add(name, gone, wait_s=0.02)
    shelf.add("xiaomi-13", there)
    shelf.add("host", there)
    shelf.add("emulated-arm64", there)
    shelf.run()
    assert set(shelf.given_up) == {"pixel-8", "galaxy-s23"}
    for reason in shelf.given_up.values():
        assert reason.startswith("connection refused; waited ")
    for name in ("xiaomi-13", "host", "emulated-arm64"):
        assert shelf.count(name, "served") == 1
    # The absent ones get their wait when nobody is left whom it would hold up.
    ended = shelf.log.index(("emulated-arm64", "served"))
    assert {name for name, _ in shelf.log[ended + 1 :]} == {"pixel-8", "galaxy-s23"}


def test_a_phone_that_is_there_only_at_the_end_is_measured(shelf: Shelf) -> None:
    host_done = threading.Event()

    def late(guard: fleet.Guard, say: Progress) -> None:
        if not host_done.is_set():
            raise GONE
        there(guard, say)

    shelf.add("pixel-8", late)
    shelf.add("host", lambda *_: host_done.set())
    shelf.run()
    assert shelf.given_up == {}
    assert shelf.log == [
        ("pixel-8", "asked"),
        ("host", "asked"),
        ("host", "served"),
        ("pixel-8", "asked"),
        ("pixel-8", "served"),
    ]


def test_an_absent_device_that_computes_here_waits_for_the_others_too(shelf: Shelf) -> None:
    """An emulated phone that was started by hand, and is not up yet."""
    looks: list[int] = []

    def late(guard: fleet.Guard, _: Progress) -> None:
        looks.append(1)
        if len(looks) < 4:
            raise GONE
        guard(ScriptedPhone())

    shelf.add("emulated-arm64", late, wait_s=1000.0)
    shelf.add("host", there)
    shelf.run()
    assert shelf.given_up == {}
    assert shelf.log.index(("host", "served")) == 2
    assert shelf.log[-1] == ("emulated-arm64", "served")


@pytest.mark.parametrize("busy", [True, False], ids=["others at work", "at the end"])
def test_a_lost_phone_is_taken_up_again_when_it_is_back(shelf: Shelf, busy: bool) -> None:
    served = threading.Event()
    turns: list[str] = []

    def flaky(guard: fleet.Guard, _: Progress) -> None:
        turns.append("turn")
        if len(turns) == 1:
            guard(ScriptedPhone())
            raise Lost("device lost: no answer")
        if busy and len(turns) < 4:
            raise GONE
        guard(ScriptedPhone())
        served.set()

    def works(guard: fleet.Guard, _: Progress) -> None:
        guard(ScriptedPhone())
        if busy:
            wait_for(served)

    shelf.add("pixel-8", flaky, wait_s=1000.0)
    shelf.add("galaxy-s23" if busy else "host", works)
    shelf.run()
    assert served.is_set()
    assert shelf.given_up == {}, "its first outcome was kept by its turn"
    assert shelf.count("pixel-8", "served") == 1


def test_a_phone_that_is_lost_again_and_again_is_left_alone(shelf: Shelf) -> None:
    done = threading.Event()
    turns: list[str] = []

    def dying(guard: fleet.Guard, _: Progress) -> None:
        turns.append("turn")
        guard(ScriptedPhone())
        if len(turns) == 1 + fleet.RETURNS:
            done.set()
        raise Lost("device lost: no answer")

    def works(guard: fleet.Guard, _: Progress) -> None:
        guard(ScriptedPhone())
        wait_for(done)

    shelf.add("pixel-8", dying, wait_s=1000.0)
    shelf.add("galaxy-s23", works)
    shelf.run()
    assert len(turns) == 1 + fleet.RETURNS
    assert shelf.given_up == {}


@pytest.mark.parametrize("other", [True, False])
def test_what_answers_in_place_of_a_lost_phone_is_not_measured(shelf: Shelf, other: bool) -> None:
    """Its address may have passed to another phone; the lost one's outcome stands."""
    lost = ScriptedPhone().info().model_copy(update={"os_build": "one"})
    turns: list[str] = []

    def swapped(guard: fleet.Guard, _: Progress) -> None:
        turns.append("turn")
        if len(turns) == 1:
            guard(ScriptedPhone())
            raise Lost("device lost: no answer", lost)
        back = ScriptedPhone()
        build = "two" if other else "one"
        back.info = lambda: lost.model_copy(update={"os_build": build})  # type: ignore[method-assign]
        guard(back)

    shelf.add("pixel-8", swapped)
    shelf.add("host", there)
    shelf.run()
    assert shelf.count("pixel-8", "served") == (0 if other else 1)
    assert len(turns) == 2
    assert any("build two answers in place of" in line for line in shelf.said) is other
    assert shelf.given_up == {}


def test_a_lost_phone_that_stays_away_costs_no_second_wait(shelf: Shelf) -> None:
    turns: list[str] = []

    def dead(guard: fleet.Guard, _: Progress) -> None:
        turns.append("turn")
        if len(turns) > 1:
            raise GONE
        guard(ScriptedPhone())
        raise Lost("device lost: no answer")

    shelf.add("pixel-8", dead, wait_s=1e6)
    shelf.add("host", there)
    shelf.run()
    assert shelf.given_up == {}
    assert len(turns) == 2, "one look at the end"


def test_an_error_that_waiting_does_not_change_is_the_outcome_at_once(shelf: Shelf) -> None:
    def refused(*_: Any) -> None:
        raise NotReady("did not accept the key", state="unauthorised")

    shelf.add("pixel-8", refused, wait_s=1e6)
    shelf.add("galaxy-s23", there)
    shelf.run()
    assert shelf.given_up == {"pixel-8": "did not accept the key"}
    assert shelf.count("pixel-8", "asked") == 1


def test_without_give_up_the_error_is_raised() -> None:
    for error in (GONE, NotReady("busy", state="busy"), ConfigError("wrong")):

        def serve(*_: Any, error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)):
            fleet.serve_all([fleet.Turn(profiles.load("pixel-8"), serve)], silent)


def test_ctrl_c_ends_waiting(shelf: Shelf) -> None:
    """While one phone is waited for and another one works."""
    missed, working, never = threading.Event(), threading.Event(), threading.Event()

    def absent(*_: Any) -> None:
        missed.set()
        raise GONE

    class Endless(ScriptedPhone):
        def shell(self, *_: Any, **__: Any) -> Any:
            never.wait(0.001)

    def works(guard: fleet.Guard, _: Progress) -> None:
        device: Device = guard(Endless())
        working.set()
        while True:
            device.shell(["true"])

    def progress(line: str) -> None:
        if "interrupted" in line:
            shelf.said.append(line)

    shelf.add("pixel-8", absent, wait_s=1e6)
    shelf.add("galaxy-s23", works)

    def interrupt() -> None:
        wait_for(missed)
        wait_for(working)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        fleet.serve_all(shelf.turns, progress)
    thread.join()
    assert sorted(shelf.said) == ["galaxy-s23: interrupted", "pixel-8: interrupted"]
    assert shelf.given_up == {}
    assert not [t for t in threading.enumerate() if t.name in AWAY]


def test_lost_is_told_from_the_device_s_own_row() -> None:
    profile = profiles.load("pixel-8")

    def row(status: Status, reason: str = "") -> DeviceRun:
        return DeviceRun(profile=profile, status=status, reason=reason)

    gone = row(Status.INVALID, "device lost: no answer. Check power.")
    gone = gone.model_copy(update={"info": ScriptedPhone().info()})
    with pytest.raises(Lost, match="no answer") as caught:
        check_lost(gone)
    assert caught.value.info == gone.info
    for other in (
        row(Status.OK),
        row(Status.INVALID, "another device: a Pixel 9 answers"),
        row(Status.INVALID, "no room on the device: lost"),
    ):
        check_lost(other)
