"""The JSON Schema of ``report.json``, for editors and for whoever reads reports elsewhere.

``python -m deploy.report.schema > docs/report.schema.json`` publishes it anew.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from deploy.types import Report


def report_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a report, from the types themselves."""
    schema = Report.model_json_schema()
    schema["title"] = "pocketship report"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def schema_text() -> str:
    """The schema as it stands in ``docs/report.schema.json``."""
    return json.dumps(report_schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
