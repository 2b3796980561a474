"""Experiments on a journey's page: the numbers of each arm, the confidence in the leading arm, and the choice of a winner by hand."""

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
from distmark.web.forms import posted_form, text
from distmark.web.i18n import N_
from distmark.web.ids import Id
from distmark.web.labels import Label
from distmark.web.permissions import needs
from distmark.web.status_text import step_name
from distmark.web.visit import Visit

router = APIRouter()

CONFIDENCE: dict[str, str] = {
    Confidence.clear: N_("“%(arm)s” leads clearly (%(sure)s sure)."),
    Confidence.likely: N_("“%(arm)s” leads (%(sure)s sure)."),
    Confidence.chance: N_("“%(arm)s” leads, but that may be chance (%(sure)s sure)."),
    Confidence.tie: N_("The arms that lead are equal."),
    Confidence.nothing: N_("There is nothing to compare yet."),
}
CONFIDENCE_THEN: dict[str, str] = {
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
NOT_BEGUN, RUNNING, DECIDED = Label(N_("Not begun")), Label(N_("Test is running"), "warn"), Label(N_("Decided"), "good")


@dataclass(frozen=True, slots=True)
class ArmRow:
    """One arm in words. `share` is the length of its bar, 0 to 1: a share of contacts, or of the most money per contact."""

    name: str
    numbers: ArmNumbers
    per_contact: str
    share: float
    leads: bool
    won: bool


@dataclass(frozen=True, slots=True)
class ExperimentCard:
    """One experiment in words."""

    experiment: ExperimentShown
    name: str
    label: Label
    sentence: str
    measured: str
    metric: str
    arms: tuple[ArmRow, ...]


def experiment_cards(session: Session, visit: Visit, version_id: int) -> list[ExperimentCard]:
    """Return the experiments of a version in words, in the order of the definition."""
    experiments = service.experiments_of(session, visit.viewer, version_id)
    names = names_of_users(session, visit.viewer, [experiment.decided_by_id for experiment in experiments])
    return [_card(experiment, visit, names) for experiment in experiments]


def _card(experiment: ExperimentShown, visit: Visit, names: dict[int, str]) -> ExperimentCard:
    return ExperimentCard(
        experiment=experiment,
        name=step_name(experiment.step, visit.translator),
        label=DECIDED if experiment.winner else RUNNING if experiment.began_at else NOT_BEGUN,
        sentence=_sentence(experiment, visit, names),
        measured=MEASURED[experiment.test.metric],
        metric=METRICS[experiment.test.metric][visit.language],
        arms=tuple(_arm_row(experiment, arm, visit) for arm in experiment.arms),
    )


def _sentence(experiment: ExperimentShown, visit: Visit, names: dict[int, str]) -> str:
    decision = _decision_sentence(experiment, visit, names)
    if experiment.winner is not None:
        return visit.translator.joined(decision, _confidence_sentence(experiment, visit, CONFIDENCE_THEN))
    return visit.translator.joined(_confidence_sentence(experiment, visit, CONFIDENCE), decision, _waiting_sentence(experiment, visit))


def _confidence_sentence(experiment: ExperimentShown, visit: Visit, words: dict[str, str]) -> str:
    sure = visit.translator.percent(experiment.judgement.sure)
    return visit.gettext(words[experiment.judgement.confidence], arm=experiment.judgement.arm, sure=sure)


def _decision_sentence(experiment: ExperimentShown, visit: Visit, names: dict[int, str]) -> str:
    if experiment.winner is not None and experiment.decided_at is not None:
        at = visit.translator.short(experiment.decided_at, visit.now)
        if experiment.decided_by_id is None:
            return visit.gettext(N_("The rule chose “%(arm)s” on %(time)s."), arm=experiment.winner, time=at)
        who = names.get(experiment.decided_by_id, "–")
        return visit.gettext(N_("%(name)s chose “%(arm)s” on %(time)s."), arm=experiment.winner, time=at, name=who)
    if experiment.due_at is None:
        return visit.gettext(N_("Nobody has entered an arm yet."))
    at = visit.translator.short(experiment.due_at, visit.now)
    if experiment.test.winner == "auto":
        return visit.gettext(N_("The rule chooses on %(time)s."), time=at)
    return visit.gettext(N_("The results are complete on %(time)s; then a person chooses."), time=at)


def _waiting_sentence(experiment: ExperimentShown, visit: Visit) -> str:
    if not experiment.waiting:
        return ""
    return visit.translator.ngettext("%(n)s person waits for the winner.", "%(n)s people wait for the winner.", experiment.waiting)


def _arm_row(experiment: ExperimentShown, arm: ArmNumbers, visit: Visit) -> ArmRow:
    value = arm.per_contact(experiment.by_money)
    most = max(each.per_contact(experiment.by_money) for each in experiment.arms)
    compared = experiment.judgement.confidence not in (Confidence.nothing, Confidence.tie)
    return ArmRow(
        name=arm.arm,
        numbers=arm,
        per_contact=visit.translator.number(round(value, 2))
        if experiment.by_money
        else visit.translator.percent(value if arm.contacts else None),
        share=(value / most if most > 0 else 0.0) if experiment.by_money else value,
        leads=compared and arm.arm == experiment.judgement.arm,
        won=arm.arm == experiment.winner,
    )


@router.post("/journeys/{key}/{number}/splits/{step_id}")
def choose(
    key: str, number: Id, step_id: str, visit: Visit = needs(Permission.register_journeys), form: FormData = posted_form
) -> Response:
    """Make an arm the winner: contacts that wait, and all later ones, take it."""
    with visit.writing() as session:
        experiment = service.decide_experiment(session, visit.viewer, key, number, step_id, text(form, "arm"), visit.now)
    return visit.go(
        f"/journeys/{key}?v={number}#test-{step_id}",
        N_("“%(arm)s” is chosen. Everybody who comes or waits takes it."),
        arm=experiment.winner,
    )
