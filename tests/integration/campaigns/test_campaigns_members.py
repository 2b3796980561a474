"""Campaigns, their members, and the layers of texts in their blocks."""

from datetime import datetime

import pytest
from sqlmodel import Session, select

from distmark.campaigns import service as campaigns
from distmark.campaigns.table import Campaign, CampaignStatus, Member, MemberStatus
from distmark.compliance.table import AuditEntry
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.errors import InvalidInput, NotAllowed, NotFound, Refused
from distmark.journeys.service import program_of
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.partners.model import Role, Viewer
from distmark.partners.table import Brand, Partner
from distmark.personalisation.model import Layer
from distmark.sql import id_of
from tests.factories import make_brand, make_campaign, make_contact, make_member, make_partner, make_version, make_viewer


def _key(session: Session, version: JourneyVersion) -> str:
    return session.get_one(Journey, version.journey_id).key


def test_campaign_offers_a_journey_to_every_partner_and_is_recorded(db: Database, now: datetime):
    with db.writing() as session:
        brand = make_brand(session)
        viewer, version = make_viewer(session, brand=brand), make_version(session, brand)

        campaign = campaigns.create_campaign(session, viewer, _key(session, version), "autumn-2026", " 秋のご案内 ", now)

        assert (campaign.name, campaign.status, campaign.partner_id) == ("秋のご案内", CampaignStatus.open, None)
        assert (campaign.journey_id, campaign.created_by_id, campaign.created_at) == (version.journey_id, viewer.user_id, now)
        entry = session.exec(select(AuditEntry)).one()
        assert (entry.action, entry.subject_kind, entry.subject_id) == ("created", "campaign", campaign.id)


def test_key_is_taken_once_per_brand(db: Database, now: datetime):
    with db.writing() as session:
        for _ in range(2):
            brand = make_brand(session)
            viewer, key = make_viewer(session, brand=brand), _key(session, make_version(session, brand))
            campaigns.create_campaign(session, viewer, key, "autumn", "A", now)

        with pytest.raises(Refused, match='There is a campaign "autumn" already'):
            campaigns.create_campaign(session, viewer, key, "autumn", "B", now)
        assert len(session.exec(select(Campaign)).all()) == 2


@pytest.mark.parametrize(("key", "name"), [("Autumn", "A"), ("秋", "A"), ("", "A"), ("a b", "A"), ("a", "  "), ("a", "x" * 121)])
def test_key_or_name_that_cannot_be_used_is_refused(db: Database, now: datetime, key: str, name: str):
    with db.writing() as session:
        brand = make_brand(session)
        viewer, version = make_viewer(session, brand=brand), make_version(session, brand)

        with pytest.raises(InvalidInput):
            campaigns.create_campaign(session, viewer, _key(session, version), key, name, now)


def test_partner_does_not_create_campaigns(db: Database, now: datetime):
    with db.writing() as session, pytest.raises(NotAllowed):
        campaigns.create_campaign(session, make_viewer(session, partner=make_partner(session)), "a", "a", "a", now)


def test_partners_see_their_own_and_open_brand_wide_campaigns_and_those_with_their_members(db: Database):
    with db.writing() as session:
        brand = make_brand(session)
        own_partner, other_partner = make_partner(session, brand), make_partner(session, brand)
        version = make_version(session, brand)
        seen = [
            make_campaign(session, version, partner=own_partner),
            make_campaign(session, version, partner=own_partner, status=CampaignStatus.closed),
            make_campaign(session, version),
            make_campaign(session, version, status=CampaignStatus.paused),
        ]
        make_member(session, seen[3], make_contact(session, own_partner))
        unseen = [
            make_campaign(session, version, status=CampaignStatus.paused),
            make_campaign(session, version, status=CampaignStatus.draft),
            make_campaign(session, version, partner=own_partner, status=CampaignStatus.draft),
            make_campaign(session, version, partner=other_partner),
        ]
        foreign = make_campaign(session)

        assert campaigns.list_campaigns(session, make_viewer(session, partner=own_partner)) == seen[::-1]
        everything = {row.id for row in campaigns.list_campaigns(session, make_viewer(session, brand=brand))}
        assert everything == {row.id for row in seen + unseen}
        assert foreign.id not in everything


