"""Sending goes to exactly the people that the page before showed, from page to page; whoever cannot begin is counted apart."""

import re

import pytest
from sqlmodel import select

from distmark.campaigns.table import Campaign, Member, MemberStatus
from distmark.contacts.consents import record_consent
from distmark.contacts.table import Contact
from distmark.enrollments.table import Enrollment
from distmark.web.forms import ranges, whole_ranges
from tests import factories as make
from tests.web.conftest import PartnerPair


def add_member(pair: PartnerPair, name: str, *, consent: bool = True, **fields: object) -> Member:
    """Put another contact of the partner into the campaign."""
    with pair.db.writing() as session:
        contact = make.make_contact(session, pair.here.partner, last_name=name, first_name="一", email=f"{len(name)}{name}@example.jp")
        if consent:
            record_consent(session, contact.id, "email", given=True, now=make.NOW)
        return make.make_member(session, session.get_one(Campaign, pair.campaign.id), contact, **fields)


def enrolled(pair: PartnerPair) -> set[int]:
    """Return the contacts of the partner that were enrolled by this test."""
    with pair.db.reading() as session:
        rows = session.exec(select(Enrollment).where(Enrollment.partner_id == pair.here.partner.id))
        return {row.contact_id for row in rows} - {pair.here.enrolled.id}


def offered(page: str) -> list[int]:
    """Return the contacts to which the page's button sends."""
    return [int(number) for number in re.findall(r'<input type="hidden" name="contact" value="(\d+)"', page)]


@pytest.mark.parametrize(("language", "name"), [("ja", "新井 翼 様"), ("en", "新井 翼")])
def test_somebody_new_leads_to_a_page_that_sends_to_that_person_alone(pair: PartnerPair, language: str, name: str):
    client, fields = pair.as_(language=language), {"last_name": "新井", "first_name": "翼", "email": "arai@example.jp", "ground": "opt_in"}

    to = client.post(f"/campaigns/{pair.campaign.id}/people/new", data=fields).headers["location"]
    page = client.get(to).text

    with pair.db.reading() as session:
        arai = session.exec(select(Contact).where(Contact.email == "arai@example.jp")).one()
    assert offered(page) == [arai.id]
    assert f"<b>{name}</b>" in page
    client.post(f"/campaigns/{pair.campaign.id}/send", data={"contact": offered(page)})
    assert enrolled(pair) == {arai.id}


def test_chosen_contacts_lead_to_a_page_that_sends_to_them_alone(pair: PartnerPair):
    with pair.db.writing() as session:
        chosen = [make.make_contact(session, pair.here.partner).id for _ in range(7)]
        for contact_id in chosen:
            record_consent(session, contact_id, "email", given=True, now=make.NOW)
    client = pair.as_()

    to = client.post(f"/campaigns/{pair.campaign.id}/people", data={"contact": chosen, "then": "send"}).headers["location"]

    assert sorted(offered(client.get(to).text)) == chosen


def test_one_ticked_member_of_three_is_sent_alone(pair: PartnerPair):
    second, _third = add_member(pair, "二"), add_member(pair, "三")
    client = pair.as_()

    page = client.get(f"/campaigns/{pair.campaign.id}/send?chosen=yes&member={second.id}").text

    assert offered(page) == [second.contact_id]


@pytest.mark.parametrize("query", ["chosen=yes", "member=x", "chosen=yes&member=99999999999999999999", "member=²", "chosen=yes&member=9-1"])
def test_page_without_a_chosen_member_offers_nobody(pair: PartnerPair, query: str):
    """Without scripts the button can be pressed with nobody ticked."""
    page = pair.as_().get(f"/campaigns/{pair.campaign.id}/send?{query}").text

    assert offered(page) == []
    assert "どなたも選ばれていません" in page


@pytest.mark.parametrize("language", ["ja", "en"])
def test_member_left_out_is_not_sent_though_ticked_or_posted(pair: PartnerPair, language: str):
    left_out, client = add_member(pair, "外", status=MemberStatus.rejected), pair.as_(language=language)
    path = f"/campaigns/{pair.campaign.id}/send"

    page = client.get(f"{path}?chosen=yes&member={left_out.id}").text
    answer = client.post(path, data={"contact": left_out.contact_id})

    assert offered(page) == []
    assert ("対象から外されています" if language == "ja" else "was left out of this campaign") in page
    assert answer.status_code == 409
    assert enrolled(pair) == set()


def test_member_taken_back_can_be_sent(pair: PartnerPair):
    member, client = add_member(pair, "外", status=MemberStatus.rejected), pair.as_()

    client.post(f"/campaigns/{pair.campaign.id}/decide", data={"member": member.id, "action": "take_back"})

    assert member.contact_id in offered(client.get(f"/campaigns/{pair.campaign.id}/send").text)


@pytest.mark.parametrize(("language", "words"), [("ja", "1 人は今は始められません"), ("en", "1 of them cannot begin now")])
def test_nobody_is_sent_when_one_of_those_shown_cannot_begin_any_more(pair: PartnerPair, language: str, words: str):
    other, client, path = add_member(pair, "二"), pair.as_(language=language), f"/campaigns/{pair.campaign.id}/send"
    shown = offered(client.get(path).text)
    with pair.db.writing() as session:
        record_consent(session, other.contact_id, "email", given=False, now=make.NOW)

    answer = client.post(path, data={"contact": shown})

    assert other.contact_id in shown
    assert answer.status_code == 409
    assert words in answer.text
    assert offered(answer.text) == [pair.here.contact.id]
    assert enrolled(pair) == set()
    client.post(path, data={"contact": offered(answer.text)})
    assert enrolled(pair) == {pair.here.contact.id}


