"""Change attributes of the contact."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from distmark.journeys.expressions import Names, Text, namespace
from distmark.journeys.field_types import Identifier
from distmark.journeys.fields import problem
from distmark.journeys.model import Act, Decision, StepVisit, UpdateContact
from distmark.journeys.steps.base import Step, StepKind

Scalar = str | int | float | bool | None


def read_value(value: object) -> Text | Scalar:
    """Return a value as written; a text with slots is compiled."""
    if isinstance(value, str):
        return Text.read(value) if "{{" in value or "{%" in value else value
    if value is None or isinstance(value, int | float):
        return value
    raise problem("not-text", value=str(value))


Value = Annotated[Text | Scalar, PlainValidator(read_value), WithJsonSchema({"type": ["string", "number", "boolean", "null"]})]


def _not_empty(values: dict[str, Text | Scalar]) -> dict[str, Text | Scalar]:
    if not values:
        raise problem("empty-list")
    return values


class UpdateStep(Step):
    """Set attributes and go on; a value may have slots, and null clears."""

    kind: ClassVar[str] = "update"

    update: Annotated[dict[Identifier, Value], AfterValidator(_not_empty)] = Field(
        json_schema_extra={"minProperties": 1}, description="Attribute name to new value."
    )


def filled(value: Text | Scalar, names: Names) -> object:
    """Return the value with its slots filled from `names`."""
    return value.value(names) if isinstance(value, Text) else value


def decide(step: UpdateStep, visit: StepVisit) -> Decision:
    """Return the changes with their slots filled."""
    names = namespace(visit.facts, visit.now, visit.zone)
    return Act(UpdateContact(step.id, {field: filled(value, names) for field, value in step.update.items()}))


def _shown(value: Text | Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "—" if value is None else str(value)


def describe(step: UpdateStep, lang: str) -> tuple[str, str]:
    """Return a title and a second line in `lang`."""
    changes = ", ".join(f"{name} = {_shown(value)}" for name, value in step.update.items())
    return ("お客様の項目を更新" if lang == "ja" else "Update the contact"), changes


KIND = StepKind("update", UpdateStep, decide, describe, {"ja": "項目の更新", "en": "Update"}, "user-pen", "#1c6fd6")
