"""Accounts: partners and people, made, changed, invited, closed and opened again, with an entry in the audit trail for each act.

People with `manage_partners` keep partners and the accounts of their people; people with `manage_people` those of the brand, too.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import available_timezones

from sqlalchemy import delete
from sqlmodel import Session, col, func, select

from distmark.compliance.service import record
from distmark.contacts.fields import as_email, as_phone
from distmark.errors import InvalidInput, NotFound, Refused
from distmark.partners.model import Permission, Role, Viewer
from distmark.partners.passwords import INVITED_FOR, RESET_FOR, change_password, make_link, person_of_link, set_password
from distmark.partners.service import (
    LANGUAGES,
    TOKEN_BYTES,
    active_viewer,
    get_partner,
    hash_password,
    open_session,
    require,
    user_with_email,
)
from distmark.partners.table import Brand, Partner, SignIn, User
from distmark.sql import id_of
from distmark.text import tidy

PARTNER, USER = "partner", "user"  # kinds of subject in the audit trail
LONGEST = {"name": 80, "title": 80, "office": 120, "city": 80, "code": 40, "email": 254, "phone": 40}
KEY = re.compile(r"[a-z0-9][a-z0-9-]{0,59}")
LINK_REFUSED = "This link has been used or is too old; ask for another."


@dataclass(frozen=True, slots=True)
class Person:
    """One account, as lists show it. `signed_in_at` is when the newest open session began; `invited`: no password was set yet."""

    user: User
    invited: bool
    signed_in_at: datetime | None


@dataclass(frozen=True, slots=True)
class Invitation:
    """An account, and the token of the link with which its person sets a password; the token is kept nowhere else."""

    user: User
    brand: Brand
    token: str


# --- partners -----------------------------------------------------------------------------------------------------------------------------


def create_partner(session: Session, viewer: Viewer, key: str, fields: Mapping[str, str], now: datetime) -> Partner:
    """Create a partner of the viewer's brand; InvalidInput names the field that cannot be read, Refused a key that is taken."""
    require(viewer, Permission.manage_partners)
    values = read_partner(fields)
    key = tidy(key)
    if not KEY.fullmatch(key):
        raise InvalidInput(f'The short name "{key}" cannot be used; write lower-case letters, digits and hyphens, such as sato-fp.')
    if session.exec(select(Partner.id).where(Partner.brand_id == viewer.brand_id, Partner.key == key)).first() is not None:
        raise Refused(f'There is a partner with the short name "{key}" already; choose another.')
    partner = Partner.model_validate({"brand_id": viewer.brand_id, "key": key, **values})
    session.add(partner)
    session.flush()
    record(session, viewer.brand_id, viewer.user_id, "created", PARTNER, id_of(partner), now, key=key)
    return partner


def change_partner(session: Session, viewer: Viewer, partner_id: int, fields: Mapping[str, str], now: datetime) -> Partner:
    """Change the partner's details, and note their former values in the trail. Errors: as `create_partner`; NotFound."""
    require(viewer, Permission.manage_partners)
    partner = get_partner(session, viewer, partner_id)
    values = read_partner(fields)
    before = {name: getattr(partner, name) for name in values if getattr(partner, name) != values[name]}
    for name in before:
        setattr(partner, name, values[name])
    session.add(partner)
    if before:
        record(session, viewer.brand_id, viewer.user_id, "changed", PARTNER, partner_id, now, before=before)
    return partner


def read_partner(fields: Mapping[str, str]) -> dict[str, str]:
    """Return a partner's details as they are stored; InvalidInput names the field that cannot be read."""
    values = {name: tidy(fields.get(name, "")) for name in LONGEST}
    for name, most in LONGEST.items():
        if len(values[name]) > most:
            raise InvalidInput(f"The {name} has {len(values[name])} characters; write at most {most}.")
    if not values["name"]:
        raise InvalidInput("The name is missing; write the name that signs the partner's messages.")
    values["email"] = _read_email(values["email"])
    try:
        values["phone"] = as_phone(values["phone"]) or ""
    except ValueError as error:
        raise InvalidInput(f'"{values["phone"]}" is not a phone number; write it like 03-1234-5678.') from error
    language, zone = fields.get("language", "") or "ja", fields.get("zone", "")
    if language not in LANGUAGES:
        raise InvalidInput(f'The language "{language}" is not known; choose one of {", ".join(LANGUAGES)}.')
    if zone and zone not in available_timezones():
        raise InvalidInput(f'The time zone "{zone}" is not known; write it like Asia/Tokyo.')
    return values | {"language": language, "zone": zone}


