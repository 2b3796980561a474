"""Rehearsals: a journey tried on oneself, with messages to one's own inbox and waits of seconds."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from sqlmodel import Session, col, select
from starlette.datastructures import FormData

from distmark.campaigns.table import Campaign
from distmark.clock import wall_now
from distmark.compliance.service import CheckFailed
from distmark.engagement.model import EventKind
from distmark.engagement.table import Event
from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.errors import InvalidInput, NotFound, Refused
from distmark.journeys import service as journeys
from distmark.journeys.definition import JourneyDefinition
from distmark.journeys.program import Program
from distmark.journeys.steps import Step
from distmark.journeys.table import Journey, JourneyVersion
from distmark.messages.table import Message
from distmark.partners import service as partners
from distmark.partners.model import Permission
from distmark.partners.scope import visible
from distmark.partners.table import User
from distmark.rehearsals import service as rehearsals
from distmark.rehearsals.sandbox import enrollment_in, open_sandbox
from distmark.rehearsals.service import DEFAULT_SECONDS, SECONDS, RehearsalOptions
from distmark.rehearsals.table import Rehearsal, RehearsalStatus
from distmark.sql import id_of
from distmark.tasks.table import Task
from distmark.web import errors
from distmark.web.forms import posted_form, text
from distmark.web.i18n import N_, Translator
from distmark.web.ids import Id, chosen_id, read_id
from distmark.web.labels import OUTCOME
from distmark.web.pages.contact_timeline import MESSAGE_KINDS, TimelineLine, line_of_event, line_of_message, waiting_detail
from distmark.web.permissions import needs
from distmark.web.sample_preview import SAMPLE_VALUES
from distmark.web.status_text import event_name, status_of, step_name
from distmark.web.visit import Visit

router = APIRouter()
MOST_PARTNERS = 500
MOST_LINES = 200


@dataclass(frozen=True, slots=True)
class AttributeField:
    """One attribute that the journey reads, as a field of the form: its name, its type (`kind`), and its suggested value."""

    name: str
    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class RehearsalState:
    """The state of a rehearsal in words: `seconds` are left of the present wait, and `timeline` has the newest line first."""

    row: Rehearsal
    status: RehearsalStatus
    sentence: str
    clock_at: datetime
    seconds: int | None
    can_go_on: bool
    sent: int
    timeline: list[TimelineLine]


@router.get("/journeys/{key}/{number}/test")
def rehearsal_form(key: str, number: Id, visit: Visit = needs(Permission.see_journeys)) -> Response:
    """Show the form of a rehearsal: the seconds per wait, the language, the partner and the attributes."""
    return _form(visit, key, number)


@router.post("/journeys/{key}/{number}/test")
def begin_rehearsal(key: str, number: Id, visit: Visit = needs(Permission.see_journeys), form: FormData = posted_form) -> Response:
    """Begin a rehearsal and go to its page."""
    with visit.reading() as session:
        _version(session, visit, key, number)
    if visit.site.rehearse is None:
        raise Refused("This process cannot send messages, so it cannot test journeys; use the web process of the installation.")
    try:
        with visit.writing() as session:
            _journey, version = _version(session, visit, key, number)
            definition = journeys.program_of(session, id_of(version)).definition
            row = rehearsals.begin(
                session, visit.viewer, visit.site.settings.data_dir, id_of(version), _options(form, definition), visit.now
            )
            rehearsal_id, test_key = id_of(row), row.key
    except CheckFailed:
        return visit.go(f"/journeys/{key}?v={number}", N_("The errors shown here must be corrected first."), kind="bad")
    except (InvalidInput, Refused) as error:
        return _form(visit, key, number, form, wrong=errors.explain(error, visit.language), status=422)
    visit.site.rehearse(rehearsal_id)
    return visit.go(f"/tests/{test_key}")


@router.get("/tests/{test_key}")
def rehearsal_page(test_key: str, visit: Visit = needs(Permission.see_journeys)) -> Response:
    """Show the state of a rehearsal; the page reloads it every second while it runs."""
    with visit.reading() as session:
        row = rehearsals.get_rehearsal(session, visit.viewer, test_key)
        version = journeys.get_version(session, visit.viewer, row.version_id)
        program = journeys.program_of(session, row.version_id)
        page: dict[str, Any] = {
            "journey": session.get_one(Journey, version.journey_id),
            "version": version,
            "address_of_tester": session.get_one(User, row.user_id).email,
            "partner": partners.get_partner(session, visit.viewer, row.partner_id),
        }
    state = _state_of(visit, row, program)
    return visit.page(
        "rehearsals/page.html",
        state=state,
        events=[(name, event_name(name, visit.translator, program)) for name in program.definition.events],
        running=state.status is RehearsalStatus.running,
        **page,
    )


@router.post("/tests/{test_key}/stop")
def stop_rehearsal(test_key: str, visit: Visit = needs(Permission.see_journeys)) -> Response:
    """Stop the rehearsal: it sends no further message."""
    with visit.writing() as session:
        rehearsals.ask_to_stop(session, visit.viewer, test_key)
    return visit.go(f"/tests/{test_key}", N_("The test stops."))


@router.post("/tests/{test_key}/go-on")
def go_on_with_rehearsal(test_key: str, visit: Visit = needs(Permission.see_journeys)) -> Response:
    """End the present wait now."""
    with visit.writing() as session:
        rehearsals.ask_to_go_on(session, visit.viewer, test_key)
    return visit.go(f"/tests/{test_key}")


@router.post("/tests/{test_key}/happen")
def event_in_rehearsal(test_key: str, visit: Visit = needs(Permission.see_journeys), form: FormData = posted_form) -> Response:
    """Record an event that the journey listens to."""
    event = text(form, "event")
    with visit.reading() as session:
        rehearsals.trigger_event(session, visit.viewer, visit.site.settings.data_dir, test_key, event)
        program = journeys.program_of(session, rehearsals.get_rehearsal(session, visit.viewer, test_key).version_id)
    return visit.go(f"/tests/{test_key}", N_("It has happened: %(event)s"), event=event_name(event, visit.translator, program))


# --- the form ---------------------------------------------------------------------------------------------------------------------------


def _version(session: Session, visit: Visit, key: str, number: int) -> tuple[Journey, JourneyVersion]:
    journey = journeys.get_journey(session, visit.viewer, key)
    version = next((row for row in journeys.versions_of(session, id_of(journey)) if row.number == number), None)
    if version is None:
        raise NotFound(f"This journey has no version {number}.")
    return journey, version


def _form(visit: Visit, key: str, number: int, form: FormData | None = None, *, wrong: str = "", status: int = 200) -> Response:
    with visit.reading() as session:
        journey, version = _version(session, visit, key, number)
        definition = journeys.program_of(session, id_of(version)).definition
        offered = visible(select(Campaign), Campaign, visit.viewer).where(Campaign.journey_id == journey.id)
        page: dict[str, Any] = {
            "partners": partners.partners_of(session, visit.viewer)[:MOST_PARTNERS],
            "campaigns": list(session.exec(offered.order_by(col(Campaign.id).desc()))),
            "before": rehearsals.newest(session, visit.viewer, id_of(version)),
            "address_of_tester": session.get_one(User, visit.viewer.user_id).email,
        }
    before: Rehearsal | None = page["before"]
    return visit.page(
        "rehearsals/new.html",
        status=status,
        journey=journey,
        version=version,
        languages_of_journey=definition.languages,
        fields=_attribute_fields(definition, form, before),
        chosen=_chosen(visit, definition, form, before, page["campaigns"]),
        least=SECONDS[0],
        most=SECONDS[1],
        waits=sum(1 for step in definition.all_steps() if step.kind == "wait"),
        has_sms=any(step.kind == "send" and getattr(step, "send", "") == "sms" for step in definition.all_steps()),
        state=before.state(wall_now()) if before else None,
        can_test=visit.site.rehearse is not None,
        wrong=wrong,
        **page,
    )


def _chosen(
    visit: Visit, definition: JourneyDefinition, form: FormData | None, before: Rehearsal | None, campaigns: list[Campaign]
) -> dict[str, str]:
    """Return the values of the form: those just posted, else those of the last rehearsal, else defaults."""
    if form is not None:
        return {name: text(form, name) for name in ("seconds", "language", "partner", "campaign", "phone")}
    if before is not None:
        return {
            "seconds": str(before.seconds_per_wait),
            "language": before.language,
            "partner": str(before.partner_id),
            "campaign": str(before.campaign_id or ""),
            "phone": "yes" if before.has_phone else "",
        }
    first = campaigns[0] if campaigns else None
    return {
        "seconds": str(DEFAULT_SECONDS),
        "language": visit.language if visit.language in definition.languages else definition.languages[0],
        "partner": str(first.partner_id or "") if first else "",
        "campaign": str(first.id) if first else "",
        "phone": "yes",
    }


def _attribute_fields(definition: JourneyDefinition, form: FormData | None, before: Rehearsal | None) -> list[AttributeField]:
    found = []
    for name, kind in {**definition.contact_fields, **definition.journey_fields}.items():
        made_up = SAMPLE_VALUES[str(kind)]
        value = made_up.isoformat() if isinstance(made_up, date) else "" if str(kind) == "bool" else str(made_up)
        if before is not None:
            former = before.data.get(name)
            value = "" if former in (None, False) else "yes" if former is True else str(former)
        found.append(AttributeField(name, str(kind), text(form, f"data.{name}") if form is not None else value))
    return found


def _options(form: FormData, definition: JourneyDefinition) -> RehearsalOptions:
    seconds, partner, campaign = text(form, "seconds"), text(form, "partner"), text(form, "campaign")
    partner_id = read_id(partner)
    if partner_id is None:
        raise InvalidInput("The partner is missing; choose in whose name the messages are written.")
    data: dict[str, Any] = {}
    for name, kind in {**definition.contact_fields, **definition.journey_fields}.items():
        value = text(form, f"data.{name}")
        data[name] = bool(value) if str(kind) == "bool" else value or None
    return RehearsalOptions(
        partner_id=partner_id,
        language=text(form, "language"),
        seconds_per_wait=read_id(seconds) or DEFAULT_SECONDS,
        campaign_id=chosen_id(campaign),
        has_phone=bool(text(form, "phone")),
        data=data,
    )


# --- the state --------------------------------------------------------------------------------------------------------------------

# Kind of entry -> its sentence. Acts that a rehearsal does not carry out have sentences of their own, below.
SENTENCES: dict[TimelineKind, str] = {
    TimelineKind.entered: N_("Began the journey"),
    TimelineKind.waiting: N_("Waits: %(step)s"),
    TimelineKind.held: N_("Held back: %(step)s"),
    TimelineKind.skipped: N_("Left out by a rule: %(step)s"),
    TimelineKind.suppressed: N_("Not sent, because it was not allowed: %(step)s"),
    TimelineKind.branched: N_("Branch taken: %(step)s"),
    TimelineKind.error: N_("An error at: %(step)s"),
    TimelineKind.ended: N_("Ended: %(step)s"),
}
# Kind of step -> the sentence about the act that was not carried out.
WOULD_DO: dict[str, str] = {
    "webhook": N_("Would call another system: %(step)s"),
    "audience": N_("Would change an ad audience: %(step)s"),
    "update": N_("Would change the contact's data: %(step)s"),
    "journey": N_("Would enter another journey: %(step)s"),
}


def _state_of(visit: Visit, row: Rehearsal, program: Program) -> RehearsalState:
    wall = wall_now()
    status = row.state(wall)
    try:
        with open_sandbox(visit.site.settings.data_dir, row.key) as db, db.reading() as sandbox:
            enrollment = enrollment_in(sandbox)
            timeline = _timeline(sandbox, enrollment, program, visit.translator)
            sent = len([line for line in timeline if line.chip is not None and line.kind != "bad"])
            sentence = _sentence(visit.translator, row, status, enrollment, program)
            halted = enrollment.status is not EnrollmentStatus.waiting
    except NotFound:
        return RehearsalState(
            row, status, visit.gettext(N_("The details of this test were cleared away.")), row.now(wall), None, False, 0, []
        )
    seconds = row.seconds_left(wall) if status is RehearsalStatus.running else None
    can_go_on = status is RehearsalStatus.running and row.next_at is not None and not halted
    return RehearsalState(row, status, sentence, row.now(wall), seconds, can_go_on, sent, timeline)


def _sentence(translator: Translator, row: Rehearsal, status: RehearsalStatus, enrollment: Enrollment, program: Program) -> str:
    if status is RehearsalStatus.running:
        if row.stop_asked:
            return translator.gettext(N_("The test stops."))
        return "" if enrollment.step_id is None else status_of(enrollment, program, translator).place
    if status is RehearsalStatus.finished:
        label = OUTCOME.get(enrollment.outcome or "")
        return translator.joined(
            translator.gettext(
                N_("The journey has ended: %(how)s."), how=translator.gettext(label.text) if label else enrollment.outcome or "–"
            ),
            enrollment.reason,
        )
    if status is RehearsalStatus.interrupted:
        return translator.gettext(N_("The test was interrupted, because the web process was started anew. Begin it again."))
    if status is RehearsalStatus.failed:
        return translator.gettext(N_("The test could not go on: %(error)s"), error=enrollment.error or row.reason)
    return translator.gettext(STOPPED.get(row.reason, STOPPED[""]))


STOPPED = {
    "": N_("You stopped the test."),
    "left_alone": N_("The test was left alone for two hours, so it was stopped."),
    "too_many_wakes": N_("The journey went on and on, so the test was stopped."),
}


def _timeline(sandbox: Session, enrollment: Enrollment, program: Program, translator: Translator) -> list[TimelineLine]:
    """Return the lines of the rehearsal's timeline, newest first, at the times of its own clock."""
    events = select(Event).where(col(Event.kind) != EventKind.unsubscribed).order_by(col(Event.id))
    lines = [line_of_event(event, [program], translator) for event in sandbox.exec(events)]
    tasks = {(task.step_id, task.visit): task for task in sandbox.exec(select(Task))}
    messages = {(message.step_id, message.visit): message for message in sandbox.exec(select(Message).order_by(col(Message.id)))}
    for entry in sandbox.exec(select(TimelineEntry).where(TimelineEntry.enrollment_id == enrollment.id).order_by(col(TimelineEntry.id))):
        # The ledger knows more of a message than the timeline entry does; the entry gives its place among the others.
        message = messages.pop((entry.step_id, entry.visit), None) if entry.kind in MESSAGE_KINDS else None
        lines += [line_of_message(message, translator)] if message else _lines_of_entry(entry, program, tasks, translator)
    lines += [line_of_message(message, translator) for message in messages.values()]
    return sorted(lines, key=lambda each: each.at)[::-1][:MOST_LINES]


