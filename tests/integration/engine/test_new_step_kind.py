"""Adding a step kind: a model and its decision in one place, one line in the registry, and one line where its effect is performed."""

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

import pytest
from sqlmodel import Session

from distmark.clock import FixedClock
from distmark.contacts.service import change_contact
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.engine import effects
from distmark.engine.effects import EffectRequest, EffectResult
from distmark.enrollments.model import TimelineKind
from distmark.journeys import steps
from distmark.journeys.describe import describe_step
from distmark.journeys.diagram import diagram
from distmark.journeys.expressions import Text, namespace
from distmark.journeys.model import Act, Decision, StepVisit
from distmark.journeys.schema import json_schema
from distmark.journeys.steps import Step, StepKind
from distmark.sql import id_of
from tests.driver import Stage
from tests.journeys import found_in, program_of

# --- what the new file would hold --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AddPoints:
    """The effect: the contact gets points."""

    step_id: str
    points: int
    why: str


class PointsStep(Step):
    """Give the contact points."""

    kind: ClassVar[str] = "points"

    points: int
    why: Text


def decide(step: PointsStep, visit: StepVisit) -> Decision:
    return Act(AddPoints(step.id, step.points, step.why.render(namespace(visit.facts, visit.now, visit.zone))))


def describe(step: PointsStep, lang: str) -> tuple[str, str]:
    return (f"{step.points}点" if lang == "ja" else f"{step.points} points"), ""


KIND = StepKind("points", PointsStep, decide, describe, {"ja": "ポイント", "en": "Points"}, "gift", "#0ea5e9")


def add_points(session: Session, request: EffectRequest) -> EffectResult:
    contact = session.get_one(Contact, request.person.contact.id)
    total = int(contact.attributes.get("points") or 0) + request.effect.points
    changed = change_contact(session, id_of(contact), {"points": total}, request.now)
    return EffectResult(TimelineKind.passed, {"points": request.effect.points, "why": request.effect.why}, "points", changed)


# --- its two lines -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def points_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(steps.KINDS, "points", KIND)  # type: ignore[arg-type]
    monkeypatch.setitem(effects.LOCAL, AddPoints, add_points)


STEPS = """
  - {id: first, send: email, message: one}
  - {id: thanks, points: 30, why: "welcome {{ contact.first_name }}"}
  - branch:
      - when: "contact.points >= 30"
        steps:
          - {id: second, send: email, message: two}
    id: rich
"""


async def test_step_of_a_new_kind_is_read_walked_and_performed_once(db: Database, clock: FixedClock, points_kind: None) -> None:
    stage = Stage(db, clock)
    campaign = stage.journey(STEPS, "contact_fields: {points: number}")
    hanako = stage.contact(first_name="花子")

    stage.enrol(campaign, hanako)
    await stage.run_for(timedelta(days=1))

    with db.reading() as session:
        assert session.get_one(Contact, hanako.id).attributes["points"] == 30
    assert [message.step_id for message in stage.messages(hanako)] == ["first", "second"]
    entry = next(move for move in stage.moves(hanako) if move.step_id == "thanks")
    assert (entry.kind, entry.detail["points"], entry.detail["why"]) == (TimelineKind.passed, 30, "welcome 花子")
    assert stage.enrollment(hanako).outcome == "completed"


def test_check_schema_and_picture_know_the_new_kind(points_kind: None) -> None:
    wrong = found_in("  - {id: thanks, points: many, why: 'x'}\n")
    right = program_of("  - {id: thanks, points: 5, why: 'x'}\n")

    assert [(finding.step, finding.field) for finding in wrong] == [("thanks", "points")]
    assert "PointsStep" in json_schema()["$defs"]
    assert describe_step(right.steps["thanks"], "ja")[0] == "5点"
    assert "5 points" in diagram(right, "en")
