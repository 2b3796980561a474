"""Segments: named groups of contacts, listed by hand or told by a rule. Membership is kept, never made anew: who stays in is not touched.

A contact is judged when it changes; a whole segment only when its rule is new, or speaks of time and a day has begun. Journeys are told
once of whoever joined or left, by the entries flow.
"""

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import func, or_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from distmark.contacts.attributes import attributes_of, zones_of
from distmark.contacts.fields import TYPES
from distmark.contacts.many import among
from distmark.contacts.table import Contact, Segment, SegmentMember
from distmark.errors import InvalidInput, NotAllowed, NotFound, Refused
from distmark.journeys.expressions import FUNCTIONS, Expression, ExpressionError, Names, namespace
from distmark.journeys.findings import closest
from distmark.journeys.model import Facts
from distmark.journeys.times import zone_for
from distmark.journeys.words import NAME_PATTERN
from distmark.partners.model import Permission, Role, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import get_partner, require
from distmark.partners.table import Brand

LONGEST_NAME = 120
BATCH = 1000  # contacts judged in one transaction: others write in between
MOST_ROWS = 500
RULE_NAMES = ("contact", "now", "today")
RULE_FUNCTIONS = ("days_since", "days_until")
OF_TIME = frozenset(("now", "today", *RULE_FUNCTIONS))

log = logging.getLogger("distmark.contacts")


@dataclass(frozen=True, slots=True)
class Passage:
    """A contact that joined a segment (`joined`) or left it, and whom no journey was told of yet."""

    member_id: int
    segment_id: int
    key: str
    brand_id: int
    contact_id: int
    person_key: str
    joined: bool
    joined_at: datetime

    @property
    def occasion(self) -> str:
        """What names this joining among all: whoever leaves and joins again has another."""
        return occasion_of(self.member_id, self.joined_at)


def occasion_of(member_id: int, joined_at: datetime) -> str:
    """Return the name of one joining of one contact."""
    return f"segment:{member_id}:{joined_at.isoformat()}"


@dataclass(frozen=True, slots=True)
class _Turns:
    """What becomes of memberships: (segment, contact) of new ones, and ids of rows that come back or leave."""

    joining: list[tuple[int, int]]
    returning: list[int]
    leaving: list[int]


# --- for people -------------------------------------------------------------------------------------------------------------------------


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
    """Make a segment of the brand, or of one partner's book, and return it; a partner's people make their own partner's.

    Without `rule` it is empty until contacts are listed. With one its members are found soon, by the entries flow. `fields` (attribute ->
    text, number, bool, date) says how the rule reads attributes. InvalidInput for a key, name or rule that cannot be used, Refused for a
    key that is taken.
    """
    owner = _owner(session, viewer, partner_id)
    if not re.fullmatch(NAME_PATTERN, key):
        raise InvalidInput(f'The key "{key}" cannot be used; write small letters, digits and hyphens, such as gold-customers.')
    if not 0 < len(name.strip()) <= LONGEST_NAME:
        raise InvalidInput(f"The name has {len(name.strip())} characters; write 1 to {LONGEST_NAME}.")
    taken = select(Segment.id).where(Segment.brand_id == viewer.brand_id, Segment.key == key)
    if owner is not None:  # two partners may use the same key, but a journey's in_segment must mean one segment for each contact
        taken = taken.where(or_(col(Segment.partner_id).is_(None), col(Segment.partner_id) == owner))
    values = {
        "brand_id": viewer.brand_id,
        "partner_id": owner,
        "key": key,
        "name": name.strip(),
        "rule": None if rule is None else read_rule(rule).text,
        "fields": _read_fields(fields or {}),
        "revision": 1,
        "reached": None if rule is None else 0,
        "created_by_id": viewer.user_id,
        "created_at": now,
    }
    made = None
    if session.exec(taken).first() is None:
        made = session.execute(_insert(session, Segment).values(values).on_conflict_do_nothing().returning(col(Segment.id))).scalar()
    if made is None:
        raise Refused(f'There is a segment "{key}" already; choose another key.')
    return session.get_one(Segment, made)


def change_rule(
    session: Session, viewer: Viewer, segment_id: int, rule: str, now: datetime, *, fields: Mapping[str, str] | None = None
) -> Segment:
    """Give the segment another rule and return it. A rebuild that is under way goes on with the new rule, from the first contact.

    Whoever fits both rules stays in all the time. Refused for a segment whose members are listed.
    """
    segment = _own(session, viewer, segment_id)
    if segment.rule is None:
        raise Refused(f'The members of segment "{segment.key}" are listed by hand; make another segment for a rule.')
    segment.rule = read_rule(rule).text
    segment.fields = segment.fields if fields is None else _read_fields(fields)
    segment.revision += 1
    segment.reached, segment.judged_on = 0, None
    session.add(segment)
    session.flush()
    return segment


