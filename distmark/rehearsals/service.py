"""Beginning a test of a journey on oneself, looking at it, and steering it. Walking it is the flows' work."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import update
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from distmark.campaigns.table import Campaign
from distmark.clock import wall_now
from distmark.compliance.service import CheckFailed, record
from distmark.db import Database
from distmark.engagement.service import record_event
from distmark.errors import InvalidInput, NotFound, Refused
from distmark.journeys.checks.run import check
from distmark.journeys.definition import JourneyDefinition, parse
from distmark.journeys.findings import Severity
from distmark.journeys.service import get_version, list_journeys, source_of
from distmark.journeys.table import JourneyVersion
from distmark.partners.model import Permission, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import get_partner, require
from distmark.partners.table import User
from distmark.rehearsals.sandbox import Part, build, clear, enrollment_on, keys_there, opened
from distmark.rehearsals.table import Rehearsal, RehearsalStatus
from distmark.sql import among

SECONDS = (2, 60)  # a wait takes at least and at most so long
DEFAULT_SECONDS = 10
KEPT_FOR = timedelta(days=7)
MOST_BEGUN = 30  # by one person within an hour
LONGEST_ANSWER = 200


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a test is to be: real seconds per wait, in which language, in whose name, with which campaign's words, and what is known."""

    partner_id: int
    language: str
    seconds_per_wait: int = DEFAULT_SECONDS
    campaign_id: int | None = None
    has_phone: bool = True
    data: Mapping[str, Any] = field(default_factory=dict)


def begin(session: Session, viewer: Viewer, data_dir: Path, version_id: int, wishes: Wishes, now: datetime) -> Rehearsal:
    """Put the viewer at the beginning of the version on a stage of its own, and return the test, ready to be walked.

    A test of theirs that still runs is asked to stop. Errors: NotFound for what is not the viewer's, InvalidInput for a wish that cannot
    be, CheckFailed for a version with errors, Refused after too many tests.
    """
    require(viewer, Permission.see_journeys)
    version = get_version(session, viewer, version_id)
    definition = _sound(session, viewer, version, now)
    _check_wishes(session, viewer, version, definition, wishes)
    _refuse_too_many(session, viewer)
    _stop_others(session, viewer)
    _sweep(session, data_dir)
    wall = wall_now()
    row = Rehearsal(
        key=secrets.token_hex(12),
        brand_id=viewer.brand_id,
        user_id=viewer.user_id,
        version_id=version_id,
        partner_id=wishes.partner_id,
        campaign_id=wishes.campaign_id,
        language=wishes.language,
        seconds_per_wait=wishes.seconds_per_wait,
        has_phone=wishes.has_phone,
        data=dict(wishes.data),
        began_at=now,
        clock_at=now,
        set_at=wall,
        seen_at=wall,
    )
    session.add(row)
    session.flush()
    user = session.get_one(User, viewer.user_id)
    build(session, data_dir, row, Part(user.name, user.email, row.language, row.has_phone, row.data))
    record(session, viewer.brand_id, viewer.user_id, "tested", "journey_version", version_id, now, source_of(version).content_hash)
    return row


def _sound(session: Session, viewer: Viewer, version: JourneyVersion, now: datetime) -> JourneyDefinition:
    others = {journey.key for journey in list_journeys(session, viewer)}
    source = source_of(version)
    errors = [found for found in check(source, now=now, journeys=others) if found.severity is Severity.error]
    if errors:
        raise CheckFailed(version.number, errors)
    return parse(source)


def _check_wishes(session: Session, viewer: Viewer, version: JourneyVersion, definition: JourneyDefinition, wishes: Wishes) -> None:
    least, most = SECONDS
    if not least <= wishes.seconds_per_wait <= most:
        raise InvalidInput(f"A wait of {wishes.seconds_per_wait} seconds cannot be; choose {least} to {most}.")
    if wishes.language not in definition.languages:
        raise InvalidInput(f'The journey does not speak "{wishes.language}"; choose one of {", ".join(definition.languages)}.')
    get_partner(session, viewer, wishes.partner_id)
    if wishes.campaign_id is not None:
        theirs = visible(select(Campaign), Campaign, viewer).where(Campaign.id == wishes.campaign_id)
        campaign = session.exec(theirs).first()
        if campaign is None or campaign.journey_id != version.journey_id or campaign.partner_id not in (None, wishes.partner_id):
            raise NotFound(f"There is no campaign {wishes.campaign_id} of this journey among yours.")
    if any(isinstance(value, str) and len(value) > LONGEST_ANSWER for value in wishes.data.values()):
        raise InvalidInput(f"A value is longer than {LONGEST_ANSWER} characters; shorten it.")


