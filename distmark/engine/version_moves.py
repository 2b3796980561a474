"""Moving people who are inside one version of a journey to another: who would stand where, who gets a message at once, and the way back.

Nobody moves by itself: a version never changes for those inside. Those who have finished are not moved, so a step added at the end reaches
only those who are still on their way.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, insert
from sqlmodel import Session, col, select

from distmark.campaigns.attributes import campaign_attributes
from distmark.campaigns.table import Campaign
from distmark.compliance.service import record, require_sendable
from distmark.contacts.attributes import attributes_of
from distmark.contacts.fields import typed
from distmark.contacts.table import Contact
from distmark.engine.table import EarlierPosition, VersionMove
from distmark.enrollments.bulk import RESUMED, change, count, set_each
from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.suspensions import is_held, pause_entrants
from distmark.enrollments.table import Enrollment
from distmark.errors import DistmarkError, InvalidInput, NotFound, Refused
from distmark.journeys.findings import closest
from distmark.journeys.model import Act, Decision, End, Facts, SendMessage, Sleep, Why
from distmark.journeys.program import Program
from distmark.journeys.service import get_journey, program_of, versions_of
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.journeys.walk import Position, leaving, walk
from distmark.partners.attributes import brand_attributes, partner_attributes
from distmark.partners.model import Permission, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import require
from distmark.partners.table import Brand, Partner
from distmark.segments.membership import segment_keys_of
from distmark.sql import among, id_of, row_count

BATCH = 500
Look = Callable[[Session, Sequence[Enrollment], datetime], Mapping[int, Facts]]
"""Gathers what the new version's rules may look at; by enrollment id."""

_POSITION = ("version_id", "step_id", "arrived_at", "visits", "due_at", "why", "awaits", "rules", "names", "answers", "woken_at")
_TIMES = ("arrived_at", "due_at", "woken_at")


@dataclass(slots=True)
class StepMove:
    """Those who stand at `step_id` and would stand at `to` ("": at the start). `at_once` of them would not wait there."""

    step_id: str
    to: str
    people: int = 0
    at_once: int = 0


@dataclass(slots=True)
class MovePlan:
    """What a move does. `messages` counts, by its step, who would get a message at once; `leaving` whom the new version's rules would end.

    `unmapped` stand where the new version has no place. `busy` are on their way or being retried right now and stay, to be moved a moment
    later; `finished` have ended and are never moved.
    """

    journey: str
    from_number: int
    to_number: int
    steps: dict[str, StepMove] = field(default_factory=dict)
    messages: Counter[str] = field(default_factory=Counter)
    unmapped: Counter[str] = field(default_factory=Counter)
    leaving: int = 0
    busy: int = 0
    finished: int = 0

    @property
    def people(self) -> int:
        """How many would move."""
        return sum(step.people for step in self.steps.values())

    @property
    def at_once(self) -> int:
        """How many would not wait where they come to stand."""
        return sum(step.at_once for step in self.steps.values())


@dataclass(frozen=True, slots=True)
class Undone:
    """What going back did: `back` stand where they stood, `gone` had gone on since and stay."""

    back: int
    gone: int


@dataclass(frozen=True, slots=True)
class _Route:
    """The two versions and the way from one to the other."""

    journey: Journey
    old: JourneyVersion
    new: JourneyVersion
    before: Program
    after: Program
    places: Mapping[str, str]  # step of the old version -> step of the new one


@dataclass(frozen=True, slots=True)
class _Moved:
    """One enrollment at its new place, not stored, and what the new version decides about it now.

    `wait` is the wait that it goes on with there. Without one it goes on at once, unless it keeps its time.
    """

    row: Enrollment
    old: Mapping[str, Any]
    keeps_time: bool
    wait: Sleep | None = None
    decision: Decision | None = None


def plan_move(
    session: Session,
    viewer: Viewer,
    key: str,
    from_number: int,
    to_number: int,
    mapping: Mapping[str, str],
    now: datetime,
    look: Look | None = None,
) -> MovePlan:
    """Say what `move` would do now, changing nothing.

    Errors: NotFound for a journey or version, InvalidInput for a step in `mapping` that its version does not have, Refused for a version
    that is not registered.
    """
    route = _route(session, viewer, key, from_number, to_number, mapping)
    plan = _empty_plan(session, route)
    for moved in _all_moved(session, route, plan, now, look or known_facts, lock=False):
        for each in moved:
            _count(plan, each)
    return plan


