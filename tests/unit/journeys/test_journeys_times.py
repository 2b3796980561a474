"""The clock rules of journeys: durations, times of day, windows, weekdays, holidays, daylight saving in both hemispheres."""

# ruff: noqa: E501  (a row of a table stays on its line)

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from distmark.errors import InvalidInput
from distmark.journeys.times import (
    Days,
    Duration,
    Holidays,
    Offset,
    TimeOfDay,
    Window,
    add,
    as_date,
    describe_rule,
    next_allowed,
    next_day,
    next_time,
    resolve,
    yearly,
    zone_for,
)

NEW_YORK, SYDNEY, LORD_HOWE, TOKYO = (
    ZoneInfo("America/New_York"),
    ZoneInfo("Australia/Sydney"),
    ZoneInfo("Australia/Lord_Howe"),
    ZoneInfo("Asia/Tokyo"),
)
LONDON, APIA, KATHMANDU = ZoneInfo("Europe/London"), ZoneInfo("Pacific/Apia"), ZoneInfo("Asia/Kathmandu")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local(text: str, zone: ZoneInfo, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).astimezone(UTC)


@pytest.mark.parametrize(
    ("wall", "zone", "expected"),
    [
        # In use the whole year: 02:30 - 9 h.
        ("2026-03-08 02:30", TOKYO, "2026-03-07 17:30"),
        # Gap 02:00-03:00: the first instant that exists is 03:00 EDT = 07:00 UTC.
        ("2026-03-08 02:30", NEW_YORK, "2026-03-08 07:00"),
        ("2026-03-08 02:00", NEW_YORK, "2026-03-08 07:00"),
        ("2026-03-08 01:59", NEW_YORK, "2026-03-08 06:59"),
        ("2026-03-08 03:00", NEW_YORK, "2026-03-08 07:00"),
        # Overlap 01:00-02:00: the first 01:30 is still EDT = 05:30 UTC.
        ("2026-11-01 01:30", NEW_YORK, "2026-11-01 05:30"),
        ("2026-11-01 02:00", NEW_YORK, "2026-11-01 07:00"),
        # London's gap is 01:00-02:00: 02:00 BST = 01:00 UTC.
        ("2026-03-29 01:30", LONDON, "2026-03-29 01:00"),
        # The southern half: clocks go forward in October, 03:00 AEDT (+11) = 16:00 UTC the day before.
        ("2026-10-04 02:30", SYDNEY, "2026-10-03 16:00"),
        # ... and back in April: the first 02:30 is AEDT (+11).
        ("2027-04-04 02:30", SYDNEY, "2027-04-03 15:30"),
        # Lord Howe moves by half an hour: gap 02:00-02:30, so 02:15 becomes 02:30 (+11) = 15:30 UTC.
        ("2026-10-04 02:15", LORD_HOWE, "2026-10-03 15:30"),
        ("2026-10-04 02:30", LORD_HOWE, "2026-10-03 15:30"),
        # Overlap 01:30-02:00: the first 01:45 is +11.
        ("2027-04-04 01:45", LORD_HOWE, "2027-04-03 14:45"),
        # Samoa left out a whole day: the first instant after is midnight of the 31st (+14) = 10:00 UTC.
        ("2011-12-30 12:00", APIA, "2011-12-30 10:00"),
        # 5 h 45 min east.
        ("2026-06-01 09:00", KATHMANDU, "2026-06-01 03:15"),
    ],
)
def test_a_wall_clock_time_means_the_first_instant_that_shows_it(wall: str, zone: ZoneInfo, expected: str) -> None:
    """T1, T8."""
    assert resolve(datetime.fromisoformat(wall), zone) == utc(expected)


