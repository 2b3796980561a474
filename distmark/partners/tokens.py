"""API tokens: adding, finding and ending them, and noting their use. `compliance.access` audits their creation and revocation."""

import hashlib
import secrets
from datetime import datetime, timedelta

from sqlalchemy import or_, update
from sqlmodel import Session, col, select

from distmark.errors import NotFound
from distmark.partners.model import Role, Viewer
from distmark.partners.scope import visible
from distmark.partners.service import active_viewer
from distmark.partners.table import ApiToken, User

PREFIX = "dmk_"  # by which people, and scanners for leaked secrets, recognise a token
TOKEN_BYTES = 32  # 256 bits
ENDING = 4
VALID_FOR = timedelta(days=365)
USED_TO_THE = timedelta(minutes=1)  # a write for every call would cost more than the call


def new_token() -> str:
    """Return the text of a new token."""
    return PREFIX + secrets.token_urlsafe(TOKEN_BYTES)


def hash_of(token: str) -> str:
    """Return the hash of a token, by which it is found."""
    return hashlib.sha256(token.encode()).hexdigest()


def add_token(session: Session, viewer: Viewer, name: str, now: datetime) -> tuple[str, ApiToken]:
    """Add a token of the viewer and return its text, which is not kept, and its row."""
    token = new_token()
    row = ApiToken(
        brand_id=viewer.brand_id,
        partner_id=viewer.partner_id,
        user_id=viewer.user_id,
        name=name,
        token_hash=hash_of(token),
        ending=token[-ENDING:],
        created_at=now,
    )
    session.add(row)
    session.flush()
    return token, row


def end_token(session: Session, row: ApiToken, now: datetime) -> None:
    """Set the token to revoked: it gives no access any more."""
    row.revoked_at = now
    session.add(row)


def expires_at(token: ApiToken) -> datetime:
    """Return when the token stops giving access: a year after it was made."""
    return token.created_at + VALID_FOR


def gives_access(token: ApiToken, now: datetime) -> bool:
    """Return whether the token is neither revoked nor expired."""
    return token.revoked_at is None and now < expires_at(token)


def viewer_of_token(session: Session, token: str, now: datetime) -> tuple[Viewer, ApiToken] | None:
    """Return the viewer as which the token acts, and its row; None when it is unknown, revoked or expired, or its user no longer active."""
    found = session.exec(
        select(ApiToken, User)
        .join(User, col(User.id) == col(ApiToken.user_id))
        .where(ApiToken.token_hash == hash_of(token), col(ApiToken.revoked_at).is_(None), col(ApiToken.created_at) > now - VALID_FOR)
    ).first()
    viewer = active_viewer(session, found[1]) if found else None
    return (viewer, found[0]) if found and viewer else None


def is_use_outdated(token: ApiToken, now: datetime) -> bool:
    """Return whether a use should be noted again: none was noted within the last minute."""
    return token.last_used_at is None or now - token.last_used_at >= USED_TO_THE


def note_use(session: Session, token_id: int, now: datetime) -> None:
    """Note that the token is in use, to the minute."""
    old = or_(col(ApiToken.last_used_at).is_(None), col(ApiToken.last_used_at) <= now - USED_TO_THE)
    session.execute(update(ApiToken).where(col(ApiToken.id) == token_id, old).values(last_used_at=now))


def tokens_of(session: Session, viewer: Viewer) -> list[tuple[ApiToken, User]]:
    """Return the viewer's tokens with their users, newest first; for role ops, all tokens of the brand."""
    statement = visible(select(ApiToken, User), ApiToken, viewer).join(User, col(User.id) == col(ApiToken.user_id))
    if viewer.role is not Role.ops:
        statement = statement.where(ApiToken.user_id == viewer.user_id)
    return [(token, user) for token, user in session.exec(statement.order_by(col(ApiToken.id).desc()))]


def get_token(session: Session, viewer: Viewer, token_id: int) -> ApiToken:
    """Return the token; NotFound when it is not among `tokens_of` the viewer."""
    found = next((token for token, _user in tokens_of(session, viewer) if token.id == token_id), None)
    if found is None:
        raise NotFound(f"There is no token {token_id} among yours.")
    return found