def set_partner_active(session: Session, viewer: Viewer, partner_id: int, active: bool, now: datetime) -> Partner:
    """Suspend a partner, whose people are then signed out, or open it again; a second call changes nothing."""
    require(viewer, Permission.manage_partners)
    partner = get_partner(session, viewer, partner_id)
    if partner.active != active:
        partner.active = active
        session.add(partner)
        if not active:
            people = select(User.id).where(User.partner_id == partner_id)
            session.execute(delete(SignIn).where(col(SignIn.user_id).in_(people)))
        record(session, viewer.brand_id, viewer.user_id, "opened" if active else "suspended", PARTNER, partner_id, now)
    return partner


def partner_key_for(session: Session, viewer: Viewer, name: str) -> str:
    """Return a free key made from the name: its Latin letters and digits, else partner, with a number when taken."""
    stem = re.sub(r"[^a-z0-9]+", "-", tidy(name).lower()).strip("-")[:40].strip("-") or "partner"
    alike = col(Partner.key).startswith(stem, autoescape=True)
    taken = set(session.exec(select(Partner.key).where(Partner.brand_id == viewer.brand_id, alike)))
    return next(key for number in range(len(taken) + 2) if (key := stem if number == 0 else f"{stem}-{number + 1}") not in taken)


# --- people -------------------------------------------------------------------------------------------------------------------------------


def people_of(session: Session, viewer: Viewer, partner_id: int | None) -> list[Person]:
    """Return the people of a partner, or the brand's own with None: active ones first, by name."""
    require(viewer, Permission.manage_people if partner_id is None else Permission.manage_partners)
    if partner_id is not None:
        get_partner(session, viewer, partner_id)
    own = col(User.partner_id).is_(None) if partner_id is None else col(User.partner_id) == partner_id
    newest = select(SignIn.user_id, func.max(SignIn.created_at).label("at")).group_by(col(SignIn.user_id)).subquery()
    query = select(User, newest.c.at).outerjoin(newest, newest.c.user_id == User.id).where(User.brand_id == viewer.brand_id, own)
    rows = session.exec(query.order_by(col(User.active).desc(), col(User.name), col(User.id)))
    return [Person(user, user.password_set_at is None, at) for user, at in rows]


def invite(
    session: Session, viewer: Viewer, email: str, name: str, role: Role, partner_id: int | None, language: str, now: datetime
) -> Invitation:
    """Make an account and the link with which its person sets a password within 7 days.

    Errors: InvalidInput for an address, name or role that cannot be used, NotFound for the partner, Refused for an address with an account.
    """
    require(viewer, Permission.manage_people if partner_id is None else Permission.manage_partners)
    if (role is Role.partner) != (partner_id is not None):
        raise InvalidInput("A partner's people have the role partner, and the brand's own people another; choose the role that fits.")
    if partner_id is not None and not get_partner(session, viewer, partner_id).active:
        raise Refused("This partner is suspended; open it again before you invite somebody.")
    address, name = _read_email(email).lower(), tidy(name)
    if not address:
        raise InvalidInput("The mail address is missing; write where the invitation goes.")
    if not 0 < len(name) <= LONGEST["name"]:
        raise InvalidInput(f"The name has {len(name)} characters; write 1 to {LONGEST['name']}.")
    if language not in LANGUAGES:
        raise InvalidInput(f'The language "{language}" is not known; choose one of {", ".join(LANGUAGES)}.')
    if user_with_email(session, address) is not None:
        raise Refused("This mail address has an account already; a person has one account.")
    user = User(
        email=address,
        name=name,
        password_hash=hash_password(secrets.token_urlsafe(TOKEN_BYTES)),
        role=role,
        brand_id=viewer.brand_id,
        partner_id=partner_id,
        language=language,
        created_at=now,
    )
    session.add(user)
    session.flush()
    record(session, viewer.brand_id, viewer.user_id, "invited", USER, id_of(user), now, role=role.value)
    return _invitation(session, user, now)


