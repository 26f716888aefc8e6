"""JSON Schemas of ``report.json`` and ``gate.json``, for editors and whoever reads them elsewhere.

``pocketship schema --of report > docs/report.schema.json`` publishes the one anew, ``pocketship
schema --of gate > docs/gate.schema.json`` the other.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from deploy.types import GateReport, Model, Report

Document = Literal["report", "gate"]

_DOCUMENTS: dict[Document, tuple[type[Model], str]] = {
    "report": (Report, "pocketship report"),
    "gate": (GateReport, "pocketship gate report"),
}


def schema(document: Document) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of ``report.json`` or ``gate.json``, from the types themselves.

    It lets pass what :mod:`deploy.report.store` reads of today's schema version; what that holds
    beside it, the seal above all, no schema can say.
    """
    kind, title = _DOCUMENTS[document]
    content = kind.model_json_schema()
    content["title"] = title
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **content}


def schema_text(document: Document) -> str:
    """The schema as it stands in ``docs/<document>.schema.json``."""
    return json.dumps(schema(document), indent=2) + "\n"
