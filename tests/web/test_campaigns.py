"""The campaign page: members, previews, blocks and sending, from a phone call to a message."""

import re

import pytest
from sqlmodel import select

from distmark.campaigns.service import suggested_per_run
from distmark.campaigns.table import Campaign, CampaignStatus, Member, MemberStatus, PartnerBlocks
from distmark.contacts.table import Consent, Contact
from distmark.enrollments.table import Enrollment
from distmark.journeys.table import JourneyVersion, VersionStatus
from distmark.partners.model import Role
from tests import factories as make
from tests.web.conftest import PartnerPair


def enrollments_of(pair: PartnerPair, contact: Contact) -> list[Enrollment]:
    with pair.db.reading() as session:
        return list(session.exec(select(Enrollment).where(Enrollment.contact_id == contact.id)))


def test_page_says_how_many_wait_and_when_the_first_message_goes_out(pair: PartnerPair):
    page = pair.as_().get(f"/campaigns/{pair.campaign.id}").text

    assert "送信待ちの方が1人います" in page
    assert "2026年11月24日（火）10:00（日本標準時）" in page  # now, since nothing holds it
    assert "確認して送る（1）" in page


def test_row_of_someone_inside_says_where_and_until_when(pair: PartnerPair):
    page = pair.as_().get(f"/campaigns/{pair.campaign.id}").text

    row = re.search(rf'<tr data-contact="{pair.here.enrolled.id}".*?</tr>', page, re.DOTALL)[0]
    assert "進行中" in row
    assert "11/27 10:00 まで" in row


@pytest.mark.parametrize(
    ("query", "found"), [("?q=鈴木", 1), ("?q=伊藤", 1), ("?q=いない", 0), ("?status=approved", 1), ("?status=rejected", 0)]
)
def test_members_are_filtered_by_the_address(pair: PartnerPair, query: str, found: int):
    page = pair.as_().get(f"/campaigns/{pair.campaign.id}{query}").text

    assert len(re.findall(r"<tr data-contact=", page)) == found


def test_members_page_by_page_without_gap_or_repeat(pair: PartnerPair):
    with pair.db.writing() as session:
        for number in range(60):
            make.make_member(
                session,
                session.get_one(Campaign, pair.campaign.id),
                make.make_contact(session, pair.here.partner, last_name=f"N{number:02}"),
            )
    client, seen, address = pair.as_(), [], f"/campaigns/{pair.campaign.id}"

    for _ in range(5):
        page = client.get(address).text
        seen += re.findall(r'<tr data-contact="(\d+)"', page)
        following = re.search(r'href="([^"]*)"[^>]*>次のページ', page)
        if following is None:
            break
        address = following[1].replace("&amp;", "&")

    assert len(seen) == len(set(seen)) == 62


@pytest.mark.parametrize("block", ["rows", "preview"])
def test_live_refresh_and_full_page_render_the_same_block(pair: PartnerPair, block: str):
    client = pair.as_()
    full = client.get(f"/campaigns/{pair.campaign.id}").text

    part = client.get(f"/campaigns/{pair.campaign.id}", headers={"hx-request": "true", "hx-target": f"section#{block}"}).text

    assert "<html" not in part
    assert part.strip() in full


def test_preview_steps_through_the_members(pair: PartnerPair):
    with pair.db.writing() as session:
        campaign = session.get_one(Campaign, pair.campaign.id)
        make.make_member(session, campaign, make.make_contact(session, pair.here.partner))
    client = pair.as_()

    first = client.get(f"/campaigns/{pair.campaign.id}").text
    assert "1 / 3" in first
    after = re.search(r'href="([^"]+)"[^>]*aria-label="次の方"', first)[1].replace("&amp;", "&")

    assert "2 / 3" in client.get(after).text


def test_preview_shows_the_message_with_the_editable_part_marked(pair: PartnerPair):
    frame = pair.as_().get(f"/campaigns/{pair.campaign.id}/preview.html?contact={pair.here.contact.id}&step=welcome").text

    assert "<mark" in frame
    assert "お気軽にご相談ください。" in frame


