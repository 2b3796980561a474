"""Entering a journey: who may, how many at a time, and the one place where enrollments are made, whatever brought the contact here."""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import insert, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from distmark.campaigns.attributes import campaign_attributes
from distmark.campaigns.table import Campaign, Member, MemberStatus
from distmark.compliance.service import require_sendable
from distmark.contacts import service as contacts
from distmark.contacts.attributes import attributes_of, zones_of
from distmark.contacts.fields import typed
from distmark.contacts.many import among
from distmark.contacts.segments import keys_of
from distmark.contacts.table import Contact
from distmark.enrollments.model import CameBy, EnrollmentStatus, EnrolResult, EnrolVerdict, MoveKind
from distmark.enrollments.restraints import drained_among, hold_entrants
from distmark.enrollments.rows import rows_of
from distmark.enrollments.table import Enrollment, Entrance, EntryCount, Move
from distmark.journeys.definition import JourneyDefinition, Kind, all_steps
from distmark.journeys.entry import Admission, Reentry, admit
from distmark.journeys.expressions import Expression, ExpressionError, namespace
from distmark.journeys.model import Facts
from distmark.journeys.program import Program
from distmark.journeys.service import newest_registered, program_of
from distmark.journeys.table import Journey, JourneyVersion
from distmark.journeys.times import zone_for
from distmark.journeys.words import Cap
from distmark.partners.attributes import brand_attributes, partner_attributes
from distmark.partners.table import Brand, Partner

NO_CAP = 10_000_000


@dataclass(frozen=True, slots=True)
class Door:
    """What people enter through: a version of a brand's journey, by a campaign or without one."""

    brand_id: int
    journey_id: int
    version: JourneyVersion
    program: Program
    campaign: Campaign | None = None
    contacts_per_run: int = 1

    @property
    def definition(self) -> JourneyDefinition:
        return self.program.definition

    @property
    def campaign_id(self) -> int | None:
        return self.campaign.id if self.campaign else None

    @property
    def any_time(self) -> bool:
        """Whether a contact may be in the journey several times at once."""
        return self.definition.entry.reentry is Reentry.any_time


@dataclass(frozen=True, slots=True)
class Entrant:
    """A contact who is to enter, with the journey's own data for them. `key` names the occasion, should they have to wait outside.

    `due_at` is when the journey begins for them, when that is not the moment of arrival.
    """

    contact: Contact
    data: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """What brings contacts in, and when. `detail` goes into each one's timeline; `entered_at` when left out is `now`.

    Those who waited outside (`waited`) go before those who come now.
    """

    by: CameBy
    now: datetime
    detail: Mapping[str, Any] = field(default_factory=dict)
    entered_at: datetime | None = None
    waited: bool = False


@dataclass(frozen=True, slots=True)
class _Past:
    """What this person's earlier enrollments in the journey mean for entering now."""

    live_partner_id: int | None
    ended_at: datetime | None


def open_door(session: Session, journey: Journey, campaign: Campaign | None = None, contacts_per_run: int = 1) -> Door | None:
    """Return the way into the journey's newest registered version; None when it has none.

    Refused when the version's text is no longer what was approved.
    """
    version = newest_registered(session, journey.id or 0)
    if version is None:
        return None
    require_sendable(version)
    per_run = campaign.contacts_per_run if campaign else contacts_per_run
    return Door(journey.brand_id, journey.id or 0, version, program_of(session, version.id or 0), campaign, per_run)


def enter(session: Session, door: Door, entrants: Sequence[Entrant], arrival: Arrival) -> list[EnrolResult]:
    """Enter each contact who may, and return one result per entrant, in their order; no contact may be among them twice.

    Only rows are written: the flow run of each is created afterwards, from these rows. Whoever finds the journey's cap reached waits
    outside and enters later, the oldest first.
    """
    verdicts = judge(session, door, entrants, arrival.now)
    admitted = [entrant for entrant in entrants if verdicts[_id(entrant.contact)].verdict is EnrolVerdict.enrolled]
    entering, outside = _within_cap(session, door, admitted, arrival)
    entered = _insert(session, door, entering, arrival)
    _return_room(session, door, len(entering) - len(entered), arrival.now)
    _wait_outside(session, door, outside, arrival)
    waiting = {_id(entrant.contact) for entrant in outside}
    return [_settled(verdicts[_id(entrant.contact)], entered, waiting) for entrant in entrants]


