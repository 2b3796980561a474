"""Words of partners on the campaign page: one text per language, kept while one looks around, and agreed to again when they change."""

import re
from html import unescape

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from sqlmodel import select

from distmark.campaigns.table import Campaign, Member, PartnerBlocks
from distmark.drafts.table import Draft
from distmark.enrollments.table import Enrollment
from distmark.partners.model import Role
from tests import factories as make
from tests.web.conftest import PartnerPair

BLOCK = {"hx-request": "true", "hx-target": "aside#preview"}


def save(
    pair: PartnerPair, client: TestClient, words: str, *, everybody: bool = False, headers: dict[str, str] | None = None, **fields: object
):
    form = {"contact": pair.here.contact.id, "step": "welcome", "for": "all" if everybody else "one", "block.personal_note": words} | fields
    return client.post(f"/campaigns/{pair.campaign.id}/blocks", data=form, headers=headers)


def frame(pair: PartnerPair, client: TestClient, contact_id: int, lang: str) -> str:
    return client.get(f"/campaigns/{pair.campaign.id}/preview.html?contact={contact_id}&step=welcome&lang={lang}").text


def links(html: str) -> set[str]:
    """Return the addresses of our own that the page links to or loads, and those of its forms that get."""
    found = re.findall(r'(?:href|hx-get|src)="(/[^"]*)"', html)
    found += re.findall(r'<form[^>]*method="get"[^>]*action="([^"]+)"', html)
    return {unescape(each).partition("#")[0] for each in found}


def test_words_for_all_in_japanese_are_not_in_english_messages(pair: PartnerPair):
    client = pair.as_()

    save(pair, client, "年末のご挨拶です。", everybody=True, lang="ja")

    assert "年末のご挨拶です。" in frame(pair, client, pair.here.enrolled.id, "ja")
    assert "年末のご挨拶です。" not in frame(pair, client, pair.here.enrolled.id, "en")
    assert "Ask me anything." in frame(pair, client, pair.here.enrolled.id, "en")


def test_each_language_keeps_its_own_words(pair: PartnerPair):
    client = pair.as_()

    save(pair, client, "佐藤です。", everybody=True, lang="ja")
    save(pair, client, "Sato here.", everybody=True, lang="en")

    with pair.db.reading() as session:
        assert session.exec(select(PartnerBlocks)).one().blocks == {
            "ja": {"personal_note": "佐藤です。"},
            "en": {"personal_note": "Sato here."},
        }


@pytest.mark.parametrize(
    ("language", "words"), [("ja", "この文面は英語のメッセージに使われます"), ("en", "These words are for messages in English")]
)
def test_form_says_for_messages_of_which_language_the_words_are(pair: PartnerPair, language: str, words: str):
    page = pair.as_(language=language).get(f"/campaigns/{pair.campaign.id}?contact={pair.here.contact.id}&lang=en").text

    assert words.replace("英語", "English") in page
    assert 'name="for" value="one"' not in page  # this person gets Japanese messages
    assert 'name="for" value="all"' in page


def test_picture_is_saved_for_every_language(pair: PartnerPair):
    client, photo = pair.as_(), "https://images.mirai.example/me.png"

    save(pair, client, "", everybody=True, lang="ja", **{"block.photo": photo})

    assert photo in frame(pair, client, pair.here.contact.id, "en")


@pytest.mark.parametrize("lang", ["fr", "xx"])
def test_language_that_the_journey_does_not_speak_is_refused(pair: PartnerPair, lang: str):
    assert save(pair, pair.as_(), "Bonjour", lang=lang).status_code == 422


# --- after saving -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [None, BLOCK])
def test_saving_leads_back_to_the_same_place_with_the_filter_kept(pair: PartnerPair, headers: dict[str, str] | None):
    client, back = pair.as_(), f"/campaigns/{pair.campaign.id}?status=pending&q=%E9%88%B4"

    answer = save(pair, client, "先日はどうも。", lang="ja", back=back, headers=headers)

    assert answer.status_code == 303
    address, _, place = answer.headers["location"].partition("#")
    assert address == f"/campaigns/{pair.campaign.id}?contact={pair.here.contact.id}&step=welcome&status=pending&q=%E9%88%B4"
    assert f'id="{place}"' in client.get(address, headers=headers).text


