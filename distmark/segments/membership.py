"""Membership of segments: updated when a contact changes, when a rule changes, and once a day for rules about time."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import or_, update
from sqlmodel import Session, col, select

from distmark.contacts.attributes import zones_of
from distmark.contacts.table import Contact
from distmark.journeys.expressions import Names
from distmark.journeys.times import zone_for
from distmark.partners.table import Brand
from distmark.segments.changes import joining_key
from distmark.segments.rules import depends_on_time, read_rule, rule_holds, rule_names
from distmark.segments.table import Segment, SegmentMember
from distmark.sql import among, id_of, insert_into, row_count

BATCH = 1000  # contacts evaluated in one transaction: other transactions write in between
log = logging.getLogger("distmark.contacts")


@dataclass(frozen=True, slots=True)
class MembershipEdits:
    """Changes of memberships: (segment id, contact id) of new members, and ids of rows whose contacts return or leave."""

    joining: list[tuple[int, int]]
    returning: list[int]
    leaving: list[int]


def update_memberships(session: Session, contacts: Sequence[Contact], now: datetime) -> int:
    """Evaluate all rules of their brands for these contacts, which just changed, and return how many memberships changed."""
    if not contacts:
        return 0
    return _evaluate(session, _rules_of(session, {contact.brand_id for contact in contacts}), contacts, now)


def rebuild_batch(session: Session, now: datetime, limit: int = BATCH) -> int | None:
    """Evaluate a segment's rule for the next contacts that it was not evaluated for, and return how many; None without such a segment.

    The segment stays locked, so that its rule changes before or after this batch, never within it.
    """
    unfinished = select(Segment).where(col(Segment.reached).is_not(None), col(Segment.rule).is_not(None)).order_by(col(Segment.id))
    segment = session.exec(unfinished.limit(1).with_for_update(skip_locked=True).execution_options(populate_existing=True)).first()
    if segment is None:
        return None
    remaining = select(Contact).where(Contact.brand_id == segment.brand_id, col(Contact.id) > (segment.reached or 0))
    if segment.partner_id is not None:
        remaining = remaining.where(Contact.partner_id == segment.partner_id)
    # Locked, so that no contact changes while it is evaluated; rows that refer to contacts can still be written.
    locked = remaining.order_by(col(Contact.id)).limit(limit).with_for_update(key_share=True).execution_options(populate_existing=True)
    contacts = list(session.exec(locked))
    _evaluate(session, [segment], contacts, now)
    segment.reached = contacts[-1].id if len(contacts) == limit else None
    session.add(segment)
    session.flush()
    return len(contacts)


def begin_day(session: Session, now: datetime) -> int:
    """Start the daily evaluation of rules about time, once in each day of their brand, and return how many rules start."""
    begun = 0
    rows = session.exec(
        select(Segment, Brand.zone).join(Brand, col(Brand.id) == col(Segment.brand_id)).where(col(Segment.rule).is_not(None))
    )
    for segment, zone in rows.all():
        today = now.astimezone(zone_for(zone)).date()
        if segment.judged_on != today and depends_on_time(read_rule(segment.rule or "")):
            begun += _start_evaluation(session, segment, today)
    return begun


def _start_evaluation(session: Session, segment: Segment, today: date) -> int:
    same = update(Segment).where(
        col(Segment.id) == segment.id,
        col(Segment.revision) == segment.revision,
        or_(col(Segment.judged_on).is_(None), col(Segment.judged_on) < today),
    )
    return row_count(session.execute(same.values(reached=0, judged_on=today)))


def segment_keys_of(session: Session, contacts: Sequence[Contact], now: datetime) -> dict[int, frozenset[str]]:
    """Return the keys of each contact's segments, by contact id. Rules are evaluated at once for contacts whose changes are unprocessed."""
    ids = [id_of(contact) for contact in contacts]
    keys: dict[int, set[str]] = {contact_id: set() for contact_id in ids}
    unread = [contact for contact in contacts if contact.unread]
    evaluated = _rules_of(session, {contact.brand_id for contact in unread}) if unread else []
    evaluated_ids, unread_ids = {segment.id for segment in evaluated}, {contact.id for contact in unread}
    inside = select(SegmentMember.contact_id, SegmentMember.segment_id, Segment.key).join(
        Segment, col(Segment.id) == col(SegmentMember.segment_id)
    )
    for contact_id, segment_id, key in session.exec(
        inside.where(among(session, col(SegmentMember.contact_id), ids), col(SegmentMember.left_at).is_(None))
    ):
        if segment_id not in evaluated_ids or contact_id not in unread_ids:
            keys[contact_id].add(key)
    for contact, segment, fits in _verdicts(session, evaluated, unread, now):
        if fits:
            keys[id_of(contact)].add(segment.key)
    return {contact_id: frozenset(found) for contact_id, found in keys.items()}


