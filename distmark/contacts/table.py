"""People a partner knows: contacts, their consents, and the addresses never written to again."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import text, true
from sqlmodel import Field, Index, SQLModel, UniqueConstraint

from distmark.contacts.model import ContactKind, SuppressionReason, SuppressionScope
from distmark.db import JSON_TYPE, UTCDateTime


class Contact(SQLModel, table=True):
    """A person in one partner's book. `person_key` is the same for the same mail address within a brand, whoever's book it is in.

    Every insert and every update sets `unread` by itself, whoever writes: segments and dated entries look at unread rows only.
    """

    __tablename__ = "contact"
    __table_args__ = (
        UniqueConstraint("partner_id", "email_key"),
        Index("ix_contact_unread", "id", sqlite_where=text("unread = 1"), postgresql_where=text("unread")),
    )

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id", index=True)
    partner_id: int = Field(foreign_key="partner.id", index=True)
    kind: ContactKind = ContactKind.contact
    first_name: str = ""
    last_name: str = ""
    email: str | None = None
    email_key: str | None = None
    phone: str | None = None  # E.164
    person_key: str = Field(index=True)
    language: str = "ja"
    zone: str = ""  # empty: the partner's, else the brand's
    company: str = ""
    city: str = ""
    birthday: date | None = None
    attributes: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)
    created_at: datetime = Field(sa_type=UTCDateTime)
    updated_at: datetime = Field(sa_type=UTCDateTime)
    erased_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    unread: bool = Field(default=True, sa_column_kwargs={"onupdate": True, "server_default": true()})


class Consent(SQLModel, table=True):
    """One time a contact agreed or refused: append-only, the newest row per channel counts."""

    __tablename__ = "consent"

    id: int | None = Field(default=None, primary_key=True)
    contact_id: int = Field(foreign_key="contact.id", index=True)
    channel: str  # email | sms | open_tracking | click_tracking
    given: bool
    ground: str = "opt_in"  # opt_in | business_card | existing_customer | published_address
    wording: str = ""  # the text that was agreed to
    source: str = ""  # where: form, import, phone call
    at: datetime = Field(sa_type=UTCDateTime)
    by_user_id: int | None = Field(default=None, foreign_key="user_account.id")


class Suppression(SQLModel, table=True):
    """An address never to be written to on a channel for this brand, by any partner. Kept as a hash, so it outlives erasure."""

    __tablename__ = "suppression"
    __table_args__ = (UniqueConstraint("brand_id", "channel", "address_hash", "scope"),)

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id")
    channel: str
    address_hash: str
    scope: SuppressionScope = SuppressionScope.marketing
    reason: SuppressionReason
    at: datetime = Field(sa_type=UTCDateTime)
    message_id: int | None = None  # the message whose link or bounce led here
