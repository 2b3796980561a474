"""Import of contacts from a CSV or spreadsheet file, with a report on every line. An import never turns a refusal into consent."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Any

from sqlalchemy import insert
from sqlmodel import Session, col, select

from distmark.channels.kind import AddressForm
from distmark.channels.registry import CHANNELS
from distmark.contacts.consents import check_ground, consent_state, suppressed
from distmark.contacts.fields import ContactInput
from distmark.contacts.files import read_table
from distmark.contacts.headings import COLUMN_FIELDS, read_headings
from distmark.contacts.lines import Line, OmittedCell, RejectedLine, consent_keys, reached_at, read_lines
from distmark.contacts.mapping import changes, new_contact
from distmark.contacts.model import address_hash
from distmark.contacts.people import Addresses, addresses_of, corrected_contacts, follow_addresses, identify, keep_addresses
from distmark.contacts.table import Consent, Contact
from distmark.db import Database
from distmark.partners.model import Permission, Viewer
from distmark.partners.service import get_partner, require
from distmark.partners.table import Partner
from distmark.sql import batches, id_of

BATCH = 250  # most lines in one unit of work
FIRST_LINES, FEWEST_LINES = 100, 10
LONGEST_UNIT_SECONDS = 0.08  # beyond that, the next unit of work has fewer lines
PAUSE_SECONDS = 0.06  # between units of work: SQLite's waiting writers look for the lock every 50 ms, and only one can have it

_turn = Lock()  # imports at once take turns with their pauses, so that they leave as much time to other writers as one of them


@dataclass(frozen=True, slots=True)
class ImportReport:
    """The result of an import, done or previewed: counts of contacts, and the other lines in `rejected`, in the file's order.

    `columns` maps each heading of the file to the field it was read as, or to `attribute:NAME`. `omitted` are cells of accepted lines that
    were left out. `refusals` counts contacts of which a refusal was recorded. `kept_refusals` counts contacts that refused before and have
    a yes in the file: their refusal stands.
    """

    created: int
    updated: int
    unchanged: int
    rejected: list[RejectedLine]
    columns: dict[str, str] = field(default_factory=dict)
    kept_refusals: int = 0
    refusals: int = 0
    omitted: list[OmittedCell] = field(default_factory=list)


Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class _File:
    """A file that was read: its accepted and rejected lines, omitted cells and columns as in the report, and how many lines it has."""

    lines: list[Line]
    rejected: list[RejectedLine]
    omitted: list[OmittedCell]
    columns: dict[str, str]
    total: int


@dataclass(slots=True)
class _Counts:
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    kept_refusals: int = 0
    refusals: int = 0

    def show(self, progress: Progress | None, file: _File) -> None:
        """Call `progress` with how many lines are done."""
        if progress:
            progress(len(file.rejected) + self.created + self.updated + self.unchanged, file.total)

    def report(self, file: _File) -> ImportReport:
        """Return the report of the whole import."""
        return ImportReport(
            self.created,
            self.updated,
            self.unchanged,
            file.rejected,
            file.columns,
            self.kept_refusals,
            self.refusals,
            file.omitted,
        )


@dataclass(frozen=True, slots=True)
class _ImportContext:
    user_id: int
    filename: str
    ground: str | None
    channels: tuple[str, ...]  # for which the ground counts
    now: datetime
    dry_run: bool


def import_contacts(
    session: Session,
    viewer: Viewer,
    partner_id: int,
    data: bytes,
    filename: str,
    now: datetime,
    dry_run: bool = False,
    *,
    ground: str | None = None,
    channels: Sequence[str] = ("email",),
    progress: Progress | None = None,
) -> ImportReport:
    """Write every good line of the file into the partner's book and report on all lines; with `dry_run` only report.

    A contact with the same mail address (else phone number) is updated by the cells that are not empty. An earlier refusal stands, whatever
    the file says, and a refusal in the file is recorded whatever else is wrong with its line. `ground` (opt_in, business_card,
    existing_customer, published_address) records consent on that ground, for these channels, for every contact of the file that never said
    yes or no and is not suppressed. `progress` is called with (lines done, lines in all). InvalidInput when the file cannot be read at all,
    naming what was found and what is needed, or when the ground covers no such channel; NotFound for a partner outside the viewer's sight.

    All of it is in the caller's unit of work. `import_file` writes large files without keeping others from writing.
    """
    context = _context(viewer, filename, ground, channels, now, dry_run)
    get_partner(session, viewer, partner_id)
    file = _read_file(data, filename)
    counts = _Counts()
    partner = _partner(session, viewer, partner_id, context)
    for part in batches(file.lines, BATCH):
        _import_batch(session, partner, part, _new_contacts(partner, part, context), context, counts)
        counts.show(progress, file)
    return counts.report(file)


def import_file(
    db: Database,
    viewer: Viewer,
    partner_id: int,
    data: bytes,
    filename: str,
    now: datetime,
    dry_run: bool = False,
    *,
    ground: str | None = None,
    channels: Sequence[str] = ("email",),
    progress: Progress | None = None,
) -> ImportReport:
    """Import as `import_contacts` does, in many short units of work: other writers wait for one of them at most.

    The file is read before the first of them, and a dry run only reads. What an interrupted import has written stays; importing the file
    again writes the rest.
    """
    context = _context(viewer, filename, ground, channels, now, dry_run)
    with db.reading() as session:
        partner = get_partner(session, viewer, partner_id)
    file = _read_file(data, filename)
    counts, position, size = _Counts(), 0, FIRST_LINES
    while position < len(file.lines):
        part = file.lines[position : position + size]
        new = _new_contacts(partner, part, context)
        in_turn = db.is_sqlite and not dry_run
        with _turn if in_turn else nullcontext():
            with _unit_of_work(db, dry_run) as session:
                begun = time.perf_counter()
                _import_batch(session, _partner(session, viewer, partner_id, context), part, new, context, counts)
            seconds = time.perf_counter() - begun
            time.sleep(PAUSE_SECONDS if in_turn else 0)
        position, size = position + len(part), _next_size(size, seconds)
        counts.show(progress, file)
    return counts.report(file)


def _next_size(size: int, seconds: float) -> int:
    """Return how many lines the next unit of work takes after one of `size` lines took so long: a slow machine gets smaller ones."""
    return min(BATCH, max(FEWEST_LINES, int(size * min(2.0, LONGEST_UNIT_SECONDS / max(seconds, 0.001)))))


def _new_contacts(partner: Partner, lines: Sequence[Line], context: _ImportContext) -> list[Contact]:
    """Return the row of each line for the case that it is new: made before a unit of work, since that takes half of its time."""
    return [new_contact(partner, line.written, context.now) for line in lines]


def _context(viewer: Viewer, filename: str, ground: str | None, channels: Sequence[str], now: datetime, dry_run: bool) -> _ImportContext:
    require(viewer, Permission.write_contacts)
    if ground is not None:
        check_ground(ground, channels)
    return _ImportContext(viewer.user_id, filename, ground, tuple(channels), now, dry_run)


def _read_file(data: bytes, filename: str) -> _File:
    headings, rows = read_table(data, filename)
    columns = read_headings(headings)
    shown = {
        heading: name if name in COLUMN_FIELDS else f"attribute:{name}" for heading, name in zip(headings, columns, strict=True) if name
    }
    omitted: list[OmittedCell] = []
    lines, rejected = read_lines(columns, rows, headings, omitted)
    return _File(lines, rejected, omitted, shown, len(rows))


def _unit_of_work(db: Database, dry_run: bool) -> AbstractContextManager[Session]:
    return db.reading() if dry_run else db.writing()


def _partner(session: Session, viewer: Viewer, partner_id: int, context: _ImportContext) -> Partner:
    partner = get_partner(session, viewer, partner_id)
    if not context.dry_run:
        # A second import into this book waits, so that it finds the rows of this one; messages of the partner do not wait for this lock.
        session.refresh(partner, with_for_update={"key_share": True})
    return partner


def _import_batch(
    session: Session, partner: Partner, lines: Sequence[Line], new: Sequence[Contact], context: _ImportContext, counts: _Counts
) -> None:
    """Insert or update the contacts of one batch of lines, with their consents, by a few statements; `new` has the row of each new one."""
    known = _known_contacts(session, partner, lines)
    contacts: list[tuple[Contact, Line]] = []
    moved: list[tuple[Contact, Addresses]] = []
    for line, row in zip(lines, new, strict=True):
        contact = known.get(line.address)
        if contact is None:
            counts.created += 1
            contact = row
        elif changed := changes(contact, _kept_address(contact, line)):
            counts.updated += 1
            if not context.dry_run:
                moved.append((contact, addresses_of(contact)))
                _change(contact, changed, context.now)
        else:
            counts.unchanged += 1
        contacts.append((contact, line))
    if not context.dry_run:
        with session.no_autoflush:
            named = identify(session, [contact for contact, _ in contacts if contact.id is None])
        session.add_all(contact for contact, _ in contacts)
        session.flush()
        keep_addresses(session, named, context.now)
        follow_addresses(session, moved, context.now)
    refusing: set[int] = set()
    for channel in consent_keys():
        refusing |= _record_consents(session, partner, channel, contacts, context, counts)
    counts.refusals += len(refusing)


def _kept_address(contact: Contact, line: Line) -> ContactInput:
    """Return the contact's fields in the line, without a mail address corrected since: the file is older than the correction."""
    if contact.email_key == line.address or not line.written.email:
        return line.written
    return line.written.model_copy(update={"email": contact.email})


