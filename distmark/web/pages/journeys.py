"""Journeys for their authors: the diagram with numbers, the versions, the editor with its findings, and the messages of a version."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from markupsafe import Markup
from sqlmodel import Session
from starlette.datastructures import FormData, UploadFile

from distmark.compliance import service as compliance
from distmark.compliance.journey_check import installation_of
from distmark.compliance.service import CheckFailed
from distmark.drafts import service as drafts
from distmark.enrollments import control
from distmark.enrollments import service as enrollments
from distmark.enrollments.live_counts import live_by_journey, partners_using
from distmark.enrollments.suspensions import Scope
from distmark.errors import DistmarkError, InvalidInput, NotFound, Refused, SelectionChanged
from distmark.journeys import service as journeys
from distmark.journeys.checks.run import has_errors
from distmark.journeys.describe import describe_policy
from distmark.journeys.diagram import StepCounts, diagram, outline
from distmark.journeys.findings import DefinitionError, Finding
from distmark.journeys.program import Program
from distmark.journeys.service import newest_by_journey, source_of
from distmark.journeys.source import DEFINITION_FILE, Source
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.metrics import service as metrics
from distmark.metrics.model import Metric, Results, rate
from distmark.operations.held_send_counts import Held, held_sends
from distmark.partners.model import Permission
from distmark.partners.service import names_of_users
from distmark.sql import id_of
from distmark.web import charts, errors
from distmark.web.forms import posted_form, text
from distmark.web.i18n import N_
from distmark.web.ids import Id
from distmark.web.mail_frame import mail_document
from distmark.web.pages import experiments
from distmark.web.pages.results import left_of, sentence_of, step_rows, worst_of
from distmark.web.permissions import needs
from distmark.web.sample_preview import render_sample, samples_of
from distmark.web.status_text import rule_text, step_name
from distmark.web.visit import Visit

router = APIRouter()
router.include_router(experiments.router)
CONTEXT = 2
MOST_FILES = 200
TEMPLATE = "template:"  # prefix of the editor's fields for templates
MOST_FILE_BYTES = 200_000
OPEN_STATUSES = (VersionStatus.draft, VersionStatus.sent_back)


@dataclass(frozen=True, slots=True)
class FindingExcerpt:
    """A finding with its text, its hint and the numbered lines around it."""

    finding: Finding
    words: str
    hint: str
    lines: tuple[tuple[int, str], ...]


@router.get("/journeys")
def journey_list(visit: Visit = needs(Permission.see_journeys)) -> Response:
    """List the journeys of the brand, each with its newest and its published version."""
    with visit.reading() as session:
        found = journeys.list_journeys(session, visit.viewer)
        newest = newest_by_journey(session, visit.viewer, tuple(VersionStatus))
        published = newest_by_journey(session, visit.viewer, (VersionStatus.registered,))
        live = live_by_journey(session, visit.viewer)
    return visit.page("journeys/list.html", journeys=found, newest=newest, published=published, live=live)


@router.get("/journeys/new")
def new_journey(visit: Visit = needs(Permission.write_journeys)) -> Response:
    """Show the editor with a starter definition."""
    return _kept_editor(visit, None) or _editor(visit, _starter(visit), None, checked=False)


def _starter(visit: Visit) -> Source:
    brand = visit.brand.key if visit.brand else ""
    return Source(STARTER.format(brand=brand), dict(STARTER_TEMPLATES))


@router.post("/journeys/new")
def store_new(visit: Visit = needs(Permission.write_journeys), form: FormData = posted_form) -> Response:
    """Check the posted definition, or save it as a draft."""
    return _store(visit, form, None)


@router.get("/journeys/{key}")
def journey_page(key: str, visit: Visit = needs(Permission.see_journeys), v: Id | None = None) -> Response:
    """Show the journey: its diagram with numbers, its results, and its versions; `v` chooses a version other than the published one."""
    with visit.reading() as session:
        journey = journeys.get_journey(session, visit.viewer, key)
        versions = journeys.versions_of(session, id_of(journey))
        version = _version_of(versions, v)
        source = source_of(version)
        findings = compliance.check_version(session, visit.viewer, source, visit.now, installation_of(visit.site.settings))
        program = None if has_errors(findings) else journeys.program_of(session, id_of(version))
        here = enrollments.step_counts(session, visit.viewer, version_id=version.id)
        found = metrics.results(session, visit.viewer, key, version=version.number) if program and version.registered_at else None
        rows = step_rows(visit, found, program, here) if found else []
        page: dict[str, Any] = {
            "numbers": partners_using(session, visit.viewer, id_of(journey), visit.now - timedelta(days=30)),
            "suspension_kinds": control.suspension_kinds(session, visit.viewer, Scope(version_id=version.id))
            if version.registered_at
            else [],
            "experiments": experiments.experiment_cards(session, visit, id_of(version)) if found else [],
            "bar": charts.bar,
            "held": [_held_row(visit, each, program) for each in held_sends(session, visit.viewer, version.id)],
            "policy": describe_policy(program.definition.send_policy, visit.language) if program else "",
            "names": names_of_users(session, visit.viewer, [who for row in versions for who in (row.author_id, row.decided_by_id)]),
        }
    counts = people_at(found, here) if found else None
    return visit.page(
        "journeys/page.html",
        journey=journey,
        versions=versions,
        version=version,
        program=program,
        definition_of=program.definition if program else None,
        picture=Markup(diagram(program, visit.language, counts)) if program else None,  # noqa: S704  (its maker escapes every text)
        outline=outline(program, visit.language, counts) if program else (),
        findings=_excerpts(findings, source, visit.language),
        has_errors=has_errors(findings),
        results=found,
        converted=rate(found.totals, Metric.converted, Metric.entered) if found else None,
        sentence=sentence_of(visit, found, program) if found and program else "",
        worst=worst_of(rows),
        open_statuses=OPEN_STATUSES,
        can_register=visit.site.register is not None,
        **page,
    )


def _held_row(visit: Visit, held: Held, program: Program | None) -> tuple[str, str, Held]:
    """Return the step's name and the rule's text of held sends, with their numbers."""
    step = program.steps.get(held.step_id) if program else None
    return step_name(step, visit.translator) if step else held.step_id, rule_text(held.rule, visit.translator), held


def people_at(found: Results, here: Mapping[str, int]) -> dict[str, StepCounts]:
    """Return for each step how many enrollments arrived, are there now, and went on."""
    counted = [(step.step_id, left_of(step), here.get(step.step_id, 0)) for step in found.steps]
    return {step_id: StepCounts(arrived=passed + now, here=now, passed=passed) for step_id, passed, now in counted}


def _version_of(versions: Sequence[JourneyVersion], number: int | None) -> JourneyVersion:
    if not versions:
        raise NotFound("This journey has no version.")
    if number is not None:
        found = next((row for row in versions if row.number == number), None)
        if found is None:
            raise NotFound(f"This journey has no version {number}.")
        return found
    return next((row for row in versions if row.status is VersionStatus.registered), versions[0])


@router.get("/journeys/{key}/edit")
def edit_journey(key: str, visit: Visit = needs(Permission.write_journeys), v: Id | None = None) -> Response:
    """Show the editor with a version's definition; saving it makes a new draft, or changes the open draft."""
    with visit.reading() as session:
        journey = journeys.get_journey(session, visit.viewer, key)
        versions = journeys.versions_of(session, id_of(journey))
        version = _version_of(versions, v if v is not None else versions[0].number)
    return _kept_editor(visit, journey) or _editor(visit, source_of(version), journey)