def test_block_that_is_loaded_after_saving_says_so_once(pair: PartnerPair):
    client = pair.as_()
    to = save(pair, client, "先日はどうも。", headers=BLOCK).headers["location"].partition("#")[0]

    first, second = client.get(to, headers=BLOCK).text, client.get(to, headers=BLOCK).text

    assert "保存しました" in first
    assert "保存しました" not in second
    assert "<html" not in first


@pytest.mark.parametrize("headers", [None, BLOCK])
@pytest.mark.parametrize("words", ["先日はどうも。", "あ" * 301])
def test_every_link_works_after_saving_and_after_a_mistake(pair: PartnerPair, headers: dict[str, str] | None, words: str):
    client = pair.as_()
    answer = save(pair, client, words, headers=headers, back=f"/campaigns/{pair.campaign.id}?q=%E9%88%B4%E6%9C%A8")
    html = answer.text if answer.status_code == 422 else client.get(answer.headers["location"].partition("#")[0], headers=headers).text

    answers = {link: client.get(link).status_code for link in links(html) if not link.startswith("/static")}

    assert answers
    assert {link: status for link, status in answers.items() if status != 200} == {}
    assert any("q=%E9%88%B4%E6%9C%A8" in link for link in answers)


def test_language_switch_after_a_mistake_leads_to_the_page_and_not_to_an_error(pair: PartnerPair):
    client = pair.as_()
    page = save(pair, client, "あ" * 301).text

    (here,) = set(re.findall(r'name="next" value="([^"]+)"', page))

    assert client.get(unescape(here)).status_code == 200


@pytest.mark.parametrize("headers", [None, BLOCK])
def test_words_that_do_not_fit_are_still_in_the_form(pair: PartnerPair, headers: dict[str, str] | None):
    typed = "い" * 301

    assert f">{typed}</textarea>" in save(pair, pair.as_(), typed, headers=headers).text


# --- agreeing again -----------------------------------------------------------------------------------------------------------------------


def change_for_all(pair: PartnerPair, client: TestClient) -> str:
    """Change the words of everybody, of whom one is on the way, and return the page that asks to agree."""
    save(pair, client, "新しい一言です。", everybody=True, lang="ja")
    return client.get(f"/campaigns/{pair.campaign.id}/words").text


@pytest.mark.parametrize(
    ("language", "words"),
    [("ja", "配信中の1人の文面が、送信後に変更されました"), ("en", "The words of 1 person on their way were changed after you sent")],
)
def test_page_says_whose_words_changed_and_what_they_said_before(pair: PartnerPair, language: str, words: str):
    client = pair.as_(language=language)

    page = change_for_all(pair, client)

    assert words in page
    assert words in client.get(f"/campaigns/{pair.campaign.id}").text
    assert "伊藤 健" in page
    assert "新しい一言です。" in page
    assert "お気軽にご相談ください。" in page


def test_agreeing_lets_the_messages_go_on(pair: PartnerPair):
    client = pair.as_()
    (shown,) = re.findall(r'name="shown" value="(\w+)"', change_for_all(pair, client))

    answer = client.post(f"/campaigns/{pair.campaign.id}/words", data={"shown": shown})

    assert answer.status_code == 303
    assert "文面が、送信後に変更されました" not in client.get(f"/campaigns/{pair.campaign.id}").text
    with pair.db.reading() as session:
        assert session.get_one(Enrollment, pair.here.enrollment.id).woken_at is not None
        assert session.get_one(Enrollment, pair.there.enrollment.id).woken_at is None
    assert "文面を承認" in client.get(f"/campaigns/{pair.campaign.id}/words").text


def test_words_changed_once_more_are_not_agreed_to_unread(pair: PartnerPair):
    client = pair.as_()
    (shown,) = re.findall(r'name="shown" value="(\w+)"', change_for_all(pair, client))
    save(pair, client, "もう一度変えました。", everybody=True, lang="ja")

    answer = client.post(f"/campaigns/{pair.campaign.id}/words", data={"shown": shown})

    assert answer.status_code == 409
    assert "もう一度変えました。" in answer.text
    with pair.db.reading() as session:
        member = session.exec(select(Member).where(Member.contact_id == pair.here.enrolled.id)).one()
        assert member.agreed_words == {}


