"""What has nothing to do with a history does not wait for the libraries that one needs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.report import store
from tests.deploy.conftest import ROOT, environment
from tests.deploy.report import factory

HEAVY = {"sqlalchemy", "alembic", "psycopg"}

SCRIPT = """
import sys
from deploy.cli import app
for words in {commands!r}:
    try:
        app(words, standalone_mode=False)
    except SystemExit:
        pass  # The doctor's code is that of what this machine lacks.
    loaded = {heavy!r} & set(sys.modules)
    assert not loaded, (words, loaded)
from deploy.history import address
address.parse({file!r})
assert "sqlalchemy" not in sys.modules
address.parse("postgresql://me@localhost/h")
assert "sqlalchemy" in sys.modules
"""


def test_help_doctor_and_compare_load_no_sqlalchemy_and_no_alembic(tmp_path: Path) -> None:
    for name in ("a", "b"):
        store.write(factory.report(run_id=name), tmp_path / name)
    runs = [str(tmp_path / name) for name in ("a", "b")]
    commands = [
        ["--help"],
        ["run", "--help"],
        ["history", "list", "--help"],
        ["doctor", "--json"],
        ["compare", *runs, "-o", str(tmp_path / "page")],
    ]
    script = SCRIPT.format(commands=commands, heavy=HEAVY, file=str(tmp_path / "h"))
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page" / "compare.html").is_file()


def loaded_with(module: str) -> set[str]:
    """Every module that importing ``module`` imports, of ours and the first names of others.

    Read, not run: what the commands import takes seconds because of torch.
    """
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        path = ROOT / name.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name.partition(".")[0] not in ("deploy", "compress") or not file.is_file():
            continue
        waiting += _imported(ast.parse(file.read_text(encoding="utf-8")).body)
    return found


def _imported(body: list[ast.stmt]) -> Iterator[str]:
    """What statements import when a module is loaded: not within functions, nor for types alone."""
    for statement in body:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield from _parents(alias.name)
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            yield from _parents(statement.module)
            yield from (f"{statement.module}.{alias.name}" for alias in statement.names)
        elif isinstance(statement, ast.If) and "TYPE_CHECKING" not in ast.unparse(statement.test):
            yield from _imported([*statement.body, *statement.orelse])
        elif isinstance(statement, ast.Try):
            yield from _imported(statement.body)


def _parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[: end + 1]) for end in range(len(parts)))


@pytest.mark.parametrize("module", ["deploy.commands", "deploy.gating.command", "deploy.doctor"])
def test_commands_load_them_only_when_the_history_is_used(module: str) -> None:
    assert not HEAVY & loaded_with(module)


def test_the_reading_of_imports_finds_what_is_there() -> None:
    """Else the test before this one could not fail."""
    assert {"sqlalchemy", "alembic"} <= loaded_with("deploy.history_commands")
    assert "torch" in loaded_with("deploy.commands")
