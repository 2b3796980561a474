"""The page of operations: its sentence, late and held enrollments, parked enrollments and retrying them, and its permission."""

import re
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlmodel import Session, select

from distmark.compliance.table import AuditEntry
from distmark.enrollments.control import pause
from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.suspensions import Scope
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.messages.model import MessageStatus
from distmark.messages.table import Message
from distmark.operations.alarms import update_alarms
from distmark.operations.model import AlarmKind
from distmark.operations.table import Alarm
from distmark.partners.model import Role
from distmark.sql import id_of
from distmark.web.i18n import Translator
from distmark.web.pages import operations
from distmark.web.pages.operations import span_text
from tests import factories as make
from tests.factories import NOW
from tests.web.conftest import PartnerPair

MINUTE = timedelta(minutes=1)

TOKYO = ZoneInfo("Asia/Tokyo")


def change(pair: PartnerPair, enrollment_id: int | None, **values: Any) -> None:
    with pair.db.writing() as session:
        row = session.get_one(Enrollment, enrollment_id)
        for name, value in values.items():
            setattr(row, name, value)
        session.add(row)


def park(pair: PartnerPair, enrollment_id: int | None, error: str = "UndefinedError: 'amount' is undefined") -> None:
    change(pair, enrollment_id, status=EnrollmentStatus.parked, due_at=None, why="parked", tries=5, error=error)
    with pair.db.writing() as session:
        session.add(TimelineEntry(enrollment_id=enrollment_id or 0, at=NOW - 3 * MINUTE, kind=TimelineKind.error, step_id="time-to-read"))


def page(pair: PartnerPair, role: Role = Role.ops, address: str = "/operations", language: str = "en") -> str:
    answer = pair.as_(role, language).get(address)
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", answer.text)


def sentence(html: str) -> str:
    return re.search(r'<p class="say big">(.*?)</p>', html)[1]  # type: ignore[index]


@pytest.mark.parametrize(("role", "status"), [(Role.ops, 200), (Role.marketer, 200), (Role.approver, 403), (Role.partner, 403)])
def test_page_is_for_those_who_may_pause_and_resume_journeys(pair: PartnerPair, role: Role, status: int):
    client = pair.as_(role)

    assert client.get("/operations").status_code == status
    assert ('href="/operations"' in client.get("/").text) is (status == 200)
    if status == 403:
        assert client.post("/operations/try-again", data={"enrollment": pair.here.enrollment.id}).status_code == 403
        assert client.post("/operations/try-step-again", data={"version": pair.version.id, "step": "x"}).status_code == 403


@pytest.mark.parametrize(
    ("language", "shown_sentence"), [("en", "Everything that is due is on its way."), ("ja", "予定どおり、すべて進んでいます。")]
)
def test_all_is_well_says_so_in_one_sentence(pair: PartnerPair, language: str, shown_sentence: str):
    html = page(pair, language=language)

    assert sentence(html) == shown_sentence
    assert pair.journey.name[language] in html


def test_page_where_nobody_is_inside_a_journey_says_what_will_be_here(pair: PartnerPair):
    with pair.db.writing() as session:
        for row in session.exec(select(Enrollment)):
            row.status, row.due_at = EnrollmentStatus.ended, None
            session.add(row)

    html = page(pair)

    assert sentence(html) == "Nobody is inside a journey now."
    assert "Here stands every step of a journey at which somebody is." in html
    assert "Nobody is stuck." in html
    assert "Of every message it is known whether it was sent." in html


def test_late_journey_is_named_with_how_late_and_its_alarm_says_what_to_do(pair: PartnerPair):
    change(pair, pair.here.enrollment.id, due_at=NOW - 72 * MINUTE)
    with pair.db.writing() as session:
        update_alarms(session, pair.app.state.site.clock)

    html = page(pair)

    name = pair.journey.name["en"]
    assert sentence(html) == f"1 journey is late. “{name}” is late by 1 h 12 min."
    assert "1 person should have moved on, 1 h 12 min ago." in html
    assert "distmark doctor" in html
    assert f'href="/journeys/{pair.journey.key}?v=1"' in html
    assert '<b class="wrong">late by 1 h 12 min</b>' in html
    assert "upkeep itself does not run" not in html


