"""Import of contacts from a CSV or XLSX file, with a report on every line. An import never turns a refusal into consent."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any
from zipfile import BadZipFile, ZipFile

from pydantic import ValidationError
from pydantic_core import PydanticCustomError
from python_calamine import CalamineError, CalamineWorkbook, PasswordError
from sqlmodel import Session, col, select

from distmark.contacts.consents import GROUNDS, consent_state
from distmark.contacts.fields import FIELDS, ContactInput, attribute_name, message, tidy, yes_or_no
from distmark.contacts.mapping import changes, new_contact
from distmark.contacts.model import address_key
from distmark.contacts.people import Addresses, addresses_of, corrected_contacts, follow_addresses, identify, keep_addresses
from distmark.contacts.table import Consent, Contact
from distmark.errors import InvalidInput
from distmark.partners.model import Permission, Viewer
from distmark.partners.service import get_partner, require
from distmark.partners.table import Partner
from distmark.sql import batches, id_of

MOST_BYTES = 30_000_000
MOST_UNPACKED_BYTES = 400_000_000
MOST_LINES = 100_000
MOST_COLUMNS = 200
BATCH = 1000
SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".ods")
CONSENT_CHANNELS = ("email", "sms")

# Field -> headings of its columns, normalised by `_heading`. The first column of a field counts; later ones fill its empty cells.
HEADINGS: Mapping[str, tuple[str, ...]] = {
    "last_name": ("姓", "氏", "名字", "苗字", "lastname", "familyname", "surname"),
    "first_name": ("名", "名前(名)", "firstname", "givenname", "forename"),
    "full_name": ("氏名", "お名前", "名前", "顧客名", "お客様名", "担当者名", "fullname", "name", "contactname"),
    "email": (
        *("メールアドレス", "メール", "eメール", "eメールアドレス", "pcメール", "携帯メール"),
        *("email", "emailaddress", "mail", "mailaddress"),
    ),
    "phone": (
        *("携帯", "携帯電話", "携帯番号", "携帯電話番号", "mobile", "mobilephone", "cell", "cellphone"),
        *("電話", "電話番号", "tel", "telephone", "phone", "phonenumber", "自宅電話"),
    ),
    "company": ("会社", "会社名", "勤務先", "法人名", "企業名", "company", "companyname", "organization", "organisation"),
    "city": ("市区町村", "市町村", "市", "city", "town"),
    "language": ("言語", "使用言語", "language", "lang", "locale"),
    "zone": ("タイムゾーン", "時間帯", "timezone", "zone"),
    "birthday": ("誕生日", "生年月日", "birthday", "birthdate", "dateofbirth", "dob"),
    "kind": ("種別", "kind", "recordtype"),
    "consent_email": ("同意", "メール同意", "メール配信", "メール配信同意", "配信同意", "consent", "emailconsent", "optin", "emailoptin"),
    "consent_sms": ("sms同意", "sms配信", "smsconsent", "smsoptin"),
    "stopped_email": ("配信停止", "メール配信停止", "unsubscribed", "optout", "emailoptout", "donotemail"),
}
FIELD_OF = {heading: name for name, headings in HEADINGS.items() for heading in headings}
NEEDED = ("email", "phone")
NEEDED_SHOWN = "メールアドレス (email) / 電話 (phone)"


@dataclass(frozen=True, slots=True)
class RejectedLine:
    """A rejected line: its number in the file (from 1, including the headings' line), and the reason in both languages."""

    line: int
    field: str
    value: str
    message_en: str
    message_ja: str


@dataclass(frozen=True, slots=True)
class ImportReport:
    """The result of an import, done or previewed: counts of contacts, and the other lines in `rejected`, in the file's order.

    `columns` maps each heading of the file to the field it was read as, or to `attribute:NAME`.
    `kept_refusals` counts contacts that refused before and have a yes in the file: their refusal stands.
    """

    created: int
    updated: int
    unchanged: int
    rejected: list[RejectedLine]
    columns: dict[str, str] = field(default_factory=dict)
    kept_refusals: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """An accepted line of the file. `consents` maps channels to yes or no; a channel with an empty cell is absent."""

    number: int
    written: ContactInput
    consents: Mapping[str, bool]

    @property
    def address(self) -> str:
        """The address by which the contact is found in the partner's book."""
        return address_key(self.written.email or self.written.phone or "")


@dataclass(slots=True)
class _Counts:
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    kept_refusals: int = 0


Progress = Callable[[int, int], None]
Table = tuple[list[str], list[tuple[int, Sequence[Any]]]]  # headings; line number and cells of every line that is not empty


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
    progress: Progress | None = None,
) -> ImportReport:
    """Write every good line of the file into the partner's book and report on all lines; with `dry_run` only report.

    A contact with the same mail address (else phone number) is updated by the cells that are not empty. An earlier refusal stands, whatever
    the file says. `ground` (opt_in, business_card, existing_customer, published_address) records consent to mail on that ground for every
    contact of the file that never said yes or no. `progress` is called with (lines done, lines in all). InvalidInput when the file cannot
    be read at all, naming what was found and what is needed; NotFound for a partner outside the viewer's sight.
    """
    require(viewer, Permission.write_contacts)
    if ground is not None and ground not in GROUNDS:
        raise InvalidInput(f"The ground {ground!r} for writing to these contacts is unknown; use one of {', '.join(GROUNDS)}.")
    partner = get_partner(session, viewer, partner_id)
    # A second import into this book waits, so that it finds the rows of this one; messages of the partner do not wait for this lock.
    session.refresh(partner, with_for_update={"key_share": True})
    headings, rows = read_table(data, filename)
    columns = read_headings(headings)
    lines, rejected = read_lines(columns, rows)
    context, counts = _ImportContext(viewer.user_id, filename, ground, now, dry_run), _Counts()
    done = len(rejected)
    for part in batches(lines, BATCH):
        _import_batch(session, partner, part, context, counts)
        done += len(part)
        if progress:
            progress(done, len(rows))
    shown = {heading: name if name in HEADINGS else f"attribute:{name}" for heading, name in zip(headings, columns, strict=True) if name}
    return ImportReport(counts.created, counts.updated, counts.unchanged, rejected, shown, counts.kept_refusals)


