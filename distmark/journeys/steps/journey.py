"""Enter the contact into another journey."""

from typing import ClassVar

from pydantic import Field

from distmark.journeys.expressions import namespace
from distmark.journeys.field_types import Identifier, Name
from distmark.journeys.model import Act, Decision, EnterJourney, StepVisit
from distmark.journeys.steps.base import Step, StepKind
from distmark.journeys.steps.update import Value, filled


class JourneyStep(Step):
    """Enter another journey and go on with this one."""

    kind: ClassVar[str] = "journey"

    journey: Name = Field(description="The key of the other journey.")
    data: dict[Identifier, Value] = Field(default_factory=dict, description="Data frozen at entry.")


def decide(step: JourneyStep, visit: StepVisit) -> Decision:
    """Return the entry with its data filled."""
    names = namespace(visit.facts, visit.now, visit.zone)
    return Act(EnterJourney(step.id, step.journey, {field: filled(value, names) for field, value in step.data.items()}))


def describe(step: JourneyStep, lang: str) -> tuple[str, str]:
    """Return a title and a second line in `lang`."""
    return ("別のジャーニーを始める" if lang == "ja" else "Enter another journey"), step.journey


KIND = StepKind("journey", JourneyStep, decide, describe, {"ja": "別のジャーニーへ", "en": "Enter journey"}, "route", "#0e7490")