def test_closed_campaign_stays_closed(db: Database, now: datetime):
    with db.writing() as session:
        brand = make_brand(session)
        viewer, campaign = make_viewer(session, brand=brand), make_campaign(session, brand=brand)
        for status in (CampaignStatus.paused, CampaignStatus.open, CampaignStatus.closed):
            campaigns.set_campaign_status(session, viewer, id_of(campaign), status, now)
            assert campaign.status is status

        with pytest.raises(Refused, match="is closed and cannot be open"):
            campaigns.set_campaign_status(session, viewer, id_of(campaign), CampaignStatus.open, now)


class Fixture:
    """A partner with three contacts, and a brand-wide campaign."""

    def __init__(self, session: Session) -> None:
        self.partner: Partner = make_partner(session)
        self.viewer: Viewer = make_viewer(session, partner=self.partner)
        self.campaign: Campaign = make_campaign(session, partner=None, brand=session.get_one(Brand, self.partner.brand_id))
        self.contacts = [make_contact(session, self.partner, last_name=name) for name in ("鈴木", "佐藤", "田中")]
        self.ids = [id_of(contact) for contact in self.contacts]
        self.campaign_id = id_of(self.campaign)


def test_contacts_are_added_once_however_often_the_call_is_repeated(db: Database, now: datetime):
    with db.writing() as session:
        given = Fixture(session)

        assert campaigns.add_members(session, given.viewer, given.campaign_id, given.ids[:2] * 2, now) == 2
        assert campaigns.add_members(session, given.viewer, given.campaign_id, given.ids, now) == 1
        assert campaigns.add_members(session, given.viewer, given.campaign_id, [], now) == 0

        rows = session.exec(select(Member)).all()
        assert [row.contact_id for row in rows] == given.ids
        assert {(row.partner_id, row.status, row.added_by_id) for row in rows} == {
            (given.partner.id, MemberStatus.pending, given.viewer.user_id)
        }


def test_foreign_contact_keeps_all_contacts_from_being_added(db: Database, now: datetime):
    with db.writing() as session:
        given = Fixture(session)
        foreign_contact = make_contact(session, make_partner(session, session.get_one(Brand, given.partner.brand_id)))

        with pytest.raises(NotFound, match=f"There is no contact {foreign_contact.id} among yours"):
            campaigns.add_members(session, given.viewer, given.campaign_id, [*given.ids, id_of(foreign_contact)], now)

        assert session.exec(select(Member)).all() == []


def test_operations_add_only_a_campaigns_own_partners_contacts(db: Database, now: datetime):
    with db.writing() as session:
        given = Fixture(session)
        brand = session.get_one(Brand, given.partner.brand_id)
        campaign = make_campaign(session, make_version(session, brand), partner=make_partner(session, brand))

        with pytest.raises(Refused, match="is for one partner"):
            campaigns.add_members(session, make_viewer(session, Role.ops, brand), id_of(campaign), given.ids, now)


def test_nobody_is_added_to_a_closed_campaign(db: Database, now: datetime):
    with db.writing() as session:
        given = Fixture(session)
        given.campaign.status = CampaignStatus.closed

        with pytest.raises(Refused, match="is closed"):
            campaigns.add_members(session, given.viewer, given.campaign_id, given.ids, now)


def test_members_come_in_pages_by_order_of_adding_with_their_contacts(db: Database, now: datetime):
    with db.writing() as session:
        given = Fixture(session)
        campaigns.add_members(session, given.viewer, given.campaign_id, given.ids, now)

        first = campaigns.members(session, given.viewer, given.campaign_id, limit=2)
        second = campaigns.members(session, given.viewer, given.campaign_id, after_id=first.next_after, limit=2)

        assert [contact.last_name for page in (first, second) for _, contact in page.rows] == ["鈴木", "佐藤", "田中"]
        assert all(member.contact_id == contact.id for member, contact in first.rows)
        assert (first.total, second.next_after) == (3, None)