def _settled(result: EnrolResult, entered: Mapping[int, int], waiting: Collection[int]) -> EnrolResult:
    if result.verdict is not EnrolVerdict.enrolled:
        return result
    if result.contact_id in waiting:
        return replace(result, verdict=EnrolVerdict.queued)
    if result.contact_id in entered:
        return replace(result, enrollment_id=entered[result.contact_id])
    return replace(result, verdict=EnrolVerdict.already_in)


def _id(row: Contact | Enrollment | Member) -> int:
    if row.id is None:
        raise ValueError(f"{type(row).__name__} has not been stored yet.")
    return row.id


# --- who may ----------------------------------------------------------------------------------------------------------------------------


def judge(session: Session, door: Door, entrants: Sequence[Entrant], now: datetime) -> dict[int, EnrolResult]:
    """Decide for each contact whether they may enter now: address, suppression, consent, re-entry and filter, in this order of telling.

    How many may is another question: the cap is not looked at.
    """
    verdicts = _verdicts(session, door, [entrant.contact for entrant in entrants], now)
    rule = door.definition.entry.filter
    if rule is None:
        return verdicts
    admitted = [entrant for entrant in entrants if verdicts[_id(entrant.contact)].verdict is EnrolVerdict.enrolled]
    for entrant, facts, zone in facts_of(session, door, admitted, now):
        if not _passes(rule, facts, now, zone):
            verdicts[_id(entrant.contact)] = EnrolResult(_id(entrant.contact), EnrolVerdict.not_matching)
    return verdicts


def _passes(rule: Expression, facts: Facts, now: datetime, zone: ZoneInfo) -> bool:
    try:
        return rule.holds(namespace(facts, now, zone))
    except ExpressionError:
        return False  # whose data the filter cannot read does not enter by it, and keeps nobody else out


def facts_of(session: Session, door: Door, entrants: Sequence[Entrant], now: datetime) -> Iterable[tuple[Entrant, Facts, ZoneInfo]]:
    """Yield each entrant with what an entry's conditions may look at: data only, since nothing was sent and nothing happened here yet."""
    people = [entrant.contact for entrant in entrants]
    if not people:
        return
    segments, zones = keys_of(session, people, now), zones_of(session, people)
    theirs = select(Partner).where(among(session, col(Partner.id), {contact.partner_id for contact in people}))
    partners = {row.id: partner_attributes(row) for row in session.exec(theirs)}
    brand, campaign = brand_attributes(session.get_one(Brand, door.brand_id)), campaign_attributes(door.campaign)
    for entrant in entrants:
        facts = Facts(
            contact=attributes_of(entrant.contact, door.definition.contact_fields),
            journey=typed(_frozen(door.definition, entrant), door.definition.journey_fields),
            partner=partners[entrant.contact.partner_id],
            campaign=campaign,
            brand=brand,
            segments=segments[_id(entrant.contact)],
            entered_at=now,
        )
        yield entrant, facts, zones[_id(entrant.contact)]


def first_channel(definition: JourneyDefinition) -> str:
    """Return the channel of the journey's first send, which a contact must have an address for; "" when it sends nothing."""
    for step in all_steps(definition.steps):
        if step.kind == "send":
            return str(getattr(step, "send", "email"))
    return ""


def address_of(contact: Contact, channel: str) -> str | None:
    """Return where `channel` reaches this contact, or None."""
    return {"email": contact.email, "sms": contact.phone}.get(channel)


def _verdicts(session: Session, door: Door, people: Sequence[Contact], now: datetime) -> dict[int, EnrolResult]:
    definition, channel = door.definition, first_channel(door.definition)
    past = _past(session, door.journey_id, [contact.person_key for contact in people])
    consents = contacts.consent_state(session, [_id(contact) for contact in people], channel) if channel else {}
    addresses = [address for contact in people if (address := address_of(contact, channel))]
    stopped = contacts.suppressed(session, door.brand_id, channel, addresses, definition.kind is Kind.marketing) if channel else set()
    zones = zones_of(session, [contact for contact in people if contact.person_key in past])
    drained = drained_among(session, door.brand_id, door.journey_id, door.campaign_id, {_id(each): each.partner_id for each in people})
    verdicts: dict[int, EnrolResult] = {}
    seen: set[str] = set()
    for contact in people:
        verdict = _reachable(contact, channel, definition, stopped, consents.get(_id(contact)))
        before = past.get(contact.person_key)
        if verdict is EnrolVerdict.enrolled and before is not None:
            verdicts[_id(contact)] = _reentry(contact, before, definition, now, zones[_id(contact)])
        elif verdict is EnrolVerdict.enrolled and contact.person_key in seen and not door.any_time:
            verdicts[_id(contact)] = EnrolResult(_id(contact), EnrolVerdict.already_in)
        else:
            verdicts[_id(contact)] = EnrolResult(_id(contact), verdict)
        if verdicts[_id(contact)].verdict is EnrolVerdict.enrolled and _id(contact) in drained:
            verdicts[_id(contact)] = EnrolResult(_id(contact), EnrolVerdict.draining)
        if verdicts[_id(contact)].verdict is EnrolVerdict.enrolled:
            seen.add(contact.person_key)
    return _with_partners_named(session, verdicts, people, past)


