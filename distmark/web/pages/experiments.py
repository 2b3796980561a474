"""Tests of a journey on its page: what came of each arm, how sure that is, and the winner by hand."""

from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.responses import Response
from sqlmodel import Session
from starlette.datastructures import FormData

from distmark.experiments import service
from distmark.experiments.service import ExperimentShown
from distmark.experiments.statistics import ArmNumbers, Confidence
from distmark.journeys.steps.branch import METRICS
from distmark.partners.model import Permission
from distmark.partners.service import names_of_users
from distmark.web.forms import text, the_form
from distmark.web.i18n import N_
from distmark.web.labels import Said
from distmark.web.permissions import needs
from distmark.web.status_text import step_name
from distmark.web.visit import Visit

router = APIRouter()

SURENESS: dict[str, str] = {
    Confidence.clear: N_("“%(arm)s” leads clearly (%(sure)s sure)."),
    Confidence.likely: N_("“%(arm)s” leads (%(sure)s sure)."),
    Confidence.chance: N_("“%(arm)s” leads, but that may be chance (%(sure)s sure)."),
    Confidence.tie: N_("The arms that lead are equal."),
    Confidence.nothing: N_("There is nothing to compare yet."),
}
SURENESS_THEN: dict[str, str] = {
    Confidence.clear: N_("“%(arm)s” led clearly then (%(sure)s sure)."),
    Confidence.likely: N_("“%(arm)s” led then (%(sure)s sure)."),
    Confidence.chance: N_("“%(arm)s” led then, but that may be chance (%(sure)s sure)."),
    Confidence.tie: N_("The arms that led were equal then."),
    Confidence.nothing: N_("There was nothing to compare then."),
}
MEASURED: dict[str, str] = {
    "click": N_("Clicked"),
    "open": N_("Opened"),
    "conversion": N_("Converted"),
    "revenue": N_("Paid"),
}
NOT_BEGUN, RUNNING, DECIDED = Said(N_("Not begun")), Said(N_("Test is running"), "warn"), Said(N_("Decided"), "good")


@dataclass(frozen=True, slots=True)
class ShownArm:
    """One arm in words. `share` is what its bar shows: of contacts, or of the most money per contact."""

    name: str
    numbers: ArmNumbers
    per_contact: str
    share: float
    leads: bool
    won: bool


@dataclass(frozen=True, slots=True)
class ShownSplit:
    """One test in words."""

    split: ExperimentShown
    name: str
    said: Said
    sentence: str
    measured: str
    metric: str
    arms: tuple[ShownArm, ...]


def splits_shown(session: Session, visit: Visit, version_id: int) -> list[ShownSplit]:
    """Return the tests of a version in words, in the order written."""
    splits = service.experiments_of(session, visit.viewer, version_id)
    names = names_of_users(session, visit.viewer, [split.decided_by_id for split in splits])
    return [_shown(split, visit, names) for split in splits]


def _shown(split: ExperimentShown, visit: Visit, names: dict[int, str]) -> ShownSplit:
    return ShownSplit(
        split=split,
        name=step_name(split.step, visit.tongue),
        said=DECIDED if split.winner else RUNNING if split.began_at else NOT_BEGUN,
        sentence=_sentence(split, visit, names),
        measured=MEASURED[split.test.metric],
        metric=METRICS[split.test.metric][visit.language],
        arms=tuple(_arm(split, arm, visit) for arm in split.arms),
    )


def _sentence(split: ExperimentShown, visit: Visit, names: dict[int, str]) -> str:
    decision = _decision(split, visit, names)
    if split.winner is not None:
        return visit.tongue.joined(decision, _sureness(split, visit, SURENESS_THEN))
    return visit.tongue.joined(_sureness(split, visit, SURENESS), decision, _waiting(split, visit))


def _sureness(split: ExperimentShown, visit: Visit, words: dict[str, str]) -> str:
    sure = visit.tongue.percent(split.judgement.sure)
    return visit.say(words[split.judgement.sureness], arm=split.judgement.arm, sure=sure)


def _decision(split: ExperimentShown, visit: Visit, names: dict[int, str]) -> str:
    if split.winner is not None and split.decided_at is not None:
        at = visit.tongue.short(split.decided_at, visit.now)
        if split.decided_by_id is None:
            return visit.say(N_("The rule chose “%(arm)s” on %(time)s."), arm=split.winner, time=at)
        who = names.get(split.decided_by_id, "–")
        return visit.say(N_("%(name)s chose “%(arm)s” on %(time)s."), arm=split.winner, time=at, name=who)
    if split.due_at is None:
        return visit.say(N_("Nobody has entered an arm yet."))
    at = visit.tongue.short(split.due_at, visit.now)
    if split.test.winner == "auto":
        return visit.say(N_("The rule chooses on %(time)s."), time=at)
    return visit.say(N_("The results are complete on %(time)s; then a person chooses."), time=at)


def _waiting(split: ExperimentShown, visit: Visit) -> str:
    if not split.waiting:
        return ""
    return visit.tongue.count("%(n)s person waits for the winner.", "%(n)s people wait for the winner.", split.waiting)


def _arm(split: ExperimentShown, arm: ArmNumbers, visit: Visit) -> ShownArm:
    value = arm.per_contact(split.by_money)
    most = max(each.per_contact(split.by_money) for each in split.arms)
    compared = split.judgement.sureness not in (Confidence.nothing, Confidence.tie)
    return ShownArm(
        name=arm.arm,
        numbers=arm,
        per_contact=visit.tongue.number(round(value, 2)) if split.by_money else visit.tongue.percent(value if arm.contacts else None),
        share=(value / most if most > 0 else 0.0) if split.by_money else value,
        leads=compared and arm.arm == split.judgement.arm,
        won=arm.arm == split.winner,
    )


@router.post("/journeys/{key}/{number}/splits/{step_id}")
def choose(key: str, number: int, step_id: str, visit: Visit = needs(Permission.register_journeys), form: FormData = the_form) -> Response:
    """Make an arm the winner by hand: everybody who comes or waits takes it."""
    with visit.writing() as session:
        split = service.decide_experiment(session, visit.viewer, key, number, step_id, text(form, "arm"), visit.now)
    return visit.go(
        f"/journeys/{key}?v={number}#test-{step_id}", N_("“%(arm)s” is chosen. Everybody who comes or waits takes it."), arm=split.winner
    )
