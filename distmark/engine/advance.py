"""Members of a wake being walked: what each decided, what is noted of it, and what the run's page shows. Touches no database.

Whoever keeps the members, in the database or in memory, walks them by the same rules.
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
from distmark.engine.facts import plain
from distmark.enrollments.model import MAX_TRIES, EnrollmentStatus, TimelineKind
from distmark.enrollments.table import Enrollment
from distmark.journeys.model import Act, End, Facts, Outcome, SendMessage, SentFact, Sleep, Why
from distmark.journeys.program import Program
from distmark.journeys.source import Source
from distmark.journeys.table import JourneyVersion
from distmark.journeys.walk import Position, Trace, leaving, passed, walk
from distmark.messages.compose import Person
from distmark.messages.model import MessageStatus
from distmark.sql import id_of

log = logging.getLogger("distmark.wake")

CHECK_AGAIN = timedelta(hours=1)  # a send held for a reason nobody can date (approval withdrawn) looks again then
MOST_RETRIES = 6  # of an effect whose other side failed in a way that may pass
SHOWN_DETAIL = ("arm", "rules", "timeout", "timed_out", "event")  # of a step's decision, on the run's page

_SEND_MOVES = {
    MessageStatus.sent: TimelineKind.sent,
    MessageStatus.delivered: TimelineKind.sent,
    MessageStatus.bounced: TimelineKind.sent,
    MessageStatus.suppressed: TimelineKind.suppressed,
    MessageStatus.uncertain: TimelineKind.uncertain,
}


WALKED = ("step_id", "arrived_at", "visits", "due_at", "why", "rules", "awaits", "tries", "error", "answers")


@dataclass(frozen=True, slots=True)
class StepShown:
    """A step that this wake did, for the run's page. Names no person."""

    step_id: str
    kind: str
    text: str
    failed: bool = False


