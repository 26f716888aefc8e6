"""A git revision as a folder: what is in it, what is refused, and that the checkout stays."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from deploy.errors import ConfigError
from deploy.gating import revisions


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=T", "-c", "user.email=t@example.org", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POCKETSHIP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "repo it's $(touch pwned)"
    (folder / "sub").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / "pipeline.yaml").write_text("first\n")
    (folder / "sub" / "left_out.py").write_text("x = 1\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / ".gitattributes").write_text("sub export-ignore\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one")
    git(folder, "tag", "v1")
    (folder / "pipeline.yaml").write_text("second\n")
    git(folder, "commit", "-qam", "two")
    return folder


def checked_out(name: str, where: Path, lines: list[str] | None = None) -> Path:
    revision = revisions.find(name, where)
    say = [] if lines is None else lines
    with revisions.kept(revision, say.append):
        return revisions.check_out(revision, say.append)


def test_a_revision_is_its_files_whatever_archives_leave_out(repository: Path) -> None:
    tree = checked_out("v1", repository / "sub")
    assert (tree / "pipeline.yaml").read_text() == "first\n"
    assert (tree / "sub" / "left_out.py").read_text() == "x = 1\n"
    assert os.access(tree / "run.sh", os.X_OK)
    assert not (tree / ".git").exists()
    assert checked_out("main", repository) != tree


def test_it_is_made_once_for_each_commit(repository: Path) -> None:
    lines: list[str] = []
    tree = checked_out("v1", repository, lines)
    (tree / "mark").touch()
    assert checked_out("main~1", repository, lines) == tree
    assert (tree / "mark").exists()
    assert sum("checking" in line for line in lines) == 1


def test_the_users_checkout_stays_as_it_is(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repository / "pipeline.yaml").write_text("changed\n")
    (repository / "staged").write_text("staged\n")
    git(repository, "add", "staged")
    (repository / "new").touch()
    hook = repository / ".git/hooks/post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch '{repository}/hooked'\n".replace("it's", "it'\\''s"))
    hook.chmod(0o755)
    before = git(repository, "status", "--porcelain"), git(repository, "worktree", "list")
    # As inside a hook of git's: these must not lead us elsewhere.
    monkeypatch.setenv("GIT_INDEX_FILE", str(repository / "nonsense"))
    monkeypatch.setenv("GIT_DIR", str(repository / "nonsense"))
    checked_out("v1", repository)
    monkeypatch.delenv("GIT_INDEX_FILE")
    monkeypatch.delenv("GIT_DIR")
    assert (git(repository, "status", "--porcelain"), git(repository, "worktree", "list")) == before
    assert (repository / "pipeline.yaml").read_text() == "changed\n"
    assert not (repository / "hooked").exists()


@pytest.mark.parametrize("name", ["", "nonsense", "--help", "-1", "main:pipeline.yaml", "a\0b"])
def test_what_is_no_commit_is_refused_in_one_line(repository: Path, name: str) -> None:
    assert not revisions.known(name, repository)
    with pytest.raises(ConfigError, match="no revision that git knows") as raised:
        revisions.find(name, repository)
    assert raised.value.hint


def test_a_folder_without_repository_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(ConfigError, match="in no git repository"):
        revisions.find("main", tmp_path)


def test_without_git_it_is_said(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigError, match="git is not installed"):
        revisions.find("main", repository)


def test_submodules_are_named_and_stay_empty(repository: Path, tmp_path: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{commit},third/party")
    git(repository, "commit", "-qm", "with a submodule")
    lines: list[str] = []
    tree = checked_out("HEAD", repository, lines)
    assert any("submodules are not supported" in line and "third/party" in line for line in lines)
    assert not list((tree / "third/party").glob("*"))


def test_only_files_inside_the_tree_count(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tmp_path / "outside.yaml").touch()
    (tree / "inside.yaml").touch()
    (tree / "link.yaml").symlink_to(tree / "inside.yaml")
    (tree / "escape.yaml").symlink_to(tmp_path / "outside.yaml")
    (tree / "circle.yaml").symlink_to(tree / "circle.yaml")
    good = {"inside.yaml", "link.yaml"}
    for name in (*good, "escape.yaml", "circle.yaml", "missing.yaml", "../outside.yaml", "."):
        assert (revisions.inside(tree, Path(name)) is not None) == (name in good), name