def test_words_for_one_person_change_that_persons_preview_only(pair: PartnerPair):
    client = pair.as_()
    fields = {
        "contact": str(pair.here.contact.id),
        "step": "welcome",
        "for": "one",
        "block.personal_note": "先日はありがとうございました。",
    }

    client.post(f"/campaigns/{pair.campaign.id}/blocks", data=fields)

    def frame(contact: Contact) -> str:
        return client.get(f"/campaigns/{pair.campaign.id}/preview.html?contact={contact.id}&step=welcome").text

    assert "先日はありがとうございました。" in frame(pair.here.contact)
    assert "先日はありがとうございました。" not in frame(pair.here.enrolled)
    assert "この人だけ" in client.get(f"/campaigns/{pair.campaign.id}").text


def test_words_for_all_are_kept_once_for_the_partner(pair: PartnerPair):
    fields = {"contact": str(pair.here.contact.id), "step": "welcome", "for": "all", "block.personal_note": "年末のご挨拶です。"}

    pair.as_().post(f"/campaigns/{pair.campaign.id}/blocks", data=fields)

    with pair.db.reading() as session:
        rows = session.exec(select(PartnerBlocks)).all()
    assert [(row.partner_id, row.blocks) for row in rows] == [(pair.here.partner.id, {"ja": {"personal_note": "年末のご挨拶です。"}})]


def test_too_long_words_come_back_with_the_reason_and_nothing_is_kept(pair: PartnerPair):
    fields = {"contact": str(pair.here.contact.id), "step": "welcome", "for": "one", "block.personal_note": "あ" * 301}

    answer = pair.as_().post(f"/campaigns/{pair.campaign.id}/blocks", data=fields)

    assert answer.status_code == 422
    assert "301 字あります。ここに入るのは 300 字までです。" in answer.text
    with pair.db.reading() as session:
        assert session.get_one(Member, pair.here.member.id).blocks == {}


def test_locked_block_cannot_be_changed(pair: PartnerPair):
    fields = {"contact": str(pair.here.contact.id), "step": "welcome", "for": "one", "block.closing": "さようなら"}

    answer = pair.as_().post(f"/campaigns/{pair.campaign.id}/blocks", data=fields)

    assert answer.status_code == 422
    assert "「closing」はここでは変更できません" in answer.text


def test_partners_words_are_text_never_template(pair: PartnerPair):
    client = pair.as_()
    fields = {
        "contact": str(pair.here.contact.id),
        "step": "welcome",
        "for": "one",
        "block.personal_note": "{{ 7*7 }}<script>alert(1)</script>",
    }

    client.post(f"/campaigns/{pair.campaign.id}/blocks", data=fields)

    frame = client.get(f"/campaigns/{pair.campaign.id}/preview.html?contact={pair.here.contact.id}&step=welcome").text
    page = client.get(f"/campaigns/{pair.campaign.id}").text
    assert "{{ 7*7 }}&lt;script&gt;" in frame
    assert "<script>alert" not in page


def test_confirmation_says_who_begins_and_who_is_left_out_and_why(pair: PartnerPair):
    with pair.db.writing() as session:
        nobody = make.make_contact(session, pair.here.partner, last_name="無", first_name="同意")
        make.make_member(session, session.get_one(Campaign, pair.campaign.id), nobody)
    client = pair.as_()

    page = client.get(f"/campaigns/{pair.campaign.id}/send").text

    assert "<b>1</b>人がこのジャーニーを始めます" in page
    assert "配信の同意がありません" in page
    assert enrollments_of(pair, pair.here.contact) == []


def test_pressing_send_twice_enrols_once(pair: PartnerPair):
    """A double click, or two tabs: one enrollment."""
    client = pair.as_()
    fields = {"contact": str(pair.here.contact.id)}

    first = client.post(f"/campaigns/{pair.campaign.id}/send", data=fields)
    second = client.post(f"/campaigns/{pair.campaign.id}/send", data=fields)

    assert first.status_code == second.status_code == 303
    assert len(enrollments_of(pair, pair.here.contact)) == 1
    assert "二重に開始した方はいません" in client.get(f"/campaigns/{pair.campaign.id}").text


def test_message_after_an_act_is_shown_once(pair: PartnerPair):
    client = pair.as_()
    client.post(f"/campaigns/{pair.campaign.id}/send", data={"contact": str(pair.here.contact.id)})

    assert "1人への配信を始めました" in client.get(f"/campaigns/{pair.campaign.id}").text
    assert "1人への配信を始めました" not in client.get(f"/campaigns/{pair.campaign.id}").text


def set_status(pair: PartnerPair, status: CampaignStatus) -> None:
    with pair.db.writing() as session:
        row = session.get_one(Campaign, pair.campaign.id)
        row.status = status
        session.add(row)