def move(
    session: Session,
    viewer: Viewer,
    key: str,
    from_number: int,
    to_number: int,
    mapping: Mapping[str, str],
    now: datetime,
    look: Look | None = None,
) -> tuple[VersionMove, MovePlan]:
    """Move everybody inside the one version to the other, and return the act, for `undo_move`, with what it did.

    A step keeps its people when the new version has one of the same name and kind; `mapping` says it for the others. Waits go on: how long
    somebody has been waiting counts, by the new version's rule. Messages already sent answer for the steps that theirs became.
    Errors: as `plan_move`, and Refused when somebody stands at a step without a place in the new version, or nobody can be moved.
    """
    route = _route(session, viewer, key, from_number, to_number, mapping)
    plan = _empty_plan(session, route)
    act = _open_act(session, viewer, route, now)
    for moved in _all_moved(session, route, plan, now, look or known_facts, lock=True):
        for each in moved:
            _count(plan, each)
        if not plan.unmapped:
            _write(session, viewer, route, act, moved, now)
    _refuse_unmapped(plan)
    if not plan.people:
        raise Refused(
            f"Nobody can be moved from version {from_number} of {key} now: {plan.busy} are on their way, {plan.finished} have ended."
        )
    act.moved = plan.people
    session.add(act)
    told = {"from": from_number, "to": to_number, "count": plan.people, "steps": dict(mapping), "move": act.id}
    record(session, viewer.brand_id, viewer.user_id, "moved", "journey_version", id_of(route.old), now, route.new.content_hash, **told)
    return act, plan


def undo_move(session: Session, viewer: Viewer, move_id: int, now: datetime) -> Undone:
    """Put those who have not woken since the move back where they stood, and return how many. NotFound; Refused when it is too late."""
    require(viewer, Permission.register_journeys)
    act = session.exec(visible(select(VersionMove), VersionMove, viewer).where(VersionMove.id == move_id).with_for_update()).first()
    if act is None:
        raise NotFound(f"There is no move {move_id} among yours.")
    if act.undone_at is not None:
        raise Refused(f"Move {move_id} has been undone already.")
    back = 0
    for rows in _still_there(session, act):
        told = {"undone": act.id, "by": viewer.user_id}
        set_each(session, [_restored(earlier, enrollment_id) for earlier, enrollment_id in rows], {}, TimelineKind.moved, now, told)
        back += len(rows)
        # Whom the new version's pause caught with the move, it lets go with the way back.
        caught = [
            among(session, col(Enrollment.id), [enrollment_id for _earlier, enrollment_id in rows]),
            col(Enrollment.paused_at) == act.at,
        ]
        change(session, [*caught, col(Enrollment.status) == EnrollmentStatus.paused, ~is_held()], RESUMED, TimelineKind.resumed, now, told)
    if not back:
        raise Refused(f"Everybody of move {move_id} has gone on since; move them back with a map of their steps.")
    session.execute(delete(EarlierPosition).where(col(EarlierPosition.version_move_id) == act.id))
    act.undone_at = now
    session.add(act)
    record(session, act.brand_id, viewer.user_id, "move_undone", "journey_version", act.from_version_id, now, None, move=act.id, count=back)
    return Undone(back, act.moved - back)


def moves_of(session: Session, viewer: Viewer, journey_id: int) -> list[VersionMove]:
    """Return the moves between versions of the journey, newest first."""
    statement = visible(select(VersionMove), VersionMove, viewer).where(VersionMove.journey_id == journey_id)
    return list(session.exec(statement.order_by(col(VersionMove.id).desc())))


def forget_positions(session: Session) -> int:
    """Forget where those stood before a move who have woken since, and return how many."""
    woken = select(EarlierPosition.id).join(Enrollment, col(Enrollment.id) == EarlierPosition.enrollment_id)
    gone = woken.where((col(Enrollment.wakes) != EarlierPosition.wakes) | (col(Enrollment.status) == EnrollmentStatus.ended))
    result = session.execute(delete(EarlierPosition).where(col(EarlierPosition.id).in_(gone)).execution_options(synchronize_session=False))
    return row_count(result)


