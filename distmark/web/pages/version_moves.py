"""Version moves: moving the enrollments of one version of a journey to another, by a map of steps, with a preview and an undo."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

from fastapi import APIRouter
from fastapi.responses import Response
from sqlmodel import Session
from starlette.datastructures import FormData

from distmark.engine import version_moves
from distmark.engine.table import VersionMove
from distmark.engine.version_moves import MovePlan, ShownMove
from distmark.enrollments.service import step_counts
from distmark.errors import InvalidInput, NotFound, Refused, SelectionChanged
from distmark.journeys import service as journeys
from distmark.journeys.program import Program
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.partners.model import Permission
from distmark.partners.service import names_of_users
from distmark.sql import id_of
from distmark.web import errors
from distmark.web.forms import posted_form, text
from distmark.web.i18n import N_
from distmark.web.ids import LONGEST_SHOWN, Id, read_id
from distmark.web.permissions import needs
from distmark.web.status_text import step_name
from distmark.web.visit import Visit

router = APIRouter()
STEP_PREFIX = "step."  # prefix of the map's form fields, before the id of the old step


@dataclass(frozen=True, slots=True)
class StepMoveRow:
    """One step of the old version: its enrollments, the step that it becomes ("": none), and the enrollments due at once after the move."""

    step_id: str
    name: str
    people: int
    to: str
    has_same: bool
    at_once: int


@dataclass(frozen=True, slots=True)
class VersionPair:
    """The two versions of a move with their programs; `new` and `after` are None until the new version is chosen."""

    journey: Journey
    old: JourneyVersion
    before: Program
    choices: Sequence[JourneyVersion]
    new: JourneyVersion | None = None
    after: Program | None = None


@router.get("/journeys/{key}/{number}/move")
def move_page(key: str, number: Id, visit: Visit = needs(Permission.register_journeys)) -> Response:
    """Show which enrollments would move where, and how many messages would be due at once; nothing moves yet."""
    query = visit.request.query_params
    return _page(visit, key, number, query.get("to", ""), _mapping(query))


@router.post("/journeys/{key}/{number}/move")
def move_people(key: str, number: Id, visit: Visit = needs(Permission.register_journeys), form: FormData = posted_form) -> Response:
    """Move the live enrollments of the version, or undo a move for those that have not woken since."""
    to, mapping = text(form, "to"), _mapping({name: value for name, value in form.items() if isinstance(value, str)})
    path = f"/journeys/{key}/{number}/move"
    try:
        if text(form, "action") == "undo":
            with visit.writing() as session:
                undone = version_moves.undo_move(session, visit.viewer, _number(text(form, "move")), visit.now)
            words = N_("Taken back; people who stand where they stood: %(back)s, who have gone on since: %(gone)s.")
            return visit.go(path, words, back=undone.back, gone=undone.gone)
        shown = _shown(text(form, "shown"), _number(to), mapping)
        with visit.writing() as session:
            _act, plan = version_moves.move(
                session, visit.viewer, key, number, _number(to), mapping, visit.now, visit.site.gather_facts, shown
            )
    except (InvalidInput, Refused) as error:
        return _page(visit, key, number, to, mapping, errors.explain(error, visit.language))
    return visit.go(path, N_("Moved; people: %(count)s."), count=visit.translator.number(plan.people))


def _mapping(fields: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix(STEP_PREFIX): value for name, value in fields.items() if name.startswith(STEP_PREFIX) and value}


def _shown_text(plan: MovePlan, to: int, mapping: Mapping[str, str]) -> str:
    """Return the plan that a page shows as the text of a form's field."""
    return json.dumps([to, sorted(mapping.items()), *astuple(ShownMove.of(plan))])