@pytest.mark.parametrize(
    ("at", "zone", "words", "expected"),
    [
        # Three days over the spring change stay 09:00 on the wall: EST 14:00 UTC, EDT 13:00 UTC.
        ("2026-03-06 14:00", NEW_YORK, "3 days", "2026-03-09 13:00"),
        # 72 hours elapse: an hour later on the wall.
        ("2026-03-06 14:00", NEW_YORK, "72 hours", "2026-03-09 14:00"),
        # Over the autumn change: 09:00 EDT = 13:00 UTC, 09:00 EST = 14:00 UTC.
        ("2026-10-30 13:00", NEW_YORK, "3 days", "2026-11-02 14:00"),
        # Sydney, October: 09:00 AEST = 23:00 UTC, 09:00 AEDT = 22:00 UTC.
        ("2026-10-02 23:00", SYDNEY, "2 days", "2026-10-04 22:00"),
        # 02:30 a day before the gap: the first instant that exists, 03:00 EDT.
        ("2026-03-07 07:30", NEW_YORK, "1 day", "2026-03-08 07:00"),
        # From the second 01:30 (EST, 06:30 UTC) a day on: 01:30 EST.
        ("2026-11-01 06:30", NEW_YORK, "1 day", "2026-11-02 06:30"),
        # The month's last day; 2028 is a leap year.
        ("2027-01-31 00:00", TOKYO, "1 month", "2027-02-28 00:00"),
        ("2028-01-31 00:00", TOKYO, "1 month", "2028-02-29 00:00"),
        ("2028-02-29 00:00", TOKYO, "1 year", "2029-02-28 00:00"),
        ("2028-02-28 00:00", TOKYO, "1 day", "2028-02-29 00:00"),
        # Over the year's end.
        ("2026-12-30 00:00", TOKYO, "2 weeks", "2027-01-13 00:00"),
        ("2026-12-31 14:59", TOKYO, "1 minute", "2026-12-31 15:00"),
        # Minutes are minutes.
        ("2026-06-01 00:00", TOKYO, "15 minutes", "2026-06-01 00:15"),
        ("2026-06-01 00:00", TOKYO, "90 minutes", "2026-06-01 01:30"),
        # First the calendar, then the clock: 1 day to 03-08 00:30 EST, then 2 hours elapse over the gap to 03:30 EDT = 07:30 UTC.
        ("2026-03-07 05:30", NEW_YORK, "1 day 2 hours", "2026-03-08 07:30"),
    ],
)
def test_days_are_calendar_and_hours_elapse(at: str, zone: ZoneInfo, words: str, expected: str) -> None:
    """T1, L16."""
    assert add(utc(at), Duration.read(words), zone) == utc(expected)


