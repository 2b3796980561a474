"""Rehearsals: real rows in a sandbox, real wakes, waits of seconds, and a mail channel kept in memory."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import SQLModel, col, func, select

import distmark.tables  # noqa: F401
from distmark.channels.memory import Fault, MemoryChannel
from distmark.clock import FixedClock, wall_now
from distmark.db import Database
from distmark.delivery.service import Sender
from distmark.engagement.service import click, open_pixel
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.errors import InvalidInput, NotAllowed, NotFound, Refused
from distmark.messages.table import Message
from distmark.partners.model import Role
from distmark.partners.table import User
from distmark.rehearsals import runner as module
from distmark.rehearsals import service
from distmark.rehearsals.runner import RehearsalRunner, RunnerContext, rehearse
from distmark.rehearsals.sandbox import enrollment_in, open_sandbox, sandbox_file
from distmark.rehearsals.service import RehearsalOptions
from distmark.rehearsals.table import SIGN_OF_LIFE, Rehearsal, RehearsalStatus
from distmark.settings import Settings
from distmark.sql import id_of
from distmark.tasks.table import Task
from tests import factories
from tests.driver import PHONE, Stage
from tests.waiting import until

TWO_MAILS = """
  - {id: one, send: email, message: one}
  - {id: rest, wait: {for: 3 days}}
  - {id: two, send: email, message: two}
"""


@dataclass
class Desk:
    """A marketer with a journey to rehearse, and the parts that its rehearsals use."""

    stage: Stage
    data_dir: Path
    inbox: MemoryChannel = field(default_factory=MemoryChannel)

    @property
    def context(self) -> RunnerContext:
        return RunnerContext(
            self.stage.db, self.data_dir, self.inbox, Sender("https://mail.example", "hello@mirai.example", "mirai.example")
        )

    @property
    def email(self) -> str:
        with self.stage.db.reading() as session:
            return session.get_one(User, self.stage.marketer.user_id).email

    def begin(self, steps: str, *, head: str = "", **wishes: object) -> Rehearsal:
        campaign = self.stage.journey(steps, head)
        with self.stage.db.reading() as session:
            version_id = service.get_version(session, self.stage.marketer, _version_of(session, campaign.journey_id)).id
        values = {"partner_id": self.stage.partner.id, "language": "ja", "seconds_per_wait": 2, **wishes}
        with self.stage.db.writing() as session:
            return service.begin(
                session,
                self.stage.marketer,
                self.data_dir,
                version_id or 0,
                RehearsalOptions(**values),
                self.stage.clock.now(),  # type: ignore[arg-type]
            )

    def row(self, test: Rehearsal) -> Rehearsal:
        with self.stage.db.reading() as session:
            return session.get_one(Rehearsal, test.id)

    def happened(self, test: Rehearsal) -> list[tuple[str, str]]:
        with open_sandbox(self.data_dir, test.key) as db, db.reading() as session:
            return [(move.kind.value, move.step_id) for move in session.exec(select(TimelineEntry).order_by(col(TimelineEntry.id)))]


def _version_of(session: object, journey_id: int) -> int:
    from distmark.journeys.service import newest_registered

    return id_of(newest_registered(session, journey_id))  # type: ignore[arg-type, union-attr]


@pytest.fixture
def desk(db: Database, clock: FixedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(module, "TICK_SECONDS", 0.02)
    return Desk(Stage(db, clock), tmp_path)


@asynccontextmanager
async def walking(desk: Desk, test: Rehearsal) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(rehearse(desk.context, id_of(test)))
    try:
        yield task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_whole_journey_comes_to_the_testers_own_inbox_and_to_nobody_else(desk: Desk):
    test = desk.begin(TWO_MAILS)

    await asyncio.wait_for(rehearse(desk.context, id_of(test)), 20)

    assert [message.to_address for message in desk.inbox.accepted] == [desk.email, desk.email]
    assert [message.subject for message in desk.inbox.accepted] == ["【テスト】one", "【テスト】two"]
    assert desk.row(test).status is RehearsalStatus.finished


async def test_waits_take_seconds_and_the_journeys_clock_shows_the_days(desk: Desk):
    test, began = desk.begin(TWO_MAILS), wall_now()

    await asyncio.wait_for(rehearse(desk.context, id_of(test)), 20)

    assert timedelta(seconds=2) <= wall_now() - began < timedelta(minutes=2)
    assert desk.row(test).clock_at >= test.began_at + timedelta(days=3)
    assert all(wall_now() - message.sent_at < timedelta(minutes=2) for message in desk.inbox.accepted)


async def test_test_leaves_no_row_of_a_contact_message_or_enrollment_in_the_real_database(desk: Desk):
    before = counts(desk.stage.db, but=("rehearsal", "audit_entry"))
    test = desk.begin(TWO_MAILS)
    made = {name: many for name, many in counts(desk.stage.db, but=("rehearsal", "audit_entry")).items() if many != before[name]}

    await asyncio.wait_for(rehearse(desk.context, id_of(test)), 20)

    after = {name: many for name, many in counts(desk.stage.db, but=("rehearsal", "audit_entry")).items() if many != before[name]}
    assert after == made  # the journey, its version and campaign, which this test itself made
    assert not {"enrollment", "contact", "message", "event", "move", "task", "member", "consent"} & set(after)


def counts(db: Database, but: tuple[str, ...]) -> dict[str, int]:
    with db.reading() as session:
        tables = [table for table in SQLModel.metadata.sorted_tables if table.name not in but]
        return {table.name: session.execute(select(func.count()).select_from(table)).scalar_one() for table in tables}


ON_A_CLICK = """
  - {id: one, send: email, message: one}
  - {id: look, wait: {when: "clicked('one')", timeout: 30 days, on_timeout: silent}}
  - {id: two, send: email, message: two}
  - {id: done, exit: {reason: {ja: 終わり, en: done}}}
  - {id: silent, send: email, message: three}
