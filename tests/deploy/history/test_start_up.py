"""What has nothing to do with a history does not wait for the libraries that one needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from deploy.report import store
from tests.deploy.conftest import environment
from tests.deploy.report import factory

SCRIPT = """
import sys
from deploy.cli import app
for words in {commands!r}:
    try:
        app(words, standalone_mode=False)
    except SystemExit:
        pass  # The doctor's code is that of what this machine lacks.
    loaded = {{"sqlalchemy", "alembic", "psycopg"}} & set(sys.modules)
    assert not loaded, (words, loaded)
from deploy.gating import command
from deploy.history import address
address.parse({file!r})
assert "sqlalchemy" not in sys.modules
address.parse("postgresql://me@localhost/h")
assert "sqlalchemy" in sys.modules
"""


def test_only_a_history_brings_sqlalchemy_and_alembic(tmp_path: Path) -> None:
    """``init`` stands for all commands of ``deploy.commands``: check, run, the stages."""
    for name in ("a", "b"):
        store.write(factory.report(run_id=name), tmp_path / name)
    runs = [str(tmp_path / name) for name in ("a", "b")]
    commands = [
        ["--help"],
        ["run", "--help"],
        ["history", "list", "--help"],
        ["doctor", "--json"],
        ["compare", *runs, "-o", str(tmp_path / "page")],
        ["init", str(tmp_path / "p.yaml")],
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(commands=commands, file=str(tmp_path / "h"))],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "page" / "compare.html").is_file()
    assert (tmp_path / "p.yaml").is_file()
