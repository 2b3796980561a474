"""Open journeys: journeys whose newest registered version takes contacts now."""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from sqlalchemy import select as select_columns
from sqlmodel import Session, col

from distmark.campaigns.table import Campaign
from distmark.compliance.service import record
from distmark.enrollments.model import CameBy
from distmark.entries.admission import open_entry_point
from distmark.entries.model import EnrolResult, EnrolVerdict, EntryPoint
from distmark.errors import Refused
from distmark.journeys.definition import JourneyDefinition
from distmark.journeys.entry import Entry
from distmark.journeys.service import program_of
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus

MOST_CACHED = 4096
_cached: dict[tuple[int, int, str, datetime], "OpenJourney"] = {}
log = logging.getLogger("distmark.enrollments")


@dataclass(frozen=True)
class OpenJourney:
    """A journey that takes contacts now, with its newest registered version."""

    journey_id: int
    brand_id: int
    version_id: int
    registered_at: datetime
    definition: JourneyDefinition

    @property
    def entry(self) -> Entry:
        """The entry of the definition."""
        return self.definition.entry

    @cached_property
    def rule(self) -> str:
        """The part of the entry that decides which contacts enter and when, as JSON. Equal texts are equal rules."""
        entry = self.entry
        written = {name: str(value) for name in ("segment", "date", "offset", "at", "every") if (value := getattr(entry, name)) is not None}
        return json.dumps({"source": entry.source.value, **written}, ensure_ascii=False, sort_keys=True)


def open_journeys(session: Session, brand_id: int | None = None) -> list[OpenJourney]:
    """Return the open journeys of one brand, or of all, by one query: their definitions are cached in this process."""
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
    return [_open_journey(session, *row) for row in newest.values()]


def _open_journey(
    session: Session, journey_id: int, brand_id: int, version_id: int, content_hash: str, registered_at: datetime
) -> OpenJourney:
    key = (journey_id, version_id, content_hash, registered_at)
    if key not in _cached:
        if len(_cached) >= MOST_CACHED:
            _cached.clear()
        _cached[key] = OpenJourney(journey_id, brand_id, version_id, registered_at, program_of(session, version_id).definition)
    return _cached[key]


def entry_point_of(session: Session, journey: OpenJourney, campaign: Campaign | None = None) -> EntryPoint | None:
    """Return the entry point of the journey; None, with an error in the log, when its text is no longer the approved one."""
    try:
        return open_entry_point(session, session.get_one(Journey, journey.journey_id), campaign)
    except Refused as refusal:
        # Not raised: it would keep the event that enters the journey from being recorded.
        log.error("journey lets nobody in", extra={"journey_id": journey.journey_id, "reason": str(refusal)})
        return None


def record_entries(session: Session, entry_point: EntryPoint, results: Iterable[EnrolResult], by: CameBy, now: datetime) -> int:
    """Record in the audit trail how many of these results are entries, if any, and return how many."""
    entered = sum(result.verdict is EnrolVerdict.enrolled for result in results)
    if entered:
        content_hash, journey_id = entry_point.version.content_hash, entry_point.journey_id
        record(session, entry_point.brand_id, None, "enrolled", "journey", journey_id, now, content_hash, count=entered, by=by.value)
    return entered
