"""Add the contact to an ad audience, or remove it."""

from typing import ClassVar, Self

from pydantic import model_validator

from distmark.journeys.field_types import Name
from distmark.journeys.fields import DefinitionPart, problem
from distmark.journeys.model import Act, ChangeAudience, Decision, StepVisit
from distmark.journeys.steps.base import Step, StepKind


class AudienceField(DefinitionPart):
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

    audience: AudienceField


def decide(step: AudienceStep, visit: StepVisit) -> Decision:
    """Return the change."""
    action = "add" if step.audience.add else "remove"
    return Act(ChangeAudience(step.id, action, step.audience.add or step.audience.remove or ""))


def describe(step: AudienceStep, lang: str) -> tuple[str, str]:
    """Return a title and a second line in `lang`."""
    audience = step.audience
    if audience.add:
        return ("広告オーディエンスに追加" if lang == "ja" else "Add to ad audience"), audience.add
    return ("広告オーディエンスから外す" if lang == "ja" else "Remove from ad audience"), str(audience.remove)


KIND = StepKind("audience", AudienceStep, decide, describe, {"ja": "広告オーディエンス", "en": "Ad audience"}, "megaphone", "#be185d")
