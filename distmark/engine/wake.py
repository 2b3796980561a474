"""What one wake does: the enrollments of a run that are due are walked until each waits again or has ended. Imports no Prefect.

A wake is a series of rounds. In each, every member is walked as far as it goes without an effect. Effects in our own database are done, and
what leaves this machine is claimed, in one transaction; then the errands run with no transaction open; what came of them is written in a
second one. A crash between repeats nothing: the position of each member and the ledger row of each message were written before.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import Table, Update, bindparam, case, func, insert, or_, update
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlmodel import Session, col, select

from distmark.channels.base import Channel
from distmark.clock import Clock, stopwatch
from distmark.db import Database
from distmark.delivery.service import (
    Batch,
    DeliveryResult,
    Prepared,
    Readiness,
    Sender,
    SendRequest,
    deliver,
    lock_people,
    prepare,
    record_results,
)
from distmark.engine.advance import (
    WALKED,
    StepShown,
    Walker,
    Work,
    apply_result,
    move_past_step,
    note_status,
    now_written,
    record_failure,
    settle_external,
    settle_unsent,
    start_waiting,
    stored,
    walk_all,
)
from distmark.engine.effects import EXTERNAL, LOCAL, EffectRequest, EffectResult, Integrations
from distmark.engine.facts import gather, unsubscribed_among
from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.service import ASLEEP, ended_columns
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.errors import NotFound
from distmark.journeys.definition import Kind
from distmark.journeys.model import End, Outcome, SendMessage, Why
from distmark.journeys.program import Program
from distmark.journeys.service import program_of, source_of
from distmark.journeys.table import JourneyVersion
from distmark.journeys.walk import Position, start
from distmark.messages.compose import people_of
from distmark.messages.model import MessageStatus
from distmark.sql import id_of

log = logging.getLogger("distmark.wake")
P = ParamSpec("P")
T = TypeVar("T")

FOREVER = timedelta(days=3650)
MAX_ROUNDS = 200
LOOK_AGAIN = timedelta(minutes=1)  # after a wake that failed as a whole
RETRY_WRITE_SECONDS = 7200.0  # how long a database may be away before what only we know is given up


@dataclass(frozen=True, slots=True)
class EngineContext:
    """What a wake works on and through: our database, the clock, the ways out, and who is working."""

    db: Database
    clock: Clock
    channels: Mapping[str, Channel]
    sender: Sender
    worker: str
    in_threads: bool = True  # database work leaves the event loop free; a simulation turns this off
    outside: Integrations = field(default_factory=Integrations)  # where webhooks and audiences lead; nowhere, unless told


@dataclass(frozen=True, slots=True)
class WakeResult:
    """How the run goes on: asleep until `due_at` (None: until something happens), or over. `text` says which step, why, until when."""

    over: bool
    due_at: datetime | None
    text: str
    step_id: str = ""
    failed: bool = False
    steps: tuple[StepShown, ...] = ()
    walked: int = 0


@dataclass(slots=True)
class _ExternalCall:
    """Something to do with no transaction open, for these members: `go` does it, `settle` records what came of it in the next one."""

    walkers: Sequence[Walker]
    go: Callable[[], Awaitable[Any]]
    settle: Callable[[Any], None]
    prepared: Prepared | None = None  # the message, when one is handed over


async def wake(world: EngineContext, run_key: str) -> WakeResult:
    """Advance the members of the run that are due or were woken, and return how the run goes on.

    Safe to repeat at any point. One member's error parks that member after `MAX_TRIES` wakes and touches no other.
    """
    works: list[Work] = await _in_thread(world, _claim, world, run_key)
    walkers = [walker.id for work in works for walker in work.walkers]
    unheard = True
    try:
        for work in works:
            await _rounds(world, work)
        unheard = False
    finally:
        if walkers:
            await _retry_until_written(world, _release, world, walkers, unheard)
    return await _in_thread(world, wake_result, world, run_key, tuple(shown for work in works for shown in work.shown), len(walkers))


async def _in_thread(world: EngineContext, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    return await asyncio.to_thread(call, *arguments, **named) if world.in_threads else call(*arguments, **named)


async def _retry_until_written(world: EngineContext, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call until the database takes it: what is to be written happened already, and only this process knows."""
    started, pause = stopwatch(), 0.1
    while True:
        try:
            return await _in_thread(world, call, *arguments, **named)
        except (OperationalError, InterfaceError) as error:
            if stopwatch() - started > RETRY_WRITE_SECONDS:
                raise
            log.warning("%s: the database does not answer (%s); trying again", call.__name__, type(error).__name__)
        await asyncio.sleep(pause)
        pause = min(pause * 2, 10.0)


