"""Approvals: the changes and messages of a submitted version, and approving it or sending it back. Authors never approve their own."""

from collections.abc import Mapping

from fastapi import APIRouter
from fastapi.responses import Response
from sqlmodel import Session
from starlette.datastructures import FormData

from distmark.compliance import service as compliance
from distmark.errors import DistmarkError, InvalidInput
from distmark.journeys import service as journeys
from distmark.journeys.definition import JourneyDefinition, parse
from distmark.journeys.service import journeys_by_id, source_of
from distmark.journeys.table import JourneyVersion, VersionStatus
from distmark.partners.model import Permission
from distmark.partners.service import names_of_users
from distmark.sql import id_of
from distmark.web import errors
from distmark.web.forms import posted_form, text
from distmark.web.i18n import N_
from distmark.web.ids import Id
from distmark.web.pages.journeys import changes_between
from distmark.web.permissions import needs
from distmark.web.sample_preview import render_sample, samples_of
from distmark.web.status_text import readable_key, step_name
from distmark.web.visit import Visit

router = APIRouter()


@router.get("/approvals")
def approval_list(visit: Visit = needs(Permission.approve_journeys)) -> Response:
    """List the versions that wait for approval, the longest waiting first."""
    with visit.reading() as session:
        waiting = compliance.waiting_approvals(session, visit.viewer)
        known = journeys_by_id(session, visit.viewer)
        names = names_of_users(session, visit.viewer, [row.author_id for row in waiting])
    return visit.page("approvals/list.html", waiting=waiting, journeys=known, names=names)


@router.get("/approvals/{version_id}")
def approval_page(version_id: Id, visit: Visit = needs(Permission.approve_journeys)) -> Response:
    """Show the version beside the one that contacts enter now: the changes, and every message old and new."""
    return _page(visit, version_id)


def _page(visit: Visit, version_id: int, *, wrong: str = "", note: str = "", status: int = 200) -> Response:
    with visit.reading() as session:
        version = journeys.get_version(session, visit.viewer, version_id)
        journey = journeys_by_id(session, visit.viewer)[version.journey_id]
        before = _before(session, version)
        definition = journeys.program_of(session, id_of(version)).definition
        changes = changes_between(session, visit, before, version) if before else None
        sent_back = _sent_back(session, version)
        names = names_of_users(session, visit.viewer, [version.author_id, version.decided_by_id, *(row.decided_by_id for row in sent_back)])
        trail = compliance.audit_trail(session, visit.viewer, "journey_version", version_id)
    return visit.at(f"/approvals/{version_id}" if wrong else "").page(
        "approvals/page.html",
        status=status,
        version=version,
        journey=journey,
        before=before,
        sent_back=sent_back,
        changes=changes,
        pairs=_pairs(visit, definition, version, before, changes),
        definition_text=source_of(version).definition,
        names=names,
        trail=trail,
        own=version.author_id == visit.viewer.user_id,
        waiting=version.status is VersionStatus.submitted,
        wrong=wrong,
        note=note,
    )


def _before(session: Session, version: JourneyVersion) -> JourneyVersion | None:
    """Return the version to compare with: the newest published version before this one, else the version before it."""
    older = [row for row in journeys.versions_of(session, version.journey_id) if row.number < version.number]
    return next((row for row in older if row.status is VersionStatus.registered), older[0] if older else None)


def _sent_back(session: Session, version: JourneyVersion) -> list[JourneyVersion]:
    """Return the versions before this one that were sent back with a reason, the newest first."""
    older = [row for row in journeys.versions_of(session, version.journey_id) if row.number < version.number]
    return [row for row in older if row.status is VersionStatus.sent_back and row.decision_note]


def _pairs(
    visit: Visit, definition: JourneyDefinition, version: JourneyVersion, before: JourneyVersion | None, changes: object
) -> list[Mapping[str, object]]:
    """Return one item per message and language, the changed ones first: its old and new subject, and whether its templates changed."""
    names = {step.id: step_name(step, visit.translator) for step in definition.all_steps()}
    touched = {tuple(change.name.split(".")[:2]) for change in getattr(changes, "templates", ())}
    pairs: list[Mapping[str, object]] = [
        {
            "message": sample.message,
            "name": names.get(sample.step_id, readable_key(sample.message)),
            "lang": lang,
            "channel": sample.channel,
            "changed": not changes or (sample.message, lang) in touched,
            "subjects": [_subject(visit, row, sample.message, lang) for row in (before, version)],
        }
        for sample in samples_of(definition)
        for lang in definition.languages
    ]
    return sorted(pairs, key=lambda pair: not pair["changed"])


def _subject(visit: Visit, version: JourneyVersion | None, message: str, lang: str) -> str:
    """Return the message's subject for a made-up contact; "" when the version has no such message, or one that cannot be rendered."""
    if version is None or visit.brand is None:
        return ""
    try:
        source = source_of(version)
        return render_sample(source, parse(source), visit.brand, message, lang, visit.site.settings.base_url).subject
    except DistmarkError:
        return ""


@router.post("/approvals/{version_id}/approve")
def approve(version_id: Id, visit: Visit = needs(Permission.approve_journeys), form: FormData = posted_form) -> Response:
    """Approve this version."""
    with visit.writing() as session:
        compliance.approve(session, visit.viewer, version_id, text(form, "note"), visit.now, text(form, "shown"))
    return visit.go("/approvals", N_("Approved. A marketer can publish it now."))


@router.post("/approvals/{version_id}/send-back")
def send_back(version_id: Id, visit: Visit = needs(Permission.approve_journeys), form: FormData = posted_form) -> Response:
    """Send the version back to its author with a reason."""
    try:
        with visit.writing() as session:
            compliance.send_back(session, visit.viewer, version_id, text(form, "note"), visit.now)
    except InvalidInput as error:
        return _page(visit, version_id, wrong=errors.explain(error, visit.language), status=422)
    return visit.go("/approvals", N_("Sent back to its author."))
