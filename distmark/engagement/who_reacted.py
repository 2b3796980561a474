"""Reactions of contacts to messages, as pages list them: the recent ones of a viewer's contacts, and all events of one contact."""

from dataclasses import dataclass

from sqlmodel import Session, col, select

from distmark.contacts.table import Contact
from distmark.engagement.model import EventKind, Verdict
from distmark.engagement.table import Event
from distmark.partners.model import Viewer
from distmark.partners.scope import visible

REACTIONS = (EventKind.clicked, EventKind.replied, EventKind.converted, EventKind.custom, EventKind.opened)


@dataclass(frozen=True, slots=True)
class Reaction:
    """An event with its contact."""

    event: Event
    contact: Contact


def recent_reactions(session: Session, viewer: Viewer, limit: int = 8) -> list[Reaction]:
    """Return the last reactions to messages, newest first; events of machines and repeats are left out."""
    statement = (
        visible(select(Event, Contact), Event, viewer)
        .join(Contact, col(Contact.id) == col(Event.contact_id))
        .where(col(Event.kind).in_(REACTIONS), col(Event.verdict) != Verdict.machine, col(Event.first).is_(True))
        .order_by(col(Event.at).desc(), col(Event.id).desc())
        .limit(limit)
    )
    return [Reaction(event, contact) for event, contact in session.exec(statement)]


def events_of(session: Session, viewer: Viewer, contact_id: int, limit: int = 200) -> list[Event]:
    """Return the contact's engagement events, newest first."""
    statement = visible(select(Event), Event, viewer).where(Event.contact_id == contact_id)
    return list(session.exec(statement.order_by(col(Event.at).desc(), col(Event.id).desc()).limit(limit)))
