"""What a word comes to: runs, folders, bare files, reports, and what is none of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from deploy.errors import ConfigError, ExportError, PocketshipError
from deploy.gating import sides
from deploy.gating.sides import Version, Wish
from deploy.types import Artifact, Format
from tests.deploy.conftest import FinishedRun, hashes


def find(name: str | Path, here: Path, lines: list[str] | None = None) -> Version:
    say = [] if lines is None else lines
    return sides.find(Wish(label="base", name=str(name), here=here), say.append)


def test_a_run_folder_brings_files_inputs_outputs_and_parity(
    finished: FinishedRun, tmp_path: Path
) -> None:
    found = find(finished.root, tmp_path)
    assert found.side.kind == "run"
    assert found.side.run_id == finished.root.name
    assert {a.name: a.sha256 for a in found.side.artifacts} == hashes(finished.root)
    assert {row.artifact for row in found.parity} == set(found.files)
    for name, path in found.files.items():
        assert path.exists()
        assert found.inputs[name].stat().st_size == 4 * 64
        assert found.outputs[name][0].shape == (1, 4)
    assert found.cases
    # Relative names begin at the folder where the command was given.
    assert find(finished.root.name, finished.root.parent).side.run_id == finished.root.name


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("run.json", "cannot be read"),
        ("artifacts", "holds no artifacts"),
        ("artifacts/fp32.onnx", "is missing"),
        ("changed", "changed since it was exported"),
        ("verify", "not verified as it is now"),
        ("report.json", "cut off"),
    ],
)
def test_a_run_folder_that_is_cut_off_says_what_is_missing(
    finished: FinishedRun, tmp_path: Path, damage: str, says: str
) -> None:
    root = finished.copy(tmp_path)
    if damage in ("run.json", "report.json"):
        whole = (root / damage).read_text()
        (root / damage).write_text(whole[: len(whole) // 2])
    elif damage == "changed":
        with (root / "artifacts/int8.onnx").open("ab") as stream:
            stream.write(b"x")
    elif (root / damage).is_dir():
        shutil.rmtree(root / damage)
    else:
        (root / damage).unlink()
    with pytest.raises(PocketshipError, match=says) as raised:
        find(root, tmp_path)
    assert raised.value.hint
    assert "\n" not in str(raised.value)


def test_a_run_whose_files_are_gone_keeps_its_figures(
    finished: FinishedRun, tmp_path: Path
) -> None:
    (tmp_path / "kept").mkdir()
    shutil.copy(finished.root / "report.json", tmp_path / "kept")
    for name in ("kept", "kept/report.json"):
        found = find(name, tmp_path)
        assert not found.files
        assert {case.device for case in found.cases} == {"host"}
        assert {a.name: a.sha256 for a in found.side.artifacts} == hashes(finished.root)


def test_a_folder_of_artifacts_takes_manifests_and_asks_the_runner_for_bare_files(
    finished: FinishedRun, tmp_path: Path
) -> None:
    there = finished.root / "artifacts"
    names = ("fp32.executorch.manifest.json", "fp32.pte", "int8.pte", "int8.ort", "fp32.onnx")
    for name in names:
        shutil.copy(there / name, tmp_path)
    lines: list[str] = []
    found = find(tmp_path, tmp_path, lines)
    by_name = {a.name: a for a in found.side.artifacts}
    assert set(by_name) == {"fp32.executorch", "int8.executorch", "int8.ort", "fp32.onnx"}
    for name, made in by_name.items():
        told = hashes(finished.root)[name]
        assert made.sha256 == told
        assert [(s.dtype, s.shape) for s in made.inputs] == [("float32", (1, 1, 8, 8))]
        assert [(s.dtype, s.shape) for s in made.outputs] == [("float32", (1, 4))]
    assert by_name["fp32.executorch"].placement.partitions is not None
    bare = by_name["int8.ort"].placement
    assert bare.partitions is None
    assert "without a manifest" in bare.reason
    # A .pte says itself what memory it plans; of its program nothing is known.
    manifest = there / "int8.executorch.manifest.json"
    noted = Artifact.model_validate_json(manifest.read_text())
    assert noted.planned_bytes
    assert by_name["int8.executorch"].figure("planned_bytes") == noted.figure("planned_bytes")
    assert noted.macs == by_name["fp32.executorch"].macs
    assert by_name["int8.executorch"].macs is None
    assert sum("has no manifest" in line for line in lines) == 3


def test_a_single_model_file_keeps_the_manifest_beside_it(
    finished: FinishedRun, tmp_path: Path
) -> None:
    there = finished.root / "artifacts"
    found = find(there / "int8.pte", tmp_path)
    (made,) = found.side.artifacts
    assert (made.name, made.format) == ("int8.executorch", Format.EXECUTORCH)
    assert made.recipe
    # A file that a manifest does not fit any more is a bare one.
    shutil.copy(there / "int8.executorch.manifest.json", tmp_path)
    shutil.copy(there / "fp32.pte", tmp_path / "int8.pte")
    (other,) = find("int8.pte", tmp_path).side.artifacts
    assert other.sha256 == hashes(finished.root)["fp32.executorch"]
    assert not other.recipe


def test_a_model_that_no_runtime_loads_is_an_export_error(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nonsense")
    with pytest.raises(ExportError, match="model"):
        find("model.onnx", tmp_path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nonsense", "is not there"),
        ("empty", "holds no artifacts"),
        ("notes.txt", "no kind that can be compared"),
        ("git:main", "in no git repository"),
        ("broken.yaml", "version"),
        ("other.json", "schema_version is None"),
    ],
)
def test_a_word_that_is_nothing_is_refused(
    tmp_path: Path, name: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "broken.yaml").write_text("name: x\n")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ConfigError, match=says):
        find(name, tmp_path)
