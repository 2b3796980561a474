"""Names of partners and campaigns in other languages: written once, shown in messages and pages of that language, else as they are."""

import pytest
from sqlmodel import select

from distmark.campaigns.table import Campaign
from distmark.compliance.table import AuditEntry
from distmark.partners.model import Role
from distmark.partners.table import Brand, Partner
from tests.web.conftest import PartnerPair

ENGLISH = {"en.name": "Ken Sato", "en.title": "Adviser", "en.office": "Nagoya branch", "en.city": "Nagoya"}


def preview(pair: PartnerPair, lang: str) -> str:
    return pair.as_().get(f"/campaigns/{pair.campaign.id}?contact={pair.here.contact.id}&lang={lang}").text


def test_partners_names_stand_in_messages_of_their_language(pair: PartnerPair):
    answer = pair.as_().post(f"/partners/{pair.here.partner.id}/names", data=ENGLISH)

    assert answer.status_code == 303
    assert "Ken Sato → " in preview(pair, "en")
    assert "佐藤 → " in preview(pair, "ja")
    frame = pair.as_().get(f"/campaigns/{pair.campaign.id}/preview.html?contact={pair.here.contact.id}&step=welcome&lang=en").text
    assert "Nagoya branch Ken Sato" in frame
    assert pair.here.partner.office not in frame


def test_brands_name_stands_in_the_sender_of_messages_of_its_language(pair: PartnerPair):
    with pair.db.writing() as session:
        brand = session.get_one(Brand, pair.brand.id)
        brand.translations = {"en": {"name": "Mirai Securities"}}
        session.add(brand)

    assert "Mirai Securities 佐藤 → " in preview(pair, "en")
    assert "みらい証券 佐藤 → " in preview(pair, "ja")


@pytest.mark.parametrize(("language", "words"), [("ja", "日本語でのみ登録されている"), ("en", "written in 日本語 only")])
def test_name_that_is_missing_in_the_language_of_the_message_is_said_to_be_so(pair: PartnerPair, language: str, words: str):
    client, path = pair.as_(language=language), f"/campaigns/{pair.campaign.id}?contact={pair.here.contact.id}"

    before, own = client.get(f"{path}&lang=en").text, client.get(f"{path}&lang=ja").text
    client.post(f"/partners/{pair.here.partner.id}/names", data=ENGLISH)

    assert words in before
    assert f'href="/partners/{pair.here.partner.id}/names"' in before
    assert words not in own
    assert words not in client.get(f"{path}&lang=en").text


def test_empty_name_takes_the_translation_away(pair: PartnerPair):
    client = pair.as_()
    client.post(f"/partners/{pair.here.partner.id}/names", data=ENGLISH)

    client.post(f"/partners/{pair.here.partner.id}/names", data={"en.name": " ", "en.title": "Adviser"})

    with pair.db.reading() as session:
        assert session.get_one(Partner, pair.here.partner.id).translations == {"en": {"title": "Adviser"}}
        assert [row.action for row in session.exec(select(AuditEntry).where(AuditEntry.subject_kind == "partner"))] == ["named", "named"]


def test_campaign_is_opened_with_names_in_both_languages_and_shown_in_the_readers(pair: PartnerPair):
    fields = {"journey": pair.journey.key, "name": "冬のご案内", "name.en": "Winter news", "key": "winter-2026", "partner": ""}
    pair.as_(Role.marketer).post("/campaigns/new", data=fields)

    in_japanese, in_english = pair.as_().get("/campaigns").text, pair.as_(language="en").get("/campaigns").text

    assert "冬のご案内" in in_japanese
    assert "Winter news" not in in_japanese
    assert "Winter news" in in_english
    assert "秋のご案内" in in_english  # without an English name it is shown as it is
    assert "Winter news" in pair.as_(language="en").get("/?q=winter").text


def test_campaigns_name_is_written_later(pair: PartnerPair):
    marketer, path = pair.as_(Role.marketer, "en"), f"/campaigns/{pair.campaign.id}"

    answer = marketer.post(f"{path}/names", data={"en.name": "Autumn news"})

    assert "Autumn news" in marketer.get(path).text
    assert "Autumn news" in marketer.get(answer.headers["location"]).text
    assert "秋のご案内" in pair.as_().get(path).text


@pytest.mark.parametrize("name", ["x" * 121, "two\u2028lines"])
def test_name_that_does_not_fit_comes_back_with_the_reason(pair: PartnerPair, name: str):
    answer = pair.as_().post(f"/partners/{pair.here.partner.id}/names", data={"en.name": name})

    assert answer.status_code == 422
    assert "120 字まで" in answer.text
    with pair.db.reading() as session:
        assert session.get_one(Partner, pair.here.partner.id).translations == {}


def test_names_are_written_by_the_partner_itself_or_the_brands_marketers(pair: PartnerPair):
    there = f"/partners/{pair.there.partner.id}/names"

    answers = [pair.as_().post(there, data=ENGLISH), pair.as_(Role.approver).post(there, data=ENGLISH)]
    marketers = pair.as_(Role.marketer).post(there, data=ENGLISH)
    campaign = pair.as_().post(f"/campaigns/{pair.campaign.id}/names", data={"en.name": "x"})

    assert [answer.status_code for answer in answers] == [404, 403]
    assert marketers.status_code == 303
    assert campaign.status_code == 403
    with pair.db.reading() as session:
        assert session.get_one(Campaign, pair.campaign.id).translations == {}


def test_brands_names_and_address_stand_in_the_footer_of_messages_of_their_language(pair: PartnerPair):
    marketer = pair.as_(Role.marketer)
    fields = {"en.name": "Mirai Securities", "en.legal_name": "Mirai Securities Co., Ltd.", "en.address": "1-1-1 Marunouchi, Tokyo"}

    answer = marketer.post("/brand/names", data=fields)

    assert answer.status_code == 303
    frame = pair.as_().get(f"/campaigns/{pair.campaign.id}/preview.html?contact={pair.here.contact.id}&step=welcome&lang=en").text
    assert "Mirai Securities Co., Ltd." in frame
    assert "1-1-1 Marunouchi, Tokyo" in frame
    assert "Mirai Securities</a>" in pair.as_(language="en").get("/campaigns").text
    assert "みらい証券</a>" in pair.as_().get("/campaigns").text
    assert pair.as_().post("/brand/names", data=fields).status_code == 403
