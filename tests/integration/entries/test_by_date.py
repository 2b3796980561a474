"""Entry by a date: on the contact's own clock, once per occasion, whenever the entries flow runs."""

from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import event as database_event
from sqlmodel import select

from distmark.clock import FixedClock
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.entries.table import EntryDate
from tests.entry_stage import EntryStage

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BIRTHDAY = '{date: contact.birthday, every: year, at: "09:00"}'
RENEWAL = '{date: contact.renewal_date, offset: -30 days, at: "09:00", reentry: any_time}'
FIELDS = "contact_fields: {renewal_date: date}\n"


@pytest.fixture
def stage(db: Database, clock: FixedClock) -> EntryStage:
    return EntryStage(db, clock)


def test_date_enters_at_its_time_in_the_contacts_zone(stage: EntryStage):
    journey = stage.registered(BIRTHDAY)
    tokyo = stage.contact(birthday=date(1980, 11, 26))
    berlin = stage.contact(birthday=date(1980, 11, 26), zone="Europe/Berlin")
    stage.look()

    stage.look_every(6 * HOUR, datetime(2026, 11, 25, 23, 0, tzinfo=UTC))
    before = stage.contacts_in(journey)
    stage.look_every(6 * HOUR, datetime(2026, 11, 26, 7, 0, tzinfo=UTC))
    in_tokyo = stage.contacts_in(journey)  # 26 Nov 09:00 JST is 00:00 UTC
    stage.look_every(6 * HOUR, datetime(2026, 11, 26, 8, 0, tzinfo=UTC))

    assert (before, in_tokyo) == ([], [tokyo.id])
    assert stage.contacts_in(journey) == [tokyo.id, berlin.id]  # 09:00 CET is 08:00 UTC


def test_offset_counts_on_the_wall_clock_before_the_date(stage: EntryStage):
    journey = stage.registered(RENEWAL, head=FIELDS)
    hanako = stage.contact(attributes={"renewal_date": "2026-12-25"})
    stage.contact(attributes={"renewal_date": "soon"})
    stage.contact()
    stage.look()

    stage.look_every(6 * HOUR, datetime(2026, 11, 24, 23, 0, tzinfo=UTC))
    before = stage.contacts_in(journey)
    stage.look_every(6 * HOUR, datetime(2026, 11, 25, 0, 0, tzinfo=UTC))  # 25 Dec - 30 days = 25 Nov, 09:00 in Tokyo

    assert (before, stage.contacts_in(journey)) == ([], [hanako.id])


def test_every_year_again_and_the_28th_where_there_is_no_29th(stage: EntryStage):
    journey = stage.registered(BIRTHDAY)
    hanako = stage.contact(birthday=date(1980, 2, 29))
    stage.look()

    stage.look_every(DAY / 2, datetime(2026, 12, 1, tzinfo=UTC))
    for year in (2027, 2028):
        stage.clock.move_to(datetime(year, 2, 27, 0, 0, tzinfo=UTC))
        stage.look_every(6 * HOUR, datetime(year, 3, 2, tzinfo=UTC))
        _leave(stage)

    # 09:00 in Tokyo is 00:00 UTC of the same day; 2028 has a 29 February.
    assert [row.entered_at for row in stage.entered(journey)] == [
        datetime(2027, 2, 28, 0, 0, tzinfo=UTC),
        datetime(2028, 2, 29, 0, 0, tzinfo=UTC),
    ]
    assert stage.contacts_in(journey) == [hanako.id] * 2


def _leave(stage: EntryStage) -> None:
    from distmark.enrollments.service import end
    from distmark.enrollments.table import Enrollment
    from distmark.journeys.outcomes import Outcome

    with stage.db.writing() as session:
        for row in session.exec(select(Enrollment).where(Enrollment.ended_at == None)):  # noqa: E711
            end(session, row, Outcome.completed, "completed", stage.clock.now())


def test_late_run_enters_all_missed_dates_once(stage: EntryStage):
    journey = stage.registered(RENEWAL, head=FIELDS)
    people = [stage.contact(attributes={"renewal_date": f"2026-12-{day}"}) for day in (28, 26, 27)]  # due 28, 26, 27 Nov
    stage.look()

    stage.clock.move(timedelta(days=10))
    for _run in range(3):
        stage.look()

    assert stage.contacts_in(journey) == [people[1].id, people[2].id, people[0].id]  # the earliest due first


