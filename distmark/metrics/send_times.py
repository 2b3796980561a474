"""The hours of the day at which contacts open and click, on their own clocks: their own, or those of the people in their segments, of their
partner's or of their brand's contacts."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo

from sqlalchemy import func, select
from sqlmodel import Session, col

from distmark.contacts.table import Contact
from distmark.engagement.model import EventKind, Verdict
from distmark.enrollments.table import Enrollment
from distmark.journeys.program import Program
from distmark.journeys.steps.wait import WaitStep
from distmark.journeys.times import zone_for
from distmark.journeys.waits import BEST_TIME
from distmark.messages.table import Message
from distmark.metrics.table import EngagedHour, SegmentHour
from distmark.partners.table import Brand, Partner
from distmark.segments.table import SegmentMember
from distmark.sql import among, id_of, insert_into

REMEMBERED = timedelta(days=180)
LEAST_OWN = 5  # opens and clicks of a contact, below which their own hours say nothing
LEAST_SHARED = 50  # the same of the contacts of segments, a partner or a brand
WHOLE_BRAND = 0

Hours = Mapping[int, float]


class Who(Protocol):
    """A person as far as their clock goes."""

    @property
    def contact(self) -> Contact: ...
    @property
    def partner(self) -> Partner: ...
    @property
    def brand(self) -> Brand: ...


class _SegmentKey(NamedTuple):
    segment_id: int
    month: date
    hour: int


class _Key(NamedTuple):
    brand_id: int
    partner_id: int
    month: date
    hour: int


@dataclass(frozen=True, slots=True)
class _Asked:
    """The enrollments whose journey waits for the best time, and their contacts' time zones."""

    enrollments: Sequence[Enrollment]
    zones: Mapping[int, ZoneInfo]


def asks_best_hours(program: Program) -> bool:
    """Return whether the program has a wait for the best time."""
    return any(isinstance(step, WaitStep) and step.wait.until == BEST_TIME for step in program.steps.values())


def best_hours(
    session: Session, programs: Mapping[int, Program], enrollments: Sequence[Enrollment], people: Mapping[int, Who], now: datetime
) -> dict[int, dict[str, Hours]]:
    """Return, by enrollment id, hour -> opens and clicks: "contact" their own, "segment" those of all segments they are in together.

    Where the segments say too little, "segment" is what their partner's contacts do, else what the brand's do. Counted are the first open
    of each message and the first click of each link by a person, over the last REMEMBERED, on each one's own clock. What rests on too few
    is left out, and so is everybody in a version that never asks: then nothing is read.
    """
    asking = [row for row in enrollments if asks_best_hours(programs[row.version_id])]
    if not asking:
        return {}
    known = {id_of(row): people[id_of(row)] for row in asking}
    clocks = {id_of(who.contact): zone_for(who.contact.zone, who.partner.zone, who.brand.zone) for who in known.values()}
    own, alike, shared = _own(session, clocks, now), _of_segments(session, clocks, now), _shared(session, asking, now)
    return {id_of(row): _known_of(row, own, alike, shared) for row in asking}


def _known_of(
    row: Enrollment, own: Mapping[int, Hours], alike: Mapping[int, Hours], shared: Mapping[tuple[int, int], Hours]
) -> dict[str, Hours]:
    others = alike.get(row.contact_id) or shared.get((row.brand_id, row.partner_id)) or shared.get((row.brand_id, WHOLE_BRAND))
    found = {"contact": own.get(row.contact_id), "segment": others}
    return {whose: hours for whose, hours in found.items() if hours}


def _own(session: Session, clocks: Mapping[int, ZoneInfo], now: datetime) -> dict[int, Hours]:
    engaged = select(col(Message.contact_id), col(Message.opened_at), col(Message.clicks)).where(
        col(Message.contact_id).in_(list(clocks)), col(Message.created_at) >= now - REMEMBERED, col(Message.opened_at).is_not(None)
    )
    counts: dict[int, Counter[int]] = {}
    for contact_id, opened_at, clicks in session.execute(engaged).all():
        times = [opened_at, *(datetime.fromisoformat(at) for at in clicks.values())]
        counts.setdefault(contact_id, Counter()).update(at.astimezone(clocks[contact_id]).hour for at in times)
    return {contact_id: _weights(hours) for contact_id, hours in counts.items() if hours.total() >= LEAST_OWN}