@router.post("/journeys/{key}/edit")
def store(key: str, visit: Visit = needs(Permission.write_journeys), form: FormData = posted_form) -> Response:
    """Check the posted definition, or save it as a draft of this journey."""
    with visit.reading() as session:
        journey = journeys.get_journey(session, visit.viewer, key)
    return _store(visit, form, journey)


def _store(visit: Visit, form: FormData, journey: Journey | None) -> Response:
    source, action = _source_from(form), text(form, "action")
    if action == "discard":
        with visit.writing() as session:
            drafts.drop_draft(session, visit.viewer, _draft_place(journey))
        return visit.go(_editor_address(journey), N_("What you had typed is discarded."))
    try:
        _keep(visit, source, journey, only_if_changed=action == "keep")
        if action == "save":
            return _save(visit, source, journey)
    except DefinitionError:
        return _editor(visit, source, journey, status=422)  # the editor shows the findings of the check
    except (InvalidInput, Refused) as error:
        return _editor(visit, source, journey, wrong=errors.explain(error, visit.language), status=422)
    return Response(status_code=204) if action == "keep" else visit.go(_editor_address(journey))


def _keep(visit: Visit, source: Source, journey: Journey | None, *, only_if_changed: bool) -> None:
    """Keep the typed text until it is saved."""
    with visit.writing() as session:
        is_changed = source.content_hash != _saved_source(session, visit, journey).content_hash
        fields = _fields_of(source) if is_changed or not only_if_changed else {}
        drafts.keep_draft(session, visit.viewer, _draft_place(journey), fields, visit.now)