def test_lateness_without_an_alarm_says_that_upkeep_does_not_run(pair: PartnerPair):
    change(pair, pair.here.enrollment.id, due_at=NOW - 6 * MINUTE)

    html = page(pair)

    assert sentence(html).startswith("1 journey is late.")
    assert "upkeep itself does not run" in html


def test_five_minutes_late_is_on_its_way(pair: PartnerPair):
    change(pair, pair.here.enrollment.id, due_at=NOW - 5 * MINUTE)

    assert sentence(page(pair)) == "Everything that is due is on its way."


def test_journey_that_ran_dry_is_said(pair: PartnerPair):
    with pair.db.writing() as session:
        session.add(_alarm(pair, AlarmKind.dry, usual_per_day=7, same_day_last_week=6, since=NOW.isoformat()))

    html = page(pair)

    assert sentence(html) == "Nobody enters 1 journey any more."
    assert "Nobody has entered for a day; usually 7 people do." in html


def _alarm(pair: PartnerPair, kind: AlarmKind, **detail: Any) -> Alarm:
    place = {"brand_id": pair.brand.id, "journey_id": pair.journey.id, "version_id": pair.version.id}
    return Alarm(kind=kind, detail=detail, raised_at=NOW - timedelta(hours=2), **place)


def test_held_sends_show_with_their_rule_at_their_step(pair: PartnerPair):
    change(pair, pair.here.enrollment.id, why="held", rules=["cap_week:3"], due_at=NOW + timedelta(hours=9))

    html = page(pair)

    assert 'enough messages for one week (at most 3) <span class="chip warn">1</span>' in html


def test_stuck_person_is_listed_with_error_tries_and_since_and_linked_for_operations(pair: PartnerPair):
    park(pair, pair.here.enrollment.id)

    html = page(pair)

    assert sentence(html) == "1 person is stuck in a journey."
    assert "UndefinedError: &#39;amount&#39; is undefined" in html
    assert f'href="/contacts/{pair.here.enrolled.id}"' in html
    assert pair.here.partner.name in html
    assert re.search(r'data-label="Tries">5<', html)


def test_marketer_sees_whose_contact_is_stuck_and_not_who(pair: PartnerPair):
    park(pair, pair.here.enrollment.id)

    html = page(pair, Role.marketer)

    assert f"Enrollment {pair.here.enrollment.id}" in html
    assert pair.here.partner.name in html
    assert pair.here.enrolled.last_name not in html
    assert "/contacts/" not in html


def test_try_again_lets_the_step_be_tried_now_and_says_so(pair: PartnerPair):
    park(pair, pair.here.enrollment.id)
    client = pair.as_(Role.marketer, "en")

    answer = client.post("/operations/try-again", data={"enrollment": pair.here.enrollment.id})

    assert (answer.status_code, answer.headers["location"]) == (303, "/operations")
    assert "They try their step again now." in client.get("/operations").text
    with pair.db.reading() as session:
        row = session.get_one(Enrollment, pair.here.enrollment.id)
        assert (row.status, row.due_at, row.tries, row.error) == (EnrollmentStatus.waiting, NOW, 0, "")
        assert [entry.action for entry in session.exec(select(AuditEntry))] == ["tried_again"]


def test_all_parked_at_a_step_can_be_retried_together(pair: PartnerPair):
    for side in (pair.here, pair.there):
        park(pair, side.enrollment.id)
    client = pair.as_(Role.ops, "en")
    assert "All 2 at “" in client.get("/operations").text

    answer = client.post("/operations/try-step-again", data={"version": pair.version.id, "step": "time-to-read"})

    assert answer.status_code == 303
    assert _statuses(pair) == [EnrollmentStatus.waiting, EnrollmentStatus.waiting]