def _reachable(contact: Contact, channel: str, definition: JourneyDefinition, stopped: set[str], consent: bool | None) -> EnrolVerdict:
    address = address_of(contact, channel)
    if channel and not address:
        return EnrolVerdict.no_address
    if address and contacts.address_hash(contact.brand_id, address) in stopped:
        return EnrolVerdict.suppressed
    if consent is False or (consent is None and definition.kind is Kind.marketing and channel):
        return EnrolVerdict.no_consent
    return EnrolVerdict.enrolled


def _reentry(contact: Contact, past: _Past, definition: JourneyDefinition, now: datetime, zone: ZoneInfo) -> EnrolResult:
    answer = admit(definition.entry, inside=past.live_partner_id is not None, last_left_at=past.ended_at, now=now, zone=zone)
    if answer.admission is Admission.inside:
        mine = past.live_partner_id == contact.partner_id
        return EnrolResult(_id(contact), EnrolVerdict.already_in if mine else EnrolVerdict.other_partner)
    verdict = {
        Admission.admitted: EnrolVerdict.enrolled,
        Admission.been_before: EnrolVerdict.once_only,
        Admission.cooling_down: EnrolVerdict.too_soon,
    }[answer.admission]
    return EnrolResult(_id(contact), verdict, until=answer.again_at)


def _with_partners_named(
    session: Session, verdicts: dict[int, EnrolResult], people: Sequence[Contact], past: Mapping[str, _Past]
) -> dict[int, EnrolResult]:
    taken = {
        _id(contact): past[contact.person_key].live_partner_id
        for contact in people
        if verdicts[_id(contact)].verdict is EnrolVerdict.other_partner
    }
    if taken:
        rows = session.exec(select(Partner.id, Partner.name).where(col(Partner.id).in_(set(taken.values()))))
        names = dict(rows.all())
        verdicts |= {
            contact_id: replace(verdicts[contact_id], partner_name=names.get(partner_id, "")) for contact_id, partner_id in taken.items()
        }
    return verdicts


def _past(session: Session, journey_id: int, person_keys: Sequence[str]) -> dict[str, _Past]:
    past: dict[str, _Past] = {}
    rows = session.exec(
        select(Enrollment.person_key, Enrollment.partner_id, Enrollment.ended_at)
        .where(Enrollment.journey_id == journey_id, among(session, col(Enrollment.person_key), dict.fromkeys(person_keys)))
        .order_by(col(Enrollment.id))
    )
    for person_key, partner_id, ended_at in rows:
        before = past.get(person_key)
        live = partner_id if ended_at is None else (before.live_partner_id if before else None)
        past[person_key] = _Past(live, ended_at or (before.ended_at if before else None))
    return past


# --- how many ---------------------------------------------------------------------------------------------------------------------------


def _within_cap(session: Session, door: Door, admitted: Sequence[Entrant], arrival: Arrival) -> tuple[Sequence[Entrant], Sequence[Entrant]]:
    """Return those who may enter now and those who must wait; the room they take is taken from the period's."""
    room = take_room(session, door, len(admitted), arrival.now, waited=arrival.waited)
    return admitted[:room], admitted[room:]


def take_room(session: Session, door: Door, wanted: int, now: datetime, *, waited: bool = False) -> int:
    """Take room for up to `wanted` contacts in the present period of the journey's cap, and return for how many there was.

    While others wait outside there is none for those who come now.
    """
    cap = door.definition.entry.cap
    if not wanted or (cap is None and (waited or not _anyone_outside(session, door))):
        return wanted
    if cap is None:
        return 0
    count = _locked_count(session, door, cap, now)
    if not waited and _anyone_outside(session, door):
        return 0
    room = max(0, min(wanted, cap.count - count.entered))
    count.entered += room
    session.add(count)
    session.flush()
    return room