def _save(visit: Visit, source: Source, journey: Journey | None) -> Response:
    with visit.writing() as session:
        version = journeys.save_draft(session, visit.viewer.brand_id, source, visit.viewer.user_id, visit.now)
        key, number = session.get_one(Journey, version.journey_id).key, version.number
        if journey is not None and key != journey.key:
            raise Refused(f'The key "{key}" is another journey\'s; write {journey.key}, or make a new journey of it.')
        drafts.drop_draft(session, visit.viewer, _draft_place(journey))
    return visit.go(f"/journeys/{key}?v={number}", N_("Saved as a draft."))


def _editor_address(journey: Journey | None) -> str:
    return f"/journeys/{journey.key}/edit" if journey else "/journeys/new"


def _draft_place(journey: Journey | None) -> str:
    return f"journey/{journey.key}" if journey else "journey"


def _saved_source(session: Session, visit: Visit, journey: Journey | None) -> Source:
    """Return the text that the editor shows without a draft: that of the newest version, or the starter."""
    return source_of(journeys.versions_of(session, id_of(journey))[0]) if journey else _starter(visit)


def _kept_editor(visit: Visit, journey: Journey | None) -> Response | None:
    """Return the editor with the viewer's typed and unsaved text; None without any."""
    with visit.reading() as session:
        draft = drafts.draft_of(session, visit.viewer, _draft_place(journey))
    return _editor(visit, _source_of_fields(draft.fields), journey, kept_at=draft.updated_at) if draft else None


def _fields_of(source: Source) -> dict[str, str]:
    return {"definition": source.definition, **{f"{TEMPLATE}{name}": content for name, content in source.templates.items()}}


def _source_of_fields(fields: Mapping[str, str]) -> Source:
    templates = {name.removeprefix(TEMPLATE): content for name, content in fields.items() if name.startswith(TEMPLATE)}
    return Source(fields.get("definition", ""), templates)


def _source_from(form: FormData) -> Source:
    definition = str(form.get("definition", "")).replace("\r\n", "\n")
    templates = {
        name.removeprefix(TEMPLATE): str(value).replace("\r\n", "\n")
        for name, value in form.multi_items()
        if name.startswith(TEMPLATE) and isinstance(value, str)
    }
    for file in [value for value in form.getlist("files") if isinstance(value, UploadFile) and value.filename][:MOST_FILES]:
        name = str(file.filename).replace("\\", "/").rpartition("/")[2]
        content = file.file.read(MOST_FILE_BYTES + 1).decode("utf-8-sig", "replace").replace("\r\n", "\n")
        if name.endswith((".yaml", ".yml")):
            definition = content
        elif name.endswith((".txt", ".mjml")):
            templates[name] = content
    removed = {str(name) for name in form.getlist("remove")}
    return Source(definition, {name: content for name, content in templates.items() if name not in removed})


def _editor(
    visit: Visit,
    source: Source,
    journey: Journey | None,
    *,
    wrong: str = "",
    checked: bool = True,
    kept_at: datetime | None = None,
    status: int = 200,
) -> Response:
    findings: list[Finding] = []
    if checked:
        with visit.reading() as session:
            findings = compliance.check_version(session, visit.viewer, source, visit.now, installation_of(visit.site.settings))
    missing = [found.values["file"].rpartition("/")[2] for found in findings if found.code == "missing-template" and "file" in found.values]
    return visit.page(
        "journeys/edit.html",
        status=status,
        source=source,
        journey=journey,
        findings=_excerpts(findings, source, visit.language),
        checked=checked,
        has_errors=has_errors(findings),
        missing=missing,
        wrong=wrong,
        kept_at=kept_at,
    )