"""


async def test_click_on_a_link_of_the_test_decides_its_way_at_once(desk: Desk):
    test = desk.begin(ON_A_CLICK, seconds_per_wait=60)

    async with walking(desk, test) as task:
        await until(lambda: desk.row(test).next_at is not None)
        with open_sandbox(desk.data_dir, test.key) as db, db.writing() as session:
            token = session.exec(select(Message.token)).one()
            link = next(iter(session.exec(select(Message.links)).one()))
            assert click(session, token, link, PHONE, desk.row(test).now(wall_now())) == "https://mirai.example/plans"
        await asyncio.wait_for(task, 20)

    assert [message.subject for message in desk.inbox.accepted] == ["【テスト】one", "【テスト】two"]
    assert f"https://mail.example/t/{test.key}/c/{token}/" in desk.inbox.accepted[0].html


async def test_links_pixel_and_unsubscribe_of_a_test_carry_its_key(desk: Desk):
    test = desk.begin(TWO_MAILS)

    await asyncio.wait_for(rehearse(desk.context, id_of(test)), 20)

    first = desk.inbox.accepted[0]
    assert f"/t/{test.key}/o/" in first.html
    assert first.unsubscribe_url.startswith(f"https://mail.example/t/{test.key}/u/")


WAITS_FOR_A_BOOKING = """
  - {id: one, send: email, message: one}
  - {id: booking, wait: {event: visit_booked, timeout: 7 days, on_timeout: late}}
  - {id: two, send: email, message: two}
  - {id: done, exit: {reason: {ja: 予約, en: booked}}}
  - {id: late, send: email, message: three}
"""


async def test_event_that_the_tester_lets_happen_wakes_the_journey(desk: Desk):
    test = desk.begin(WAITS_FOR_A_BOOKING, head="events: [visit_booked]\n", seconds_per_wait=60)

    async with walking(desk, test) as task:
        await until(lambda: desk.row(test).next_at is not None)
        with desk.stage.db.reading() as session:
            service.trigger_event(session, desk.stage.marketer, desk.data_dir, test.key, "visit_booked")
        await asyncio.wait_for(task, 20)

    assert [message.subject for message in desk.inbox.accepted] == ["【テスト】one", "【テスト】two"]


async def test_event_that_the_journey_does_not_know_is_refused(desk: Desk):
    test = desk.begin(WAITS_FOR_A_BOOKING, head="events: [visit_booked]\n")

    with pytest.raises(InvalidInput, match="visit_booked"), desk.stage.db.reading() as session:
        service.trigger_event(session, desk.stage.marketer, desk.data_dir, test.key, "account_opened")


async def test_stop_ends_the_test_before_its_next_message(desk: Desk):
    test = desk.begin(TWO_MAILS, seconds_per_wait=60)

    async with walking(desk, test) as task:
        await until(lambda: desk.row(test).next_at is not None)
        with desk.stage.db.writing() as session:
            service.ask_to_stop(session, desk.stage.marketer, test.key)
        await asyncio.wait_for(task, 20)

    assert desk.row(test).status is RehearsalStatus.stopped
    assert len(desk.inbox.accepted) == 1


async def test_waiting_no_longer_ends_one_wait_alone(desk: Desk):
    steps = TWO_MAILS + "  - {id: more, wait: {for: 5 days}}\n  - {id: three, send: email, message: three}\n"
    test = desk.begin(steps, seconds_per_wait=60)

    async with walking(desk, test):
        await until(lambda: desk.row(test).next_at is not None)
        with desk.stage.db.writing() as session:
            service.ask_to_go_on(session, desk.stage.marketer, test.key)
        await until(lambda: len(desk.inbox.accepted) == 2)
        await until(lambda: desk.happened(test)[-1][1] == "more" and desk.row(test).next_at is not None)

    assert len(desk.inbox.accepted) == 2
    assert desk.row(test).status is RehearsalStatus.running


OUTSIDE = """
  - {id: call, task: {for: partner, title: "{{ contact.full_name }}に電話"}}
  - {id: note, webhook: {url: "https://crm.example/notes"}}
  - {id: ads, audience: {add: warm}}
  - {id: one, send: email, message: one}