def _change(contact: Contact, changed: Mapping[str, object], now: datetime) -> None:
    for name, value in changed.items():
        setattr(contact, name, value)
    contact.updated_at = now


def _known_contacts(session: Session, partner: Partner, lines: Sequence[Line]) -> dict[str, Contact]:
    """Return the book's contacts that these lines update, by address."""
    known: dict[str, Contact] = {}
    of_partner = select(Contact).where(Contact.partner_id == partner.id, col(Contact.erased_at).is_(None))
    for keys in batches(line.address for line in lines if line.written.email):
        now_known = session.exec(of_partner.where(col(Contact.email_key).in_(keys)))
        by_email = {contact.email_key or "": contact for contact in now_known}
        known.update(corrected_contacts(session, id_of(partner), set(keys) - by_email.keys()) | by_email)
    by_phone = {line.address: line for line in lines if not line.written.email}
    for phones in batches(by_phone):
        for contact in session.exec(of_partner.where(col(Contact.phone).in_(phones)).order_by(col(Contact.id).desc())):
            line = by_phone[contact.phone or ""]
            # Families share a number: a contact that has a mail address is the same one only if the name is the same, too.
            if contact.email_key is None or _same_name(contact, line.written):
                known[line.address] = contact
    return known


def _same_name(contact: Contact, written: ContactInput) -> bool:
    return (contact.last_name, contact.first_name) == (written.last_name, written.first_name)