async def _rounds(world: EngineContext, work: Work) -> None:
    for _round in range(MAX_ROUNDS):
        walkers = [walker for walker in work.walkers if not walker.done]
        if not walkers:
            return
        walk_all(work, walkers)
        outings = await _in_thread(world, _write_round, world, work, walkers)
        answers = await asyncio.gather(*(_perform_external(outing) for outing in outings))
        if outings:
            await _retry_until_written(world, _write_answers, world, work, list(zip(outings, answers, strict=True)))


async def _perform_external(outing: _ExternalCall) -> Any:
    try:
        return await outing.go()
    except Exception as error:  # belongs to the members of this outing; the others' answers must be written
        return (
            error
            if outing.prepared is None
            else DeliveryResult(MessageStatus.uncertain, detail=f"Handing over raised {type(error).__name__}.")
        )


# --- claiming ---------------------------------------------------------------------------------------------------------------------------


def _claim(world: EngineContext, run_key: str) -> list[Work]:
    now = world.clock.now()
    with world.db.writing() as session:
        free = select(Enrollment).where(
            col(Enrollment.run_key) == run_key,
            col(Enrollment.status) == EnrollmentStatus.waiting,
            col(Enrollment.claimed_by).is_(None),
            or_(col(Enrollment.due_at) <= now, col(Enrollment.woken_at) <= now),
        )
        rows = list(session.exec(free.order_by(col(Enrollment.id)).with_for_update()))  # everybody locks enrollments in this order
        session.execute(
            update(Enrollment)
            .where(col(Enrollment.id).in_([row.id for row in rows]))
            .values(claimed_by=world.worker, claimed_at=now, woken_at=None, wakes=Enrollment.wakes + 1),
            execution_options={"synchronize_session": False},
        )
        # Those of the run that have ended or are parked: their call is answered by this look. A paused one keeps it for when it goes on.
        over = (EnrollmentStatus.ended, EnrollmentStatus.parked)
        called = (col(Enrollment.run_key) == run_key, col(Enrollment.status).in_(over), col(Enrollment.woken_at).is_not(None))
        session.execute(update(Enrollment).where(*called).values(woken_at=None), execution_options={"synchronize_session": False})
        versions = dict.fromkeys(row.version_id for row in rows)
        return [_load(world, session, [row for row in rows if row.version_id == version_id]) for version_id in versions]


def _load(world: EngineContext, session: Session, rows: Sequence[Enrollment]) -> Work:
    version = session.get(JourneyVersion, rows[0].version_id)
    if version is None or version.id is None:
        raise NotFound(f"Journey version {rows[0].version_id} is gone, but enrollments are in it; restore it from a backup.")
    program, people = program_of(session, version.id), people_of(session, rows)
    facts = gather(session, rows, people, world.clock.now())
    gone = unsubscribed_among(session, people) if program.definition.kind is Kind.marketing else set()
    walkers = [
        Walker(
            row=row,
            person=people[id_of(row)],
            facts=facts[id_of(row)],
            position=_position(row, program, world.clock),
            now=world.clock.effective(row.due_at),
            unsubscribed=(id_of(row)) in gone,
        )
        for row in rows
    ]
    return Work(version, program, source_of(version), walkers, world.clock)


def _position(row: Enrollment, program: Program, clock: Clock) -> Position:
    if row.step_id is None or row.arrived_at is None:
        return start(program, clock.effective(row.due_at))
    return Position(row.step_id, row.arrived_at, dict(row.visits))


# --- writing ----------------------------------------------------------------------------------------------------------------------------


def _write_round(world: EngineContext, work: Work, walkers: Sequence[Walker]) -> list[_ExternalCall]:
    """Write where each member got to, do the effects that live in our own database, and claim what leaves this machine."""
    with world.db.writing() as session:
        lock_people(session, [walker.row for walker in walkers if walker.effect is not None])
        _apply_interventions(session, walkers)
        for walker in walkers:
            if type(walker.effect) in LOCAL:
                _perform(session, work, walker)
        outings = [*_sends(session, world, work, walkers), *_external_effects(world, work, walkers)]
        _store(session, walkers)
    return outings


def _apply_interventions(session: Session, walkers: Sequence[Walker]) -> None:
    """Let those begin no further step whom a person paused or stopped since they were claimed; all stay locked in this unit of work."""
    ids = [walker.id for walker in walkers]
    locked = select(Enrollment.id, Enrollment.status).where(col(Enrollment.id).in_(ids)).order_by(col(Enrollment.id)).with_for_update()
    halted = {row_id for row_id, status in session.exec(locked) if status is not EnrollmentStatus.waiting}
    for walker in walkers:
        if walker.id in halted and not walker.done:
            walker.row.step_id, walker.row.arrived_at, walker.row.visits = stored(walker.position)
            walker.effect, walker.done = None, True


