"""Operations: the journeys that are late, the parked enrollments, held sends and uncertain messages, and retrying parked enrollments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fastapi import APIRouter
from fastapi.responses import Response
from sqlmodel import Session
from starlette.datastructures import FormData

from distmark.contacts.service import contacts_by_id
from distmark.contacts.table import Contact
from distmark.errors import SelectionChanged
from distmark.journeys import service as journeys
from distmark.journeys.program import Program
from distmark.operations import parked as parking
from distmark.operations.alarms import AlarmShown, alarms
from distmark.operations.backlog import StepWatch, late_before, watch
from distmark.operations.held_send_counts import Held, held_sends
from distmark.operations.model import AlarmKind
from distmark.operations.parked import Parked, Retried
from distmark.operations.uncertain import Uncertain, uncertain_count
from distmark.operations.uncertain import uncertain as uncertain_messages
from distmark.operations.unmade import unmade_count
from distmark.partners.model import Permission
from distmark.partners.service import partners_of
from distmark.sql import id_of
from distmark.web import charts
from distmark.web.forms import numbers, posted_form, text
from distmark.web.i18n import N_, Translator
from distmark.web.ids import Id
from distmark.web.permissions import needs
from distmark.web.status_text import rule_text, step_name, unmade_reason, unmade_text
from distmark.web.visit import Visit

router = APIRouter()
ROWS = 20
# The permission to pause and resume journeys: the same users may retry parked enrollments.
PERMISSION = Permission.publish_campaigns

# kind -> title, advice
ALARMS: Mapping[AlarmKind, tuple[str, str]] = {
    AlarmKind.late: (
        N_("Late"),
        N_(
            "Nobody is lost: all of them go on, in their order, once what holds them is mended. See whether the worker runs, and whether"
            " the work pool or its queue is paused in Prefect; “distmark doctor” on the server says what is wrong."
        ),
    ),
    AlarmKind.unmade: (
        N_("Messages cannot be made"),
        N_(
            "See below which value is missing. Enter it at the contact, or give the template a default in a new version and move them"
            " there; then let them try again."
        ),
    ),
    AlarmKind.dry: (
        N_("Closed to new contacts"),
        N_(
            "See whether its campaigns are open and partners know of them, and whether the event, segment or date that brings people in"
            " still comes. If it is meant to stand still, stop taking new contacts or retire the version: that ends the alarm."
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class BacklogStepRow:
    """One step with live enrollments: its numbers, its lateness and its held sends in words. `share` (0 to 1) is of the fullest step."""

    step: StepWatch
    name: str
    share: float
    is_late: bool
    p50: str
    most: str
    held: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class BacklogJourney:
    """One version of a journey with live enrollments; `most` is the lateness of the latest."""

    key: str
    name: str
    version: int
    version_id: int
    rows: Sequence[BacklogStepRow]
    is_late: bool
    people: int
    most: timedelta

    @property
    def place(self) -> str:
        """The sort key among the journeys that are on time, by which the list is paged."""
        return f"{self.key} {self.version:06d}"


@dataclass(frozen=True, slots=True)
class AlarmRow:
    """One open alarm in words."""

    shown: AlarmShown
    name: str
    title: str
    sentence: str
    advice: str


@dataclass(frozen=True, slots=True)
class OpenCaseRow:
    """One parked enrollment or uncertain message with its names in words, and its contact if the viewer may see contacts."""

    shown: Parked | Uncertain
    journey: str
    step: str
    contact: Contact | None
    partner: str
    why: str = ""  # of a message that cannot be made


@dataclass(frozen=True, slots=True)
class Overview:
    """The state of the brand's journeys: the late ones come first, the latest at the top."""

    journeys: Sequence[BacklogJourney]
    alarms: Sequence[AlarmRow]
    parked: int
    unmade: int
    uncertain: int

    @property
    def late(self) -> list[BacklogJourney]:
        """The journeys that are late."""
        return [journey for journey in self.journeys if journey.is_late]

    @property
    def late_without_alarm(self) -> list[BacklogJourney]:
        """The journeys that are late without an alarm: the worker raises it within a minute, when a worker runs."""
        alarmed = {row.shown.alarm.version_id for row in self.alarms if row.shown.alarm.kind is AlarmKind.late}
        return [journey for journey in self.late if journey.version_id not in alarmed]

    @property
    def steps_with_many(self) -> list[tuple[BacklogJourney, BacklogStepRow]]:
        """The steps with more than one parked enrollment, which can be retried together."""
        return [(journey, row) for journey in self.journeys for row in journey.rows if row.step.parked > 1]