def _record_consents(
    session: Session, partner: Partner, channel: str, contacts: Sequence[tuple[Contact, Line]], context: _ImportContext, counts: _Counts
) -> set[int]:
    """Record the consents of these lines for `channel`, and return the numbers of the contacts that refuse it from now on."""
    stopped = _suppressed_addresses(session, partner, channel, contacts, context)
    given_by = [
        (number, contact, line, given)
        for number, (contact, line) in enumerate(contacts)
        if (given := _given(line, channel, context, stopped)) is not None
    ]
    before = consent_state(session, [contact.id for _, contact, _, _ in given_by if contact.id is not None], channel)
    refusing: set[int] = set()
    rows: list[dict[str, Any]] = []
    for number, contact, line, given in given_by:
        earlier = before.get(contact.id) if contact.id is not None else None
        if earlier is False and given:
            counts.kept_refusals += 1
        elif earlier is not given:
            if not given:
                refusing.add(number)
            if not context.dry_run:
                rows.append(_consent(contact, channel, given, line, context))
    rows += _opt_outs_of_shared_addresses(session, partner, channel, contacts, context)
    if rows:
        session.execute(insert(Consent), rows)
    return refusing


def _given(line: Line, channel: str, context: _ImportContext, stopped: set[str]) -> bool | None:
    if channel in line.consents:
        return line.consents[channel]
    address = reached_at(line.written, channel)
    covered = context.ground is not None and channel in context.channels and address is not None and address not in stopped
    return True if covered else None


def _suppressed_addresses(
    session: Session, partner: Partner, channel: str, contacts: Sequence[tuple[Contact, Line]], context: _ImportContext
) -> set[str]:
    """Return the addresses of these lines that are suppressed on `channel`: no ground is recorded for them."""
    if context.ground is None or channel not in context.channels:
        return set()
    addresses = [address for _, line in contacts if (address := reached_at(line.written, channel))]
    hashes = suppressed(session, partner.brand_id, channel, addresses, marketing=True)
    return {address for address in addresses if address_hash(partner.brand_id, address) in hashes}


def _opt_outs_of_shared_addresses(
    session: Session, partner: Partner, channel: str, contacts: Sequence[tuple[Contact, Line]], context: _ImportContext
) -> list[dict[str, Any]]:
    """Return the refusals of phone numbers for the other contacts of the book that have the same number: it is one phone."""
    kind = next(kind for kind in CHANNELS.values() if kind.consent == channel)
    if kind.form is not AddressForm.phone or context.dry_run:
        return []
    rows: list[dict[str, Any]] = []
    lines = {line.written.phone: line for _, line in contacts if line.written.phone and line.consents.get(channel) is False}
    own = {contact.id for contact, _ in contacts}
    for phones in batches(lines):
        same = select(Contact).where(Contact.partner_id == partner.id, col(Contact.erased_at).is_(None), col(Contact.phone).in_(phones))
        others = [contact for contact in session.exec(same) if contact.id not in own]
        state = consent_state(session, [contact.id for contact in others if contact.id is not None], channel)
        for contact in others:
            if contact.id is not None and state[contact.id] is not False:
                rows.append(_consent(contact, channel, False, lines[contact.phone or ""], context))
    return rows


def _consent(contact: Contact, channel: str, given: bool, line: Line, context: _ImportContext) -> dict[str, Any]:
    asked = given and channel in line.consents  # the file says that the contact agreed: no other ground is needed
    return {
        "contact_id": id_of(contact),
        "channel": channel,
        "given": given,
        "ground": "opt_in" if asked else context.ground or "opt_in",
        "source": f"import {context.filename}",
        "at": context.now,
        "by_user_id": context.user_id,
    }
