"""Pipeline files: what is wrong with one is said in one line with its place."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy import config, workspace
from deploy.config import PipelineConfig
from deploy.errors import ConfigError
from tests.deploy.conftest import PIPELINE, ROOT

TEMPLATE = ROOT / "deploy/pipeline_template.yaml"
MINIMAL = """\
version: 1
name: tiny
task:
  callable: mine:task
targets:
  - format: executorch
"""


def complaint(path: Path, text: str | bytes) -> str:
    file = path / "pipeline.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        config.load(file)
    line = str(caught.value)
    assert "\n" not in line
    assert str(file) in line
    return line.replace(str(file), "FILE")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MINIMAL + "devcies: [host]\n", "FILE:7: devcies: unknown key; did you mean 'devices'?"),
        (
            MINIMAL + "bench:\n  thread: [1]\n",
            "FILE:8: bench.thread: unknown key; did you mean 'threads'?",
        ),
        (MINIMAL + "    opset: 7\n", "FILE:7: targets[0].opset: unknown key"),
        (MINIMAL + "seed: lots\n", "FILE:7: seed: input should be a valid integer"),
        (MINIMAL + "seed: -1\n", "FILE:7: seed: input should be greater than or equal to 0"),
        (MINIMAL.replace("executorch", "tflite"), "FILE:6: targets[0]"),
        (MINIMAL.replace("version: 1", "version: 2"), "FILE:1: version: input should be 1 (got 2)"),
        (MINIMAL.replace("tiny", "../up"), "FILE:2: name: string should match pattern"),
        (MINIMAL.replace("mine:task", "mine"), "FILE:4: task.callable: is not of the form"),
        (MINIMAL.replace("name: tiny\n", ""), "name: field required"),
        (MINIMAL + "bench: {threads: []}\n", "FILE:7: bench.threads"),
        (MINIMAL + "bench: {threads: [1, 0]}\n", "FILE:7: bench.threads[1]"),
        (MINIMAL + "bench: {threads: [2, 2]}\n", "bench.threads: a number appears twice"),
        (MINIMAL + "devices: [host, host]\n", "devices: a profile appears twice"),
        (MINIMAL + "verify: {int8: {min_sqnr_db: 3}}\n", "verify.int8: no such variant"),
        (MINIMAL + "baseline: null\n", "nothing to export"),
        (MINIMAL + "seed: 1\nseed: 2\n", "FILE:8: the key 'seed' appears twice"),
        (
            MINIMAL.replace("callable: mine:task", "arguments: {}"),
            "task: give either 'callable' or 'program'",
        ),
        (
            MINIMAL + "recipe:\n  name: fp32\n  steps: [{kind: quantize}]\n",
            "recipe.name: 'fp32' is the baseline's name too",
        ),
        (MINIMAL + "recipe:\n  steps: [{kind: prnue}]\n", "FILE:8: recipe.steps[0]"),
        (
            MINIMAL + "budgets: [{subject: fp32.onnx, metric: bytes, max: 1}]\n",
            "budgets[0]: 'fp32.onnx' is no subject of bytes; there are: fp32.executorch",
        ),
        (
            MINIMAL + "budgets: [{subject: a, metric: speed, max: 1}]\n",
            "FILE:7: budgets[0]: no metric 'speed'",
        ),
        ("a: [1, 2\nb: 3", "is not valid YAML"),
        ("\tversion: 1", "FILE:1: is not valid YAML"),
        ("version: 1\n\x07", "is not valid YAML"),
        ("- 1\n", "is not a mapping"),
        ("", "is not a mapping"),
        (b"name: \xff\xfe", "is not UTF-8 text"),
        (MINIMAL + "x: &x [*x]\n", "FILE:7: YAML aliases (&, *) are not allowed"),
        (MINIMAL + "x: 2024-13-45\n", "holds an impossible value: month must be in 1..12"),
        ("[" * 5000 + "]" * 5000, "is nested too deep"),
        (
            MINIMAL.replace("callable: mine:task", "callable: mine:task\n  arguments: {a: .nan}"),
            "FILE:5: .nan is no finite number",
        ),
        (
            MINIMAL.replace(
                "callable: mine:task", "callable: mine:task\n  arguments: {a: 1.0e+999}"
            ),
            "holds a number that is not finite",
        ),
        (
            MINIMAL.replace(
                "callable: mine:task", "callable: mine:task\n  arguments: {day: 2024-01-02}"
            ),
            "FILE:5: task.arguments.day",
        ),
    ],
)
def test_a_wrong_file_is_one_line_with_its_place(
    tmp_path: Path, text: str | bytes, expected: str
) -> None:
    assert expected in complaint(tmp_path, text)


def test_further_problems_are_counted(tmp_path: Path) -> None:
    line = complaint(tmp_path, MINIMAL + "one: 1\ntwo: 2\nthree: 3\n")
    assert line.endswith("2 more problem(s) in this file.")


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file\. Write one: pocketship init"):
        config.load(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config.load(tmp_path)


def test_the_smallest_file_has_the_documented_defaults(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(MINIMAL)
    loaded = config.load(tmp_path / "p.yaml")
    assert loaded.variants == ("fp32",)
    assert (loaded.bench.preset, loaded.bench.threads) == ("quick", (1,))
    assert (loaded.seed, loaded.devices, loaded.reports) == (0, (), Path("reports"))


def test_without_a_baseline_only_the_compressed_variant_is_exported(tmp_path: Path) -> None:
    recipe = "baseline: null\nrecipe: {name: int8, steps: [{kind: quantize}]}\n"
    (tmp_path / "p.yaml").write_text(MINIMAL + recipe)
    assert config.load(tmp_path / "p.yaml").variants == ("int8",)


@pytest.mark.parametrize("path", [TEMPLATE, *sorted((ROOT / "examples").glob("*.yaml"))], ids=str)
def test_files_that_we_ship_are_right(path: Path) -> None:
    config.load(path)
    jsonschema.validate(yaml.safe_load(path.read_text()), json.loads(config.json_schema()))


def test_the_published_schema_is_current() -> None:
    """Written by: pocketship schema > docs/pipeline.schema.json"""
    published = (ROOT / "docs/pipeline.schema.json").read_text(encoding="utf-8")
    assert published == config.json_schema()


def test_the_schema_refuses_what_the_loader_refuses() -> None:
    schema = json.loads(config.json_schema())
    wrong = {**PIPELINE, "devcies": []}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_every_key_is_documented() -> None:
    pages = [ROOT / "docs/pipeline-file.md", *sorted((ROOT / "docs/compress").glob("*.md"))]
    page = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    schema = json.loads(config.json_schema())
    keys = set(schema["properties"])
    for part in schema["$defs"].values():
        keys |= set(part.get("properties", {}))
    assert {key for key in keys if f"`{key}`" not in page} == set()


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key, item in value.items():
            found += _places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += _places(item, (*path, index))
    return found


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.binary(max_size=4)
    | st.sampled_from(["host", "quantize", "onnx", "*", "fp32", "a:b", "pixel-8", "./x.yaml"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.integers(), inner)
    ),
    max_leaves=6,
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(
        st.tuples(st.sampled_from(_places(PIPELINE)), _VALUES, st.sampled_from("srd")),
        min_size=1,
        max_size=3,
    )
)
def test_any_mapping_gives_a_configuration_or_one_line(
    tmp_path: Path, changes: list[tuple[tuple[Any, ...], Any, str]]
) -> None:
    data = copy.deepcopy(PIPELINE)
    for place, value, how in changes:
        node: Any = data
        try:
            for key in place[:-1]:
                node = node[key]
            if how == "s":
                node[place[-1]] = value
            elif how == "r":
                node[str(value)] = node.pop(place[-1])
            else:
                del node[place[-1]]
        except (KeyError, IndexError, TypeError, AttributeError):
            continue  # An earlier change took this place away.
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    try:
        loaded = config.load(file)
    except ConfigError as error:
        assert "\n" not in str(error)
        assert str(file) in str(error)
        return
    # What is accepted survives run.json unchanged: `--resume` finds its run by that.
    wanted = workspace.asked(loaded, file, "now")
    again = workspace.Asked.model_validate_json(wanted.model_dump_json())
    assert again.config == loaded
    assert isinstance(loaded, PipelineConfig)