def test_members_are_found_by_status_and_text(db: Database, now: datetime):
    with db.writing() as session:
        given = Fixture(session)
        campaigns.add_members(session, given.viewer, given.campaign_id, given.ids, now)
        (sato,) = campaigns.members(session, given.viewer, given.campaign_id, text="佐藤").rows

        campaigns.decide_members(session, given.viewer, given.campaign_id, [id_of(sato[0])], MemberStatus.rejected, now)

        rejected = campaigns.members(session, given.viewer, given.campaign_id, status=MemberStatus.rejected)
        assert [contact.last_name for _, contact in rejected.rows] == ["佐藤"]
        assert campaigns.members(session, given.viewer, given.campaign_id, MemberStatus.pending, "佐藤").total == 0
        assert campaigns.member_counts(session, given.viewer, given.campaign_id) == {
            MemberStatus.pending: 2,
            MemberStatus.approved: 0,
            MemberStatus.rejected: 1,
            MemberStatus.error: 0,
        }


def test_decision_is_dated_and_taking_back_undates_it(db: Database, now: datetime):
    with db.writing() as session:
        given = Fixture(session)
        member = make_member(session, given.campaign, given.contacts[0], status=MemberStatus.error, error="no address")
        for status, at in ((MemberStatus.approved, now), (MemberStatus.pending, None)):
            changed = campaigns.decide_members(session, given.viewer, given.campaign_id, [id_of(member)], status, now)
            session.refresh(member)

            assert (changed, member.status, member.decided_at, member.error) == (1, status, at, "")
        assert campaigns.decide_members(session, given.viewer, given.campaign_id, [id_of(member)], MemberStatus.pending, now) == 0


def test_partners_sharing_a_campaign_see_and_decide_their_own_members_only(db: Database, now: datetime):
    with db.writing() as session:
        given = Fixture(session)
        other = make_contact(session, make_partner(session, session.get_one(Brand, given.partner.brand_id)))
        member = make_member(session, given.campaign, other)

        assert campaigns.members(session, given.viewer, given.campaign_id).total == 0
        assert sum(campaigns.member_counts(session, given.viewer, given.campaign_id).values()) == 0
        assert campaigns.decide_members(session, given.viewer, given.campaign_id, [id_of(member)], MemberStatus.approved, now) == 0


# Blocks: journey < brand < partner < member


def _values(session: Session, given: Fixture, member: Member | None, lang: str = "ja") -> dict[str, tuple[str, Layer]]:
    version = session.exec(select(JourneyVersion)).one()
    definition = program_of(session, id_of(version)).definition
    blocks = campaigns.blocks_for(session, given.campaign, id_of(given.partner), member, definition, lang)
    return {name: (block.value, block.layer) for name, block in blocks.items()}


def test_each_layer_overrides_the_layer_below(db: Database, now: datetime):
    with db.writing() as session:
        given = Fixture(session)
        member = make_member(session, given.campaign, given.contacts[0])
        brand = make_viewer(session, Role.marketer, session.get_one(Brand, given.partner.brand_id))

        assert _values(session, given, member)["personal_note"] == ("お気軽にご相談ください。", Layer.JOURNEY)
        campaigns.save_campaign_blocks(session, brand, given.campaign_id, "ja", {"personal_note": "本部より", "closing": "敬具"}, now)
        assert _values(session, given, member)["personal_note"] == ("本部より", Layer.BRAND)
        assert _values(session, given, member, "en")["personal_note"] == ("Ask me anything.", Layer.JOURNEY)
        campaigns.save_partner_blocks(session, given.viewer, given.campaign_id, "ja", {"personal_note": "佐藤です"}, now)
        assert _values(session, given, member)["personal_note"] == ("佐藤です", Layer.CAMPAIGN)
        campaigns.save_member_blocks(session, given.viewer, id_of(member), "ja", {"personal_note": "花子さんへ"}, now)
        assert _values(session, given, member)["personal_note"] == ("花子さんへ", Layer.MEMBER)
        assert _values(session, given, None)["personal_note"] == ("佐藤です", Layer.CAMPAIGN)
        assert _values(session, given, member)["closing"] == ("敬具", Layer.BRAND)


