"""What brings contacts into journeys without a person: events, segments, dates, and room for those who wait outside.

Each function does one part in the caller's unit of work and says how much that was; the entries flow repeats them until nothing is left.
"""

import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import delete, update
from sqlalchemy import select as select_columns
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from distmark.campaigns.table import Campaign, CampaignStatus
from distmark.clock import Clock
from distmark.compliance.service import record
from distmark.contacts import segments
from distmark.contacts.attributes import attributes_of, zones_of
from distmark.contacts.fields import typed
from distmark.contacts.many import among
from distmark.contacts.table import Contact
from distmark.enrollments.entries import Arrival, Door, Entrant, enter, facts_of, open_door, room_left
from distmark.enrollments.model import CameBy, EnrolResult, EnrolVerdict
from distmark.enrollments.news import tell
from distmark.enrollments.occasions import day_of, next_occasion
from distmark.enrollments.table import Entrance, EntryDate, EntryPlan
from distmark.errors import Refused
from distmark.journeys.definition import JourneyDefinition
from distmark.journeys.entry import Entry, EntrySource
from distmark.journeys.expressions import Expression, ExpressionError, namespace
from distmark.journeys.model import EventFact, Facts
from distmark.journeys.service import program_of
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.journeys.times import Duration, zone_for
from distmark.partners.table import Brand

BATCH = 500
AFTER = timedelta(microseconds=1)
ONE_DAY = timedelta(days=1)
PLANNED = (EntrySource.date, EntrySource.segment)

OPEN_KEPT = 4096
_known: dict[tuple[int, int, str, datetime], "Open"] = {}

log = logging.getLogger("distmark.enrollments")


