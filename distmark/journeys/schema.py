"""The JSON Schema of journey.yaml, for editors that complete and check while one writes."""

from typing import Any

from pydantic import BaseModel

from distmark.journeys.definition import JourneyDefinition
from distmark.journeys.fields import REFERENCE
from distmark.journeys.steps import KINDS
from distmark.journeys.steps.branch import Arm, Condition, SplitTest

SCHEMA_ID = "https://distmark.example/schemas/journey.json"
DEFS = "#/$defs/{model}"


def json_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12) of a journey's definition; `Step` is one of the kinds of the registry."""
    schema = JourneyDefinition.model_json_schema(by_alias=True, ref_template=DEFS)
    defs: dict[str, Any] = schema.setdefault("$defs", {})
    models: list[type[BaseModel]] = [*(kind.model for kind in KINDS.values()), Arm, Condition, SplitTest]
    for model in models:
        described = model.model_json_schema(by_alias=True, ref_template=DEFS)
        defs.update(described.pop("$defs", {}))
        defs[model.__name__] = described
    for key, kind in KINDS.items():
        defs[kind.model.__name__]["required"] = sorted({"id", key, *defs[kind.model.__name__].get("required", [])})
    defs["Step"] = {
        "description": "One step; its kind is the field that stands beside `id`.",
        "anyOf": [_ref(kind.model.__name__) for kind in KINDS.values()],
    }
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **schema, "title": "A distmark journey"}
    return {key: _referring(value) for key, value in whole.items()}


def _referring(value: Any) -> Any:
    if isinstance(value, dict):
        return _ref(value[REFERENCE]) if REFERENCE in value else {key: _referring(inner) for key, inner in value.items()}
    return [_referring(inner) for inner in value] if isinstance(value, list) else value


def _ref(name: str) -> dict[str, str]:
    return {"$ref": DEFS.format(model=name)}