def _sends(session: Session, world: EngineContext, work: Work, walkers: Sequence[Walker]) -> list[_ExternalCall]:
    """Claim the messages that may go now; settle the others."""
    sending = [walker for walker in walkers if isinstance(walker.effect, SendMessage)]
    if not sending:
        return []
    now = max(walker.now for walker in sending)
    batch = Batch(work.version, work.program.definition, work.source, world.sender, world.worker, now)
    requests = [SendRequest(w.row, w.person, w.effect, w.visit) for w in sending]
    outings = []
    for walker, prepared in zip(sending, prepare(session, batch, requests), strict=True):
        if prepared.readiness is Readiness.ready:
            outings.append(_ExternalCall([walker], partial(_deliver, world, prepared), partial(_settle_sent, work, walker), prepared))
        else:
            settle_unsent(work, walker, prepared)
    return outings


def _external_effects(world: EngineContext, work: Work, walkers: Sequence[Walker]) -> list[_ExternalCall]:
    """Return the other effects that leave this machine, one outing for all members with the same kind of effect."""
    outings = []
    for kind, run in EXTERNAL.items():
        group = [walker for walker in walkers if type(walker.effect) is kind]
        if group:
            errands = [EffectRequest(walker.row, walker.person, walker.effect, walker.visit, walker.now) for walker in group]
            outings.append(_ExternalCall(group, partial(run, world.outside, errands), partial(_settle_external, work, group)))
    return outings


def _store(session: Session, walkers: Sequence[Walker]) -> None:
    """Write what this wake decided onto the rows as they are now: a person may have paused or stopped one, or news come, meanwhile.

    Only the columns that walking decides are written, by one statement for all.
    """
    ids = [walker.id for walker in walkers]
    locked = select(Enrollment.id, Enrollment.status).where(col(Enrollment.id).in_(ids)).order_by(col(Enrollment.id)).with_for_update()
    statuses = {row_id: EnrollmentStatus(status) for row_id, status in session.exec(locked)}
    gone = next((walker.id for walker in walkers if walker.id not in statuses), None)
    if gone is not None:
        raise NotFound(f"Enrollment {gone} is gone while it was being walked; restore it from a backup.")
    live = [walker for walker in walkers if not _is_over(walker, statuses[walker.id])]
    ending = [_ended(walker) for walker in live if isinstance(walker.effect, End)]
    going_on = [_walked(walker, statuses[walker.id]) for walker in live if not isinstance(walker.effect, End)]
    for walker in live:
        walker.effect = None if isinstance(walker.effect, End) else walker.effect
    moves = [move for walker in walkers for move in walker.moves]
    for statement, rows in ((_END, ending), (_GO_ON, going_on), (_TELL, moves)):
        if rows:
            session.connection().execute(statement, rows)
    for walker in walkers:
        walker.moves = []


def _is_over(walker: Walker, status: EnrollmentStatus) -> bool:
    """Say whether a person ended it meanwhile; if so it is walked no further."""
    if status is EnrollmentStatus.ended:
        walker.done, walker.effect = True, None
    return status is EnrollmentStatus.ended


def _ended(walker: Walker) -> dict[str, Any]:
    end: End = walker.effect
    step_id, arrived_at, visits = stored(walker.position)
    walker.note(TimelineKind.ended, step_id or "", outcome=end.outcome.value, reason=end.reason)
    where = {"step_id": step_id, "arrived_at": arrived_at, "visits": visits, "answers": walker.row.answers}
    return {"row_id": walker.id} | {
        f"new_{name}": value for name, value in (where | ended_columns(end.outcome, end.reason, walker.now)).items()
    }


def _walked(walker: Walker, status: EnrollmentStatus) -> dict[str, Any]:
    row = walker.row
    if not walker.done:
        row.step_id, row.arrived_at, row.visits = stored(walker.position)
    if status is not EnrollmentStatus.waiting:
        walker.done = True
    # What a person set meanwhile stays.
    status = row.status if status is EnrollmentStatus.waiting else status
    return {"row_id": walker.id, "new_status": status} | {f"new_{name}": getattr(row, name) for name in WALKED}


def _change(*names: str) -> Update:
    return update(_TABLE).where(_TABLE.c.id == bindparam("row_id")).values({name: bindparam(f"new_{name}") for name in names})


_TABLE: Table = Enrollment.__table__  # type: ignore[attr-defined]
_GO_ON = _change("status", *WALKED)
_END = _change("step_id", "arrived_at", "visits", "answers", *ended_columns(Outcome.completed, "", datetime.now(UTC)))
_TELL = insert(TimelineEntry.__table__)  # type: ignore[attr-defined]


def _perform(session: Session, work: Work, walker: Walker) -> None:
    effect = walker.effect
    try:
        with session.begin_nested():
            result = LOCAL[type(effect)](session, EffectRequest(walker.row, walker.person, effect, walker.visit, walker.now))
    except Exception as error:  # a poison step parks its own member
        record_failure(work, walker, error)
        return
    apply_result(work, walker, result)


