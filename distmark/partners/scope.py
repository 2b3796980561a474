"""The rows within a viewer's sight. Every query on behalf of a person goes through `visible`, so isolation is decided here alone."""

from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, and_, false, or_
from sqlmodel import SQLModel

from distmark.partners.model import Role, Viewer
from distmark.partners.table import Brand, Partner

BRAND_COLUMN: dict[type[SQLModel], str] = {Brand: "id"}
PARTNER_COLUMN: dict[type[SQLModel], str] = {Partner: "id"}
Statement = TypeVar("Statement", bound=Select[Any])


def visible(statement: Statement, model: type[SQLModel], viewer: Viewer) -> Statement:
    """Return `statement` with the condition that the rows of `model` are within the viewer's sight.

    Rows of another brand never are. A partner's people see their partner's rows, and rows with an empty partner, which belong to all
    partners of the brand. A table without `brand_id` must be joined to one that has it.
    """
    return statement.where(may_see(model, viewer))


def may_see(model: type[SQLModel], viewer: Viewer) -> ColumnElement[bool]:
    """Return the condition under which a row of `model` is within the viewer's sight."""
    columns = model.__table__.columns  # type: ignore[attr-defined]
    brand_column = BRAND_COLUMN.get(model, "brand_id")
    if brand_column not in columns:
        raise TypeError(f"{model.__name__} has no brand_id, so nobody can say whose rows they are; join it to a table that has one.")
    same_brand: ColumnElement[bool] = columns[brand_column] == viewer.brand_id
    partner_column = PARTNER_COLUMN.get(model, "partner_id")
    if viewer.role is not Role.partner or partner_column not in columns:
        return same_brand
    if viewer.partner_id is None:  # a viewer of role partner without a partner sees no rows, rather than all
        return false()
    partner = columns[partner_column]
    return and_(same_brand, or_(partner == viewer.partner_id, partner.is_(None)) if partner.nullable else partner == viewer.partner_id)