def invite_again(session: Session, viewer: Viewer, user_id: int, now: datetime) -> Invitation:
    """Make a new link for somebody invited; the earlier one ends. Refused when they have a password: they reset it themselves."""
    user = get_user(session, viewer, user_id)
    if user.password_set_at is not None:
        raise Refused("This person has a password already; with a new one they help themselves on the sign-in page.")
    if active_viewer(session, user) is None:
        raise Refused("This account or its partner is closed; open it again before you invite the person.")
    record(session, viewer.brand_id, viewer.user_id, "invited", USER, user_id, now, again=True)
    return _invitation(session, user, now)


def set_user_active(session: Session, viewer: Viewer, user_id: int, active: bool, now: datetime) -> User:
    """Close an account, whose person is then signed out, or open it again. Refused for the viewer's own."""
    user = get_user(session, viewer, user_id)
    if user_id == viewer.user_id:
        raise Refused("You cannot close your own account; ask somebody else who may.")
    if user.active != active:
        user.active = active
        session.add(user)
        if not active:
            session.execute(delete(SignIn).where(col(SignIn.user_id) == user_id))
        record(session, viewer.brand_id, viewer.user_id, "opened" if active else "closed", USER, user_id, now)
    return user


def get_user(session: Session, viewer: Viewer, user_id: int) -> User:
    """Return an account that the viewer may manage; NotFound for any other."""
    user = session.exec(select(User).where(User.id == user_id, User.brand_id == viewer.brand_id)).first()
    needed = Permission.manage_people if user is not None and user.partner_id is None else Permission.manage_partners
    if user is None or not viewer.may(needed):
        raise NotFound(f"There is no person {user_id} among yours.")
    return user


# --- passwords ----------------------------------------------------------------------------------------------------------------------------


def ask_for_reset(session: Session, email: str, now: datetime) -> Invitation | None:
    """Return a link of one hour for the active person of this address; None when there is none, which nobody may be shown."""
    user = user_with_email(session, email)
    if user is None or active_viewer(session, user) is None:
        return None
    record(session, user.brand_id, None, "asked for a new password", USER, id_of(user), now)
    valid_for = RESET_FOR if user.password_set_at is not None else INVITED_FOR
    return Invitation(user, session.get_one(Brand, user.brand_id), make_link(session, user, valid_for, now))


def person_invited(session: Session, token: str, now: datetime) -> User:
    """Return the person of the link; NotFound when it is unknown, used or too old, or its account is closed."""
    user = person_of_link(session, token, now)
    if user is None or active_viewer(session, user) is None:
        raise NotFound(LINK_REFUSED)
    return user


def set_password_by_link(session: Session, token: str, password: str, now: datetime) -> str:
    """Give the link's person this password, end everything that the earlier one opened, and return the cookie token of a new session.

    Errors: NotFound as `person_invited`, InvalidInput for a password that cannot be used; the link then stays.
    """
    user = person_invited(session, token, now)
    set_password(session, user, password, now)
    record(session, user.brand_id, user.id, "set a password", USER, id_of(user), now)
    return open_session(session, user, now)


def change_own_password(session: Session, viewer: Viewer, present: str, password: str, now: datetime, keep_session: str) -> None:
    """Change the viewer's password, and end their other sessions and all their API tokens. NotAllowed when `present` is wrong."""
    change_password(session, session.get_one(User, viewer.user_id), present, password, now, keep_session)
    record(session, viewer.brand_id, viewer.user_id, "changed the password", USER, viewer.user_id, now)


def _invitation(session: Session, user: User, now: datetime) -> Invitation:
    return Invitation(user, session.get_one(Brand, user.brand_id), make_link(session, user, INVITED_FOR, now))


def _read_email(written: str) -> str:
    try:
        return as_email(written) or ""
    except ValueError as error:
        raise InvalidInput(f'"{written}" is not a mail address; write it like name@example.co.jp.') from error
