"""What the user sees of a command, whatever happens in it."""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from deploy.console import Session, session, visible
from deploy.errors import ConfigError, DeviceError

HOSTILE = "[red]x[/red]\x1b]0;owned\x07\x1b[2J\u202e\r\x9b31m[/]"


@given(st.text())
def test_nothing_that_moves_a_cursor_survives(text: str) -> None:
    shown = visible(text)
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    assert visible(shown) == shown


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_ordinary_text_is_not_touched(text: str) -> None:
    assert visible(text) == text


def ended(error: BaseException, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and the one line that a command prints which raises ``error``."""
    with pytest.raises(typer.Exit) as caught, session("test"):
        raise error
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err
    return caught.value.exit_code, err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError("is wrong", where="f.yaml:3", hint="Mend it."), 2, "f.yaml:3: is wrong. Mend"),
        (DeviceError("a\nb\x1b[31m"), 6, r"pocketship: a b\x1b[31m"),
        (KeyboardInterrupt(), 130, "pocketship: interrupted."),
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), 2, "/a/b: cannot be written"),
    ],
    ids=["config", "device", "Ctrl-C", "disk full"],
)
def test_an_error_is_one_line_and_its_code(
    capfd: pytest.CaptureFixture[str], error: BaseException, code: int, text: str
) -> None:
    got, line = ended(error, capfd)
    assert got == code
    assert text in line


def test_a_bug_leaves_its_traceback_in_a_file(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("POCKETSHIP_STATE", str(tmp_path))
    code, line = ended(ZeroDivisionError("by\nzero"), capfd)
    assert code == 1
    assert "unexpected error in 'test': ZeroDivisionError: by zero" in line
    (crash,) = tmp_path.glob("crash-*.log")
    assert str(crash) in line
    assert "Traceback" in crash.read_text()


def test_a_bug_without_a_place_for_its_traceback(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("POCKETSHIP_STATE", str(tmp_path / "file"))
    code, line = ended(ZeroDivisionError("zero"), capfd)
    assert code == 1
    assert "traceback could not be written" in line


def test_sigterm_unwinds_like_ctrl_c(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    cleaned = []
    with pytest.raises(typer.Exit) as caught, session("test"):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            cleaned.append(True)
    assert caught.value.exit_code == 130
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_cause_of_an_error_is_in_the_log_only(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(typer.Exit), session("test") as ui:
        ui.log_to(tmp_path / "log.txt")
        try:
            raise KeyError("deep inside")
        except KeyError as error:
            raise ConfigError("is wrong") from error
    assert "deep inside" not in capfd.readouterr().err
    log = (tmp_path / "log.txt").read_text()
    assert "deep inside" in log
    assert "Traceback" in log
    assert "exit code 2: is wrong" in log


def test_what_others_print_goes_to_the_log_from_the_start(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with session("test") as ui:
        os.write(1, b"early\n")
        ui.progress("working\x1b[31m")
        ui.log_to(tmp_path / "log.txt")
        os.write(2, b"late\n")
        ui.say("result")
    out, err = capfd.readouterr()
    assert out == "result\n"
    assert err.strip().endswith(r"s working\x1b[31m")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert lines[0] == "early"
    assert lines[1].endswith(r"s working\x1b[31m")
    assert lines[2:] == ["late"]
    os.write(1, b"after\n")
    assert capfd.readouterr().out == "after\n", "standard output was not given back"


def test_a_log_that_cannot_be_written_is_one_line(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(typer.Exit) as caught, session("test") as ui:
        ui.log_to(tmp_path)
    assert caught.value.exit_code == 2
    assert "cannot be written: Is a directory" in capfd.readouterr().err


def test_hostile_names_are_text() -> None:
    out, err = io.StringIO(), io.StringIO()
    ui = Session("test", out, err, None)
    ui.say(HOSTILE)
    ui.table(HOSTILE, [(HOSTILE, False), ("n", True)], [[HOSTILE, "1"]])
    ui.progress(HOSTILE)
    ui.fail(HOSTILE, 2)
    for text in (out.getvalue(), err.getvalue()):
        assert "[red]x[/red]" in text
        assert not set(text) & {"\x1b", "\x07", "\x9b", "\u202e", "\r"}
    assert len(err.getvalue().splitlines()) == 2


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    err = Terminal()
    Session("test", Terminal(), err, None).fail("no", 2)
    assert "\x1b[31m" not in err.getvalue()
    assert "[1;31m" not in err.getvalue()
    monkeypatch.delenv("NO_COLOR")
    err = Terminal()
    Session("test", Terminal(), err, None).fail("no", 2)
    assert "\x1b[" in err.getvalue()


def test_a_pipe_gets_long_cells_whole() -> None:
    out = io.StringIO()
    long = "/".join(["a folder with blanks"] * 12)
    Session("test", out, io.StringIO(), None).table("t", [("Path", False)], [[long]])
    assert long in out.getvalue()


def test_logging_does_not_reach_the_user(capfd: pytest.CaptureFixture[str]) -> None:
    with session("test"):
        logger = logging.getLogger("somebody.else")
        handler = logging.StreamHandler(os.fdopen(os.dup(2), "w"))
        logger.addHandler(handler)
        logger.error("NOISE")
        handler.flush()
        logger.removeHandler(handler)
    sys.stderr.flush()
    assert "NOISE" not in capfd.readouterr().err