def test_choosing_the_size_of_runs_keeps_the_chosen_people(pair: PartnerPair, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("distmark.campaigns.service.MANY_MEMBERS", 1)
    with pair.db.writing() as session:
        for member in session.exec(select(Member).where(Member.campaign_id == pair.campaign.id)):
            member.status = MemberStatus.pending
            session.add(member)
    client, path = pair.as_(), f"/campaigns/{pair.campaign.id}/send?chosen=yes&member={pair.here.member.id}"
    back = re.search(r'name="back" value="([^"]+)"', client.get(path).text)[1].replace("&amp;", "&")

    answer = client.post(f"/campaigns/{pair.campaign.id}/cohort", data={"contacts_per_run": "100", "back": back})

    assert answer.headers["location"] == path


@pytest.mark.parametrize("back", ["https://evil.example/", "//evil.example", "/contacts", "/campaigns/1/send\\@evil", ""])
def test_address_to_go_back_to_is_one_of_the_campaigns_own(pair: PartnerPair, back: str):
    fields = {"member": pair.here.member.id, "action": "reject", "back": back}

    answer = pair.as_().post(f"/campaigns/{pair.campaign.id}/decide", data=fields)

    assert answer.headers["location"] == f"/campaigns/{pair.campaign.id}"


def test_deciding_keeps_the_filter(pair: PartnerPair):
    path = f"/campaigns/{pair.campaign.id}?status=pending&q=%E9%88%B4%E6%9C%A8"
    client = pair.as_()
    back = re.search(r'decide"><input type="hidden" name="back" value="([^"]+)"', client.get(path).text)[1].replace("&amp;", "&")

    answer = client.post(f"/campaigns/{pair.campaign.id}/decide", data={"member": pair.here.member.id, "action": "reject", "back": back})

    assert answer.headers["location"] == path


def test_member_on_the_way_is_not_left_out_and_the_page_says_so(pair: PartnerPair):
    with pair.db.reading() as session:
        member = session.exec(select(Member).where(Member.contact_id == pair.here.enrolled.id)).one()
    client = pair.as_()

    client.post(f"/campaigns/{pair.campaign.id}/decide", data={"member": [member.id, pair.here.member.id], "action": "reject"})

    assert "すでに配信中の方（1人）" in client.get(f"/campaigns/{pair.campaign.id}").text
    with pair.db.reading() as session:
        assert session.get_one(Member, member.id).status == MemberStatus.approved
        assert session.get_one(Member, pair.here.member.id).status == MemberStatus.rejected


@pytest.mark.parametrize("action", ["", "approve", "delete"])
def test_decision_that_is_not_named_changes_nothing(pair: PartnerPair, action: str):
    member, client = add_member(pair, "外", status=MemberStatus.rejected), pair.as_()

    answer = client.post(f"/campaigns/{pair.campaign.id}/decide", data={"member": member.id, "action": action})

    assert answer.status_code == 422
    with pair.db.reading() as session:
        assert session.get_one(Member, member.id).status == MemberStatus.rejected


def test_member_who_cannot_begin_does_not_wait_to_be_sent(pair: PartnerPair):
    without = add_member(pair, "無", consent=False)
    client, path = pair.as_(), f"/campaigns/{pair.campaign.id}"

    page = client.get(path).text
    row = re.search(rf'<tr data-contact="{without.contact_id}".*?</tr>', page, re.DOTALL)[0]

    assert "確認して送る（1）" in page
    assert "1人は始められません" in page
    assert "配信の同意がありません" in row
    assert "要確認" in row
    assert f'data-contact="{without.contact_id}"' in client.get(f"{path}?status=error").text
    assert f'data-contact="{without.contact_id}"' not in client.get(f"{path}?status=pending").text


def test_campaign_in_which_nobody_can_begin_asks_for_nothing_to_be_sent(pair: PartnerPair):
    with pair.db.writing() as session:
        record_consent(session, pair.here.contact.id, "email", given=False, now=make.NOW)
    client = pair.as_()

    page, start, listed = client.get(f"/campaigns/{pair.campaign.id}").text, client.get("/").text, client.get("/campaigns").text

    assert "確認して送る（" not in page
    assert "送信を待って" not in page + start
    assert "1人は開始不可" in listed


def test_consent_given_later_makes_the_member_wait_again(pair: PartnerPair):
    without, client = add_member(pair, "無", consent=False), pair.as_()
    with pair.db.writing() as session:
        record_consent(session, without.contact_id, "email", given=True, now=make.NOW)

    assert "確認して送る（2）" in client.get(f"/campaigns/{pair.campaign.id}").text


@pytest.mark.parametrize("numbers", [[], [1], [1, 2, 3, 9], list(range(5, 900)), [8, 3, 3, 4]])
def test_ranges_are_read_as_they_were_written(numbers: list[int]):
    assert whole_ranges(ranges(numbers)) == sorted(set(numbers))


@pytest.mark.parametrize("value", ["", "-", "1-2-3", "a-b", "-1", "²", "1.5", "9" * 30])
def test_range_that_cannot_be_read_names_nothing(value: str):
    assert whole_ranges([value]) == []


def test_range_without_end_is_cut():
    assert len(whole_ranges(["1-2147483647"])) == 1000