@pytest.mark.parametrize("words", ["3", "3 d", "days", "-3 days", "3 fortnights", "1.5 days", "", "3 days ago", "21 years"])
def test_a_duration_that_is_no_number_and_unit_is_refused(words: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        Duration.read(words)


def test_an_offset_may_be_before() -> None:
    assert Offset.read("-30 days").days == -30
    assert Offset.read("+2 weeks").days == 14


MONDAY_THURSDAY, WEEKDAYS, JAPAN = Days.read(["mon", "thu"]), Days.read("weekdays"), Holidays.read("JP")


@pytest.mark.parametrize(
    ("at", "zone", "time", "days", "holidays", "expected", "rules"),
    [
        # A minute before, on the minute, a minute after.
        (local("2026-11-24 08:59", TOKYO), TOKYO, "09:00", None, None, local("2026-11-24 09:00", TOKYO), ()),
        (local("2026-11-24 09:00", TOKYO), TOKYO, "09:00", None, None, local("2026-11-24 09:00", TOKYO), ()),
        (local("2026-11-24 09:01", TOKYO), TOKYO, "09:00", None, None, local("2026-11-25 09:00", TOKYO), ()),
        # Monday 05:00 in Tokyo is Sunday 20:00 UTC, and stays Monday.
        (utc("2026-11-25 00:00"), TOKYO, "05:00", Days.read(["mon"]), None, utc("2026-11-29 20:00"), ("day:thu", "day:fri", "day:sat", "day:sun")),
        (local("2026-11-24 10:00", TOKYO), TOKYO, "09:00", MONDAY_THURSDAY, None, local("2026-11-26 09:00", TOKYO), ("day:wed",)),
        # Friday 20 November; Monday the 23rd is Labour Thanksgiving Day.
        (
            local("2026-11-20 10:00", TOKYO), TOKYO, "09:00", WEEKDAYS, JAPAN, local("2026-11-24 09:00", TOKYO),
            ("day:sat", "day:sun", "holiday:2026-11-23"),
        ),
        # September 2026: 21 Respect for the Aged, 22 between two holidays, 23 equinox.
        (
            local("2026-09-18 10:00", TOKYO), TOKYO, "09:00", WEEKDAYS, JAPAN, local("2026-09-24 09:00", TOKYO),
            ("day:sat", "day:sun", "holiday:2026-09-21", "holiday:2026-09-22", "holiday:2026-09-23"),
        ),
        # The year's end: 1 January 2027 is a Friday and a holiday.
        (
            local("2026-12-31 10:00", TOKYO), TOKYO, "09:00", WEEKDAYS, JAPAN, local("2027-01-04 09:00", TOKYO),
            ("holiday:2027-01-01", "day:sat", "day:sun"),
        ),
        # 02:30 on the day of the gap: 03:00.
        (local("2026-03-07 20:00", NEW_YORK), NEW_YORK, "02:30", None, None, local("2026-03-08 03:00", NEW_YORK), ("gap:02:30",)),
        # 01:30 on the day of the overlap: the first one; who comes between the two waits for the next day.
        (local("2026-10-31 20:00", NEW_YORK), NEW_YORK, "01:30", None, None, utc("2026-11-01 05:30"), ()),
        (utc("2026-11-01 05:31"), NEW_YORK, "01:30", None, None, utc("2026-11-02 06:30"), ()),
        # 29 February exists.
        (local("2028-02-28 10:00", TOKYO), TOKYO, "09:00", None, None, local("2028-02-29 09:00", TOKYO), ()),
    ],
)  # fmt: skip
def test_a_time_of_day_comes_next_on_an_allowed_day_of_the_same_zone(
    at: datetime, zone: ZoneInfo, time: str, days: Days | None, holidays: Holidays | None, expected: datetime, rules: tuple[str, ...]
) -> None:
    """T2, T5, T8."""
    assert next_time(at, zone, TimeOfDay.read(time), days, holidays) == (expected, rules)


def test_strictly_after_leaves_out_the_same_minute() -> None:
    nine = local("2026-11-24 09:00", TOKYO)

    assert next_time(nine, TOKYO, TimeOfDay.read("09:00"), strictly=True)[0] == local("2026-11-25 09:00", TOKYO)


def test_the_next_day_keeps_the_time_of_day() -> None:
    saturday = local("2026-11-21 14:05", TOKYO)

    assert next_day(saturday, TOKYO, WEEKDAYS, JAPAN)[0] == local("2026-11-24 14:05", TOKYO)
    assert next_day(local("2026-11-24 14:05", TOKYO), TOKYO, WEEKDAYS, JAPAN) == (local("2026-11-24 14:05", TOKYO), ())


NIGHT, NOON, EVENING = Window.read("21:00-08:00"), Window.read("12:00-13:00"), Window.read("18:00-24:00")


@pytest.mark.parametrize(
    ("at", "zone", "quiet", "days", "holidays", "expected", "rules"),
    [
        # Over midnight: open from 08:00 up to 20:59.
        (local("2026-11-24 20:59", TOKYO), TOKYO, NIGHT, None, None, local("2026-11-24 20:59", TOKYO), ()),
        (local("2026-11-24 21:00", TOKYO), TOKYO, NIGHT, None, None, local("2026-11-25 08:00", TOKYO), ("quiet_hours:21:00-08:00",)),
        (local("2026-11-25 00:00", TOKYO), TOKYO, NIGHT, None, None, local("2026-11-25 08:00", TOKYO), ("quiet_hours:21:00-08:00",)),
        (local("2026-11-25 07:59", TOKYO), TOKYO, NIGHT, None, None, local("2026-11-25 08:00", TOKYO), ("quiet_hours:21:00-08:00",)),
        (local("2026-11-25 08:00", TOKYO), TOKYO, NIGHT, None, None, local("2026-11-25 08:00", TOKYO), ()),
        # Within a day.
        (local("2026-11-24 12:30", TOKYO), TOKYO, NOON, None, None, local("2026-11-24 13:00", TOKYO), ("quiet_hours:12:00-13:00",)),
        (local("2026-11-24 11:59", TOKYO), TOKYO, NOON, None, None, local("2026-11-24 11:59", TOKYO), ()),
        # Up to midnight.
        (local("2026-11-24 23:59", TOKYO), TOKYO, EVENING, None, None, local("2026-11-25 00:00", TOKYO), ("quiet_hours:18:00-00:00",)),
        # The same instant is day in New York and night in Tokyo: 15:00 UTC = 10:00 EST = 00:00 JST.
        (utc("2026-11-24 15:00"), NEW_YORK, NIGHT, None, None, utc("2026-11-24 15:00"), ()),
        (utc("2026-11-24 15:00"), TOKYO, NIGHT, None, None, utc("2026-11-24 23:00"), ("quiet_hours:21:00-08:00",)),
        # Over the spring change the night is an hour shorter: 08:00 EDT = 12:00 UTC.
        (local("2026-03-07 22:00", NEW_YORK), NEW_YORK, NIGHT, None, None, utc("2026-03-08 12:00"), ("quiet_hours:21:00-08:00",)),
        # An end that does not exist: the first instant after it, 03:00 EDT.
        (
            local("2026-03-08 01:00", NEW_YORK), NEW_YORK, Window.read("21:00-02:30"), None, None, utc("2026-03-08 07:00"),
            ("quiet_hours:21:00-02:30",),
        ),
        # An end that comes twice: the first one; and who comes after it while the clock shows the hour again waits for the second.
        (
            local("2026-11-01 00:30", NEW_YORK), NEW_YORK, Window.read("21:00-01:30"), None, None, utc("2026-11-01 05:30"),
            ("quiet_hours:21:00-01:30",),
        ),
        (utc("2026-11-01 06:15"), NEW_YORK, Window.read("21:00-01:30"), None, None, utc("2026-11-01 06:30"), ("quiet_hours:21:00-01:30",)),
        # Friday night, then a weekend, then a holiday: Tuesday 08:00.
        (
            local("2026-11-20 22:00", TOKYO), TOKYO, NIGHT, WEEKDAYS, JAPAN, local("2026-11-24 08:00", TOKYO),
            ("quiet_hours:21:00-08:00", "day:sat", "day:sun", "holiday:2026-11-23", "quiet_hours:21:00-08:00"),
        ),
        # No quiet hours: the day begins at midnight.
        (local("2026-11-21 10:00", TOKYO), TOKYO, None, WEEKDAYS, None, local("2026-11-23 00:00", TOKYO), ("day:sat", "day:sun")),
    ],
)  # fmt: skip
def test_a_message_leaves_at_the_first_instant_that_is_neither_quiet_nor_closed(
    at: datetime,
    zone: ZoneInfo,
    quiet: Window | None,
    days: Days | None,
    holidays: Holidays | None,
    expected: datetime,
    rules: tuple[str, ...],
) -> None:
    """T3, T4, T5."""
    allowed, why = next_allowed(at, zone, quiet, days, holidays)

    assert allowed == expected
    # Saturday 08:00 is closed before it is quiet: each rule is told once for each time it held.
    assert tuple(dict.fromkeys(why)) == tuple(dict.fromkeys(rules))


@pytest.mark.parametrize("words", ["21-8", "21:00", "25:00-08:00", "08:00-08:00", "00:00-24:00", "21:00 to 08:00", ""])
def test_hours_that_are_no_window_are_refused(words: str) -> None:
    with pytest.raises(ValueError, match="window"):
        Window.read(words)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("Asia/Tokyo", "Europe/Paris"), "Asia/Tokyo"),
        ((None, "", "Europe/Paris"), "Europe/Paris"),
        (("Mars/Olympus", "Europe/Paris"), "Europe/Paris"),
        (("../../etc/passwd", "America", None), "UTC"),
        (("Europe/Kiev",), "Europe/Kiev"),
        ((), "UTC"),
    ],
)
def test_the_first_zone_that_exists_counts(names: tuple[object, ...], expected: str) -> None:
    """T7: an unknown or renamed zone never breaks a send."""
    assert str(zone_for(*names)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-12-24", date(2026, 12, 24)),
        (date(2026, 12, 24), date(2026, 12, 24)),
        # 20:00 UTC is the next day in Tokyo.
        (datetime(2026, 12, 24, 20, 0, tzinfo=UTC), date(2026, 12, 25)),
        ("2026-12-24T20:00:00Z", date(2026, 12, 25)),
        (None, None),
        ("", None),
    ],
)
def test_a_date_is_read_in_the_contacts_zone(value: object, expected: date | None) -> None:
    assert as_date(value, TOKYO) == expected