def test_confirmation_of_a_paused_campaign_says_that_people_stand_still_first(pair: PartnerPair):
    set_status(pair, CampaignStatus.paused)

    assert "一時停止中です" in pair.as_().get(f"/campaigns/{pair.campaign.id}/send").text


def test_campaign_that_is_closed_says_so_instead_of_enrolling(pair: PartnerPair):
    set_status(pair, CampaignStatus.closed)
    client = pair.as_()

    assert "公開中ではありません" in client.get(f"/campaigns/{pair.campaign.id}/send").text
    assert client.post(f"/campaigns/{pair.campaign.id}/send", data={"contact": str(pair.here.contact.id)}).status_code == 409
    assert enrollments_of(pair, pair.here.contact) == []


def test_campaign_without_a_published_version_still_shows_its_page(pair: PartnerPair):
    with pair.db.writing() as session:
        row = session.get_one(JourneyVersion, pair.version.id)
        row.status = VersionStatus.approved
        session.add(row)

    page = pair.as_().get(f"/campaigns/{pair.campaign.id}")

    assert page.status_code == 200
    assert "公開中の版がないため" in page.text


def test_ticked_contacts_join_and_lead_to_the_confirmation(pair: PartnerPair):
    with pair.db.writing() as session:
        ids = [make.make_contact(session, pair.here.partner).id for _ in range(3)]
    client = pair.as_()

    answer = client.post(f"/campaigns/{pair.campaign.id}/people", data={"contact": [str(i) for i in ids], "then": "send"})

    assert re.fullmatch(rf"/campaigns/{pair.campaign.id}/send\?chosen=yes&member=\d+-\d+", answer.headers["location"])
    with pair.db.reading() as session:
        assert {row.contact_id for row in session.exec(select(Member).where(Member.campaign_id == pair.campaign.id))} >= set(ids)


def test_somebody_new_after_a_call_is_kept_with_the_ground_for_writing(pair: PartnerPair):
    fields = {
        "last_name": "新井",
        "first_name": "翼",
        "email": "arai@example.jp",
        "phone": "",
        "language": "ja",
        "ground": "existing_customer",
    }

    answer = pair.as_().post(f"/campaigns/{pair.campaign.id}/people/new", data=fields)

    assert re.fullmatch(rf"/campaigns/{pair.campaign.id}/send\?chosen=yes&member=\d+", answer.headers["location"])
    with pair.db.reading() as session:
        contact = session.exec(select(Contact).where(Contact.email == "arai@example.jp")).one()
        consent = session.exec(select(Consent).where(Consent.contact_id == contact.id)).one()
    assert (consent.channel, consent.given, consent.ground) == ("email", True, "existing_customer")
    assert contact.partner_id == pair.here.partner.id


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"email": "arai@@example"}, "「arai@@example」はメールアドレスではありません"),
        ({"ground": ""}, "配信してよい理由を選んでください"),
        ({"email": ""}, "メールアドレスか電話番号のどちらかを入力してください"),
    ],
)
def test_wrong_new_contact_keeps_what_was_typed_and_says_what_is_wrong(pair: PartnerPair, changes: dict[str, str], words: str):
    fields = {"last_name": "新井", "first_name": "翼", "email": "arai@example.jp", "ground": "opt_in"} | changes

    answer = pair.as_().post(f"/campaigns/{pair.campaign.id}/people/new", data=fields)

    assert answer.status_code == 422
    assert words in answer.text
    assert 'value="新井"' in answer.text
    with pair.db.reading() as session:
        assert session.exec(select(Contact).where(Contact.last_name == "新井")).first() is None


def test_people_page_finds_own_contacts_who_are_not_in_yet(pair: PartnerPair):
    with pair.db.writing() as session:
        make.make_contact(session, pair.here.partner, last_name="渡辺")
    client = pair.as_()

    assert "渡辺" in client.get(f"/campaigns/{pair.campaign.id}/people?q=渡辺").text
    assert f'value="{pair.here.contact.id}"' not in client.get(f"/campaigns/{pair.campaign.id}/people").text


