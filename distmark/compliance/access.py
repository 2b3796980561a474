"""Giving programs a key to act as a person, and taking it back; both are in the audit trail."""

from datetime import datetime

from sqlmodel import Session

from distmark.compliance.service import record
from distmark.errors import InvalidInput, Refused
from distmark.partners.model import Permission, Viewer
from distmark.partners.service import require
from distmark.partners.table import ApiToken
from distmark.partners.tokens import ENDING, get_token, hash_of, new_token, tokens_of
from distmark.sql import id_of

LONGEST_NAME = 80
MOST_TOKENS = 50  # of one person, in use
TOKEN = "api_token"  # noqa: S105  (what the trail calls it)


def create_token(session: Session, viewer: Viewer, name: str, now: datetime) -> tuple[str, ApiToken]:
    """Return a new key, which can be read this once, and its row. A program with it sees and does what the viewer may.

    Errors: InvalidInput for a name that cannot be, Refused for too many.
    """
    require(viewer, Permission.use_api)
    name = name.strip()
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise InvalidInput(f"The name has {len(name)} characters; write 1 to {LONGEST_NAME} on one line.")
    mine = [token for token, user in tokens_of(session, viewer) if user.id == viewer.user_id and token.revoked_at is None]
    if len(mine) >= MOST_TOKENS:
        raise Refused(f"You have {len(mine)} tokens already; revoke one that is no longer used.")
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
    record(session, viewer.brand_id, viewer.user_id, "created", TOKEN, id_of(row), now, name=name)
    return token, row


def revoke_token(session: Session, viewer: Viewer, token_id: int, now: datetime) -> ApiToken:
    """Let the key open nothing any more; doing it again changes nothing. NotFound for a key that is not the viewer's to revoke."""
    row = get_token(session, viewer, token_id)
    if row.revoked_at is None:
        row.revoked_at = now
        session.add(row)
        record(session, viewer.brand_id, viewer.user_id, "revoked", TOKEN, token_id, now, name=row.name)
    return row
