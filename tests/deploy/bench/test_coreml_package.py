"""A package's features and the iOS that it needs, read without coremltools."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.bench.coreml_package import read_package
from tests.deploy.coreml_packages import field, model, write_package

names = st.lists(st.text(min_size=1, max_size=300), min_size=1, max_size=3)


@settings(max_examples=40)
@given(inputs=names, outputs=names, version=st.integers(0, 2**40))
def test_names_keep_their_order(
    tmp_path_factory: pytest.TempPathFactory, inputs: list[str], outputs: list[str], version: int
) -> None:
    path = tmp_path_factory.mktemp("p") / "m.mlpackage"
    found = read_package(write_package(path, model(inputs, outputs, version)))
    assert (list(found.inputs), list(found.outputs)) == (inputs, outputs)
    assert found.needed_ios == {7: (16,), 8: (17,), 9: (18,)}.get(version, ())


@settings(max_examples=40)
@given(data=st.binary(max_size=60), cut=st.integers(0, 400))
def test_no_content_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cut: int
) -> None:
    whole = model(["x"], ["y"])
    path = tmp_path_factory.mktemp("p")
    for number, content in enumerate((data, whole[:cut] + data)):
        package = write_package(path / f"{number}.mlpackage", content)
        try:
            found = read_package(package)
        except ValueError as error:
            assert str(error).startswith("its model")
        else:
            assert found.inputs
            assert found.outputs


@pytest.mark.parametrize("place", ["../../outside", "/etc/passwd", 7, None])
def test_a_root_model_outside_is_refused(tmp_path: Path, place: object) -> None:
    path = write_package(tmp_path / "m.mlpackage", model(["x"], ["y"]))
    said = json.loads((path / "Manifest.json").read_text())
    said["itemInfoEntries"]["A"]["path"] = place
    (path / "Manifest.json").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=r"lies outside|names no root model"):
        read_package(path)


def test_a_model_without_features_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no inputs or no outputs"):
        read_package(write_package(tmp_path / "m.mlpackage", field(1, 9)))


@pytest.mark.slow
def test_it_agrees_with_coremltools(tmp_path: Path) -> None:
    """In a process of its own: importing coremltools takes many seconds."""
    code = """
import sys, torch, coremltools as ct
class M(torch.nn.Module):
    def forward(self, x, ids):
        return ids + 1, x * 2 + ids.float()
program = torch.export.export(M(), (torch.zeros(1, 5), torch.zeros(1, 5, dtype=torch.int64)))
m = ct.convert(program.run_decompositions({}), minimum_deployment_target=ct.target.iOS17,
               skip_model_load=True)
m.save(sys.argv[1])
d = m.get_spec().description
print([f.name for f in d.input], [f.name for f in d.output])
"""
    path = tmp_path / "m.mlpackage"
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    found = read_package(path)
    assert done.stdout.splitlines()[-1] == f"{list(found.inputs)} {list(found.outputs)}"
    assert found.needed_ios == (17,)
