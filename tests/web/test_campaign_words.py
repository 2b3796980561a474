"""The brand's words in a campaign: marketers write them in every language of the journey, and members get them."""

from distmark.campaigns.table import Campaign
from distmark.partners.model import Role
from tests.web.conftest import PartnerPair


def _blocks(pair: PartnerPair) -> dict[str, object]:
    with pair.db.reading() as session:
        return session.get_one(Campaign, pair.campaign.id).blocks


def test_marketer_writes_the_brands_words_and_members_get_them(pair: PartnerPair):
    path = f"/campaigns/{pair.campaign.id}"
    marketer = pair.as_(Role.marketer)

    page = marketer.get(f"{path}/brand-words")
    saved = marketer.post(f"{path}/brand-words", data={"block.ja.personal_note": "秋のご案内をお送りします。"})
    after = marketer.get(f"{path}/brand-words")

    assert f'href="{path}/brand-words"' in marketer.get(path).text
    assert 'name="block.ja.personal_note"' in page.text
    assert saved.status_code == 303
    assert "秋のご案内をお送りします。</textarea>" in after.text
    preview = pair.as_().get(f"{path}/preview.html?contact={pair.here.contact.id}&step=welcome&lang=ja")
    assert "秋のご案内をお送りします。" in preview.text


def test_empty_words_are_the_journeys_own_again(pair: PartnerPair):
    path = f"/campaigns/{pair.campaign.id}/brand-words"
    marketer = pair.as_(Role.marketer)
    marketer.post(path, data={"block.ja.personal_note": "秋のご案内をお送りします。"})

    marketer.post(path, data={"block.ja.personal_note": ""})

    assert not any(_blocks(pair).values())


def test_words_that_do_not_fit_are_refused_and_stay_in_the_form(pair: PartnerPair):
    marketer = pair.as_(Role.marketer)

    refused = marketer.post(f"/campaigns/{pair.campaign.id}/brand-words", data={"block.ja.personal_note": "長" * 5000})

    assert refused.status_code == 422
    assert "長" * 5000 in refused.text
    assert _blocks(pair) == {}


def test_unknown_block_or_language_changes_nothing(pair: PartnerPair):
    pair.as_(Role.marketer).post(
        f"/campaigns/{pair.campaign.id}/brand-words", data={"block.xx.personal_note": "x", "block.ja.nothing": "x"}
    )

    assert _blocks(pair) == {}


def test_partner_neither_sees_nor_writes_the_brands_words(pair: PartnerPair):
    client = pair.as_()
    path = f"/campaigns/{pair.campaign.id}"

    assert client.get(f"{path}/brand-words").status_code == 403
    assert client.post(f"{path}/brand-words", data={"block.ja.personal_note": "x"}).status_code == 403
    assert "/brand-words" not in client.get(path).text
