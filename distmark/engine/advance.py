"""The pure part of a wake: each member's decision, its timeline entries, and the steps for the run's page. Touches no database.

Shared by `engine.wake`, which keeps the members in the database, and `simulation.engine`, which keeps them in memory.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from distmark.clock import Clock
from distmark.contacts.attributes import attributes_of
from distmark.delivery.service import BACKOFF, Prepared, Readiness
from distmark.engine.effects import EffectResult
from distmark.engine.facts import as_json
from distmark.enrollments.model import MAX_TRIES, UNMADE, EnrollmentStatus, TimelineKind
from distmark.enrollments.table import Enrollment
from distmark.journeys.model import Act, End, Facts, SendMessage, SentFact, Sleep, Why
from distmark.journeys.outcomes import Outcome
from distmark.journeys.program import Program
from distmark.journeys.source import Source
from distmark.journeys.table import JourneyVersion
from distmark.journeys.walk import Position, Trace, leaving, passed, walk
from distmark.messages.compose import Person
from distmark.messages.model import MessageStatus
from distmark.sql import id_of

log = logging.getLogger("distmark.wake")

CHECK_AGAIN = timedelta(hours=1)  # until a send is tried again that is held without a known end, such as by a withdrawn approval
MOST_RETRIES = 6  # of an effect after failures of the other side that may pass by themselves
SHOWN_DETAIL = ("arm", "rules", "timeout", "timed_out", "event")  # details of a step's decision that the run's page shows

_SEND_KINDS = {
    MessageStatus.sent: TimelineKind.sent,
    MessageStatus.delivered: TimelineKind.sent,
    MessageStatus.bounced: TimelineKind.sent,
    MessageStatus.suppressed: TimelineKind.suppressed,
    MessageStatus.uncertain: TimelineKind.uncertain,
}


ADVANCED_COLUMNS = ("step_id", "arrived_at", "visits", "due_at", "why", "rules", "awaits", "tries", "error", "answers")


@dataclass(frozen=True, slots=True)
class StepShown:
    """One step done in a wake by one member, as shown on the run's page. Names no person."""

    step_id: str
    kind: str
    text: str
    failed: bool = False
    enrollment_id: int = 0