# --- the way --------------------------------------------------------------------------------------------------------------------------


def _route(session: Session, viewer: Viewer, key: str, from_number: int, to_number: int, mapping: Mapping[str, str]) -> _Route:
    require(viewer, Permission.register_journeys)
    journey = get_journey(session, viewer, key)
    versions = {version.number: version for version in versions_of(session, id_of(journey))}
    for number in (from_number, to_number):
        if number not in versions:
            known = ", ".join(str(each) for each in sorted(versions))
            raise NotFound(f"Journey {key} has no version {number}; it has {known}.")
    old, new = versions[from_number], versions[to_number]
    if old is new:
        raise InvalidInput(f"Both versions are {from_number}; give two different ones.")
    if new.status is not VersionStatus.registered:
        raise Refused(f"Version {to_number} of {key} is {new.status.replace('_', ' ')}; people can only be moved to a registered version.")
    require_sendable(new)
    before, after = program_of(session, id_of(old)), program_of(session, id_of(new))
    return _Route(journey, old, new, before, after, _places(before, after, old, new, mapping))


def _places(before: Program, after: Program, old: JourneyVersion, new: JourneyVersion, mapping: Mapping[str, str]) -> dict[str, str]:
    for steps, version, program in ((mapping.keys(), old, before), (mapping.values(), new, after)):
        for step_id in steps:
            if step_id not in program.steps:
                near = closest(step_id, program.steps)
                hint = f"did you mean {near}?" if near else f"it has {', '.join(program.steps)}."
                raise InvalidInput(f"Version {version.number} has no step {step_id}; {hint}")
    same = {step_id: step_id for step_id in before.steps if step_id in after.steps and before.kind(step_id) == after.kind(step_id)}
    return same | dict(mapping)


def _empty_plan(session: Session, route: _Route) -> MovePlan:
    ended = [col(Enrollment.version_id) == route.old.id, col(Enrollment.status) == EnrollmentStatus.ended]
    return MovePlan(route.journey.key, route.old.number, route.new.number, finished=count(session, ended))


def _refuse_unmapped(plan: MovePlan) -> None:
    if plan.unmapped:
        where = ", ".join(f"{step_id} ({people})" for step_id, people in plan.unmapped.items())
        raise Refused(f"Version {plan.to_number} has no place for those at {where}; say where they go with a map of these steps.")


# --- the people -----------------------------------------------------------------------------------------------------------------------


def _all_moved(session: Session, route: _Route, plan: MovePlan, now: datetime, look: Look, *, lock: bool) -> Iterator[list[_Moved]]:
    """Iterate over everybody who can be moved, at their new places, in batches; count in `plan` who cannot."""
    inside = [col(Enrollment.version_id) == route.old.id, col(Enrollment.status) != EnrollmentStatus.ended]
    free = [*inside, col(Enrollment.claimed_by).is_(None)]
    seen = 0
    plan.busy += count(session, inside)
    for rows in _pages(session, free, lock):
        plan.busy -= len(rows)
        seen += len(rows)
        going = [row for row in rows if _goes(route, plan, row)]
        if going:
            yield _at_new_places(session, route, going, now, look)


def _pages(session: Session, where: Sequence[ColumnElement[bool]], lock: bool) -> Iterator[list[Enrollment]]:
    last = 0
    while True:
        page = select(Enrollment).where(*where, col(Enrollment.id) > last).order_by(col(Enrollment.id)).limit(BATCH)
        # Passing over what a wake has locked: waiting for it with rows locked could end one of the two.
        statement = page.with_for_update(skip_locked=True) if lock else page
        rows = list(session.exec(statement, execution_options={"populate_existing": True}))
        if not rows:
            return
        last = id_of(rows[-1])
        for row in rows:
            session.expunge(row)  # they are changed in memory only, to be looked at
        yield rows


def _goes(route: _Route, plan: MovePlan, row: Enrollment) -> bool:
    if row.step_id is None:
        return True
    to = route.places.get(row.step_id)
    if to is None:
        plan.unmapped[row.step_id] += 1
        return False
    if to != row.step_id and _is_begun(route, row):
        plan.busy += 1
        return False
    return True


