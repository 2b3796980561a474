"""Opens and clicks: a message's image is fetched, its links are followed. Verified, judged and recorded once, many at a time."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import func, insert
from sqlmodel import Session, col, select

from distmark.contacts.consents import CLICK_TRACKING, OPEN_TRACKING, TRACKING, refused_by
from distmark.contacts.table import Contact
from distmark.engagement.bot_detection import BURST, Signs, counts_as_human, judge
from distmark.engagement.model import EventKind, Verdict
from distmark.engagement.table import Event
from distmark.enrollments.wakeups import wake_waiting_by_person
from distmark.messages.table import Message
from distmark.sql import among, id_of

_Clicks = dict[int, list[tuple[datetime, str]]]  # message -> when which of its links was followed

AGENT_KEPT = 300
REPEAT_SECONDS = 10
MOST_OF_MESSAGE = 100  # rows of opens and clicks of one message


@dataclass(frozen=True, slots=True)
class Reading:
    """One request for something inside a message: the link named `link`, or its image when there is none."""

    token: str
    at: datetime
    user_agent: str
    link: str | None = None

    @property
    def tracking(self) -> str:
        """The consent without which the reading is not recorded."""
        return OPEN_TRACKING if self.link is None else CLICK_TRACKING

    @property
    def kind(self) -> EventKind:
        return EventKind.opened if self.link is None else EventKind.clicked


def record_readings(session: Session, readings: Sequence[Reading]) -> int:
    """Record opens and clicks, each once in ten seconds for the same reader, wake waiting enrollments, and return how many were new.

    Readings with an unknown token or link are skipped, and those of people with a refusal: of their opens or clicks nothing is recorded.
    Several of one message count in the order of their times. Beyond `MOST_OF_MESSAGE` rows of a message only its first open and the first
    click of each link are kept, so that nobody who has its links can fill the table.
    """
    messages = _locked(session, {reading.token for reading in readings})
    known = sorted((each for each in readings if _is_known(messages, each)), key=lambda each: each.at)
    refused = (
        {channel: refused_by(session, {row.contact_id for row in messages.values()}, channel) for channel in TRACKING} if known else {}
    )
    known = [each for each in known if messages[each.token].contact_id not in refused[each.tracking]]
    if not known:
        return 0
    seen, clicked = _recorded(session, messages, known), _clicked_lately(session, messages, known)
    kept = _kept(session, {id_of(messages[reading.token]) for reading in known})
    rows: list[dict[str, Any]] = []
    for reading in known:
        message = messages[reading.token]
        key = _natural_key(message, reading)
        if key in seen:
            continue
        seen.add(key)
        tells_opens = message.contact_id not in refused[OPEN_TRACKING]
        taken = _taken_in(message, reading, key, _judged(message, reading, clicked), tells_opens=tells_opens)
        if kept[id_of(message)] >= MOST_OF_MESSAGE:
            taken = [row for row in taken if row["first"]]
        kept[id_of(message)] += len(taken)
        rows += taken
    if rows:
        session.flush()
        # Told first: that locks what these people are in, in order. The rows of events refer to it, in theirs.
        _spread(session, rows, known[-1].at)
        session.connection().execute(insert(Event.__table__), rows)  # type: ignore[attr-defined]
    return len(rows)


def _locked(session: Session, tokens: Iterable[str]) -> dict[str, Message]:
    """Return the messages by token, locked in one order: nobody else records anything of theirs meanwhile."""
    wanted = select(Message).where(among(session, col(Message.token), tokens)).order_by(col(Message.id)).with_for_update()
    fresh = session.exec(wanted, execution_options={"populate_existing": True})
    return {message.token: message for message in fresh}


def _is_known(messages: Mapping[str, Message], reading: Reading) -> bool:
    message = messages.get(reading.token)
    return message is not None and (reading.link is None or reading.link in message.links)


def _natural_key(message: Message, reading: Reading) -> str:
    what = f"{reading.kind}:{message.id}" + (f":{reading.link}" if reading.link is not None else "")
    agent = sha256(reading.user_agent.encode()).hexdigest()[:12]
    return f"{what}:{int(reading.at.timestamp()) // REPEAT_SECONDS}:{agent}"


def _recorded(session: Session, messages: Mapping[str, Message], readings: Sequence[Reading]) -> set[str]:
    keys = {_natural_key(messages[reading.token], reading) for reading in readings}
    return set(session.exec(select(Event.natural_key).where(among(session, col(Event.natural_key), keys))))


def _kept(session: Session, message_ids: Iterable[int]) -> Counter[int]:
    """Return how many rows of opens and clicks there are of each of these messages."""
    ids = list(message_ids)
    read = col(Event.kind).in_((EventKind.opened, EventKind.clicked))
    counted = select(Event.message_id, func.count()).where(among(session, col(Event.message_id), ids), read)
    return Counter({message_id: count for message_id, count in session.exec(counted.group_by(col(Event.message_id))) if message_id})


def _clicked_lately(
    session: Session, messages: Mapping[str, Message], readings: Sequence[Reading]
) -> dict[int, list[tuple[datetime, str]]]:
    """Return when which links of the clicked messages were followed, as far back as a burst of clicks may reach; more are added to it."""
    clicks = [reading for reading in readings if reading.link is not None]
    clicked: _Clicks = {}
    if clicks:
        ids = {id_of(messages[reading.token]) for reading in clicks}
        recent = select(Event.message_id, Event.at, Event.link).where(
            among(session, col(Event.message_id), ids), Event.kind == EventKind.clicked, col(Event.at) >= clicks[0].at - BURST
        )
        for message_id, at, link in session.exec(recent):
            clicked.setdefault(message_id or 0, []).append((at, link))
    return clicked


def _judged(message: Message, reading: Reading, clicked: _Clicks) -> Verdict:
    since_sent = reading.at - message.sent_at if message.sent_at else None
    if reading.link is None:
        return judge(Signs(reading.user_agent, since_sent, is_open=True))
    lately = clicked.setdefault(id_of(message), [])
    lately.append((reading.at, reading.link))
    burst = {link for at, link in lately if at >= reading.at - BURST}
    return judge(Signs(reading.user_agent, since_sent, links_in_burst=len(burst)))


def _taken_in(message: Message, reading: Reading, key: str, verdict: Verdict, *, tells_opens: bool) -> list[dict[str, Any]]:
    """Mark the readings on the message, and return the rows of its events; a click implies an open where opens may be recorded."""
    human, link, at = counts_as_human(verdict), reading.link, reading.at
    if link is None:
        first = human and message.opened_at is None
        if human:
            message.opened_at = message.opened_at or at
        else:
            message.machine_opened_at = message.machine_opened_at or at
        return [_row(message, reading, key, verdict, first=first)]
    row = _row(message, reading, key, verdict, first=human and link not in message.clicks)
    if not human:
        return [row]
    implied = []
    if message.opened_at is None and tells_opens:  # images are often off; a person who clicked has read it
        opened = {"kind": EventKind.opened, "link": "", "user_agent": "", "data": {"implied": True}, "first": True}
        implied = [row | opened | {"natural_key": f"opened:{message.id}:implied", "verdict": Verdict.human}]
        message.opened_at = at
    message.clicked_at = message.clicked_at or at
    message.clicks = {link: at.isoformat(), **message.clicks}
    return [*implied, row]


def _row(message: Message, reading: Reading, key: str, verdict: Verdict, *, first: bool) -> dict[str, Any]:
    return {
        "natural_key": key,
        "kind": reading.kind,
        "name": "",
        "verdict": verdict,
        "at": reading.at,
        "received_at": reading.at,
        "brand_id": message.brand_id,
        "partner_id": message.partner_id,
        "contact_id": message.contact_id,
        "enrollment_id": message.enrollment_id,
        "message_id": message.id,
        "link": reading.link or "",
        "value": None,
        "data": {},
        "user_agent": reading.user_agent[:AGENT_KEPT],
        "first": first,
        "rolled": False,
    }


def _spread(session: Session, rows: Sequence[Mapping[str, Any]], now: datetime) -> None:
    """Wake the enrollments that an open or click by a person, not a machine, may move."""
    people = select(Contact.id, Contact.person_key).where(among(session, col(Contact.id), {row["contact_id"] for row in rows}))
    keys = {contact_id: person_key for contact_id, person_key in session.exec(people)}  # noqa: C416  (rows are no tuples to mypy)
    triggers: dict[int, dict[str, set[str]]] = {}
    for row in rows:
        kinds = triggers.setdefault(row["brand_id"], {}).setdefault(keys[row["contact_id"]], set())
        if counts_as_human(row["verdict"]):
            kinds.add(row["kind"].value)
    for brand_id in sorted(triggers):
        wake_waiting_by_person(session, brand_id, triggers[brand_id], now)
