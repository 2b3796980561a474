"""A journey is read and entered by the partners to which a campaign offers it; one without campaigns by all."""

import pytest
from sqlmodel import Session

from distmark.campaigns.offers import offered_journey, offered_journeys
from distmark.campaigns.table import CampaignStatus
from distmark.db import Database
from distmark.entries.api_calls import EntryCall, RequestedContact, enter_by_call
from distmark.errors import NotFound, Refused
from distmark.journeys.table import Journey, JourneyVersion
from distmark.metrics.service import campaign_results, results
from distmark.partners.model import Role, Viewer
from distmark.sql import id_of
from tests import factories as make
from tests.factories import NOW


class Offering:
    """A brand with two partners, and a registered journey that is offered to the first alone."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.brand = make.make_brand(session)
        self.version: JourneyVersion = make.make_version(session, self.brand)
        self.key = session.get_one(Journey, self.version.journey_id).key
        self.one, self.other = make.make_partner(session, self.brand), make.make_partner(session, self.brand)
        self.campaign = make.make_campaign(session, self.version, partner_id=self.one.id)

    def viewer(self, partner: object = None, role: Role = Role.ops) -> Viewer:
        return make.make_viewer(self.session, role, self.brand) if partner is None else make.make_viewer(self.session, partner=partner)

    def enter(self, viewer: Viewer, partner: object, campaign_key: str | None = None) -> list[str]:
        contact = make.make_contact(self.session, partner)
        call = EntryCall(self.key, [RequestedContact(id_of(contact))], campaign_key=campaign_key)
        return [answer.verdict for answer in enter_by_call(self.session, viewer, call, NOW).answers]


def test_partner_without_the_offer_neither_enters_nor_reads(db: Database):
    with db.writing() as session:
        offering = Offering(session)
        stranger = offering.viewer(offering.other)

        for campaign_key in (None, offering.campaign.key):
            with pytest.raises(NotFound):
                offering.enter(stranger, offering.other, campaign_key)
        with pytest.raises(NotFound):
            results(session, stranger, offering.key)
        with pytest.raises(NotFound):
            campaign_results(session, stranger, id_of(offering.campaign))
        assert offered_journeys(session, stranger) == []


def test_partner_with_the_offer_reads_and_gets_past_it(db: Database):
    with db.writing() as session:
        offering = Offering(session)
        partner = offering.viewer(offering.one)

        assert results(session, partner, offering.key)
        assert offered_journey(session, partner, offering.key).id == offering.version.journey_id
        assert offering.enter(partner, offering.one) == ["no_consent"]  # the journey's own rules decide


@pytest.mark.parametrize("status", [CampaignStatus.closed, CampaignStatus.draft])
def test_offer_to_all_holds_for_each_until_it_is_closed_and_not_before_it_is_published(db: Database, status: CampaignStatus):
    with db.writing() as session:
        offering = Offering(session)
        everybody = make.make_campaign(session, offering.version, partner_id=None)
        partner = offering.viewer(offering.other)
        assert offering.enter(partner, offering.other) == ["no_consent"]
        everybody.status = status
        session.add(everybody)
        session.flush()

        with pytest.raises(NotFound if status is CampaignStatus.draft else Refused):
            offering.enter(partner, offering.other)
        if status is CampaignStatus.closed:
            assert results(session, partner, offering.key)


def test_brands_own_people_enter_no_contact_of_a_partner_without_the_offer(db: Database):
    with db.writing() as session:
        offering = Offering(session)
        ops = offering.viewer()

        assert offering.enter(ops, offering.one) == ["no_consent"]
        with pytest.raises(Refused):
            offering.enter(ops, offering.other)
        assert results(session, ops, offering.key)


def test_journey_that_never_had_a_campaign_is_open_to_all(db: Database):
    with db.writing() as session:
        offering = Offering(session)
        session.delete(offering.campaign)
        session.flush()
        partner = offering.viewer(offering.other)

        assert offering.enter(partner, offering.other) == ["no_consent"]
        assert results(session, partner, offering.key)


def test_results_of_a_journey_take_no_campaign_of_another_journey(db: Database):
    with db.writing() as session:
        offering = Offering(session)
        another = make.make_campaign(session, make.make_version(session, offering.brand))

        with pytest.raises(NotFound):
            results(session, offering.viewer(), offering.key, campaign_id=id_of(another))