def _lines_of_entry(
    entry: TimelineEntry, program: Program, tasks: dict[tuple[str, int], Task], translator: Translator
) -> Iterator[TimelineLine]:
    step = program.steps.get(entry.step_id)
    name = step_name(step, translator) if step else entry.step_id
    if entry.kind is TimelineKind.task:
        task = tasks.get((entry.step_id, entry.visit))
        text_of = (
            N_("Would be a task for the brand's staff: %(title)s") if task and task.role == "brand" else N_("Would be a task: %(title)s")
        )
        yield TimelineLine(entry.at, "brand", translator.gettext(text_of, title=task.title if task else name))
    elif step is not None and step.kind in WOULD_DO and entry.kind in (TimelineKind.passed, TimelineKind.skipped):
        yield TimelineLine(entry.at, "brand", translator.gettext(WOULD_DO[step.kind], step=name), _would_do(step))
    elif entry.kind is TimelineKind.ended:
        outcome = str(entry.detail.get("outcome", ""))
        outcome_text = translator.gettext(OUTCOME[outcome].text) if outcome in OUTCOME else outcome
        yield TimelineLine(
            entry.at, "good", translator.gettext(SENTENCES[entry.kind], step=outcome_text), str(entry.detail.get("reason") or "")
        )
    elif entry.kind in SENTENCES:
        colour = {TimelineKind.error: "bad", TimelineKind.entered: "brand"}.get(entry.kind, "")
        yield TimelineLine(
            entry.at, colour, translator.gettext(SENTENCES[entry.kind], step=name), _detail(entry, step, program, translator)
        )


def _would_do(step: Step) -> str:
    """Return the target of a step (address, journey or audience) as its author wrote it."""
    for name in ("url", "journey", "audience"):
        value = getattr(step, name, None) or getattr(getattr(step, step.kind, None), name, None)
        if value:
            return str(value)
    return ""


def _detail(entry: TimelineEntry, step: Step | None, program: Program, translator: Translator) -> str:
    if entry.kind is TimelineKind.branched:
        arm = str(entry.detail.get("arm") or entry.detail.get("label") or "")
        path = next((path for path in step.paths() if path.label == arm), None) if step else None
        return path.words(translator.language) if path else arm
    if entry.kind is TimelineKind.error:
        return str(entry.detail.get("error", ""))
    return waiting_detail(entry, program, translator)
