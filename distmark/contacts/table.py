"""Rows of contacts, their consents, and suppressed addresses."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, event, text, true
from sqlalchemy.orm import Mapper
from sqlmodel import Field, Index, SQLModel, UniqueConstraint

from distmark.contacts.model import ContactKind, SuppressionReason, SuppressionScope
from distmark.contacts.search import search_text
from distmark.db import JSON_TYPE, UTCDateTime

HOLDS_PERSON = "holds_person"
# For columns with the key of a contact's person in them, in tables of any room: `people` changes them all when two persons prove to be one.
PERSON_COLUMN: dict[str, Any] = {"info": {HOLDS_PERSON: True}}


class Contact(SQLModel, table=True):
    """A person in one partner's book. `person_key` is the same for one person in all books of a brand, and stays when an address changes.

    Every insert and update sets `unread` by itself, from whatever code: segments and dated entries process unread rows only. Likewise
    `search_text`, in which searches look.
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
    person_key: str = Field(index=True, sa_column_kwargs=PERSON_COLUMN)
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
    search_text: str = Field(default="", sa_column_kwargs={"server_default": text("''")})


@event.listens_for(Contact, "before_insert")
@event.listens_for(Contact, "before_update")
def _write_search_text(mapper: Mapper[Contact], connection: Connection, contact: Contact) -> None:
    written = search_text(contact.last_name, contact.first_name, (contact.email, contact.company, contact.city), contact.attributes)
    if contact.search_text != written:
        contact.search_text = written


class ContactAddress(SQLModel, table=True):
    """An address that a contact has or had, as a hash. Only contacts whose addresses changed have rows."""

    __tablename__ = "contact_address"
    __table_args__ = (UniqueConstraint("contact_id", "address_hash"), Index("ix_contact_address_hash", "brand_id", "address_hash"))

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id")
    contact_id: int = Field(foreign_key="contact.id")
    address_hash: str
    identifies: bool = False  # the person is found by it: a mail address, or the phone number of a contact without one
    at: datetime = Field(sa_type=UTCDateTime)


class Consent(SQLModel, table=True):
    """One consent or refusal of a contact: append-only, the newest row per channel counts."""

    __tablename__ = "consent"

    id: int | None = Field(default=None, primary_key=True)
    contact_id: int = Field(foreign_key="contact.id", index=True)
    channel: str  # email | sms | open_tracking | click_tracking
    given: bool
    ground: str = "opt_in"  # opt_in | business_card | existing_customer | published_address
    wording: str = ""  # the text that was agreed to
    source: str = ""  # such as form, import, phone call
    at: datetime = Field(sa_type=UTCDateTime)
    by_user_id: int | None = Field(default=None, foreign_key="user_account.id")


class Suppression(SQLModel, table=True):
    """An address to which no partner of the brand may write on a channel. Kept as a hash, so that it outlives erasure."""

    __tablename__ = "suppression"
    __table_args__ = (UniqueConstraint("brand_id", "channel", "address_hash", "scope"),)

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id")
    channel: str
    address_hash: str
    scope: SuppressionScope = SuppressionScope.marketing
    reason: SuppressionReason
    at: datetime = Field(sa_type=UTCDateTime)
    message_id: int | None = None  # the message whose link or bounce caused it