def _is_begun(route: _Route, row: Enrollment) -> bool:
    """Say whether the step may have been begun under its name: under another it would be done a second time."""
    kind = route.before.steps[row.step_id or ""].kind if row.step_id in route.before.steps else "wait"
    return kind not in ("wait", "branch") and row.why != Why.held


def _at_new_places(session: Session, route: _Route, rows: Sequence[Enrollment], now: datetime, look: Look) -> list[_Moved]:
    before = {id_of(row): {name: getattr(row, name) for name in _POSITION} for row in rows}
    for row in rows:
        _place(route, row)
    facts = look(session, rows, now)
    return [_moved(route, row, before[id_of(row)], facts[id_of(row)], now) for row in rows]


def _place(route: _Route, row: Enrollment) -> None:
    """Let the row in memory stand at its place in the new version, with all that it did under the names that its steps have there."""
    row.names = _names(row.names, row.version_id, route.places)
    row.version_id = id_of(route.new)
    row.visits = _visits(row.visits, route.places)
    row.answers = {route.places.get(step_id, step_id): answer for step_id, answer in row.answers.items()}
    row.step_id = route.places[row.step_id] if row.step_id is not None else None


def _names(names: Mapping[str, Any] | None, version_id: int, places: Mapping[str, str]) -> dict[str, Any] | None:
    earlier = {version: {step: places.get(now, now) for step, now in steps.items()} for version, steps in (names or {}).items()}
    # A step that an earlier version called as this one does was not in `names`, and may get another name now.
    renamed = {step: to for step, to in places.items() if step != to}
    for version, steps in earlier.items():
        earlier[version] = {**renamed, **steps}
    if renamed:
        earlier[str(version_id)] = renamed
    return earlier or None


def _visits(visits: Mapping[str, int], places: Mapping[str, str]) -> dict[str, int]:
    """Return how often each step was visited, in the new names.

    Old names keep their counts: a step of the new version that is called like an old one has other messages, and their ledger rows must
    not be mistaken for each other.
    """
    carried = dict(visits)
    for step_id, number in visits.items():
        to = places.get(step_id, step_id)
        carried[to] = max(carried.get(to, 0), number)
    return carried


def _moved(route: _Route, row: Enrollment, old: Mapping[str, Any], facts: Facts, now: datetime) -> _Moved:
    held_later = row.due_at is not None and row.due_at > now and row.why in (Why.held, Why.retry)
    if row.step_id is None or held_later:
        return _Moved(row, old, keeps_time=True)
    try:
        ended = leaving(route.after, facts, now)
        if ended is not None:
            return _Moved(row, old, keeps_time=False, decision=ended)
        walked = walk(route.after, Position(row.step_id, row.arrived_at or now, row.visits), facts, now)
    except DistmarkError:
        return _Moved(row, old, keeps_time=False)  # what is wrong shows when it wakes
    stays = not walked.trace and isinstance(walked.decision, Sleep)
    wait = walked.decision if stays and isinstance(walked.decision, Sleep) else None
    return _Moved(row, old, keeps_time=False, wait=wait, decision=walked.decision)


def _count(plan: MovePlan, each: _Moved) -> None:
    old = str(each.old["step_id"] or "")
    step = plan.steps.setdefault(old, StepMove(old, each.row.step_id or ""))
    step.people += 1
    if each.keeps_time or each.wait is not None or each.row.status is not EnrollmentStatus.waiting:
        return
    step.at_once += 1
    if isinstance(each.decision, Act) and isinstance(each.decision.effect, SendMessage):
        plan.messages[each.decision.effect.step_id] += 1
    plan.leaving += isinstance(each.decision, End)


def known_facts(session: Session, rows: Sequence[Enrollment], now: datetime) -> dict[int, Facts]:
    """Return what this room knows of people: their data, not what they were sent and did. A wake, which knows all, has the last word."""
    people = _by_id(session, Contact, {row.contact_id for row in rows})
    partners = _by_id(session, Partner, {row.partner_id for row in rows})
    campaigns = _by_id(session, Campaign, {row.campaign_id for row in rows if row.campaign_id})
    brands = _by_id(session, Brand, {row.brand_id for row in rows})
    segments = segment_keys_of(session, list(people.values()), now)
    definitions = {version_id: program_of(session, version_id).definition for version_id in {row.version_id for row in rows}}
    return {
        id_of(row): Facts(
            contact=attributes_of(people[row.contact_id], definitions[row.version_id].contact_fields),
            journey=typed(row.data, definitions[row.version_id].journey_fields),
            partner=partner_attributes(partners[row.partner_id]),
            campaign=campaign_attributes(campaigns.get(row.campaign_id or 0)),
            brand=brand_attributes(brands[row.brand_id]),
            segments=segments[row.contact_id],
            random_key=f"{row.run_key}:{row.contact_id}",
            answers=row.answers,
            entered_at=row.entered_at,
        )
        for row in rows
    }


