"""Add the contact to an ad audience, or remove it."""

from typing import ClassVar, Self

from pydantic import model_validator

from distmark.journeys.model import Act, ChangeAudience, Decision, Visit
from distmark.journeys.reading import Part, problem
from distmark.journeys.steps.base import Step, StepKind
from distmark.journeys.words import Name


class Audience(Part):
    """Exactly one of `add` and `remove`."""

    add: Name | None = None
    remove: Name | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.add is None) == (self.remove is None):
            raise problem("bad-audience")
        return self


class AudienceStep(Step):
    """Change an audience and go on."""

    kind: ClassVar[str] = "audience"

    audience: Audience


def decide(step: AudienceStep, visit: Visit) -> Decision:
    """Return the change."""
    action = "add" if step.audience.add else "remove"
    return Act(ChangeAudience(step.id, action, step.audience.add or step.audience.remove or ""))


KIND = StepKind("audience", AudienceStep, decide, {"ja": "広告オーディエンス", "en": "Ad audience"}, "megaphone")