@pytest.mark.parametrize(
    ("back", "to"),
    [
        ("/operations?parked=7", "/operations?parked=7"),
        ("/contacts", "/operations"),
        ("//evil.example/operations", "/operations"),
        ("", "/operations"),
    ],
)
def test_trying_again_leads_back_to_the_same_place_in_the_list(pair: PartnerPair, back: str, to: str):
    park(pair, pair.here.enrollment.id)

    answer = pair.as_(Role.ops).post("/operations/try-again", data={"enrollment": pair.here.enrollment.id, "back": back})

    assert answer.headers["location"] == to


def test_more_people_stuck_than_were_shown_are_not_tried_again_unseen(pair: PartnerPair):
    for side in (pair.here, pair.there):
        park(pair, side.enrollment.id)
    client = pair.as_(Role.ops, "en")
    fields = {"version": pair.version.id, "step": "time-to-read", "shown": "1"}

    answer = client.post("/operations/try-step-again", data=fields)

    assert "More people are stuck there" in client.get(answer.headers["location"]).text
    assert _statuses(pair) == [EnrollmentStatus.parked, EnrollmentStatus.parked]


def _statuses(pair: PartnerPair) -> list[EnrollmentStatus]:
    with pair.db.reading() as session:
        return list(session.exec(select(Enrollment.status).where(Enrollment.brand_id == pair.brand.id)))


def test_paused_journey_keeps_its_people_and_the_page_says_why(pair: PartnerPair):
    park(pair, pair.here.enrollment.id)
    with pair.db.writing() as session:
        pause(session, make.make_viewer(session, Role.marketer, session.merge(pair.brand)), Scope(journey_id=pair.journey.id), NOW)
    client = pair.as_(Role.ops, "en")

    client.post("/operations/try-again", data={"enrollment": pair.here.enrollment.id})

    assert "A pause holds 1 of them; resume it first." in client.get("/operations").text


def test_nobody_of_another_brand_is_reached_or_shown(pair: PartnerPair):
    """S5"""
    with pair.db.writing() as session:
        foreign = _foreign_enrollment(session)
        version_id, key, enrollment_id = foreign.version_id, foreign.error, foreign.id
    client = pair.as_(Role.ops)

    html = client.get("/operations").text
    answers = [
        client.post("/operations/try-again", data={"enrollment": enrollment_id}).status_code,
        client.post("/operations/try-step-again", data={"version": version_id, "step": ""}).status_code,
    ]

    assert key not in html
    assert answers == [404, 404]
    with pair.db.reading() as session:
        assert session.get_one(Enrollment, enrollment_id).status is EnrollmentStatus.parked


def _foreign_enrollment(session: Session) -> Enrollment:
    row = make.make_enrollment(session)
    row.status, row.due_at, row.error = EnrollmentStatus.parked, None, "SomebodyElsesError"
    session.add(row)
    session.flush()
    return row


def test_uncertain_messages_are_counted_and_listed_with_their_message_id(pair: PartnerPair):
    with pair.db.writing() as session:
        message = session.get_one(Message, pair.here.message.id)
        message.status, message.sending_at = MessageStatus.uncertain, NOW - MINUTE
        session.add(message)

    html = page(pair)

    assert 'Messages of uncertain fate <span class="chip warn">1</span>' in html
    assert pair.here.message.header_id.replace("<", "&lt;").replace(">", "&gt;") in html
    assert f'href="/contacts/{pair.here.enrolled.id}"' in html