def _of_segments(session: Session, contact_ids: Iterable[int], now: datetime) -> dict[int, Hours]:
    """Return the engaged hours of the contacts in the same segments, by contact."""
    inside = _segments(session, contact_ids)
    row = SegmentHour
    of_them = (
        select(col(row.segment_id), col(row.hour), func.sum(col(row.count)))
        .where(
            among(session, col(row.segment_id), {segment_id for ids in inside.values() for segment_id in ids}),
            col(row.month) >= _month(now - REMEMBERED),
        )
        .group_by(col(row.segment_id), col(row.hour))
    )
    hours: dict[int, Counter[int]] = {}
    for segment_id, hour, count in session.execute(of_them).all() if inside else ():
        hours.setdefault(segment_id, Counter())[hour] = int(count)
    together = {contact_id: sum((hours.get(each, Counter()) for each in ids), Counter()) for contact_id, ids in inside.items()}
    return {contact_id: _weights(counted) for contact_id, counted in together.items() if counted.total() >= LEAST_SHARED}


def _segments(session: Session, contact_ids: Iterable[int]) -> dict[int, list[int]]:
    """Return the segments that each contact is in; those in none are absent."""
    member = SegmentMember
    rows = select(col(member.contact_id), col(member.segment_id)).where(
        among(session, col(member.contact_id), contact_ids), col(member.left_at).is_(None)
    )
    inside: dict[int, list[int]] = {}
    for contact_id, segment_id in session.execute(rows).all():
        inside.setdefault(contact_id, []).append(segment_id)
    return inside


def _shared(session: Session, asking: Sequence[Enrollment], now: datetime) -> dict[tuple[int, int], Hours]:
    row = EngagedHour
    of_them = (
        select(col(row.brand_id), col(row.partner_id), col(row.hour), func.sum(col(row.count)))
        .where(
            col(row.brand_id).in_({each.brand_id for each in asking}),
            col(row.partner_id).in_({WHOLE_BRAND, *(each.partner_id for each in asking)}),
            col(row.month) >= _month(now - REMEMBERED),
        )
        .group_by(col(row.brand_id), col(row.partner_id), col(row.hour))
    )
    counts: dict[tuple[int, int], Counter[int]] = {}
    for brand_id, partner_id, hour, count in session.execute(of_them).all():
        counts.setdefault((brand_id, partner_id), Counter())[hour] = int(count)
    return {whose: _weights(hours) for whose, hours in counts.items() if hours.total() >= LEAST_SHARED}


def _weights(hours: Mapping[int, int]) -> Hours:
    return {hour: float(count) for hour, count in hours.items()}


def _month(at: datetime) -> date:
    return at.date().replace(day=1)


# --- the roll-up ------------------------------------------------------------------------------------------------------------------------


def add_hours(session: Session, rows: Iterable[Any]) -> None:
    """Add the first opens and clicks by people among these events to the hours of their segments, partner and brand, each event once."""
    counted = (EventKind.opened, EventKind.clicked)
    engaged = [row for row in rows if row.first and row.kind in counted and row.verdict is not Verdict.machine]
    if not engaged:
        return
    clocks = _clocks(session, {row.contact_id for row in engaged})
    segments = _segments(session, {row.contact_id for row in engaged})
    hours: Counter[_Key] = Counter()
    alike: Counter[_SegmentKey] = Counter()
    for row in engaged:
        hour = row.at.astimezone(clocks[row.contact_id]).hour
        alike.update(_SegmentKey(segment_id, _month(row.at), hour) for segment_id in segments.get(row.contact_id, ()))
        for partner_id in (row.of_partner_id, WHOLE_BRAND):
            hours[_Key(row.brand_id, partner_id, _month(row.at), hour)] += 1
    _add(session, EngagedHour, hours)
    _add(session, SegmentHour, alike)


def _clocks(session: Session, contact_ids: Iterable[int]) -> dict[int, ZoneInfo]:
    zones = (
        select(col(Contact.id), col(Contact.zone), col(Partner.zone), col(Brand.zone))
        .join(Partner, col(Partner.id) == col(Contact.partner_id))
        .join(Brand, col(Brand.id) == col(Contact.brand_id))
        .where(among(session, col(Contact.id), contact_ids))
    )
    return {contact_id: zone_for(*names) for contact_id, *names in session.execute(zones).all()}


def _add(session: Session, table: type[EngagedHour] | type[SegmentHour], hours: Mapping[Any, int]) -> None:
    if not hours:
        return
    insert, keys = insert_into(session, table), sorted(hours)
    added = insert.on_conflict_do_update(index_elements=list(keys[0]._fields), set_={"count": col(table.count) + insert.excluded.count})
    session.connection().execute(added, [{**key._asdict(), "count": hours[key]} for key in keys])