def room_left(session: Session, door: Door, now: datetime) -> int:
    """Return for how many the present period of the journey's cap has room."""
    cap = door.definition.entry.cap
    if cap is None:
        return NO_CAP
    entered = select(EntryCount.entered).where(
        EntryCount.journey_id == door.journey_id, EntryCount.period == _period(session, door, cap, now)
    )
    return max(0, cap.count - (session.exec(entered).first() or 0))


def _period(session: Session, door: Door, cap: Cap, now: datetime) -> str:
    zone = zone_for(session.exec(select(Brand.zone).where(Brand.id == door.brand_id)).one())
    return f"{cap.period} {period_start(cap, now.astimezone(zone)).isoformat()}"


def _return_room(session: Session, door: Door, unused: int, now: datetime) -> None:
    cap = door.definition.entry.cap
    if unused > 0 and cap is not None:
        count = _locked_count(session, door, cap, now)
        count.entered -= unused
        session.add(count)
        session.flush()


def _locked_count(session: Session, door: Door, cap: Cap, now: datetime) -> EntryCount:
    """Return the count of the present period, locked: whoever else enters this journey waits, so the cap holds exactly."""
    period = _period(session, door, cap, now)
    row = {"journey_id": door.journey_id, "period": period, "entered": 0}
    session.execute(_dialect(session).insert(EntryCount).values(row).on_conflict_do_nothing())
    count = select(EntryCount).where(EntryCount.journey_id == door.journey_id, EntryCount.period == period)
    return session.exec(count.with_for_update().execution_options(populate_existing=True)).one()


def period_start(cap: Cap, local: datetime) -> date | datetime:
    """Return when the cap's present period began on the brand's clock: the hour, the day, Monday, or the first of the month."""
    if cap.period == "hour":
        return local.replace(minute=0, second=0, microsecond=0)
    day = local.date()
    return {"day": day, "week": day - timedelta(days=day.weekday()), "month": day.replace(day=1)}[cap.period]


def _anyone_outside(session: Session, door: Door) -> bool:
    waiting = select(Entrance.id).where(Entrance.journey_id == door.journey_id, col(Entrance.settled_at).is_(None))
    return session.exec(waiting.limit(1)).first() is not None


def _wait_outside(session: Session, door: Door, entrants: Sequence[Entrant], arrival: Arrival) -> None:
    """Write down who waits. Who waits already does not wait twice, unless the journey lets a contact in several times."""
    if not entrants:
        return
    keys = {f"{door.journey_id}:{entrant.contact.person_key}" for entrant in entrants} if not door.any_time else set()
    known = {row.waiting_key for row in session.exec(select(Entrance).where(among(session, col(Entrance.waiting_key), keys)))}
    rows: list[dict[str, Any]] = []
    for entrant in entrants:
        waiting_key = None if door.any_time else f"{door.journey_id}:{entrant.contact.person_key}"
        if waiting_key in known:
            continue
        rows.append(
            {
                "brand_id": door.brand_id,
                "journey_id": door.journey_id,
                "contact_id": _id(entrant.contact),
                "campaign_id": door.campaign_id,
                "source": arrival.by.value,
                "key": entrant.key or f"{arrival.by}:{arrival.now.isoformat()}",
                "waiting_key": waiting_key,
                "data": dict(entrant.data),
                "asked_at": arrival.now,
                "settled_at": None,
                "verdict": "",
            }
        )
    if rows:
        statement = _dialect(session).insert(Entrance)
        # A dated occasion was claimed by its row before: now that row waits.
        again = {name: statement.excluded[name] for name in ("waiting_key", "settled_at", "verdict", "data")}
        session.execute(statement.on_conflict_do_update(index_elements=["journey_id", "contact_id", "key"], set_=again), rows)


# --- the rows ---------------------------------------------------------------------------------------------------------------------------


