"""End the journey here."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from distmark.journeys.model import Decision, End, Outcome, Visit
from distmark.journeys.steps.base import Step, StepKind
from distmark.journeys.words import Words


def _read_exit(value: object) -> Words:
    return Words.read(value["reason"] if isinstance(value, Mapping) and set(value) == {"reason"} else value)


_REASON = Words.described()
_REASON_SCHEMA = {
    "anyOf": [_REASON, {"type": "object", "properties": {"reason": _REASON}, "required": ["reason"], "additionalProperties": False}]
}


class ExitStep(Step):
    """Leave, with a reason."""

    kind: ClassVar[str] = "exit"

    exit: Annotated[Words, PlainValidator(_read_exit), WithJsonSchema(_REASON_SCHEMA)] = Field(description="Why the contact leaves here.")
    outcome: Literal["exit", "completed", "goal"] = "exit"

    def ways(self, after: str | None) -> tuple[str | None, ...]:
        return ()


def decide(step: ExitStep, visit: Visit) -> Decision:
    """Return the end."""
    return End(Outcome(step.outcome), str(step.exit))


KIND = StepKind("exit", ExitStep, decide, {"ja": "終了", "en": "End"}, "log-out")
