import json
from pathlib import Path

import jsonschema
import pytest

from deploy.report import store
from deploy.report.schema import schema, schema_text
from tests.deploy.report import factory
from tests.deploy.report.gate_factory import gate_report

DOCS = Path(__file__).parents[3] / "docs"
MADE = {"report": factory.report, "gate": gate_report}

both = pytest.mark.parametrize("document", MADE)


@both
def test_the_published_schema_is_current(document):
    """Written by: pocketship schema --of DOCUMENT > docs/DOCUMENT.schema.json"""
    assert (DOCS / f"{document}.schema.json").read_text() == schema_text(document)


@both
def test_what_is_written_fits_the_schema_and_a_tier_that_is_none_does_not(document, tmp_path):
    written = json.loads(store.write(MADE[document](), tmp_path).read_text())
    checker = jsonschema.Draft202012Validator(schema(document))
    checker.check_schema(schema(document))
    checker.validate(written)
    (case, *_) = written["cases"] if document == "report" else [written["sessions"][0]["case"]]
    case["measurements"][0]["tier"] = "phone"
    with pytest.raises(jsonschema.ValidationError):
        checker.validate(written)


def test_the_one_document_does_not_pass_for_the_other(tmp_path):
    gate = json.loads(store.write(gate_report(), tmp_path).read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(gate, schema("report"))
