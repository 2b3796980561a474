"""Contacts: the list, one contact with its timeline, and importing a file."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fastapi import APIRouter
from fastapi.responses import Response
from sqlmodel import Session
from starlette.datastructures import FormData

from distmark.campaigns.service import campaigns_by_id
from distmark.channels.registry import CHANNELS
from distmark.contacts import consents, imports
from distmark.contacts import service as contacts
from distmark.contacts.consents import suppressions_of
from distmark.contacts.fields import ContactInput, read_contact
from distmark.contacts.model import address_hash
from distmark.contacts.search import reading_attribute
from distmark.contacts.table import Contact
from distmark.enrollments import control
from distmark.enrollments import service as enrollments
from distmark.enrollments.suspensions import Scope
from distmark.errors import InvalidInput, NotFound, Refused
from distmark.journeys import service as journeys
from distmark.journeys.service import journeys_by_id
from distmark.partners.model import Permission
from distmark.partners.service import names_of_users, partners_of
from distmark.sql import id_of
from distmark.tasks import service
from distmark.web import errors
from distmark.web.forms import numbers, posted_form, text, texts
from distmark.web.forms import upload as posted_file
from distmark.web.i18n import N_, phone_number
from distmark.web.ids import Id, chosen_id, read_id
from distmark.web.labels import GROUND
from distmark.web.pages.contact_timeline import timeline_of
from distmark.web.permissions import needs
from distmark.web.status_text import status_of
from distmark.web.uploads import Upload, keep_upload, kept_upload, show_again, take_upload
from distmark.web.visit import Visit

router = APIRouter()
COLUMNS = ("last_name", "first_name", "email", "phone", "language", "company", "city", "birthday", "zone")
FIELDS = (*COLUMNS, "reading")  # of the form
ROWS = 50
REJECTED_SHOWN = 200


@router.get("/contacts")
def contact_list(visit: Visit = needs(Permission.see_contacts), q: str = "", after: Id | None = None) -> Response:
    """List the viewer's contacts, newest first."""
    with visit.reading() as session:
        found = contacts.find_contacts(session, visit.viewer, q, after, ROWS)
        agreed = consents.consent_state(session, [id_of(row) for row in found.rows], "email")
        stopped = _suppressed_ids(session, visit, found.rows)
    return visit.page("contacts/list.html", found=found, agreed=agreed, stopped=stopped, q=q, after=after)


def _suppressed_ids(session: Session, visit: Visit, rows: list[Contact]) -> set[int]:
    """Return the ids of the contacts whose mail address is suppressed."""
    hashes = {id_of(row): address_hash(row.brand_id, row.email) for row in rows if row.email}
    found = consents.suppressed(session, visit.viewer.brand_id, "email", [row.email for row in rows if row.email], True)
    return {contact_id for contact_id, hashed in hashes.items() if hashed in found}


@router.get("/contacts/new")
def new_contact(visit: Visit = needs(Permission.write_contacts)) -> Response:
    """Show the form for a new contact."""
    return _form(visit, dict.fromkeys((*FIELDS, "ground", "partner"), ""), "")


@router.post("/contacts/new")
def create_contact(visit: Visit = needs(Permission.write_contacts), form: FormData = posted_form) -> Response:
    """Create a contact, with the ground for writing to it."""
    values = {name: text(form, name) for name in (*FIELDS, "ground", "partner")}
    channels = texts(form, "channel")
    try:
        with visit.writing() as session:
            written = contact_written({name: value for name, value in values.items() if value})
            partner_id = chosen_id(values["partner"])
            contact = contacts.create_contact(session, visit.viewer, written, visit.now, partner_id)
            record_agreement(session, visit, contact, values["ground"], channels)
            contact_id = contact.id
    except (InvalidInput, Refused) as error:
        return _form(visit, values, errors.explain(error, visit.language), channels, status=422)
    return visit.go(f"/contacts/{contact_id}", N_("Saved."))


def contact_written(values: Mapping[str, str], attributes: Mapping[str, Any] = MappingProxyType({})) -> ContactInput:
    """Return the fields that the form gives; the reading of the name is kept among the `attributes` of the contact."""
    fields: dict[str, Any] = {name: values[name] for name in COLUMNS if name in values}
    if "reading" in values:
        fields["attributes"] = {reading_attribute(attributes): values["reading"]}
    return read_contact(fields)


def _form(visit: Visit, values: Mapping[str, str], wrong: str, channels: Sequence[str] = (), status: int = 200) -> Response:
    with visit.reading() as session:
        partners = partners_of(session, visit.viewer) if visit.viewer.partner_id is None else []
    return visit.page("contacts/new.html", status=status, values=values, wrong=wrong, partners=partners, chosen_channels=channels)


