"""Pausing, resuming, draining and stopping on the web: pages, acts and permissions of each scope, and harmless repeats."""

import re
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlmodel import col, select

from distmark.clock import FixedClock
from distmark.compliance.table import AuditEntry
from distmark.enrollments.control import stop
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.suspensions import Scope
from distmark.enrollments.table import Enrollment, Suspension
from distmark.partners.model import Role
from distmark.partners.table import SignIn
from tests import factories as make
from tests.factories import NOW
from tests.web.conftest import PartnerPair, Side

DAY = timedelta(days=1)
ANEW = timedelta(days=3, hours=23)  # from 10:00 in Tokyo "for 3 days until 09:00": the fourth day's nine o'clock
STOP = {"action": "stop", "reason": "利率の誤り"}


def paths(pair: PartnerPair, side: Side | None = None) -> dict[str, str]:
    side = side or pair.here
    return {
        "journey": f"/journeys/{pair.journey.key}/control",
        "version": f"/journeys/{pair.journey.key}/1/control",
        "campaign": f"/campaigns/{pair.campaign.id}/control",
        "contact": f"/contacts/{side.enrolled.id}/control",
        "enrollment": f"/enrollments/{side.enrollment.id}/control",
        "partner": f"/partners/{side.partner.id}/control",
    }


LEVELS = ("journey", "version", "campaign", "contact", "enrollment", "partner")
BOTH = ("journey", "version", "campaign")  # both partners have a contact in these


def enrollment(pair: PartnerPair, side: Side) -> Enrollment:
    with pair.db.reading() as session:
        return session.get_one(Enrollment, side.enrollment.id)


def statuses(pair: PartnerPair) -> tuple[str, str]:
    return str(enrollment(pair, pair.here).status), str(enrollment(pair, pair.there).status)


def suspensions_now(pair: PartnerPair) -> list[Suspension]:
    with pair.db.reading() as session:
        return list(session.exec(select(Suspension).where(col(Suspension.lifted_at).is_(None)).order_by(col(Suspension.id))))


def audited(pair: PartnerPair, action: str) -> list[dict[str, Any]]:
    with pair.db.reading() as session:
        return list(session.exec(select(AuditEntry.detail).where(AuditEntry.action == action).order_by(col(AuditEntry.id))))


def shown(page: Any) -> dict[str, str]:
    """Return the field by which a page's button says to which enrollments it was shown to apply."""
    (value,) = set(re.findall(r'name="shown" value="([^"]+)"', page.text))
    return {"shown": value}


# --- each level ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_each_level_is_paused_says_so_and_goes_on(pair: PartnerPair, level: str):
    """L12"""
    client, path = pair.as_(Role.ops, "en"), paths(pair)[level]

    paused = client.post(path, data={"action": "pause", "reason": "wrong rate"})
    held, page = statuses(pair), client.get(path).text
    resumed = client.post(path, data={"action": "resume", "clock": "keep", "spread": "0"})

    assert (paused.status_code, paused.headers["location"]) == (303, path)
    assert held == ("paused", "paused" if level in BOTH else "waiting")
    assert "Paused since" in page
    assert "Reason: wrong rate." in page
    assert resumed.status_code == 303
    assert (statuses(pair), suspensions_now(pair)) == (("waiting", "waiting"), [])
    assert "Paused since" not in client.get(path).text


@pytest.mark.parametrize("level", LEVELS)
def test_stop_shows_how_many_it_ends_before_it_does_and_ends_them_with_the_reason(pair: PartnerPair, level: str):
    client, path = pair.as_(Role.ops, "en"), paths(pair)[level]
    number = 2 if level in BOTH else 1

    first = client.post(path, data=STOP)
    confirmation = client.get(first.headers["location"])
    before = statuses(pair)
    client.post(path, data=STOP | shown(confirmation))

    assert (first.status_code, confirmation.status_code, before) == (303, 200, ("waiting", "waiting"))
    assert f"<b>{number}</b> p" in confirmation.text
    ended = enrollment(pair, pair.here)
    assert (ended.status, ended.outcome, ended.reason) == (EnrollmentStatus.ended, "stopped", "利率の誤り")
    assert (enrollment(pair, pair.there).status == "ended") == (level in BOTH)
    assert [entry["count"] for entry in audited(pair, "stopped")] == [number]


