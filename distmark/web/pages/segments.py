"""Segments: the list, making one, and one segment with its rule or its listed contacts.

A rule is tried on the viewer's contacts while it is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi import APIRouter
from fastapi.responses import Response
from sqlmodel import Session
from starlette.datastructures import FormData

from distmark.contacts import service as contacts
from distmark.errors import InvalidInput, NotFound, Refused
from distmark.partners.model import Permission
from distmark.partners.service import partners_of
from distmark.segments import service as segments
from distmark.segments.preview import RulePreview, known_attributes, preview_rule
from distmark.segments.table import Segment
from distmark.sql import id_of
from distmark.web import errors
from distmark.web.forms import numbers, posted_form, text
from distmark.web.i18n import N_
from distmark.web.ids import Id, chosen_id
from distmark.web.permissions import needs
from distmark.web.visit import Visit

router = APIRouter()
ROWS = 50
MOST_ATTRIBUTES = 30
TYPE = "type."  # begins the names of the form's fields that hold the type of an attribute
TYPES: Mapping[str, str] = {"text": N_("Text"), "number": N_("Number"), "date": N_("Date"), "bool": N_("Yes or no")}
PREFIX = "contact."
EXAMPLES = (
    ('contact.city == "横浜市"', N_("lives in this city")),
    ('contact.company and contact.language == "en"', N_("has a company and reads English")),
    ("days_until(contact.renewal_date) <= 30", N_("the renewal date is at most 30 days away")),
    ('contact.plan in ["A", "B"] or contact.balance > 1000000', N_("has one of these plans, or a larger balance")),
)
BUILT_IN = ("last_name", "first_name", "email", "phone", "language", "company", "city", "birthday")


@dataclass(slots=True)
class SegmentForm:
    """The fields of the form as they were written. `by_rule` is false for a segment whose contacts are listed."""

    name: str = ""
    key: str = ""
    rule: str = ""
    by_rule: bool = True
    partner: str = ""
    types: dict[str, str] = field(default_factory=dict)
    wrong: str = ""
    wrong_rule: str = ""
    preview: RulePreview | None = None

    @classmethod
    def posted(cls, form: FormData) -> "SegmentForm":
        """Return the fields of the posted form."""
        chosen = {name.removeprefix(TYPE): text(form, name) for name in form if name.startswith(TYPE)}
        types = {name: kind for name, kind in chosen.items() if kind}
        by_rule = text(form, "members") != "listed"
        return cls(text(form, "name"), text(form, "key"), text(form, "rule"), by_rule, text(form, "partner"), types)

    @property
    def partner_id(self) -> int | None:
        """The id of the chosen partner; None for the whole brand. NotFound for a text that is no id."""
        return chosen_id(self.partner)


@router.get("/segments")
def segment_list(visit: Visit = needs(Permission.see_campaigns)) -> Response:
    """List the segments, each with the number of the viewer's contacts in it."""
    with visit.reading() as session:
        rows = segments.list_segments(session, visit.viewer)
        owners = {partner.id: partner.name for partner in partners_of(session, visit.viewer)}
    return visit.page("segments/list.html", rows=rows, owners=owners)


@router.get("/segments/new")
def new_segment(visit: Visit = needs(Permission.write_segments)) -> Response:
    """Show the form for a new segment."""
    return _new_page(visit, SegmentForm())


@router.post("/segments/new")
def create_segment(visit: Visit = needs(Permission.write_segments), form: FormData = posted_form) -> Response:
    """Create the segment; with `count`, only show the contacts that would be in it."""
    written = SegmentForm.posted(form)
    if text(form, "count"):
        return _new_page(visit, written)
    try:
        with visit.writing() as session:
            segment = segments.create_segment(
                session,
                visit.viewer,
                written.key,
                written.name,
                visit.now,
                rule=written.rule if written.by_rule else None,
                fields=written.types,
                partner_id=written.partner_id,
            )
            segment_id = segment.id
    except (InvalidInput, Refused, NotFound) as error:
        written.wrong = errors.explain(error, visit.language)
        return _new_page(visit, written, status=422)
    return visit.go(f"/segments/{segment_id}", N_("Saved."))


def _new_page(visit: Visit, written: SegmentForm, status: int = 200) -> Response:
    with visit.reading() as session:
        partners = partners_of(session, visit.viewer) if visit.viewer.partner_id is None else []
        return visit.page("segments/new.html", status=status, partners=partners, **_form_values(session, visit, written))