def record_agreement(
    session: Session, visit: Visit, contact: Contact, ground: str, channels: Sequence[str], source: str = "phone call"
) -> None:
    """Record the contact's consent, with its ground, on those of the channels (without any: mail) for which the contact has an address.

    InvalidInput when that is none of them, or when the ground does not cover one.
    """
    if ground not in GROUND:
        raise InvalidInput("No ground for writing to this person was chosen; choose one.")
    wording = visit.gettext(GROUND[ground])
    chosen = list(channels) or ["email"]
    consents.check_ground(ground, chosen)
    reached = [kind.consent for kind in CHANNELS.values() if kind.consent in chosen and kind.address(contact)]
    if not reached:
        raise InvalidInput("There is no address for the chosen channel; give one, or choose another channel that this person agreed to.")
    for channel in reached:
        consents.record_consent(
            session,
            id_of(contact),
            channel,
            given=True,
            now=visit.now,
            ground=ground,
            wording=wording,
            source=source,
            by_user_id=visit.viewer.user_id,
        )


@router.get("/contacts/import")
def import_page(visit: Visit = needs(Permission.write_contacts), file: str = "") -> Response:
    """Show the form that takes a file, or for a checked file the effect of importing each line."""
    if not file:
        return _import_page(visit)
    try:
        return _import_page(visit, upload=kept_upload(visit, file)[0])
    except InvalidInput as error:
        return _import_page(visit, wrong=errors.explain(error, visit.language), status=422)


def _import_page(
    visit: Visit,
    *,
    wrong: str = "",
    upload: Upload | None = None,
    partner: str = "",
    ground: str = "",
    channels: Sequence[str] = (),
    status: int = 200,
) -> Response:
    with visit.reading() as session:
        partners = partners_of(session, visit.viewer) if visit.viewer.partner_id is None else []
    return visit.page(
        "contacts/import.html",
        status=status,
        wrong=wrong,
        upload=upload,
        report=upload.report if upload else None,
        ground=upload.ground if upload else ground,
        partner=partner,
        chosen_channels=channels,
        partners=partners,
        most=REJECTED_SHOWN,
    )


@router.post("/contacts/import")
def import_file(visit: Visit = needs(Permission.write_contacts), form: FormData = posted_form) -> Response:
    """Check an uploaded file and go to the page that shows the effect of importing it; with the name from that page, import the file."""
    partner, ground, channels = text(form, "partner"), text(form, "ground"), texts(form, "channel")
    partner_id = visit.viewer.partner_id or read_id(partner) or 0
    try:
        if text(form, "upload"):
            return _import_now(visit, text(form, "upload"))
        filename, data = posted_file(form, "file")
        if not filename:
            raise InvalidInput("No file was chosen; choose a CSV or Excel file.")
        chosen: dict[str, Any] = {"ground": ground or None, "channels": channels or ["email"]}
        report = imports.import_file(visit.site.db, visit.viewer, partner_id, data, filename, visit.now, dry_run=True, **chosen)
    except (InvalidInput, Refused) as error:
        return _import_page(
            visit, wrong=errors.explain(error, visit.language), partner=partner, ground=ground, channels=channels, status=422
        )
    upload = keep_upload(visit, filename, data, partner_id, ground, channels, report)
    return visit.go(_upload_address(upload))


def _upload_address(upload: Upload) -> str:
    return f"/contacts/import?file={upload.name}"


def _import_now(visit: Visit, name: str) -> Response:
    """Import the file as it was shown; when the contacts changed since, so that something else would happen, show that instead."""
    upload, data = kept_upload(visit, name)
    of_file = (visit.site.db, visit.viewer, upload.partner_id, data, upload.filename, visit.now)
    again = imports.import_file(*of_file, dry_run=True, **upload.choices)
    if not upload.shows(again):
        show_again(visit, upload, again)
        return visit.go(_upload_address(upload), N_("Contacts changed since this file was checked. Look again, then import it."), "warn")
    take_upload(visit, upload)
    report = imports.import_file(*of_file, **upload.choices)
    message = N_(
        "Imported: %(created)s new, %(updated)s changed, %(unchanged)s as they were, %(rejected)s lines not taken, "
        "%(refusals)s refusals recorded."
    )
    counts = {
        "created": report.created,
        "updated": report.updated,
        "unchanged": report.unchanged,
        "rejected": len(report.rejected),
        "refusals": report.refusals,
    }
    return visit.go("/contacts", message, "good", **counts)