def get_segment(session: Session, viewer: Viewer, segment_id: int, *, lock: bool = False) -> Segment:
    """Return the segment; NotFound outside the viewer's sight. With `lock` nobody changes or rebuilds it until the unit of work ends."""
    statement = visible(select(Segment), Segment, viewer).where(Segment.id == segment_id)
    if lock:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    segment = session.exec(statement).first()
    if segment is None:
        raise NotFound(f"There is no segment {segment_id} among yours.")
    return segment


def find_segment(session: Session, viewer: Viewer, key: str) -> Segment:
    """Return the segment of this key, a brand-wide one first; NotFound outside the viewer's sight."""
    statement = visible(select(Segment), Segment, viewer).where(Segment.key == key)
    segment = session.exec(statement.order_by(col(Segment.partner_id).is_not(None), col(Segment.id))).first()
    if segment is None:
        raise NotFound(f'There is no segment "{key}" among yours.')
    return segment


def list_segments(session: Session, viewer: Viewer) -> list[tuple[Segment, int]]:
    """Return the segments that the viewer may know of with how many of the viewer's contacts are in each, by key."""
    segments = list(session.exec(visible(select(Segment), Segment, viewer).order_by(col(Segment.key), col(Segment.id))))
    counting = select(SegmentMember.segment_id, func.count()).join(Contact, col(Contact.id) == col(SegmentMember.contact_id))
    inside = visible(counting, Contact, viewer).where(col(SegmentMember.left_at).is_(None)).group_by(col(SegmentMember.segment_id))
    counts = dict(session.exec(inside).all())
    return [(segment, counts.get(segment.id or 0, 0)) for segment in segments]


def segment_contacts(session: Session, viewer: Viewer, segment_id: int, after_id: int | None = None, limit: int = 50) -> list[Contact]:
    """Return those of the viewer's contacts that are in the segment, by id from after `after_id` on."""
    get_segment(session, viewer, segment_id)
    inside = visible(select(Contact).join(SegmentMember, col(SegmentMember.contact_id) == col(Contact.id)), Contact, viewer)
    inside = inside.where(SegmentMember.segment_id == segment_id, col(SegmentMember.left_at).is_(None), col(Contact.id) > (after_id or 0))
    return list(session.exec(inside.order_by(col(Contact.id)).limit(max(1, min(limit, MOST_ROWS)))))


def add_to_segment(session: Session, viewer: Viewer, segment_id: int, contact_ids: Collection[int], now: datetime) -> int:
    """Put these contacts into a listed segment and return how many were not in it. NotFound, and nobody put in, when one is not theirs."""
    segment = _listed(session, viewer, segment_id)
    owners = _owners(session, viewer, contact_ids)
    strangers = [contact_id for contact_id, owner in owners.items() if segment.partner_id not in (None, owner)]
    if strangers:
        raise Refused(f'Segment "{segment.key}" is one partner\'s, and contact {strangers[0]} is not theirs.')
    known = {contact_id: (row_id, inside) for row_id, _, contact_id, inside in _rows(session, [segment_id], list(owners))}
    returning = [row_id for row_id, inside in known.values() if not inside]
    joining = [(segment_id, contact_id) for contact_id in owners if contact_id not in known]
    return _turn(session, _Turns(joining, returning, []), now)


def remove_from_segment(session: Session, viewer: Viewer, segment_id: int, contact_ids: Collection[int], now: datetime) -> int:
    """Take these contacts out of a listed segment and return how many were in it."""
    _listed(session, viewer, segment_id)
    rows = _rows(session, [segment_id], list(_owners(session, viewer, contact_ids)))
    return _turn(session, _Turns([], [], [row_id for row_id, _, _, inside in rows if inside]), now)


def _listed(session: Session, viewer: Viewer, segment_id: int) -> Segment:
    segment = _own(session, viewer, segment_id)
    if segment.rule is not None:
        raise Refused(f'The members of segment "{segment.key}" are told by its rule; change the rule or the contact.')
    return segment