def test_long_lists_are_shown_in_pages_by_key_and_a_page_behind_does_not_renew_itself(pair: PartnerPair, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(operations, "ROWS", 1)
    for side in (pair.here, pair.there):
        park(pair, side.enrollment.id)
    newest, older = sorted((id_of(pair.here.enrollment), id_of(pair.there.enrollment)), reverse=True)

    first = page(pair)
    second = page(pair, address=f"/operations?parked={newest}")

    assert (f'id="try-{newest}"' in first, f'id="try-{older}"' in first, f"/operations?parked={newest}" in first) == (True, False, True)
    assert (f'id="try-{newest}"' in second, f'id="try-{older}"' in second) == (False, True)
    assert ("every 10s" in first, "every 10s" in second) == (True, False)


def test_journeys_that_are_on_time_are_shown_in_pages_and_late_ones_always_first(pair: PartnerPair, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(operations, "ROWS", 1)
    with pair.db.writing() as session:
        brand = session.merge(pair.brand)
        for late in (False, True):
            version = make.make_version(session, brand)
            row = make.make_enrollment(session, version=version, member=make.make_member(session, make.make_campaign(session, version)))
            row.due_at = NOW - timedelta(hours=1) if late else NOW + timedelta(hours=1)
            session.add(row)

    first = page(pair)
    after = re.search(r'href="/operations\?after=([^"]+)"', first)
    second = page(pair, address=f"/operations?after={after[1]}" if after else "")

    assert (first.count('scope="rowgroup"'), second.count('scope="rowgroup"')) == (2, 1)
    assert first.index('<span class="chip bad">Late</span>') > 0
    assert 'class="chip bad">Late<' not in second


def test_renewal_answers_with_the_live_part_alone(pair: PartnerPair):
    answer = pair.as_(Role.ops).get("/operations", headers={"hx-request": "true", "hx-target": "live"})

    assert answer.text.strip().startswith('<div id="live"')
    assert "<html" not in answer.text


@pytest.mark.parametrize(("role", "shown"), [(Role.ops, True), (Role.marketer, True), (Role.approver, False)])
def test_standing_alarm_is_a_notice_on_today_and_a_number_in_the_menu(pair: PartnerPair, role: Role, shown: bool):
    before = page(pair, role, "/")
    with pair.db.writing() as session:
        session.add(_alarm(pair, AlarmKind.late, count=2, oldest_due_at=NOW.isoformat(), late_seconds=600))

    after = page(pair, role, "/")

    assert "alarm stands" not in before
    assert ("1 alarm stands: something should move and does not." in after) is shown
    assert ("Everything is running." in after) is not shown
    assert bool(re.search(r'href="/operations".{0,800}<span class="n">1</span>', after)) is shown


@pytest.mark.parametrize(
    ("span", "en", "ja"),
    [
        (timedelta(seconds=59), "less than a minute", "1分未満"),
        (timedelta(minutes=59, seconds=59), "59 min", "59分"),
        (timedelta(hours=23, minutes=5), "23 h 5 min", "23時間5分"),
        (timedelta(days=3, hours=4, minutes=59), "3 d 4 h", "3日4時間"),
    ],
)
def test_lengths_of_time_are_said_in_their_two_largest_units(span: timedelta, en: str, ja: str):
    assert (span_text(Translator("en", TOKYO), span), span_text(Translator("ja", TOKYO), span)) == (en, ja)


def test_everybody_is_told_that_messages_cannot_be_made(pair: PartnerPair):
    """Operations, the marketer and the partner: none of their pages says that all is well."""
    change(
        pair,
        pair.here.enrollment.id,
        status=EnrollmentStatus.parked,
        why="unmade",
        rules=["unmade:contact.first_name"],
        error="RenderError",
    )

    assert sentence(page(pair)) == "1 not sent: the message cannot be made."
    assert "the message shows “Given name”, which is missing or cannot be shown" in page(pair)
    assert "1 not sent" in page(pair, Role.marketer, "/")
    assert "1 not sent" in page(pair, Role.partner, "/")
    campaign = page(pair, Role.partner, f"/campaigns/{pair.campaign.id}")
    assert "1 not sent" in campaign
    assert "the message shows “Given name”" in campaign


def test_a_partner_hears_nothing_of_the_messages_of_another(pair: PartnerPair):
    change(pair, pair.there.enrollment.id, status=EnrollmentStatus.parked, why="unmade", rules=["unmade"], error="RenderError")

    assert "1 not sent" in page(pair, Role.marketer, "/")
    assert "not sent" not in page(pair, Role.partner, "/") + page(pair, Role.partner, f"/campaigns/{pair.campaign.id}")
