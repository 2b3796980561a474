"""Segments on pages: the list, making and changing one with a live count, unreadable values, and listed contacts."""

from datetime import date

import pytest
from sqlmodel import select

from distmark.partners.model import Role
from distmark.segments import membership, service
from distmark.segments.preview import preview_rule
from distmark.segments.table import Segment
from distmark.sql import id_of
from tests.factories import NOW, make_contact, make_viewer
from tests.web.conftest import PartnerPair

COUNT = {"hx-request": "true", "hx-target": "count"}


def _segment(pair: PartnerPair, rule: str | None = None, partner_id: int | None = None, key: str = "gold") -> int:
    with pair.db.writing() as session:
        viewer = make_viewer(session, Role.ops, pair.brand)
        segment = service.create_segment(session, viewer, key, "上得意", NOW, rule=rule, partner_id=partner_id)
        while membership.rebuild_batch(session, NOW) is not None:
            pass
        return id_of(segment)


def _stored(pair: PartnerPair, key: str) -> Segment:
    with pair.db.reading() as session:
        return session.exec(select(Segment).where(Segment.brand_id == pair.brand.id, Segment.key == key)).one()


@pytest.mark.parametrize("role", [Role.marketer, Role.partner, Role.ops])
def test_people_make_and_change_a_segment_on_the_pages(pair: PartnerPair, role: Role):
    client = pair.as_(role)
    fields = {"name": "更新間近", "key": "renewals", "members": "rule", "rule": 'contact.city == "名古屋市"', "type.renewal_date": "date"}

    made = client.post("/segments/new", data=fields)
    page = client.get(made.headers["location"])
    changed = client.post(made.headers["location"], data=fields | {"name": "更新が近い", "rule": "contact.company"})

    assert made.status_code == changed.status_code == 303
    assert "更新間近" in page.text
    segment = _stored(pair, "renewals") if role is not Role.partner else None
    if segment is not None:
        assert (segment.name, segment.rule, segment.fields) == ("更新が近い", "contact.company", {"renewal_date": "date"})
    assert "更新が近い" in client.get("/segments").text


def test_rule_is_counted_while_it_is_written_and_nothing_is_stored(pair: PartnerPair):
    client = pair.as_(Role.marketer, language="en")

    counted = client.post("/segments/new", data={"rule": 'contact.last_name == "鈴木"', "count": "yes"}, headers=COUNT)

    assert "<html" not in counted.text
    assert "2 contacts fit." in counted.text
    assert "鈴木 花子" not in counted.text  # a marketer sees numbers, no people
    with pair.db.reading() as session:
        assert service.list_segments(session, make_viewer(session, Role.ops, pair.brand)) == []


def test_partner_counts_its_own_contacts_only(pair: PartnerPair):
    counted = pair.as_(language="en").post("/segments/new", data={"rule": 'contact.last_name == "鈴木"', "count": "yes"}, headers=COUNT)

    assert "1 contact fits." in counted.text
    assert "Tried on all 2 contacts." in counted.text


def test_values_that_cannot_be_read_are_shown_with_their_number(pair: PartnerPair):
    with pair.db.writing() as session:
        for written in ("2027-04-01", "来月", "来月", "未定"):
            make_contact(session, pair.here.partner, attributes={"renewal_date": written})
    fields = {"rule": "days_until(contact.renewal_date) <= 30", "type.renewal_date": "date", "count": "yes"}

    shown = pair.as_().post("/segments/new", data=fields, headers=COUNT).text

    assert "renewal_date：「来月」" in shown
    assert "renewal_date：「未定」" in shown
    assert "2027-04-01" not in shown
    assert shown.index("来月") < shown.index("未定")  # the most frequent first


def test_value_of_another_type_is_named_until_its_type_is_chosen(pair: PartnerPair):
    with pair.db.writing() as session:
        make_contact(session, pair.here.partner, attributes={"balance": "2,000"})
        viewer = make_viewer(session, partner=pair.here.partner)

        before = preview_rule(session, viewer, "contact.balance > 1000", {}, NOW)
        after = preview_rule(session, viewer, "contact.balance > 1000", {"balance": "number"}, NOW)

    assert (before.fits, [row.value for row in before.unreadable]) in ((0, ["2,000"]), (1, []))
    assert (after.fits, after.unreadable) == (1, [])


def test_unusable_rule_is_said_beside_the_rule_and_what_was_written_stays(pair: PartnerPair):
    client = pair.as_()

    counted = client.post("/segments/new", data={"rule": "contat.city", "count": "yes"}, headers=COUNT)
    refused = client.post("/segments/new", data={"name": "名前", "key": "new-one", "members": "rule", "rule": "contat.city"})

    assert 'role="alert"' in counted.text
    assert refused.status_code == 422
    assert 'value="名前"' in refused.text
    assert "contat.city</textarea>" in refused.text
    assert refused.text.count('role="alert"') == 1


def test_partner_lists_contacts_by_hand_and_takes_them_out_again(pair: PartnerPair):
    client = pair.as_()
    made = client.post("/segments/new", data={"name": "ゴルフ仲間", "key": "golf", "members": "listed"})
    path = made.headers["location"]

    found = client.get(path, params={"q": "鈴木"})
    client.post(f"{path}/members", data={"contact": str(pair.here.contact.id), "action": "add"})
    inside = client.get(path)
    client.post(f"{path}/members", data={"contact": str(pair.here.contact.id), "action": "remove"})

    assert f'value="{pair.here.contact.id}"' in found.text
    assert f'href="/contacts/{pair.here.contact.id}"' in inside.text
    assert f'href="/contacts/{pair.here.contact.id}"' not in client.get(path).text


def test_foreign_contacts_and_segments_are_out_of_reach(pair: PartnerPair):
    own, of_other = _segment(pair, None, pair.here.partner.id), _segment(pair, None, pair.there.partner.id, "silver")
    client = pair.as_()

    assert client.post(f"/segments/{own}/members", data={"contact": str(pair.there.contact.id), "action": "add"}).status_code == 404
    assert client.get(f"/segments/{of_other}").status_code == 404
    assert client.post(f"/segments/{of_other}", data={"name": "x"}).status_code == 404
    assert "silver" not in client.get("/segments").text


def test_segment_of_the_brand_is_read_by_partners_and_approvers_and_changed_by_neither(pair: PartnerPair):
    segment_id = _segment(pair, 'contact.last_name == "鈴木"')

    for role in (Role.partner, Role.approver):
        client = pair.as_(role)
        page = client.get(f"/segments/{segment_id}")
        assert page.status_code == 200
        assert "<textarea" not in page.text
        assert client.post(f"/segments/{segment_id}", data={"name": "x", "rule": "true"}).status_code == 403
    assert "鈴木 花子" in pair.as_().get(f"/segments/{segment_id}").text
    assert "鈴木 花子" not in pair.as_(Role.approver).get(f"/segments/{segment_id}").text


def test_rule_about_days_is_counted_by_the_contacts_day(pair: PartnerPair):
    with pair.db.writing() as session:
        make_contact(session, pair.here.partner, birthday=date(NOW.year, NOW.month, NOW.day))
        viewer = make_viewer(session, partner=pair.here.partner)

        assert preview_rule(session, viewer, "days_until(contact.birthday) == 0", {}, NOW).fits == 1