def _own(session: Session, viewer: Viewer, segment_id: int) -> Segment:
    """Return the segment, locked, when the viewer may change it."""
    segment = get_segment(session, viewer, segment_id, lock=True)
    if _owner(session, viewer, segment.partner_id) != segment.partner_id:
        raise NotAllowed(f'Segment "{segment.key}" is the whole brand\'s; ask someone of your brand to change it.')
    return segment


def _owner(session: Session, viewer: Viewer, partner_id: int | None) -> int | None:
    """Return whose segment it is (None: the brand's) when the viewer may change it; NotAllowed or NotFound otherwise."""
    if viewer.role is Role.partner:
        require(viewer, Permission.write_contacts)
        if partner_id not in (None, viewer.partner_id):
            raise NotFound(f"There is no partner {partner_id} among yours.")
        return viewer.partner_id
    require(viewer, Permission.publish_campaigns)
    return None if partner_id is None else get_partner(session, viewer, partner_id).id


def _owners(session: Session, viewer: Viewer, contact_ids: Collection[int]) -> dict[int, int]:
    wanted = dict.fromkeys(contact_ids)
    mine = visible(select(Contact.id, Contact.partner_id), Contact, viewer).where(col(Contact.erased_at).is_(None))
    found = {contact_id or 0: owner for contact_id, owner in session.exec(mine.where(among(session, col(Contact.id), wanted)))}
    missing = next((contact_id for contact_id in wanted if contact_id not in found), None)
    if missing is not None:
        raise NotFound(f"There is no contact {missing} among yours; search again and pick from the list.")
    return {contact_id: found[contact_id] for contact_id in wanted}


# --- rules ------------------------------------------------------------------------------------------------------------------------------


def read_rule(rule: str) -> Expression:
    """Return the rule ready to judge. InvalidInput names what it may not speak of: it sees the contact and the day, nothing else."""
    try:
        expression = Expression.read(rule)
    except ValueError as error:
        reason = (getattr(error, "context", None) or {}).get("reason", "it is empty or too long")
        raise InvalidInput(f'The rule "{rule}" cannot be read: {reason}; write it like contact.city == "Tokyo".') from error
    uses = expression.uses
    called = {call.name for call in uses.calls}
    unknown = sorted(uses.names - {name for name in RULE_NAMES if name not in called} - (called & set(RULE_FUNCTIONS)))
    if unknown:
        near = closest(unknown[0], [*RULE_NAMES, *RULE_FUNCTIONS])
        meant = f" (did you mean {near}?)" if near else ""
        raise InvalidInput(f'The rule "{rule}" speaks of "{unknown[0]}"{meant}; it may use contact, today, now, days_since and days_until.')
    wrong = next((call for call in uses.calls if call.named or len(call.args) != len(FUNCTIONS[call.name].needs)), None)
    if wrong is not None:
        raise InvalidInput(f'The rule "{rule}" calls {wrong.name} wrongly; write it like {FUNCTIONS[wrong.name].form}.')
    return expression


def is_of_time(rule: Expression) -> bool:
    """Say whether the rule may become true or false by the passing of days alone."""
    return bool(rule.uses.names & OF_TIME)


def _read_fields(fields: Mapping[str, str]) -> dict[str, str]:
    odd = next((name for name, kind in fields.items() if kind not in TYPES), None)
    if odd is not None:
        raise InvalidInput(f'The field "{odd}" has the type "{fields[odd]}"; use one of {", ".join(TYPES)}.')
    return dict(fields)


# --- keeping who is in ------------------------------------------------------------------------------------------------------------------


def keep(session: Session, contacts: Sequence[Contact], now: datetime) -> int:
    """Judge these contacts, just changed, by the rules that concern them, and return how many memberships that changed."""
    if not contacts:
        return 0
    return _judge(session, _rules_of(session, {contact.brand_id for contact in contacts}), contacts, now)


def rebuild_some(session: Session, now: datetime, limit: int = BATCH) -> int | None:
    """Judge the next contacts of a segment whose rule has not judged everybody, and return how many; None when there is no such segment.

    The segment is locked meanwhile, so that its rule changes before or after this part, never within.
    """
    waiting = select(Segment).where(col(Segment.reached).is_not(None), col(Segment.rule).is_not(None)).order_by(col(Segment.id))
    segment = session.exec(waiting.limit(1).with_for_update(skip_locked=True).execution_options(populate_existing=True)).first()
    if segment is None:
        return None
    everybody = select(Contact).where(Contact.brand_id == segment.brand_id, col(Contact.id) > (segment.reached or 0))
    if segment.partner_id is not None:
        everybody = everybody.where(Contact.partner_id == segment.partner_id)
    # Locked, so that nobody is judged by what they were while they become something else; rows that refer to them can still be written.
    locked = everybody.order_by(col(Contact.id)).limit(limit).with_for_update(key_share=True).execution_options(populate_existing=True)
    contacts = list(session.exec(locked))
    _judge(session, [segment], contacts, now)
    segment.reached = contacts[-1].id if len(contacts) == limit else None
    session.add(segment)
    session.flush()
    return len(contacts)