@pytest.mark.parametrize("role", [Role.marketer, Role.approver])
def test_only_who_may_send_agrees(pair: PartnerPair, role: Role):
    assert pair.as_(role).get(f"/campaigns/{pair.campaign.id}/words").status_code == 403
    assert pair.as_(role).post(f"/campaigns/{pair.campaign.id}/words", data={"shown": "x"}).status_code == 403


def test_nobody_waits_while_no_words_changed(pair: PartnerPair):
    with pair.db.writing() as session:
        make.make_member(session, session.get_one(Campaign, pair.campaign.id), make.make_contact(session, session.merge(pair.here.partner)))

    assert "承認待ちの文面はありません" in pair.as_().get(f"/campaigns/{pair.campaign.id}/words").text


# --- typed and not saved ------------------------------------------------------------------------------------------------------------------


def keep(pair: PartnerPair, client: TestClient, words: str, **fields: object) -> Response:
    form = {"contact": pair.here.contact.id, "step": "welcome", "lang": "ja", "block.personal_note": words} | fields
    return client.post(f"/campaigns/{pair.campaign.id}/draft", data=form, headers={"hx-request": "true"})


def form_text(pair: PartnerPair, client: TestClient, contact_id: int, query: str = "") -> str:
    """Return what stands in the form for the personal note."""
    page = client.get(f"/campaigns/{pair.campaign.id}?contact={contact_id}{query}").text
    return unescape(re.search(r'name="block.personal_note"[^>]*>(.*?)</textarea>', page, re.DOTALL)[1])


def test_typed_words_are_there_again_after_stepping_to_another_person(pair: PartnerPair):
    client = pair.as_()

    answer = keep(pair, client, "書きかけの\r\n一言")

    assert answer.status_code == 204
    assert form_text(pair, client, pair.here.enrolled.id) == "お気軽にご相談ください。"
    assert form_text(pair, client, pair.here.contact.id, "&lang=en") == "Ask me anything."
    assert form_text(pair, client, pair.here.contact.id) == "書きかけの\n一言"
    assert "まだ保存されていません" in client.get(f"/campaigns/{pair.campaign.id}?contact={pair.here.contact.id}").text


def test_typed_words_are_in_no_message_and_on_nobody_elses_page(pair: PartnerPair):
    client, colleague = pair.as_(), pair.as_()

    keep(pair, client, "書きかけ")

    assert "書きかけ" not in frame(pair, client, pair.here.contact.id, "ja")
    assert form_text(pair, colleague, pair.here.contact.id) == "お気軽にご相談ください。"
    with pair.db.reading() as session:
        assert session.get_one(Member, pair.here.member.id).blocks == {}


def test_saving_forgets_what_was_typed_before(pair: PartnerPair):
    client = pair.as_()
    keep(pair, client, "書きかけ")

    save(pair, client, "できあがり", lang="ja")

    assert form_text(pair, client, pair.here.contact.id) == "できあがり"
    with pair.db.reading() as session:
        assert session.exec(select(Draft)).all() == []


def test_words_that_do_not_fit_are_there_again_later(pair: PartnerPair):
    client = pair.as_()

    save(pair, client, "あ" * 301, lang="ja")

    assert form_text(pair, client, pair.here.contact.id) == "あ" * 301


def test_text_that_is_as_it_was_saved_is_no_draft(pair: PartnerPair):
    client = pair.as_()
    keep(pair, client, "書きかけ")

    keep(pair, client, "お気軽にご相談ください。")

    with pair.db.reading() as session:
        assert session.exec(select(Draft)).all() == []


def test_without_scripts_a_button_keeps_the_words_and_comes_back(pair: PartnerPair):
    client = pair.as_()
    form = {"contact": pair.here.contact.id, "step": "welcome", "lang": "ja", "block.personal_note": "書きかけ"}

    answer = client.post(f"/campaigns/{pair.campaign.id}/draft", data=form)

    assert answer.status_code == 303
    assert "書きかけ" in client.get(answer.headers["location"].partition("#")[0]).text


@pytest.mark.parametrize("lang", ["fr", ""])
def test_draft_in_a_language_that_is_not_spoken_is_not_kept(pair: PartnerPair, lang: str):
    keep(pair, pair.as_(), "Bonjour", lang=lang)

    with pair.db.reading() as session:
        assert session.exec(select(Draft)).all() == []


def test_draft_for_another_partners_member_is_not_there(pair: PartnerPair):
    assert keep(pair, pair.as_(), "x", contact=pair.there.contact.id).status_code == 404