def _form_values(session: Session, visit: Visit, written: SegmentForm) -> dict[str, object]:
    """Return the values of the form's template, with the rule tried on the contacts when there is one."""
    if written.by_rule and written.rule:
        try:
            owner = visit.viewer.partner_id or written.partner_id
            written.preview = preview_rule(session, visit.viewer, written.rule, written.types, visit.now, owner)
        except (InvalidInput, NotFound) as error:
            written.wrong_rule = errors.explain(error, visit.language)
    known = [*dict.fromkeys([*written.types, *known_attributes(session, visit.viewer)[:MOST_ATTRIBUTES]])]
    return {"form": written, "attributes": known, "types": TYPES, "built_in": BUILT_IN, "examples": EXAMPLES, "prefix": PREFIX}


@router.get("/segments/{segment_id}")
def segment_page(segment_id: Id, visit: Visit = needs(Permission.see_campaigns), q: str = "", after: Id | None = None) -> Response:
    """Show the segment: its rule with the contacts that fit, or its listed contacts."""
    with visit.reading() as session:
        segment = segments.get_segment(session, visit.viewer, segment_id)
        return _segment_page(session, visit, segment, _written(segment), q=q, after=after)


def _written(segment: Segment) -> SegmentForm:
    owner = "" if segment.partner_id is None else str(segment.partner_id)
    return SegmentForm(segment.name, segment.key, segment.rule or "", segment.rule is not None, owner, dict(segment.fields))


@router.post("/segments/{segment_id}")
def change_segment(segment_id: Id, visit: Visit = needs(Permission.write_segments), form: FormData = posted_form) -> Response:
    """Store the segment's name and rule; with `count`, only show the contacts that would be in it."""
    posted = SegmentForm.posted(form)
    with visit.reading() as session:
        segment = segments.get_segment(session, visit.viewer, segment_id)
        stored = _written(segment)
        written = SegmentForm(posted.name, stored.key, posted.rule, stored.by_rule, stored.partner, posted.types)
        if text(form, "count"):
            return _segment_page(session, visit, segment, written)
    try:
        with visit.writing() as session:
            segments.rename_segment(session, visit.viewer, segment_id, written.name)
            if stored.by_rule and (written.rule, written.types) != (stored.rule, stored.types):
                segments.change_rule(session, visit.viewer, segment_id, written.rule, visit.now, fields=written.types)
    except (InvalidInput, Refused) as error:
        written.wrong = errors.explain(error, visit.language)
        with visit.reading() as session:
            segment = segments.get_segment(session, visit.viewer, segment_id)
            return _segment_page(session, visit, segment, written, status=422)
    return visit.go(f"/segments/{segment_id}", N_("Saved."))


@router.post("/segments/{segment_id}/members")
def change_members(segment_id: Id, visit: Visit = needs(Permission.write_segments), form: FormData = posted_form) -> Response:
    """Add the ticked contacts to a listed segment, or remove them from it."""
    change = segments.remove_from_segment if text(form, "action") == "remove" else segments.add_to_segment
    with visit.writing() as session:
        count = change(session, visit.viewer, segment_id, numbers(form, "contact"), visit.now)
    message = N_("Removed: %(count)s.") if text(form, "action") == "remove" else N_("Added: %(count)s.")
    return visit.go(f"/segments/{segment_id}", message, count=count)


def _segment_page(
    session: Session, visit: Visit, segment: Segment, written: SegmentForm, *, q: str = "", after: int | None = None, status: int = 200
) -> Response:
    sees_contacts = visit.viewer.may(Permission.see_contacts)
    segment_id = id_of(segment)
    inside = segments.segment_contacts(session, visit.viewer, segment_id, after, ROWS + 1) if sees_contacts else []
    counts = {id_of(row): count for row, count in segments.list_segments(session, visit.viewer)}
    return visit.page(
        "segments/page.html",
        status=status,
        segment=segment,
        inside=inside[:ROWS],
        next_after=id_of(inside[ROWS - 1]) if len(inside) > ROWS else None,
        count=counts.get(segment_id, 0),
        found=contacts.find_contacts(session, visit.viewer, q, limit=ROWS).rows if q and sees_contacts else [],
        q=q,
        may_change=segments.may_change(visit.viewer, segment),
        sees_contacts=sees_contacts,
        **_form_values(session, visit, written),
    )
