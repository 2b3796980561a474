"""Messages of which nobody knows whether they arrived: they are never sent again by themselves, so people have to see them."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select
from sqlmodel import Session, col

from distmark.journeys.table import Journey, JourneyVersion
from distmark.messages.model import MessageStatus
from distmark.messages.table import Message
from distmark.partners.model import Permission, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import require


@dataclass(frozen=True, slots=True)
class Uncertain:
    """One message that was being handed over when the line or the process broke, with its journey."""

    message: Message
    journey: str
    version: int


def uncertain(session: Session, viewer: Viewer, before: int | None = None, limit: int = 20) -> list[Uncertain]:
    """Return the brand's uncertain messages, the newest first, those with a smaller id than `before` when it is given."""
    require(viewer, Permission.publish_campaigns)
    statement = visible(select(Message, col(Journey.key), col(JourneyVersion.number)), Message, viewer).where(_is_uncertain())
    statement = statement.join(JourneyVersion, col(JourneyVersion.id) == col(Message.version_id))
    statement = statement.join(Journey, col(Journey.id) == col(JourneyVersion.journey_id))
    if before is not None:
        statement = statement.where(col(Message.id) < before)
    rows = session.execute(statement.order_by(col(Message.id).desc()).limit(limit))
    return [Uncertain(message, key, number) for message, key, number in rows]


def uncertain_count(session: Session, viewer: Viewer) -> int:
    """Return how many of the brand's messages are uncertain."""
    require(viewer, Permission.publish_campaigns)
    return int(session.execute(visible(select(func.count(col(Message.id))), Message, viewer).where(_is_uncertain())).scalar_one())


def _is_uncertain() -> ColumnElement[bool]:
    return col(Message.status) == MessageStatus.uncertain
