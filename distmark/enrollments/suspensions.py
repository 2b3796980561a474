"""What people paused or let run dry until they lift it, and what that means for those inside and for those who enter."""

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
    """A part of a brand's enrollments: those that match all that is given. Listed enrollments stand alone."""

    journey_id: int | None = None
    version_id: int | None = None
    campaign_id: int | None = None
    partner_id: int | None = None
    contact_id: int | None = None
    enrollment_ids: tuple[int, ...] = ()

    @classmethod
    def listed(cls, enrollment_ids: Sequence[int]) -> Self:
        """Return the scope of these enrollments."""
        return cls(enrollment_ids=tuple(dict.fromkeys(enrollment_ids)))

    @property
    def parts(self) -> dict[str, int]:
        """What is given, by column."""
        return {name: value for name, value in self.columns() if value is not None}

    def columns(self) -> Iterator[tuple[str, int | None]]:
        """Iterate over the columns that a scope speaks of, with what is given."""
        return ((each.name, getattr(self, each.name)) for each in fields(self) if each.name in PARTS)


def suspensions(session: Session, viewer: Viewer) -> list[Suspension]:
    """Return what is paused or drained now, the newest first; a partner's people see what concerns them."""
    statement = visible(select(Suspension), Suspension, viewer).where(_is_open())
    return list(session.execute(statement.order_by(col(Suspension.id).desc())).scalars())


def suspensions_of(session: Session, viewer: Viewer, scope: Scope) -> list[Suspension]:
    """Return the open restraints of exactly this scope that the viewer may lift: not the brand's, for a partner's people."""
    if not scope.parts:
        return []
    exactly = [
        getattr(Suspension, name).is_(None) if value is None else getattr(Suspension, name) == value for name, value in scope.columns()
    ]
    by_whom = [col(Suspension.by_partner)] if viewer.role is Role.partner else []
    statement = select(Suspension).where(_is_open(), col(Suspension.brand_id) == viewer.brand_id, *exactly, *by_whom)
    return list(session.execute(statement).scalars())


def suspend(session: Session, viewer: Viewer, scope: Scope, kind: SuspensionKind, now: datetime, reason: str) -> None:
    """Make the restraint, unless it is there."""
    if any(restraint.kind is kind for restraint in suspensions_of(session, viewer, scope)):
        return
    parts: dict[str, Any] = dict(scope.columns())
    by_partner = viewer.role is Role.partner
    session.add(
        Suspension(brand_id=viewer.brand_id, kind=kind, reason=reason, by_id=viewer.user_id, by_partner=by_partner, at=now, **parts)
    )
    session.flush()


def held(but: Sequence[Suspension] = ()) -> ColumnElement[bool]:
    """Return the condition that an open pause other than these holds the enrollment."""
    parts = [or_(getattr(Suspension, name).is_(None), getattr(Suspension, name) == getattr(Enrollment, name)) for name in PARTS]
    same_brand = col(Suspension.brand_id) == col(Enrollment.brand_id)
    others = col(Suspension.id).not_in([each.id for each in but]) if but else true()
    pauses = select(col(Suspension.id)).where(same_brand, _is_open(), col(Suspension.kind) == SuspensionKind.paused, others, *parts)
    return exists(pauses.correlate(Enrollment))


def drained_among(session: Session, brand_id: int, journey_id: int, campaign_id: int | None, people: Mapping[int, int]) -> set[int]:
    """Return who of these contacts (contact -> partner) may not enter the journey, since it, or something around them, is drained."""
    found = session.execute(select(Suspension).where(_is_open(), *_of(brand_id, SuspensionKind.draining))).scalars().all()
    if not found:
        return set()
    newest = newest_registered(session, journey_id)
    door = {"journey_id": journey_id, "version_id": newest.id if newest else None, "campaign_id": campaign_id}
    return {
        contact_id
        for contact_id, partner_id in people.items()
        if any(covers(restraint, door | {"contact_id": contact_id, "partner_id": partner_id}) for restraint in found)
    }


def covers(restraint: Suspension, door: Mapping[str, int | None]) -> bool:
    """Return whether the restraint holds all of whom `door` tells, by column."""
    return all(getattr(restraint, name) in (None, door[name]) for name in PARTS)


def hold_entrants(session: Session, brand_id: int, enrollment_ids: Sequence[int], now: datetime) -> int:
    """Let those who just entered a paused scope start paused, and return how many.

    Call it in the transaction that inserted them: a pause made at the same time either is seen here, or sees them.
    """
    _lock(session, "pg_advisory_xact_lock_shared", brand_id)
    paused = select(col(Suspension.id)).where(_is_open(), *_of(brand_id, SuspensionKind.paused)).limit(1)
    if session.execute(paused).first() is None:
        return 0
    values = {"status": EnrollmentStatus.paused, "paused_at": now}
    told = {"entered_paused": True}
    return sum(
        change(
            session,
            [among(session, col(Enrollment.id), part), col(Enrollment.status) == EnrollmentStatus.waiting, held()],
            values,
            TimelineKind.paused,
            now,
            told,
        )
        for part in batches(enrollment_ids, 10_000)
    )


def lock_suspensions(session: Session, brand_id: int) -> None:
    """Let nobody enter anything of the brand or change its restraints until the unit of work ends."""
    _lock(session, "pg_advisory_xact_lock", brand_id)


def _lock(session: Session, function: str, brand_id: int) -> None:
    if not on_sqlite(session):  # a writing session on SQLite is alone anyway
        session.execute(text(f"SELECT {function}(hashtextextended(:name, 0))"), {"name": f"distmark-restraints:{brand_id}"})


def _is_open() -> ColumnElement[bool]:
    return col(Suspension.lifted_at).is_(None)


def _of(brand_id: int, kind: SuspensionKind) -> tuple[ColumnElement[bool], ...]:
    return col(Suspension.brand_id) == brand_id, col(Suspension.kind) == kind
