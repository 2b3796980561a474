"""Rehearsals of a journey on oneself: starting one, reading it, and steering it. The runner executes it."""

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
from distmark.compliance.service import CheckFailed, check_version, record
from distmark.db import Database
from distmark.engagement.service import record_event
from distmark.errors import InvalidInput, NotFound, Refused
from distmark.journeys.definition import JourneyDefinition, parse
from distmark.journeys.findings import Severity
from distmark.journeys.service import get_version, source_of
from distmark.journeys.table import JourneyVersion
from distmark.partners.model import Permission, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import get_partner, require
from distmark.partners.table import User
from distmark.rehearsals.sandbox import Tester, build_sandbox, delete_sandbox, enrollment_in, kept_keys, open_sandbox
from distmark.rehearsals.table import Rehearsal, RehearsalStatus
from distmark.sql import among

SECONDS = (2, 60)  # the least and most real seconds of a wait
DEFAULT_SECONDS = 10
KEPT_FOR = timedelta(days=7)
MOST_BEGUN = 30  # by one person within an hour
LONGEST_ANSWER = 200


@dataclass(frozen=True, slots=True)
class RehearsalOptions:
    """Options of a rehearsal: real seconds per wait, language, partner, campaign, phone or none, and the contact's attributes in `data`."""

    partner_id: int
    language: str
    seconds_per_wait: int = DEFAULT_SECONDS
    campaign_id: int | None = None
    has_phone: bool = True
    data: Mapping[str, Any] = field(default_factory=dict)


def begin(session: Session, viewer: Viewer, data_dir: Path, version_id: int, options: RehearsalOptions, now: datetime) -> Rehearsal:
    """Create a rehearsal of the version with the viewer as its contact, and return it, ready to be run.

    A running rehearsal of the viewer is asked to stop. Errors: NotFound for a version, partner or campaign that the viewer may not see,
    InvalidInput for an option that is not possible, CheckFailed for a version with errors, Refused after too many rehearsals.
    """
    require(viewer, Permission.see_journeys)
    version = get_version(session, viewer, version_id)
    definition = _checked_definition(session, viewer, version, now)
    _check_options(session, viewer, version, definition, options)
    _refuse_too_many(session, viewer)
    _stop_running(session, viewer)
    _delete_old_sandboxes(session, data_dir)
    wall = wall_now()
    row = Rehearsal(
        key=secrets.token_hex(12),
        brand_id=viewer.brand_id,
        user_id=viewer.user_id,
        version_id=version_id,
        partner_id=options.partner_id,
        campaign_id=options.campaign_id,
        language=options.language,
        seconds_per_wait=options.seconds_per_wait,
        has_phone=options.has_phone,
        data=dict(options.data),
        began_at=now,
        clock_at=now,
        set_at=wall,
        seen_at=wall,
    )
    session.add(row)
    session.flush()
    user = session.get_one(User, viewer.user_id)
    build_sandbox(session, data_dir, row, Tester(user.name, user.email, row.language, row.has_phone, row.data))
    record(session, viewer.brand_id, viewer.user_id, "tested", "journey_version", version_id, now, source_of(version).content_hash)
    return row


def _checked_definition(session: Session, viewer: Viewer, version: JourneyVersion, now: datetime) -> JourneyDefinition:
    source = source_of(version)
    errors = [found for found in check_version(session, viewer, source, now) if found.severity is Severity.error]
    if errors:
        raise CheckFailed(version.number, errors)
    return parse(source)


def _check_options(
    session: Session, viewer: Viewer, version: JourneyVersion, definition: JourneyDefinition, options: RehearsalOptions
) -> None:
    least, most = SECONDS
    if not least <= options.seconds_per_wait <= most:
        raise InvalidInput(f"A wait of {options.seconds_per_wait} seconds cannot be; choose {least} to {most}.")
    if options.language not in definition.languages:
        raise InvalidInput(f'The journey does not speak "{options.language}"; choose one of {", ".join(definition.languages)}.')
    get_partner(session, viewer, options.partner_id)
    if options.campaign_id is not None:
        own = visible(select(Campaign), Campaign, viewer).where(Campaign.id == options.campaign_id)
        campaign = session.exec(own).first()
        if campaign is None or campaign.journey_id != version.journey_id or campaign.partner_id not in (None, options.partner_id):
            raise NotFound(f"There is no campaign {options.campaign_id} of this journey among yours.")
    if any(isinstance(value, str) and len(value) > LONGEST_ANSWER for value in options.data.values()):
        raise InvalidInput(f"A value is longer than {LONGEST_ANSWER} characters; shorten it.")


