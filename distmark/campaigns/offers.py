"""Offers: which journeys a partner's people may read and enter. A journey is offered by its campaigns, to one partner or to all.

A journey that never had a campaign is offered to every partner: contacts enter it by events, dates, segments and calls of the API.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlmodel import Session, col, select

from distmark.campaigns.table import Campaign, CampaignStatus
from distmark.errors import NotFound
from distmark.journeys.service import get_journey, list_journeys
from distmark.journeys.table import Journey
from distmark.partners.model import Role, Viewer
from distmark.sql import among, id_of

TAKING = (CampaignStatus.open, CampaignStatus.paused)


@dataclass(frozen=True, slots=True)
class Offer:
    """The partners to which a journey is offered, None among them for all; `now` are those of campaigns that are not closed."""

    ever: set[int | None] = field(default_factory=set)
    now: set[int | None] = field(default_factory=set)

    def is_known_to(self, partner_id: int | None) -> bool:
        """Return whether people of the partner may read of the journey."""
        return not self.ever or bool(self.ever & {None, partner_id})

    def is_open_to(self, partner_id: int | None) -> bool:
        """Return whether contacts of the partner may enter the journey."""
        return not self.ever or bool(self.now & {None, partner_id})


def offers_of(session: Session, journey_ids: Iterable[int]) -> dict[int, Offer]:
    """Return the offer of each of these journeys, from all campaigns but drafts."""
    offers = {journey_id: Offer() for journey_id in journey_ids}
    columns = select(Campaign.journey_id, Campaign.partner_id, Campaign.status).where(col(Campaign.status) != CampaignStatus.draft)
    for journey_id, partner_id, status in session.exec(columns.where(among(session, col(Campaign.journey_id), offers)).distinct()):
        offers[journey_id].ever.add(partner_id)
        if status in TAKING:
            offers[journey_id].now.add(partner_id)
    return offers


def offered_journey(session: Session, viewer: Viewer, key: str) -> Journey:
    """Return the journey of this key; NotFound outside the viewer's sight, or when it is offered to other partners only."""
    journey = get_journey(session, viewer, key)
    if viewer.role is Role.partner and not offers_of(session, [id_of(journey)])[id_of(journey)].is_known_to(viewer.partner_id):
        raise NotFound(f'There is no journey "{key}" among yours.')
    return journey


def offered_journeys(session: Session, viewer: Viewer) -> list[Journey]:
    """Return the journeys within the viewer's sight by key, without those that are offered to other partners only."""
    found = list_journeys(session, viewer)
    if viewer.role is not Role.partner:
        return found
    offers = offers_of(session, [id_of(journey) for journey in found])
    return [journey for journey in found if offers[id_of(journey)].is_known_to(viewer.partner_id)]
