"""Dated entries over many years: every occasion once, on the contact's own clock, whenever the flow happens to come by."""

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from dateutil.relativedelta import relativedelta
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlmodel import Session, select

from distmark.clock import FixedClock
from distmark.db import Database
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.entries.by_date import Occasion, day_of, due_at, next_occasion
from distmark.entries.table import Entrance
from distmark.journeys.entry import Entry
from distmark.journeys.times import Offset
from distmark.tables import create_all
from tests.depth import examples
from tests.entry_stage import EntryStage

ZONES = ("Asia/Tokyo", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "America/Santiago", "Pacific/Apia", "UTC")
OFFSETS = ("", "-30 days", "30 days", "-1 month", "2 weeks", "-36 hours", "1 year", "-400 days", "-1 month 3 days 90 minutes")
BEGIN = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)

days = st.dates(date(1930, 1, 1), date(2040, 12, 31)) | st.just(date(1980, 2, 29)) | st.just(date(2028, 2, 29))
times = st.times().map(lambda at: at.replace(second=0, microsecond=0)) | st.just(time(2, 30))


def entry_of(at: time, offset: str, yearly: bool) -> Entry:
    written = (
        {"date": "contact.birthday", "at": f"{at:%H:%M}"} | ({"offset": offset} if offset else {}) | ({"every": "year"} if yearly else {})
    )
    return Entry.model_validate(written)


def walked(entry: Entry, day: date, zone: ZoneInfo, since: datetime, until: datetime) -> list[Occasion]:
    """All occasions from `since` to `until`, one asked for after another as the flow does."""
    found: list[Occasion] = []
    occasion = next_occasion(entry, day, zone, since)
    while occasion is not None and occasion.due_at <= until:
        found.append(occasion)
        occasion = next_occasion(entry, day, zone, occasion.due_at, strictly=True)
    return found


@given(day=days, at=times, offset=st.sampled_from(OFFSETS), zone=st.sampled_from(ZONES), years=st.integers(1, 30))
@example(day=date(1980, 2, 29), at=time(2, 30), offset="", zone="America/New_York", years=30)
@example(day=date(2030, 1, 1), at=time(0, 0), offset="-400 days", zone="Pacific/Apia", years=5)
def test_every_anniversary_comes_exactly_once(day: date, at: time, offset: str, zone: str, years: int):
    entry, place = entry_of(at, offset, yearly=True), ZoneInfo(zone)
    until = BEGIN + timedelta(days=366 * years)

    found = walked(entry, day, place, BEGIN, until)

    # Independently: every year's anniversary from the day itself on whose time falls in between.
    possible = [day + relativedelta(year=year) for year in range(max(day.year, 2020), until.year + 5)]
    due = {anniversary: due_at(entry, anniversary, place) for anniversary in possible}
    assert [occasion.day for occasion in found] == [anniversary for anniversary, when in due.items() if BEGIN <= when <= until]
    assert all(occasion.due_at == due[occasion.day] for occasion in found)


@given(day=days, at=times, offset=st.sampled_from(OFFSETS), zone=st.sampled_from(ZONES))
def test_local_time_is_the_one_written_or_the_first_after_a_gap(day: date, at: time, offset: str, zone: str):
    entry, place = entry_of(at, offset, yearly=False), ZoneInfo(zone)
    moved = Offset.read(offset) if offset else Offset()
    wall = datetime.combine(day, at) + relativedelta(months=moved.months) + timedelta(days=moved.days)

    due = due_at(entry, day, place) - timedelta(minutes=moved.minutes)

    local = due.astimezone(place).replace(tzinfo=None)
    exists = wall.replace(tzinfo=place).astimezone(UTC).astimezone(place).replace(tzinfo=None) == wall
    assert local == wall if exists else wall < local <= wall + timedelta(hours=24)