@dataclass(frozen=True)
class Open:
    """A journey that takes contacts now, by its newest registered version."""

    journey_id: int
    brand_id: int
    version_id: int
    registered_at: datetime
    definition: JourneyDefinition

    @property
    def entry(self) -> Entry:
        return self.definition.entry

    @cached_property
    def rule(self) -> str:
        """The entry as written, as far as it decides who comes when. Equal texts mean the same comings."""
        entry = self.entry
        written = {name: str(value) for name in ("segment", "date", "offset", "at", "every") if (value := getattr(entry, name)) is not None}
        return json.dumps({"source": entry.source.value, **written}, ensure_ascii=False, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Happened:
    """An event just recorded of a contact. `key` names it among all."""

    contact: Contact
    event: EventFact
    key: str


def open_journeys(session: Session, brand_id: int | None = None) -> list[Open]:
    """Return the journeys (of one brand, or all) that take contacts now. One query: what they say is kept per process."""
    statement = (
        # Plain `select`: SQLModel's knows the types of at most four columns.
        select_columns(
            col(JourneyVersion.journey_id),
            col(Journey.brand_id),
            col(JourneyVersion.id),
            col(JourneyVersion.content_hash),
            col(JourneyVersion.registered_at),
        )
        .join(Journey, col(Journey.id) == col(JourneyVersion.journey_id))
        .where(col(JourneyVersion.status) == VersionStatus.registered, col(JourneyVersion.registered_at).is_not(None))
        .order_by(col(JourneyVersion.journey_id), col(JourneyVersion.number))
    )
    if brand_id is not None:
        statement = statement.where(col(Journey.brand_id) == brand_id)
    newest = {row[0]: row for row in session.execute(statement)}
    return [_opened(session, *row) for row in newest.values()]


def _opened(session: Session, journey_id: int, brand_id: int, version_id: int, content_hash: str, registered_at: datetime) -> Open:
    key = (journey_id, version_id, content_hash, registered_at)
    if key not in _known:
        if len(_known) >= OPEN_KEPT:
            _known.clear()
        _known[key] = Open(journey_id, brand_id, version_id, registered_at, program_of(session, version_id).definition)
    return _known[key]


def _door(session: Session, opened: Open, campaign: Campaign | None = None) -> Door | None:
    try:
        return open_door(session, session.get_one(Journey, opened.journey_id), campaign)
    except Refused as refusal:
        # A text that is not the approved one lets nobody in, and must not keep an event from being recorded.
        log.error("journey lets nobody in", extra={"journey_id": opened.journey_id, "reason": str(refusal)})
        return None


def _note(session: Session, door: Door, results: Iterable[EnrolResult], by: CameBy, now: datetime) -> int:
    entered = sum(result.verdict is EnrolVerdict.enrolled for result in results)
    if entered:
        content_hash = door.version.content_hash
        record(session, door.brand_id, None, "enrolled", "journey", door.journey_id, now, content_hash, count=entered, by=by.value)
    return entered


# --- by event ---------------------------------------------------------------------------------------------------------------------------


def enter_by_events(session: Session, brand_id: int, happened: Sequence[Happened], now: datetime) -> int:
    """Enter the contacts of these events into every journey of the brand that listens to them, and return how many entered.

    A contact enters for the first of their events that an entry's `where` takes; a journey that may be entered at any time, for each.
    The event that let a contact in counts as before the journey: no wait and no goal in it is met by it.
    """
    names = {each.event.name for each in happened}
    listening = [opened for opened in open_journeys(session, brand_id) if opened.entry.event in names]
    return sum(_enter_by_events(session, opened, happened, now) for opened in listening)


def _enter_by_events(session: Session, opened: Open, happened: Sequence[Happened], now: datetime) -> int:
    door = _door(session, opened)
    mine = [each for each in happened if each.event.name == opened.entry.event]
    entered = 0
    while door is not None and mine:
        by_contact: dict[int, Happened] = {}
        later = [each for each in mine if by_contact.setdefault(each.contact.id or 0, each) is not each]
        entrants = list(_of_events(session, door, list(by_contact.values()), now))
        latest = max((each.event.at for each in by_contact.values()), default=now)
        arrival = Arrival(CameBy.event, now, {"event": opened.entry.event}, entered_at=max(now, latest) + AFTER)
        entered += _note(session, door, enter(session, door, entrants, arrival), CameBy.event, now)
        mine = later
    return entered


def _of_events(session: Session, door: Door, happened: Sequence[Happened], now: datetime) -> Iterable[Entrant]:
    """Yield those whose event the entry takes, with what the event says for the journey's own data."""
    events = {each.contact.id: each.event for each in happened}
    entrants = [Entrant(each.contact, _data(door.definition, each.event), each.key) for each in happened]
    for entrant, facts, zone in facts_of(session, door, entrants, now):
        if _counts(door.definition.entry.where, facts, now, zone, events[entrant.contact.id]):
            yield entrant


def _counts(where: Expression | None, facts: Facts, now: datetime, zone: ZoneInfo, event: EventFact) -> bool:
    try:
        return where is None or where.holds(namespace(facts, now, zone, event))
    except ExpressionError:
        return False  # an event with odd data is recorded, and lets nobody in


def _data(definition: JourneyDefinition, event: EventFact) -> dict[str, Any]:
    fields = definition.journey_fields
    said = typed({name: value for name, value in event.data.items() if name in fields}, fields)
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in said.items() if value is not None}


# --- plans: how far dated and segment journeys have come ---------------------------------------------------------------------------------


def plan_journeys(session: Session, now: datetime) -> int:
    """Give every journey that takes contacts by date or segment a plan that says what its newest version says; return how many changed.

    A changed rule looks at everybody anew, from the first contact on. A journey that takes nobody any more loses its plan and its dates.
    """
    plans = {plan.journey_id: plan for plan in session.exec(select(EntryPlan))}
    planned = {opened.journey_id: opened for opened in open_journeys(session) if opened.entry.source in PLANNED}
    gone = plans.keys() - planned.keys()
    for journey_id in gone:
        session.execute(delete(EntryDate).where(col(EntryDate.journey_id) == journey_id))
        session.execute(delete(EntryPlan).where(col(EntryPlan.journey_id) == journey_id))
    new = [opened for journey_id, opened in planned.items() if journey_id not in plans]
    if new:
        rows = [{"journey_id": each.journey_id, "brand_id": each.brand_id, **_begun(each)} for each in new]
        session.execute(_dialect(session).insert(EntryPlan).on_conflict_do_nothing(), rows)  # another run may be as quick
    changed = [opened for journey_id, opened in planned.items() if journey_id in plans and plans[journey_id].rule != opened.rule]
    for opened in changed:
        other_rule = update(EntryPlan).where(col(EntryPlan.journey_id) == opened.journey_id, col(EntryPlan.rule) != opened.rule)
        session.execute(other_rule.values(**_begun(opened)))
    return len(gone) + len(new) + len(changed)