"""


async def test_tasks_webhooks_and_audiences_are_told_and_not_carried_out(desk: Desk):
    test = desk.begin(OUTSIDE)

    await asyncio.wait_for(rehearse(desk.context, id_of(test)), 20)

    assert [(kind, step) for kind, step in desk.happened(test) if step in ("call", "note", "ads")] == [
        ("task", "call"), ("passed", "note"), ("passed", "ads")
    ]  # fmt: skip
    with desk.stage.db.reading() as session:
        assert session.exec(select(Task)).all() == []


async def test_text_message_arrives_in_the_inbox_too(desk: Desk):
    test = desk.begin("  - {id: one, send: email, message: one}\n  - {id: text, send: sms, message: nudge}\n")

    await asyncio.wait_for(rehearse(desk.context, id_of(test)), 20)

    assert [message.to_address for message in desk.inbox.accepted] == [desk.email] * 2
    assert desk.inbox.accepted[1].subject.startswith("【テスト・SMS】")


async def test_language_and_what_is_known_of_the_tester_decide_words_and_way(desk: Desk):
    steps = """
  - id: kind
    branch:
      - {when: "contact.vip", steps: [{id: one, send: email, message: one}]}
      - {otherwise: true, steps: [{id: two, send: email, message: two}]}
"""
    test = desk.begin(steps, head="contact_fields: {vip: bool}\n", language="en", data={"vip": True})

    await asyncio.wait_for(rehearse(desk.context, id_of(test)), 20)

    assert [message.subject for message in desk.inbox.accepted] == ["[Test] one"]


async def test_server_that_asks_for_patience_is_asked_again(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LONGEST_RETRY", timedelta(seconds=0.5))
    desk.inbox.fail_call(1, Fault.temporary)
    test = desk.begin("  - {id: one, send: email, message: one}\n")

    await asyncio.wait_for(rehearse(desk.context, id_of(test)), 30)

    assert len(desk.inbox.accepted) == 1
    assert desk.row(test).status is RehearsalStatus.finished


async def test_test_that_nobody_walks_any_more_is_shown_as_interrupted(desk: Desk):
    test = desk.begin(TWO_MAILS, seconds_per_wait=60)
    async with walking(desk, test):
        await until(lambda: desk.row(test).next_at is not None)

    row = desk.row(test)

    assert row.state(row.seen_at) is RehearsalStatus.running
    assert row.state(row.seen_at + SIGN_OF_LIFE * 2) is RehearsalStatus.interrupted


async def test_second_test_of_a_person_stops_the_first(desk: Desk):
    first = desk.begin(TWO_MAILS, seconds_per_wait=60)

    async with walking(desk, first) as task:
        await until(lambda: desk.row(first).next_at is not None)
        desk.begin(TWO_MAILS)
        await asyncio.wait_for(task, 20)

    assert desk.row(first).status is RehearsalStatus.stopped


def test_test_is_its_makers_alone(desk: Desk):
    test = desk.begin(TWO_MAILS)
    with desk.stage.db.writing() as session:
        colleague = factories.make_viewer(session, Role.approver, desk.stage.brand)

    with pytest.raises(NotFound), desk.stage.db.reading() as session:
        service.get_rehearsal(session, colleague, test.key)


def test_partners_people_cannot_test_journeys(desk: Desk):
    campaign = desk.stage.journey(TWO_MAILS)

    with desk.stage.db.writing() as session:
        version_id, wishes = _version_of(session, campaign.journey_id), RehearsalOptions(id_of(desk.stage.partner), "ja")
        with pytest.raises(NotAllowed):
            service.begin(session, desk.stage.viewer, desk.data_dir, version_id, wishes, desk.stage.clock.now())


def test_so_many_tests_an_hour_and_no_more(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(service, "MOST_BEGUN", 2)
    desk.begin(TWO_MAILS)
    desk.begin(TWO_MAILS)

    with pytest.raises(Refused, match="2 tests"):
        desk.begin(TWO_MAILS)


def test_stage_that_is_long_over_is_cleared_away_when_the_next_test_begins(desk: Desk):
    old = desk.begin(TWO_MAILS)
    with desk.stage.db.writing() as session:
        row = session.get_one(Rehearsal, old.id)
        row.seen_at -= service.KEPT_FOR * 2
        session.add(row)

    desk.begin(TWO_MAILS)

    assert not sandbox_file(desk.data_dir, old.key).exists()
    with pytest.raises(NotFound), open_sandbox(desk.data_dir, old.key):
        pass


def test_tests_that_were_cleared_away_cost_the_next_ones_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    old = desk.begin(TWO_MAILS)
    with desk.stage.db.writing() as session:
        row = session.get_one(Rehearsal, old.id)
        row.seen_at -= service.KEPT_FOR * 2
        session.add(row)
    deleted: list[str] = []
    delete_sandbox = service.delete_sandbox
    monkeypatch.setattr(service, "delete_sandbox", lambda data_dir, key: (deleted.append(key), delete_sandbox(data_dir, key)))

    desk.begin(TWO_MAILS)
    desk.begin(TWO_MAILS)

    assert deleted == [old.key]


async def test_open_before_the_wait_ends_is_seen_by_the_branch_behind_it(desk: Desk):
    steps = """
  - {id: one, send: email, message: one}
  - {id: rest, wait: {for: 3 days}}
  - id: seen
    branch:
      - {when: "opened('one')", steps: [{id: two, send: email, message: two}]}
      - {otherwise: true, steps: [{id: three, send: email, message: three}]}