def _refuse_too_many(session: Session, viewer: Viewer) -> None:
    since = wall_now() - timedelta(hours=1)
    lately = select(Rehearsal.id).where(Rehearsal.user_id == viewer.user_id, col(Rehearsal.set_at) > since)
    if len(session.exec(lately).all()) >= MOST_BEGUN:
        raise Refused(f"You began {MOST_BEGUN} tests within an hour; wait a while before the next one.")


def _stop_running(session: Session, viewer: Viewer) -> None:
    own = update(Rehearsal).where(col(Rehearsal.user_id) == viewer.user_id, col(Rehearsal.status) == RehearsalStatus.running)
    session.execute(own.values(stop_asked=True))


def _delete_old_sandboxes(session: Session, data_dir: Path) -> None:
    """Delete the sandboxes of rehearsals, of any user, that have not run for `KEPT_FOR`."""
    old = select(Rehearsal.key).where(among(session, col(Rehearsal.key), kept_keys(data_dir)))
    for key in session.exec(old.where(col(Rehearsal.seen_at) < wall_now() - KEPT_FOR)):
        delete_sandbox(data_dir, key)


def get_rehearsal(session: Session, viewer: Viewer, key: str) -> Rehearsal:
    """Return the viewer's own rehearsal. Raises NotFound for any other."""
    row = session.exec(_own(viewer).where(Rehearsal.key == key)).first()
    if row is None:
        raise NotFound("There is no such test among yours.")
    return row


def newest(session: Session, viewer: Viewer, version_id: int) -> Rehearsal | None:
    """Return the viewer's newest rehearsal of the version."""
    return session.exec(_own(viewer).where(Rehearsal.version_id == version_id).order_by(col(Rehearsal.id).desc()).limit(1)).first()


def _own(viewer: Viewer) -> SelectOfScalar[Rehearsal]:
    return visible(select(Rehearsal), Rehearsal, viewer).where(Rehearsal.user_id == viewer.user_id)


def by_key(session: Session, key: str) -> Rehearsal | None:
    """Return the rehearsal with this key, for the public links in its messages."""
    return session.exec(select(Rehearsal).where(Rehearsal.key == key)).first()


def ask_to_stop(session: Session, viewer: Viewer, key: str) -> None:
    """Ask the runner to stop the rehearsal, which it does within a second. An interrupted rehearsal is stopped here."""
    row = get_rehearsal(session, viewer, key)
    row.stop_asked = True
    if row.state(wall_now()) is RehearsalStatus.interrupted:
        row.status = RehearsalStatus.stopped
    session.add(row)


def ask_to_go_on(session: Session, viewer: Viewer, key: str) -> None:
    """Ask the runner to end the present wait at once."""
    row = get_rehearsal(session, viewer, key)
    row.go_on_asked = True
    session.add(row)


def trigger_event(session: Session, viewer: Viewer, data_dir: Path, key: str, event: str) -> None:
    """Record the event for the tester, at the present time of the rehearsal's clock.

    Errors: InvalidInput for an event that the journey does not declare, Refused when the rehearsal is over.
    """
    row = get_rehearsal(session, viewer, key)
    wall = wall_now()
    if row.state(wall) is not RehearsalStatus.running:
        raise Refused("This test is over; begin it again.")
    definition = parse(source_of(session.get_one(JourneyVersion, row.version_id)))
    if event not in definition.events:
        raise InvalidInput(f'The journey does not listen to "{event}"; choose one of {", ".join(definition.events)}.')
    with open_sandbox(data_dir, key) as db:
        record_in_sandbox(db, row, event, row.now(wall))


def record_in_sandbox(db: Database, row: Rehearsal, event: str, now: datetime) -> None:
    """Record the event in the sandbox, which wakes the journey."""
    with db.writing() as sandbox:
        enrollment = enrollment_in(sandbox)
        record_event(sandbox, row.brand_id, event, now, contact_id=enrollment.contact_id, key=secrets.token_hex(8))