def _begun(opened: Open) -> dict[str, Any]:
    """Return where the plan of a rule that is new begins: a date with the first contact, a segment with a reading that is due at once."""
    since, by_date = opened.registered_at, opened.entry.source is EntrySource.date
    told = {"version_id": opened.version_id, "rule": opened.rule, "since": since, "read_at": since}
    return {**told, "reached": 0 if by_date else None, "next_at": None if by_date else since}


def _plans(session: Session, source: EntrySource) -> list[tuple[EntryPlan, Open]]:
    opened = {each.journey_id: each for each in open_journeys(session) if each.entry.source is source}
    plans = session.exec(select(EntryPlan).order_by(col(EntryPlan.id)))
    return [(plan, opened[plan.journey_id]) for plan in plans if plan.journey_id in opened and plan.rule == opened[plan.journey_id].rule]


def _locked(session: Session, plan: EntryPlan) -> EntryPlan | None:
    """Return the plan locked, unless somebody else works by it just now."""
    mine = select(EntryPlan).where(EntryPlan.id == plan.id).with_for_update(skip_locked=True)
    return session.exec(mine.execution_options(populate_existing=True)).first()


# --- contacts that changed ---------------------------------------------------------------------------------------------------------------


def read_contacts(session: Session, now: datetime, limit: int = BATCH) -> int:
    """Look at the next contacts that changed, and return how many: their segments, their dates, and who waits for news of them."""
    changed = select(Contact).where(col(Contact.unread).is_(True)).order_by(col(Contact.id)).limit(limit)
    locked = changed.with_for_update(key_share=True, skip_locked=True).execution_options(populate_existing=True)
    contacts = list(session.exec(locked))
    if not contacts:
        return 0
    segments.keep(session, contacts, now)
    for plan, opened in _plans(session, EntrySource.date):
        mine = [each for each in contacts if each.brand_id == opened.brand_id and (plan.reached is None or (each.id or 0) <= plan.reached)]
        _schedule(session, plan, opened, mine, anew=False)
    for brand_id in {contact.brand_id for contact in contacts}:
        tell(session, brand_id, [contact.person_key for contact in contacts if contact.brand_id == brand_id], ["contact"], now)
    session.execute(update(Contact).where(among(session, col(Contact.id), [each.id or 0 for each in contacts])).values(unread=False))
    return len(contacts)


def all_read(session: Session, at: datetime) -> None:
    """Note that whoever had changed by `at` was looked at: dates that came due before need not be thought of again."""
    dated = [plan.id or 0 for plan, _ in _plans(session, EntrySource.date)]
    session.execute(update(EntryPlan).where(among(session, col(EntryPlan.id), dated), col(EntryPlan.read_at) < at).values(read_at=at))


# --- by date ----------------------------------------------------------------------------------------------------------------------------


def schedule_some(session: Session, limit: int = BATCH) -> int | None:
    """Write down when the next contacts of a new dated journey come due, and return how many; None when all journeys have done so."""
    for each, opened in _plans(session, EntrySource.date):
        plan = _locked(session, each) if each.reached is not None else None
        if plan is None or plan.reached is None:
            continue
        everybody = select(Contact).where(Contact.brand_id == plan.brand_id, col(Contact.id) > plan.reached).order_by(col(Contact.id))
        contacts = list(session.exec(everybody.limit(limit).with_for_update(key_share=True).execution_options(populate_existing=True)))
        _schedule(session, plan, opened, contacts, anew=True)
        plan.reached = contacts[-1].id if len(contacts) == limit else None
        session.add(plan)
        session.flush()
        return len(contacts)
    return None


