"""Moves of live enrollments from one version of a journey to another: planned (which steps, which messages at once), done, and undone.

An enrollment stays in its version unless it is moved. Ended enrollments are never moved, so a step added at the end of a journey reaches
only the contacts that are still inside.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from sqlalchemy import ColumnElement, delete, insert
from sqlmodel import Session, col, select

from distmark.campaigns.table import Campaign
from distmark.compliance.service import record, require_sendable
from distmark.contacts.table import Contact
from distmark.engine.table import EarlierPosition, VersionMove
from distmark.enrollments.bulk import RESUMED, change, count, set_each
from distmark.enrollments.facts import enrollment_facts
from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.shown import changed
from distmark.enrollments.suspensions import is_held, pause_entrants
from distmark.enrollments.table import Enrollment
from distmark.errors import DistmarkError, InvalidInput, NotFound, Refused
from distmark.journeys.findings import closest
from distmark.journeys.model import Act, Decision, End, Facts, SendMessage, Sleep, Why
from distmark.journeys.program import Program
from distmark.journeys.service import get_journey, program_of, versions_of
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.journeys.walk import Position, leaving, walk
from distmark.partners.model import Permission, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import require
from distmark.partners.table import Brand, Partner
from distmark.segments.membership import segment_keys_of
from distmark.sql import among, by_id, id_of, row_count

BATCH = 500
GatherFacts = Callable[[Session, Sequence[Enrollment], datetime], Mapping[int, Facts]]
"""A function that returns the facts of enrollments, by enrollment id, for the rules of the new version."""

_POSITION = ("version_id", "step_id", "arrived_at", "visits", "due_at", "why", "awaits", "rules", "names", "answers", "woken_at")
_TIMES = ("arrived_at", "due_at", "woken_at")


@dataclass(slots=True)
class StepMove:
    """The enrollments at `step_id` that move to `to` ("": the start). `people` counts them, `at_once` those that would not wait there."""

    step_id: str
    to: str
    people: int = 0
    at_once: int = 0


@dataclass(slots=True)
class MovePlan:
    """The effect of a move, in counts of enrollments.

    `messages` counts the messages sent at once, by step; `leaving` the enrollments that the new version's rules would end; `unmapped` those
    at steps without a place in the new version. `busy` enrollments are awake or being retried and stay, to be moved a moment later.
    `finished` ones have ended and are never moved.
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
        """The count of enrollments that would move."""
        return sum(step.people for step in self.steps.values())

    @property
    def at_once(self) -> int:
        """The count of enrollments that would not wait at their new step."""
        return sum(step.at_once for step in self.steps.values())


@dataclass(frozen=True, slots=True)
class ShownMove:
    """The counts of a plan that a person saw before the move: enrollments that move, messages at once, and enrollments that end."""

    people: int
    messages: int
    leaving: int

    @classmethod
    def of(cls, plan: MovePlan) -> Self:
        """Return the counts of this plan."""
        return cls(plan.people, sum(plan.messages.values()), plan.leaving)

    def covers(self, plan: MovePlan) -> bool:
        """Return whether the plan moves, writes to and ends no more than was shown."""
        now = ShownMove.of(plan)
        return now.people <= self.people and now.messages <= self.messages and now.leaving <= self.leaving


@dataclass(frozen=True, slots=True)
class UndoResult:
    """The effect of undoing a move: `back` enrollments were put back, `gone` had woken since and stay."""

    back: int
    gone: int


@dataclass(frozen=True, slots=True)
class _VersionPair:
    """The two versions of a move, and the place in the new one for steps of the old one."""

    journey: Journey
    old: JourneyVersion
    new: JourneyVersion
    before: Program
    after: Program
    step_map: Mapping[str, str]  # step of the old version -> step of the new one


