"""No silent stall: who waits where, how late, and the alarms that are raised, told and cleared."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.settings import PREFECT_API_URL, temporary_settings
from sqlalchemy import func
from sqlmodel import Session, col, select, update

from distmark.campaigns.table import Campaign, CampaignStatus
from distmark.clock import FastClock, FixedClock, wall_now
from distmark.db import Database
from distmark.enrollments.control import drain, pause
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.suspensions import Scope
from distmark.enrollments.table import Enrollment
from distmark.errors import NotAllowed
from distmark.journeys.service import newest_registered
from distmark.operations.alarms import AlarmChanges, alarms, update_alarms
from distmark.operations.alerts import AlarmNotice
from distmark.operations.backlog import lateness, watch
from distmark.operations.model import AlarmKind
from distmark.operations.table import Alarm
from distmark.partners.model import Role
from distmark.sql import id_of
from flows import alarms as flow_alarms
from flows.alarms import raise_alarms, raise_alarms_without_prefect
from tests import factories
from tests.command_line import Run
from tests.driver import Stage

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
WAIT = "  - {id: rest, wait: {for: 3 days}}\n  - {id: first, send: email, message: one}\n"


def looked(stage: Stage) -> AlarmChanges:
    with stage.db.writing() as session:
        return update_alarms(session, stage.clock)


def open_alarms(stage: Stage) -> list[tuple[str, int]]:
    with stage.db.reading() as session:
        return [(shown.alarm.kind.value, shown.version) for shown in alarms(session, stage.marketer)]


def set_due(session: Session, ids: list[int], at: datetime) -> None:
    session.execute(update(Enrollment).where(col(Enrollment.id).in_(ids)).values(due_at=at))


async def test_every_step_with_people_shows_who_waits_the_oldest_and_how_late(stage: Stage) -> None:
    campaign, people = stage.journey(WAIT), [stage.contact() for _ in range(6)]
    ids = [result.enrollment_id or 0 for result in stage.enrol(campaign, *people)]
    await stage.run_for(MINUTE)
    stage.enrol(campaign, stage.contact())  # not begun
    now = stage.clock.now()
    with stage.db.writing() as session:
        for enrollment_id, minutes in zip(ids, (40, 10, 2), strict=False):
            set_due(session, [enrollment_id], now - minutes * MINUTE)
        pause(session, stage.viewer, Scope.listed(ids[4:5]), now)
        session.execute(update(Enrollment).where(col(Enrollment.id) == ids[5]).values(status=EnrollmentStatus.parked))

    with stage.db.reading() as session:
        rows = watch(session, stage.marketer, now)
        late = lateness(session, now)

    rest, start = rows
    assert (rest.step_id, rest.version, rest.waiting, rest.paused, rest.parked, rest.due) == ("rest", 1, 4, 1, 1, 3)
    # 40, 10 and 2 minutes late: the middle one is 10
    assert (rest.oldest_due_at, rest.late_p50, rest.late_max) == (now - 40 * MINUTE, 10 * MINUTE, 40 * MINUTE)
    assert (start.step_id, start.waiting, start.due, start.late_max) == ("", 1, 1, timedelta(0))
    assert late == 40 * MINUTE


async def test_people_of_another_brand_see_nothing_and_partners_may_not_look(stage: Stage) -> None:
    stage.enrol(stage.journey(WAIT), stage.contact())
    await stage.run_for(5 * DAY)
    with stage.db.writing() as session:
        stranger = factories.make_viewer(session, Role.marketer)

    with stage.db.reading() as session:
        assert watch(session, stranger, stage.clock.now()) == []
        assert alarms(session, stranger) == []
        with pytest.raises(NotAllowed):
            watch(session, stage.viewer, stage.clock.now())


@pytest.mark.parametrize(("late", "raised"), [(5 * MINUTE, False), (5 * MINUTE + SECOND, True)])
async def test_alarm_when_the_oldest_due_is_older_than_five_minutes(stage: Stage, late: timedelta, raised: bool) -> None:
    """L2"""
    stage.enrol(stage.journey(WAIT), stage.contact())
    stage.clock.move(late)

    assert bool(looked(stage).raised) is raised


async def test_five_minutes_are_real_ones_on_a_clock_that_runs_faster(stage: Stage) -> None:
    stage.enrol(stage.journey(WAIT), stage.contact())
    entered = stage.clock.now()
    # 600 times faster: 4 real minutes are 40 hours there, 6 real minutes 60.
    for real_minutes, raised in ((4, False), (6, True)):
        fast = FastClock(speed=600.0, wall_origin=wall_now() - real_minutes * MINUTE, origin=entered)
        with stage.db.writing() as session:
            assert bool(update_alarms(session, fast).raised) is raised


async def test_alarm_is_raised_once_kept_up_to_date_and_cleared_when_over(stage: Stage) -> None:
    campaign, hanako = stage.journey(WAIT), stage.contact()
    stage.enrol(campaign, hanako)
    stage.clock.move(6 * MINUTE)

    first = looked(stage)
    stage.clock.move(10 * MINUTE)
    second = looked(stage)
    standing = open_alarms(stage)
    with stage.db.reading() as session:
        detail = session.exec(select(Alarm)).one().detail
    await stage.run_for(MINUTE)
    third = looked(stage)

    assert (len(first.raised), second, standing) == (1, AlarmChanges(), [("late", 1)])
    assert (detail["count"], detail["late_seconds"]) == (1, 16 * 60)
    assert (third.raised, third.cleared, open_alarms(stage)) == ((), first.raised, [])


async def test_paused_people_are_not_late(stage: Stage) -> None:
    campaign, hanako = stage.journey(WAIT), stage.contact()
    stage.enrol(campaign, hanako)
    with stage.db.writing() as session:
        pause(session, stage.marketer, Scope(campaign_id=campaign.id), stage.clock.now())
    stage.clock.move(DAY)

    assert looked(stage) == AlarmChanges()


def enter_by_day(stage: Stage, campaign: Campaign, days: list[int]) -> None:
    """Put ended enrollments into the days before now: the last number is of the day that ended a day ago, and so on back."""
    now = stage.clock.now()
    with stage.db.writing() as session:
        version = newest_registered(session, campaign.journey_id)
        assert version is not None
        for back, count in enumerate(reversed(days)):
            for _each in range(count):
                row = factories.make_enrollment(session, campaign=session.get_one(Campaign, campaign.id))
                row.journey_id, row.version_id, row.status = campaign.journey_id, id_of(version), EnrollmentStatus.ended
                row.entered_at = now - DAY - back * DAY - timedelta(hours=1)
                session.add(row)


@pytest.mark.parametrize(
    ("days", "raised"),
    [
        ([4, 4, 4, 4, 4, 4, 4], True),  # every day, and none since
        ([3, 3, 3, 3, 0, 0, 3], True),  # most days
        ([2, 2, 2, 2, 2, 2, 2], False),  # so few that a day without means nothing
        ([0, 9, 9, 9, 9, 9, 9], False),  # none on this day last week either: an office's weekend
        ([9, 0, 0, 0, 0, 0, 9], False),  # now and then
        ([0, 0, 0, 0, 0, 0, 0], False),
    ],
)
async def test_alarm_when_a_journey_that_people_enter_every_day_runs_dry(stage: Stage, days: list[int], raised: bool) -> None:
    campaign = stage.journey(WAIT)
    enter_by_day(stage, campaign, days)

    found = looked(stage)

    assert bool(found.raised) is raised
    assert open_alarms(stage) == ([("dry", 1)] if raised else [])


@pytest.mark.parametrize("meant", ["drained", "paused", "closed", "retired"])
async def test_journey_that_is_meant_to_run_dry_raises_no_alarm(stage: Stage, meant: str) -> None:
    from distmark.compliance.service import retire

    campaign = stage.journey(WAIT)
    enter_by_day(stage, campaign, [4] * 7)
    with stage.db.writing() as session:
        version = newest_registered(session, campaign.journey_id)
        if meant == "retired":
            retire(session, stage.marketer, version.id if version else 0, stage.clock.now())
        elif meant == "closed":
            session.get_one(Campaign, campaign.id).status = CampaignStatus.closed
        else:
            act = drain if meant == "drained" else pause
            act(session, stage.marketer, Scope(journey_id=campaign.journey_id), stage.clock.now())

    assert looked(stage) == AlarmChanges()


async def test_dry_alarm_is_over_when_somebody_enters(stage: Stage) -> None:
    campaign = stage.journey(WAIT)
    enter_by_day(stage, campaign, [4] * 7)
    raised = looked(stage)
    stage.enrol(campaign, stage.contact())

    assert looked(stage).cleared == raised.raised


@dataclass
class Heard:
    """A webhook that keeps what it is told, and can be told to fail."""

    url: str = ""
    failing: bool = False
    bodies: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def webhook() -> Iterator[Heard]:
    heard = Heard()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not heard.failing:
                heard.bodies.append(body)
            self.send_response(500 if heard.failing else 204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    heard.url = f"http://127.0.0.1:{server.server_port}/alarm"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield heard
    server.shutdown()
    server.server_close()


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> list[AlarmNotice]:
    """The news that would be Prefect events; with a real server they are proven in another file."""
    told: list[AlarmNotice] = []
    monkeypatch.setattr(flow_alarms, "emit", told.append)
    return told


async def test_webhook_hears_of_an_alarm_once_when_raised_and_once_when_over(
    stage: Stage, webhook: Heard, emitted: list[AlarmNotice]
) -> None:
    stage.enrol(stage.journey(WAIT), stage.contact())
    stage.clock.move(6 * MINUTE)

    counts = [raise_alarms(stage.db, stage.clock, webhook.url), raise_alarms(stage.db, stage.clock, webhook.url)]
    await stage.run_for(MINUTE)
    counts += [raise_alarms(stage.db, stage.clock, webhook.url), raise_alarms(stage.db, stage.clock, webhook.url)]

    assert counts == [(1, 0), (0, 0), (0, 1), (0, 0)]
    assert [(body["event"], body["kind"], body["version"]) for body in webhook.bodies] == [
        ("distmark.alarm.raised", "late", 1),
        ("distmark.alarm.cleared", "late", 1),
    ]
    assert "1 contacts should have moved on, the first 360 s ago." in webhook.bodies[0]["text"]
    assert "1 名の処理が遅れています（最長 360 秒）" in webhook.bodies[0]["text_ja"]
    assert [news.event for news in emitted] == ["distmark.alarm.raised", "distmark.alarm.cleared"]


async def test_webhook_that_fails_is_told_again(stage: Stage, webhook: Heard, emitted: list[AlarmNotice]) -> None:
    stage.enrol(stage.journey(WAIT), stage.contact())
    stage.clock.move(6 * MINUTE)
    webhook.failing = True
    raise_alarms(stage.db, stage.clock, webhook.url)
    raise_alarms(stage.db, stage.clock, "http://127.0.0.1:1/nobody")
    webhook.failing = False

    raise_alarms(stage.db, stage.clock, webhook.url)

    assert len(webhook.bodies) == 1
    with stage.db.reading() as session:
        assert session.exec(select(func.count()).select_from(Alarm)).one() == 1


async def test_alarm_that_was_over_before_anybody_heard_is_not_told(stage: Stage, webhook: Heard, emitted: list[AlarmNotice]) -> None:
    stage.enrol(stage.journey(WAIT), stage.contact())
    stage.clock.move(6 * MINUTE)
    webhook.failing = True
    raise_alarms(stage.db, stage.clock, webhook.url)
    await stage.run_for(MINUTE)
    webhook.failing = False

    raise_alarms(stage.db, stage.clock, webhook.url)

    assert webhook.bodies == []


@pytest.mark.prefect
@pytest.mark.filterwarnings("default")
async def test_alarms_are_sounded_while_prefect_is_away_and_left_to_upkeep_while_it_answers(
    stage: Stage, webhook: Heard, emitted: list[AlarmNotice], prefect_api: str
) -> None:
    """L2"""
    stage.enrol(stage.journey(WAIT), stage.contact())
    stage.clock.move(6 * MINUTE)
    found = []

    for address in (prefect_api, "http://127.0.0.1:1/api"):
        with temporary_settings({PREFECT_API_URL: address}):
            async with PrefectClient(address) as client:
                found.append(await raise_alarms_without_prefect(stage.db, stage.clock, webhook.url, client))

    assert (found, [body["kind"] for body in webhook.bodies], emitted) == ([0, 1], ["late"], [])


@pytest.mark.parametrize("kind", list(AlarmKind))
@pytest.mark.parametrize("over", [False, True])
def test_every_alarm_has_its_words_in_both_languages(kind: AlarmKind, over: bool, now: datetime) -> None:
    detail = {"count": 3, "late_seconds": 400, "usual_per_day": 5, "same_day_last_week": 4}
    news = AlarmNotice(1, kind, over, "gym-new-year", 2, now, detail)

    assert news.text("en") != news.text("ja")
    assert all("gym-new-year" in news.text(lang) for lang in ("en", "ja"))


async def test_command_prints_steps_and_alarms(db: Database, run: Run) -> None:
    stage = Stage(db, FixedClock(wall_now() - timedelta(hours=1)))
    stage.enrol(stage.journey(WAIT), stage.contact())
    with db.writing() as session:
        update_alarms(session, FixedClock(wall_now()))

    as_json, shown = run("watch", "--json"), run("watch")
    nowhere = run("watch", "--brand", "nobody")

    step, alarm = as_json.rows
    assert (step["step"], step["waiting"], step["due"]) == ("", 1, 1)
    assert 3600 <= step["late_max_seconds"] == step["late_p50_seconds"] < 3700
    assert (alarm["alarm"], alarm["detail"]["count"]) == ("late", 1)
    assert ("Alarm" in shown.out, "start" in shown.out) == (True, True)
    assert (nowhere.code, "There is no brand nobody" in nowhere.err) == (1, True)