def begin_day(session: Session, now: datetime) -> int:
    """Have every rule about time judge everybody once in each day of its brand, and return how many rules begin."""
    begun = 0
    rows = session.exec(
        select(Segment, Brand.zone).join(Brand, col(Brand.id) == col(Segment.brand_id)).where(col(Segment.rule).is_not(None))
    )
    for segment, zone in rows.all():
        today = now.astimezone(zone_for(zone)).date()
        if segment.judged_on != today and is_of_time(read_rule(segment.rule or "")):
            begun += _begin(session, segment, today)
    return begun


def _begin(session: Session, segment: Segment, today: date) -> int:
    same = update(Segment).where(
        col(Segment.id) == segment.id,
        col(Segment.revision) == segment.revision,
        or_(col(Segment.judged_on).is_(None), col(Segment.judged_on) < today),
    )
    return int(getattr(session.execute(same.values(reached=0, judged_on=today)), "rowcount", 0))


def keys_of(session: Session, contacts: Sequence[Contact], now: datetime) -> dict[int, frozenset[str]]:
    """Return the keys of the segments that each contact is in, by contact id. One that changed a moment ago is judged as it is now."""
    ids = [contact.id or 0 for contact in contacts]
    keys: dict[int, set[str]] = {contact_id: set() for contact_id in ids}
    unread = [contact for contact in contacts if contact.unread]
    judged = _rules_of(session, {contact.brand_id for contact in unread}) if unread else []
    judged_ids, unread_ids = {segment.id for segment in judged}, {contact.id for contact in unread}
    inside = select(SegmentMember.contact_id, SegmentMember.segment_id, Segment.key).join(
        Segment, col(Segment.id) == col(SegmentMember.segment_id)
    )
    for contact_id, segment_id, key in session.exec(
        inside.where(among(session, col(SegmentMember.contact_id), ids), col(SegmentMember.left_at).is_(None))
    ):
        if segment_id not in judged_ids or contact_id not in unread_ids:
            keys[contact_id].add(key)
    for contact, segment, fits in _verdicts(session, judged, unread, now):
        if fits:
            keys[contact.id or 0].add(segment.key)
    return {contact_id: frozenset(found) for contact_id, found in keys.items()}


def members_after(session: Session, brand_id: int, key: str, after_id: int, limit: int) -> dict[int, str]:
    """Return who is in any of the brand's segments of this key, ascending from after `after_id`: contact -> name of the joining."""
    inside = (
        select(SegmentMember.contact_id, SegmentMember.id, SegmentMember.joined_at)
        .join(Segment, col(Segment.id) == col(SegmentMember.segment_id))
        .where(Segment.brand_id == brand_id, Segment.key == key)
        .where(col(SegmentMember.left_at).is_(None), col(SegmentMember.contact_id) > after_id)
    )
    rows = session.exec(inside.order_by(col(SegmentMember.contact_id)).limit(limit))
    return {contact_id: occasion_of(member_id or 0, joined_at) for contact_id, member_id, joined_at in rows}


def untold(session: Session, limit: int = BATCH) -> list[Passage]:
    """Return who joined or left and no journey knows yet, oldest first, locked until the unit of work ends."""
    rows = session.execute(
        select(SegmentMember, Segment.key, Segment.brand_id, Contact.person_key)
        .join(Segment, col(Segment.id) == col(SegmentMember.segment_id))
        .join(Contact, col(Contact.id) == col(SegmentMember.contact_id))
        .where(col(SegmentMember.told).is_(False))
        .order_by(col(SegmentMember.id))
        .limit(limit)
        .with_for_update(of=SegmentMember, skip_locked=True)
    ).all()
    return [
        Passage(row.id or 0, row.segment_id, key, brand_id, row.contact_id, person_key, row.left_at is None, row.joined_at)
        for row, key, brand_id, person_key in rows
    ]


