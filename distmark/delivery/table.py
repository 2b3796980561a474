"""The rows of send rates, and of the paces at which messages go out under them."""

from datetime import datetime

from sqlmodel import Field, SQLModel, UniqueConstraint

from distmark.db import UTCDateTime
from distmark.delivery.send_rate_spacing import RateScope


class SendRate(SQLModel, table=True):
    """A rate for one partner, campaign or domain of a brand; the key "*" is each of the scope that has none of its own."""

    __tablename__ = "send_rate"
    __table_args__ = (UniqueConstraint("brand_id", "scope", "key"),)

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id")
    scope: RateScope
    key: str
    per_hour: int
    burst: int = 1  # how many may go at once after a silence
    changed_at: datetime = Field(sa_type=UTCDateTime)


class Pace(SQLModel, table=True):
    """How far the messages under one rate have been given their turns, by all processes together; or the turn that one message was given.

    A row in the past may be deleted.
    """

    __tablename__ = "pace"

    key: str = Field(primary_key=True)  # brand and rule, or a message's ticket
    next_at: datetime = Field(sa_type=UTCDateTime)  # the turn of the next message, were there no burst; or that message's