@given(day=days, at=times, offset=st.sampled_from(OFFSETS), zone=st.sampled_from(ZONES))
def test_date_without_anniversaries_comes_once_or_is_over(day: date, at: time, offset: str, zone: str):
    entry, place = entry_of(at, offset, yearly=False), ZoneInfo(zone)

    found = walked(entry, day, place, BEGIN, datetime(2060, 1, 1, tzinfo=UTC))

    assert len(found) == (due_at(entry, day, place) >= BEGIN)


def _leave(session: Session) -> None:
    for row in session.exec(select(Enrollment).where(Enrollment.status != EnrollmentStatus.ended)):
        row.status, row.live_key, row.ended_at, row.due_at = EnrollmentStatus.ended, None, row.entered_at, None


gaps = st.lists(
    st.sampled_from([timedelta(minutes=1), timedelta(hours=7), timedelta(days=3), timedelta(days=200)]), min_size=1, max_size=12
)


@settings(max_examples=examples(25), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    birthdays=st.lists(days, min_size=1, max_size=4), zones=st.lists(st.sampled_from(ZONES), min_size=4, max_size=4), gaps=gaps, at=times
)
def test_flow_that_comes_by_whenever_enters_each_occasion_once(
    birthdays: list[date], zones: list[str], gaps: list[timedelta], at: time, tmp_path_factory
):
    path: Path = tmp_path_factory.mktemp("dates") / "distmark.sqlite3"
    database = Database(f"sqlite:///{path}")
    create_all(database)
    stage = EntryStage(database, FixedClock(BEGIN))
    journey = stage.registered(f'{{date: contact.birthday, every: year, at: "{at:%H:%M}"}}')
    people = [stage.contact(birthday=day, zone=zone) for day, zone in zip(birthdays, zones, strict=False)]
    stage.look()

    for gap in gaps:
        stage.clock.move(gap)
        stage.look()
        stage.look()
        with database.writing() as session:
            _leave(session)

    entry = entry_of(at, "", yearly=True)
    wanted = [
        (person.id, f"date:{occasion.day}")
        for person, day, zone in zip(people, birthdays, zones, strict=False)
        for occasion in walked(entry, day, ZoneInfo(zone), BEGIN, stage.clock.now())
    ]
    with database.reading() as session:
        rows = list(session.exec(select(Entrance).where(Entrance.journey_id == journey.id)))
        entered = len(session.exec(select(Enrollment)).all())
    assert sorted((row.contact_id, row.key) for row in rows) == sorted(wanted)
    # Two occasions of one person that were missed while the flow was away are entered one after the other only if she had left between.
    assert entered == sum(row.verdict == "enrolled" for row in rows)
    assert {row.verdict for row in rows} <= {"enrolled", "already_in"}
    database.close()


@given(
    day=st.dates() | st.just(date.min) | st.just(date.max),
    at=times,
    offset=st.sampled_from(OFFSETS),
    zone=st.sampled_from(ZONES),
    yearly=st.booleans(),
)
def test_every_date_that_a_calendar_holds_has_an_occasion_or_none(day: date, at: time, offset: str, zone: str, yearly: bool):
    entry, place = entry_of(at, offset, yearly), ZoneInfo(zone)

    counted = day_of(entry, {"birthday": day.isoformat()}, place)

    assert (counted is None) == (not 1000 <= day.year <= 9000)
    if counted is not None:
        assert yearly == (next_occasion(entry, counted, place, BEGIN) is not None) or not yearly


@pytest.mark.parametrize("written", ["2027/4/1 0:00", "2027-04-01T00:00:00Z", "2027年4月1日(木)", "令和9年4月1日", 46478, "20270401"])
def test_entry_reads_a_date_in_any_spelling(written: object):
    entry = Entry.model_validate({"date": "contact.renewal_date"})

    assert day_of(entry, {"renewal_date": written}, ZoneInfo("Asia/Tokyo")) == date(2027, 4, 1)


def test_entry_by_a_value_that_is_no_date_enters_nobody_and_harms_no_other():
    entry = Entry.model_validate({"date": "contact.renewal_date"})

    assert day_of(entry, {"renewal_date": "soon"}, ZoneInfo("Asia/Tokyo")) is None
