"""Passwords: the check of a new one, the links to set one, and the end of access that a new one brings."""

import secrets
from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlmodel import Session, col, select

from distmark.errors import InvalidInput, NotAllowed
from distmark.partners.service import (
    LONGEST_PASSWORD,
    SHORTEST_PASSWORD,
    TOKEN_BYTES,
    end_access,
    hash_password,
    hash_token,
    verify_password,
)
from distmark.partners.table import PasswordLink, User
from distmark.sql import id_of

INVITED_FOR = timedelta(days=7)
RESET_FOR = timedelta(hours=1)


def check_password(password: str, email: str) -> None:
    """Check a new password; InvalidInput names the change to make. Length makes it hard to guess, so no kinds of letters are asked."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise InvalidInput(f"The password has {len(password)} characters; choose one of at least {SHORTEST_PASSWORD}.")
    if len(set(password)) < 4:
        raise InvalidInput("The password repeats too few characters; choose another.")
    if password.strip().lower() == email.strip().lower():
        raise InvalidInput("The password is the mail address; choose another.")


def make_link(session: Session, user: User, valid_for: timedelta, now: datetime) -> str:
    """Return the token of a new link of this person (256 random bits, kept only as a hash); earlier links of theirs end."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    session.execute(delete(PasswordLink).where(col(PasswordLink.user_id) == id_of(user)))
    session.add(PasswordLink(user_id=id_of(user), token_hash=hash_token(token), created_at=now, expires_at=now + valid_for))
    session.flush()
    return token


def link_of(base_url: str, token: str) -> str:
    """Return the address at which the link's person sets a password."""
    return f"{base_url}/password/{token}"


def person_of_link(session: Session, token: str, now: datetime) -> User | None:
    """Return the person of the link; None when it is unknown, used or expired."""
    link = PasswordLink.token_hash == hash_token(token)
    return session.exec(select(User).join(PasswordLink).where(link, col(PasswordLink.expires_at) > now).with_for_update(of=User)).first()


def set_password(session: Session, user: User, password: str, now: datetime, keep_session: str = "") -> None:
    """Give the person this password, and end their links, API tokens and sessions but the one of cookie token `keep_session`.

    A changed password may be known to somebody else, so everything that it opened is closed.
    """
    check_password(password, user.email)
    user.password_hash, user.password_set_at = hash_password(password), now
    session.add(user)
    session.execute(delete(PasswordLink).where(col(PasswordLink.user_id) == user.id))
    end_access(session, id_of(user), now, keep_session)
    session.flush()


def change_password(session: Session, user: User, present: str, password: str, now: datetime, keep_session: str) -> None:
    """Change the person's own password. NotAllowed when `present` is not their password."""
    if not verify_password(present, user.password_hash):
        raise NotAllowed("The present password is wrong; check it and try again.")
    set_password(session, user, password, now, keep_session)