@pytest.mark.parametrize("level", [level for level in LEVELS if level != "enrollment"])
def test_drained_level_says_so_keeps_those_inside_and_lets_people_in_again(pair: PartnerPair, level: str):
    client, path = pair.as_(Role.ops, "en"), paths(pair)[level]

    client.post(path, data={"action": "drain", "reason": "enough for now"})
    page = client.get(path).text

    assert statuses(pair) == ("waiting", "waiting")
    assert [row.kind for row in suspensions_now(pair)] == ["draining"]
    assert "nobody new is let in" in page
    assert "Stop taking new contacts" not in page
    client.post(path, data={"action": "resume"})
    assert suspensions_now(pair) == []


def test_one_enrollment_offers_no_draining(pair: PartnerPair):
    page = pair.as_(Role.ops, "en").get(paths(pair)["enrollment"]).text

    assert "Stop taking new contacts" not in page
    assert 'value="pause"' in page


# --- resuming -----------------------------------------------------------------------------------------------------------------------------


def advance(pair: PartnerPair, clock: FixedClock, time: timedelta) -> None:
    """Advance the clock, and keep all users signed in."""
    clock.move(time)
    with pair.db.writing() as session:
        session.execute(update(SignIn).values(expires_at=clock.now() + DAY))


def paused_over_the_due_time(pair: PartnerPair, clock: FixedClock, client: Any) -> None:
    client.post(paths(pair)["campaign"], data={"action": "pause"})
    advance(pair, clock, 5 * DAY)  # both were due after 3


@pytest.mark.parametrize(("clock_choice", "due_after"), [("keep", timedelta(0)), ("extend", ANEW)])
def test_choice_of_the_clock_decides_when_waits_end(pair: PartnerPair, clock: FixedClock, clock_choice: str, due_after: timedelta):
    client = pair.as_(Role.marketer, "en")
    paused_over_the_due_time(pair, clock, client)

    client.post(paths(pair)["campaign"], data={"action": "resume", "clock": clock_choice, "spread": "0"})

    # Arrived at NOW, paused from NOW on for 5 days: the wait is over by the clock, or begins again.
    assert enrollment(pair, pair.here).due_at == clock.now() + due_after


def test_page_says_how_many_go_on_at_once_for_each_choice(pair: PartnerPair, clock: FixedClock):
    client = pair.as_(Role.marketer, "en")
    paused_over_the_due_time(pair, clock, client)

    page = re.sub(r"\s+", " ", client.get(paths(pair)["campaign"]).text)

    assert re.findall(r'name="clock" value="(\w+)".*?<b>(.*?)</b>', page) == [
        ("keep", "2 people go on at once."),
        ("extend", "0 people go on at once."),
    ]
    assert re.findall(r'<option value="(\d+)"( selected)?', page) == [("0", " selected"), ("1", ""), ("6", ""), ("24", "")]
    assert statuses(pair) == ("paused", "paused")


@pytest.mark.parametrize(("least", "hours"), [(2, "6"), (3, "0")])
def test_spreading_is_suggested_when_many_would_go_on_at_once(
    pair: PartnerPair, clock: FixedClock, monkeypatch: pytest.MonkeyPatch, least: int, hours: str
):
    from distmark.web.pages import control

    monkeypatch.setattr(control, "SUGGESTED", ((least, 6),))
    client = pair.as_(Role.marketer, "en")
    paused_over_the_due_time(pair, clock, client)

    page = client.get(paths(pair)["campaign"]).text

    assert re.findall(r'<option value="(\d+)" selected', page) == [hours]
    assert ("in one wave" in page) == (hours != "0")


def test_spread_spaces_those_who_go_on_at_once(pair: PartnerPair, clock: FixedClock):
    client = pair.as_(Role.marketer, "en")
    paused_over_the_due_time(pair, clock, client)

    client.post(paths(pair)["campaign"], data={"action": "resume", "clock": "keep", "spread": "6"})

    # 6 h for two people: at once, and after 3 h
    assert [enrollment(pair, side).due_at for side in (pair.here, pair.there)] == [clock.now(), clock.now() + timedelta(hours=3)]


def test_who_is_under_two_pauses_stays_and_the_page_says_where_the_other_is(pair: PartnerPair):
    client, path = pair.as_(Role.ops, "en"), paths(pair)
    client.post(path["campaign"], data={"action": "pause"})
    client.post(path["version"], data={"action": "pause"})

    page = client.get(path["contact"]).text
    client.post(path["campaign"], data={"action": "resume"})
    left = client.get(path["contact"]).text

    assert {f'href="{path[level]}"' in page for level in ("campaign", "version")} == {False}  # a contact may be in many journeys
    assert statuses(pair) == ("paused", "paused")
    assert f'href="{path["version"]}"' in client.get(path["enrollment"]).text
    assert f'href="{path["campaign"]}"' not in client.get(path["enrollment"]).text
    assert "1 of them stand still." in left


