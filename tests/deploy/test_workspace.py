"""The run folder: nothing partial passes for whole, and the right run is gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy import config, workspace
from deploy.config import PipelineConfig
from deploy.errors import ConfigError
from deploy.files import sha256
from deploy.types import Artifact, Format, Placement
from tests.deploy.conftest import write_pipeline


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_pipeline(tmp_path)


@pytest.fixture
def loaded(file: Path) -> PipelineConfig:
    return config.load(file)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    with pytest.raises(RuntimeError), workspace.whole(folder) as scratch:
        (scratch / "half").touch()
        assert not folder.exists()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with workspace.whole(folder) as scratch:
        (scratch / "new").touch()
    with workspace.whole(folder) as scratch:
        (scratch / "newer").touch()
    assert [p.name for p in folder.iterdir()] == ["newer"]
    assert list(tmp_path.iterdir()) == [folder]


def test_what_a_killed_run_left_is_swept(file: Path, loaded: PipelineConfig) -> None:
    run = workspace.create(loaded, file)
    (run.root / ".compress.0123.partial/deep").mkdir(parents=True)
    run.artifacts.mkdir()
    (run.artifacts / ".fp32.pte.0123.tmp").touch()
    (run.artifacts / ".link").symlink_to("/etc")
    (run.artifacts / "fp32.pte").touch()
    with workspace.exclusive(run):
        left = {p.relative_to(run.root).as_posix() for p in run.root.rglob("*")}
    assert left == {workspace.LOCK, "run.json", "artifacts", "artifacts/fp32.pte"}
    assert Path("/etc").is_dir()


def test_one_pocketship_at_a_time(file: Path, loaded: PipelineConfig) -> None:
    run = workspace.create(loaded, file)
    with workspace.exclusive(run):
        (run.root / ".work.partial").mkdir()
        with (
            pytest.raises(ConfigError, match="another pocketship works"),
            workspace.exclusive(run),
        ):
            pytest.fail("two at once")
        assert (run.root / ".work.partial").is_dir(), "the other's work was swept away"
    with workspace.exclusive(run):
        pass


def test_runs_of_one_second_have_folders_of_their_own(file: Path, loaded: PipelineConfig) -> None:
    roots = {workspace.create(loaded, file).root for _ in range(12)}
    assert len(roots) == 12


def test_the_newest_run_of_the_same_pipeline_is_gone_on_with(
    file: Path, loaded: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert workspace.newest_like(loaded) is None
    older = workspace.create(loaded, file)
    parent = older.root.parent
    for name in ("20990101-000000-10", "20990101-000000-2", "20980101-000000"):
        older.root.rename(parent / name)
        older = workspace.create(loaded, file)
    newest = parent / "20990101-000000-10"
    # None of these is a run to go on with: another configuration, half a folder, not ours.
    other = loaded.model_copy(update={"seed": 9})
    workspace.create(other, file).root.rename(parent / "20990101-000001")
    (parent / "20990101-000002").mkdir()
    (parent / "20990101-000003").mkdir()
    (parent / "20990101-000003/run.json").write_text("{")
    (parent / "9-notes").mkdir()
    found = workspace.newest_like(loaded)
    assert found is not None
    assert found.root == newest
    # The same folder by another name.
    monkeypatch.chdir(file.parent)
    found = workspace.newest_like(loaded.model_copy(update={"reports": Path("reports")}))
    assert found is not None
    assert found.root == newest


def test_a_run_file_of_another_version_is_refused(file: Path, loaded: PipelineConfig) -> None:
    run = workspace.create(loaded, file)
    path = run.root / "run.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "schema_version": 2}))
    with pytest.raises(ConfigError, match=r"run\.json: cannot be read"):
        workspace.open_run(run.root)


def artifact(path: str, digest: str) -> Artifact:
    return Artifact(
        name="a",
        variant="fp32",
        format=Format.ONNX,
        path=path,
        sha256=digest,
        bytes=1,
        inputs=(),
        outputs=(),
        source_sha256="",
        tools={},
        placement=Placement(backend="cpu"),
    )


def test_damage_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    (folder / "package").mkdir(parents=True)
    (folder / "package/link").symlink_to("/etc/passwd")
    (folder / "a").write_text("a")
    (tmp_path / "outside").write_text("a")
    digest = sha256(folder / "a")
    assert workspace.damage(artifact("a", digest), folder) == ""
    assert workspace.damage(artifact("a", "0" * 64), folder).startswith("changed since")
    for path in ("b", "../outside", "..", ".", "", str(tmp_path / "outside")):
        assert workspace.damage(artifact(path, digest), folder), path
    assert "is a link" in workspace.damage(artifact("package", digest), folder)