@dataclass(slots=True)
class Walker:
    """One member being walked in this wake."""

    row: Enrollment
    person: Person
    facts: Facts
    position: Position
    now: datetime
    unsubscribed: bool
    done: bool = False
    effect: Any = None
    moves: list[dict[str, Any]] = field(default_factory=list)  # rows of the timeline, not written yet

    @property
    def id(self) -> int:
        return id_of(self.row)

    @property
    def visit(self) -> int:
        """The how-many-th visit to the step it stands at this is."""
        return self.position.number

    def remembered(self) -> dict[str, Any]:
        """Return all that walking changes, for `recall`."""
        row = {name: getattr(self.row, name) for name in (*WALKED, "status")}
        return {"row": row, "position": self.position, "facts": self.facts, "done": self.done, "effect": self.effect}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Be as it was when `memory` was taken, with nothing to note."""
        for name, value in memory["row"].items():
            setattr(self.row, name, value)
        self.position, self.facts, self.done, self.effect = (memory[name] for name in ("position", "facts", "done", "effect"))
        self.moves = []

    def note(self, kind: TimelineKind, step_id: str, **detail: Any) -> None:
        visit = int(self.position.visits.get(step_id, 1)) if step_id else 1
        told = {"at": self.now, "kind": kind, "step_id": step_id, "visit": visit, "detail": plain(detail), "rolled": False}
        self.moves.append({"enrollment_id": self.id, **told})


@dataclass(slots=True)
class Work:
    """The members of one run that are due and in the same version; those who were moved meanwhile are in another."""

    version: JourneyVersion
    program: Program
    source: Source
    walkers: list[Walker]
    clock: Clock
    shown: list[StepShown] = field(default_factory=list)


def walk_all(work: Work, walkers: Sequence[Walker]) -> None:
    for walker in walkers:
        try:
            _walk_one(work, walker)
        except Exception as error:  # one member's fault is that member's, whatever it is
            record_failure(work, walker, error)


def _walk_one(work: Work, walker: Walker) -> None:
    ended = End(Outcome.unsubscribed, "unsubscribed") if walker.unsubscribed else leaving(work.program, walker.facts, walker.now)
    if ended is not None:
        finish(work, walker, ended)
        return
    if _is_backing_off(walker):
        walker.done = True
        return
    walked = walk(work.program, walker.position, walker.facts, walker.now)
    for trace in walked.trace:
        _note_trace(work, walker, trace)
    walker.position = walked.position
    decision = walked.decision
    if isinstance(decision, End):
        finish(work, walker, decision)
    elif isinstance(decision, Sleep):
        start_waiting(work, walker, decision.until, decision.why.value, decision.rules, decision.event)
    elif isinstance(decision, Act):
        walker.effect = decision.effect


def _is_backing_off(walker: Walker) -> bool:
    """News does not make a machine answer earlier: what is to be tried again later is, however often its contact clicks."""
    row = walker.row
    return row.why == Why.retry and row.due_at is not None and walker.now < row.due_at


def _note_trace(work: Work, walker: Walker, trace: Trace) -> None:
    kind = TimelineKind.branched if trace.kind == "branch" else TimelineKind.passed
    walker.note(kind, trace.step_id, **trace.detail, to=trace.to)
    told = ", ".join(f"{name}: {value}" for name, value in trace.detail.items() if name in SHOWN_DETAIL)
    work.shown.append(StepShown(trace.step_id, trace.kind, told))


def finish(work: Work, walker: Walker, ended: End) -> None:
    walker.row.step_id, walker.row.arrived_at, walker.row.visits = stored(walker.position)
    walker.effect, walker.done = ended, True


def stored(position: Position) -> tuple[str | None, datetime, dict[str, Any]]:
    return position.step_id, position.arrived_at, dict(position.visits)


def start_waiting(
    work: Work, walker: Walker, until: datetime | None, why: str, rules: Sequence[str], event: str | None, tries: int = 0
) -> None:
    row, step_id = walker.row, walker.position.step_id or ""
    # A send held again for the same reason is one hold, however often it was looked at.
    before, after = (row.step_id, row.why), (step_id, why)
    news = (*before, row.rules) != (*after, list(rules)) if why == Why.held else (*before, row.due_at) != (*after, until)
    row.step_id, row.arrived_at, row.visits = stored(walker.position)
    row.status, row.due_at, row.why, row.rules, row.awaits = EnrollmentStatus.waiting, until, why, list(rules), event
    row.tries, row.error = tries, ""
    walker.effect, walker.done = None, True
    if news:
        kind = TimelineKind.held if why == Why.held else TimelineKind.waiting
        walker.note(kind, step_id, until=until, why=why, rules=list(rules), event=event)


def record_failure(work: Work, walker: Walker, error: Exception) -> None:
    row = walker.row
    row.tries += 1
    row.error = f"{type(error).__name__}: {error}"[:500]
    row.step_id, row.arrived_at, row.visits = stored(walker.position)
    parked = row.tries >= MAX_TRIES
    row.status = EnrollmentStatus.parked if parked else EnrollmentStatus.waiting
    row.why, row.rules, row.awaits = ("parked" if parked else Why.retry.value), [], None
    row.due_at = None if parked else work.clock.in_real(timedelta(minutes=2**row.tries))
    walker.effect, walker.done = None, True
    walker.note(TimelineKind.error, row.step_id or "", error=row.error, tries=row.tries, parked=parked)
    work.shown.append(StepShown(row.step_id or "", "error", type(error).__name__, failed=True))
    log.warning("enrollment %d, step %s: %s (try %d)", walker.id, row.step_id, type(error).__name__, row.tries)


def apply_result(work: Work, walker: Walker, result: EffectResult) -> None:
    """Take in what the effect did, and move past its step, or end."""
    step_id = walker.effect.step_id
    walker.note(result.move, step_id, **result.detail)
    work.shown.append(StepShown(step_id, work.program.steps[step_id].kind, result.text, failed=result.failed))
    if result.contact is not None:
        walker.person = replace(walker.person, contact=result.contact)
        fields = work.program.definition.contact_fields
        walker.facts = replace(walker.facts, contact=attributes_of(result.contact, fields))
    if result.answer is not None:
        walker.row.answers = {**walker.row.answers, step_id: dict(result.answer)}
        walker.facts = replace(walker.facts, answers=walker.row.answers)
    if result.end is not None:
        finish(work, walker, result.end)
    else:
        move_past_step(work, walker)


def settle_external(work: Work, walker: Walker, result: EffectResult | Exception) -> None:
    """Take in what came of an errand outside: it raised, is to be tried again later, or is done."""
    if isinstance(result, Exception):
        record_failure(work, walker, result)
    elif result.later and walker.row.tries < MOST_RETRIES:
        tries = walker.row.tries + 1
        until = work.clock.in_real(BACKOFF[min(tries, len(BACKOFF)) - 1])
        start_waiting(work, walker, until, Why.retry.value, [result.later], None, tries)
    else:
        apply_result(work, walker, result)


def move_past_step(work: Work, walker: Walker) -> None:
    walker.position = passed(work.program, walker.position, walker.now)
    walker.effect = None
    row = walker.row
    row.tries, row.error, row.why, row.rules = 0, "", "", []  # what held this step says nothing about the next


def settle_unsent(work: Work, walker: Walker, prepared: Prepared) -> None:
    step_id = prepared.request.effect.step_id
    if prepared.error is not None:
        record_failure(work, walker, prepared.error)
        return
    if prepared.readiness is Readiness.held:
        start_waiting(work, walker, prepared.until or work.clock.in_real(CHECK_AGAIN), Why.held.value, prepared.rules, None)
        return
    if prepared.readiness is Readiness.skipped:
        walker.note(TimelineKind.skipped, step_id, reason=prepared.rules[0], rules=prepared.rules)
        work.shown.append(StepShown(step_id, "send", f"skipped: {prepared.rules[0]}"))
    else:
        note_status(work, walker, step_id, prepared.status or MessageStatus.failed, prepared.detail)
    move_past_step(work, walker)


def note_status(work: Work, walker: Walker, step_id: str, status: MessageStatus, reason: str, code: str = "") -> None:
    walker.note(_SEND_MOVES.get(status, TimelineKind.failed), step_id, status=status.value, reason=reason, code=code)
    work.shown.append(StepShown(step_id, "send", status.value, failed=status in (MessageStatus.failed, MessageStatus.rejected)))


def now_written(facts: Facts, effect: SendMessage, status: MessageStatus, now: datetime) -> Facts:
    """Return the facts with the message just sent among them, so that a step right behind it knows."""
    sent = {**facts.sent, effect.step_id: SentFact(at=now, channel=effect.channel, status=status.value)}
    return replace(facts, sent=sent, written_at=[*facts.written_at, now])
