"""Moving those inside one version of a journey to another: which step becomes which, who would stand where, the move, and the way back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.responses import Response
from sqlmodel import Session
from starlette.datastructures import FormData

from distmark.engine import version_moves
from distmark.engine.table import VersionMove
from distmark.engine.version_moves import MovePlan
from distmark.enrollments.service import step_counts
from distmark.errors import InvalidInput, NotFound, Refused
from distmark.journeys import service as journeys
from distmark.journeys.program import Program
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.partners.model import Permission
from distmark.partners.service import names_of_users
from distmark.sql import id_of
from distmark.web import errors
from distmark.web.forms import LONGEST_NUMBER, text, the_form
from distmark.web.i18n import N_
from distmark.web.permissions import needs
from distmark.web.status_text import step_name
from distmark.web.visit import Visit

router = APIRouter()
STEP = "step."  # what the fields of the map are called, with the old step's id behind it


@dataclass(frozen=True, slots=True)
class Row:
    """One step of the old version: how many stand there, what it becomes ("": no place), and how many would go on at once."""

    step_id: str
    name: str
    people: int
    to: str
    has_same: bool
    at_once: int


@dataclass(frozen=True, slots=True)
class Way:
    """The two versions with their steps, and the map between them; `new` is None until it is chosen."""

    journey: Journey
    old: JourneyVersion
    before: Program
    choices: Sequence[JourneyVersion]
    new: JourneyVersion | None = None
    after: Program | None = None


@router.get("/journeys/{key}/{number}/move")
def move_page(key: str, number: int, visit: Visit = needs(Permission.register_journeys)) -> Response:
    """Who would move where, and who would get a message at once: nothing moves yet."""
    asked = visit.request.query_params
    return _page(visit, key, number, asked.get("to", ""), _mapping(asked))


@router.post("/journeys/{key}/{number}/move")
def move_people(key: str, number: int, visit: Visit = needs(Permission.register_journeys), form: FormData = the_form) -> Response:
    """Move everybody inside, or put those back who have not woken since a move."""
    to, mapping = text(form, "to"), _mapping({name: value for name, value in form.items() if isinstance(value, str)})
    path = f"/journeys/{key}/{number}/move"
    try:
        if text(form, "action") == "undo":
            with visit.writing() as session:
                undone = version_moves.undo_move(session, visit.viewer, _number(text(form, "move")), visit.now)
            words = N_("Taken back; people who stand where they stood: %(back)s, who have gone on since: %(gone)s.")
            return visit.go(path, words, back=undone.back, gone=undone.gone)
        with visit.writing() as session:
            _act, plan = version_moves.move(session, visit.viewer, key, number, _number(to), mapping, visit.now, visit.site.look)
    except (InvalidInput, Refused) as error:
        return _page(visit, key, number, to, mapping, errors.explain(error, visit.language))
    return visit.go(path, N_("Moved; people: %(count)s."), count=visit.tongue.number(plan.people))


def _mapping(fields: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix(STEP): value for name, value in fields.items() if name.startswith(STEP) and value}


def _number(value: str) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) < LONGEST_NUMBER):
        raise InvalidInput(f'The number "{value}" cannot be read; write a whole number such as 1000.')
    return int(value)


def _page(visit: Visit, key: str, number: int, to: str, mapping: Mapping[str, str], wrong: str = "") -> Response:
    plan: MovePlan | None = None
    with visit.reading() as session:
        way = _way(session, visit, key, number, to)
        if way.new is not None:
            try:
                plan = version_moves.plan_move(session, visit.viewer, key, number, way.new.number, mapping, visit.now, visit.site.look)
            except (InvalidInput, Refused) as error:
                wrong = wrong or errors.explain(error, visit.language)
        rows = _rows(session, visit, way, mapping, plan)
        moves = [each for each in version_moves.moves_of(session, visit.viewer, id_of(way.journey)) if each.from_version_id == way.old.id]
        names = names_of_users(session, visit.viewer, [each.by_id for each in moves])
        numbers = {each.id: each.number for each in journeys.versions_of(session, id_of(way.journey))}
    return visit.page(
        "control/move.html",
        status=422 if wrong else 200,
        way=way,
        rows=rows,
        plan=plan,
        messages=sum(plan.messages.values()) if plan else 0,
        unmapped=sum(plan.unmapped.values()) if plan else 0,
        targets=_targets(visit, way.after),
        moves=_shown(moves),
        names=names,
        numbers=numbers,
        wrong=wrong,
    )


def _way(session: Session, visit: Visit, key: str, number: int, to: str) -> Way:
    journey = journeys.get_journey(session, visit.viewer, key)
    versions = {each.number: each for each in journeys.versions_of(session, id_of(journey))}
    old = versions.get(number)
    if old is None or old.registered_at is None:
        raise NotFound(f"This journey has no published version {number}.")
    choices = [each for each in versions.values() if each.status is VersionStatus.registered and each is not old]
    new = next((each for each in choices if str(each.number) == to), None)
    after = journeys.program_of(session, id_of(new)) if new else None
    return Way(journey, old, journeys.program_of(session, id_of(old)), choices, new, after)


def _rows(session: Session, visit: Visit, way: Way, mapping: Mapping[str, str], plan: MovePlan | None) -> list[Row]:
    """Return the steps at which somebody stands, in the journey's order."""
    here = step_counts(session, visit.viewer, version_id=way.old.id)
    after = way.after
    rows = []
    for step_id, step in way.before.steps.items():
        has_same = after is not None and step_id in after.steps and way.before.kind(step_id) == after.kind(step_id)
        to = mapping.get(step_id, step_id if has_same else "")
        moves = plan.steps.get(step_id) if plan else None
        if here.get(step_id):
            rows.append(Row(step_id, step_name(step, visit.tongue), here[step_id], to, has_same, moves.at_once if moves else 0))
    return rows


def _targets(visit: Visit, after: Program | None) -> list[tuple[str, str]]:
    return [(step_id, step_name(step, visit.tongue)) for step_id, step in after.steps.items()] if after else []


def _shown(moves: Sequence[VersionMove]) -> Sequence[VersionMove]:
    return [each for each in moves if each.moved][:20]
