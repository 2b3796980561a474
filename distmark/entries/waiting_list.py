"""Contacts that wait for room in a capped journey, admitted oldest first."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlmodel import Session, col, select

from distmark.campaigns.table import Campaign, CampaignStatus
from distmark.contacts.table import Contact
from distmark.enrollments.model import CameBy, EnrolResult, EnrolVerdict
from distmark.entries.admission import enter
from distmark.entries.entrances import living_contacts, settle_entrances
from distmark.entries.model import Entrant, EntryContext
from distmark.entries.open_journeys import Open, entry_point_of, note_entries, open_journeys
from distmark.entries.plans import BATCH
from distmark.entries.quota import room_left
from distmark.entries.table import Entrance
from distmark.segments import membership
from distmark.sql import id_of


def admit_queued(session: Session, now: datetime, limit: int = BATCH) -> int:
    """Let in those who wait outside, the longest waiting first, as far as their journeys have room; return how many left the queue."""
    waiting = select(Entrance.journey_id).where(col(Entrance.settled_at).is_(None)).distinct()
    opened = {each.journey_id: each for each in open_journeys(session)}
    return sum(_admit_queued(session, opened[journey_id], now, limit) for journey_id in session.exec(waiting).all() if journey_id in opened)


def _admit_queued(session: Session, opened: Open, now: datetime, limit: int) -> int:
    door = entry_point_of(session, opened)
    room = min(limit, room_left(session, door, now)) if door is not None else 0
    if not room:
        return 0
    outside = select(Entrance).where(Entrance.journey_id == opened.journey_id, col(Entrance.settled_at).is_(None))
    first = outside.order_by(col(Entrance.asked_at), col(Entrance.id)).limit(room).with_for_update(skip_locked=True)
    rows = list(session.exec(first.execution_options(populate_existing=True)))
    people = living_contacts(session, [row.contact_id for row in rows])
    settled: list[tuple[int, EnrolResult]] = []
    for group in _groups(rows):
        settled += _admit_group(session, opened, group, people, now)
    settle_entrances(session, settled, now)
    return sum(result.verdict is not EnrolVerdict.queued for _, result in settled)


def _groups(rows: Sequence[Entrance]) -> list[list[Entrance]]:
    """Part the rows into groups of the same source and campaign in which no contact is twice."""
    groups: dict[tuple[str, int | None, int], list[Entrance]] = {}
    times: dict[int, int] = {}
    for row in rows:
        times[row.contact_id] = times.get(row.contact_id, 0) + 1
        groups.setdefault((row.source, row.campaign_id, times[row.contact_id]), []).append(row)
    return list(groups.values())


def _admit_group(
    session: Session, opened: Open, rows: Sequence[Entrance], people: Mapping[int, Contact], now: datetime
) -> list[tuple[int, EnrolResult]]:
    campaign = session.get(Campaign, rows[0].campaign_id) if rows[0].campaign_id else None
    door = entry_point_of(session, opened, campaign)
    over = campaign is not None and campaign.status is CampaignStatus.closed
    members = membership.keys_of(session, list(people.values()), now) if rows[0].source == CameBy.segment else {}
    settled: list[tuple[int, EnrolResult]] = []
    entering: list[tuple[Entrance, Entrant]] = []
    for row in rows:
        contact = people.get(row.contact_id)
        left = bool(members) and opened.entry.segment not in members.get(row.contact_id, frozenset())
        if door is None or contact is None or over or left:
            settled.append((id_of(row), EnrolResult(row.contact_id, EnrolVerdict.not_matching)))
        else:
            entering.append((row, Entrant(contact, row.data, row.key)))
    if door is not None and entering:
        arrival = EntryContext(CameBy(rows[0].source), now, {"waited": True}, waited=True)
        results = enter(session, door, [entrant for _, entrant in entering], arrival)
        note_entries(session, door, results, arrival.by, now)
        settled += [(id_of(row), result) for (row, _), result in zip(entering, results, strict=True)]
    return settled