def test_words_in_one_language_leave_the_other_language_as_it_was_approved(db: Database, now: datetime):
    with db.writing() as session:
        given = Fixture(session)
        member = make_member(session, given.campaign, given.contacts[0])

        campaigns.save_partner_blocks(session, given.viewer, given.campaign_id, "ja", {"personal_note": "佐藤です"}, now)
        campaigns.save_member_blocks(session, given.viewer, id_of(member), "en", {"personal_note": "Dear Hanako"}, now)

        assert _values(session, given, member, "ja")["personal_note"] == ("佐藤です", Layer.CAMPAIGN)
        assert _values(session, given, member, "en")["personal_note"] == ("Dear Hanako", Layer.MEMBER)
        assert _values(session, given, None, "en")["personal_note"] == ("Ask me anything.", Layer.JOURNEY)


def test_every_change_of_words_is_in_the_trail_with_its_language_and_no_change_is_not(db: Database, now: datetime):
    with db.writing() as session:
        given = Fixture(session)
        member = make_member(session, given.campaign, given.contacts[0])
        brand = make_viewer(session, Role.marketer, session.get_one(Brand, given.partner.brand_id))
        for _ in range(2):
            campaigns.save_campaign_blocks(session, brand, given.campaign_id, "ja", {"closing": "敬具"}, now)
            campaigns.save_partner_blocks(session, given.viewer, given.campaign_id, "en", {"personal_note": "Sato here"}, now)
            campaigns.save_member_blocks(session, given.viewer, id_of(member), "ja", {"personal_note": "花子さんへ"}, now)

        trail = campaigns.words_trail(session, given.viewer, given.campaign_id)

        assert [(row.user_id, row.subject_kind, row.detail["lang"], row.detail["blocks"]) for row in trail] == [
            (given.viewer.user_id, "member", "ja", ["personal_note"]),
            (given.viewer.user_id, "campaign", "en", ["personal_note"]),
            (brand.user_id, "campaign", "ja", ["closing"]),
        ]
        other = make_viewer(session, partner=make_partner(session, session.get_one(Brand, given.partner.brand_id)))
        assert [row.user_id for row in campaigns.words_trail(session, other, given.campaign_id)] == [brand.user_id]


def test_removing_a_text_shows_the_layer_below(db: Database, now: datetime):
    with db.writing() as session:
        given = Fixture(session)
        member = make_member(session, given.campaign, given.contacts[0])
        campaigns.save_partner_blocks(session, given.viewer, given.campaign_id, "ja", {"personal_note": "佐藤です"}, now)
        campaigns.save_member_blocks(session, given.viewer, id_of(member), "ja", {"personal_note": "花子さんへ"}, now)

        campaigns.save_member_blocks(session, given.viewer, id_of(member), "ja", {"personal_note": None}, now)
        assert _values(session, given, member)["personal_note"] == ("佐藤です", Layer.CAMPAIGN)
        campaigns.save_partner_blocks(session, given.viewer, given.campaign_id, "ja", {"personal_note": None}, now)
        assert _values(session, given, member)["personal_note"][1] is Layer.JOURNEY


@pytest.mark.parametrize(("lang", "shown"), [("ja", "お気軽にご相談ください。"), ("en", "Ask me anything.")])
def test_saving_an_unchanged_form_keeps_no_text(db: Database, now: datetime, lang: str, shown: str):
    with db.writing() as session:
        given = Fixture(session)
        member = make_member(session, given.campaign, given.contacts[0])

        campaigns.save_member_blocks(session, given.viewer, id_of(member), lang, {"personal_note": shown, "photo": ""}, now)

        assert member.blocks == {}


def test_empty_text_empties_a_block_that_has_a_default(db: Database, now: datetime):
    with db.writing() as session:
        given = Fixture(session)
        member = make_member(session, given.campaign, given.contacts[0])

        campaigns.save_member_blocks(session, given.viewer, id_of(member), "ja", {"personal_note": ""}, now)

        assert _values(session, given, member)["personal_note"] == ("", Layer.MEMBER)


