"""A wake: the due enrollments of one run advance until each waits again or has ended. Imports no Prefect.

A wake is a series of rounds. In each round every member advances to its next effect. One transaction writes the positions, performs the
effects in our own database and claims the messages to send. Then the external calls run with no transaction open. A second transaction
writes their outcomes. After a crash between the two nothing is repeated: position and ledger row of each message were written before.
"""

import asyncio
import logging
import re
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
    ADVANCED_COLUMNS,
    StepShown,
    WakeGroup,
    WokenMember,
    advance_all,
    apply_result,
    move_past_step,
    note_status,
    park_unmade,
    record_failure,
    settle_external,
    settle_unsent,
    start_waiting,
    stored_position,
    with_message_sent,
)
from distmark.engine.effects import EXTERNAL, LOCAL, EffectRequest, EffectResult, Integrations
from distmark.engine.facts import gather, unsubscribed_among
from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.service import ASLEEP, ended_columns
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.errors import NotFound
from distmark.journeys.definition import Kind
from distmark.journeys.model import End, SendMessage, Why
from distmark.journeys.outcomes import Outcome
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
WAKE_AGAIN = timedelta(minutes=1)  # after a wake that was interrupted
RETRY_WRITE_SECONDS = 7200.0  # how long outcomes that only this process knows wait for a database that is away


@dataclass(frozen=True, slots=True)
class EngineContext:
    """The parts that a wake uses: database, clock, channels, sender, integrations, and the name of the worker that claims."""

    db: Database
    clock: Clock
    channels: Mapping[str, Channel]
    sender: Sender
    worker: str
    in_threads: bool = True  # database work in threads, so that the event loop stays free; tests turn this off
    integrations: Integrations = field(default_factory=Integrations)  # by default in memory: nobody is called


@dataclass(frozen=True, slots=True)
class WakeResult:
    """The state of the run after a wake: asleep until `due_at` (None: until an event), or finished.

    `text` says which step, why, and until when, of the enrollment that is next or ended last. `steps` were done in this wake, and
    `advanced` members were woken.
    """

    finished: bool
    due_at: datetime | None
    text: str
    step_id: str = ""
    failed: bool = False
    steps: tuple[StepShown, ...] = ()
    advanced: int = 0
    enrollment_id: int | None = None


@dataclass(slots=True)
class _ExternalCall:
    """A call for these members: `perform` runs with no transaction open, `settle` records its outcome in the next transaction."""

    members: Sequence[WokenMember]
    perform: Callable[[], Awaitable[Any]]
    settle: Callable[[Any], None]
    prepared: Prepared | None = None  # the message, when the call delivers one


async def wake(context: EngineContext, run_key: str) -> WakeResult:
    """Advance the members of the run that are due or were woken, and return the state of the run.

    Safe to repeat at any point. One member's error parks that member after `MAX_TRIES` wakes and touches no other.
    """
    groups: list[WakeGroup] = await _in_thread(context, _claim, context, run_key)
    members = [member.id for group in groups for member in group.members]
    interrupted = True
    try:
        for group in groups:
            await _advance_group(context, group)
        interrupted = False
    finally:
        if members:
            await _retry_until_written(context, _release, context, members, interrupted)
    return await _in_thread(context, wake_result, context, run_key, tuple(shown for group in groups for shown in group.shown), len(members))


