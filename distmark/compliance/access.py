"""API tokens: creating and revoking them, with an entry in the audit trail for each."""

from datetime import datetime

from sqlmodel import Session

from distmark.compliance.service import record
from distmark.errors import InvalidInput, Refused
from distmark.partners.model import Permission, Viewer
from distmark.partners.service import require
from distmark.partners.table import ApiToken
from distmark.partners.tokens import add_token, end_token, get_token, gives_access, tokens_of
from distmark.sql import id_of

LONGEST_NAME = 80
MOST_TOKENS = 50  # of one person, in use
TOKEN = "api_token"  # noqa: S105  (the kind of subject in the audit trail)


def create_token(session: Session, viewer: Viewer, name: str, now: datetime) -> tuple[str, ApiToken]:
    """Create a token, with which a program has the viewer's permissions; return its text, which is shown this once, and its row.

    Errors: InvalidInput for a name that cannot be used, Refused for too many tokens.
    """
    require(viewer, Permission.use_api)
    name = name.strip()
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise InvalidInput(f"The name has {len(name)} characters; write 1 to {LONGEST_NAME} on one line.")
    own = [token for token, user in tokens_of(session, viewer) if user.id == viewer.user_id and gives_access(token, now)]
    if len(own) >= MOST_TOKENS:
        raise Refused(f"You have {len(own)} tokens already; revoke one that is no longer used.")
    token, row = add_token(session, viewer, name, now)
    record(session, viewer.brand_id, viewer.user_id, "created", TOKEN, id_of(row), now, name=name)
    return token, row


def revoke_token(session: Session, viewer: Viewer, token_id: int, now: datetime) -> ApiToken:
    """Revoke the token and return its row; a second call changes nothing. NotFound for a token that the viewer may not revoke."""
    row = get_token(session, viewer, token_id)
    if row.revoked_at is None:
        end_token(session, row, now)
        record(session, viewer.brand_id, viewer.user_id, "revoked", TOKEN, token_id, now, name=row.name)
    return row