def test_one_person_paused_beside_a_paused_campaign_stays_until_they_are_resumed_themselves(pair: PartnerPair):
    client, path = pair.as_(Role.ops, "en"), paths(pair)
    client.post(path["campaign"], data={"action": "pause"})
    under = client.get(path["enrollment"]).text
    client.post(path["enrollment"], data={"action": "pause", "reason": "on holiday"})
    client.post(path["campaign"], data={"action": "resume"})

    page = client.get(path["enrollment"]).text
    client.post(path["enrollment"], data={"action": "resume"})

    assert [f'name="action" value="{action}"' in under for action in ("pause", "resume")] == [True, False]
    assert [f'name="action" value="{action}"' in page for action in ("pause", "resume")] == [False, True]
    assert "Paused since" in page
    assert statuses(pair) == ("waiting", "waiting")


# --- what was shown -----------------------------------------------------------------------------------------------------------------------


def join_later(pair: PartnerPair, status: str = "waiting") -> int:
    """Let another contact of the partner enter the journey by the campaign, and return the enrollment's id."""
    with pair.db.writing() as session:
        contact = make.make_contact(session, session.merge(pair.here.partner), last_name="後藤")
        member = make.make_member(session, session.merge(pair.campaign), contact, status="approved")
        row = make.make_enrollment(session, member, session.merge(pair.version), step_id="time-to-read", arrived_at=NOW)
        row.status, row.due_at, row.paused_at = EnrollmentStatus(status), NOW + DAY, NOW if status == "paused" else None
        session.add(row)
        session.flush()
        return row.id


@pytest.mark.parametrize("level", ["campaign", "journey", "partner"])
def test_stop_ends_those_shown_and_says_who_entered_since(pair: PartnerPair, level: str):
    client, path = pair.as_(Role.ops, "en"), paths(pair)[level]
    confirmation = client.get(f"{path}?act=stop")
    later = join_later(pair)

    answer = client.post(path, data=STOP | shown(confirmation))

    with pair.db.reading() as session:
        assert session.get_one(Enrollment, later).status == EnrollmentStatus.waiting
    assert enrollment(pair, pair.here).status == EnrollmentStatus.ended
    assert "still inside: 1" in client.get(answer.headers["location"]).text


@pytest.mark.parametrize(("language", "words"), [("ja", "対象は 2 人になりました"), ("en", "it concerns 2 people now, not 1")])
def test_stop_is_refused_when_more_of_those_shown_are_concerned_and_keeps_the_reason(pair: PartnerPair, language: str, words: str):
    """An enrollment that was moved into the version since is older than the newest that was shown."""
    client, path = pair.as_(Role.ops, language), paths(pair)["campaign"]

    answer = client.post(path, data=STOP | {"shown": f"1-{pair.there.enrollment.id}"})

    assert answer.status_code == 409
    assert words in answer.text
    assert 'value="利率の誤り"' in answer.text
    assert statuses(pair) == ("waiting", "waiting")


@pytest.mark.parametrize(("role", "named"), [(Role.partner, True), (Role.ops, True), (Role.marketer, False)])
def test_stop_names_the_people_when_they_are_few_to_those_who_may_see_them(pair: PartnerPair, role: Role, named: bool):
    page = pair.as_(role).get(f"{paths(pair)['campaign']}?act=stop").text

    assert ("伊藤 健 様" in page) == named


def test_resume_is_refused_when_somebody_entered_the_pause_since(pair: PartnerPair):
    client, path = pair.as_(Role.marketer, "en"), paths(pair)["campaign"]
    client.post(path, data={"action": "pause"})
    page = client.get(path)
    join_later(pair, "paused")

    refused = client.post(path, data={"action": "resume", "clock": "keep", "spread": "0"} | shown(page))
    held = statuses(pair)
    client.post(path, data={"action": "resume", "clock": "keep", "spread": "0"} | shown(refused))

    assert (refused.status_code, held) == (409, ("paused", "paused"))
    assert "it concerns 3 people now, not 2" in refused.text
    assert statuses(pair) == ("waiting", "waiting")


# --- repeats ------------------------------------------------------------------------------------------------------------------------------