# --- reading the file -----------------------------------------------------------------------------------------------------------------


def read_table(data: bytes, filename: str) -> Table:
    """Return the headings and the lines that are not empty, each with its number; InvalidInput when the file cannot be read."""
    if len(data) > MOST_BYTES:
        raise InvalidInput(f"The file {filename} has {len(data):,} bytes; at most {MOST_BYTES:,} are taken at once, so split it.")
    whole = _spreadsheet(data, filename) if filename.lower().endswith(SPREADSHEETS) else _csv(data, filename)
    filled = ((number, cells) for number, cells in whole if any(cell not in ("", None) and str(cell).strip() for cell in cells))
    rows = list(islice(filled, MOST_LINES + 2))
    if not rows:
        raise InvalidInput(f"The file {filename} is empty; its first line must name the columns, such as 姓, 名, メールアドレス.")
    if len(rows) > MOST_LINES + 1:
        raise InvalidInput(f"The file {filename} has more than {MOST_LINES:,} lines; split it.")
    headings = [tidy(str(cell if cell is not None else "")) for cell in rows[0][1]]
    if len(headings) > MOST_COLUMNS:
        raise InvalidInput(f"The file {filename} has {len(headings)} columns; at most {MOST_COLUMNS} are taken.")
    return headings, rows[1:]


def _csv(data: bytes, filename: str) -> Iterator[tuple[int, Sequence[Any]]]:
    content = _decoded(data, filename)
    first_line = content.split("\n", 1)[0]
    delimiter = max((",", "\t", ";"), key=first_line.count)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    number = 1
    try:
        for cells in reader:
            yield number, cells
            number = reader.line_num + 1  # a quoted cell may hold line breaks: the next line starts after them
    except csv.Error as error:
        raise InvalidInput(f"The file {filename} cannot be read from line {number}: {error}; check the quotation marks there.") from error


