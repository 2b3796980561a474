"""Drafts: texts that a person typed and has not saved yet, kept for that person alone until they are saved or thirty days old."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlmodel import Session, col, delete, select

from distmark.drafts.table import Draft
from distmark.errors import InvalidInput
from distmark.partners.model import Viewer
from distmark.sql import insert_into

KEPT_FOR = timedelta(days=30)
LONGEST_PLACE = 200
MOST_CHARACTERS = 2_000_000  # of one draft: a journey with its templates
MOST_DRAFTS = 200  # of one person; the oldest go first


def keep_draft(session: Session, viewer: Viewer, place: str, fields: Mapping[str, str], now: datetime) -> None:
    """Keep the viewer's typed fields at this place, in place of those kept before; without a field nothing is kept there.

    InvalidInput for a draft that is too large.
    """
    size = sum(len(name) + len(text) for name, text in fields.items())
    if size > MOST_CHARACTERS or len(place) > LONGEST_PLACE:
        raise InvalidInput(f"The text has {size} characters; at most {MOST_CHARACTERS} are kept.")
    _forget_old(session, viewer, now)
    if not fields:
        drop_draft(session, viewer, place)
        return
    row = {"user_id": viewer.user_id, "place": place, "fields": dict(fields), "updated_at": now}
    statement = insert_into(session, Draft).values(row)
    changed = {name: statement.excluded[name] for name in ("fields", "updated_at")}
    session.execute(statement.on_conflict_do_update(index_elements=["user_id", "place"], set_=changed))


def draft_of(session: Session, viewer: Viewer, place: str) -> Draft | None:
    """Return the viewer's typed and unsaved fields at this place; None without any."""
    return session.exec(select(Draft).where(Draft.user_id == viewer.user_id, Draft.place == place)).first()


def drop_draft(session: Session, viewer: Viewer, place: str) -> None:
    """Delete the viewer's draft at this place."""
    session.execute(delete(Draft).where(col(Draft.user_id) == viewer.user_id, col(Draft.place) == place))


def _forget_old(session: Session, viewer: Viewer, now: datetime) -> None:
    """Delete the viewer's drafts that are too old or beyond the number that is kept."""
    own = col(Draft.user_id) == viewer.user_id
    session.execute(delete(Draft).where(own, col(Draft.updated_at) < now - KEPT_FOR))
    beyond = select(Draft.id).where(own).order_by(col(Draft.updated_at).desc()).offset(MOST_DRAFTS - 1).limit(MOST_DRAFTS)
    ids = [draft_id for draft_id in session.exec(beyond) if draft_id is not None]
    if ids:
        session.execute(delete(Draft).where(col(Draft.id).in_(ids)))
