"""Segments: named groups of contacts, listed by hand or given by a rule. Memberships are updated, never rebuilt from nothing.

A contact is evaluated when it changes; a whole segment only when its rule is new, or is about time and a day has begun. The entries flow
dispatches each joining and leaving to the journeys once.
"""

import re
from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import func, or_
from sqlmodel import Session, col, select

from distmark.contacts.table import Contact
from distmark.errors import InvalidInput, NotAllowed, NotFound, Refused
from distmark.journeys.field_types import NAME_PATTERN
from distmark.partners.model import Permission, Role, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import get_partner, require
from distmark.segments.membership import MembershipEdits, membership_rows, write_edits
from distmark.segments.rules import read_fields, read_rule
from distmark.segments.table import Segment, SegmentMember
from distmark.sql import among, id_of, insert_into

LONGEST_NAME = 120
MOST_ROWS = 500


def create_segment(
    session: Session,
    viewer: Viewer,
    key: str,
    name: str,
    now: datetime,
    *,
    rule: str | None = None,
    fields: Mapping[str, str] | None = None,
    partner_id: int | None = None,
) -> Segment:
    """Create a segment of the brand, or of one partner's book, and return it; a partner's people create segments of their partner.

    Without `rule` it is empty until contacts are listed. With a rule, the entries flow soon finds its members. `fields` (attribute -> text,
    number, bool, date) gives the types as which the rule reads attributes. InvalidInput for a key, name or rule that cannot be used,
    Refused for a key that is taken.
    """
    owner = _owner(session, viewer, partner_id)
    if not re.fullmatch(NAME_PATTERN, key):
        raise InvalidInput(f'The key "{key}" cannot be used; write small letters, digits and hyphens, such as gold-customers.')
    name = _name(name)
    taken = select(Segment.id).where(Segment.brand_id == viewer.brand_id, Segment.key == key)
    if owner is not None:  # two partners may use the same key, but a journey's in_segment must mean one segment for each contact
        taken = taken.where(or_(col(Segment.partner_id).is_(None), col(Segment.partner_id) == owner))
    values = {
        "brand_id": viewer.brand_id,
        "partner_id": owner,
        "key": key,
        "name": name,
        "rule": None if rule is None else read_rule(rule).text,
        "fields": read_fields(fields or {}),
        "revision": 1,
        "reached": None if rule is None else 0,
        "created_by_id": viewer.user_id,
        "created_at": now,
    }
    segment_id = None
    if session.exec(taken).first() is None:
        segment_id = session.execute(
            insert_into(session, Segment).values(values).on_conflict_do_nothing().returning(col(Segment.id))
        ).scalar()
    if segment_id is None:
        raise Refused(f'There is a segment "{key}" already; choose another key.')
    return session.get_one(Segment, segment_id)


def change_rule(
    session: Session, viewer: Viewer, segment_id: int, rule: str, now: datetime, *, fields: Mapping[str, str] | None = None
) -> Segment:
    """Give the segment another rule and return it. An evaluation that is under way starts again with the new rule.

    A contact that fits both rules stays a member without interruption. Refused for a segment whose members are listed.
    """
    segment = _own_segment(session, viewer, segment_id)
    if segment.rule is None:
        raise Refused(f'The members of segment "{segment.key}" are listed by hand; make another segment for a rule.')
    segment.rule = read_rule(rule).text
    segment.fields = segment.fields if fields is None else read_fields(fields)
    segment.revision += 1
    segment.reached, segment.judged_on = 0, None
    session.add(segment)
    session.flush()
    return segment


def rename_segment(session: Session, viewer: Viewer, segment_id: int, name: str) -> Segment:
    """Give the segment another name and return it; its key stays, since journeys name it by that."""
    segment = _own_segment(session, viewer, segment_id)
    segment.name = _name(name)
    session.add(segment)
    return segment


def _name(name: str) -> str:
    if not 0 < len(name.strip()) <= LONGEST_NAME:
        raise InvalidInput(f"The name has {len(name.strip())} characters; write 1 to {LONGEST_NAME}.")
    return name.strip()


def may_change(viewer: Viewer, segment: Segment) -> bool:
    """Return whether the viewer may change the segment: people of a partner change their partner's own only."""
    return viewer.may(Permission.write_segments) and (viewer.role is not Role.partner or segment.partner_id == viewer.partner_id)


def get_segment(session: Session, viewer: Viewer, segment_id: int, *, lock: bool = False) -> Segment:
    """Return the segment; NotFound outside the viewer's sight. With `lock` it stays locked until the unit of work ends."""
    statement = visible(select(Segment), Segment, viewer).where(Segment.id == segment_id)
    if lock:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    segment = session.exec(statement).first()
    if segment is None:
        raise NotFound(f"There is no segment {segment_id} among yours.")
    return segment