@router.get("/contacts/{contact_id}")
def contact_page(contact_id: Id, visit: Visit = needs(Permission.see_contacts)) -> Response:
    """Show the contact: its consents and suppressions, its enrollments with their status, its tasks and its timeline."""
    with visit.reading() as session:
        contact = contacts.get_contact(session, visit.viewer, contact_id)
        rows = enrollments.enrollments_of_contact(session, visit.viewer, contact_id)
        programs = {row.version_id: journeys.program_of(session, row.version_id) for row in rows}
        agreements = consents.consents_of(session, contact_id)
        page: dict[str, Any] = {
            "contact": contact,
            "consents": agreements,
            "suppressions": suppressions_of(session, contact),
            "email_agreed": consents.consent_state(session, [contact_id], "email")[contact_id],
            "enrollments": [(row, status_of(row, programs[row.version_id], visit.translator)) for row in rows],
            "journeys": journeys_by_id(session, visit.viewer),
            "campaigns": campaigns_by_id(session, visit.viewer),
            "timeline": timeline_of(session, visit, contact_id, rows, programs),
            "tasks": service.tasks_of(session, visit.viewer, contact_id=contact_id),
            "suspension_kinds": control.suspension_kinds(session, visit.viewer, Scope(contact_id=contact_id)),
            "names": names_of_users(session, visit.viewer, [row.by_user_id for row in agreements]),
        }
    return visit.page("contacts/page.html", **page)


@router.get("/enrollments/{enrollment_id}")
def enrollment_page(enrollment_id: Id, visit: Visit = needs(Permission.see_contacts)) -> Response:
    """Show the contact whose enrollment this is: the address that the logs of runs in Prefect's dashboard name."""
    with visit.reading() as session:
        row = enrollments.enrollment_of(session, visit.viewer, enrollment_id)
    return contact_page(row.contact_id, visit)


@router.get("/contacts/{contact_id}/edit")
def edit_page(contact_id: Id, visit: Visit = needs(Permission.write_contacts)) -> Response:
    """Show the form with the contact's present fields."""
    with visit.reading() as session:
        contact = contacts.get_contact(session, visit.viewer, contact_id)
    values = {name: str(getattr(contact, name) or "") for name in COLUMNS}
    values["reading"] = str(contact.attributes.get(reading_attribute(contact.attributes), ""))
    values["phone"] = phone_number(contact.phone or "")
    return visit.page("contacts/edit.html", contact=contact, values=values, wrong="")


@router.post("/contacts/{contact_id}/edit")
def edit_contact(contact_id: Id, visit: Visit = needs(Permission.write_contacts), form: FormData = posted_form) -> Response:
    """Change the contact's fields; its consents stay as they are."""
    values = {name: text(form, name) for name in FIELDS}
    try:
        with visit.writing() as session:
            before = contacts.get_contact(session, visit.viewer, contact_id).attributes
            contacts.update_contact(session, visit.viewer, contact_id, contact_written(values, before), visit.now)
    except (InvalidInput, Refused) as error:
        with visit.reading() as session:
            contact = contacts.get_contact(session, visit.viewer, contact_id)
        return visit.page("contacts/edit.html", status=422, contact=contact, values=values, wrong=errors.explain(error, visit.language))
    return visit.go(f"/contacts/{contact_id}", N_("Saved."))


@router.post("/contacts/{contact_id}/consent")
def record_consent(contact_id: Id, visit: Visit = needs(Permission.write_contacts), form: FormData = posted_form) -> Response:
    """Record the contact's consent, or its refusal of further messages."""
    with visit.writing() as session:
        contact = contacts.get_contact(session, visit.viewer, contact_id)
        if text(form, "given") == "no":
            for channel in (kind.consent for kind in CHANNELS.values()):
                consents.record_consent(
                    session, contact_id, channel, given=False, now=visit.now, source="told the partner", by_user_id=visit.viewer.user_id
                )
            enrollments.wake_person(session, contact.brand_id, contact.person_key, visit.now)
        else:
            record_agreement(session, visit, contact, text(form, "ground"), texts(form, "channel"), source="told the partner")
    return visit.go(f"/contacts/{contact_id}", N_("Recorded."))


@router.post("/contacts/{contact_id}/stop")
def stop_journeys(contact_id: Id, visit: Visit = needs(Permission.enrol_contacts), form: FormData = posted_form) -> Response:
    """Stop, pause or resume the chosen enrollments of this contact."""
    action, chosen = text(form, "action"), numbers(form, "enrollment")
    with visit.writing() as session:
        contacts.get_contact(session, visit.viewer, contact_id)
        if action not in STOPPED:
            raise InvalidInput("It is not said what to do; choose to pause, resume or stop.")
        for enrollment_id in chosen:
            if enrollments.enrollment_of(session, visit.viewer, enrollment_id).contact_id != contact_id:
                raise NotFound(f"There is no enrollment {enrollment_id} of this contact.")
        if action == "pause":
            control.pause(session, visit.viewer, Scope.listed(chosen), visit.now)
        elif action == "resume":
            control.resume(session, visit.viewer, Scope.listed(chosen), visit.now, extend=text(form, "extend") == "yes")
        else:
            control.stop(session, visit.viewer, Scope.listed(chosen), text(form, "reason") or visit.viewer.name, visit.now)
    return visit.go(f"/contacts/{contact_id}", STOPPED[action])


# What the form's button says -> the message after the act.
STOPPED: Mapping[str, str] = {
    "pause": N_("Paused. Nothing is sent until you resume it."),
    "resume": N_("It goes on."),
    "stop": N_("Stopped. Nothing more is sent."),
}