def members_after(session: Session, brand_id: int, key: str, after_id: int, limit: int) -> dict[int, str]:
    """Return the members of the brand's segments of this key (contact id -> key of the joining), ascending from after `after_id`."""
    inside = (
        select(SegmentMember.contact_id, SegmentMember.id, SegmentMember.joined_at)
        .join(Segment, col(Segment.id) == col(SegmentMember.segment_id))
        .where(Segment.brand_id == brand_id, Segment.key == key)
        .where(col(SegmentMember.left_at).is_(None), col(SegmentMember.contact_id) > after_id)
    )
    rows = session.exec(inside.order_by(col(SegmentMember.contact_id)).limit(limit))
    return {contact_id: joining_key(member_id, joined_at) for contact_id, member_id, joined_at in rows if member_id is not None}


def _rules_of(session: Session, brand_ids: Collection[int]) -> list[Segment]:
    return list(session.exec(select(Segment).where(col(Segment.brand_id).in_(list(brand_ids)), col(Segment.rule).is_not(None))))


def _evaluate(session: Session, segments: Sequence[Segment], contacts: Sequence[Contact], now: datetime) -> int:
    """Evaluate these rules for these contacts, write only the memberships that change, and return how many."""
    if not segments or not contacts:
        return 0
    rows = membership_rows(session, [id_of(segment) for segment in segments], [id_of(contact) for contact in contacts])
    known = {(segment_id, contact_id): (row_id, inside) for row_id, segment_id, contact_id, inside in rows}
    edits, unclear = MembershipEdits([], [], []), Counter[int]()
    for contact, segment, fits in _verdicts(session, segments, contacts, now):
        pair = (id_of(segment), id_of(contact))
        unclear[pair[0]] += fits is None
        row_id, inside = known.get(pair, (0, False))
        if fits is None or fits == inside:
            continue
        if not fits:
            edits.leaving.append(row_id)
        elif row_id:
            edits.returning.append(row_id)
        else:
            edits.joining.append(pair)
    for segment_id, count in (+unclear).items():
        log.warning("segment rule cannot be judged for some contacts", extra={"segment_id": segment_id, "contacts": count})
    return write_edits(session, edits, now)


def _verdicts(
    session: Session, segments: Sequence[Segment], contacts: Sequence[Contact], now: datetime
) -> Iterable[tuple[Contact, Segment, bool | None]]:
    """Yield whether each contact fits each segment that it could be in; None when the rule cannot be evaluated for it."""
    rules = {segment.id: read_rule(segment.rule or "") for segment in segments}
    needs_zones = any(depends_on_time(rule) for rule in rules.values())
    zones = zones_of(session, contacts) if needs_zones else {}
    for contact in contacts:
        seen: dict[str, Names] = {}
        for segment in segments:
            if contact.brand_id != segment.brand_id or segment.partner_id not in (None, contact.partner_id):
                continue
            if contact.erased_at is not None:
                yield contact, segment, False
                continue
            names = seen.setdefault(str(segment.fields), rule_names(contact, segment, now, zones.get(id_of(contact))))
            yield contact, segment, rule_holds(rules[segment.id], names)


def membership_rows(session: Session, segment_ids: Sequence[int], contact_ids: Sequence[int]) -> list[tuple[int, int, int, bool]]:
    """Return (row id, segment id, contact id, is member now) of all memberships, present and past, of these contacts in these segments."""
    rows = session.exec(
        select(SegmentMember.id, SegmentMember.segment_id, SegmentMember.contact_id, SegmentMember.left_at).where(
            col(SegmentMember.segment_id).in_(list(segment_ids)), among(session, col(SegmentMember.contact_id), contact_ids)
        )
    )
    return [(row_id, segment_id, contact_id, left_at is None) for row_id, segment_id, contact_id, left_at in rows if row_id is not None]


def write_edits(session: Session, edits: MembershipEdits, now: datetime) -> int:
    """Write the changes of memberships, to be dispatched to the journeys, and return how many."""
    joining = [
        {"segment_id": segment_id, "contact_id": contact_id, "joined_at": now, "left_at": None, "told": False}
        for segment_id, contact_id in edits.joining
    ]
    if joining:
        session.execute(insert_into(session, SegmentMember).on_conflict_do_nothing(), joining)
    if edits.returning:
        back = update(SegmentMember).where(among(session, col(SegmentMember.id), edits.returning))
        session.execute(back.values(joined_at=now, left_at=None, told=False))
    if edits.leaving:
        session.execute(update(SegmentMember).where(among(session, col(SegmentMember.id), edits.leaving)).values(left_at=now, told=False))
    return len(edits.joining) + len(edits.returning) + len(edits.leaving)