@dataclass(slots=True)
class WokenMember:
    """One member of a run while a wake advances it. `effect` is its effect to perform next, or its end; `done` after its last step."""

    row: Enrollment
    person: Person
    facts: Facts
    position: Position
    now: datetime
    unsubscribed: bool
    done: bool = False
    effect: Any = None
    timeline: list[dict[str, Any]] = field(default_factory=list)  # rows of timeline entries that are not written yet

    @property
    def id(self) -> int:
        return id_of(self.row)

    @property
    def visit(self) -> int:
        """The number of this visit to the present step, from 1."""
        return self.position.number

    def snapshot(self) -> dict[str, Any]:
        """Return all that advancing changes, for `restore`."""
        row = {name: getattr(self.row, name) for name in (*ADVANCED_COLUMNS, "status")}
        return {"row": row, "position": self.position, "facts": self.facts, "done": self.done, "effect": self.effect}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go back to a snapshot, with an empty timeline."""
        for name, value in saved["row"].items():
            setattr(self.row, name, value)
        self.position, self.facts, self.done, self.effect = (saved[name] for name in ("position", "facts", "done", "effect"))
        self.timeline = []

    def note(self, kind: TimelineKind, step_id: str, **detail: Any) -> None:
        """Add an entry at the present time to the timeline."""
        visit = int(self.position.visits.get(step_id, 1)) if step_id else 1
        entry = {"at": self.now, "kind": kind, "step_id": step_id, "visit": visit, "detail": as_json(detail), "rolled": False}
        self.timeline.append({"enrollment_id": self.id, **entry})


@dataclass(slots=True)
class WakeGroup:
    """The claimed members of one run that are in the same version. A member moved to another version is in another group."""

    version: JourneyVersion
    program: Program
    source: Source
    members: list[WokenMember]
    clock: Clock
    shown: list[StepShown] = field(default_factory=list)


def advance_all(group: WakeGroup, members: Sequence[WokenMember]) -> None:
    """Advance each member until it waits, ends, or has an effect to perform. An error of one member is recorded at that member alone."""
    for member in members:
        try:
            _advance_one(group, member)
        except Exception as error:  # any fault, so that the other members go on
            record_failure(group, member, error)


def _advance_one(group: WakeGroup, member: WokenMember) -> None:
    ended = End(Outcome.unsubscribed, "unsubscribed") if member.unsubscribed else leaving(group.program, member.facts, member.now)
    if ended is not None:
        finish(member, ended)
        return
    if _is_backing_off(member):
        member.done = True
        return
    walked = walk(group.program, member.position, member.facts, member.now)
    for trace in walked.trace:
        _note_trace(group, member, trace)
    member.position = walked.position
    decision = walked.decision
    if isinstance(decision, End):
        finish(member, decision)
    elif isinstance(decision, Sleep):
        start_waiting(group, member, decision.until, decision.why.value, decision.rules, decision.event)
    elif isinstance(decision, Act):
        member.effect = decision.effect


def _is_backing_off(member: WokenMember) -> bool:
    """Return whether the member waits to try an effect again: an event of its contact must not bring that try forward."""
    row = member.row
    return row.why == Why.retry and row.due_at is not None and member.now < row.due_at


def _note_trace(group: WakeGroup, member: WokenMember, trace: Trace) -> None:
    kind = TimelineKind.branched if trace.kind == "branch" else TimelineKind.passed
    member.note(kind, trace.step_id, **trace.detail, to=trace.to)
    shown = ", ".join(f"{name}: {value}" for name, value in trace.detail.items() if name in SHOWN_DETAIL)
    group.shown.append(StepShown(trace.step_id, trace.kind, shown, enrollment_id=member.id))


def finish(member: WokenMember, ended: End) -> None:
    """Let the member end at its present step; the caller writes the end."""
    member.row.step_id, member.row.arrived_at, member.row.visits = stored_position(member.position)
    member.effect, member.done = ended, True


def stored_position(position: Position) -> tuple[str | None, datetime, dict[str, Any]]:
    """Return the position as the columns step_id, arrived_at and visits."""
    return position.step_id, position.arrived_at, dict(position.visits)


def start_waiting(
    group: WakeGroup, member: WokenMember, until: datetime | None, why: str, rules: Sequence[str], event: str | None, tries: int = 0
) -> None:
    """Let the member wait at its step until then, or until the event. Noted in the timeline unless the same wait only goes on."""
    row, step_id = member.row, member.position.step_id or ""
    # A send that is held again for the same reason is one hold, however often it was tried.
    before, after = (row.step_id, row.why), (step_id, why)
    is_new = (*before, row.rules) != (*after, list(rules)) if why == Why.held else (*before, row.due_at) != (*after, until)
    row.step_id, row.arrived_at, row.visits = stored_position(member.position)
    row.status, row.due_at, row.why, row.rules, row.awaits = EnrollmentStatus.waiting, until, why, list(rules), event
    row.tries, row.error = tries, ""
    member.effect, member.done = None, True
    if is_new:
        kind = TimelineKind.held if why == Why.held else TimelineKind.waiting
        member.note(kind, step_id, until=until, why=why, rules=list(rules), event=event)


def record_failure(group: WakeGroup, member: WokenMember, error: Exception) -> None:
    """Record the error at the member's step: tried again after 2, 4, 8 ... minutes, and parked at the `MAX_TRIES`-th failure."""
    row = member.row
    row.tries += 1
    row.error = f"{type(error).__name__}: {error}"[:500]
    row.step_id, row.arrived_at, row.visits = stored_position(member.position)
    parked = row.tries >= MAX_TRIES
    row.status = EnrollmentStatus.parked if parked else EnrollmentStatus.waiting
    row.why, row.rules, row.awaits = ("parked" if parked else Why.retry.value), [], None
    row.due_at = None if parked else group.clock.in_real(timedelta(minutes=2**row.tries))
    member.effect, member.done = None, True
    member.note(TimelineKind.error, row.step_id or "", error=row.error, tries=row.tries, parked=parked)
    group.shown.append(StepShown(row.step_id or "", "error", type(error).__name__, failed=True, enrollment_id=member.id))
    log.warning("enrollment %d, step %s: %s (try %d)", member.id, row.step_id, type(error).__name__, row.tries)