def _schedule(session: Session, plan: EntryPlan, opened: Open, contacts: Sequence[Contact], *, anew: bool) -> None:
    """Write when each contact comes due next, or that they never do. A date that stands is not touched, unless all is to be done `anew`."""
    if not contacts:
        return
    ids, zones = [contact.id or 0 for contact in contacts], zones_of(session, contacts)
    mine = select(EntryDate).where(EntryDate.journey_id == plan.journey_id, among(session, col(EntryDate.contact_id), ids))
    known = {row.contact_id: row for row in session.exec(mine)}
    rows: list[dict[str, Any]] = []
    gone: list[int] = []
    for contact in contacts:
        zone, row = zones[contact.id or 0], known.get(contact.id or 0)
        day = _day(opened, contact, zone)
        if row is not None and not anew and (row.day, row.zone) == (day, zone.key):
            continue
        occasion = next_occasion(opened.entry, day, zone, _since(plan, contact, anew=anew)) if day is not None else None
        if day is not None and occasion is not None:
            place = {"journey_id": plan.journey_id, "contact_id": contact.id, "day": day, "zone": zone.key}
            rows.append({**place, "occasion": occasion.day, "due_at": occasion.due_at})
        elif row is not None:
            gone.append(row.id or 0)
    if rows:
        statement = _dialect(session).insert(EntryDate)
        again = {name: statement.excluded[name] for name in ("day", "zone", "occasion", "due_at")}
        session.execute(statement.on_conflict_do_update(index_elements=["journey_id", "contact_id"], set_=again), rows)
    if gone:
        session.execute(delete(EntryDate).where(among(session, col(EntryDate.id), gone)))


def _day(opened: Open, contact: Contact, zone: ZoneInfo) -> Any:
    if contact.erased_at is not None:
        return None
    return day_of(opened.entry, attributes_of(contact, opened.definition.contact_fields), zone)


def _since(plan: EntryPlan, contact: Contact, *, anew: bool) -> datetime:
    """Return from when on a date of this contact counts: what came due before we knew it, or before the journey took anybody, is over.

    A contact may change several times before it is looked at, so one that just changed counts from when all changes had been seen.
    """
    return max(plan.since, contact.created_at, plan.since if anew else min(contact.updated_at, plan.read_at))


def enter_by_dates(session: Session, clock: Clock, limit: int = BATCH) -> int:
    """Enter those whose dates are due, the longest due first, each once for each occasion; return how many dates were looked at."""
    now = clock.now()
    due = set(session.exec(select(EntryDate.journey_id).where(col(EntryDate.due_at) <= now).distinct()))
    plans = [each for each in _plans(session, EntrySource.date) if each[0].journey_id in due] if due else []
    return sum(_enter_due(session, plan, opened, clock, now, limit) for plan, opened in plans)


def _enter_due(session: Session, plan: EntryPlan, opened: Open, clock: Clock, now: datetime, limit: int) -> int:
    door = _door(session, opened)
    if door is None:
        return 0
    mine = select(EntryDate).where(EntryDate.journey_id == plan.journey_id, col(EntryDate.due_at) <= now)
    first = mine.order_by(col(EntryDate.due_at), col(EntryDate.id)).limit(limit).with_for_update(skip_locked=True)
    rows = list(session.exec(first.execution_options(populate_existing=True)))
    people = _people(session, [row.contact_id for row in rows])
    zones = zones_of(session, list(people.values()))
    due = _still_due(session, plan, opened, rows, people, zones)
    entrants = [Entrant(people[row.contact_id], key=f"date:{row.occasion.isoformat()}", due_at=clock.effective(row.due_at)) for row in due]
    _enter_once(session, door, entrants, Arrival(CameBy.date, now, {"date": str(opened.entry.date)}))
    for row in due:
        following = next_occasion(opened.entry, row.day, zones[row.contact_id], row.due_at, strictly=True)
        if following is None:
            session.delete(row)
        else:
            row.occasion, row.due_at = following.day, following.due_at
            session.add(row)
    session.flush()
    return len(rows)


def _still_due(
    session: Session,
    plan: EntryPlan,
    opened: Open,
    rows: Sequence[EntryDate],
    people: Mapping[int, Contact],
    zones: Mapping[int, ZoneInfo],
) -> list[EntryDate]:
    """Return the rows that say what contact and journey say now; the others are written anew, since either changed a moment ago."""
    due: list[EntryDate] = []
    for row in rows:
        contact = people.get(row.contact_id)
        of_earlier_rule = plan.reached is not None and row.contact_id > plan.reached and row.due_at > plan.since
        if contact is None:
            session.delete(row)
        elif of_earlier_rule:
            _schedule(session, plan, opened, [contact], anew=True)
        elif (row.day, row.zone) != (_day(opened, contact, zones[row.contact_id]), zones[row.contact_id].key):
            _schedule(session, plan, opened, [contact], anew=False)
        else:
            due.append(row)
    return due