def test_three_clicks_from_a_phone_call_to_a_sent_journey(pair: PartnerPair):
    """Search on the start page, then: the journey, the person, send."""
    with pair.db.writing() as session:
        watanabe = make.make_contact(session, pair.here.partner, last_name="渡辺")
        from distmark.contacts.consents import record_consent

        record_consent(session, watanabe.id, "email", given=True, now=make.NOW)
    client = pair.as_()
    found = client.get("/?q=秋").text

    first = re.search(r'href="(/campaigns/\d+/people)"', found)[1]
    assert f'value="{watanabe.id}"' in client.get(first).text
    second = client.post(first, data={"contact": str(watanabe.id), "then": "send"}).headers["location"]
    assert re.search(rf'name="contact" value="{watanabe.id}"', client.get(second).text)
    client.post(second, data={"contact": str(watanabe.id)})

    assert len(enrollments_of(pair, watanabe)) == 1


def test_marketer_opens_a_campaign_for_every_partner(pair: PartnerPair):
    marketer = pair.as_(Role.marketer)

    answer = marketer.post("/campaigns/new", data={"journey": pair.journey.key, "name": "冬のご案内", "key": "winter-2026", "partner": ""})

    assert answer.status_code == 303
    assert "冬のご案内" in pair.as_().get("/campaigns").text


def test_campaign_with_a_taken_key_comes_back_with_the_reason(pair: PartnerPair):
    answer = pair.as_(Role.marketer).post(
        "/campaigns/new", data={"journey": pair.journey.key, "name": "x", "key": pair.campaign.key, "partner": ""}
    )

    assert answer.status_code == 422
    assert "はすでにあります" in answer.text


def _grown(pair: PartnerPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower the limit so that the campaign counts as one with many members, and make its members pending."""
    monkeypatch.setattr("distmark.campaigns.service.MANY_MEMBERS", 1)
    with pair.db.writing() as session:
        for member in session.exec(select(Member).where(Member.campaign_id == pair.campaign.id)):
            member.status = MemberStatus.pending
            session.add(member)


def per_run(pair: PartnerPair) -> int:
    with pair.db.reading() as session:
        return session.get_one(Campaign, pair.campaign.id).contacts_per_run


def test_many_members_are_offered_runs_of_many_with_what_that_changes_and_one_press_takes_it(pair: PartnerPair, monkeypatch):
    _grown(pair, monkeypatch)
    client, path = pair.as_(), f"/campaigns/{pair.campaign.id}"

    for page in (path, f"{path}/send"):
        assert "Prefect の画面には人ではなく実行が表示され" in client.get(page).text
    answer = client.post(f"{path}/cohort", data={"contacts_per_run": "100", "back": f"{path}/send"})

    assert answer.headers["location"] == f"{path}/send"
    assert per_run(pair) == 100
    assert "1人ずつに戻す" in client.get(path).text
    client.post(f"{path}/cohort", data={"contacts_per_run": "1"})
    assert per_run(pair) == 1


def test_few_members_are_offered_nothing(pair: PartnerPair):
    assert "/cohort" not in pair.as_().get(f"/campaigns/{pair.campaign.id}").text


def test_cohort_is_neither_offered_nor_taken_once_somebody_was_sent(pair: PartnerPair, monkeypatch):
    monkeypatch.setattr("distmark.campaigns.service.MANY_MEMBERS", 1)  # one of its members is enrolled already
    client, path = pair.as_(), f"/campaigns/{pair.campaign.id}"

    assert "/cohort" not in client.get(path).text
    assert client.post(f"{path}/cohort", data={"contacts_per_run": "100"}).status_code == 409
    assert per_run(pair) == 1


@pytest.mark.parametrize("many", ["0", "501", "x", ""])
def test_number_that_no_run_carries_is_refused(pair: PartnerPair, monkeypatch, many: str):
    _grown(pair, monkeypatch)

    answer = pair.as_().post(f"/campaigns/{pair.campaign.id}/cohort", data={"contacts_per_run": many})

    assert answer.status_code in (400, 422)
    assert per_run(pair) == 1


def test_approver_does_not_choose_how_many_a_run_carries(pair: PartnerPair, monkeypatch):
    _grown(pair, monkeypatch)
    approver = pair.as_(Role.approver)

    assert "/cohort" not in approver.get(f"/campaigns/{pair.campaign.id}").text
    assert approver.post(f"/campaigns/{pair.campaign.id}/cohort", data={"contacts_per_run": "100"}).status_code == 403


@pytest.mark.parametrize(("members", "many"), [(0, 1), (1000, 1), (1001, 100), (10_000, 100), (10_001, 500), (1_000_000, 500)])
def test_suggestion_grows_with_the_members(members: int, many: int):
    assert suggested_per_run(members) == many
