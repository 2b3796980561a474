"""What one wake does: the enrollments of a run that are due are walked until each waits again or has ended. Imports no Prefect.

A wake is a series of rounds. In each, every member is walked as far as it goes without an effect; the effects they stop at are done grouped
by step; what came of it is written in one transaction. A crash between two rounds repeats nothing: the position of each member and the
ledger row of each message were written before.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, update
from sqlmodel import Session, col, select

from distmark.clock import Clock
from distmark.db import Database
from distmark.delivery.channel import Channel
from distmark.delivery.service import Handed, Prepared, Readiness, Sender, SendRequest, hand_over, prepare, record_handed
from distmark.enrollments.model import MAX_TRIES, EnrollmentStatus, MoveKind
from distmark.enrollments.service import end
from distmark.enrollments.table import Enrollment, Move
from distmark.errors import NotFound
from distmark.journeys.definition import Kind
from distmark.journeys.model import Act, End, Facts, Outcome, SendMessage, SentFact, Sleep, Why
from distmark.journeys.program import Program
from distmark.journeys.service import program_of, source_of
from distmark.journeys.source import Source
from distmark.journeys.table import JourneyVersion
from distmark.journeys.walk import Position, Trace, leaving, passed, start, walk
from distmark.messages.compose import Person, people_of
from distmark.messages.model import MessageStatus
from flows.effects import EFFECTS, EffectResult
from flows.facts import gather, plain, unsubscribed_among

FOREVER = timedelta(days=3650)
CHECK_AGAIN = timedelta(hours=1)  # a send held for a reason nobody can date (approval withdrawn) looks again then
MAX_ROUNDS = 200
SHOWN_DETAIL = ("arm", "rules", "timeout", "timed_out", "event")  # of a step's decision, on the run's page

_SEND_MOVES = {
    MessageStatus.sent: MoveKind.sent,
    MessageStatus.delivered: MoveKind.sent,
    MessageStatus.bounced: MoveKind.sent,
    MessageStatus.suppressed: MoveKind.suppressed,
    MessageStatus.uncertain: MoveKind.uncertain,
}


@dataclass(frozen=True, slots=True)
class World:
    """What a wake works on and through: our database, the clock, the ways out, and who is working."""

    db: Database
    clock: Clock
    channels: Mapping[str, Channel]
    sender: Sender
    worker: str
    in_threads: bool = True  # database work leaves the event loop free; a simulation turns this off


@dataclass(frozen=True, slots=True)
class StepShown:
    """A step that this wake did, for the run's page. Names no person."""

    step_id: str
    kind: str
    text: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Rest:
    """How the run goes on: asleep until `due_at` (None: until something happens), or over. `text` says which step, why, until when."""

    over: bool
    due_at: datetime | None
    text: str
    step_id: str = ""
    failed: bool = False
    steps: tuple[StepShown, ...] = ()
    walked: int = 0


@dataclass(slots=True)
class _Walker:
    """One member being walked in this wake."""

    row: Enrollment
    person: Person
    facts: Facts
    position: Position
    now: datetime
    unsubscribed: bool
    done: bool = False
    effect: Any = None
    moves: list[Move] = field(default_factory=list)

    @property
    def id(self) -> int:
        return self.row.id or 0

    def note(self, kind: MoveKind, step_id: str, **detail: Any) -> None:
        visit = int(self.position.visits.get(step_id, 1)) if step_id else 1
        self.moves.append(Move(enrollment_id=self.id, at=self.now, kind=kind, step_id=step_id, visit=visit, detail=plain(detail)))


@dataclass(slots=True)
class _Wake:
    """The members of one run that are due, and the version they are in."""

    version: JourneyVersion
    program: Program
    source: Source
    walkers: list[_Walker]
    shown: list[StepShown] = field(default_factory=list)


