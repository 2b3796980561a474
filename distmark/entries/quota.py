"""How many contacts may enter a capped journey in a period, and the queue of those for whom it has no room."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

from sqlmodel import Session, col, select

from distmark.entries.model import Entrant, EntryContext, EntryPoint
from distmark.entries.table import Entrance, EntryCount
from distmark.journeys.field_types import Cap
from distmark.journeys.times import zone_for
from distmark.partners.table import Brand
from distmark.sql import among, id_of, insert_into

NO_CAP = 10_000_000


def within_cap(
    session: Session, door: EntryPoint, admitted: Sequence[Entrant], arrival: EntryContext
) -> tuple[Sequence[Entrant], Sequence[Entrant]]:
    """Return those who may enter now and those who must wait; the room they take is taken from the period's."""
    room = take_room(session, door, len(admitted), arrival.now, waited=arrival.waited)
    return admitted[:room], admitted[room:]


def take_room(session: Session, door: EntryPoint, wanted: int, now: datetime, *, waited: bool = False) -> int:
    """Take room for up to `wanted` contacts in the present period of the journey's cap, and return for how many there was.

    While others wait outside there is none for those who come now.
    """
    cap = door.definition.entry.cap
    if not wanted or (cap is None and (waited or not anyone_queued(session, door))):
        return wanted
    if cap is None:
        return 0
    count = _locked_count(session, door, cap, now)
    if not waited and anyone_queued(session, door):
        return 0
    room = max(0, min(wanted, cap.count - count.entered))
    count.entered += room
    session.add(count)
    session.flush()
    return room


def room_left(session: Session, door: EntryPoint, now: datetime) -> int:
    """Return for how many the present period of the journey's cap has room."""
    cap = door.definition.entry.cap
    if cap is None:
        return NO_CAP
    entered = select(EntryCount.entered).where(
        EntryCount.journey_id == door.journey_id, EntryCount.period == _period(session, door, cap, now)
    )
    return max(0, cap.count - (session.exec(entered).first() or 0))


def _period(session: Session, door: EntryPoint, cap: Cap, now: datetime) -> str:
    zone = zone_for(session.exec(select(Brand.zone).where(Brand.id == door.brand_id)).one())
    return f"{cap.period} {period_start(cap, now.astimezone(zone)).isoformat()}"


def return_room(session: Session, door: EntryPoint, unused: int, now: datetime) -> None:
    cap = door.definition.entry.cap
    if unused > 0 and cap is not None:
        count = _locked_count(session, door, cap, now)
        count.entered -= unused
        session.add(count)
        session.flush()


def _locked_count(session: Session, door: EntryPoint, cap: Cap, now: datetime) -> EntryCount:
    """Return the count of the present period, locked: whoever else enters this journey waits, so the cap holds exactly."""
    period = _period(session, door, cap, now)
    row = {"journey_id": door.journey_id, "period": period, "entered": 0}
    session.execute(insert_into(session, EntryCount).values(row).on_conflict_do_nothing())
    count = select(EntryCount).where(EntryCount.journey_id == door.journey_id, EntryCount.period == period)
    return session.exec(count.with_for_update().execution_options(populate_existing=True)).one()


def period_start(cap: Cap, local: datetime) -> date | datetime:
    """Return when the cap's present period began on the brand's clock: the hour, the day, Monday, or the first of the month."""
    if cap.period == "hour":
        return local.replace(minute=0, second=0, microsecond=0)
    day = local.date()
    return {"day": day, "week": day - timedelta(days=day.weekday()), "month": day.replace(day=1)}[cap.period]


def anyone_queued(session: Session, door: EntryPoint) -> bool:
    waiting = select(Entrance.id).where(Entrance.journey_id == door.journey_id, col(Entrance.settled_at).is_(None))
    return session.exec(waiting.limit(1)).first() is not None


def queue_entrants(session: Session, door: EntryPoint, entrants: Sequence[Entrant], arrival: EntryContext) -> None:
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
                "contact_id": id_of(entrant.contact),
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
        statement = insert_into(session, Entrance)
        # A dated occasion was claimed by its row before: now that row waits.
        again = {name: statement.excluded[name] for name in ("waiting_key", "settled_at", "verdict", "data")}
        session.execute(statement.on_conflict_do_update(index_elements=["journey_id", "contact_id", "key"], set_=again), rows)