def test_pressing_twice_does_no_more_than_once(pair: PartnerPair, clock: FixedClock):
    client, path = pair.as_(Role.ops), paths(pair)["campaign"]

    for _ in range(2):
        client.post(path, data={"action": "pause", "reason": "誤り"})
    paused_at = enrollment(pair, pair.here).paused_at
    advance(pair, clock, 5 * DAY)
    assert (len(suspensions_now(pair)), paused_at) == (1, NOW)
    for _ in range(2):
        client.post(path, data={"action": "resume", "clock": "extend"})
        assert enrollment(pair, pair.here).due_at == clock.now() + ANEW
    for _ in range(2):
        assert client.post(path, data=STOP | {"shown": "2-99"}).status_code == 303
        advance(pair, clock, DAY)

    assert enrollment(pair, pair.here).ended_at == clock.now() - 2 * DAY
    assert [entry["count"] for entry in audited(pair, "stopped")] == [2, 0]


# --- who ----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["campaign", "contact", "enrollment", "partner"])
def test_partner_acts_on_their_own_part_alone(pair: PartnerPair, level: str):
    client, path = pair.as_(), paths(pair)[level]

    client.post(path, data={"action": "pause"})
    held = statuses(pair)
    client.post(path, data={"action": "resume"})

    assert (held, statuses(pair)) == (("paused", "waiting"), ("waiting", "waiting"))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("action", ["pause", "resume", "drain", "stop"])
def test_partner_changes_nothing_of_another_by_guessing(pair: PartnerPair, level: str, action: str):
    """S5"""
    path = paths(pair, pair.there)[level]
    data = {"action": action, "reason": "x", "shown": "9-99"}

    answers = [pair.as_().get(path).status_code, pair.as_().post(path, data=data).status_code]

    assert set(answers) <= ({403} if level in ("journey", "version") else {404} if level != "campaign" else {200, 303})
    assert enrollment(pair, pair.there).status == "waiting"


def test_people_of_another_brand_find_nothing(pair: PartnerPair):
    with pair.db.writing() as session:
        foreign = make.make_enrollment(session, make.make_member(session, session.merge(pair.foreign), foreign_contact(session, pair)))
    client = pair.as_(Role.ops)

    for path in (
        f"/campaigns/{pair.foreign.id}/control",
        f"/contacts/{foreign.contact_id}/control",
        f"/enrollments/{foreign.id}/control",
        f"/partners/{foreign.partner_id}/control",
        f"/campaigns/{pair.campaign.id}/control?partner={foreign.partner_id}",
    ):
        assert client.get(path).status_code == 404, path
        assert client.post(path, data={"action": "pause"}).status_code == 404, path
        assert client.post(path, data=STOP).status_code == 404, path
    assert statuses(pair) == ("waiting", "waiting")


def foreign_contact(session: Any, pair: PartnerPair) -> Any:
    from distmark.partners.table import Brand

    brand = session.get_one(Brand, pair.foreign.brand_id)
    return make.make_contact(session, make.make_partner(session, brand))


@pytest.mark.parametrize("level", ["campaign", "partner"])
@pytest.mark.parametrize("action", ["pause", "resume", "drain", "stop"])
def test_approver_sees_the_control_page_and_changes_nothing(pair: PartnerPair, level: str, action: str):
    client, path = pair.as_(Role.approver, "en"), paths(pair)[level]

    page = client.get(path)

    assert page.status_code == 200
    assert '<button class="btn' not in page.text[page.text.index("<main") :]
    for seen in ("", "9-99"):
        assert client.post(path, data={"action": action, "reason": "x", "shown": seen}).status_code == 403
    assert "act=stop" not in page.text
    assert 'name="shown"' not in client.get(f"{path}?act=stop").text
    assert (statuses(pair), suspensions_now(pair)) == (("waiting", "waiting"), [])


def test_partner_sees_that_the_brand_paused_and_cannot_lift_it(pair: PartnerPair):
    path = paths(pair)["campaign"]
    pair.as_(Role.marketer).post(path, data={"action": "pause", "reason": "利率の誤り"})
    client = pair.as_(language="en")

    page = client.get(path).text
    client.post(path, data={"action": "resume"})

    assert "Held from elsewhere" in page
    assert "利率の誤り" in page
    assert "Look there" not in page
    assert 'name="action" value="resume"' not in page
    assert statuses(pair) == ("paused", "paused")