def test_dates_due_before_contact_or_journey_was_there_enter_nobody(stage: EntryStage):
    stage.contact(birthday=date(1980, 11, 24))  # 09:00 was an hour ago when the journey is registered
    journey = stage.registered(BIRTHDAY)
    stage.look()
    stage.contact(birthday=date(1980, 11, 24))  # created after 09:00
    changed = stage.contact(birthday=date(1980, 6, 1))
    stage.look()

    stage.clock.move(HOUR)
    stage.change(changed, birthday=date(1980, 11, 24))
    stage.look_every(6 * HOUR, stage.clock.now() + DAY)

    assert stage.entered(journey) == []


def test_changed_date_counts_and_the_old_one_does_not(stage: EntryStage):
    journey = stage.registered(RENEWAL, head=FIELDS)
    later = stage.contact(attributes={"renewal_date": "2026-12-26"})
    sooner = stage.contact(attributes={"renewal_date": "2027-06-01"})
    gone = stage.contact(attributes={"renewal_date": "2026-12-26"})
    stage.look()

    stage.change(later, attributes={"renewal_date": "2027-01-05"})
    stage.change(sooner, attributes={"renewal_date": "2026-12-27"})
    stage.change(gone, attributes={"renewal_date": None})
    stage.look_every(6 * HOUR, datetime(2026, 11, 28, tzinfo=UTC))
    at_first = stage.contacts_in(journey)
    stage.look_every(DAY / 4, datetime(2026, 12, 7, tzinfo=UTC))

    assert at_first == [sooner.id]
    assert stage.contacts_in(journey) == [sooner.id, later.id]


def test_change_just_before_the_run_counts_too(stage: EntryStage):
    journey = stage.registered(RENEWAL, head=FIELDS)
    hanako = stage.contact(attributes={"renewal_date": "2026-12-26"})
    stage.look()
    stage.clock.move_to(datetime(2026, 11, 26, 1, 0, tzinfo=UTC))  # due an hour ago, and the flow has not run

    stage.change(hanako, attributes={"renewal_date": "2027-01-26"})
    stage.look()

    assert stage.entered(journey) == []


def test_unrelated_change_after_the_date_keeps_the_entry(stage: EntryStage):
    journey = stage.registered(RENEWAL, head=FIELDS)
    hanako = stage.contact(attributes={"renewal_date": "2026-12-26"})
    taro = stage.contact()
    stage.look()
    stage.clock.move_to(datetime(2026, 11, 25, 23, 59, tzinfo=UTC))
    stage.change(taro, attributes={"renewal_date": "2026-12-26"})
    stage.clock.move_to(datetime(2026, 11, 26, 0, 1, tzinfo=UTC))

    for each in (hanako, taro):
        stage.change(each, city="横浜市")
    stage.look()

    assert sorted(stage.contacts_in(journey)) == [hanako.id, taro.id]


def test_date_that_goes_and_comes_back_is_the_same_occasion(stage: EntryStage):
    journey = stage.registered(RENEWAL, head=FIELDS)
    hanako = stage.contact(attributes={"renewal_date": "2026-12-26"})
    stage.look()
    stage.look_every(6 * HOUR, datetime(2026, 11, 26, 1, tzinfo=UTC))

    for day in ("2026-12-27", "2026-12-26"):
        stage.change(hanako, attributes={"renewal_date": day})
        stage.look()
    stage.change(hanako, zone="America/New_York")  # there it is 25 November: the 26th comes again
    stage.look_every(6 * HOUR, datetime(2026, 11, 27, 12, tzinfo=UTC))

    assert stage.contacts_in(journey) == [hanako.id]


def test_new_version_with_another_offset_enters_nobody_twice_by_one_date(stage: EntryStage):
    journey = stage.registered(RENEWAL, head=FIELDS, key="renewal")
    early = stage.contact(attributes={"renewal_date": "2026-12-26"})
    late = stage.contact(attributes={"renewal_date": "2027-01-05"})
    stage.look()
    stage.look_every(6 * HOUR, datetime(2026, 11, 26, 1, tzinfo=UTC))

    stage.registered(RENEWAL.replace("-30", "-20"), head=FIELDS, key="renewal")
    stage.look_every(DAY / 2, datetime(2026, 12, 30, tzinfo=UTC))

    rows = stage.entered(journey)
    assert [row.contact_id for row in rows] == [early.id, late.id]
    assert rows[1].entered_at == datetime(2026, 12, 16, 1, 0, tzinfo=UTC)  # 5 Jan - 20 days = 16 Dec 00:00 UTC, seen at 01:00


