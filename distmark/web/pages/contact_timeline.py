"""Everything that happened to one contact, put in one line of time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session

from distmark.engagement.model import Verdict
from distmark.engagement.reactions import events_of
from distmark.engagement.table import Event
from distmark.enrollments import service as enrollments
from distmark.enrollments.model import TimelineKind
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.journeys.model import Why
from distmark.journeys.program import Program
from distmark.messages import service as messages
from distmark.messages.table import Message
from distmark.sql import id_of
from distmark.web.i18n import N_, Tongue
from distmark.web.labels import EVENT, MESSAGE, OUTCOME
from distmark.web.status_text import event_name, retry_words, rule_words, step_name
from distmark.web.visit import Visit

SHOWN = 120
# Kind of move -> its sentence. Sends tell their own story from the ledger, which knows more.
MOVES: Mapping[TimelineKind, str] = {
    TimelineKind.entered: N_("Began the journey"),
    TimelineKind.waiting: N_("Waits: %(step)s"),
    TimelineKind.held: N_("Held back: %(step)s"),
    TimelineKind.skipped: N_("Left out by a rule: %(step)s"),
    TimelineKind.suppressed: N_("Not sent, because it was not allowed: %(step)s"),
    TimelineKind.branched: N_("Went on at the split: %(step)s"),
    TimelineKind.task: N_("Task for you: %(step)s"),
    TimelineKind.paused: N_("Paused"),
    TimelineKind.resumed: N_("Went on after the pause"),
    TimelineKind.moved: N_("Moved to another version"),
    TimelineKind.error: N_("An error at: %(step)s"),
    TimelineKind.ended: N_("Ended: %(step)s"),
}


@dataclass(frozen=True, slots=True)
class Told:
    """One thing that happened: when, its colour, what, and more about it."""

    at: datetime
    kind: str
    text: str
    detail: str = ""
    chip: object = None


def story_of(session: Session, visit: Visit, contact_id: int, rows: Sequence[Enrollment], programs: Mapping[int, Program]) -> list[Told]:
    """Return everything the viewer may know of this contact, newest first."""
    told: list[Told] = []
    for row in rows:
        for move in enrollments.timeline(session, visit.viewer, id_of(row)):
            told.extend(_of_move(move, programs[row.version_id], visit.tongue))
    for message in messages.messages_of(session, visit.viewer, contact_id=contact_id):
        told.append(of_message(message, visit.tongue))
    for event in events_of(session, visit.viewer, contact_id):
        told.append(_of_event(event, programs, visit.tongue))
    return sorted(told, key=lambda item: item.at, reverse=True)[:SHOWN]


def _of_move(move: TimelineEntry, program: Program, tongue: Tongue) -> Iterator[Told]:
    if move.kind not in MOVES:
        return
    step = program.steps.get(move.step_id)
    name = step_name(step, tongue) if step else move.step_id
    detail = ""
    if move.kind is TimelineKind.ended:
        outcome = str(move.detail.get("outcome", ""))
        name = tongue.say(OUTCOME[outcome].words) if outcome in OUTCOME else outcome
        detail = str(move.detail.get("reason") or "")
    elif move.kind in (TimelineKind.waiting, TimelineKind.held):
        detail = until_when(move, program, tongue)
    elif move.kind is TimelineKind.branched:
        detail = str(move.detail.get("arm") or move.detail.get("label") or "")
    colour = {TimelineKind.ended: "good", TimelineKind.error: "bad", TimelineKind.task: "brand", TimelineKind.entered: "brand"}.get(
        move.kind, ""
    )
    yield Told(move.at, colour, tongue.say(MOVES[move.kind], step=name), detail)


def until_when(move: TimelineEntry, program: Program, tongue: Tongue) -> str:
    """Return until when somebody waits or is held, for which event, and why."""
    parts = []
    until = move.detail.get("until") or move.detail.get("due_at")
    if isinstance(until, str):
        parts.append(tongue.say(N_("until %(time)s"), time=tongue.short(datetime.fromisoformat(until))))
    event = move.detail.get("event")
    if isinstance(event, str) and event not in ("", "*"):
        parts.append(tongue.say(N_("waits for “%(event)s”"), event=event_name(event, tongue, program)))
    rules = move.detail.get("rules") or ([move.detail["reason"]] if move.detail.get("reason") else [])
    if isinstance(rules, list) and rules:
        worded = retry_words if move.detail.get("why") == Why.retry else rule_words
        said = ("、" if tongue.language == "ja" else ", ").join(worded(str(rule), tongue) for rule in rules)
        parts.append(tongue.say(N_("because: %(rules)s"), rules=said))
    return ("・" if tongue.language == "ja" else " ").join(parts)


def of_message(message: Message, tongue: Tongue) -> Told:
    """Return what became of a message: what it was, its state, and when it was opened and clicked."""
    said = MESSAGE[message.status]
    what = N_("Mail “%(subject)s”") if message.channel == "email" else N_("Text message “%(subject)s”")
    parts = [f"{message.code} {message.detail}".strip()] if message.code or message.detail else []
    if message.opened_at:
        parts.append(tongue.say(N_("opened %(time)s"), time=tongue.short(message.opened_at)))
    if message.clicked_at:
        parts.append(tongue.say(N_("clicked %(time)s"), time=tongue.short(message.clicked_at)))
    at = message.sent_at or message.sending_at or message.created_at
    text = tongue.say(what, subject=message.subject or message.name)
    return Told(at, "bad" if said.chip == "bad" else "brand", text, " · ".join(parts), said)


def _of_event(event: Event, programs: Mapping[int, Program], tongue: Tongue) -> Told:
    name = event_name(event.name, tongue, *programs.values()) if event.name else event.link
    text = tongue.say(EVENT[event.kind]) + (f": {name}" if name else "")
    machine = tongue.say(N_("by a machine, not counted")) if event.verdict is Verdict.machine else ""
    implied = tongue.say(N_("known from the click")) if event.data.get("implied") else ""
    return Told(event.at, "good" if not machine else "", text, machine or implied)