def test_brand_sees_what_a_partner_paused_and_lifts_it_there(pair: PartnerPair):
    path = paths(pair)["campaign"]
    pair.as_().post(path, data={"action": "pause"})
    client = pair.as_(Role.marketer, "en")

    page = client.get(path).text
    (there,) = re.findall(rf'href="({re.escape(path)}\?partner=\d+)"', page)
    narrowed = client.get(there).text
    client.post(there, data={"action": "resume"})

    assert "Parts of it that are held by themselves" in page
    assert "Paused since" in narrowed
    assert f"only of {pair.here.partner.name}" in narrowed
    assert (statuses(pair), suspensions_now(pair)) == (("waiting", "waiting"), [])


# --- mistakes and empty states ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "explanation"),
    [
        ({"action": "stop", "reason": " "}, "理由がありません"),
        ({"action": "stop", "reason": " ", "shown": "2-99"}, "理由がありません"),
        ({"action": "pause", "reason": "あ" * 301}, "理由は 301 字あります"),
        ({"action": "pause", "reason": "a\u2028b"}, "1 行で 300 字まで"),
        ({"action": "resume", "spread": "999999999"}, "「999999999」という時間は選べません"),
        ({"action": "explode"}, "何をするかが選ばれていません"),
        ({}, "何をするかが選ばれていません"),
    ],
)
def test_mistake_is_explained_and_changes_nothing(pair: PartnerPair, data: dict[str, str], explanation: str):
    answer = pair.as_(Role.ops).post(paths(pair)["campaign"], data=data)

    assert answer.status_code == 422
    assert explanation in answer.text
    assert (statuses(pair), suspensions_now(pair)) == (("waiting", "waiting"), [])


def test_page_with_nobody_inside_says_so_and_offers_nothing_to_stop(pair: PartnerPair):
    with pair.db.writing() as session:
        ops = make.make_viewer(session, Role.ops, session.merge(pair.brand))
        stop(session, ops, Scope(campaign_id=pair.campaign.id), "over", NOW)
    client, path = pair.as_(Role.ops, "en"), paths(pair)["campaign"]

    assert "Nobody is inside now." in client.get(path).text
    assert "See whom it ends" not in client.get(path).text
    assert "there is nothing to end" in client.get(client.post(path, data=STOP).headers["location"]).text


@pytest.mark.parametrize("path", ["/journeys/{key}/9/control", "/journeys/nothing/control", "/partners/999999/control"])
def test_what_is_not_there_is_not_found(pair: PartnerPair, path: str):
    assert pair.as_(Role.ops).get(path.format(key=pair.journey.key)).status_code == 404


# --- on the other pages -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "role", "page"),
    [
        ("version", Role.marketer, "/journeys/{key}"),
        ("journey", Role.marketer, "/journeys/{key}"),
        ("campaign", Role.partner, "/campaigns/{campaign}"),
        ("contact", Role.partner, "/contacts/{contact}"),
        ("partner", Role.partner, "/campaigns/{campaign}"),
        ("partner", Role.marketer, "/partners"),
    ],
)
def test_state_is_a_chip_beside_the_name(pair: PartnerPair, level: str, role: Role, page: str):
    address = page.format(key=pair.journey.key, campaign=pair.campaign.id, contact=pair.here.enrolled.id)
    client, ops = pair.as_(role, "en"), pair.as_(Role.ops)
    chips = ['<span class="chip warn">Closed to new contacts</span>', '<span class="chip warn">Paused</span>']

    before = client.get(address).text
    ops.post(paths(pair)[level], data={"action": "drain"})
    ops.post(paths(pair)[level], data={"action": "pause"})
    after = client.get(address).text

    assert [chip in name_of(before, address) for chip in chips] == [False, False]
    assert [chip in name_of(after, address) for chip in chips] == [True, True]


def name_of(html: str, address: str) -> str:
    """Return the heading of the page; for the list of partners the whole page."""
    return html if address == "/partners" else "".join(re.findall(r"<h1>.*?</h1>", html))


@pytest.mark.parametrize(
    ("role", "page", "level"),
    [
        (Role.marketer, "/journeys/{key}", "version"),
        (Role.marketer, "/campaigns/{campaign}", "campaign"),
        (Role.marketer, "/partners", "partner"),
        (Role.partner, "/campaigns/{campaign}", "campaign"),
        (Role.partner, "/contacts/{contact}", "contact"),
        (Role.partner, "/contacts/{contact}", "enrollment"),
    ],
)
def test_entry_is_where_people_look_for_it(pair: PartnerPair, role: Role, page: str, level: str):
    address = page.format(key=pair.journey.key, campaign=pair.campaign.id, contact=pair.here.enrolled.id)

    assert f'href="{paths(pair)[level]}"' in pair.as_(role).get(address).text