def _excerpts(findings: Sequence[Finding], source: Source, language: str) -> list[FindingExcerpt]:
    return [
        FindingExcerpt(found, found.message(language), found.hint(language), _lines_around(_text_of(source, found.file), found.line))
        for found in findings
    ]


def _text_of(source: Source, file: str) -> str:
    name = file.rpartition("/")[2]
    return source.definition if file in (source.file, DEFINITION_FILE) else source.templates.get(name, "")


def _lines_around(content: str, line: int) -> tuple[tuple[int, str], ...]:
    lines = content.splitlines()
    first, last = max(1, line - CONTEXT), min(len(lines), line + CONTEXT)
    return tuple((number, lines[number - 1]) for number in range(first, last + 1))


@router.get("/journeys/{key}/{number}/messages")
def messages_page(key: str, number: Id, visit: Visit = needs(Permission.see_journeys), message: str = "", lang: str = "") -> Response:
    """Show the messages of a version in each language, rendered for a made-up contact."""
    with visit.reading() as session:
        journey = journeys.get_journey(session, visit.viewer, key)
        version = _version_of(journeys.versions_of(session, id_of(journey)), number)
        program = journeys.program_of(session, id_of(version))
    definition = program.definition
    samples = samples_of(definition)
    chosen = next((each for each in samples if each.message == message), samples[0] if samples else None)
    language = next(code for code in (lang, visit.language, definition.languages[0]) if code in definition.languages)
    rendered, problem = None, ""
    if chosen and visit.brand:
        try:
            rendered = render_sample(source_of(version), definition, visit.brand, chosen.message, language, visit.site.settings.base_url)
        except DistmarkError as error:
            problem = errors.explain(error, visit.language)
    return visit.page(
        "journeys/messages.html",
        journey=journey,
        version=version,
        samples=samples,
        names={each.step_id: step_name(program.steps[each.step_id], visit.translator) for each in samples},
        chosen=chosen,
        language=language,
        languages_of_journey=definition.languages,
        rendered=rendered,
        problem=problem,
    )


@router.get("/journeys/{key}/{number}/message.html")
def message_frame(
    key: str, number: Id, message: str, lang: str, visit: Visit = needs(Permission.see_journeys), images: bool = False
) -> Response:
    """Return one message of a version, for the sandboxed frame."""
    with visit.reading() as session:
        journey = journeys.get_journey(session, visit.viewer, key)
        version = _version_of(journeys.versions_of(session, id_of(journey)), number)
        definition = journeys.program_of(session, id_of(version)).definition
    if visit.brand is None:
        raise NotFound("There is no brand to show this message for.")
    rendered = render_sample(source_of(version), definition, visit.brand, message, lang, visit.site.settings.base_url)
    return mail_document(rendered.html, rendered.text, remote_images=images)


@router.post("/journeys/versions/{version_id}/submit")
def submit(version_id: Id, visit: Visit = needs(Permission.write_journeys), form: FormData = posted_form) -> Response:
    """Submit the version for approval; one with errors is not submitted, and the editor shows them."""
    key, number = _address_of(visit, version_id)
    try:
        with visit.writing() as session:
            compliance.submit(session, visit.viewer, version_id, visit.now, installation_of(visit.site.settings), text(form, "shown"))
    except SelectionChanged:
        return visit.go(
            f"/journeys/{key}?v={number}", N_("The draft was changed since you looked at it. Read it, then submit it."), kind="warn"
        )
    except CheckFailed:
        return visit.go(f"/journeys/{key}/edit?v={number}", N_("The errors shown here must be corrected first."), kind="bad")
    return visit.go(f"/journeys/{key}?v={number}", N_("Submitted. An approver looks at it next."))