async def wake(world: World, run_key: str) -> Rest:
    """Advance the members of the run that are due or were woken, and return how the run goes on.

    Safe to repeat at any point. One member's error parks that member after `MAX_TRIES` wakes and touches no other.
    """
    work = await _in_thread(world, _claim, world, run_key)
    if work is not None:
        try:
            await _rounds(world, work)
        finally:
            await _in_thread(world, _release, world, [walker.id for walker in work.walkers])
    return await _in_thread(world, _rest, world, run_key, tuple(work.shown) if work else (), len(work.walkers) if work else 0)


async def _in_thread(world: World, call: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(call, *arguments) if world.in_threads else call(*arguments)


async def _rounds(world: World, work: _Wake) -> None:
    for _round in range(MAX_ROUNDS):
        walkers = [walker for walker in work.walkers if not walker.done]
        if not walkers:
            return
        _walk_all(work, walkers)
        sending = await _in_thread(world, _write_round, world, work, walkers)
        handed = await asyncio.gather(*(_deliver(world, prepared) for prepared in sending))
        if sending:
            await _in_thread(world, _write_sent, world, work, list(zip(sending, handed, strict=True)))


async def _deliver(world: World, prepared: Prepared) -> Handed:
    if prepared.outgoing is None:
        return Handed(MessageStatus.failed, detail="Nothing was rendered.")
    return await hand_over(world.channels, prepared.request.effect.channel, prepared.outgoing)


# --- claiming ---------------------------------------------------------------------------------------------------------------------------


def _claim(world: World, run_key: str) -> _Wake | None:
    now = world.clock.now()
    with world.db.writing() as session:
        claimed = session.execute(
            update(Enrollment)
            .where(
                col(Enrollment.run_key) == run_key,
                col(Enrollment.status) == EnrollmentStatus.waiting,
                col(Enrollment.claimed_by).is_(None),
                or_(col(Enrollment.due_at) <= now, col(Enrollment.woken_at).is_not(None)),
            )
            .values(claimed_by=world.worker, claimed_at=now, woken_at=None, wakes=Enrollment.wakes + 1)
            .returning(col(Enrollment.id))
        )
        ids = [row_id for (row_id,) in claimed]
        # The others of the run have ended or are frozen: their call is answered by this look.
        session.execute(
            update(Enrollment)
            .where(col(Enrollment.run_key) == run_key, col(Enrollment.status) != EnrollmentStatus.waiting)
            .values(woken_at=None)
        )
        if not ids:
            return None
        return _load(world, session, ids)


def _load(world: World, session: Session, ids: Sequence[int]) -> _Wake:
    rows = list(session.exec(select(Enrollment).where(col(Enrollment.id).in_(list(ids))).order_by(col(Enrollment.id))))
    version = session.get(JourneyVersion, rows[0].version_id)
    if version is None or version.id is None:
        raise NotFound(f"Journey version {rows[0].version_id} is gone, but enrollments are in it; restore it from a backup.")
    program, people = program_of(session, version.id), people_of(session, rows)
    facts = gather(session, rows, people, world.clock.now())
    gone = unsubscribed_among(session, people) if program.definition.kind is Kind.marketing else set()
    walkers = [
        _Walker(
            row=row,
            person=people[row.id or 0],
            facts=facts[row.id or 0],
            position=_position(row, program, world.clock),
            now=world.clock.effective(row.due_at),
            unsubscribed=(row.id or 0) in gone,
        )
        for row in rows
    ]
    return _Wake(version, program, source_of(version), walkers)


def _position(row: Enrollment, program: Program, clock: Clock) -> Position:
    if row.step_id is None or row.arrived_at is None:
        return start(program, clock.effective(row.due_at))
    return Position(row.step_id, row.arrived_at, dict(row.visits))


# --- walking ----------------------------------------------------------------------------------------------------------------------------


def _walk_all(work: _Wake, walkers: Sequence[_Walker]) -> None:
    for walker in walkers:
        try:
            _walk_one(work, walker)
        except Exception as error:  # one member's fault is that member's, whatever it is
            _trip(work, walker, error)


def _walk_one(work: _Wake, walker: _Walker) -> None:
    ended = End(Outcome.unsubscribed, "unsubscribed") if walker.unsubscribed else leaving(work.program, walker.facts, walker.now)
    if ended is not None:
        _finish(work, walker, ended)
        return
    walked = walk(work.program, walker.position, walker.facts, walker.now)
    for trace in walked.trace:
        _note_trace(work, walker, trace)
    walker.position = walked.position
    decision = walked.decision
    if isinstance(decision, End):
        _finish(work, walker, decision)
    elif isinstance(decision, Sleep):
        _sleep(work, walker, decision.until, decision.why.value, decision.rules, decision.event)
    elif isinstance(decision, Act):
        walker.effect = decision.effect


def _note_trace(work: _Wake, walker: _Walker, trace: Trace) -> None:
    kind = MoveKind.branched if trace.kind == "branch" else MoveKind.passed
    walker.note(kind, trace.step_id, **trace.detail, to=trace.to)
    told = ", ".join(f"{name}: {value}" for name, value in trace.detail.items() if name in SHOWN_DETAIL)
    work.shown.append(StepShown(trace.step_id, trace.kind, told))


def _finish(work: _Wake, walker: _Walker, ended: End) -> None:
    walker.row.step_id, walker.row.arrived_at, walker.row.visits = _stored(walker.position)
    walker.effect, walker.done = ended, True


def _stored(position: Position) -> tuple[str | None, datetime, dict[str, Any]]:
    return position.step_id, position.arrived_at, dict(position.visits)


def _sleep(work: _Wake, walker: _Walker, until: datetime | None, why: str, rules: Sequence[str], event: str | None) -> None:
    row, step_id = walker.row, walker.position.step_id or ""
    news = (row.step_id, row.due_at, row.why) != (step_id, until, why)
    row.step_id, row.arrived_at, row.visits = _stored(walker.position)
    row.status, row.due_at, row.why, row.rules, row.awaits = EnrollmentStatus.waiting, until, why, list(rules), event
    row.tries, row.error = 0, ""
    walker.effect, walker.done = None, True
    if news:
        kind = MoveKind.held if why in (Why.held, Why.retry) else MoveKind.waiting
        walker.note(kind, step_id, until=until, why=why, rules=list(rules), event=event)


def _trip(work: _Wake, walker: _Walker, error: Exception) -> None:
    row = walker.row
    row.tries += 1
    row.error = f"{type(error).__name__}: {error}"[:500]
    row.step_id, row.arrived_at, row.visits = _stored(walker.position)
    parked = row.tries >= MAX_TRIES
    row.status = EnrollmentStatus.parked if parked else EnrollmentStatus.waiting
    row.due_at, row.why = (None, "parked") if parked else (walker.now + timedelta(minutes=2**row.tries), Why.retry.value)
    walker.effect, walker.done = None, True
    walker.note(MoveKind.error, row.step_id or "", error=row.error, tries=row.tries, parked=parked)
    work.shown.append(StepShown(row.step_id or "", "error", type(error).__name__, failed=True))


# --- writing ----------------------------------------------------------------------------------------------------------------------------


def _write_round(world: World, work: _Wake, walkers: Sequence[_Walker]) -> list[Prepared]:
    """Write where each member got to, do the effects that live in our own database, and claim the messages to hand over."""
    sending: list[Prepared] = []
    with world.db.writing() as session:
        for walker in walkers:
            if isinstance(walker.effect, SendMessage):
                continue
            if walker.effect is not None and not isinstance(walker.effect, End):
                _perform(world, session, work, walker)
            _store(session, walker)
        for group in _by_step(walkers):
            requests = [SendRequest(w.row, w.person, w.effect, w.position.visits.get(w.effect.step_id, 1)) for w in group]
            now = max(walker.now for walker in group)
            prepared = prepare(session, work.version, work.program.definition, work.source, requests, world.sender, world.worker, now)
            for walker, each in zip(group, prepared, strict=True):
                if each.readiness is Readiness.ready:
                    sending.append(each)
                else:
                    _settle_unsent(world, work, walker, each)
                _store(session, walker)
    return sending


def _by_step(walkers: Sequence[_Walker]) -> list[list[_Walker]]:
    groups: dict[tuple[str, str], list[_Walker]] = {}
    for walker in walkers:
        if isinstance(walker.effect, SendMessage):
            groups.setdefault((walker.effect.step_id, walker.effect.channel), []).append(walker)
    return list(groups.values())


_WALKED = ("step_id", "arrived_at", "visits", "due_at", "why", "rules", "awaits", "tries", "error")


def _store(session: Session, walker: _Walker) -> None:
    """Write what this wake decided onto the row as it is now: a person may have paused or stopped it, or news come, meanwhile."""
    row = session.get(Enrollment, walker.id, with_for_update=True, populate_existing=True)
    if row is None:
        raise NotFound(f"Enrollment {walker.id} is gone while it was being walked; restore it from a backup.")
    if row.status is EnrollmentStatus.ended:
        walker.done, walker.effect = True, None
    elif isinstance(walker.effect, End):
        row.step_id, row.arrived_at, row.visits = _stored(walker.position)
        end(session, row, walker.effect.outcome, walker.effect.reason, walker.now)
        walker.effect = None
    else:
        if not walker.done:
            walker.row.step_id, walker.row.arrived_at, walker.row.visits = _stored(walker.position)
        for name in _WALKED:
            setattr(row, name, getattr(walker.row, name))
        if row.status is EnrollmentStatus.waiting:
            row.status = walker.row.status
        session.add(row)
    session.add_all(walker.moves)
    walker.moves = []


def _perform(world: World, session: Session, work: _Wake, walker: _Walker) -> None:
    effect, step_id = walker.effect, walker.effect.step_id
    try:
        with session.begin_nested():
            result: EffectResult = EFFECTS[type(effect)](session, walker.row, walker.person, effect, walker.position, walker.now)
    except Exception as error:  # a poison step parks its own member
        _trip(work, walker, error)
        return
    walker.note(result.move, step_id, **result.detail)
    if result.contact is not None:
        walker.facts = replace(walker.facts, contact=result.contact)
    work.shown.append(StepShown(step_id, work.program.steps[step_id].kind, result.text))
    _pass(work, walker)


def _pass(work: _Wake, walker: _Walker) -> None:
    walker.position = passed(work.program, walker.position, walker.now)
    walker.effect = None
    walker.row.tries, walker.row.error = 0, ""


def _settle_unsent(world: World, work: _Wake, walker: _Walker, prepared: Prepared) -> None:
    step_id = prepared.request.effect.step_id
    if prepared.readiness is Readiness.held:
        _sleep(work, walker, prepared.until or world.clock.in_real(CHECK_AGAIN), Why.held.value, [prepared.reason], None)
        return
    if prepared.readiness is Readiness.skipped:
        walker.note(MoveKind.skipped, step_id, reason=prepared.reason)
        work.shown.append(StepShown(step_id, "send", f"skipped: {prepared.reason}"))
    else:
        _note_status(work, walker, step_id, prepared.status or MessageStatus.failed, prepared.reason)
    _pass(work, walker)


def _note_status(work: _Wake, walker: _Walker, step_id: str, status: MessageStatus, reason: str, code: str = "") -> None:
    walker.note(_SEND_MOVES.get(status, MoveKind.failed), step_id, status=status.value, reason=reason, code=code)
    work.shown.append(StepShown(step_id, "send", status.value, failed=status in (MessageStatus.failed, MessageStatus.rejected)))


def _write_sent(world: World, work: _Wake, handed: Sequence[tuple[Prepared, Handed]]) -> None:
    """Record every answer and move past the step in one transaction."""
    walkers = {walker.id: walker for walker in work.walkers}
    with world.db.writing() as session:
        for prepared, answer in handed:
            walker = walkers[prepared.request.enrollment.id or 0]
            status, retry_at = record_handed(session, prepared, answer, world.clock)
            if retry_at is not None:
                _sleep(work, walker, retry_at, Why.retry.value, [answer.code or "no_answer"], None)
            else:
                _note_status(work, walker, prepared.request.effect.step_id, status, answer.detail[:200], answer.code)
                _pass(work, walker)
                walker.facts = _now_written(walker.facts, prepared.request.effect, status, walker.now)
            _store(session, walker)


def _now_written(facts: Facts, effect: SendMessage, status: MessageStatus, now: datetime) -> Facts:
    """Return the facts with the message just sent among them, so that a step right behind it knows."""
    sent = {**facts.sent, effect.step_id: SentFact(at=now, channel=effect.channel, status=status.value)}
    return replace(facts, sent=sent, written_at=[*facts.written_at, now])


def _release(world: World, ids: Sequence[int]) -> None:
    with world.db.writing() as session:
        session.execute(
            update(Enrollment)
            .where(col(Enrollment.id).in_(list(ids)), col(Enrollment.claimed_by) == world.worker)
            .values(claimed_by=None, claimed_at=None)
        )


# --- the run as a whole -----------------------------------------------------------------------------------------------------------------


def _rest(world: World, run_key: str, shown: tuple[StepShown, ...], walked: int) -> Rest:
    with world.db.reading() as session:
        counts = dict(
            session.exec(
                select(Enrollment.status, func.count()).where(Enrollment.run_key == run_key).group_by(col(Enrollment.status))
            ).all()
        )
        next_row = session.exec(
            select(Enrollment)
            .where(Enrollment.run_key == run_key, Enrollment.status == EnrollmentStatus.waiting)
            .order_by(col(Enrollment.due_at).is_(None), col(Enrollment.due_at))
            .limit(1)
        ).first()
        if next_row is not None:
            return Rest(False, next_row.due_at, _asleep(next_row, counts), next_row.step_id or "", steps=shown, walked=walked)
        if counts.get(EnrollmentStatus.paused):
            return Rest(False, None, "Paused by a person; goes on when resumed.", steps=shown, walked=walked)
        if counts.get(EnrollmentStatus.parked):
            return Rest(
                True,
                None,
                "A step failed again and again; see the enrollment, then retry this run.",
                failed=True,
                steps=shown,
                walked=walked,
            )
        last = session.exec(
            select(Enrollment).where(Enrollment.run_key == run_key).order_by(col(Enrollment.ended_at).desc()).limit(1)
        ).first()
        return Rest(True, None, _over(last, counts), steps=shown, walked=walked)


def _asleep(row: Enrollment, counts: Mapping[EnrollmentStatus, int]) -> str:
    waiting = counts.get(EnrollmentStatus.waiting, 0)
    many = f"{waiting} waiting; next: " if waiting > 1 else ""
    until = f" until {row.due_at:%Y-%m-%d %H:%M} UTC" if row.due_at else ""
    why = {"time": "waits", "event": f"waits for {row.awaits or 'an event'}", "held": "send is held", "retry": "tries again"}.get(
        row.why, "waits"
    )
    rules = f" ({', '.join(str(rule) for rule in row.rules)})" if row.rules else ""
    return f"{many}{row.step_id or 'start'} · {why}{until}{rules}"


def _over(last: Enrollment | None, counts: Mapping[EnrollmentStatus, int]) -> str:
    if last is None:
        return "No enrollment belongs to this run."
    ended = counts.get(EnrollmentStatus.ended, 0)
    reason = f": {last.reason}" if last.reason and last.reason != last.outcome else ""
    return f"{ended} ended; last: {last.outcome}{reason}" if ended > 1 else f"{last.outcome}{reason} at {last.step_id or 'start'}"
