"""Pauses and drains: rules set on a scope, and their effect on existing and new enrollments."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self

from sqlalchemy import ColumnElement, exists, or_, select, text, true
from sqlmodel import Session, col

from distmark.enrollments.bulk import change
from distmark.enrollments.model import EnrollmentStatus, SuspensionKind, TimelineKind
from distmark.enrollments.table import Enrollment, Suspension
from distmark.journeys.service import newest_registered
from distmark.partners.model import Role, Viewer
from distmark.partners.scope import visible
from distmark.sql import among, batches, on_sqlite

PARTS = ("journey_id", "version_id", "campaign_id", "partner_id", "contact_id")


@dataclass(frozen=True, slots=True)
class Scope:
    """A part of a brand's enrollments: the enrollments that match all given ids, or the listed ones, with no other id beside the list."""

    journey_id: int | None = None
    version_id: int | None = None
    campaign_id: int | None = None
    partner_id: int | None = None
    contact_id: int | None = None
    enrollment_ids: tuple[int, ...] = ()

    @classmethod
    def listed(cls, enrollment_ids: Sequence[int]) -> Self:
        """Return the scope of these listed enrollments."""
        return cls(enrollment_ids=tuple(dict.fromkeys(enrollment_ids)))

    @property
    def parts(self) -> dict[str, int]:
        """The given ids, by column."""
        return {name: value for name, value in self.columns() if value is not None}

    def columns(self) -> Iterator[tuple[str, int | None]]:
        """Iterate over the columns of a scope with the id given for each; None where none is given."""
        return ((each.name, getattr(self, each.name)) for each in fields(self) if each.name in PARTS)


def suspensions(session: Session, viewer: Viewer) -> list[Suspension]:
    """Return the open suspensions, newest first; a partner's people see those of their partner and those that name no partner."""
    statement = visible(select(Suspension), Suspension, viewer).where(_is_open())
    return list(session.execute(statement.order_by(col(Suspension.id).desc())).scalars())


def suspensions_of(session: Session, viewer: Viewer, scope: Scope) -> list[Suspension]:
    """Return the open suspensions of exactly this scope that the viewer may lift; a partner's people cannot lift the brand's."""
    if not scope.parts:
        return []
    exactly = [
        getattr(Suspension, name).is_(None) if value is None else getattr(Suspension, name) == value for name, value in scope.columns()
    ]
    by_partner = [col(Suspension.by_partner)] if viewer.role is Role.partner else []
    statement = select(Suspension).where(_is_open(), col(Suspension.brand_id) == viewer.brand_id, *exactly, *by_partner)
    return list(session.execute(statement).scalars())


def suspend(session: Session, viewer: Viewer, scope: Scope, kind: SuspensionKind, now: datetime, reason: str) -> None:
    """Add the suspension of this kind and scope, unless it is there."""
    if any(suspension.kind is kind for suspension in suspensions_of(session, viewer, scope)):
        return
    parts: dict[str, Any] = dict(scope.columns())
    by_partner = viewer.role is Role.partner
    session.add(
        Suspension(brand_id=viewer.brand_id, kind=kind, reason=reason, by_id=viewer.user_id, by_partner=by_partner, at=now, **parts)
    )
    session.flush()


def lift(session: Session, viewer: Viewer, scope: Scope, now: datetime) -> None:
    """Lift the open suspensions of exactly this scope that the viewer may lift."""
    for suspension in suspensions_of(session, viewer, scope):
        suspension.lifted_at = now
        session.add(suspension)
    session.flush()


def is_held(but: Sequence[Suspension] = ()) -> ColumnElement[bool]:
    """Return the condition that an open pause, other than the pauses in `but`, holds the enrollment."""
    parts = [or_(getattr(Suspension, name).is_(None), getattr(Suspension, name) == getattr(Enrollment, name)) for name in PARTS]
    same_brand = col(Suspension.brand_id) == col(Enrollment.brand_id)
    others = col(Suspension.id).not_in([each.id for each in but]) if but else true()
    pauses = select(col(Suspension.id)).where(same_brand, _is_open(), col(Suspension.kind) == SuspensionKind.paused, others, *parts)
    return exists(pauses.correlate(Enrollment))


def drained_among(session: Session, brand_id: int, journey_id: int, campaign_id: int | None, contacts: Mapping[int, int]) -> set[int]:
    """Return the contacts among these (contact id -> partner id) that may not enter, since a drain covers the entry."""
    found = session.execute(select(Suspension).where(_is_open(), *_of(brand_id, SuspensionKind.draining))).scalars().all()
    if not found:
        return set()
    newest = newest_registered(session, journey_id)
    shared = {"journey_id": journey_id, "version_id": newest.id if newest else None, "campaign_id": campaign_id}
    return {
        contact_id
        for contact_id, partner_id in contacts.items()
        if any(covers(suspension, shared | {"contact_id": contact_id, "partner_id": partner_id}) for suspension in found)
    }


def covers(suspension: Suspension, columns: Mapping[str, int | None]) -> bool:
    """Return whether the suspension holds every enrollment that has these columns."""
    return all(getattr(suspension, name) in (None, columns[name]) for name in PARTS)


def pause_entrants(session: Session, brand_id: int, enrollment_ids: Sequence[int], now: datetime) -> int:
    """Pause the new enrollments among these that an open pause holds, and return how many.

    To be called in the transaction that inserted them: a pause that is made at the same time is seen here, or sees the enrollments.
    """
    _lock(session, "pg_advisory_xact_lock_shared", brand_id)
    paused = select(col(Suspension.id)).where(_is_open(), *_of(brand_id, SuspensionKind.paused)).limit(1)
    if session.execute(paused).first() is None:
        return 0
    values = {"status": EnrollmentStatus.paused, "paused_at": now}
    detail = {"entered_paused": True}
    return sum(
        change(
            session,
            [among(session, col(Enrollment.id), part), col(Enrollment.status) == EnrollmentStatus.waiting, is_held()],
            values,
            TimelineKind.paused,
            now,
            detail,
        )
        for part in batches(enrollment_ids, 10_000)
    )


def lock_suspensions(session: Session, brand_id: int) -> None:
    """Lock the brand's suspensions: until the unit of work ends no contact enters, and no other suspension is added or lifted."""
    _lock(session, "pg_advisory_xact_lock", brand_id)


def _lock(session: Session, function: str, brand_id: int) -> None:
    if not on_sqlite(session):  # a writing session on SQLite is alone anyway
        session.execute(text(f"SELECT {function}(hashtextextended(:name, 0))"), {"name": f"distmark-restraints:{brand_id}"})


def _is_open() -> ColumnElement[bool]:
    return col(Suspension.lifted_at).is_(None)


def _of(brand_id: int, kind: SuspensionKind) -> tuple[ColumnElement[bool], ...]:
    return col(Suspension.brand_id) == brand_id, col(Suspension.kind) == kind