@router.post("/journeys/versions/{version_id}/register")
def register(version_id: Id, visit: Visit = needs(Permission.register_journeys)) -> Response:
    """Register the approved version with Prefect, so that contacts can enter it; while Prefect is down nothing changes."""
    key, number = _address_of(visit, version_id)
    if visit.site.register is None:
        raise Refused("This process cannot reach Prefect; run `distmark journeys register` instead.")
    visit.site.register(version_id, visit.viewer)
    return visit.go(f"/journeys/{key}?v={number}", N_("Published. Contacts can enter this version now."))


@router.post("/journeys/versions/{version_id}/retire")
def retire(version_id: Id, visit: Visit = needs(Permission.register_journeys)) -> Response:
    """Retire the version: no contact enters it any more, and its live enrollments go on to their end."""
    key, number = _address_of(visit, version_id)
    with visit.writing() as session:
        compliance.retire(session, visit.viewer, version_id, visit.now)
    return visit.go(f"/journeys/{key}?v={number}", N_("Retired. Nobody enters it any more; those inside finish it."))


def _address_of(visit: Visit, version_id: int) -> tuple[str, int]:
    with visit.reading() as session:
        version = journeys.get_version(session, visit.viewer, version_id)
        return session.get_one(Journey, version.journey_id).key, version.number


@router.get("/journeys/{key}/compare")
def compare(key: str, old: Id, new: Id, visit: Visit = needs(Permission.see_journeys)) -> Response:
    """Show the changes between two versions."""
    with visit.reading() as session:
        journey = journeys.get_journey(session, visit.viewer, key)
        versions = journeys.versions_of(session, id_of(journey))
        before, after = _version_of(versions, old), _version_of(versions, new)
        changes = changes_between(session, visit, before, after)
    return visit.page("journeys/compare.html", journey=journey, old=before, new=after, changes=changes, versions=versions)


def changes_between(session: Session, visit: Visit, old: JourneyVersion, new: JourneyVersion) -> object:
    """Return the changes between two versions that the viewer may see; None when a definition cannot be read."""
    try:
        return journeys.diff_of(session, visit.viewer, id_of(old), id_of(new))
    except DefinitionError:
        return None


STARTER = """key: first-steps
name: {{ja: はじめてのご案内, en: First steps}}
description: {{ja: お電話のあとに, en: After a phone call}}
brand: {brand}
languages: [ja, en]
kind: marketing
entry: {{reentry: after_exit, cooldown: 30 days}}
send_policy: {{quiet_hours: "21:00-08:00", days: weekdays, holidays: JP, caps: marketing}}
links: {{more: "https://example.com/"}}
blocks:
  personal_note:
    label: {{ja: 個別の一言, en: Personal note}}
    max_length: 300
    default: {{ja: お気軽にご相談ください。, en: Ask me anything.}}
steps:
  - {{id: welcome, send: email, message: welcome, editable: [personal_note]}}
  - {{id: time-to-read, wait: {{for: 3 days, until: "09:00"}}}}
  - {{id: call, task: {{for: partner, title: "{{{{ contact.full_name }}}}", due: 1 day}}}}
"""
_TEXT = "{{ greeting }}\n\n{{ blocks.personal_note }}\n\n{{ links.more }}\n\n{{ legal_footer }}\n"
_MJML = """<mjml>
  <mj-body>
    <mj-section>
      <mj-column>
        <mj-text>{{ greeting }}</mj-text>
        <mj-text>{{ blocks.personal_note }}</mj-text>
        <mj-button href="{{ links.more }}">%s</mj-button>
        <mj-text>{{ legal_footer }}</mj-text>
      </mj-column>
    </mj-section>
  </mj-body>
</mjml>
"""
STARTER_TEMPLATES: Mapping[str, str] = {
    "welcome.ja.subject.txt": "{{ contact.last_name }}様へご案内\n",
    "welcome.ja.text.txt": _TEXT,
    "welcome.ja.mjml": _MJML % "くわしく見る",
    "welcome.en.subject.txt": "For you, {{ contact.first_name }}\n",
    "welcome.en.text.txt": _TEXT,
    "welcome.en.mjml": _MJML % "Read more",
}
__all__ = ["changes_between", "router"]
