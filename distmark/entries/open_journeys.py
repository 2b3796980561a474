"""Journeys that take contacts without a person's act, by their newest registered version."""

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
from distmark.enrollments.model import CameBy, EnrolResult, EnrolVerdict
from distmark.entries.admission import open_entry_point
from distmark.entries.model import EntryPoint
from distmark.errors import Refused
from distmark.journeys.definition import JourneyDefinition
from distmark.journeys.entry import Entry
from distmark.journeys.service import program_of
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus

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


def entry_point_of(session: Session, opened: Open, campaign: Campaign | None = None) -> EntryPoint | None:
    try:
        return open_entry_point(session, session.get_one(Journey, opened.journey_id), campaign)
    except Refused as refusal:
        # A text that is not the approved one lets nobody in, and must not keep an event from being recorded.
        log.error("journey lets nobody in", extra={"journey_id": opened.journey_id, "reason": str(refusal)})
        return None


def note_entries(session: Session, door: EntryPoint, results: Iterable[EnrolResult], by: CameBy, now: datetime) -> int:
    entered = sum(result.verdict is EnrolVerdict.enrolled for result in results)
    if entered:
        content_hash = door.version.content_hash
        record(session, door.brand_id, None, "enrolled", "journey", door.journey_id, now, content_hash, count=entered, by=by.value)
    return entered