def mark_told(session: Session, passages: Sequence[Passage]) -> None:
    """Note that journeys know of these."""
    ids = [passage.member_id for passage in passages]
    session.execute(update(SegmentMember).where(among(session, col(SegmentMember.id), ids)).values(told=True))


def _rules_of(session: Session, brand_ids: Collection[int]) -> list[Segment]:
    return list(session.exec(select(Segment).where(col(Segment.brand_id).in_(list(brand_ids)), col(Segment.rule).is_not(None))))


def _judge(session: Session, segments: Sequence[Segment], contacts: Sequence[Contact], now: datetime) -> int:
    """Write what changes, and only that: a membership that stands is not touched."""
    if not segments or not contacts:
        return 0
    rows = _rows(session, [segment.id or 0 for segment in segments], [contact.id or 0 for contact in contacts])
    known = {(segment_id, contact_id): (row_id, inside) for row_id, segment_id, contact_id, inside in rows}
    turns, unclear = _Turns([], [], []), Counter[int]()
    for contact, segment, fits in _verdicts(session, segments, contacts, now):
        place = (segment.id or 0, contact.id or 0)
        unclear[place[0]] += fits is None
        row_id, inside = known.get(place, (0, False))
        if fits is None or fits == inside:
            continue
        if not fits:
            turns.leaving.append(row_id)
        elif row_id:
            turns.returning.append(row_id)
        else:
            turns.joining.append(place)
    for segment_id, count in (+unclear).items():
        log.warning("segment rule cannot be judged for some contacts", extra={"segment_id": segment_id, "contacts": count})
    return _turn(session, turns, now)


def _verdicts(
    session: Session, segments: Sequence[Segment], contacts: Sequence[Contact], now: datetime
) -> Iterable[tuple[Contact, Segment, bool | None]]:
    """Yield whether each contact fits each segment that it could be in; None when the rule cannot be said to hold or not."""
    rules = {segment.id: read_rule(segment.rule or "") for segment in segments}
    needs_zones = any(is_of_time(rule) for rule in rules.values())
    zones = zones_of(session, contacts) if needs_zones else {}
    for contact in contacts:
        seen: dict[str, Names] = {}
        for segment in segments:
            if contact.brand_id != segment.brand_id or segment.partner_id not in (None, contact.partner_id):
                continue
            if contact.erased_at is not None:
                yield contact, segment, False
                continue
            names = seen.setdefault(str(segment.fields), _names(contact, segment, now, zones.get(contact.id or 0)))
            yield contact, segment, _holds(rules[segment.id], names)


def _names(contact: Contact, segment: Segment, now: datetime, zone: ZoneInfo | None) -> Names:
    return namespace(Facts(contact=attributes_of(contact, segment.fields)), now, zone or zone_for(contact.zone))


def _holds(rule: Expression, names: Names) -> bool | None:
    try:
        return rule.holds(names)
    except ExpressionError:
        return None  # one odd value must not take people out, nor keep the others from being judged


def _rows(session: Session, segment_ids: Sequence[int], contact_ids: Sequence[int]) -> list[tuple[int, int, int, bool]]:
    """Return (row, segment, contact, is in) of every membership, present or past, of these contacts in these segments."""
    rows = session.exec(
        select(SegmentMember.id, SegmentMember.segment_id, SegmentMember.contact_id, SegmentMember.left_at).where(
            col(SegmentMember.segment_id).in_(list(segment_ids)), among(session, col(SegmentMember.contact_id), contact_ids)
        )
    )
    return [(row_id or 0, segment_id, contact_id, left_at is None) for row_id, segment_id, contact_id, left_at in rows]


def _turn(session: Session, turns: _Turns, now: datetime) -> int:
    joining = [
        {"segment_id": segment_id, "contact_id": contact_id, "joined_at": now, "left_at": None, "told": False}
        for segment_id, contact_id in turns.joining
    ]
    if joining:
        session.execute(_insert(session, SegmentMember).on_conflict_do_nothing(), joining)
    if turns.returning:
        back = update(SegmentMember).where(among(session, col(SegmentMember.id), turns.returning))
        session.execute(back.values(joined_at=now, left_at=None, told=False))
    if turns.leaving:
        session.execute(update(SegmentMember).where(among(session, col(SegmentMember.id), turns.leaving)).values(left_at=now, told=False))
    return len(turns.joining) + len(turns.returning) + len(turns.leaving)


def _insert(session: Session, table: type[Any]) -> Any:
    return (sqlite if session.get_bind().dialect.name == "sqlite" else postgresql).insert(table)
