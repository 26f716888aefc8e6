"""Which artifacts meet, what is said of the others, and that both sides run on the same inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploy.errors import ConfigError
from deploy.files import sha256
from deploy.gating.bare import UNKNOWN_PLACEMENT
from deploy.gating.meeting import Filter, jobs, meet, random_inputs
from deploy.gating.sides import Version
from deploy.types import Artifact, Format, Placement, Side, TensorSpec

EVERYTHING = Filter()
FLOATS = (TensorSpec(name="x", dtype="float32", shape=(2, 3)),)


def artifact(name: str, content: str = "a", **changes: object) -> Artifact:
    variant, _, format_ = name.rpartition(".")
    made = Artifact(
        name=name,
        variant=variant,
        format=Format(format_),
        path=f"{variant}.bin",
        sha256=content * 64,
        bytes=100,
        inputs=FLOATS,
        outputs=FLOATS,
        source_sha256="",
        tools={},
        placement=Placement(backend="XNNPACK", partitions=1, delegated_share=1.0),
    )
    return made.model_copy(update=changes)


def version(*artifacts: Artifact, kind: str = "run", inputs: Path | None = None) -> Version:
    side = Side.model_validate({"label": "there", "kind": kind, "artifacts": artifacts})
    return Version(
        side=side,
        files={a.name: Path(a.path) for a in artifacts},
        inputs={a.name: inputs for a in artifacts} if inputs else {},
        outputs={a.name: [np.zeros((2, 3))] for a in artifacts} if inputs else {},
    )


def test_artifacts_of_the_same_name_meet_in_heads_order() -> None:
    base = version(artifact("a.onnx"), artifact("b.onnx"), artifact("gone.onnx"))
    head = version(artifact("new.onnx"), artifact("b.onnx"), artifact("a.onnx"))
    assert meet(base, head, EVERYTHING).names == ("b.onnx", "a.onnx")


def test_variants_and_formats_narrow_both_sides() -> None:
    both = version(artifact("a.onnx"), artifact("a.executorch"), artifact("b.onnx"))
    assert meet(both, both, Filter(variants=("a",))).names == ("a.onnx", "a.executorch")
    narrowed = meet(both, both, Filter(("a",), (Format.ONNX,)))
    assert narrowed.names == ("a.onnx",)
    # What is left out is in no report either: nothing is judged of it.
    assert [a.name for a in narrowed.base.side.artifacts] == ["a.onnx"]
    assert [a.name for a in narrowed.head.side.artifacts] == ["a.onnx"]


@pytest.mark.parametrize("wanted", [EVERYTHING, Filter(variants=("nonsense",))])
def test_nothing_in_common_is_refused_with_both_lists(wanted: Filter) -> None:
    with pytest.raises(ConfigError, match="no artifact in common") as raised:
        meet(version(artifact("a.onnx")), version(artifact("b.onnx")), wanted)
    assert raised.value.exit_code == 2
    if wanted is EVERYTHING:
        assert "base has a.onnx; head has b.onnx" in str(raised.value)


def test_two_model_files_meet_whatever_they_are_called() -> None:
    base = version(artifact("old.onnx", "b"), kind="artifacts")
    meeting = meet(base, version(artifact("new.onnx"), kind="artifacts"), EVERYTHING)
    assert meeting.names == ("new.onnx",)
    assert meeting.base.artifact("new.onnx").sha256 == "b" * 64
    assert meeting.base.files == {"new.onnx": Path("old.bin")}
    with pytest.raises(ConfigError, match="in common"):
        meet(base, version(artifact("new.ort"), kind="artifacts"), EVERYTHING)


def test_the_same_file_on_both_sides_is_said() -> None:
    base = version(artifact("a.onnx"), artifact("b.onnx", "c"))
    head = version(artifact("a.onnx"), artifact("b.onnx", "d"))
    assert meet(base, head, EVERYTHING).same == ("a.onnx",)
    assert any(n.startswith("a.onnx: the same file") for n in meet(base, head, EVERYTHING).notes())
    assert any(
        n.startswith("base and head: the same") for n in meet(base, base, EVERYTHING).notes()
    )


def test_an_unknown_placement_of_one_side_is_none_of_either() -> None:
    bare = artifact("a.onnx", "b", placement=UNKNOWN_PLACEMENT)
    known = artifact("a.onnx").model_copy(update={"macs": 5, "planned_bytes": 64})
    meeting = meet(version(known), version(bare), EVERYTHING)
    base = meeting.base.artifact("a.onnx")
    assert (base.placement.partitions, base.macs) == (None, None)
    assert base.planned_bytes == 64  # A file says that itself.
    assert any("without a manifest" in note for note in meeting.notes())


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_both_sides_run_on_heads_inputs_where_they_take_the_same(tmp_path: Path) -> None:
    ours, theirs = written(tmp_path / "h", b"head"), written(tmp_path / "b", b"base")
    meeting = meet(
        version(artifact("a.onnx", "b"), inputs=theirs),
        version(artifact("a.onnx"), inputs=ours),
        EVERYTHING,
    )
    base, head = jobs(meeting, "a.onnx", 2, tmp_path)
    assert base.inputs == head.inputs == ours
    assert base.threads == head.threads == 2
    # Base's program never computed these inputs, so its outputs are no reference here.
    assert base.reference is None
    assert head.reference is not None
    same = meet(
        version(artifact("a.onnx", "b"), inputs=written(tmp_path / "c", b"head")),
        version(artifact("a.onnx"), inputs=ours),
        EVERYTHING,
    )
    assert jobs(same, "a.onnx", 1, tmp_path)[0].reference is not None


def test_models_that_take_other_inputs_get_their_own(tmp_path: Path) -> None:
    wider = (TensorSpec(name="x", dtype="float32", shape=(2, 4)),)
    ours = written(tmp_path / "h", b"head")
    base = version(artifact("a.onnx", "b", inputs=wider))
    meeting = meet(base, version(artifact("a.onnx"), inputs=ours), EVERYTHING)
    base_job, head_job = jobs(meeting, "a.onnx", 1, tmp_path)
    assert head_job.inputs == ours
    assert base_job.inputs.stat().st_size == 2 * 4 * 4


def test_random_inputs_fit_the_specs_and_repeat(tmp_path: Path) -> None:
    specs = (*FLOATS, TensorSpec(name="i", dtype="int64", shape=(3,)))
    path = random_inputs(specs, tmp_path)
    content = path.read_bytes()
    assert len(content) == 6 * 4 + 3 * 8
    floats = np.frombuffer(content[:24], dtype=np.float32)
    assert np.isfinite(floats).all()
    assert len(set(floats)) == 6
    assert content[24:] == bytes(24)
    digest = sha256(path)
    path.unlink()
    assert sha256(random_inputs(specs, tmp_path)) == digest


def test_an_element_type_that_nobody_knows_is_named(tmp_path: Path) -> None:
    strange = TensorSpec(name="s", dtype="string", shape=(1,))
    with pytest.raises(ConfigError, match="no inputs of string"):
        random_inputs((strange,), tmp_path)