def _enter_once(session: Session, door: Door, entrants: Sequence[Entrant], arrival: Arrival) -> int:
    """Enter those whose occasion was not used before, and keep what became of each; return how many entered."""
    rows = [
        {
            "brand_id": door.brand_id,
            "journey_id": door.journey_id,
            "contact_id": entrant.contact.id,
            "campaign_id": None,
            "source": arrival.by.value,
            "key": entrant.key,
            "waiting_key": None,
            "data": dict(entrant.data),
            "asked_at": arrival.now,
            "settled_at": arrival.now,
            "verdict": "",
        }
        for entrant in entrants
    ]
    if not rows:
        return 0
    claim = _dialect(session).insert(Entrance).on_conflict_do_nothing().returning(col(Entrance.contact_id), col(Entrance.id))
    claimed = {row[0]: row[1] for row in session.execute(claim, rows)}
    mine = [entrant for entrant in entrants if entrant.contact.id in claimed]
    results = enter(session, door, mine, arrival)
    _settle(session, [(claimed[result.contact_id], result) for result in results], arrival.now)
    return _note(session, door, results, arrival.by, arrival.now)


def _settle(session: Session, settled: Sequence[tuple[int, EnrolResult]], now: datetime) -> None:
    """Write what became of each entrance; those who still wait are left waiting."""
    values = [
        {"id": row_id, "settled_at": now, "waiting_key": None, "verdict": result.verdict.value, "enrollment_id": result.enrollment_id}
        for row_id, result in settled
        if result.verdict is not EnrolVerdict.queued
    ]
    if values:
        session.execute(update(Entrance), values)


def _people(session: Session, contact_ids: Collection[int]) -> dict[int, Contact]:
    alive = select(Contact).where(among(session, col(Contact.id), contact_ids), col(Contact.erased_at).is_(None))
    return {contact.id or 0: contact for contact in session.exec(alive.execution_options(populate_existing=True))}


# --- by segment -------------------------------------------------------------------------------------------------------------------------


def tell_passages(session: Session, now: datetime, limit: int = BATCH) -> int:
    """Tell journeys of the next contacts that joined or left a segment, and return how many.

    Whoever waits for it is woken, and journeys that take a segment's contacts as they join take those.
    """
    passages = segments.untold(session, limit)
    if not passages:
        return 0
    for brand_id in {passage.brand_id for passage in passages}:
        tell(session, brand_id, [each.person_key for each in passages if each.brand_id == brand_id], ["segment"], now)
    for _plan, opened in _plans(session, EntrySource.segment):
        joined = {
            each.contact_id: each.occasion
            for each in passages
            if each.joined and (each.brand_id, each.key) == (opened.brand_id, opened.entry.segment)
        }
        if opened.entry.every is None and joined:
            _enter_members(session, opened, joined, now)
    segments.mark_told(session, passages)
    return len(passages)


def read_some_members(session: Session, now: datetime, limit: int = BATCH) -> int | None:
    """Enter the next contacts of a segment whose reading is due or under way, and return how many it looked at; None when none is.

    A journey with `every` reads its segment at these intervals, from its registration on; one without reads it once, and then takes those
    who join. Readings that were missed are made up for by one.
    """
    for each, opened in _plans(session, EntrySource.segment):
        due = each.reached is not None or (each.next_at is not None and each.next_at <= now)
        plan = _locked(session, each) if due else None
        if plan is None:
            continue
        if plan.reached is None and plan.next_at is not None and plan.next_at <= now:
            plan.reached, plan.read_at = 0, now
            plan.next_at = _following(session, plan, opened, now)
        if plan.reached is None:
            continue
        members = segments.members_after(session, plan.brand_id, opened.entry.segment or "", plan.reached, limit)
        # One that joins and is told of while the segment is read for the first time enters once: by the name of the joining.
        reading = None if opened.entry.every is None else f"reading:{plan.read_at.isoformat()}"
        _enter_members(session, opened, {contact_id: reading or joining for contact_id, joining in members.items()}, now)
        plan.reached = max(members) if len(members) == limit else None
        session.add(plan)
        session.flush()
        return len(members)
    return None