def _refuse_too_many(session: Session, viewer: Viewer) -> None:
    since = wall_now() - timedelta(hours=1)
    lately = select(Rehearsal.id).where(Rehearsal.user_id == viewer.user_id, col(Rehearsal.set_at) > since)
    if len(session.exec(lately).all()) >= MOST_BEGUN:
        raise Refused(f"You began {MOST_BEGUN} tests within an hour; wait a while before the next one.")


def _stop_others(session: Session, viewer: Viewer) -> None:
    theirs = update(Rehearsal).where(col(Rehearsal.user_id) == viewer.user_id, col(Rehearsal.status) == RehearsalStatus.running)
    session.execute(theirs.values(stop_asked=True))


def _sweep(session: Session, data_dir: Path) -> None:
    """Clear the stages of tests away that nobody has walked for long, whoever's they were."""
    old = select(Rehearsal.key).where(among(session, col(Rehearsal.key), keys_there(data_dir)))
    for key in session.exec(old.where(col(Rehearsal.seen_at) < wall_now() - KEPT_FOR)):
        clear(data_dir, key)


def get_rehearsal(session: Session, viewer: Viewer, key: str) -> Rehearsal:
    """Return the viewer's own test; NotFound otherwise."""
    row = session.exec(_own(viewer).where(Rehearsal.key == key)).first()
    if row is None:
        raise NotFound("There is no such test among yours.")
    return row


def newest(session: Session, viewer: Viewer, version_id: int) -> Rehearsal | None:
    """Return the viewer's newest test of the version."""
    return session.exec(_own(viewer).where(Rehearsal.version_id == version_id).order_by(col(Rehearsal.id).desc()).limit(1)).first()


def _own(viewer: Viewer) -> SelectOfScalar[Rehearsal]:
    return visible(select(Rehearsal), Rehearsal, viewer).where(Rehearsal.user_id == viewer.user_id)


def by_key(session: Session, key: str) -> Rehearsal | None:
    """Return the test whose links hold this key, for whoever follows them."""
    return session.exec(select(Rehearsal).where(Rehearsal.key == key)).first()


def ask_to_stop(session: Session, viewer: Viewer, key: str) -> None:
    """Let the test end at once; whoever walks it sees this within a second. One that nobody walks ends here."""
    row = get_rehearsal(session, viewer, key)
    row.stop_asked = True
    if row.state(wall_now()) is RehearsalStatus.interrupted:
        row.status = RehearsalStatus.stopped
    session.add(row)


def ask_to_go_on(session: Session, viewer: Viewer, key: str) -> None:
    """Let the present wait end at once."""
    row = get_rehearsal(session, viewer, key)
    row.go_on_asked = True
    session.add(row)


def happen(session: Session, viewer: Viewer, data_dir: Path, key: str, event: str) -> None:
    """Let the event happen to the tester, at the present moment of the test's clock.

    Errors: InvalidInput for one that the journey does not know, Refused when the test is over.
    """
    row = get_rehearsal(session, viewer, key)
    wall = wall_now()
    if row.state(wall) is not RehearsalStatus.running:
        raise Refused("This test is over; begin it again.")
    definition = parse(source_of(session.get_one(JourneyVersion, row.version_id)))
    if event not in definition.events:
        raise InvalidInput(f'The journey does not listen to "{event}"; choose one of {", ".join(definition.events)}.')
    with opened(data_dir, key) as db:
        tell(db, row, event, row.now(wall))


def tell(db: Database, row: Rehearsal, event: str, now: datetime) -> None:
    """Record the event on the stage, which wakes the journey."""
    with db.writing() as stage:
        whom = enrollment_on(stage)
        record_event(stage, row.brand_id, event, now, contact_id=whom.contact_id, key=secrets.token_hex(8))
