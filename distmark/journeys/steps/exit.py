"""End the journey here."""

from typing import ClassVar, Literal

from pydantic import Field

from distmark.journeys.model import Decision, End, Outcome, Visit
from distmark.journeys.steps.base import Step, StepKind
from distmark.journeys.words import Words


class ExitStep(Step):
    """Leave, with a reason."""

    kind: ClassVar[str] = "exit"

    exit: Words = Field(description="Why the contact leaves here.")
    outcome: Literal["exit", "completed", "goal"] = "exit"

    def ways(self, after: str | None) -> tuple[str | None, ...]:
        return ()


def decide(step: ExitStep, visit: Visit) -> Decision:
    """Return the end."""
    return End(Outcome(step.outcome), str(step.exit))


KIND = StepKind("exit", ExitStep, decide, {"ja": "終了", "en": "End"}, "log-out")
