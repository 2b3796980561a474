"""Rows of brands, partners, users, sessions and API tokens."""

from datetime import datetime
from typing import Any

from sqlmodel import Field, SQLModel, UniqueConstraint

from distmark.db import JSON_TYPE, UTCDateTime
from distmark.partners.model import Role


class Brand(SQLModel, table=True):
    """A company with marketers that write journeys. Its legal name and address are in the footer of every message."""

    __tablename__ = "brand"

    id: int | None = Field(default=None, primary_key=True)
    key: str = Field(unique=True)
    name: str
    legal_name: str
    address: str
    contact: str  # phone, mail or web address for complaints and questions
    website: str = ""
    zone: str = "Asia/Tokyo"
    language: str = "ja"
    tokens: dict[str, Any] = Field(
        default_factory=dict, sa_type=JSON_TYPE
    )  # colours of pages and mails: {"brand": "#0b6e69", "brand_soft": ...}
    image_domains: list[Any] = Field(default_factory=list, sa_type=JSON_TYPE)
    mail_from: str = ""  # empty: the sender of the installation
    translations: dict[str, Any] = Field(
        default_factory=dict, sa_type=JSON_TYPE
    )  # language -> name, legal_name, address, contact in that language


class Partner(SQLModel, table=True):
    """The person or office that owns the customer relationship: adviser, franchise owner, dealer, agent."""

    __tablename__ = "partner"
    __table_args__ = (UniqueConstraint("brand_id", "key"),)

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id", index=True)
    key: str
    name: str  # signs the mail
    title: str = ""
    office: str = ""
    city: str = ""
    phone: str = ""
    email: str = ""
    code: str = ""
    zone: str = ""  # empty: the brand's
    zone_applied: str | None = None  # the zone by which its contacts' times were computed last: its own, else the brand's
    language: str = "ja"
    active: bool = True
    translations: dict[str, Any] = Field(default_factory=dict, sa_type=JSON_TYPE)  # language -> name, title, office, city in that language


class User(SQLModel, table=True):
    """A person with an account to sign in."""

    __tablename__ = "user_account"  # "user" is a reserved word in Postgres

    id: int | None = Field(default=None, primary_key=True)
    email: str = Field(unique=True)
    name: str
    password_hash: str
    role: Role
    brand_id: int = Field(foreign_key="brand.id", index=True)
    partner_id: int | None = Field(default=None, foreign_key="partner.id", index=True)
    language: str = "ja"
    active: bool = True
    created_at: datetime = Field(sa_type=UTCDateTime)
    password_set_at: datetime | None = Field(default=None, sa_type=UTCDateTime)  # None: invited, and has not signed in yet


class SignIn(SQLModel, table=True):
    """The session of one browser. Only the SHA-256 of the cookie's token is kept, so a copy of this table opens no session."""

    __tablename__ = "sign_in"

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="user_account.id", index=True)
    token_hash: str = Field(unique=True)
    created_at: datetime = Field(sa_type=UTCDateTime)
    expires_at: datetime = Field(sa_type=UTCDateTime)


class PasswordLink(SQLModel, table=True):
    """A link with which a person sets a password, once: of an invitation, or of a forgotten password. Only its token's SHA-256 is kept."""

    __tablename__ = "password_link"

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="user_account.id", index=True)
    token_hash: str = Field(unique=True)
    created_at: datetime = Field(sa_type=UTCDateTime)
    expires_at: datetime = Field(sa_type=UTCDateTime)


class ApiToken(SQLModel, table=True):
    """A token with which a program acts as the user that created it. Only its SHA-256 is kept, so a copy of this table gives no access."""

    __tablename__ = "api_token"

    id: int | None = Field(default=None, primary_key=True)
    brand_id: int = Field(foreign_key="brand.id", index=True)
    partner_id: int | None = Field(default=None, foreign_key="partner.id", index=True)
    user_id: int = Field(foreign_key="user_account.id", index=True)
    name: str  # its purpose, in its creator's words
    token_hash: str = Field(unique=True)
    ending: str  # its last characters, by which people recognise it
    created_at: datetime = Field(sa_type=UTCDateTime)
    last_used_at: datetime | None = Field(default=None, sa_type=UTCDateTime)  # to the minute
    revoked_at: datetime | None = Field(default=None, sa_type=UTCDateTime)
