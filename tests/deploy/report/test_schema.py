import json
from pathlib import Path

import jsonschema
import pytest

from deploy.report import store
from deploy.report.schema import report_schema, schema_text
from tests.deploy.report import factory

PUBLISHED = Path(__file__).parents[3] / "docs" / "report.schema.json"


def test_the_published_schema_is_current():
    assert PUBLISHED.read_text() == schema_text(), (
        "run: python -m deploy.report.schema > docs/report.schema.json"
    )


def test_a_written_report_fits_the_schema(tmp_path):
    written = json.loads(store.write(factory.report(), tmp_path).read_text())
    checker = jsonschema.Draft202012Validator(report_schema())
    checker.check_schema(report_schema())
    checker.validate(written)
    written["cases"][0]["measurements"][0]["tier"] = "phone"
    with pytest.raises(jsonschema.ValidationError):
        checker.validate(written)