def _insert(session: Session, door: Door, entrants: Sequence[Entrant], arrival: Arrival) -> dict[int, int]:
    """Insert one enrollment per entrant; a live one that another transaction put there first is left alone. Contact -> enrollment."""
    entered: dict[int, int] = {}
    members = _members(session, door, [_id(entrant.contact) for entrant in entrants])
    run_keys = _run_keys(len(entrants), door.contacts_per_run)
    # Rows of one statement share the time at which they are due; nearly always that is all of them.
    by_time: dict[datetime, list[dict[str, Any]]] = {}
    for entrant, run_key in zip(entrants, run_keys, strict=True):
        by_time.setdefault(entrant.due_at or arrival.now, []).append(_own(door, entrant, members, run_key))
    for due_at, rows in by_time.items():
        entered.update(_insert_due(session, _shared(door, arrival, due_at), rows))
    _insert_moves(session, list(entered.values()), arrival)
    _approve_members(session, door, entered, arrival.now)
    hold_entrants(session, door.brand_id, list(entered.values()), arrival.now)
    return entered


OWN = ("member_id", "partner_id", "contact_id", "person_key", "live_key", "data", "run_key")


def _own(door: Door, entrant: Entrant, members: Mapping[int, int], run_key: str) -> dict[str, Any]:
    contact = entrant.contact
    return {
        "member_id": members.get(_id(contact)),
        "partner_id": contact.partner_id,
        "contact_id": _id(contact),
        "person_key": contact.person_key,
        "live_key": None if door.any_time else f"{door.journey_id}:{contact.person_key}",
        "data": _frozen(door.definition, entrant),
        "run_key": run_key,
    }


def _shared(door: Door, arrival: Arrival, due_at: datetime) -> dict[str, Any]:
    return {
        "brand_id": door.brand_id,
        "journey_id": door.journey_id,
        "version_id": door.version.id,
        "campaign_id": door.campaign_id,
        "status": EnrollmentStatus.waiting,
        "visits": {},
        "due_at": due_at,
        "why": "time",
        "rules": [],
        "answers": {},
        "entered_at": arrival.entered_at or arrival.now,
        "reason": "",
        "queue": "default",
        "wakes": 0,
        "tries": 0,
        "error": "",
    }


def _insert_due(session: Session, shared: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    table = Enrollment.__table__  # type: ignore[attr-defined]
    statement = _dialect(session).insert(table).from_select([*shared, *OWN], rows_of(session, table, shared, rows, OWN))
    statement = statement.on_conflict_do_nothing(index_elements=["live_key"])
    returned = session.execute(statement.returning(table.c.contact_id, table.c.id))
    return {row[0]: row[1] for row in returned}


def _frozen(definition: JourneyDefinition, entrant: Entrant) -> dict[str, Any]:
    attributes = entrant.contact.attributes
    return {name: attributes[name] for name in definition.journey_fields if name in attributes} | dict(entrant.data)


def _insert_moves(session: Session, enrollment_ids: Collection[int], arrival: Arrival) -> None:
    if not enrollment_ids:
        return
    shared = {
        "at": arrival.entered_at or arrival.now,
        "kind": MoveKind.entered,
        "step_id": "",
        "visit": 1,
        "detail": {"by": arrival.by.value, **arrival.detail},
        "rolled": False,
    }
    own, table = ("enrollment_id",), Move.__table__  # type: ignore[attr-defined]
    rows = [{"enrollment_id": enrollment_id} for enrollment_id in enrollment_ids]
    session.execute(insert(table).from_select([*shared, *own], rows_of(session, table, shared, rows, own)))


def _run_keys(count: int, per_run: int) -> list[str]:
    keys: list[str] = []
    while len(keys) < count:
        keys.extend([uuid.uuid4().hex] * min(max(per_run, 1), count - len(keys)))
    return keys


def _members(session: Session, door: Door, contact_ids: list[int]) -> dict[int, int]:
    if door.campaign_id is None:
        return {}
    of_campaign = select(Member.contact_id, Member.id).where(Member.campaign_id == door.campaign_id)
    rows = session.exec(of_campaign.where(among(session, col(Member.contact_id), contact_ids)))
    return {contact_id: member_id for contact_id, member_id in rows if member_id is not None}


def _approve_members(session: Session, door: Door, entered: Mapping[int, int], now: datetime) -> None:
    if door.campaign_id is None:
        return
    mine = update(Member).where(col(Member.campaign_id) == door.campaign_id, among(session, col(Member.contact_id), entered))
    session.execute(mine.values(status=MemberStatus.approved, decided_at=now, error=""))


def _dialect(session: Session) -> Any:
    return sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
