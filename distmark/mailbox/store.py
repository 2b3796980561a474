"""Caught messages in a small SQLite file of their own, readable and writable by several processes at once.

Taking a message in is kept short: the raw bytes are stored and read (decoded) later, by whoever looks or by the idle catcher.
"""

import json
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from enum import StrEnum
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from distmark.clock import aware
from distmark.errors import NotFound

BUSY_SECONDS = 30.0
LONGEST_SEARCH = 200  # characters; SQLite refuses a pattern of tens of thousands
PAGE_SIZE = 50

_MESSAGE_ID = re.compile(rb"^message-id:[ \t]*(?:\r?\n[ \t]+)?([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_FOLD = re.compile(r"\r?\n(?=[ \t])")
_ENCODED_WORDS = re.compile(r"=\?[^?\s]+\?[BbQq]\?[^?]*\?=(?:\s+=\?[^?\s]+\?[BbQq]\?[^?]*\?=)*")
_URL = re.compile(r"https?://[^\s<>\"'）」』】、。]+")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS item (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    at TEXT NOT NULL,
    sender TEXT NOT NULL,
    recipient TEXT NOT NULL COLLATE NOCASE,
    message_id TEXT NOT NULL,
    raw BLOB NOT NULL,
    subject TEXT,
    from_shown TEXT,
    to_shown TEXT,
    text TEXT,
    html TEXT,
    headers TEXT
);
CREATE INDEX IF NOT EXISTS item_recipient ON item (recipient, id);
CREATE INDEX IF NOT EXISTS item_kind ON item (kind, id);
CREATE INDEX IF NOT EXISTS item_unread ON item (id) WHERE headers IS NULL;
CREATE TABLE IF NOT EXISTS accepted (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    kind TEXT NOT NULL,
    message_id TEXT NOT NULL,
    recipients TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS accepted_message ON accepted (message_id, recipients);
"""
_COLUMNS = "id, kind, at, sender, recipient, message_id, subject, from_shown, to_shown, text, html, headers"


class MessageKind(StrEnum):
    """The kind of a caught message."""

    mail = "mail"
    sms = "sms"


@dataclass(frozen=True, slots=True)
class Incoming:
    """One accepted conversation: the envelope, and the raw mail or the text of an SMS in UTF-8."""

    kind: MessageKind
    sender: str
    recipients: tuple[str, ...]
    at: datetime
    raw: bytes
    message_id: str = ""  # empty: taken from the mail's header


@dataclass(frozen=True)
class MailboxItem:
    """One message as one recipient got it, decoded.

    `sender` and `recipient` are the envelope's, `from_shown` and `to_shown` the header's.
    """

    id: int
    kind: MessageKind
    at: datetime
    sender: str
    recipient: str
    message_id: str
    subject: str
    from_shown: str
    to_shown: str
    text: str
    html: str
    headers: tuple[tuple[str, str], ...]  # decoded, in the order of the message

    @cached_property
    def links(self) -> tuple[str, ...]:
        """Every link of the HTML, in order, with its entities decoded; of the text where there is no HTML."""
        return _links_of_html(self.html) if self.html else tuple(_URL.findall(self.text))

    def header(self, name: str) -> str:
        """Return the first header field of that name, or an empty text."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")


@dataclass(frozen=True, slots=True)
class Accepted:
    """One message answered for: the 250 of a mail, the receipt of an SMS. These stay when the mailbox is emptied."""

    id: int
    at: datetime
    kind: MessageKind
    message_id: str
    recipients: tuple[str, ...]


class MailboxStore:
    """The mailbox in the file at `path`, made when it is not there. Usable from any thread; each process opens its own."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._connection = _open(self.path)

    def close(self) -> None:
        """Leave the file closed."""
        with self._lock:
            self._connection.close()

    def add(self, raw: bytes, sender: str, recipients: Sequence[str], at: datetime) -> list[int]:
        """Store one mail durably; return one id for each recipient."""
        return self.add_many([Incoming(MessageKind.mail, sender, tuple(recipients), at, raw)])

    def add_sms(self, text: str, sender: str, recipient: str, at: datetime, message_id: str = "") -> int:
        """Store one SMS durably; return its id."""
        return self.add_many([Incoming(MessageKind.sms, sender, (recipient,), at, text.encode(), message_id)])[0]

    def add_many(self, arrived: Sequence[Incoming]) -> list[int]:
        """Store all of them in one transaction that is on the disk when this returns; return one id for each recipient, in order."""
        ids: list[int] = []
        with self._lock, _writing(self._connection) as connection:
            for incoming in arrived:
                ids += _insert(connection, incoming)
        return ids

    def page(
        self, *, before: int | None = None, limit: int = PAGE_SIZE, recipient: str = "", kind: MessageKind | None = None, text: str = ""
    ) -> list[MailboxItem]:
        """Return at most `limit` items, newest first, older than the item `before`.

        `recipient` is a whole address, `text` a part of the subject, names, addresses or body; letter case does not matter.
        """
        where, values = self._filter(recipient, kind, text)
        if before is not None:
            where, values = [*where, "id < ?"], [*values, before]
        return self._items(f"{_where(where)} ORDER BY id DESC LIMIT ?", [*values, limit])

    def since(self, item_id: int, *, limit: int = 1000) -> list[MailboxItem]:
        """Return at most `limit` items that came after the item `item_id` (0: all), oldest first."""
        return self._items("WHERE id > ? ORDER BY id LIMIT ?", [item_id, limit])

    def get(self, item_id: int) -> MailboxItem:
        """Return one item. Errors: NotFound."""
        found = self._items("WHERE id = ?", [item_id])
        if not found:
            raise NotFound(f"The mailbox has no message {item_id}; it may have been emptied since.")
        return found[0]

    def raw(self, item_id: int) -> bytes:
        """Return one item's bytes as they came over the wire. Errors: NotFound."""
        row = self._one("SELECT raw FROM item WHERE id = ?", [item_id])
        if row is None:
            raise NotFound(f"The mailbox has no message {item_id}; it may have been emptied since.")
        return bytes(row[0])

    def count(self, *, recipient: str = "", kind: MessageKind | None = None, text: str = "") -> int:
        """Return how many items there are, by the filters of `page`."""
        where, values = self._filter(recipient, kind, text)
        row = self._one(f"SELECT count(*) FROM item {_where(where)}", values)  # noqa: S608 - conditions are constants
        return int(row[0]) if row else 0

    def newest_id(self) -> int:
        """Return the id of the newest item, 0 when there is none."""
        row = self._one("SELECT max(id) FROM item", [])
        return int(row[0] or 0) if row else 0

    def clear(self) -> None:
        """Remove every item; ids go on rising and the log of accepted messages stays."""
        with self._lock, _writing(self._connection) as connection:
            connection.execute("DELETE FROM item")

    def accepted(self, *, after: int = 0, limit: int = 1_000_000) -> list[Accepted]:
        """Return the log of accepted messages, oldest first."""
        rows = self._all("SELECT id, at, kind, message_id, recipients FROM accepted WHERE id > ? ORDER BY id LIMIT ?", [after, limit])
        return [Accepted(row[0], datetime.fromisoformat(row[1]), MessageKind(row[2]), row[3], tuple(row[4].split(", "))) for row in rows]

    def accepted_count(self) -> int:
        """Return how many messages were ever accepted here."""
        row = self._one("SELECT count(*) FROM accepted", [])
        return int(row[0]) if row else 0

    def duplicates(self) -> dict[str, int]:
        """Return Message-ID -> how often it was accepted, for those accepted more than once by the same recipients."""
        rows = self._all("SELECT message_id, count(*) FROM accepted GROUP BY message_id, recipients HAVING count(*) > 1", [])
        return {row[0]: row[1] for row in rows}

    def read_waiting(self, limit: int = 100) -> int:
        """Decode at most `limit` messages that nobody has looked at yet; return how many there were."""
        with self._lock:
            rows = self._all("SELECT id, raw FROM item WHERE headers IS NULL ORDER BY id LIMIT ?", [limit])
            self._read(rows)
        return len(rows)

    def _filter(self, recipient: str, kind: MessageKind | None, text: str) -> tuple[list[str], list[object]]:
        where: list[str] = []
        values: list[object] = []
        if recipient:
            where, values = [*where, "recipient = ?"], [*values, recipient.strip()]
        if kind is not None:
            where, values = [*where, "kind = ?"], [*values, kind.value]
        if text:
            while self.read_waiting():
                pass
            columns = ("subject", "from_shown", "to_shown", "sender", "recipient", "text", "html")
            where.append("(" + " OR ".join(f"{column} LIKE ? ESCAPE '\\'" for column in columns) + ")")
            values += [_containing(text)] * len(columns)
        return where, values

    def _items(self, rest: str, values: Sequence[object]) -> list[MailboxItem]:
        query = f"SELECT {_COLUMNS} FROM item {rest}"  # noqa: S608 - both parts are constants
        with self._lock:
            rows = self._all(query, values)
            unread = [row[0] for row in rows if row[11] is None]
            if unread:
                marks = ",".join("?" * len(unread))
                self._read(self._all(f"SELECT id, raw FROM item WHERE id IN ({marks})", unread))  # noqa: S608 - question marks
                rows = self._all(query, values)
        return [_item(row) for row in rows if row[11] is not None]

    def _read(self, rows: Sequence[tuple[int, bytes]]) -> None:
        if not rows:
            return
        decoded = [(*_decode(raw), item_id) for item_id, raw in rows]
        with _writing(self._connection) as connection:
            connection.executemany(
                "UPDATE item SET subject = ?, from_shown = ?, to_shown = ?, text = ?, html = ?, headers = ? WHERE id = ?", decoded
            )

    def _one(self, query: str, values: Sequence[object]) -> Any:
        with self._lock:
            return self._connection.execute(query, values).fetchone()

    def _all(self, query: str, values: Sequence[object]) -> list[Any]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    _use_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")  # a 250 is a promise: the row must survive a power cut
    with _writing(connection):
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    # The switch to WAL does not wait for other openers as everything else does, so several processes starting at once take turns here.
    for attempt in range(100):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if attempt == 99:
                raise
            time.sleep(0.05)


@contextmanager
def _writing(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _insert(connection: sqlite3.Connection, incoming: Incoming) -> list[int]:
    at, message_id = aware(incoming.at).isoformat(), incoming.message_id or _message_id(incoming.raw)
    is_sms = incoming.kind is MessageKind.sms
    read = ("", incoming.sender, "", incoming.raw.decode("utf-8", "replace"), "", "[]") if is_sms else (None,) * 6
    ids: list[int] = []
    for recipient in incoming.recipients:
        cursor = connection.execute(
            "INSERT INTO item (kind, at, sender, recipient, message_id, raw, subject, from_shown, to_shown, text, html, headers)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (incoming.kind.value, at, incoming.sender, recipient, message_id, incoming.raw, *read),
        )
        ids.append(cursor.lastrowid or 0)
    connection.execute(
        "INSERT INTO accepted (at, kind, message_id, recipients) VALUES (?, ?, ?, ?)",
        (at, incoming.kind.value, message_id, ", ".join(incoming.recipients)),
    )
    return ids


def _message_id(raw: bytes) -> str:
    found = _MESSAGE_ID.search(raw.partition(b"\r\n\r\n")[0])
    return found.group(1).decode("utf-8", "replace").strip() if found else ""


def _decode(raw: bytes) -> tuple[str, str, str, str, str, str]:
    # `compat32`, since the newer policies take ten times as long to read the headers.
    message = message_from_bytes(raw)
    headers = [(name, _shown(str(value))) for name, value in message.raw_items()]
    first = {name.lower(): value for name, value in reversed(headers)}
    text, html = _body(message, "text/plain"), _body(message, "text/html")
    return first.get("subject", ""), first.get("from", ""), first.get("to", ""), text, html, json.dumps(headers)


def _shown(value: str) -> str:
    # The parser leaves bytes beyond ASCII as surrogates; SMTPUTF8 mail has UTF-8 there.
    unfolded = _FOLD.sub("", value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return _ENCODED_WORDS.sub(_decoded_words, unfolded)


def _decoded_words(words: re.Match[str]) -> str:
    try:
        return str(make_header(decode_header(words.group())))
    except (LookupError, UnicodeError, HeaderParseError):  # an unknown or wrong charset: better shown as it came than not at all
        return words.group()


def _body(message: Message, kind: str) -> str:
    for part in message.walk():
        if part.get_content_type() == kind and part.get_content_disposition() != "attachment":
            return _text(part)
    return ""


def _text(part: Message) -> str:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    try:
        text = data.decode(part.get_content_charset("utf-8"), "replace")
    except LookupError:  # a charset that Python does not know
        text = data.decode("utf-8", "replace")
    return text.replace("\r\n", "\n")


def _item(row: Sequence[Any]) -> MailboxItem:
    (item_id, kind, at, sender, recipient, message_id, subject, from_shown, to_shown, text, html, headers) = row
    return MailboxItem(
        id=item_id,
        kind=MessageKind(kind),
        at=datetime.fromisoformat(at),
        sender=sender,
        recipient=recipient,
        message_id=message_id,
        subject=subject,
        from_shown=from_shown,
        to_shown=to_shown,
        text=text,
        html=html,
        headers=tuple((name, value) for name, value in json.loads(headers)),
    )


def _where(conditions: Sequence[str]) -> str:
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


def _containing(text: str) -> str:
    escaped = re.sub(r"([%_\\])", r"\\\1", text[:LONGEST_SEARCH])
    return f"%{escaped}%"


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"a", "area"}:
            self.found += [value for name, value in attrs if name == "href" and value]


def _links_of_html(html: str) -> tuple[str, ...]:
    parser = _Links()
    parser.feed(html)
    parser.close()
    return tuple(parser.found)