@router.get("/operations")
def operations_page(visit: Visit = needs(PERMISSION), after: str = "", parked: Id | None = None, uncertain: Id | None = None) -> Response:
    """Show the brand's journeys, alarms, parked enrollments and uncertain messages; the open page reloads by itself."""
    with visit.reading() as session:
        names = _display_names(session, visit)
        found = _overview(session, visit, names)
        stuck = parking.parked(session, visit.viewer, parked, ROWS + 1)
        unsure = uncertain_messages(session, visit.viewer, uncertain, ROWS + 1)
        cases = _case_rows(session, visit, names, [*stuck[:ROWS], *unsure[:ROWS]])
    calm = [journey for journey in found.journeys if not journey.is_late]
    behind = [journey for journey in calm if journey.place > after] if after else calm
    return visit.page(
        "operations.html",
        sentence=_sentence(visit, found),
        found=found,
        shown=[*([] if after else found.late), *behind[:ROWS]],
        next_after=behind[ROWS - 1].place if len(behind) > ROWS else "",
        after=after,
        stuck=[case for case in cases if isinstance(case.shown, Parked)],
        next_parked=stuck[ROWS - 1].enrollment.id if len(stuck) > ROWS else None,
        parked=parked,
        unsure=[case for case in cases if isinstance(case.shown, Uncertain)],
        next_uncertain=unsure[ROWS - 1].message.id if len(unsure) > ROWS else None,
        uncertain=uncertain,
        bar=charts.bar,
    )


@router.post("/operations/try-again")
def try_enrollments_again(visit: Visit = needs(PERMISSION), form: FormData = posted_form) -> Response:
    """Retry the chosen parked enrollments now."""
    with visit.writing() as session:
        done = parking.retry_parked(session, visit.viewer, numbers(form, "enrollment"), visit.now)
    return _retried(visit, form, done)


@router.post("/operations/try-step-again")
def try_a_step_again(visit: Visit = needs(PERMISSION), form: FormData = posted_form) -> Response:
    """Retry all enrollments that are parked at one step of a version now."""
    version_id, shown = next(iter(numbers(form, "version")), 0), next(iter(numbers(form, "shown")), None)
    try:
        with visit.writing() as session:
            done = parking.retry_parked_at_step(session, visit.viewer, version_id, text(form, "step"), visit.now, shown)
    except SelectionChanged:
        return visit.go(
            visit.back(form, "/operations"), N_("More people are stuck there than were shown. Look again, then let them try."), "warn"
        )
    return _retried(visit, form, done)


def _retried(visit: Visit, form: FormData, done: Retried) -> Response:
    back = visit.back(form, "/operations")
    if done.held:
        return visit.go(back, N_("A pause holds %(n)s of them; resume it first. The others try again now."), "warn", n=done.held)
    if not done.tried:
        return visit.go(back, N_("None of them is stuck any more."), "warn")
    return visit.go(back, N_("They try their step again now. Whoever is not shown below any more goes on."))


# --- rows --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DisplayNames:
    """The names of the brand's journeys, partners and steps for readers."""

    translator: Translator
    journeys: Mapping[str, str]
    partners: Mapping[int, str]
    programs: Callable[[int], Program]

    def step(self, version_id: int, step_id: str | None) -> str:
        """Return the name of a step; None or "" is the start."""
        step = self.programs(version_id).steps.get(step_id or "")
        return step_name(step, self.translator) if step else step_id or self.translator.gettext(N_("Is about to begin"))


def _display_names(session: Session, visit: Visit) -> DisplayNames:
    return DisplayNames(
        translator=visit.translator,
        journeys={row.key: visit.translator.named(row.name) or row.key for row in journeys.list_journeys(session, visit.viewer)},
        partners={id_of(row): row.name for row in partners_of(session, visit.viewer)},
        programs=lambda version_id: journeys.program_of(session, version_id),
    )


def _overview(session: Session, visit: Visit, names: DisplayNames) -> Overview:
    held: dict[tuple[int, str], list[Held]] = {}
    for each in held_sends(session, visit.viewer):
        held.setdefault((each.version_id, each.step_id), []).append(each)
    by_version: dict[int, list[StepWatch]] = {}
    for step in watch(session, visit.viewer, visit.now):
        by_version.setdefault(step.version_id, []).append(step)
    before = late_before(visit.site.clock)
    found = [_backlog_journey(visit, names, steps, held, before) for steps in by_version.values()]
    calm = sorted((journey for journey in found if not journey.is_late), key=lambda journey: journey.place)
    return Overview(
        journeys=[*(journey for journey in found if journey.is_late), *calm],  # the backlog lists the latest first
        alarms=[_alarm_row(visit, names, shown) for shown in alarms(session, visit.viewer)],
        parked=parking.parked_count(session, visit.viewer),
        unmade=unmade_count(session, visit.viewer),
        uncertain=uncertain_count(session, visit.viewer),
    )


def _backlog_journey(
    visit: Visit, names: DisplayNames, steps: Sequence[StepWatch], held: Mapping[tuple[int, str], Sequence[Held]], before: datetime
) -> BacklogJourney:
    first = steps[0]
    fullest = max(people_at(step) for step in steps)
    rows = [
        _step_row(visit, names, step, held.get((step.version_id, step.step_id), ()), people_at(step) / fullest, before) for step in steps
    ]
    return BacklogJourney(
        key=first.journey,
        name=names.journeys.get(first.journey, first.journey),
        version=first.version,
        version_id=first.version_id,
        rows=rows,
        is_late=any(row.is_late for row in rows),
        people=sum(people_at(step) for step in steps),
        most=max(step.late_max for step in steps),
    )


