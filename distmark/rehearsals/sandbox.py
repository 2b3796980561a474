"""The sandbox of a rehearsal: a small database of its own, with copies of the rows that the journey needs and the tester as its contact.

Nothing in it counts in the installation's contacts, segments, caps, results or runs, since those read the main database only.
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
UNUSED_PHONE = "+819000000000"  # never called: text messages of a rehearsal go to the tester's mail address
BIRTHDAY = date(1985, 4, 1)
_Row = TypeVar("_Row", bound=SQLModel)


@dataclass(frozen=True, slots=True)
class Tester:
    """The person who rehearses and plays the contact: name, mail address, language, and attributes in `data`."""

    name: str
    email: str
    language: str
    has_phone: bool
    data: Mapping[str, Any]


def sandbox_file(data_dir: Path, key: str) -> Path:
    """Return the path of the sandbox's file."""
    return (data_dir / FOLDER / f"{key}.sqlite3").absolute()


@contextmanager
def open_sandbox(data_dir: Path, key: str) -> Iterator[Database]:
    """Give the sandbox's database. Raises NotFound when it was deleted."""
    file = sandbox_file(data_dir, key)
    if not file.exists():
        raise NotFound("The details of this test were cleared away; begin it again.")
    db = Database(f"sqlite:///{file}")
    try:
        yield db
    finally:
        db.close()


def build_sandbox(session: Session, data_dir: Path, row: Rehearsal, tester: Tester) -> None:
    """Create the sandbox: copies of rows under the same ids, and the tester enrolled at the start of the journey."""
    file = sandbox_file(data_dir, row.key)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    db = Database(f"sqlite:///{file}")
    try:
        create_all(db)
        with db.writing() as sandbox:
            version = _copy_rows(session, sandbox, row)
            definition = parse(source_of(version))
            contact = _contact(sandbox, row, tester, definition)
            _enrol(sandbox, row, version, contact, definition)
    finally:
        db.close()


def enrollment_in(sandbox: Session) -> Enrollment:
    """Return the tester's enrollment."""
    return sandbox.exec(select(Enrollment).order_by(col(Enrollment.id)).limit(1)).one()


def kept_keys(data_dir: Path) -> list[str]:
    """Return the keys of the rehearsals with a sandbox."""
    return [file.stem for file in (data_dir / FOLDER).glob("*.sqlite3")]


def delete_sandbox(data_dir: Path, key: str) -> None:
    """Delete the sandbox. Links in the messages of this rehearsal stop working."""
    file = sandbox_file(data_dir, key)
    for each in (file, *(file.with_name(file.name + end) for end in ("-wal", "-shm"))):
        each.unlink(missing_ok=True)


def _copy_rows(session: Session, sandbox: Session, row: Rehearsal) -> JourneyVersion:
    version = session.get_one(JourneyVersion, row.version_id)
    _copy(sandbox, session.get_one(Brand, row.brand_id))
    _copy(sandbox, session.get_one(Partner, row.partner_id))
    _copy(sandbox, session.get_one(User, row.user_id), partner_id=None, password_hash="")
    _copy(sandbox, session.get_one(Journey, version.journey_id))
    hashed = source_of(version).content_hash
    changes_of_version = {"content_hash": hashed, "approved_hash": hashed, "status": VersionStatus.registered, "deployment_id": "-"}
    copied = _copy(sandbox, version, author_id=None, decided_by_id=None, **changes_of_version)
    for segment in session.exec(select(Segment).where(Segment.brand_id == row.brand_id, col(Segment.rule).is_not(None))):
        if segment.partner_id in (None, row.partner_id):
            _copy(sandbox, segment, created_by_id=None)
    if row.campaign_id is not None:
        _copy(sandbox, session.get_one(Campaign, row.campaign_id), partner_id=row.partner_id, created_by_id=None)
        for blocks in session.exec(
            select(PartnerBlocks).where(PartnerBlocks.campaign_id == row.campaign_id, PartnerBlocks.partner_id == row.partner_id)
        ):
            _copy(sandbox, blocks)
    return copied


def _copy(sandbox: Session, row: _Row, **changes: Any) -> _Row:
    values = {name: getattr(row, name) for name in type(row).model_fields}
    copy = type(row)(**{**values, **changes})
    sandbox.add(copy)
    sandbox.flush()
    return copy


def _contact(sandbox: Session, row: Rehearsal, tester: Tester, definition: JourneyDefinition) -> Contact:
    brand, partner = sandbox.get_one(Brand, row.brand_id), sandbox.get_one(Partner, row.partner_id)
    last_name, first_name = _names(tester.name, tester.language)
    contact = Contact(
        brand_id=row.brand_id,
        partner_id=row.partner_id,
        first_name=first_name,
        last_name=last_name,
        email=tester.email,
        email_key=address_key(tester.email),
        person_key=address_hash(row.brand_id, tester.email),
        phone=UNUSED_PHONE if tester.has_phone else None,
        language=tester.language,
        zone=brand.zone,
        city=partner.city,
        birthday=BIRTHDAY,
        attributes={name: tester.data[name] for name in definition.contact_fields if name in tester.data},
        created_at=row.began_at,
        updated_at=row.began_at,
    )
    sandbox.add(contact)
    sandbox.flush()
    for channel in consent_channels():
        record_consent(sandbox, id_of(contact), channel, given=True, now=row.began_at, source="test")
    return contact


def _names(name: str, language: str) -> tuple[str, str]:
    """Return family name and first name of a full name. The family name comes first in Japanese."""
    first, _, rest = name.strip().partition(" ")
    if not rest:
        return first, ""
    return (first, rest.strip()) if language == "ja" else (rest.strip(), first)


def _enrol(sandbox: Session, row: Rehearsal, version: JourneyVersion, contact: Contact, definition: JourneyDefinition) -> None:
    """Enroll the tester at the start. The journey's entry rules are not applied: a rehearsal tries its steps."""
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
    sandbox.add(enrollment)
    sandbox.flush()
    sandbox.add(TimelineEntry(enrollment_id=id_of(enrollment), at=row.began_at, kind=TimelineKind.entered))