@dataclass(frozen=True, slots=True)
class _Moved:
    """One enrollment at its new step, not stored yet, and the new version's decision about it now.

    With `wait` it waits on there. Without, it wakes at once, unless it keeps its due time.
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
    gather_facts: GatherFacts | None = None,
) -> MovePlan:
    """Return the plan of a move made now, and change nothing.

    Errors: NotFound for a journey or version, InvalidInput for a step in `mapping` that its version does not have, Refused for a version
    that is not registered.
    """
    pair = _version_pair(session, viewer, key, from_number, to_number, mapping)
    plan = _empty_plan(session, pair)
    for moved in _move_candidates(session, pair, plan, now, gather_facts or known_facts, lock=False):
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
    gather_facts: GatherFacts | None = None,
    shown: ShownMove | None = None,
) -> tuple[VersionMove, MovePlan]:
    """Move every live enrollment of the one version to the other, and return the move, for `undo_move`, with its counts.

    An enrollment stays at its step when the new version has one of the same name and kind; `mapping` gives the new step for the others.
    Waits go on: the time already waited counts, by the new version's rule. A message already sent counts for the step that its step became.
    Errors: those of `plan_move`; Refused when an enrollment is at a step without a place in the new version, or none can be moved;
    SelectionChanged when the move would do more than was `shown`.
    """
    pair = _version_pair(session, viewer, key, from_number, to_number, mapping)
    plan = _empty_plan(session, pair)
    version_move = _open_act(session, viewer, pair, now)
    for moved in _move_candidates(session, pair, plan, now, gather_facts or known_facts, lock=True):
        for each in moved:
            _count(plan, each)
        if not plan.unmapped:
            _write(session, viewer, pair, version_move, moved, now)
    _refuse_unmapped(plan)
    if not plan.people:
        raise Refused(
            f"Nobody can be moved from version {from_number} of {key} now: {plan.busy} are on their way, {plan.finished} have ended."
        )
    if shown is not None and not shown.covers(plan):
        raise changed(plan.people, shown.people)
    version_move.moved = plan.people
    session.add(version_move)
    detail = {"from": from_number, "to": to_number, "count": plan.people, "steps": dict(mapping), "move": version_move.id}
    record(session, viewer.brand_id, viewer.user_id, "moved", "journey_version", id_of(pair.old), now, pair.new.content_hash, **detail)
    return version_move, plan


def undo_move(session: Session, viewer: Viewer, move_id: int, now: datetime) -> UndoResult:
    """Put the enrollments that have not woken since the move back to their old positions, and return the counts.

    Errors: NotFound for a move of another brand, Refused when it was undone already or every enrollment has woken since.
    """
    require(viewer, Permission.register_journeys)
    version_move = session.exec(
        visible(select(VersionMove), VersionMove, viewer).where(VersionMove.id == move_id).with_for_update()
    ).first()
    if version_move is None:
        raise NotFound(f"There is no move {move_id} among yours.")
    if version_move.undone_at is not None:
        raise Refused(f"Move {move_id} has been undone already.")
    back = 0
    for rows in _not_woken_since(session, version_move):
        detail = {"undone": version_move.id, "by": viewer.user_id}
        set_each(session, [_restored(earlier, enrollment_id) for earlier, enrollment_id in rows], {}, TimelineKind.moved, now, detail)
        back += len(rows)
        # An enrollment that was paused by the move, since the new version is paused, is resumed by undoing it.
        paused_by_move = [
            among(session, col(Enrollment.id), [enrollment_id for _earlier, enrollment_id in rows]),
            col(Enrollment.paused_at) == version_move.at,
        ]
        change(
            session,
            [*paused_by_move, col(Enrollment.status) == EnrollmentStatus.paused, ~is_held()],
            RESUMED,
            TimelineKind.resumed,
            now,
            detail,
        )
    if not back:
        raise Refused(f"Everybody of move {move_id} has gone on since; move them back with a map of their steps.")
    session.execute(delete(EarlierPosition).where(col(EarlierPosition.version_move_id) == version_move.id))
    version_move.undone_at = now
    session.add(version_move)
    record(
        session,
        version_move.brand_id,
        viewer.user_id,
        "move_undone",
        "journey_version",
        version_move.from_version_id,
        now,
        None,
        move=version_move.id,
        count=back,
    )
    return UndoResult(back, version_move.moved - back)


def moves_of(session: Session, viewer: Viewer, journey_id: int) -> list[VersionMove]:
    """Return the moves between versions of the journey, newest first."""
    statement = visible(select(VersionMove), VersionMove, viewer).where(VersionMove.journey_id == journey_id)
    return list(session.exec(statement.order_by(col(VersionMove.id).desc())))


def forget_positions(session: Session) -> int:
    """Delete the earlier positions of enrollments that have woken since their move, and return how many."""
    woken = select(EarlierPosition.id).join(Enrollment, col(Enrollment.id) == EarlierPosition.enrollment_id)
    obsolete = woken.where((col(Enrollment.wakes) != EarlierPosition.wakes) | (col(Enrollment.status) == EnrollmentStatus.ended))
    result = session.execute(
        delete(EarlierPosition).where(col(EarlierPosition.id).in_(obsolete)).execution_options(synchronize_session=False)
    )
    return row_count(result)


# --- versions and steps ------------------------------------------------------------------------------------------------------------------


def _version_pair(session: Session, viewer: Viewer, key: str, from_number: int, to_number: int, mapping: Mapping[str, str]) -> _VersionPair:
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
    return _VersionPair(journey, old, new, before, after, _step_map(before, after, old, new, mapping))


def _step_map(before: Program, after: Program, old: JourneyVersion, new: JourneyVersion, mapping: Mapping[str, str]) -> dict[str, str]:
    for steps, version, program in ((mapping.keys(), old, before), (mapping.values(), new, after)):
        for step_id in steps:
            if step_id not in program.steps:
                near = closest(step_id, program.steps)
                hint = f"did you mean {near}?" if near else f"it has {', '.join(program.steps)}."
                raise InvalidInput(f"Version {version.number} has no step {step_id}; {hint}")
    same = {step_id: step_id for step_id in before.steps if step_id in after.steps and before.kind(step_id) == after.kind(step_id)}
    return same | dict(mapping)


def _empty_plan(session: Session, pair: _VersionPair) -> MovePlan:
    ended = [col(Enrollment.version_id) == pair.old.id, col(Enrollment.status) == EnrollmentStatus.ended]
    return MovePlan(pair.journey.key, pair.old.number, pair.new.number, finished=count(session, ended))


def _refuse_unmapped(plan: MovePlan) -> None:
    if plan.unmapped:
        where = ", ".join(f"{step_id} ({people})" for step_id, people in plan.unmapped.items())
        raise Refused(f"Version {plan.to_number} has no place for those at {where}; say where they go with a map of these steps.")


# --- enrollments -------------------------------------------------------------------------------------------------------------------------


def _move_candidates(
    session: Session, pair: _VersionPair, plan: MovePlan, now: datetime, gather_facts: GatherFacts, *, lock: bool
) -> Iterator[list[_Moved]]:
    """Yield batches of the enrollments that can be moved, at their new steps; count the others in `plan`."""
    inside = [col(Enrollment.version_id) == pair.old.id, col(Enrollment.status) != EnrollmentStatus.ended]
    free = [*inside, col(Enrollment.claimed_by).is_(None)]
    seen = 0
    plan.busy += count(session, inside)
    for rows in _pages(session, free, lock):
        plan.busy -= len(rows)
        seen += len(rows)
        movable = [row for row in rows if _can_move(pair, plan, row)]
        if movable:
            yield _decided(session, pair, movable, now, gather_facts)


def _pages(session: Session, where: Sequence[ColumnElement[bool]], lock: bool) -> Iterator[list[Enrollment]]:
    last = 0
    while True:
        page = select(Enrollment).where(*where, col(Enrollment.id) > last).order_by(col(Enrollment.id)).limit(BATCH)
        # Rows locked by a wake are skipped: waiting for them with other rows locked could deadlock.
        statement = page.with_for_update(skip_locked=True) if lock else page
        rows = list(session.exec(statement, execution_options={"populate_existing": True}))
        if not rows:
            return
        last = id_of(rows[-1])
        for row in rows:
            session.expunge(row)  # changed in memory only, for the new version's decision
        yield rows


def _can_move(pair: _VersionPair, plan: MovePlan, row: Enrollment) -> bool:
    if row.step_id is None:
        return True
    to = pair.step_map.get(row.step_id)
    if to is None:
        plan.unmapped[row.step_id] += 1
        return False
    if to != row.step_id and _may_have_begun(pair, row):
        plan.busy += 1
        return False
    return True


def _may_have_begun(pair: _VersionPair, row: Enrollment) -> bool:
    """Return whether the effect of the step may have begun. Its key holds the step's name, so under another name it would happen twice."""
    kind = pair.before.steps[row.step_id or ""].kind if row.step_id in pair.before.steps else "wait"
    return kind not in ("wait", "branch") and row.why != Why.held