def _step_row(visit: Visit, names: DisplayNames, step: StepWatch, held: Sequence[Held], share: float, before: datetime) -> BacklogStepRow:
    return BacklogStepRow(
        step=step,
        name=names.step(step.version_id, step.step_id),
        share=share,
        is_late=step.oldest_due_at is not None and step.oldest_due_at < before,
        p50=span_text(visit.translator, step.late_p50) if step.due else "",
        most=span_text(visit.translator, step.late_max) if step.due else "",
        held=[(rule_text(each.rule, visit.translator), each.count) for each in held],
    )


def people_at(step: StepWatch) -> int:
    """Return the number of live enrollments at the step."""
    return step.waiting + step.paused + step.parked


def _alarm_row(visit: Visit, names: DisplayNames, shown: AlarmShown) -> AlarmRow:
    alarm = shown.alarm
    title, advice = ALARMS[alarm.kind]
    sentence = ""
    if alarm.kind is AlarmKind.late:
        late = span_text(visit.translator, timedelta(seconds=int(alarm.detail["late_seconds"])))
        sentence = visit.translator.ngettext(
            "%(n)s person should have moved on, %(late)s ago.",
            "%(n)s people should have moved on, the first %(late)s ago.",
            int(alarm.detail["count"]),
            late=late,
        )
    elif alarm.kind is AlarmKind.dry:
        sentence = visit.translator.ngettext(
            "Nobody has entered for a day; usually %(n)s person does.",
            "Nobody has entered for a day; usually %(n)s people do.",
            int(alarm.detail["usual_per_day"]),
        )
    elif alarm.kind is AlarmKind.unmade:
        sentence = unmade_text(visit.translator, int(alarm.detail["count"]))
    return AlarmRow(shown, names.journeys.get(shown.journey, shown.journey), visit.gettext(title), sentence, visit.gettext(advice))


def _case_rows(session: Session, visit: Visit, names: DisplayNames, shown: Sequence[Parked | Uncertain]) -> list[OpenCaseRow]:
    """Return the cases with their names. Only a viewer who may see contacts gets the contact; a marketer gets the partner alone."""
    subjects = [each.enrollment if isinstance(each, Parked) else each.message for each in shown]
    may_see = visit.viewer.may(Permission.see_contacts)
    people = contacts_by_id(session, visit.viewer, [subject.contact_id for subject in subjects]) if may_see else {}
    return [
        OpenCaseRow(
            shown=each,
            journey=names.journeys.get(each.journey, each.journey),
            step=names.step(subject.version_id, subject.step_id),
            contact=people.get(subject.contact_id),
            partner=names.partners.get(subject.partner_id, ""),
            why=unmade_reason(each.enrollment, names.translator) if isinstance(each, Parked) else "",
        )
        for each, subject in zip(shown, subjects, strict=True)
    ]


# --- words ----------------------------------------------------------------------------------------------------------------------------


def _sentence(visit: Visit, found: Overview) -> str:
    """Return the page's sentence: the journeys that are late, without entries or with parked enrollments, else that all is well."""
    ngettext = visit.translator.ngettext
    dry = {row.shown.journey for row in found.alarms if row.shown.alarm.kind is AlarmKind.dry}
    sentences = []
    if found.late:
        sentences.append(ngettext("%(n)s journey is late.", "%(n)s journeys are late.", len({journey.key for journey in found.late})))
        worst = max(found.late, key=lambda journey: journey.most)
        sentences.append(
            visit.gettext(N_("“%(name)s” is late by %(late)s."), name=worst.name, late=span_text(visit.translator, worst.most))
        )
    if dry:
        sentences.append(ngettext("Nobody enters %(n)s journey any more.", "Nobody enters %(n)s journeys any more.", len(dry)))
    if found.unmade:
        sentences.append(unmade_text(visit.translator, found.unmade))
    if found.parked > found.unmade:
        stuck = found.parked - found.unmade
        sentences.append(ngettext("%(n)s person is stuck in a journey.", "%(n)s people are stuck in journeys.", stuck))
    if not sentences:
        sentences.append(
            visit.gettext(N_("Everything that is due is on its way.") if found.journeys else N_("Nobody is inside a journey now."))
        )
    return visit.translator.joined(*sentences)


def span_text(translator: Translator, span: timedelta) -> str:
    """Return a length of time in its two largest units: days and hours, hours and minutes, or minutes alone."""
    minutes = int(span.total_seconds() // 60)
    hours, days = minutes // 60, minutes // (24 * 60)
    if minutes < 1:
        return translator.gettext(N_("less than a minute"))
    if hours < 1:
        return translator.gettext(N_("%(minutes)s min"), minutes=minutes)
    if days < 1:
        return translator.gettext(N_("%(hours)s h %(minutes)s min"), hours=hours, minutes=minutes % 60)
    return translator.gettext(N_("%(days)s d %(hours)s h"), days=translator.number(days), hours=hours % 24)
