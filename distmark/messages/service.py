"""The ledger: claiming a message before it is handed over, recording what became of it, and showing it to people."""

import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Table, bindparam, insert, update
from sqlmodel import Session, col, select

from distmark.campaigns.service import get_campaign
from distmark.campaigns.table import Member
from distmark.contacts.service import get_contact
from distmark.contacts.table import Contact
from distmark.enrollments.table import Enrollment
from distmark.errors import NotFound, Refused
from distmark.journeys.definition import JourneyDefinition, all_steps
from distmark.journeys.model import SendMessage
from distmark.journeys.service import newest_registered, program_of, source_of
from distmark.messages.compose import Person, blocks_of, compiled, from_name, language_of, render_for, to_name
from distmark.messages.model import MAY_HAVE_ARRIVED, MessageStatus
from distmark.messages.table import Attempt, Message
from distmark.partners.model import Permission, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import require
from distmark.partners.table import Brand, Partner
from distmark.sql import among, id_of

_TOKEN = re.compile(r"[A-Za-z0-9_-]{0,22}")
TOKEN_BYTES = 16  # 128 random bits, 22 characters: the unsubscribe URL stays short enough for every header rule


@dataclass(frozen=True, slots=True)
class BlockShown:
    """One editable block beside a preview: what it says, and which layer says so."""

    name: str
    label: str
    value: str
    layer: str
    kind: str
    max_length: int
    editable: bool


@dataclass(frozen=True, slots=True)
class Preview:
    """The message that one person would get from one step, were it sent now."""

    step_id: str
    channel: str
    language: str
    subject: str
    html: str
    text: str
    from_name: str
    to_name: str
    blocks: tuple[BlockShown, ...]
    size_bytes: int
    link_count: int
    too_large: bool


def written_at(
    session: Session, brand_id: int, person_keys: Collection[str], since: datetime, *, channel: str | None = None, marketing: bool = False
) -> dict[str, list[datetime]]:
    """Return the times since then at which each person was written to, the earliest first, over all journeys, partners and addresses.

    A message that is on its way counts, and one that may have arrived. `channel` and `marketing` leave out other messages.
    """
    rows = (
        select(Contact.person_key, Message.sent_at, Message.sending_at)
        .join(Contact, col(Contact.id) == col(Message.contact_id))
        .where(
            Contact.brand_id == brand_id,
            among(session, col(Contact.person_key), sorted(set(person_keys))),
            col(Message.status).in_(MAY_HAVE_ARRIVED),
            col(Message.sending_at) >= since,
        )
    )
    if channel is not None:
        rows = rows.where(Message.channel == channel)
    if marketing:
        rows = rows.where(col(Message.marketing).is_(True))
    times: dict[str, list[datetime]] = {}
    for person_key, sent_at, sending_at in session.exec(rows):
        if at := sent_at or sending_at:
            times.setdefault(person_key, []).append(at)
    return {person_key: sorted(found) for person_key, found in times.items()}


def new_row(
    enrollment: Enrollment,
    effect: SendMessage,
    visit: int,
    *,
    language: str,
    marketing: bool,
    header_id: str,
    claimed_by: str,
    now: datetime,
) -> dict[str, Any]:
    """Return the ledger row of this enrollment's visit to the step, as `sending`: the intent, written before the effect.

    `header_id` is the Message-ID, derived from the enrollment, step and visit, so that every attempt carries the same.
    """
    return {
        "token": secrets.token_urlsafe(TOKEN_BYTES),
        "header_id": header_id,
        "enrollment_id": id_of(enrollment),
        "step_id": effect.step_id,
        "visit": visit,
        "brand_id": enrollment.brand_id,
        "partner_id": enrollment.partner_id,
        "contact_id": enrollment.contact_id,
        "campaign_id": enrollment.campaign_id,
        "version_id": enrollment.version_id,
        "channel": effect.channel,
        "name": effect.message,
        "language": language,
        "marketing": marketing,
        "subject": "",
        "links": {},
        "status": MessageStatus.sending,
        "attempts": 1,
        "claimed_by": claimed_by,
        "created_at": now,
        "sending_at": now,
        "code": "",
        "detail": "",
        "clicks": {},
    }


