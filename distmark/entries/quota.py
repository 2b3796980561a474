"""The cap of a journey: how many contacts may enter it in a period, and the queue of contacts beyond the cap."""

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
    session: Session, entry_point: EntryPoint, eligible: Sequence[Entrant], context: EntryContext
) -> tuple[Sequence[Entrant], Sequence[Entrant]]:
    """Return the entrants within the cap, for which room is taken, and the entrants beyond it."""
    room = take_room(session, entry_point, len(eligible), context.now, waited=context.waited)
    return eligible[:room], eligible[room:]


def take_room(session: Session, entry_point: EntryPoint, wanted: int, now: datetime, *, waited: bool = False) -> int:
    """Take room for up to `wanted` contacts in the present period of the journey's cap, and return for how many there was room.

    While contacts are queued there is room for queued contacts (`waited`) only.
    """
    cap = entry_point.definition.entry.cap
    if not wanted or (cap is None and (waited or not anyone_queued(session, entry_point))):
        return wanted
    if cap is None:
        return 0
    count = _locked_count(session, entry_point, cap, now)
    if not waited and anyone_queued(session, entry_point):
        return 0
    room = max(0, min(wanted, cap.count - count.entered))
    count.entered += room
    session.add(count)
    session.flush()
    return room


def room_left(session: Session, entry_point: EntryPoint, now: datetime) -> int:
    """Return for how many contacts the present period of the journey's cap has room."""
    cap = entry_point.definition.entry.cap
    if cap is None:
        return NO_CAP
    period = _period(session, entry_point, cap, now)
    entered = select(EntryCount.entered).where(EntryCount.journey_id == entry_point.journey_id, EntryCount.period == period)
    return max(0, cap.count - (session.exec(entered).first() or 0))


def _period(session: Session, entry_point: EntryPoint, cap: Cap, now: datetime) -> str:
    zone = zone_for(session.exec(select(Brand.zone).where(Brand.id == entry_point.brand_id)).one())
    return f"{cap.period} {period_start(cap, now.astimezone(zone)).isoformat()}"


def return_room(session: Session, entry_point: EntryPoint, unused: int, now: datetime) -> None:
    """Give back room that was taken for `unused` contacts that did not enter after all."""
    cap = entry_point.definition.entry.cap
    if unused > 0 and cap is not None:
        count = _locked_count(session, entry_point, cap, now)
        count.entered -= unused
        session.add(count)
        session.flush()


def _locked_count(session: Session, entry_point: EntryPoint, cap: Cap, now: datetime) -> EntryCount:
    """Return the count of the present period, locked: other entries into this journey wait for it, so the cap holds exactly."""
    period = _period(session, entry_point, cap, now)
    row = {"journey_id": entry_point.journey_id, "period": period, "entered": 0}
    session.execute(insert_into(session, EntryCount).values(row).on_conflict_do_nothing())
    count = select(EntryCount).where(EntryCount.journey_id == entry_point.journey_id, EntryCount.period == period)
    return session.exec(count.with_for_update().execution_options(populate_existing=True)).one()


def period_start(cap: Cap, local: datetime) -> date | datetime:
    """Return the start of the cap's period that contains `local` on the brand's clock: the hour, the day, Monday, or the month's first."""
    if cap.period == "hour":
        return local.replace(minute=0, second=0, microsecond=0)
    day = local.date()
    return {"day": day, "week": day - timedelta(days=day.weekday()), "month": day.replace(day=1)}[cap.period]


def anyone_queued(session: Session, entry_point: EntryPoint) -> bool:
    """Return whether any contact is queued for the journey."""
    queued = select(Entrance.id).where(Entrance.journey_id == entry_point.journey_id, col(Entrance.settled_at).is_(None))
    return session.exec(queued.limit(1)).first() is not None


def queue_entrants(session: Session, entry_point: EntryPoint, entrants: Sequence[Entrant], context: EntryContext) -> None:
    """Queue these contacts. A contact that is queued already is not queued twice, unless it may be in the journey several times."""
    if not entrants:
        return
    keys = {key for entrant in entrants if (key := entry_point.live_key(entrant.contact)) is not None}
    queued = {row.waiting_key for row in session.exec(select(Entrance).where(among(session, col(Entrance.waiting_key), keys)))}
    rows: list[dict[str, Any]] = []
    for entrant in entrants:
        waiting_key = entry_point.live_key(entrant.contact)
        if waiting_key in queued:
            continue
        rows.append(
            {
                "brand_id": entry_point.brand_id,
                "journey_id": entry_point.journey_id,
                "contact_id": id_of(entrant.contact),
                "campaign_id": entry_point.campaign_id,
                "source": context.by.value,
                "key": entrant.key or f"{context.by}:{context.now.isoformat()}",
                "waiting_key": waiting_key,
                "data": dict(entrant.data),
                "asked_at": context.now,
                "settled_at": None,
                "verdict": "",
            }
        )
    if rows:
        statement = insert_into(session, Entrance)
        # A dated occasion has its row already, from when it was claimed: now that row is queued.
        changed = {name: statement.excluded[name] for name in ("waiting_key", "settled_at", "verdict", "data")}
        session.execute(statement.on_conflict_do_update(index_elements=["journey_id", "contact_id", "key"], set_=changed), rows)