def park_unmade(group: WakeGroup, member: WokenMember, reason: str, slot: str = "") -> None:
    """Park the member at its send step, since its message cannot be made and trying again changes nothing; `slot` is the missing value."""
    row, step_id = member.row, member.position.step_id or ""
    row.step_id, row.arrived_at, row.visits = stored_position(member.position)
    row.status, row.due_at, row.awaits = EnrollmentStatus.parked, None, None
    row.why, row.rules, row.error = UNMADE, [f"{UNMADE}:{slot}" if slot else UNMADE], reason[:500]
    member.effect, member.done = None, True
    member.note(TimelineKind.error, step_id, error=row.error, tries=row.tries, parked=True)
    group.shown.append(StepShown(step_id, "error", "message cannot be made", failed=True))
    log.warning("enrollment %d, step %s: the message cannot be made", member.id, step_id)


def apply_result(group: WakeGroup, member: WokenMember, result: EffectResult) -> None:
    """Apply the result of the member's effect to its facts and timeline, and move past the step, or end."""
    step_id = member.effect.step_id
    member.note(result.kind, step_id, **result.detail)
    group.shown.append(StepShown(step_id, group.program.steps[step_id].kind, result.text, result.failed, member.id))
    if result.contact is not None:
        member.person = replace(member.person, contact=result.contact)
        fields = group.program.definition.contact_fields
        member.facts = replace(member.facts, contact=attributes_of(result.contact, fields))
    if result.answer is not None:
        member.row.answers = {**member.row.answers, step_id: dict(result.answer)}
        member.facts = replace(member.facts, answers=member.row.answers)
    if result.end is not None:
        finish(member, result.end)
    else:
        move_past_step(group, member)


def settle_external(group: WakeGroup, member: WokenMember, result: EffectResult | Exception) -> None:
    """Apply the result of an external effect: a failure to record, a try to repeat later, or a step that is done."""
    if isinstance(result, Exception):
        record_failure(group, member, result)
    elif result.later and member.row.tries < MOST_RETRIES:
        tries = member.row.tries + 1
        until = group.clock.in_real(BACKOFF[min(tries, len(BACKOFF)) - 1])
        start_waiting(group, member, until, Why.retry.value, [result.later], None, tries)
    else:
        apply_result(group, member, result)


def move_past_step(group: WakeGroup, member: WokenMember) -> None:
    """Place the member behind its present step, with no tries, error or rules left."""
    member.position = passed(group.program, member.position, member.now)
    member.effect = None
    row = member.row
    row.tries, row.error, row.why, row.rules = 0, "", "", []  # the reason that held this step does not concern the next


def settle_unsent(group: WakeGroup, member: WokenMember, prepared: Prepared) -> None:
    """Apply the reason why the member's message was not sent: a failure, a hold, or a step passed without it."""
    step_id = prepared.request.effect.step_id
    if prepared.error is not None and prepared.readiness is Readiness.unmade:
        park_unmade(group, member, str(prepared.error), str(getattr(prepared.error, "slot", "")))
        return
    if prepared.error is not None:
        record_failure(group, member, prepared.error)
        return
    if prepared.readiness is Readiness.held:
        start_waiting(group, member, prepared.until or group.clock.in_real(CHECK_AGAIN), Why.held.value, prepared.rules, None)
        return
    if prepared.readiness is Readiness.skipped:
        member.note(TimelineKind.skipped, step_id, reason=prepared.rules[0], rules=prepared.rules)
        group.shown.append(StepShown(step_id, "send", f"skipped: {prepared.rules[0]}", enrollment_id=member.id))
    else:
        note_status(group, member, step_id, prepared.status or MessageStatus.failed, prepared.detail)
    move_past_step(group, member)


def note_status(group: WakeGroup, member: WokenMember, step_id: str, status: MessageStatus, reason: str, code: str = "") -> None:
    """Note the status of the step's message in the timeline and on the run's page."""
    member.note(_SEND_KINDS.get(status, TimelineKind.failed), step_id, status=status.value, reason=reason, code=code)
    failed = status in (MessageStatus.failed, MessageStatus.rejected)
    group.shown.append(StepShown(step_id, "send", status.value, failed, member.id))


def with_message_sent(facts: Facts, effect: SendMessage, status: MessageStatus, now: datetime) -> Facts:
    """Return the facts with the message just sent among them, for the steps that follow it in the same wake."""
    sent = {**facts.sent, effect.step_id: SentFact(at=now, channel=effect.channel, status=status.value)}
    return replace(facts, sent=sent, written_at=[*facts.written_at, now])
