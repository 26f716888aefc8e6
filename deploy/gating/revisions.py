"""A git revision as a folder of files, without touching the checkout that the user works in.

The files are written from git's object store through an index of our own: neither the user's
checkout, nor its index, nor its list of worktrees changes, no hook runs, and what
``.gitattributes`` leaves out of archives is there all the same. Names that come from the user or
from git never reach a shell, and only the commit's hash becomes part of a path.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy import workspace
from deploy.errors import ConfigError
from deploy.paths import cache_dir
from deploy.types import Progress

PREFIX = "git:"
"""Marks a name as a revision, also where a file of that name exists."""

_TIMEOUT_S = 600.0
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
# A hook of git's sets these; they would lead to another repository or index than the folder's.
_LEADS_ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")


@dataclass(frozen=True)
class Revision:
    """A commit of a repository; ``name`` is what the user called it."""

    repository: Path
    commit: str
    name: str

    @property
    def home(self) -> Path:
        """Where pocketship keeps what it makes of this commit; may be removed at any time."""
        return cache_dir() / "revisions" / self.commit


def repository_of(where: Path) -> Path | None:
    """The top folder of the checkout that holds ``where``; None where there is none."""
    done = _git(where, "rev-parse", "--show-toplevel")
    return Path(done.stdout.rstrip("\n")) if done.returncode == 0 and done.stdout.strip() else None


def known(name: str, where: Path) -> bool:
    """Whether git, asked in ``where``, knows a commit by this name."""
    return _commit(name, where) is not None


def find(name: str, where: Path) -> Revision:
    """The commit that ``name`` stands for in the repository around ``where``.

    Raises ``ConfigError`` where git is missing, ``where`` is in no repository, or the repository
    has no such commit.
    """
    label = f"{PREFIX}{name}"
    repository = repository_of(where)
    if repository is None:
        said = _said(_git(where, "rev-parse", "--show-toplevel"))
        raise ConfigError(
            f"{where} is in no git repository ({said})",
            where=label,
            hint="Give the command inside the repository, or name a file or folder.",
        )
    commit = _commit(name, where)
    if commit is None:
        raise ConfigError(
            "is no revision that git knows here",
            where=label,
            hint="A shallow clone has the newest commits only: git fetch gets the others.",
        )
    return Revision(repository, commit, name)


def check_out(revision: Revision, progress: Progress) -> Path:
    """The folder with the revision's files; made once for each commit. Hold :func:`kept` first.

    Submodules are not supported: their folders stay empty, which is said. Raises ``ConfigError``
    where git cannot give the files, or the cache cannot be written.
    """
    tree = revision.home / "tree"
    if missing := _submodules(revision):
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        progress(f"{revision.name}: submodules are not supported, so these stay empty: {names}")
    if tree.is_dir():
        return tree
    progress(f"checking {revision.name} ({revision.commit[:12]}) out into {tree}")
    with (
        workspace.whole(tree) as scratch,
        tempfile.TemporaryDirectory(prefix="pocketship-index-") as index,
    ):
        own = {"GIT_INDEX_FILE": str(Path(index) / "index"), "GIT_WORK_TREE": str(scratch)}
        _must(revision, own, "read-tree", revision.commit)
        _must(revision, own, "checkout-index", "--all", "--force", "--quiet")
    return tree


@contextlib.contextmanager
def kept(revision: Revision, progress: Progress) -> Iterator[Path]:
    """Hold what is kept of a commit against a second pocketship, which waits; give its folder."""
    home = revision.home
    try:
        home.mkdir(parents=True, exist_ok=True)
        stream = (home / workspace.LOCK).open("a")
    except OSError as error:
        raise ConfigError(
            f"cannot write here: {error.strerror}",
            where=str(home),
            hint="POCKETSHIP_CACHE names another folder for what can be made again.",
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"another pocketship makes {revision.commit[:12]}; waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield home


def inside(tree: Path, relative: Path) -> Path | None:
    """The file ``relative`` of a checked-out tree; None where it is none, or lies outside."""
    path = tree / relative
    try:
        within = path.resolve(strict=True).is_relative_to(tree.resolve())
    except (OSError, RuntimeError):  # RuntimeError: links that lead in a circle.
        return None
    return path if within and path.is_file() else None


def _commit(name: str, where: Path) -> str | None:
    if not name or "\0" in name:
        return None
    asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    found = _git(where, *asked).stdout.strip()
    return found if _COMMIT.fullmatch(found) else None


def _submodules(revision: Revision) -> list[str]:
    listing = _git(revision.repository, "ls-tree", "-r", "-z", revision.commit).stdout
    entries = (entry.partition("\t") for entry in listing.split("\0") if entry)
    return [path for kind, _, path in entries if kind.startswith("160000 ")]


def _must(revision: Revision, own: dict[str, str], *words: str) -> None:
    done = _git(revision.repository, *words, **own)
    if done.returncode != 0:
        raise ConfigError(
            f"git {words[0]} failed: {_said(done)}",
            where=f"{PREFIX}{revision.name}",
            hint="The repository may be damaged, or the disk full; git fsck looks at the first.",
        )


def _said(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return (lines or [f"exit code {done.returncode}"])[0][:200]


def _git(where: Path, *words: str, **own: str) -> subprocess.CompletedProcess[str]:
    folder = where if where.is_dir() else where.parent
    environment = {k: v for k, v in os.environ.items() if k not in _LEADS_ELSEWHERE}
    quiet = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    settings = ("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")
    argv = ["git", "-C", str(folder), *settings, *words]
    if "GIT_WORK_TREE" in own:
        # Naming a work tree needs the repository's own folder named beside it.
        found = _git(where, "rev-parse", "--absolute-git-dir").stdout.rstrip("\n")
        own = {**own, "GIT_DIR": found}
    try:
        return subprocess.run(
            argv,
            env={**environment, **quiet, **own},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(argv, 127, "", "git is not installed")
    except subprocess.TimeoutExpired:
        said = f"no answer in {_TIMEOUT_S:.0f} s"
        return subprocess.CompletedProcess(argv, 124, "", said)
