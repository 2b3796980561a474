"""The user on whose behalf a command acts. The local operator needs no password: who can run commands here can read the database too."""

from collections.abc import Sequence
from typing import Annotated, TypeVar

import typer
from sqlmodel import Session, col, or_, select

from distmark.campaigns.table import Campaign
from distmark.errors import InvalidInput, NotFound
from distmark.journeys.table import Journey
from distmark.partners.model import PERMISSIONS, Permission, Viewer
from distmark.partners.service import active_viewer
from distmark.partners.table import Brand, Partner, User

_Found = TypeVar("_Found")
AS_RULE = "Act as this user. Without it: the first user (by age of the account) of the brand whose role may do this."
As = Annotated[str, typer.Option("--as", metavar="EMAIL", help=AS_RULE)]
BrandKey = Annotated[str, typer.Option("--brand", metavar="KEY", help="The brand, where its key does not follow from the rest.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per line, for scripts.")]


def viewer_for(
    session: Session,
    permission: Permission,
    *,
    email: str = "",
    brand_id: int | None = None,
    partner_id: int | None = None,
    but_not: Sequence[int] = (),
) -> Viewer:
    """Return the acting user, by AS_RULE; `but_not` are users that may not (an author does not approve). NotFound when there is none."""
    if email:
        return _named(session, email)
    roles = [role for role, allowed in PERMISSIONS.items() if permission in allowed]
    query = select(User).where(col(User.active), col(User.role).in_(roles), col(User.id).not_in(list(but_not))).order_by(col(User.id))
    if brand_id is not None:
        query = query.where(User.brand_id == brand_id)
    if partner_id is not None:
        query = query.where(or_(col(User.partner_id) == partner_id, col(User.partner_id).is_(None)))
    # Someone of the named partner first, else someone of the brand: a partner's people see only their own contacts.
    users = sorted(session.exec(query), key=lambda user: user.partner_id != partner_id)
    viewer = next((found for user in users if (found := active_viewer(session, user)) is not None), None)
    if viewer is None:
        others = " other than the author" if but_not else ""
        raise NotFound(
            f"No user{others} may {permission.replace('_', ' ')} here; make one with `distmark init`, or name one with --as EMAIL."
        )
    return viewer


def _named(session: Session, email: str) -> Viewer:
    user = session.exec(select(User).where(User.email == email.strip().lower())).first()
    viewer = active_viewer(session, user) if user is not None else None
    if viewer is None:
        raise NotFound(f"There is no active user {email}; check the address given with --as.")
    return viewer


def brand_named(session: Session, key: str) -> Brand:
    """Return the brand of this key, or the only one there is when none is given."""
    brands = list(session.exec(select(Brand).order_by(col(Brand.key))))
    chosen = [brand for brand in brands if key in ("", brand.key)]
    if len(chosen) == 1:
        return chosen[0]
    known = ", ".join(brand.key for brand in brands) or "none yet; make one with `distmark init`"
    raise (
        NotFound(f"There is no brand {key}; known: {known}.")
        if key
        else InvalidInput(f"There are several brands; give --brand, one of: {known}.")
    )


def partner_named(session: Session, key: str, brand_key: str = "") -> Partner:
    """Return the partner of this key. Partners of two brands may share one: then `brand_key` decides."""
    query = select(Partner, Brand.key).join(Brand, col(Brand.id) == Partner.brand_id).where(Partner.key == key)
    return _only([(partner, of) for partner, of in session.exec(query) if brand_key in ("", of)], f"partner {key}")


def campaign_named(session: Session, key: str, brand_key: str = "") -> Campaign:
    """Return the campaign of this key. Campaigns of two brands may share one: then `brand_key` decides."""
    query = select(Campaign, Brand.key).join(Brand, col(Brand.id) == Campaign.brand_id).where(Campaign.key == key)
    return _only([(campaign, of) for campaign, of in session.exec(query) if brand_key in ("", of)], f"campaign {key}")


def brand_of_journey(session: Session, journey_key: str, brand_key: str = "") -> int:
    """Return the id of the journey's brand. Journeys of two brands may share a key: then `brand_key` decides."""
    query = select(Journey.brand_id, Brand.key).join(Brand, col(Brand.id) == Journey.brand_id).where(Journey.key == journey_key)
    found = [(brand_id, of) for brand_id, of in session.exec(query) if brand_key in ("", of)]
    return _only(found, f"journey {journey_key}", "; `distmark journeys list` shows those there are")


def _only(found: Sequence[tuple[_Found, str]], what: str, hint: str = "") -> _Found:
    if len(found) == 1:
        return found[0][0]
    if not found:
        raise NotFound(f"There is no {what}{hint or '; check the key'}.")
    raise InvalidInput(f"There is a {what} in the brands {', '.join(sorted(brand for _, brand in found))}; give --brand.")
