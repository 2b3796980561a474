"""The entries flow: twice at once, cut short, killed between two parts, each contact enters exactly once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlmodel import col, func, select

from distmark.clock import FastClock, FixedClock
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.engagement.events import NewEvent, RecordedEvent, record_events
from distmark.entries.table import Entrance
from distmark.segments.table import SegmentMember
from distmark.sql import id_of
from flows.entries import admit_due
from tests.entry_stage import EntryStage

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def stage(db: Database, clock: FixedClock) -> EntryStage:
    return EntryStage(db, clock)


def _due_contacts(stage: EntryStage, count: int = 40) -> tuple[list[int], list[str]]:
    """Return the ids of contacts that are due by a date, two segments and a cap at once, and the keys of the journeys."""
    people = [stage.contact(birthday=date(1980, 11, 25), city="横浜市") for _ in range(count)]
    listed = stage.segment("listed")
    stage.list_in(listed, *people)
    stage.segment("ruled", "contact.city == '横浜市'")
    entries = (
        '{date: contact.birthday, every: year, at: "09:00", reentry: any_time}',
        "{segment: listed, reentry: any_time}",
        "{segment: ruled, reentry: any_time}",
        "{segment: listed, every: 1 day, reentry: any_time, cap: 1000 per day}",
        "{event: booked, reentry: any_time, cap: 10 per day}",
    )
    journeys = [stage.registered(entry) for entry in entries]
    with stage.db.writing() as session:
        booked = [NewEvent("booked", id_of(person)) for person in people]
        assert all(isinstance(each, RecordedEvent) for each in record_events(session, stage.brand.id, booked, stage.clock.now()))
    return [id_of(person) for person in people], [journey.key for journey in journeys]


def test_two_runs_at_once_enter_everybody_once(stage: EntryStage):
    people, keys = _due_contacts(stage)
    admit_due(stage.db, stage.clock)
    stage.clock.move_to(datetime(2026, 11, 25, 0, 30, tzinfo=UTC))  # half an hour after the date; the second reading is not due yet

    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(admit_due, stage.db, stage.clock) for _ in range(4)]
        for run in runs:
            run.result()
    admit_due(stage.db, stage.clock)

    assert {key: _entered(stage, key) for key in keys[:4]} == {key: sorted(people) for key in keys[:4]}
    capped = _entered(stage, keys[4])  # ten a day on two days; concurrent runs need not keep the order of the queue
    assert len(capped) == len(set(capped)) == 20
    assert set(capped) <= set(people)


def _entered(stage: EntryStage, key: str) -> list[int]:
    from distmark.enrollments.table import Enrollment
    from distmark.journeys.table import Journey

    with stage.db.reading() as session:
        of_journey = select(Enrollment.contact_id).join(Journey, col(Journey.id) == col(Enrollment.journey_id)).where(Journey.key == key)
        return sorted(session.exec(of_journey))


def test_first_runs_at_once_enter_everybody_once(stage: EntryStage):
    """The runs also compete for inserting the plans."""
    people, keys = _due_contacts(stage)

    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(admit_due, stage.db, stage.clock) for _ in range(4)]
        for run in runs:
            run.result()
    admit_due(stage.db, stage.clock)

    assert {key: _entered(stage, key) for key in keys[1:]} == {key: sorted(people) for key in keys[1:4]} | {keys[4]: sorted(people[:10])}


def test_run_without_time_reports_unfinished_parts_and_the_next_does_them(stage: EntryStage):
    people, keys = _due_contacts(stage)

    cut_short = admit_due(stage.db, stage.clock, seconds=0)
    admit_due(stage.db, stage.clock)

    assert "contacts" in cut_short.unfinished
    assert _entered(stage, keys[1]) == sorted(people)


@pytest.mark.parametrize("dies_after", range(1, 14))
def test_run_that_dies_anywhere_is_made_up_for_by_the_next(stage: EntryStage, dies_after: int, monkeypatch: pytest.MonkeyPatch):
    people, keys = _due_contacts(stage, 12)
    stage.clock.move_to(datetime(2026, 11, 25, 0, 30, tzinfo=UTC))
    committed = 0
    writing = stage.db.writing

    def die_after():
        nonlocal committed
        committed += 1
        if committed > dies_after:
            raise KeyboardInterrupt  # stands for a kill: no code after it runs
        return writing()

    monkeypatch.setattr(stage.db, "writing", die_after)
    with pytest.raises(KeyboardInterrupt):
        _look_for_ever(stage)
    monkeypatch.undo()
    admit_due(stage.db, stage.clock)
    admit_due(stage.db, stage.clock)

    assert [_entered(stage, key) for key in keys[1:4]] == [sorted(people)] * 3


def _look_for_ever(stage: EntryStage) -> None:
    while True:
        admit_due(stage.db, stage.clock)


def test_imported_contacts_are_processed_once(stage: EntryStage):
    """S1"""
    stage.segment("ruled", "contact.city == '横浜市'")
    for _ in range(5):
        stage.contact(city="横浜市")

    first, second = admit_due(stage.db, stage.clock), admit_due(stage.db, stage.clock)

    with stage.db.reading() as session:
        unread = session.exec(select(func.count()).select_from(Contact).where(col(Contact.unread).is_(True))).one()
        pending = session.exec(select(func.count()).select_from(SegmentMember).where(col(SegmentMember.told).is_(False))).one()
    assert (first.contacts, first.passages, unread, pending) == (5, 5, 0, 0)
    assert (second.contacts, second.segments, second.passages) == (0, 0, 0)


def test_on_a_fast_clock_the_journey_begins_when_it_was_due(stage: EntryStage):
    """A delay of seconds, multiplied by the clock, must not move nine in the morning into the night."""
    journey = stage.registered('{date: contact.birthday, every: year, at: "09:00"}')
    stage.contact(birthday=date(1980, 11, 25))
    admit_due(stage.db, stage.clock)

    fast = FastClock(3600.0, datetime.now(UTC), datetime(2026, 11, 25, 3, 0, tzinfo=UTC))  # three hours late are three seconds
    admit_due(stage.db, fast)

    assert [row.due_at for row in stage.entered(journey)] == [datetime(2026, 11, 25, 0, 0, tzinfo=UTC)]


def test_result_of_each_occasion_is_kept(stage: EntryStage):
    journey = stage.registered('{date: contact.birthday, every: year, at: "09:00"}', "  - {id: first, send: email, message: one}\n")
    entered, silent = stage.contact(birthday=date(1980, 11, 25)), stage.contact(birthday=date(1980, 11, 25), consent=None)
    admit_due(stage.db, stage.clock)

    stage.look_every(HOUR, datetime(2026, 11, 25, 12, tzinfo=UTC))

    with stage.db.reading() as session:
        rows = {row.contact_id: row for row in session.exec(select(Entrance).where(Entrance.journey_id == journey.id))}
    assert {contact_id: (row.key, row.verdict) for contact_id, row in rows.items()} == {
        entered.id: ("date:2026-11-25", "enrolled"),
        silent.id: ("date:2026-11-25", "no_consent"),
    }
    assert rows[entered.id].enrollment_id == stage.entered(journey)[0].id
