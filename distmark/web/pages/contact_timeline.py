"""The timeline of a contact: its enrollments' timeline entries, messages and events, as lines in one order."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session

from distmark.engagement.model import Verdict
from distmark.engagement.table import Event
from distmark.engagement.who_reacted import events_of
from distmark.enrollments import service as enrollments
from distmark.enrollments.model import TimelineKind
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.journeys.model import Why
from distmark.journeys.program import Program
from distmark.messages import service as messages
from distmark.messages.model import MessageStatus
from distmark.messages.table import Message
from distmark.sql import id_of
from distmark.web.i18n import N_, Translator
from distmark.web.labels import EVENT, MESSAGE, OUTCOME, SUPPRESSION, Label
from distmark.web.status_text import delivery_text, end_reason, event_name, readable_key, retry_text, rule_text, step_name
from distmark.web.visit import Visit

MOST_LINES = 120
MESSAGE_KINDS = (TimelineKind.sent, TimelineKind.failed, TimelineKind.suppressed, TimelineKind.uncertain)
# Kind of entry -> its sentence. Sends are left out: the lines of messages come from the ledger, which knows more.
SENTENCES: Mapping[TimelineKind, str] = {
    TimelineKind.entered: N_("Began the journey"),
    TimelineKind.waiting: N_("Waits: %(step)s"),
    TimelineKind.held: N_("Held back: %(step)s"),
    TimelineKind.skipped: N_("Left out by a rule: %(step)s"),
    TimelineKind.suppressed: N_("Not sent, because it was not allowed: %(step)s"),
    TimelineKind.branched: N_("Branch taken: %(step)s"),
    TimelineKind.task: N_("Task for you: %(step)s"),
    TimelineKind.paused: N_("Paused"),
    TimelineKind.resumed: N_("Resumed after the pause"),
    TimelineKind.moved: N_("Moved to another version"),
    TimelineKind.error: N_("An error at: %(step)s"),
    TimelineKind.ended: N_("Ended: %(step)s"),
}


@dataclass(frozen=True, slots=True)
class TimelineLine:
    """One line of a timeline: its time, its colour (`kind`), its text, more about it (`detail`), and its chip."""

    at: datetime
    kind: str
    text: str
    detail: str = ""
    chip: object = None


def timeline_of(
    session: Session, visit: Visit, contact_id: int, rows: Sequence[Enrollment], programs: Mapping[int, Program]
) -> list[TimelineLine]:
    """Return the lines of this contact that the viewer may see, newest first, at most `MOST_LINES`."""
    entries = [(entry, programs[row.version_id]) for row in rows for entry in enrollments.timeline(session, visit.viewer, id_of(row))]
    sent = messages.messages_of(session, visit.viewer, contact_id=contact_id)
    places = _places_of_messages([entry for entry, _program in entries], sent)
    lines: list[tuple[Place, TimelineLine]] = []
    for entry, program in entries:
        lines += [((entry.at, id_of(entry), 0), line) for line in _lines_of_entry(entry, program, visit.translator)]
    lines += [(places[id_of(message)], line_of_message(message, visit.translator)) for message in sent]
    for event in events_of(session, visit.viewer, contact_id):
        lines.append((_place_of_event(event, places), line_of_event(event, programs.values(), visit.translator)))
    return [line for _place, line in sorted(lines, key=lambda each: each[0], reverse=True)][:MOST_LINES]


Place = tuple[datetime, float, int]  # within one instant by cause: what comes later has the greater numbers


def _places_of_messages(entries: Sequence[TimelineEntry], sent: Sequence[Message]) -> dict[int, Place]:
    """Return the place of each message by its id: beside the entry of its step, since it is handed over while the wake goes on."""
    noted: dict[tuple[int, str, int], TimelineEntry] = {}
    for entry in entries:
        if entry.kind in MESSAGE_KINDS:
            noted.setdefault((entry.enrollment_id, entry.step_id, entry.visit), entry)
    places: dict[int, Place] = {}
    for message in sent:
        own = noted.get((message.enrollment_id, message.step_id, message.visit))
        places[id_of(message)] = (own.at, id_of(own), 1) if own else (time_of(message), math.inf, 0)
    return places


def _place_of_event(event: Event, places: Mapping[int, Place]) -> Place:
    """Return the event's place: before the entries of its instant, which it causes, but after the message that it is about."""
    about = places.get(event.message_id or 0)
    if about is not None and event.at <= about[0]:
        return about[0], about[1], 1 + id_of(event)
    return event.at, -1, id_of(event)


