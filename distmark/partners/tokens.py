"""Keys with which programs act as a person: who a key belongs to, and when it was last used. `compliance.access` makes and revokes them."""

import hashlib
import secrets
from datetime import datetime, timedelta

from sqlalchemy import or_, update
from sqlmodel import Session, col, select

from distmark.errors import NotFound
from distmark.partners.model import Role, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import viewer_if_here
from distmark.partners.table import ApiToken, User

PREFIX = "dmk_"  # tells people, and scanners for leaked secrets, what it is
TOKEN_BYTES = 32  # 256 bits
ENDING = 4
USED_TO_THE = timedelta(minutes=1)  # a write for every call would cost more than the call


def new_token() -> str:
    """Return a key that nobody can guess."""
    return PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def hash_of(token: str) -> str:
    """Return what is kept of a key."""
    return hashlib.sha256(token.encode()).hexdigest()


def holder_of(session: Session, token: str) -> tuple[Viewer, ApiToken] | None:
    """Return whom the key acts as; None when it is unknown or revoked, or its maker no longer works here."""
    found = session.exec(
        select(ApiToken, User)
        .join(User, col(User.id) == col(ApiToken.user_id))
        .where(ApiToken.token_hash == hash_of(token), col(ApiToken.revoked_at).is_(None))
    ).first()
    viewer = viewer_if_here(session, found[1]) if found else None
    return (viewer, found[0]) if found and viewer else None


def is_use_old(token: ApiToken, now: datetime) -> bool:
    """Say whether the last noted use is so long ago that this one should be noted."""
    return token.last_used_at is None or now - token.last_used_at >= USED_TO_THE


def note_use(session: Session, token_id: int, now: datetime) -> None:
    """Note that the key is in use, to the minute."""
    old = or_(col(ApiToken.last_used_at).is_(None), col(ApiToken.last_used_at) <= now - USED_TO_THE)
    session.execute(update(ApiToken).where(col(ApiToken.id) == token_id, old).values(last_used_at=now))


def tokens_of(session: Session, viewer: Viewer) -> list[tuple[ApiToken, User]]:
    """Return the viewer's own keys with their makers, newest first; to operations, all of the brand."""
    statement = visible(select(ApiToken, User), ApiToken, viewer).join(User, col(User.id) == col(ApiToken.user_id))
    if viewer.role is not Role.ops:
        statement = statement.where(ApiToken.user_id == viewer.user_id)
    return [(token, user) for token, user in session.exec(statement.order_by(col(ApiToken.id).desc()))]


def get_token(session: Session, viewer: Viewer, token_id: int) -> ApiToken:
    """Return one of `tokens_of`; NotFound otherwise."""
    found = next((token for token, _user in tokens_of(session, viewer) if token.id == token_id), None)
    if found is None:
        raise NotFound(f"There is no token {token_id} among yours.")
    return found