def _by_id(session: Session, table: Any, ids: set[int]) -> dict[int, Any]:
    return {row.id: row for row in session.exec(select(table).where(among(session, table.id, ids)))} if ids else {}


# --- writing --------------------------------------------------------------------------------------------------------------------------


def _open_act(session: Session, viewer: Viewer, route: _Route, now: datetime) -> VersionMove:
    act = VersionMove(
        brand_id=viewer.brand_id,
        journey_id=id_of(route.journey),
        from_version_id=id_of(route.old),
        to_version_id=id_of(route.new),
        steps=dict(route.places),
        by_id=viewer.user_id,
        at=now,
    )
    session.add(act)
    session.flush()
    return act


def _write(session: Session, viewer: Viewer, route: _Route, act: VersionMove, moved: Sequence[_Moved], now: datetime) -> None:
    session.execute(insert(EarlierPosition), [_remembered(act, each) for each in moved])
    told = {"from": route.old.number, "to": route.new.number, "move": act.id, "by": viewer.user_id}
    for step_id in dict.fromkeys(each.row.step_id for each in moved):
        rows = [_timed(each, now) for each in moved if each.row.step_id == step_id]
        set_each(session, rows, {}, TimelineKind.moved, now, told | {"step": step_id})
    pause_entrants(session, act.brand_id, [id_of(each.row) for each in moved], now)


def _remembered(act: VersionMove, each: _Moved) -> dict[str, Any]:
    position = {name: at.isoformat() if isinstance(at := each.old[name], datetime) else at for name in _POSITION}
    return {"version_move_id": act.id, "enrollment_id": each.row.id, "wakes": each.row.wakes, "position": position}


def _timed(each: _Moved, now: datetime) -> dict[str, Any]:
    row = {"id": each.row.id, **{name: getattr(each.row, name) for name in _POSITION}}
    if each.keeps_time or each.row.status is EnrollmentStatus.parked:
        return row
    wait = each.wait
    if wait is not None and not (each.row.woken_at is not None and each.row.woken_at <= now):
        # Its run sleeps until the old time: at the new one it is called.
        return row | {"due_at": wait.until, "why": wait.why.value, "awaits": wait.event, "rules": list(wait.rules), "woken_at": wait.until}
    return row | {"due_at": now, "woken_at": now}


def _still_there(session: Session, act: VersionMove) -> Iterator[list[tuple[EarlierPosition, int]]]:
    last = 0
    while True:
        there = (
            select(EarlierPosition, Enrollment.id)
            .join(Enrollment, col(Enrollment.id) == EarlierPosition.enrollment_id)
            .where(
                EarlierPosition.version_move_id == act.id,
                col(Enrollment.wakes) == EarlierPosition.wakes,
                Enrollment.version_id == act.to_version_id,
                Enrollment.status != EnrollmentStatus.ended,
                col(Enrollment.claimed_by).is_(None),
                col(Enrollment.id) > last,
            )
            .order_by(col(Enrollment.id))
            .limit(BATCH)
            .with_for_update(of=Enrollment, skip_locked=True)
        )
        rows = [(earlier, enrollment_id or 0) for earlier, enrollment_id in session.exec(there)]
        if not rows:
            return
        yield rows
        last = rows[-1][1]


def _restored(earlier: EarlierPosition, enrollment_id: int) -> dict[str, Any]:
    position = {name: datetime.fromisoformat(value) if name in _TIMES and value else value for name, value in earlier.position.items()}
    # Its run may sleep until the time that the new version gave it.
    return {"id": enrollment_id, **position, "woken_at": position["woken_at"] or position["due_at"]}
