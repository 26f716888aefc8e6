"""Which history a run has, and that no address shows a password."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import ConfigError
from deploy.history import address
from deploy.history.address import chosen, parse

REPORTS = Path("/somewhere/reports")


def test_the_default_is_a_file_beside_the_reports() -> None:
    found = chosen(None, REPORTS, {})
    assert found is not None
    assert found.file == REPORTS / "history.sqlite"


def test_the_variable_wins_over_the_file_but_not_over_none() -> None:
    environment = {"POCKETSHIP_HISTORY": "postgresql://me:secret@db/h"}
    for wanted in (None, "mine.sqlite", "postgresql://other@db/x"):
        found = chosen(wanted, REPORTS, environment)
        assert found is not None
        assert found.shown == "postgresql://me@db/h"
    assert chosen("none", REPORTS, environment) is None
    assert chosen("mine.sqlite", REPORTS, {"POCKETSHIP_HISTORY": "none"}) is None
    assert chosen(None, REPORTS, {"POCKETSHIP_HISTORY": ""}) is not None


def test_a_relative_file_is_where_the_run_was_begun() -> None:
    for wanted in ("past/h.sqlite", "sqlite:///past/h.sqlite"):
        found = chosen(wanted, REPORTS, {}, Path("/work-folder"))
        assert found is not None
        assert found.file == Path("/work-folder/past/h.sqlite")
    absolute = chosen("sqlite:////data/h.sqlite", REPORTS, {}, Path("/work-folder"))
    assert absolute is not None
    assert absolute.file == Path("/data/h.sqlite")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("mysql://me:topsecret@db/h", "no history can be kept in 'mysql'"),
        ("postgresql+asyncpg://me:topsecret@db/h", "no history can be kept in"),
        ("postgresql://me:topsecret@db:port/h", "is no URL that can be read"),
        ("postgresql://me:top@secret@db/h", "is no URL that can be read"),
        ("postgresql://[topsecret", "is no URL that can be read"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("http://x/y", "no history can be kept in 'http'"),
    ],
)
def test_wrong_addresses_are_one_line_without_secrets(text: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert part in str(caught.value)
    assert "secret" not in str(caught.value)


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=6, max_size=12))
def test_a_quoted_password_is_passed_on_and_never_shown(password: str) -> None:
    password = f"#{password}#"
    found = parse(f"postgresql://me:{quote(password, safe='')}@db:5433/h")
    assert found.url is not None
    assert found.url.password == password
    assert found.shown == "postgresql://me@db:5433/h"
    assert password not in repr(found)
    in_query = parse(f"postgresql://db/h?password={quote(password, safe='')}")
    assert in_query.shown == "postgresql://db/h"
    assert password not in repr(in_query)


def test_of_option_asks_for_a_name_where_none_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(address.VARIABLE, "none")
    with pytest.raises(ConfigError, match="Name one with --history"):
        address.of_option(None)
    assert address.of_option("x.sqlite").file == Path("x.sqlite")
