"""Go to another step, at most so many times."""

from typing import ClassVar

from pydantic import Field

from distmark.journeys.field_types import Name
from distmark.journeys.model import Decision, Go, StepVisit
from distmark.journeys.steps.base import Step, StepKind


class GotoStep(Step):
    """Go to `goto`; after `at_most` times, go on with the step after."""

    kind: ClassVar[str] = "goto"

    goto: Name = Field(description="The id of the step to go to.")
    at_most: int | None = Field(None, ge=1, le=100, description="How many times; then the step after.")

    def ways(self, after: str | None) -> tuple[str | None, ...]:
        return (self.goto,) if self.at_most is None else (self.goto, after)

    def targets(self) -> tuple[tuple[str, str], ...]:
        return (("goto", self.goto),)


def decide(step: GotoStep, visit: StepVisit) -> Decision:
    """Return the way to the named step, or on when it was gone often enough."""
    return Go(step.goto) if step.at_most is None or visit.number <= step.at_most else Go()


def describe(step: GotoStep, lang: str) -> tuple[str, str]:
    """Return a title and a second line in `lang`."""
    often = "" if step.at_most is None else (f"{step.at_most} 回まで" if lang == "ja" else f"at most {step.at_most} times")
    return (f"「{step.goto}」へ" if lang == "ja" else f"Go to {step.goto}"), often


KIND = StepKind("goto", GotoStep, decide, describe, {"ja": "移動", "en": "Go to"}, "corner-down-right", "#7b8794")