def _decoded(data: bytes, filename: str) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif b"\x00" in data:
        raise InvalidInput(f"The file {filename} is not text; save it as CSV or XLSX.")
    else:
        encodings = ["utf-8-sig", "cp932"]
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
    raise InvalidInput(f"The file {filename} is neither UTF-8 nor Shift_JIS (line {line}); save it as CSV in UTF-8.")


def _spreadsheet(data: bytes, filename: str) -> Iterator[tuple[int, Sequence[Any]]]:
    try:
        _check_unpacked_size(data, filename)
        sheets = CalamineWorkbook.from_filelike(io.BytesIO(data))
        rows = sheets.get_sheet_by_index(0).to_python(skip_empty_area=False)
    except PasswordError as error:
        raise InvalidInput(f"The file {filename} is locked with a password; save it without one.") from error
    except (CalamineError, BadZipFile, IndexError, ValueError) as error:
        raise InvalidInput(f"The file {filename} is not a spreadsheet that can be read: {error}; save it as XLSX or CSV.") from error
    yield from enumerate(rows, start=1)


def _check_unpacked_size(data: bytes, filename: str) -> None:
    if not data.startswith(b"PK"):
        return  # .xls is not packed
    with ZipFile(io.BytesIO(data)) as packed:
        size = sum(part.file_size for part in packed.infolist())
    if size > MOST_UNPACKED_BYTES:
        raise InvalidInput(f"The file {filename} unpacks to {size:,} bytes; at most {MOST_UNPACKED_BYTES:,} are taken, so split it.")


def read_headings(headings: Sequence[str]) -> list[str]:
    """Return the field or attribute name of each column, in the file's order; "" for a column without heading.

    InvalidInput when there is neither a mail address nor a phone number among them, naming what was found and what is needed.
    """
    columns = [FIELD_OF.get(_heading(heading)) or (attribute_name(heading) if heading else "") for heading in headings]
    if not any(needed in columns for needed in NEEDED):
        found = ", ".join(heading for heading in headings if heading)
        raise InvalidInput(f"The file has no column of addresses; it has {found}, but needs one of {NEEDED_SHOWN}.")
    return columns


def _heading(written: str) -> str:
    return re.sub(r"[\s_\-・.:*]+", "", tidy(written).lower()).replace("必須", "").replace("()", "").replace("[]", "")


def read_lines(columns: Sequence[str], rows: Iterable[tuple[int, Sequence[Any]]]) -> tuple[list[Line], list[RejectedLine]]:
    """Return the accepted lines and the rejected lines, each in the file's order."""
    lines: list[Line] = []
    rejected: list[RejectedLine] = []
    seen: set[str] = set()
    places = _places(columns)
    for number, cells in rows:
        read = _line(number, places, cells)
        if isinstance(read, Line) and read.address in seen:
            read = _rejected(number, "email" if read.written.email else "phone", "same-address", read.written.email or read.written.phone)
        if isinstance(read, RejectedLine):
            rejected.append(read)
            continue
        seen.add(read.address)
        lines.append(read)
    return lines, rejected


def _places(columns: Sequence[str]) -> dict[str, list[int]]:
    """Return the positions of the columns of each field or attribute, in the file's order."""
    places: dict[str, list[int]] = {}
    for position, name in enumerate(columns):
        if name:
            places.setdefault(name, []).append(position)
    return places


def _line(number: int, places: Mapping[str, list[int]], cells: Sequence[Any]) -> Line | RejectedLine:
    values = {name: value for name, where in places.items() if (value := _first(cells, where)) is not None}
    fields = {name: value for name, value in values.items() if name in FIELDS}
    names = _names(values)
    attributes = {name: value for name, value in values.items() if name not in HEADINGS}
    try:
        written = ContactInput(**names, **fields, **({"attributes": attributes} if attributes else {}))
        consents = _consents(values)
    except ValidationError as error:
        return _rejected_by(number, error)
    except PydanticCustomError as error:
        context = error.context or {}
        return _rejected(number, "consent", str(context["code"]), str(context["value"]))
    if not written.email and not written.phone:
        return _rejected(number, "email", "no-address", "")
    return Line(number, written, consents)