def list_segments(session: Session, viewer: Viewer) -> list[tuple[Segment, int]]:
    """Return the segments within the viewer's sight by key, each with the number of the viewer's contacts in it."""
    segments = list(session.exec(visible(select(Segment), Segment, viewer).order_by(col(Segment.key), col(Segment.id))))
    counting = select(SegmentMember.segment_id, func.count()).join(Contact, col(Contact.id) == col(SegmentMember.contact_id))
    inside = visible(counting, Contact, viewer).where(col(SegmentMember.left_at).is_(None)).group_by(col(SegmentMember.segment_id))
    counts = dict(session.exec(inside).all())
    return [(segment, counts.get(id_of(segment), 0)) for segment in segments]


def segment_contacts(session: Session, viewer: Viewer, segment_id: int, after_id: int | None = None, limit: int = 50) -> list[Contact]:
    """Return the viewer's contacts that are in the segment, by id from after `after_id` on."""
    get_segment(session, viewer, segment_id)
    inside = visible(select(Contact).join(SegmentMember, col(SegmentMember.contact_id) == col(Contact.id)), Contact, viewer)
    inside = inside.where(SegmentMember.segment_id == segment_id, col(SegmentMember.left_at).is_(None), col(Contact.id) > (after_id or 0))
    return list(session.exec(inside.order_by(col(Contact.id)).limit(max(1, min(limit, MOST_ROWS)))))


def add_to_segment(session: Session, viewer: Viewer, segment_id: int, contact_ids: Collection[int], now: datetime) -> int:
    """Add these contacts to a listed segment and return how many were not in it. NotFound, and none added, for one outside their sight."""
    segment = _listed_segment(session, viewer, segment_id)
    owners = _owners(session, viewer, contact_ids)
    foreign = [contact_id for contact_id, owner in owners.items() if segment.partner_id not in (None, owner)]
    if foreign:
        raise Refused(f'Segment "{segment.key}" is one partner\'s, and contact {foreign[0]} is not theirs.')
    known = {contact_id: (row_id, inside) for row_id, _, contact_id, inside in membership_rows(session, [segment_id], list(owners))}
    returning = [row_id for row_id, inside in known.values() if not inside]
    joining = [(segment_id, contact_id) for contact_id in owners if contact_id not in known]
    return write_edits(session, MembershipEdits(joining, returning, []), now)


def remove_from_segment(session: Session, viewer: Viewer, segment_id: int, contact_ids: Collection[int], now: datetime) -> int:
    """Remove these contacts from a listed segment and return how many were in it."""
    _listed_segment(session, viewer, segment_id)
    rows = membership_rows(session, [segment_id], list(_owners(session, viewer, contact_ids)))
    return write_edits(session, MembershipEdits([], [], [row_id for row_id, _, _, inside in rows if inside]), now)


def _listed_segment(session: Session, viewer: Viewer, segment_id: int) -> Segment:
    segment = _own_segment(session, viewer, segment_id)
    if segment.rule is not None:
        raise Refused(f'The members of segment "{segment.key}" are told by its rule; change the rule or the contact.')
    return segment


def _own_segment(session: Session, viewer: Viewer, segment_id: int) -> Segment:
    """Return the segment, locked, when the viewer may change it."""
    segment = get_segment(session, viewer, segment_id, lock=True)
    if _owner(session, viewer, segment.partner_id) != segment.partner_id:
        raise NotAllowed(f'Segment "{segment.key}" is the whole brand\'s; ask someone of your brand to change it.')
    return segment


def _owner(session: Session, viewer: Viewer, partner_id: int | None) -> int | None:
    """Return the partner id of a segment that the viewer may change (None: the brand's); NotAllowed or NotFound otherwise."""
    require(viewer, Permission.write_segments)
    if viewer.role is Role.partner:
        if partner_id not in (None, viewer.partner_id):
            raise NotFound(f"There is no partner {partner_id} among yours.")
        return viewer.partner_id
    return None if partner_id is None else get_partner(session, viewer, partner_id).id


def _owners(session: Session, viewer: Viewer, contact_ids: Collection[int]) -> dict[int, int]:
    """Return the partner id of each contact, by contact id, in the given order; NotFound when one is outside the viewer's sight."""
    wanted = dict.fromkeys(contact_ids)
    own = visible(select(Contact.id, Contact.partner_id), Contact, viewer).where(col(Contact.erased_at).is_(None))
    found = dict(session.exec(own.where(among(session, col(Contact.id), wanted))).all())
    missing = next((contact_id for contact_id in wanted if contact_id not in found), None)
    if missing is not None:
        raise NotFound(f"There is no contact {missing} among yours; search again and pick from the list.")
    return {contact_id: found[contact_id] for contact_id in wanted}