def _decided(session: Session, pair: _VersionPair, rows: Sequence[Enrollment], now: datetime, gather_facts: GatherFacts) -> list[_Moved]:
    before = {id_of(row): {name: getattr(row, name) for name in _POSITION} for row in rows}
    for row in rows:
        _put_in_version(pair, row)
    facts = gather_facts(session, rows, now)
    return [_moved(pair, row, before[id_of(row)], facts[id_of(row)], now) for row in rows]


def _put_in_version(pair: _VersionPair, row: Enrollment) -> None:
    """Change the row in memory: the new version, its new step, and its visits, answers and messages under the new names of their steps."""
    row.names = _names(row.names, row.version_id, pair.step_map)
    row.version_id = id_of(pair.new)
    row.visits = _visits(row.visits, pair.step_map)
    row.answers = {pair.step_map.get(step_id, step_id): answer for step_id, answer in row.answers.items()}
    row.step_id = pair.step_map[row.step_id] if row.step_id is not None else None


def _names(names: Mapping[str, Any] | None, version_id: int, step_map: Mapping[str, str]) -> dict[str, Any] | None:
    earlier = {version: {step: step_map.get(now, now) for step, now in steps.items()} for version, steps in (names or {}).items()}
    # A step that has the same name in an earlier version is not in `names` yet, and may get another name now.
    renamed = {step: to for step, to in step_map.items() if step != to}
    for version, steps in earlier.items():
        earlier[version] = {**renamed, **steps}
    if renamed:
        earlier[str(version_id)] = renamed
    return earlier or None


