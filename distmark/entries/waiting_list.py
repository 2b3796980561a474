"""Queued contacts of capped journeys: admitted oldest first, as far as there is room."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlmodel import Session, col, select

from distmark.campaigns.service import refuse_members
from distmark.campaigns.table import Campaign, CampaignStatus
from distmark.contacts.table import Contact
from distmark.enrollments.model import CameBy
from distmark.entries.admission import enter
from distmark.entries.entrances import contacts_not_erased, settle_entrances
from distmark.entries.model import ENTERED, EnrolResult, EnrolVerdict, Entrant, EntryContext
from distmark.entries.open_journeys import OpenJourney, entry_point_of, open_journeys, record_entries
from distmark.entries.plans import BATCH
from distmark.entries.quota import room_left
from distmark.entries.table import Entrance
from distmark.segments.membership import segment_keys_of
from distmark.sql import id_of


def admit_queued(session: Session, now: datetime, limit: int = BATCH) -> int:
    """Admit queued contacts, the oldest first, as far as their journeys have room; return how many left the queue."""
    queued = select(Entrance.journey_id).where(col(Entrance.settled_at).is_(None)).distinct()
    journeys = {each.journey_id: each for each in open_journeys(session)}
    return sum(
        _admit_queued(session, journeys[journey_id], now, limit) for journey_id in session.exec(queued).all() if journey_id in journeys
    )


def _admit_queued(session: Session, journey: OpenJourney, now: datetime, limit: int) -> int:
    entry_point = entry_point_of(session, journey)
    room = min(limit, room_left(session, entry_point, now)) if entry_point is not None else 0
    if not room:
        return 0
    queued = select(Entrance).where(Entrance.journey_id == journey.journey_id, col(Entrance.settled_at).is_(None))
    oldest = queued.order_by(col(Entrance.asked_at), col(Entrance.id)).limit(room).with_for_update(skip_locked=True)
    rows = list(session.exec(oldest.execution_options(populate_existing=True)))
    contacts = contacts_not_erased(session, [row.contact_id for row in rows])
    results: list[tuple[int, EnrolResult]] = []
    for group in _groups(rows):
        results += _admit_group(session, journey, group, contacts, now)
    settle_entrances(session, results, now)
    return sum(result.verdict is not EnrolVerdict.queued for _, result in results)


def _groups(rows: Sequence[Entrance]) -> list[list[Entrance]]:
    """Part the rows into groups of one source and campaign, with no contact twice in a group."""
    groups: dict[tuple[str, int | None, int], list[Entrance]] = {}
    times: dict[int, int] = {}
    for row in rows:
        times[row.contact_id] = times.get(row.contact_id, 0) + 1
        groups.setdefault((row.source, row.campaign_id, times[row.contact_id]), []).append(row)
    return list(groups.values())


def _admit_group(
    session: Session, journey: OpenJourney, rows: Sequence[Entrance], contacts: Mapping[int, Contact], now: datetime
) -> list[tuple[int, EnrolResult]]:
    """Enter the contacts of one group and return the result per entrance id.

    A contact does not enter any more that was erased or left the journey's segment meanwhile, nor does any by a closed campaign.
    """
    campaign = session.get(Campaign, rows[0].campaign_id) if rows[0].campaign_id else None
    entry_point = entry_point_of(session, journey, campaign)
    is_closed = campaign is not None and campaign.status is CampaignStatus.closed
    segments = segment_keys_of(session, list(contacts.values()), now) if rows[0].source == CameBy.segment else {}
    results: list[tuple[int, EnrolResult]] = []
    entering: list[tuple[Entrance, Entrant]] = []
    for row in rows:
        contact = contacts.get(row.contact_id)
        has_left = bool(segments) and journey.entry.segment not in segments.get(row.contact_id, frozenset())
        if entry_point is None or contact is None or is_closed or has_left:
            results.append((id_of(row), EnrolResult(row.contact_id, EnrolVerdict.not_matching)))
        else:
            entering.append((row, Entrant(contact, row.data, row.key)))
    if entry_point is not None and entering:
        context = EntryContext(CameBy(rows[0].source), now, {"waited": True}, waited=True)
        entered = enter(session, entry_point, [entrant for _, entrant in entering], context)
        record_entries(session, entry_point, entered, context.by, now)
        results += [(id_of(row), result) for (row, _), result in zip(entering, entered, strict=True)]
    verdicts = {result.contact_id: result.verdict for _, result in results if result.verdict not in ENTERED}
    refuse_members(session, rows[0].campaign_id, verdicts, now)
    return results