def _first(cells: Sequence[Any], positions: Sequence[int]) -> Any:
    filled = (cells[at] for at in positions if at < len(cells) and cells[at] is not None and str(cells[at]).strip())
    return next(filled, None)


_EAST_ASIAN = re.compile("[\u3040-\u30ff\u3400-\u9fff]")


def _names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return first and last name from a column with the full name: 鈴木 花子 has its family name first, Hanako Suzuki last."""
    if "full_name" not in values or "last_name" in values or "first_name" in values:
        return {}
    whole = tidy(str(values["full_name"]))
    if _EAST_ASIAN.search(whole):
        last, _, first = whole.partition(" ")
    else:
        first, _, last = whole.rpartition(" ")
    return {"first_name": first, "last_name": last}


def _consents(values: Mapping[str, Any]) -> dict[str, bool]:
    consents = {channel: yes_or_no(values.get(f"consent_{channel}")) for channel in CONSENT_CHANNELS}
    if yes_or_no(values.get("stopped_email")):
        consents["email"] = False
    return {channel: given for channel, given in consents.items() if given is not None}


def _rejected_by(number: int, error: ValidationError) -> RejectedLine:
    first = error.errors()[0]
    context = first.get("ctx") or {}
    return _rejected(number, str(first["loc"][0]), str(context.get("code", "bad-attribute")), str(context.get("value", first["input"])))


def _rejected(number: int, name: str, code: str, value: str | None) -> RejectedLine:
    shown = value or ""
    return RejectedLine(number, name, shown, message(code, shown, "en"), message(code, shown, "ja"))


# --- writing --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _ImportContext:
    user_id: int
    filename: str
    ground: str | None
    now: datetime
    dry_run: bool


def _import_batch(session: Session, partner: Partner, lines: Sequence[Line], context: _ImportContext, counts: _Counts) -> None:
    """Insert or update the contacts of one batch of lines, with their consents, by a few statements."""
    known = _known_contacts(session, partner, lines)
    contacts: list[tuple[Contact, Line]] = []
    moved: list[tuple[Contact, Addresses]] = []
    for line in lines:
        contact = known.get(line.address)
        if contact is None:
            counts.created += 1
            contact = new_contact(partner, line.written, context.now)
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
    for channel in CONSENT_CHANNELS:
        _record_consents(session, channel, contacts, context, counts)


def _kept_address(contact: Contact, line: Line) -> ContactInput:
    """Return what the line says of the contact, without a mail address that was corrected since: the file is older than the correction."""
    if contact.email_key == line.address or not line.written.email:
        return line.written
    return line.written.model_copy(update={"email": contact.email})


def _change(contact: Contact, changed: Mapping[str, Any], now: datetime) -> None:
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
    session: Session, channel: str, contacts: Sequence[tuple[Contact, Line]], context: _ImportContext, counts: _Counts
) -> None:
    given_by = [(contact, given) for contact, line in contacts if (given := _given(line, channel, context.ground)) is not None]
    before = consent_state(session, [contact.id for contact, _ in given_by if contact.id is not None], channel)
    for contact, given in given_by:
        earlier = before.get(contact.id) if contact.id is not None else None
        if earlier is False and given:
            counts.kept_refusals += 1
        elif earlier is not given and not context.dry_run:
            session.add(_consent(contact, channel, given, context))
    if not context.dry_run:
        session.flush()


def _given(line: Line, channel: str, ground: str | None) -> bool | None:
    return line.consents.get(channel, True if ground and channel == "email" and line.written.email else None)


def _consent(contact: Contact, channel: str, given: bool, context: _ImportContext) -> Consent:
    if contact.id is None:
        raise ValueError("A contact must be stored before its consent.")
    return Consent(
        contact_id=contact.id,
        channel=channel,
        given=given,
        ground=context.ground or "opt_in",
        source=f"import {context.filename}",
        at=context.now,
        by_user_id=context.user_id,
    )