def _visits(visits: Mapping[str, int], step_map: Mapping[str, str]) -> dict[str, int]:
    """Return the count of visits to each step, by its new name.

    Old names keep their counts: a step of the new version with the name of an old step has other messages, and counting visits on keeps
    their ledger rows apart.
    """
    carried = dict(visits)
    for step_id, number in visits.items():
        to = step_map.get(step_id, step_id)
        carried[to] = max(carried.get(to, 0), number)
    return carried


def _moved(pair: _VersionPair, row: Enrollment, old: Mapping[str, Any], facts: Facts, now: datetime) -> _Moved:
    held_later = row.due_at is not None and row.due_at > now and row.why in (Why.held, Why.retry)
    if row.step_id is None or held_later:
        return _Moved(row, old, keeps_time=True)
    try:
        ended = leaving(pair.after, facts, now)
        if ended is not None:
            return _Moved(row, old, keeps_time=False, decision=ended)
        walked = walk(pair.after, Position(row.step_id, row.arrived_at or now, row.visits), facts, now)
    except DistmarkError:
        return _Moved(row, old, keeps_time=False)  # the error is recorded when the enrollment wakes
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
    """Return facts of data alone, without messages and events, by enrollment id: estimates, since a wake decides with all facts."""
    people = by_id(session, Contact, {row.contact_id for row in rows})
    partners = by_id(session, Partner, {row.partner_id for row in rows})
    campaigns = by_id(session, Campaign, {row.campaign_id for row in rows if row.campaign_id})
    brands = by_id(session, Brand, {row.brand_id for row in rows})
    segments = segment_keys_of(session, list(people.values()), now)
    definitions = {version_id: program_of(session, version_id).definition for version_id in {row.version_id for row in rows}}
    return {
        id_of(row): enrollment_facts(
            definitions[row.version_id],
            row,
            people[row.contact_id],
            partners[row.partner_id],
            None if row.campaign_id is None else campaigns.get(row.campaign_id),
            brands[row.brand_id],
            segments[row.contact_id],
        )
        for row in rows
    }