def _following(session: Session, plan: EntryPlan, opened: Open, now: datetime) -> datetime | None:
    """Return the first reading after `now`. They are counted from `since`, so that none of them drifts."""
    every = opened.entry.every
    if not isinstance(every, Duration):
        return None
    zone = zone_for(session.get_one(Brand, plan.brand_id).zone)
    longest = timedelta(days=31 * every.months + every.days, minutes=every.minutes)
    count = max(1, (now - plan.since - ONE_DAY) // longest)  # a day for the clocks' going back and forth
    while (at := Duration(every.months * count, every.days * count, every.minutes * count).after(plan.since, zone)) <= now:
        count += 1
    return at


def _enter_members(session: Session, opened: Open, joined: Mapping[int, str], now: datetime) -> int:
    door = _door(session, opened)
    if door is None:
        return 0
    people = _people(session, joined)
    entrants = [Entrant(contact, key=joined[contact_id]) for contact_id, contact in people.items()]
    return _enter_once(session, door, entrants, Arrival(CameBy.segment, now, {"segment": opened.entry.segment}))


# --- those who wait outside -------------------------------------------------------------------------------------------------------------


def let_in(session: Session, now: datetime, limit: int = BATCH) -> int:
    """Let in those who wait outside, the longest waiting first, as far as their journeys have room; return how many left the queue."""
    waiting = select(Entrance.journey_id).where(col(Entrance.settled_at).is_(None)).distinct()
    opened = {each.journey_id: each for each in open_journeys(session)}
    return sum(_let_in(session, opened[journey_id], now, limit) for journey_id in session.exec(waiting).all() if journey_id in opened)


def _let_in(session: Session, opened: Open, now: datetime, limit: int) -> int:
    door = _door(session, opened)
    room = min(limit, room_left(session, door, now)) if door is not None else 0
    if not room:
        return 0
    outside = select(Entrance).where(Entrance.journey_id == opened.journey_id, col(Entrance.settled_at).is_(None))
    first = outside.order_by(col(Entrance.asked_at), col(Entrance.id)).limit(room).with_for_update(skip_locked=True)
    rows = list(session.exec(first.execution_options(populate_existing=True)))
    people = _people(session, [row.contact_id for row in rows])
    settled: list[tuple[int, EnrolResult]] = []
    for group in _groups(rows):
        settled += _let_in_group(session, opened, group, people, now)
    _settle(session, settled, now)
    return sum(result.verdict is not EnrolVerdict.queued for _, result in settled)


def _groups(rows: Sequence[Entrance]) -> list[list[Entrance]]:
    """Part the rows into groups of the same source and campaign in which no contact is twice."""
    groups: dict[tuple[str, int | None, int], list[Entrance]] = {}
    times: dict[int, int] = {}
    for row in rows:
        times[row.contact_id] = times.get(row.contact_id, 0) + 1
        groups.setdefault((row.source, row.campaign_id, times[row.contact_id]), []).append(row)
    return list(groups.values())


def _let_in_group(
    session: Session, opened: Open, rows: Sequence[Entrance], people: Mapping[int, Contact], now: datetime
) -> list[tuple[int, EnrolResult]]:
    campaign = session.get(Campaign, rows[0].campaign_id) if rows[0].campaign_id else None
    door = _door(session, opened, campaign)
    over = campaign is not None and campaign.status is CampaignStatus.closed
    members = segments.keys_of(session, list(people.values()), now) if rows[0].source == CameBy.segment else {}
    settled: list[tuple[int, EnrolResult]] = []
    entering: list[tuple[Entrance, Entrant]] = []
    for row in rows:
        contact = people.get(row.contact_id)
        left = bool(members) and opened.entry.segment not in members.get(row.contact_id, frozenset())
        if door is None or contact is None or over or left:
            settled.append((row.id or 0, EnrolResult(row.contact_id, EnrolVerdict.not_matching)))
        else:
            entering.append((row, Entrant(contact, row.data, row.key)))
    if door is not None and entering:
        arrival = Arrival(CameBy(rows[0].source), now, {"waited": True}, waited=True)
        results = enter(session, door, [entrant for _, entrant in entering], arrival)
        _note(session, door, results, arrival.by, now)
        settled += [(row.id or 0, result) for (row, _), result in zip(entering, results, strict=True)]
    return settled


def _dialect(session: Session) -> Any:
    return sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
