"""Counts of live enrollments (those that have not ended) per campaign, partner and journey, and of the partners that use a journey."""

from datetime import datetime

from sqlmodel import Session, col, func, select

from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.partners.model import Viewer
from distmark.partners.scope import visible
from distmark.partners.table import Partner


def live_by_campaign(session: Session, viewer: Viewer) -> dict[int, int]:
    """Return the number of live enrollments per campaign id; a campaign without any is left out."""
    statement = visible(select(Enrollment.campaign_id, func.count()), Enrollment, viewer)
    statement = statement.where(Enrollment.status != EnrollmentStatus.ended, col(Enrollment.campaign_id).is_not(None))
    return {campaign_id: count for campaign_id, count in session.exec(statement.group_by(col(Enrollment.campaign_id))) if campaign_id}


def live_by_partner(session: Session, viewer: Viewer) -> dict[int, int]:
    """Return the number of live enrollments per partner id; a partner without any is left out."""
    statement = visible(select(Enrollment.partner_id, func.count()), Enrollment, viewer)
    return dict(session.exec(statement.where(Enrollment.status != EnrollmentStatus.ended).group_by(col(Enrollment.partner_id))).all())


def live_by_journey(session: Session, viewer: Viewer) -> dict[int, int]:
    """Return the number of live enrollments per journey id; a journey without any is left out."""
    statement = visible(select(Enrollment.journey_id, func.count()), Enrollment, viewer).where(Enrollment.status != EnrollmentStatus.ended)
    return dict(session.exec(statement.group_by(col(Enrollment.journey_id))).all())


def partners_using(session: Session, viewer: Viewer, journey_id: int, since: datetime) -> tuple[int, int]:
    """Return the number of partners that enrolled a contact in the journey since then, and the number of active partners of the brand."""
    using = visible(select(func.count(func.distinct(Enrollment.partner_id))), Enrollment, viewer)
    using = using.where(Enrollment.journey_id == journey_id, col(Enrollment.entered_at) >= since)
    active = select(func.count()).select_from(Partner).where(Partner.brand_id == viewer.brand_id, col(Partner.active).is_(True))
    return int(session.exec(using).one()), int(session.exec(active).one())