def _lines_of_entry(entry: TimelineEntry, program: Program, translator: Translator) -> Iterator[TimelineLine]:
    if entry.kind not in SENTENCES:
        return
    step = program.steps.get(entry.step_id)
    name = step_name(step, translator) if step else readable_key(entry.step_id)
    detail = ""
    if entry.kind is TimelineKind.ended:
        outcome = str(entry.detail.get("outcome", ""))
        name = translator.gettext(OUTCOME[outcome].text) if outcome in OUTCOME else outcome
        detail = end_reason(str(entry.detail.get("reason") or ""), translator, program)
    elif entry.kind is TimelineKind.suppressed:
        reason = str(entry.detail.get("reason") or "")
        detail = translator.gettext(SUPPRESSION[reason].text) if reason in SUPPRESSION else ""
    elif entry.kind in (TimelineKind.waiting, TimelineKind.held, TimelineKind.skipped):
        detail = waiting_detail(entry, program, translator)
    elif entry.kind is TimelineKind.branched:
        detail = str(entry.detail.get("arm") or entry.detail.get("label") or "")
    colour = {TimelineKind.ended: "good", TimelineKind.error: "bad", TimelineKind.task: "brand", TimelineKind.entered: "brand"}.get(
        entry.kind, ""
    )
    yield TimelineLine(entry.at, colour, translator.gettext(SENTENCES[entry.kind], step=name), detail)


def waiting_detail(entry: TimelineEntry, program: Program, translator: Translator) -> str:
    """Return the detail of a waiting or held entry: until when, for which event, and why."""
    parts = []
    until = entry.detail.get("until") or entry.detail.get("due_at")
    if isinstance(until, str):
        parts.append(translator.gettext(N_("until %(time)s"), time=translator.short(datetime.fromisoformat(until))))
    event = entry.detail.get("event")
    if isinstance(event, str) and event not in ("", "*"):
        parts.append(translator.gettext(N_("waits for “%(event)s”"), event=event_name(event, translator, program)))
    rules = entry.detail.get("rules") or ([entry.detail["reason"]] if entry.detail.get("reason") else [])
    if isinstance(rules, list) and rules:
        worded = retry_text if entry.detail.get("why") == Why.retry else rule_text
        reasons = ("、" if translator.language == "ja" else ", ").join(worded(str(rule), translator) for rule in rules)
        parts.append(translator.gettext(N_("because: %(rules)s"), rules=reasons))
    return ("・" if translator.language == "ja" else " ").join(parts)


def time_of(message: Message) -> datetime:
    """Return when the message was sent, as far as it came."""
    return message.sent_at or message.sending_at or message.created_at


def message_label(message: Message) -> Label:
    """Return the label of the message's status; for one that must not be sent, with its own reason."""
    if message.status is MessageStatus.suppressed and message.detail in SUPPRESSION:
        return SUPPRESSION[message.detail]
    return MESSAGE[message.status]


def line_of_message(message: Message, translator: Translator) -> TimelineLine:
    """Return the line of a message: its subject, its status, and when it was opened and clicked."""
    label = message_label(message)
    what = N_("Mail “%(subject)s”") if message.channel == "email" else N_("Text message “%(subject)s”")
    parts = [why] if (why := delivery_text(message, translator)) else []
    if message.opened_at:
        parts.append(translator.gettext(N_("opened %(time)s"), time=translator.short(message.opened_at)))
    if message.clicked_at:
        parts.append(translator.gettext(N_("clicked %(time)s"), time=translator.short(message.clicked_at)))
    text = translator.gettext(what, subject=message.subject or readable_key(message.name))
    return TimelineLine(time_of(message), "bad" if label.chip == "bad" else "brand", text, " · ".join(parts), label)


def what_happened(event: Event, programs: Iterable[Program], translator: Translator) -> str:
    """Return the event's name, else that of the link that was clicked, for readers; "" when it has neither."""
    return event_name(event.name, translator, *programs) if event.name else readable_key(event.link or "")


def line_of_event(event: Event, programs: Iterable[Program], translator: Translator) -> TimelineLine:
    """Return the line of an engagement event; `programs` may name the event."""
    name = what_happened(event, programs, translator)
    text = translator.gettext(EVENT[event.kind]) + (translator.gettext(N_(": ")) + name if name else "")
    machine = translator.gettext(N_("by a machine, not counted")) if event.verdict is Verdict.machine else ""
    implied = translator.gettext(N_("known from the click")) if event.data.get("implied") else ""
    return TimelineLine(event.at, "good" if not machine else "", text, machine or implied)
