"""The stage of a test: a small database of its own with copies of what the journey needs and one made-up contact, who is the tester.

Nothing on it is in anybody's contact book, list, cap, segment, result or run, because none of those ever look here.
"""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from sqlmodel import Session, SQLModel, col, select

from distmark.campaigns.table import Campaign, PartnerBlocks
from distmark.contacts.consents import consent_channels, record_consent
from distmark.contacts.model import address_hash, address_key
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.enrollments.model import TimelineKind
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.errors import NotFound
from distmark.journeys.definition import JourneyDefinition, parse
from distmark.journeys.service import source_of
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.partners.table import Brand, Partner, User
from distmark.rehearsals.table import Rehearsal
from distmark.segments.table import Segment
from distmark.sql import id_of
from distmark.tables import create_all

FOLDER = "tests"
NOBODYS_PHONE = "+819000000000"  # is never called: text messages of a test go to the tester's mail address
BIRTHDAY = date(1985, 4, 1)
_Row = TypeVar("_Row", bound=SQLModel)


@dataclass(frozen=True, slots=True)
class Part:
    """Who plays the contact: the person who tests, by name and mail address, and what is known of them."""

    name: str
    email: str
    language: str
    has_phone: bool
    data: Mapping[str, Any]


def stage_file(data_dir: Path, key: str) -> Path:
    """Return where the stage of this test is kept."""
    return (data_dir / FOLDER / f"{key}.sqlite3").absolute()


@contextmanager
def opened(data_dir: Path, key: str) -> Iterator[Database]:
    """Give the stage's database. NotFound when it was cleared away."""
    file = stage_file(data_dir, key)
    if not file.exists():
        raise NotFound("The details of this test were cleared away; begin it again.")
    db = Database(f"sqlite:///{file}")
    try:
        yield db
    finally:
        db.close()


def build(session: Session, data_dir: Path, row: Rehearsal, part: Part) -> None:
    """Make the stage of the test: copies under the same ids, and the tester at the journey's beginning."""
    file = stage_file(data_dir, row.key)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    db = Database(f"sqlite:///{file}")
    try:
        create_all(db)
        with db.writing() as stage:
            version = _furnish(session, stage, row)
            definition = parse(source_of(version))
            contact = _contact(stage, row, part, definition)
            _enrol(stage, row, version, contact, definition)
    finally:
        db.close()


def enrollment_on(stage: Session) -> Enrollment:
    """Return where the tester stands."""
    return stage.exec(select(Enrollment).order_by(col(Enrollment.id)).limit(1)).one()


def keys_there(data_dir: Path) -> list[str]:
    """Return the keys of the tests whose stage is kept."""
    return [file.stem for file in (data_dir / FOLDER).glob("*.sqlite3")]


def clear(data_dir: Path, key: str) -> None:
    """Take the stage away; links in the messages of this test are not known any more."""
    file = stage_file(data_dir, key)
    for each in (file, *(file.with_name(file.name + end) for end in ("-wal", "-shm"))):
        each.unlink(missing_ok=True)


def _furnish(session: Session, stage: Session, row: Rehearsal) -> JourneyVersion:
    version = session.get_one(JourneyVersion, row.version_id)
    _put(stage, session.get_one(Brand, row.brand_id))
    _put(stage, session.get_one(Partner, row.partner_id))
    _put(stage, session.get_one(User, row.user_id), partner_id=None, password_hash="")
    _put(stage, session.get_one(Journey, version.journey_id))
    hashed = source_of(version).content_hash
    told = {"content_hash": hashed, "approved_hash": hashed, "status": VersionStatus.registered, "deployment_id": "-"}
    copied = _put(stage, version, author_id=None, decided_by_id=None, **told)
    for segment in session.exec(select(Segment).where(Segment.brand_id == row.brand_id, col(Segment.rule).is_not(None))):
        if segment.partner_id in (None, row.partner_id):
            _put(stage, segment, created_by_id=None)
    if row.campaign_id is not None:
        _put(stage, session.get_one(Campaign, row.campaign_id), partner_id=row.partner_id, created_by_id=None)
        for words in session.exec(
            select(PartnerBlocks).where(PartnerBlocks.campaign_id == row.campaign_id, PartnerBlocks.partner_id == row.partner_id)
        ):
            _put(stage, words)
    return copied


def _put(stage: Session, row: _Row, **changes: Any) -> _Row:
    values = {name: getattr(row, name) for name in type(row).model_fields}
    copy = type(row)(**{**values, **changes})
    stage.add(copy)
    stage.flush()
    return copy


def _contact(stage: Session, row: Rehearsal, part: Part, definition: JourneyDefinition) -> Contact:
    brand, partner = stage.get_one(Brand, row.brand_id), stage.get_one(Partner, row.partner_id)
    last_name, first_name = _names(part.name, part.language)
    contact = Contact(
        brand_id=row.brand_id,
        partner_id=row.partner_id,
        first_name=first_name,
        last_name=last_name,
        email=part.email,
        email_key=address_key(part.email),
        person_key=address_hash(row.brand_id, part.email),
        phone=NOBODYS_PHONE if part.has_phone else None,
        language=part.language,
        zone=brand.zone,
        city=partner.city,
        birthday=BIRTHDAY,
        attributes={name: part.data[name] for name in definition.contact_fields if name in part.data},
        created_at=row.began_at,
        updated_at=row.began_at,
    )
    stage.add(contact)
    stage.flush()
    for channel in consent_channels():
        record_consent(stage, id_of(contact), channel, given=True, now=row.began_at, source="test")
    return contact


def _names(name: str, language: str) -> tuple[str, str]:
    """Return family name and first name of a name written in one: the family name is first in Japanese."""
    first, _, rest = name.strip().partition(" ")
    if not rest:
        return first, ""
    return (first, rest.strip()) if language == "ja" else (rest.strip(), first)


def _enrol(stage: Session, row: Rehearsal, version: JourneyVersion, contact: Contact, definition: JourneyDefinition) -> None:
    """Put the tester at the beginning, whatever the journey's entry says: it is the way that is tried."""
    enrollment = Enrollment(
        brand_id=row.brand_id,
        journey_id=version.journey_id,
        version_id=row.version_id,
        campaign_id=row.campaign_id,
        partner_id=row.partner_id,
        contact_id=id_of(contact),
        person_key=contact.person_key,
        live_key=f"{version.journey_id}:{contact.person_key}",
        due_at=row.began_at,
        why="time",
        data={name: row.data[name] for name in definition.journey_fields if name in row.data},
        entered_at=row.began_at,
        run_key=uuid.uuid4().hex,
    )
    stage.add(enrollment)
    stage.flush()
    stage.add(TimelineEntry(enrollment_id=id_of(enrollment), at=row.began_at, kind=TimelineKind.entered))