@pytest.mark.parametrize("name", ["closing", "no_such_block"])
def test_block_that_no_step_opens_cannot_be_changed(db: Database, now: datetime, name: str):
    with db.writing() as session:
        given = Fixture(session)
        member = make_member(session, given.campaign, given.contacts[0])

        with pytest.raises(Refused, match=f'"{name}" cannot be changed here; open to changes: personal_note, photo'):
            campaigns.save_member_blocks(session, given.viewer, id_of(member), "ja", {name: "x"}, now)
        with pytest.raises(Refused, match=name):
            campaigns.save_partner_blocks(session, given.viewer, given.campaign_id, "ja", {name: "x"}, now)


@pytest.mark.parametrize(
    ("block", "text", "reason"),
    [
        ("personal_note", "あ" * 301, "Shorten it by 1"),
        ("photo", "https://evil.example/x.png", "is not allowed"),
        ("photo", "javascript:alert(1)", "is not an https address"),
    ],
)
def test_texts_that_do_not_fit_are_refused(db: Database, now: datetime, block: str, text: str, reason: str):
    with db.writing() as session:
        given = Fixture(session)
        member = make_member(session, given.campaign, given.contacts[0])

        with pytest.raises(InvalidInput, match=reason):
            campaigns.save_member_blocks(session, given.viewer, id_of(member), "ja", {block: text}, now)
        assert member.blocks == {}


def test_texts_are_sanitised_and_pictures_come_from_the_brands_sites(db: Database, now: datetime):
    with db.writing() as session:
        given = Fixture(session)
        member = make_member(session, given.campaign, given.contacts[0])
        texts = {"personal_note": " 一行目\r\n{{ contact.email }}\x00 ", "photo": "https://images.mirai.example/me.png"}

        campaigns.save_member_blocks(session, given.viewer, id_of(member), "ja", texts, now)

        photo = {"photo": "https://images.mirai.example/me.png"}
        assert member.blocks == {"ja": {"personal_note": "一行目\n{{ contact.email }}"} | photo, "en": photo}


def test_blocks_cannot_be_changed_before_a_version_is_registered(db: Database, now: datetime):
    with db.writing() as session:
        partner = make_partner(session)
        brand = session.get_one(Brand, partner.brand_id)
        campaign = make_campaign(session, make_version(session, brand, status=VersionStatus.approved))

        with pytest.raises(Refused, match="no registered version yet"):
            campaigns.save_partner_blocks(session, make_viewer(session, partner=partner), id_of(campaign), "ja", {}, now)


def test_language_that_the_journey_does_not_speak_is_refused(db: Database, now: datetime):
    with db.writing() as session:
        given = Fixture(session)
        brand = make_viewer(session, Role.marketer, session.get_one(Brand, given.partner.brand_id))

        with pytest.raises(InvalidInput, match="'fr'"):
            campaigns.save_campaign_blocks(session, brand, given.campaign_id, "fr", {}, now)
        with pytest.raises(InvalidInput, match="'fr'"):
            campaigns.save_partner_blocks(session, given.viewer, given.campaign_id, "fr", {}, now)


def test_thousands_of_members_are_added_by_one_call(db: Database, now: datetime):
    with db.writing() as session:
        given = Fixture(session)
        rows = [
            {
                "brand_id": given.partner.brand_id,
                "partner_id": given.partner.id,
                "kind": "contact",
                "first_name": "",
                "last_name": "",
                "person_key": str(n),
                "language": "ja",
                "zone": "",
                "company": "",
                "city": "",
                "attributes": {},
                "created_at": now,
                "updated_at": now,
            }
            for n in range(5_000)
        ]
        session.execute(Contact.__table__.insert(), rows)  # type: ignore[attr-defined]
        ids = list(session.exec(select(Contact.id).where(Contact.partner_id == given.partner.id)))

        assert campaigns.add_members(session, given.viewer, given.campaign_id, [key or 0 for key in ids], now) == 5_003