async def _in_thread(context: EngineContext, call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    return await asyncio.to_thread(call, *arguments, **options) if context.in_threads else call(*arguments, **options)


async def _retry_until_written(context: EngineContext, call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Call until the database accepts it: the outcomes happened already, and only this process knows them."""
    started, pause = stopwatch(), 0.1
    while True:
        try:
            return await _in_thread(context, call, *arguments, **options)
        except (OperationalError, InterfaceError) as error:
            if stopwatch() - started > RETRY_WRITE_SECONDS:
                raise
            log.warning("%s: the database does not answer (%s); trying again", call.__name__, type(error).__name__)
        await asyncio.sleep(pause)
        pause = min(pause * 2, 10.0)


async def _advance_group(context: EngineContext, group: WakeGroup) -> None:
    for _round in range(MAX_ROUNDS):
        members = [member for member in group.members if not member.done]
        if not members:
            return
        advance_all(group, members)
        calls = await _in_thread(context, _write_round, context, group, members)
        outcomes = await asyncio.gather(*(_perform_external(call) for call in calls))
        if calls:
            await _retry_until_written(context, _write_outcomes, context, group, list(zip(calls, outcomes, strict=True)))


async def _perform_external(call: _ExternalCall) -> Any:
    try:
        return await call.perform()
    except Exception as error:  # recorded for the members of this call; the outcomes of the other calls must be written too
        return (
            error
            if call.prepared is None
            else DeliveryResult(MessageStatus.uncertain, detail=f"Handing over raised {type(error).__name__}.")
        )


# --- claiming ----------------------------------------------------------------------------------------------------------------------------


def _claim(context: EngineContext, run_key: str) -> list[WakeGroup]:
    now = context.clock.now()
    with context.db.writing() as session:
        free = select(Enrollment).where(
            col(Enrollment.run_key) == run_key,
            col(Enrollment.status) == EnrollmentStatus.waiting,
            col(Enrollment.claimed_by).is_(None),
            or_(col(Enrollment.due_at) <= now, col(Enrollment.woken_at) <= now),
        )
        rows = list(session.exec(free.order_by(col(Enrollment.id)).with_for_update()))  # all writers lock enrollments in this order
        session.execute(
            update(Enrollment)
            .where(col(Enrollment.id).in_([row.id for row in rows]))
            .values(claimed_by=context.worker, claimed_at=now, woken_at=None, wakes=Enrollment.wakes + 1),
            execution_options={"synchronize_session": False},
        )
        # This wake also answers the wake-ups of ended and parked members. A paused member keeps its wake-up until it is resumed.
        finished = (EnrollmentStatus.ended, EnrollmentStatus.parked)
        called = (col(Enrollment.run_key) == run_key, col(Enrollment.status).in_(finished), col(Enrollment.woken_at).is_not(None))
        session.execute(update(Enrollment).where(*called).values(woken_at=None), execution_options={"synchronize_session": False})
        versions = dict.fromkeys(row.version_id for row in rows)
        return [_load(context, session, [row for row in rows if row.version_id == version_id]) for version_id in versions]


def _load(context: EngineContext, session: Session, rows: Sequence[Enrollment]) -> WakeGroup:
    version = session.get(JourneyVersion, rows[0].version_id)
    if version is None or version.id is None:
        raise NotFound(f"Journey version {rows[0].version_id} is gone, but enrollments are in it; restore it from a backup.")
    program, people = program_of(session, version.id), people_of(session, rows)
    facts = gather(session, rows, people, context.clock.now())
    gone = unsubscribed_among(session, people, program.definition) if program.definition.kind is Kind.marketing else set()
    members = [
        WokenMember(
            row=row,
            person=people[id_of(row)],
            facts=facts[id_of(row)],
            position=_position(row, program, context.clock),
            now=context.clock.effective(row.due_at),
            unsubscribed=(id_of(row)) in gone,
        )
        for row in rows
    ]
    return WakeGroup(version, program, source_of(version), members, context.clock)


def _position(row: Enrollment, program: Program, clock: Clock) -> Position:
    if row.step_id is None or row.arrived_at is None:
        return start(program, clock.effective(row.due_at))
    return Position(row.step_id, row.arrived_at, dict(row.visits))


# --- writing -----------------------------------------------------------------------------------------------------------------------------


def _write_round(context: EngineContext, group: WakeGroup, members: Sequence[WokenMember]) -> list[_ExternalCall]:
    """Write the position of each member, perform its local effect or claim its message, and return the external calls to make."""
    with context.db.writing() as session:
        lock_people(session, [member.row for member in members if member.effect is not None])
        _apply_interventions(session, members)
        for member in members:
            if type(member.effect) in LOCAL:
                _perform_local(session, group, member)
        calls = [*_send_calls(session, context, group, members), *_external_calls(context, group, members)]
        _store(session, members)
    return calls


def _apply_interventions(session: Session, members: Sequence[WokenMember]) -> None:
    """Stop the members that a person paused or stopped since they were claimed. Locks the rows of all members in this transaction."""
    ids = [member.id for member in members]
    locked = select(Enrollment.id, Enrollment.status).where(col(Enrollment.id).in_(ids)).order_by(col(Enrollment.id)).with_for_update()
    stopped = {row_id for row_id, status in session.exec(locked) if status is not EnrollmentStatus.waiting}
    for member in members:
        if member.id in stopped and not member.done:
            member.row.step_id, member.row.arrived_at, member.row.visits = stored_position(member.position)
            member.effect, member.done = None, True


def _send_calls(session: Session, context: EngineContext, group: WakeGroup, members: Sequence[WokenMember]) -> list[_ExternalCall]:
    """Claim the messages that may be sent now, settle the others, and return one call per claimed message."""
    sending = [member for member in members if isinstance(member.effect, SendMessage)]
    if not sending:
        return []
    now = max(member.now for member in sending)
    batch = Batch(group.version, group.program.definition, group.source, context.sender, context.worker, now)
    requests = [SendRequest(w.row, w.person, w.effect, w.visit) for w in sending]
    calls = []
    for member, prepared in zip(sending, prepare(session, batch, requests), strict=True):
        if prepared.readiness is Readiness.ready:
            calls.append(_ExternalCall([member], partial(_deliver, context, prepared), partial(_settle_sent, group, member), prepared))
        else:
            settle_unsent(group, member, prepared)
    return calls


def _external_calls(context: EngineContext, group: WakeGroup, members: Sequence[WokenMember]) -> list[_ExternalCall]:
    """Return the calls of the other external effects: one call for all members with the same kind of effect."""
    calls = []
    for kind, run in EXTERNAL.items():
        affected = [member for member in members if type(member.effect) is kind]
        if affected:
            requests = [EffectRequest(member.row, member.person, member.effect, member.visit, member.now) for member in affected]
            calls.append(_ExternalCall(affected, partial(run, context.integrations, requests), partial(_settle_external, group, affected)))
    return calls


def _store(session: Session, members: Sequence[WokenMember]) -> None:
    """Write what this wake decided onto the rows as they are now: a person may have paused, stopped or woken one meanwhile.

    Only the columns that advancing decides are written: one statement for the members that end, one for the others, one for the timeline.
    """
    ids = [member.id for member in members]
    locked = select(Enrollment.id, Enrollment.status).where(col(Enrollment.id).in_(ids)).order_by(col(Enrollment.id)).with_for_update()
    statuses = {row_id: EnrollmentStatus(status) for row_id, status in session.exec(locked)}
    gone = next((member.id for member in members if member.id not in statuses), None)
    if gone is not None:
        raise NotFound(f"Enrollment {gone} is gone while it was being walked; restore it from a backup.")
    live = [member for member in members if not _was_ended(member, statuses[member.id])]
    ending = [_ended_values(member) for member in live if isinstance(member.effect, End)]
    going_on = [_advanced_values(member, statuses[member.id]) for member in live if not isinstance(member.effect, End)]
    for member in live:
        member.effect = None if isinstance(member.effect, End) else member.effect
    timeline = [entry for member in members for entry in member.timeline]
    for statement, rows in ((_UPDATE_ENDED, ending), (_UPDATE_LIVE, going_on), (_INSERT_TIMELINE, timeline)):
        if rows:
            session.connection().execute(statement, rows)
    for member in members:
        member.timeline = []


def _was_ended(member: WokenMember, status: EnrollmentStatus) -> bool:
    """Return whether a person ended the enrollment meanwhile; it then advances no further."""
    if status is EnrollmentStatus.ended:
        member.done, member.effect = True, None
    return status is EnrollmentStatus.ended


def _ended_values(member: WokenMember) -> dict[str, Any]:
    end: End = member.effect
    step_id, arrived_at, visits = stored_position(member.position)
    member.note(TimelineKind.ended, step_id or "", outcome=end.outcome.value, reason=end.reason)
    where = {"step_id": step_id, "arrived_at": arrived_at, "visits": visits, "answers": member.row.answers}
    return {"row_id": member.id} | {
        f"new_{name}": value for name, value in (where | ended_columns(end.outcome, end.reason, member.now)).items()
    }


def _advanced_values(member: WokenMember, status: EnrollmentStatus) -> dict[str, Any]:
    row = member.row
    if not member.done:
        row.step_id, row.arrived_at, row.visits = stored_position(member.position)
    if status is not EnrollmentStatus.waiting:
        member.done = True
    # A status that a person set meanwhile stays.
    status = row.status if status is EnrollmentStatus.waiting else status
    return {"row_id": member.id, "new_status": status} | {f"new_{name}": getattr(row, name) for name in ADVANCED_COLUMNS}


def _update_statement(*names: str) -> Update:
    return update(_TABLE).where(_TABLE.c.id == bindparam("row_id")).values({name: bindparam(f"new_{name}") for name in names})


_TABLE: Table = Enrollment.__table__  # type: ignore[attr-defined]
_UPDATE_LIVE = _update_statement("status", *ADVANCED_COLUMNS)
_UPDATE_ENDED = _update_statement("step_id", "arrived_at", "visits", "answers", *ended_columns(Outcome.completed, "", datetime.now(UTC)))
_INSERT_TIMELINE = insert(TimelineEntry.__table__)  # type: ignore[attr-defined]


def _perform_local(session: Session, group: WakeGroup, member: WokenMember) -> None:
    effect = member.effect
    try:
        with session.begin_nested():
            result = LOCAL[type(effect)](session, EffectRequest(member.row, member.person, effect, member.visit, member.now))
    except Exception as error:  # a poison step parks its own member
        record_failure(group, member, error)
        return
    apply_result(group, member, result)


async def _deliver(context: EngineContext, prepared: Prepared) -> DeliveryResult:
    if prepared.outgoing is None:
        return DeliveryResult(MessageStatus.deferred, detail="Nothing was rendered.", unmade=True)
    return await deliver(context.channels, prepared.request.effect.channel, prepared.outgoing)


def _write_outcomes(context: EngineContext, group: WakeGroup, outcomes: Sequence[tuple[_ExternalCall, Any]]) -> None:
    """Record every outcome and move past the steps in one transaction. When it fails, the members are as before, for the next try."""
    members = [member for call, _outcome in outcomes for member in call.members]
    before, shown = [member.snapshot() for member in members], list(group.shown)
    try:
        with context.db.writing() as session:
            recorded = iter(record_results(session, [(call.prepared, outcome) for call, outcome in outcomes if call.prepared], group.clock))
            for call, outcome in outcomes:
                call.settle((outcome, *next(recorded)) if call.prepared else outcome)
            _store(session, members)
    except BaseException:
        group.shown[:] = shown
        for member, saved in zip(members, before, strict=True):
            member.restore(saved)
        raise


def _settle_sent(group: WakeGroup, member: WokenMember, outcome: tuple[DeliveryResult, MessageStatus, datetime | None]) -> None:
    effect: SendMessage = member.effect
    delivery, status, retry_at = outcome
    if delivery.unmade:
        park_unmade(group, member, delivery.detail)
        return
    if retry_at is not None:
        start_waiting(group, member, retry_at, Why.retry.value, [delivery.code or "no_answer"], None)
        return
    note_status(group, member, effect.step_id, status, delivery.detail[:200], delivery.code)
    move_past_step(group, member)
    member.facts = with_message_sent(member.facts, effect, status, member.now)


def _settle_external(group: WakeGroup, members: Sequence[WokenMember], outcome: Sequence[EffectResult | Exception] | Exception) -> None:
    results = [outcome] * len(members) if isinstance(outcome, Exception) else outcome
    for member, result in zip(members, results, strict=True):
        settle_external(group, member, result)


def _release(context: EngineContext, ids: Sequence[int], interrupted: bool) -> None:
    """Release the claims on the members. After an interrupted wake they are woken again soon: claiming had cleared their wake-ups."""
    soon = case((col(Enrollment.status).in_(ASLEEP), context.clock.in_real(WAKE_AGAIN)), else_=col(Enrollment.woken_at))
    again = {"woken_at": soon} if interrupted else {}
    ours = select(Enrollment.id).where(col(Enrollment.id).in_(list(ids)), col(Enrollment.claimed_by) == context.worker)
    with context.db.writing() as session:
        session.execute(
            update(Enrollment)
            .where(col(Enrollment.id).in_(ours.order_by(col(Enrollment.id)).with_for_update()))
            .values(claimed_by=None, claimed_at=None, **again),
            execution_options={"synchronize_session": False},
        )


# --- the run as a whole ------------------------------------------------------------------------------------------------------------------


def wake_result(context: EngineContext, run_key: str, shown: tuple[StepShown, ...], advanced: int) -> WakeResult:
    """Return the state of the run as stored now, with the steps shown and the count of members of a wake."""
    now = context.clock.now()
    with context.db.reading() as session:
        by_status = select(Enrollment.status, func.count()).where(Enrollment.run_key == run_key).group_by(col(Enrollment.status))
        counts = {EnrollmentStatus(status): count for status, count in session.exec(by_status)}
        next_row = session.exec(
            select(Enrollment)
            .where(Enrollment.run_key == run_key, Enrollment.status == EnrollmentStatus.waiting)
            .order_by(col(Enrollment.due_at).is_(None), col(Enrollment.due_at))
            .limit(1)
        ).first()
        paused_until = _paused_until(session, run_key, now) if counts.get(EnrollmentStatus.paused) else None
        if next_row is not None:
            due_at = min((at for at in (next_row.due_at, paused_until) if at), default=None)
            text, step_id = _waiting_summary(next_row, counts), next_row.step_id or ""
            return WakeResult(False, due_at, text, step_id, steps=shown, advanced=advanced, enrollment_id=next_row.id)
        if counts.get(EnrollmentStatus.paused):
            return WakeResult(False, paused_until, "Paused by a person; goes on when resumed.", steps=shown, advanced=advanced)
        if counts.get(EnrollmentStatus.parked):
            return WakeResult(
                True,
                None,
                "A step failed again and again, or its message cannot be made; see the enrollment, then retry this run.",
                failed=True,
                steps=shown,
                advanced=advanced,
            )
        last = session.exec(
            select(Enrollment).where(Enrollment.run_key == run_key).order_by(col(Enrollment.ended_at).desc()).limit(1)
        ).first()
        ended_id = last.id if last else None
        return WakeResult(True, None, _ended_summary(last, counts), steps=shown, advanced=advanced, enrollment_id=ended_id)


def _paused_until(session: Session, run_key: str, now: datetime) -> datetime | None:
    """Return the earliest due time among the paused members: a member resumed before then is woken in time without a new call."""
    earliest = select(func.min(Enrollment.due_at)).where(
        Enrollment.run_key == run_key, Enrollment.status == EnrollmentStatus.paused, col(Enrollment.due_at) > now
    )
    return session.exec(earliest).one()


def _waiting_summary(row: Enrollment, counts: Mapping[EnrollmentStatus, int]) -> str:
    waiting = counts.get(EnrollmentStatus.waiting, 0)
    many = f"{waiting} waiting; next: " if waiting > 1 else ""
    until = f" until {row.due_at:%Y-%m-%d %H:%M} UTC" if row.due_at else ""
    why = {"time": "waits", "event": f"waits for {row.awaits or 'an event'}", "held": "send is held", "retry": "tries again"}.get(
        row.why, "waits"
    )
    rules = f" ({', '.join(str(rule) for rule in row.rules)})" if row.rules else ""
    return f"{many}{row.step_id or 'start'} · {why}{until}{rules}"


def _ended_summary(last: Enrollment | None, counts: Mapping[EnrollmentStatus, int]) -> str:
    if last is None:
        return "No enrollment belongs to this run."
    ended = counts.get(EnrollmentStatus.ended, 0)
    # Values of contacts, which reasons quote, do not go to Prefect.
    reason = f": {re.sub('“.*”', '“…”', last.reason)}" if last.reason and last.reason != last.outcome else ""
    return f"{ended} ended; last: {last.outcome}{reason}" if ended > 1 else f"{last.outcome}{reason} at {last.step_id or 'start'}"