def add_rows(session: Session, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Insert ledger rows by one statement and return their ids, in order. A visit that has a row already is an IntegrityError."""
    if not rows:
        return []
    statement = insert(_LEDGER).returning(_LEDGER.c.id, sort_by_parameter_order=True)
    return list(session.connection().execute(statement, [dict(row) for row in rows]).scalars())


@dataclass(frozen=True, slots=True)
class Settled:
    """The result of an attempt: `detail` is the peer's words, `attempts` how many count so far, `next_try_at` is set when deferred."""

    message_id: int
    status: MessageStatus
    code: str = ""
    detail: str = ""
    attempts: int = 1
    next_try_at: datetime | None = None


def settle_all(session: Session, settled: Sequence[Settled], now: datetime) -> None:
    """Record what became of these attempts, by one statement for the rows and one for the attempts."""
    if not settled:
        return
    rows = [
        {
            "row_id": each.message_id,
            "new_status": each.status,
            "new_code": each.code,
            "new_detail": each.detail[:500],
            "new_attempts": each.attempts,
            "new_sent_at": now if each.status is MessageStatus.sent else None,
            "new_next_try_at": each.next_try_at,
        }
        for each in settled
    ]
    session.connection().execute(_SETTLE, rows)
    note_attempts(session, settled, now)


def note_attempts(session: Session, settled: Sequence[Settled], now: datetime) -> None:
    """Add one attempt row for each."""
    rows = [
        {"message_id": each.message_id, "at": now, "status": each.status, "code": each.code, "detail": each.detail[:500]}
        for each in settled
    ]
    if rows:
        session.connection().execute(insert(Attempt.__table__), rows)  # type: ignore[attr-defined]


_LEDGER: Table = Message.__table__  # type: ignore[attr-defined]
_SETTLE = (
    update(_LEDGER)
    .where(_LEDGER.c.id == bindparam("row_id"))
    .values({name: bindparam(f"new_{name}") for name in ("status", "code", "detail", "attempts", "sent_at", "next_try_at")})
    .values(claimed_by=None)
)


def rows_of_step(session: Session, enrollment_ids: Sequence[int], step_id: str) -> dict[tuple[int, int], Message]:
    """Return the ledger rows of a step, by (enrollment, visit)."""
    rows = session.exec(select(Message).where(col(Message.enrollment_id).in_(list(enrollment_ids)), Message.step_id == step_id))
    return {(row.enrollment_id, row.visit): row for row in rows}


def settle(session: Session, row: Message, status: MessageStatus, now: datetime, *, code: str = "", detail: str = "") -> None:
    """Record what became of an attempt: the row's status, and one attempt row. `detail` is the peer's words; addresses are cut out."""
    row.status, row.code, row.claimed_by = status, code, None
    row.detail = detail[:500]
    if status is MessageStatus.sent:
        row.sent_at = now
    session.add(row)
    session.add(Attempt(message_id=id_of(row), at=now, status=status, code=code, detail=detail[:500]))


def message_by_token(session: Session, token: str) -> Message | None:
    """Return the message that a public link belongs to, or None."""
    return session.exec(select(Message).where(Message.token == token)).first()


def token_in(written: str) -> str:
    """Return the token that a public link begins with: text that a mail program took for a part of the link is cut off."""
    found = _TOKEN.match(written)
    return found[0] if found else ""


def messages_of(
    session: Session, viewer: Viewer, *, contact_id: int | None = None, enrollment_id: int | None = None, limit: int = 100
) -> list[Message]:
    """Return the messages to a contact or of an enrollment, newest first."""
    statement = visible(select(Message), Message, viewer)
    if contact_id is not None:
        statement = statement.where(Message.contact_id == contact_id)
    if enrollment_id is not None:
        statement = statement.where(Message.enrollment_id == enrollment_id)
    return list(session.exec(statement.order_by(col(Message.id).desc()).limit(limit)))


def preview(
    session: Session,
    viewer: Viewer,
    campaign_id: int,
    contact_id: int,
    step_id: str,
    lang: str | None = None,
    *,
    unsubscribe_url: str = "#",
) -> Preview:
    """Return what the contact would get from the step, with this campaign's words; nothing is sent, counted or tracked."""
    require(viewer, Permission.see_contacts)
    campaign = get_campaign(session, viewer, campaign_id)
    contact = get_contact(session, viewer, contact_id)
    version = newest_registered(session, campaign.journey_id)
    if version is None or version.id is None:
        raise Refused(f'The journey of campaign "{campaign.name}" has no approved and registered version to preview yet.')
    definition = program_of(session, version.id).definition
    effect = _send_step(definition, step_id)
    partner, brand = session.get(Partner, contact.partner_id), session.get(Brand, contact.brand_id)
    if partner is None or brand is None:
        raise NotFound(f"Contact {contact_id} has no partner.")
    member = session.exec(select(Member).where(Member.campaign_id == campaign_id, Member.contact_id == contact_id)).first()
    person = Person(contact, partner, brand, campaign, member)
    language = lang if lang in definition.languages else language_of(definition, contact)
    parts = compiled(source_of(version), definition, effect.message, language, effect.channel)
    blocks = blocks_of(session, person, definition, language)
    data = {name: contact.attributes[name] for name in definition.journey_fields if name in contact.attributes}
    rendered = render_for(
        person,
        data,
        parts,
        blocks,
        None,
        mark_blocks=True,
        preview_unsubscribe_url=unsubscribe_url,
        contact_fields=definition.contact_fields,
    )
    shown = tuple(
        BlockShown(
            name=name,
            label=definition.blocks[name].label.text(viewer.language),
            value=blocks[name].value,
            layer=str(blocks[name].layer),
            kind=str(definition.blocks[name].kind),
            max_length=definition.blocks[name].longest,
            editable=name in effect.editable,
        )
        for name in sorted(parts.blocks)
        if name in definition.blocks
    )
    return Preview(
        step_id=step_id,
        channel=effect.channel,
        language=language,
        subject=rendered.subject,
        html=rendered.html,
        text=rendered.text,
        from_name=from_name(person, language),
        to_name=to_name(person),
        blocks=shown,
        size_bytes=rendered.html_bytes or len(rendered.text.encode()),
        link_count=len(rendered.link_targets),
        too_large=rendered.is_too_large,
    )


def _send_step(definition: JourneyDefinition, step_id: str) -> SendMessage:
    for step in all_steps(definition.steps):
        if step.id == step_id and step.kind == "send":
            return SendMessage(
                step_id=step_id,
                channel=str(getattr(step, "send", "email")),
                message=str(getattr(step, "message", "")),
                editable=tuple(getattr(step, "editable", ())),
            )
    raise NotFound(f'Journey "{definition.key}" has no send step "{step_id}".')
