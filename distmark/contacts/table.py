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


class Segment(SQLModel, table=True):
    """A named group of contacts, of the whole brand or (with `partner_id`) of one partner's book.

    Without a `rule` its members are listed by hand. A rule is an expression over the contact; `revision` counts its changes, and `reached`
    is the id of the last contact that the newest revision has judged (None: all).
    """

    __tablename__ = "segment"
    __table_args__ = (
        UniqueConstraint("brand_id", "partner_id", "key"),
        # In a unique constraint no NULL equals another.
        Index(
            "ix_segment_brand_wide",
            "brand_id",
            "key",
            unique=True,
            sqlite_where=text("partner_id IS NULL"),
            postgresql_where=text("partner_id IS NULL"),
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id")
    partner_id: int | None = Field(default=None, foreign_key="partner.id", index=True)
    key: str
    name: str
    rule: str | None = None
    fields: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # attribute -> text | number | bool | date, as in journeys
    revision: int = 1
    reached: int | None = None
    judged_on: date | None = None  # the brand's day on which a rule about time was last begun
    created_by_id: int | None = Field(default=None, foreign_key="user_account.id")
    created_at: datetime = Field(sa_type=UTCDateTime)


class SegmentMember(SQLModel, table=True):
    """A contact that is, or (with `left_at`) was, in a segment. Rows are never deleted: who stays in is never touched by a rebuild."""

    __tablename__ = "segment_member"
    __table_args__ = (
        UniqueConstraint("segment_id", "contact_id"),
        Index("ix_segment_member_in", "contact_id", sqlite_where=text("left_at IS NULL"), postgresql_where=text("left_at IS NULL")),
        Index("ix_segment_member_untold", "id", sqlite_where=text("told = 0"), postgresql_where=text("NOT told")),
    )

    id: int | None = Field(default=None, primary_key=True)
    segment_id: int = Field(foreign_key="segment.id")
    contact_id: int = Field(foreign_key="contact.id")
    joined_at: datetime = Field(sa_type=UTCDateTime)
    left_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
    told: bool = False  # whether journeys know that the contact joined or left
