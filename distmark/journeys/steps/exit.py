"""End the journey here."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from distmark.journeys.field_types import Words
from distmark.journeys.model import Decision, End, StepVisit
from distmark.journeys.outcomes import Outcome
from distmark.journeys.steps.base import Step, StepKind

OUTCOMES = {"exit": {"ja": "離脱", "en": "exit"}, "completed": {"ja": "完了", "en": "completed"}, "goal": {"ja": "目標", "en": "goal"}}


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


def decide(step: ExitStep, visit: StepVisit) -> Decision:
    """Return the end."""
    return End(Outcome(step.outcome), str(step.exit))


def describe(step: ExitStep, lang: str) -> tuple[str, str]:
    """Return a title and a second line in `lang`."""
    return step.exit.text(lang), OUTCOMES[step.outcome][lang]


KIND = StepKind("exit", ExitStep, decide, describe, {"ja": "終了", "en": "End"}, "log-out", "#b3261e")