@pytest.mark.parametrize("value", ["next week", "2026-02-30", 2026, True, ["2026-12-24"]])
def test_what_is_no_date_is_refused_by_name(value: object) -> None:
    with pytest.raises(InvalidInput, match="is not a date"):
        as_date(value, TOKYO)


def test_the_anniversary_of_the_leap_day_is_the_28th_in_other_years() -> None:
    assert yearly(date(2028, 2, 29), 2029) == date(2029, 2, 28)
    assert yearly(date(2028, 2, 29), 2032) == date(2032, 2, 29)


@pytest.mark.parametrize(
    ("rule", "ja", "en"),
    [
        ("quiet_hours:21:00-08:00", "送信しない時間帯 21:00-08:00", "quiet hours 21:00-08:00"),
        ("day:sat", "土曜は対象外", "not on Saturdays"),
        ("holiday:2026-11-23", "祝日 2026-11-23", "public holiday 2026-11-23"),
    ],
)
def test_rules_are_told_in_both_languages(rule: str, ja: str, en: str) -> None:
    assert describe_rule(rule, "ja") == ja
    assert describe_rule(rule, "en") == en


def test_durations_print_as_written() -> None:
    assert str(Duration.read("3  days")) == "3 days"
    assert str(Days.read("weekdays")) == "weekdays"
    assert str(Days.read(["thursday", "mon"])) == "mon, thu"