"""
    test = desk.begin(steps, seconds_per_wait=3)

    async with walking(desk, test) as task:
        await until(lambda: desk.row(test).next_at is not None)
        with open_sandbox(desk.data_dir, test.key) as db, db.writing() as session:
            token = session.exec(select(Message.token)).one()
            open_pixel(session, token, PHONE, desk.row(test).now(wall_now()))
        await asyncio.wait_for(task, 20)

    assert [message.subject for message in desk.inbox.accepted] == ["【テスト】one", "【テスト】two"]


def test_clock_of_a_test_runs_evenly_to_the_next_wake_and_not_past_it(desk: Desk):
    row = desk.begin(TWO_MAILS)
    wall = row.set_at
    row.next_at, row.next_set_at = row.clock_at + timedelta(days=10), wall + timedelta(seconds=10)

    assert row.now(wall + timedelta(seconds=5)) == row.clock_at + timedelta(days=5)
    assert row.clock_at + timedelta(days=9) < row.now(wall + timedelta(seconds=60)) < row.next_at
    assert row.seconds_left(wall + timedelta(seconds=4)) == 6


def test_enrollment_of_a_test_stands_on_its_stage_alone(desk: Desk):
    test = desk.begin(TWO_MAILS)

    with open_sandbox(desk.data_dir, test.key) as db, db.reading() as session:
        assert enrollment_in(session).partner_id == desk.stage.partner.id
    with desk.stage.db.reading() as session:
        assert session.exec(select(Enrollment)).all() == []


async def test_thread_walks_what_is_begun_and_leaves_it_where_it_is_when_the_process_ends(desk: Desk):
    test = desk.begin(TWO_MAILS, seconds_per_wait=60)
    runner = RehearsalRunner(Settings(mode="test", data_dir=desk.data_dir, _env_file=None), desk.stage.db, mail=lambda: desk.inbox)

    runner.begin(id_of(test))
    try:
        await until(lambda: desk.row(test).next_at is not None)
    finally:
        await asyncio.to_thread(runner.close)

    row = desk.row(test)
    assert row.status is RehearsalStatus.running
    assert row.state(row.seen_at + SIGN_OF_LIFE * 2) is RehearsalStatus.interrupted
    assert len(desk.inbox.accepted) == 1
    assert desk.inbox.closed


def test_walking_tests_needs_no_prefect():
    code = "import sys, distmark.rehearsals.runner; sys.exit('prefect' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