async def _deliver(world: EngineContext, prepared: Prepared) -> DeliveryResult:
    if prepared.outgoing is None:
        return DeliveryResult(MessageStatus.failed, detail="Nothing was rendered.")
    return await deliver(world.channels, prepared.request.effect.channel, prepared.outgoing)


def _write_answers(world: EngineContext, work: Work, answered: Sequence[tuple[_ExternalCall, Any]]) -> None:
    """Record every answer and move past the steps in one transaction; when it fails, everything is as it was before."""
    walkers = [walker for outing, _answer in answered for walker in outing.walkers]
    before, shown = [walker.remembered() for walker in walkers], list(work.shown)
    try:
        with world.db.writing() as session:
            recorded = iter(record_results(session, [(out.prepared, answer) for out, answer in answered if out.prepared], work.clock))
            for outing, answer in answered:
                outing.settle((answer, *next(recorded)) if outing.prepared else answer)
            _store(session, walkers)
    except BaseException:
        work.shown[:] = shown
        for walker, memory in zip(walkers, before, strict=True):
            walker.recall(memory)
        raise


def _settle_sent(work: Work, walker: Walker, answer: tuple[DeliveryResult, MessageStatus, datetime | None]) -> None:
    effect: SendMessage = walker.effect
    handed, status, retry_at = answer
    if retry_at is not None:
        start_waiting(work, walker, retry_at, Why.retry.value, [handed.code or "no_answer"], None)
        return
    note_status(work, walker, effect.step_id, status, handed.detail[:200], handed.code)
    move_past_step(work, walker)
    walker.facts = now_written(walker.facts, effect, status, walker.now)


def _settle_external(work: Work, walkers: Sequence[Walker], answer: Sequence[EffectResult | Exception] | Exception) -> None:
    results = [answer] * len(walkers) if isinstance(answer, Exception) else answer
    for walker, result in zip(walkers, results, strict=True):
        settle_external(work, walker, result)


def _release(world: EngineContext, ids: Sequence[int], unheard: bool) -> None:
    """Let go of the members. What had woken those whose wake failed is gone from their rows, so that they look again soon."""
    soon = case((col(Enrollment.status).in_(ASLEEP), world.clock.in_real(LOOK_AGAIN)), else_=col(Enrollment.woken_at))
    again = {"woken_at": soon} if unheard else {}
    ours = select(Enrollment.id).where(col(Enrollment.id).in_(list(ids)), col(Enrollment.claimed_by) == world.worker)
    with world.db.writing() as session:
        session.execute(
            update(Enrollment)
            .where(col(Enrollment.id).in_(ours.order_by(col(Enrollment.id)).with_for_update()))
            .values(claimed_by=None, claimed_at=None, **again),
            execution_options={"synchronize_session": False},
        )


# --- the run as a whole -----------------------------------------------------------------------------------------------------------------


def wake_result(world: EngineContext, run_key: str, shown: tuple[StepShown, ...], walked: int) -> WakeResult:
    now = world.clock.now()
    with world.db.reading() as session:
        by_status = select(Enrollment.status, func.count()).where(Enrollment.run_key == run_key).group_by(col(Enrollment.status))
        counts = {EnrollmentStatus(status): count for status, count in session.exec(by_status)}
        next_row = session.exec(
            select(Enrollment)
            .where(Enrollment.run_key == run_key, Enrollment.status == EnrollmentStatus.waiting)
            .order_by(col(Enrollment.due_at).is_(None), col(Enrollment.due_at))
            .limit(1)
        ).first()
        frozen_until = _frozen_until(session, run_key, now) if counts.get(EnrollmentStatus.paused) else None
        if next_row is not None:
            due_at = min((at for at in (next_row.due_at, frozen_until) if at), default=None)
            return WakeResult(False, due_at, _asleep(next_row, counts), next_row.step_id or "", steps=shown, walked=walked)
        if counts.get(EnrollmentStatus.paused):
            return WakeResult(False, frozen_until, "Paused by a person; goes on when resumed.", steps=shown, walked=walked)
        if counts.get(EnrollmentStatus.parked):
            return WakeResult(
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
        return WakeResult(True, None, _over(last, counts), steps=shown, walked=walked)


def _frozen_until(session: Session, run_key: str, now: datetime) -> datetime | None:
    """Return when the first paused member would be due: whoever goes on before then need not be woken to be on time."""
    frozen = select(func.min(Enrollment.due_at)).where(
        Enrollment.run_key == run_key, Enrollment.status == EnrollmentStatus.paused, col(Enrollment.due_at) > now
    )
    return session.exec(frozen).one()


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
