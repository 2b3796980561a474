"""The page of send rates: its permission, its rows, and the answers to mistakes."""

import re
from datetime import timedelta

import pytest
from sqlalchemy import select

from distmark.compliance.service import audit_trail
from distmark.delivery.send_rate_spacing import RateScope
from distmark.delivery.send_rates import set_rate
from distmark.delivery.table import SendRate
from distmark.enrollments.table import Enrollment
from distmark.partners.model import Role
from tests import factories as make
from tests.factories import NOW
from tests.web.conftest import PartnerPair


def stored(pair: PartnerPair) -> list[tuple[str, str, int, int]]:
    with pair.db.reading() as session:
        return [(str(row.scope), row.key, row.per_hour, row.burst) for (row,) in session.execute(select(SendRate).order_by(SendRate.id))]


@pytest.mark.parametrize("role", [Role.partner, Role.marketer, Role.approver])
def test_rates_are_for_operations_alone_and_not_in_the_menu_of_others(pair: PartnerPair, role: Role):
    client = pair.as_(role)

    assert client.get("/rates").status_code == 403
    assert client.post("/rates", data={"scope": "partner", "per_hour": "5"}).status_code == 403
    assert client.post("/rates/remove", data={"scope": "partner", "key": "*"}).status_code == 403
    assert 'href="/rates"' not in client.get("/").text


def test_page_without_a_rate_says_so_and_what_one_is_for(pair: PartnerPair):
    page = pair.as_(Role.ops, "en").get("/rates")

    assert "No rate is set: every message goes when it is due." in page.text
    assert 'href="/rates"' in page.text
    assert "A rate spaces messages out" in page.text


@pytest.mark.parametrize(
    ("form", "row"),
    [
        (
            {"scope": "destination_domain", "key": "Docomo.ne.jp", "per_hour": "1,000", "burst": "20"},
            ("destination_domain", "docomo.ne.jp", 1000, 20),
        ),
        ({"scope": "partner", "key": "", "per_hour": "1", "burst": ""}, ("partner", "*", 1, 1)),
    ],
)
def test_rate_is_stored_shown_and_recorded(pair: PartnerPair, form: dict[str, str], row: tuple[str, str, int, int]):
    client = pair.as_(Role.ops, "en")

    answer = client.post("/rates", data=form)

    assert (answer.status_code, answer.headers["location"], stored(pair)) == (303, "/rates", [row])
    with pair.db.reading() as session:
        kept = session.execute(select(SendRate)).scalars().one()
        assert [entry.action for entry in audit_trail(session, make_viewer(pair), "send_rate", kept.id)] == ["set_rate"]


def make_viewer(pair: PartnerPair):
    with pair.db.writing() as session:
        return make.make_viewer(session, Role.ops, session.merge(pair.brand))


def test_page_shows_how_far_apart_messages_are_and_how_many_wait_until_when(pair: PartnerPair):
    ops = make_viewer(pair)
    with pair.db.writing() as session:
        set_rate(session, ops, RateScope.partner, pair.here.partner.key, 6, NOW)
        set_rate(session, ops, RateScope.destination_domain, "*", 1800, NOW, burst=5)
        set_rate(session, ops, RateScope.destination_domain, "docomo.ne.jp", 7200, NOW)
        for rule, person in (
            (f"throttle:partner:{pair.here.partner.key}", pair.here),
            ("throttle:destination_domain:gmail.com", pair.there),
        ):
            row = session.get_one(Enrollment, person.enrollment.id)
            row.why, row.rules, row.due_at = "held", [rule, "quiet_hours:21:00-08:00"], NOW + timedelta(hours=3)
            session.add(row)

    page = pair.as_(Role.ops, "en").get("/rates").text

    assert "2 messages wait for their turn now." in page
    assert [each in page for each in ("one every 10 minutes", "one every 2 seconds", "2 a second")] == [True, True, True]
    assert re.findall(r"the last goes <time[^>]*>([^<]*)", page) == ["24 Nov, 13:00"] * 2  # three hours after 10:00 in Tokyo
    assert pair.here.partner.name in page


def test_change_fills_the_form_and_remove_takes_the_rate_away(pair: PartnerPair):
    client = pair.as_(Role.ops)
    client.post("/rates", data={"scope": "campaign", "key": pair.campaign.key, "per_hour": "90", "burst": "9"})

    form = client.get("/rates", params={"scope": "campaign", "key": pair.campaign.key}).text
    client.post("/rates/remove", data={"scope": "campaign", "key": pair.campaign.key})

    assert f'value="{pair.campaign.key}"' in form
    assert 'value="90"' in form
    assert stored(pair) == []


@pytest.mark.parametrize(
    ("form", "explanation"),
    [
        ({"scope": "partner", "key": "nobody", "per_hour": "5"}, "「nobody」という短い名前の担当者はありません"),
        ({"scope": "campaign", "key": "nothing", "per_hour": "5"}, "「nothing」という短い名前のキャンペーンはありません"),
        ({"scope": "destination_domain", "key": "a@b.jp", "per_hour": "5"}, "「a@b.jp」はドメインではありません"),
        ({"scope": "partner", "key": "", "per_hour": "0"}, "1 時間あたり 0 通は設定できません"),
        ({"scope": "partner", "key": "", "per_hour": "10", "burst": "11"}, "続けて送れる数 11 は設定できません"),
        ({"scope": "partner", "key": "", "per_hour": "many"}, "「many」は数として読めません"),
        ({"scope": "planet", "key": "", "per_hour": "5"}, "何の速度かが選ばれていません"),
    ],
)
def test_mistake_is_explained_beside_the_values_that_were_typed(pair: PartnerPair, form: dict[str, str], explanation: str):
    answer = pair.as_(Role.ops).post("/rates", data=form)

    assert answer.status_code == 422
    assert explanation in answer.text
    assert f'value="{form["per_hour"]}"' in answer.text
    assert stored(pair) == []


def test_rates_of_another_brand_are_neither_shown_nor_removed(pair: PartnerPair):
    with pair.db.writing() as session:
        foreign = make.make_viewer(session, Role.ops, make.make_brand(session, key="elsewhere"))
        set_rate(session, foreign, RateScope.destination_domain, "docomo.ne.jp", 5, NOW)
    client = pair.as_(Role.ops)

    page = client.get("/rates").text
    removed = client.post("/rates/remove", data={"scope": "destination_domain", "key": "docomo.ne.jp"})

    assert "docomo.ne.jp" not in page
    assert (removed.status_code, len(stored(pair))) == (404, 1)


def test_journey_page_shows_how_many_sends_are_held_at_which_step_and_why(pair: PartnerPair):
    with pair.db.writing() as session:
        for side, rules in ((pair.here, ["cap_week:3"]), (pair.there, ["cap_week:3", "quiet_hours:21:00-08:00"])):
            row = session.get_one(Enrollment, side.enrollment.id)
            row.why, row.rules, row.step_id = "held", rules, "welcome"
            session.add(row)

    page = pair.as_(Role.marketer, "en").get(f"/journeys/{pair.journey.key}").text

    held = page[page.index('id="held-title"') : page.index('id="versions-title"')]
    assert "enough messages for one week (at most 3)" in held
    assert '<td class="num" data-label="Sends">2</td>' in held
