"""Read back by a parser that knows nothing of how it was written, held to Jenkins' schema."""

from collections import Counter
from xml.etree import ElementTree

import pytest

from deploy.report.formats.junit import junit
from deploy.types import Outcome
from tests.deploy.report import factory, gate_factory
from tests.deploy.report.formats import hostile

# The attributes that junit-10.xsd of Jenkins' xUnit plugin allows, and which of them it demands.
SCHEMA = {
    "testsuites": ({"testsuite"}, {"name", "time", "tests", "failures", "errors"}, set()),
    "testsuite": (
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
        {"name", "tests", "failures", "errors", "group", "time", "skipped", "timestamp"}
        | {"hostname", "id", "package", "file", "log", "url"},
        {"name", "tests", "failures", "errors"},
    ),
    "properties": ({"property"}, set(), set()),
    "property": (set(), {"name", "value"}, {"name", "value"}),
    "testcase": (
        {"skipped", "error", "failure", "system-out", "system-err"},
        {"name", "time", "classname", "group"},
        {"name"},
    ),
    "failure": (set(), {"type", "message"}, set()),
    "error": (set(), {"type", "message"}, set()),
    "skipped": (set(), {"type", "message"}, set()),
    "system-out": (set(), set(), set()),
}


def read(report) -> ElementTree.Element:
    root = ElementTree.fromstring(junit(report).encode("utf-8"))
    for element in root.iter():
        children, allowed, demanded = SCHEMA[element.tag]
        assert {child.tag for child in element} <= children
        assert demanded <= set(element.attrib) <= allowed
    return root


def results(root) -> dict[tuple[str, str], str]:
    return {
        (case.get("classname"), case.get("name")): next(
            (child.tag for child in case if child.tag != "system-out"), "passed"
        )
        for case in root.iter("testcase")
    }


def test_a_suite_a_device_and_a_case_a_verdict():
    root = read(gate_factory.gate_report())
    assert [suite.get("name") for suite in root] == ["emulated-arm64", "files", "host"]
    assert results(root) == {
        ("int8.executorch@emulated-arm64/t1", "instructions"): "failure",
        ("int8.executorch@emulated-arm64/t1", "load_instructions"): "passed",
        ("int8.executorch", "bytes"): "passed",
        ("int8.executorch@host/t1", "latency_ms"): "failure",
        ("int8.executorch@host/t1", "load_ms"): "skipped",
        ("int8.ort@host/t1", "latency_ms"): "error",
    }


@pytest.mark.parametrize("report", [factory.report(), gate_factory.gate_report()])
def test_the_counts_are_those_of_the_cases(report):
    root = read(report)
    for element in (root, *root):
        found = Counter(child.tag for case in element.iter("testcase") for child in case)
        assert int(element.get("tests")) == len(list(element.iter("testcase")))
        assert int(element.get("failures")) == found["failure"]
        assert int(element.get("errors")) == found["error"]
        assert int(element.get("skipped", found["skipped"])) == found["skipped"]
    assert int(root.get("tests")) == len(report.verdicts)


def test_a_device_that_was_not_there_has_a_suite_that_says_so():
    suites = {suite.get("name"): suite for suite in read(factory.report())}
    values = {p.get("name"): p.get("value") for p in suites["pixel-8"].iter("property")}
    assert values["Status"] == "not_run: no phone of this kind is attached"
    assert values["Tier"] == "device"
    assert suites["pixel-8"].get("tests") == "0"


def test_a_failure_has_its_evidence():
    root = read(gate_factory.gate_report())
    texts = [found.text for found in root.iter("failure")]
    assert any("ratios, pair by pair: 1.07 1.08 1.09 1.08 1.075 1.085" in text for text in texts)
    messages = [found.get("message") for found in root.iter("failure")]
    assert messages[0].startswith(
        "REGRESSED: 84,664,336 → 155,330,255 instructions (+83.5 %, emulator)"
    )


def test_two_verdicts_on_one_figure_have_names_of_their_own():
    twice = gate_factory.verdict(source="pipeline")
    other = gate_factory.verdict(Outcome.REGRESSED, source="profile phone")
    report = gate_factory.gate_report(verdicts=(twice, twice, other, twice))
    assert results(read(report)) == {
        (gate_factory.CASE, "instructions"): "failure",
        (gate_factory.CASE, "instructions (pipeline)"): "passed",
        (gate_factory.CASE, "instructions (pipeline) #2"): "passed",
        (gate_factory.CASE, "instructions (pipeline) #3"): "passed",
    }


def test_nothing_judged_is_a_document_without_cases():
    root = read(gate_factory.gate_report(verdicts=(), device=None))
    assert root.get("tests") == "0"
    assert list(root) == []


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_any_text_gives_xml_that_a_parser_takes(text):
    root = read(hostile.gate_report(text))
    assert int(root.get("tests")) == len(list(root.iter("testcase"))) == 10
    assert len(results(root)) == 10
    assert root.get("failures") == "2"