# --- writing -----------------------------------------------------------------------------------------------------------------------------


def _open_act(session: Session, viewer: Viewer, pair: _VersionPair, now: datetime) -> VersionMove:
    version_move = VersionMove(
        brand_id=viewer.brand_id,
        journey_id=id_of(pair.journey),
        from_version_id=id_of(pair.old),
        to_version_id=id_of(pair.new),
        steps=dict(pair.step_map),
        by_id=viewer.user_id,
        at=now,
    )
    session.add(version_move)
    session.flush()
    return version_move


def _write(session: Session, viewer: Viewer, pair: _VersionPair, version_move: VersionMove, moved: Sequence[_Moved], now: datetime) -> None:
    session.execute(insert(EarlierPosition), [_earlier_position(version_move, each) for each in moved])
    detail = {"from": pair.old.number, "to": pair.new.number, "move": version_move.id, "by": viewer.user_id}
    for step_id in dict.fromkeys(each.row.step_id for each in moved):
        rows = [_new_values(each, now) for each in moved if each.row.step_id == step_id]
        set_each(session, rows, {}, TimelineKind.moved, now, detail | {"step": step_id})
    pause_entrants(session, version_move.brand_id, [id_of(each.row) for each in moved], now)


def _earlier_position(version_move: VersionMove, each: _Moved) -> dict[str, Any]:
    position = {name: at.isoformat() if isinstance(at := each.old[name], datetime) else at for name in _POSITION}
    return {"version_move_id": version_move.id, "enrollment_id": each.row.id, "wakes": each.row.wakes, "position": position}


def _new_values(each: _Moved, now: datetime) -> dict[str, Any]:
    row = {"id": each.row.id, **{name: getattr(each.row, name) for name in _POSITION}}
    if each.keeps_time or each.row.status is EnrollmentStatus.parked:
        return row
    wait = each.wait
    if wait is not None and not (each.row.woken_at is not None and each.row.woken_at <= now):
        # Its run sleeps in Prefect until the old time, so it is woken at the new one.
        return row | {"due_at": wait.until, "why": wait.why.value, "awaits": wait.event, "rules": list(wait.rules), "woken_at": wait.until}
    return row | {"due_at": now, "woken_at": now}


def _not_woken_since(session: Session, version_move: VersionMove) -> Iterator[list[tuple[EarlierPosition, int]]]:
    last = 0
    while True:
        there = (
            select(EarlierPosition, Enrollment.id)
            .join(Enrollment, col(Enrollment.id) == EarlierPosition.enrollment_id)
            .where(
                EarlierPosition.version_move_id == version_move.id,
                col(Enrollment.wakes) == EarlierPosition.wakes,
                Enrollment.version_id == version_move.to_version_id,
                Enrollment.status != EnrollmentStatus.ended,
                col(Enrollment.claimed_by).is_(None),
                col(Enrollment.id) > last,
            )
            .order_by(col(Enrollment.id))
            .limit(BATCH)
            .with_for_update(of=Enrollment, skip_locked=True)
        )
        rows = [(earlier, earlier.enrollment_id) for earlier, _enrollment_id in session.exec(there)]
        if not rows:
            return
        yield rows
        last = rows[-1][1]


def _restored(earlier: EarlierPosition, enrollment_id: int) -> dict[str, Any]:
    position = {name: datetime.fromisoformat(value) if name in _TIMES and value else value for name, value in earlier.position.items()}
    # Its run may sleep in Prefect until the time that the new version gave, so it is woken at the old one.
    return {"id": enrollment_id, **position, "woken_at": position["woken_at"] or position["due_at"]}