def test_date_due_under_the_old_rule_is_not_lost_by_a_new_version(stage: EntryStage):
    journey = stage.registered(RENEWAL, head=FIELDS, key="renewal")
    hanako = stage.contact(attributes={"renewal_date": "2026-12-26"})
    stage.look()
    stage.clock.move_to(datetime(2026, 11, 26, 2, 0, tzinfo=UTC))  # due two hours ago, and the flow has not run

    stage.registered(RENEWAL.replace("-30", "-40"), head=FIELDS, key="renewal")
    stage.look()

    assert stage.contacts_in(journey) == [hanako.id]


def test_journey_that_is_no_longer_open_keeps_no_dates(stage: EntryStage):
    journey = stage.registered(BIRTHDAY)
    stage.contact(birthday=date(1980, 11, 26))
    stage.look()

    stage.retire(journey)
    stage.look_every(DAY, datetime(2026, 11, 28, tzinfo=UTC))

    assert stage.entered(journey) == []
    with stage.db.reading() as session:
        assert session.exec(select(EntryDate)).all() == []


def test_erased_contact_enters_nothing(stage: EntryStage):
    journey = stage.registered(BIRTHDAY)
    hanako = stage.contact(birthday=date(1980, 11, 26))
    stage.look()
    with stage.db.writing() as session:
        session.get_one(Contact, hanako.id).erased_at = stage.clock.now()

    stage.look_every(DAY, datetime(2026, 11, 28, tzinfo=UTC))

    assert stage.entered(journey) == []


@pytest.mark.parametrize(
    ("zone", "entry_time", "enters_at"),
    [
        # 14 March 2027: 02:30 does not exist in New York; the first instant that does is 03:00 EDT = 07:00 UTC.
        ("America/New_York", "02:30", datetime(2027, 3, 14, 7, 0, tzinfo=UTC)),
        # 14 March 2027 in Tokyo is a day like any other: 02:30 JST = 13 March 17:30 UTC.
        ("Asia/Tokyo", "02:30", datetime(2027, 3, 13, 17, 30, tzinfo=UTC)),
    ],
)
def test_time_that_does_not_exist_becomes_the_first_that_does(stage: EntryStage, zone: str, entry_time: str, enters_at: datetime):
    journey = stage.registered(f'{{date: contact.birthday, every: year, at: "{entry_time}"}}')
    stage.contact(birthday=date(1980, 3, 14), zone=zone)
    stage.look()

    stage.clock.move_to(datetime(2027, 3, 13, 12, 0, tzinfo=UTC))
    stage.look_every(timedelta(minutes=10), datetime(2027, 3, 14, 12, 0, tzinfo=UTC))

    assert [row.entered_at for row in stage.entered(journey)] == [enters_at]


def test_contact_without_a_zone_has_the_partners(stage: EntryStage):
    stage.partner = stage.partner_in("Europe/Berlin")
    journey = stage.registered(BIRTHDAY)
    stage.contact(birthday=date(1980, 11, 26))
    stage.look()

    stage.look_every(HOUR, datetime(2026, 11, 26, 12, 0, tzinfo=UTC))

    assert [row.entered_at for row in stage.entered(journey)] == [datetime(2026, 11, 26, 8, 0, tzinfo=UTC)]


def test_fixed_day_takes_everybody_once(stage: EntryStage):
    journey = stage.registered('{date: 2026-12-24, at: "09:00"}')
    people = [stage.contact() for _ in range(3)]
    stage.look()

    stage.look_every(4 * HOUR, datetime(2026, 12, 25, tzinfo=UTC))

    assert stage.contacts_in(journey) == [person.id for person in people]


def test_run_that_finds_nothing_due_reads_no_contact(stage: EntryStage):
    """The cost of a run depends on due dates and changed contacts only."""
    stage.registered(BIRTHDAY)
    for _ in range(30):
        stage.contact(birthday=date(1980, 6, 1))
    first = stage.look()
    statements: list[str] = []
    database_event.listen(stage.db.engine, "before_cursor_execute", lambda c, cur, sql, *rest: statements.append(sql))

    second = stage.look()

    assert (first.contacts, first.scheduled) == (30, 30)
    assert (second.contacts, second.dates, second.scheduled, second.members) == (0, 0, 0, 0)
    assert len(statements) <= 30  # the same for 30 contacts and for a million