def _shown(written: str, to: int, mapping: Mapping[str, str]) -> ShownMove:
    """Return the counts that the page showed for this version and map; SelectionChanged when it showed none for them."""
    unseen = SelectionChanged("The version or the steps were changed after this was shown. Nobody was moved.")
    try:
        shown_to, shown_mapping, *counts = json.loads(written)
        if shown_to != to or [tuple(pair) for pair in shown_mapping] != sorted(mapping.items()):
            raise unseen
        return ShownMove(*(int(each) for each in counts))
    except (ValueError, TypeError) as error:
        raise unseen from error


def _number(value: str) -> int:
    found = read_id(value)
    if found is None:
        raise InvalidInput(f'The number "{value[:LONGEST_SHOWN]}" cannot be read; write a whole number such as 1000.')
    return found


def _page(visit: Visit, key: str, number: int, to: str, mapping: Mapping[str, str], wrong: str = "") -> Response:
    plan: MovePlan | None = None
    with visit.reading() as session:
        pair = _version_pair(session, visit, key, number, to)
        if pair.new is not None:
            try:
                plan = version_moves.plan_move(
                    session, visit.viewer, key, number, pair.new.number, mapping, visit.now, visit.site.gather_facts
                )
            except (InvalidInput, Refused) as error:
                wrong = errors.explain(error, visit.language)
        rows = _rows(session, visit, pair, mapping, plan)
        moves = [each for each in version_moves.moves_of(session, visit.viewer, id_of(pair.journey)) if each.from_version_id == pair.old.id]
        names = names_of_users(session, visit.viewer, [each.by_id for each in moves])
        numbers = {each.id: each.number for each in journeys.versions_of(session, id_of(pair.journey))}
    return visit.page(
        "control/move.html",
        status=422 if wrong else 200,
        pair=pair,
        rows=rows,
        plan=plan,
        messages=sum(plan.messages.values()) if plan else 0,
        unmapped=sum(plan.unmapped.values()) if plan else 0,
        shown=_shown_text(plan, pair.new.number, _full_mapping(rows)) if plan and pair.new else "",
        targets=_targets(visit, pair.after),
        moves=_recent(moves),
        names=names,
        numbers=numbers,
        wrong=wrong,
    )


def _version_pair(session: Session, visit: Visit, key: str, number: int, to: str) -> VersionPair:
    journey = journeys.get_journey(session, visit.viewer, key)
    versions = {each.number: each for each in journeys.versions_of(session, id_of(journey))}
    old = versions.get(number)
    if old is None or old.registered_at is None:
        raise NotFound(f"This journey has no published version {number}.")
    choices = [each for each in versions.values() if each.status is VersionStatus.registered and each is not old]
    new = next((each for each in choices if str(each.number) == to), None)
    after = journeys.program_of(session, id_of(new)) if new else None
    return VersionPair(journey, old, journeys.program_of(session, id_of(old)), choices, new, after)


def _rows(session: Session, visit: Visit, pair: VersionPair, mapping: Mapping[str, str], plan: MovePlan | None) -> list[StepMoveRow]:
    """Return the steps with live enrollments, in the order of the definition."""
    here = step_counts(session, visit.viewer, version_id=pair.old.id)
    after = pair.after
    rows = []
    for step_id, step in pair.before.steps.items():
        has_same = after is not None and step_id in after.steps and pair.before.kind(step_id) == after.kind(step_id)
        to = mapping.get(step_id, step_id if has_same else "")
        moves = plan.steps.get(step_id) if plan else None
        if here.get(step_id):
            rows.append(StepMoveRow(step_id, step_name(step, visit.translator), here[step_id], to, has_same, moves.at_once if moves else 0))
    return rows


def _full_mapping(rows: Sequence[StepMoveRow]) -> dict[str, str]:
    """Return the map that the form posts when nobody changes it."""
    return {row.step_id: row.to for row in rows if row.to}


def _targets(visit: Visit, after: Program | None) -> list[tuple[str, str]]:
    return [(step_id, step_name(step, visit.translator)) for step_id, step in after.steps.items()] if after else []


def _recent(moves: Sequence[VersionMove]) -> Sequence[VersionMove]:
    return [each for each in moves if each.moved][:20]
