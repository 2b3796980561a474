"""Durations, times of day, windows, weekdays and holidays, and what they mean on a contact's wall clock. All instants are aware UTC."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any, Self
from zoneinfo import ZoneInfo, available_timezones

import holidays as public_holidays
from dateutil.relativedelta import relativedelta

from distmark.errors import InvalidInput
from distmark.journeys.days import read_day
from distmark.journeys.fields import Written, problem

UNITS = ("minute", "hour", "day", "week", "month", "year")
DAY_NAMES = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_GROUPS = {"weekdays": frozenset(range(5)), "weekends": frozenset((5, 6)), "every day": frozenset(range(7))}
LONG_DAY_NAMES = dict(zip(("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"), range(7), strict=True))
DAYS_TRIED = 400
FIRST_YEAR, LAST_YEAR = 1000, 9000  # of dates that can be waited for
MINUTES_PER_DAY = 1440
SHORTEST_MONTH_DAYS = 28
LONGEST_YEARS = 20

_AMOUNT = re.compile(r"(\d{1,6})\s+(minute|hour|day|week|month|year)s?")
_DURATION = re.compile(
    r"(-|\+)?\s*(\d{1,6}\s+(?:minute|hour|day|week|month|year)s?(?:\s+\d{1,6}\s+(?:minute|hour|day|week|month|year)s?)*)"
)
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_WINDOW = re.compile(r"(\d{1,2}:\d{2})\s*-\s*(\d{1,2}:\d{2})")


@dataclass(frozen=True, slots=True)
class Duration(Written):
    """A length of time in words. Days and longer are calendar, on the wall clock; minutes and hours are elapsed."""

    months: int = 0
    days: int = 0
    minutes: int = 0
    text: str = ""

    @classmethod
    def read(cls, value: object) -> Self:
        """Return the duration written as "3 days", "90 minutes" or "1 day 2 hours"; negative ones are refused."""
        duration = cls._read_signed(value)
        if duration.months < 0 or duration.days < 0 or duration.minutes < 0:
            raise problem("bad-duration", value=str(value))
        return duration

    @classmethod
    def _read_signed(cls, value: object) -> Self:
        match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None or not isinstance(value, str):
            raise problem("bad-duration", value=str(value))
        sign = -1 if match[1] == "-" else 1
        counts = dict.fromkeys(UNITS, 0)
        for number, unit in _AMOUNT.findall(match[2]):
            counts[unit] += sign * int(number)
        months, days, minutes = (
            counts["year"] * 12 + counts["month"],
            counts["week"] * 7 + counts["day"],
            counts["hour"] * 60 + counts["minute"],
        )
        if abs(months) / 12 + abs(days) / 365 + abs(minutes) / (365 * MINUTES_PER_DAY) > LONGEST_YEARS:
            raise problem("long-duration", value=value, years=str(LONGEST_YEARS))
        return cls(months, days, minutes, " ".join(value.split()))

    @classmethod
    def described(cls) -> dict[str, Any]:
        amount = r"\d{1,6} (minute|hour|day|week|month|year)s?"
        return {"type": "string", "pattern": f"^{amount}( {amount})*$", "examples": ["3 days", "90 minutes", "1 month"]}

    def __str__(self) -> str:
        return self.text

    @property
    def least(self) -> timedelta:
        """The shortest elapsed time this can be, daylight saving aside."""
        return timedelta(days=self.months * SHORTEST_MONTH_DAYS + self.days, minutes=self.minutes)

    @property
    def is_zero(self) -> bool:
        """Return whether the duration is zero."""
        return not (self.months or self.days or self.minutes)

    def after(self, at: datetime, zone: ZoneInfo | None = None) -> datetime:
        """Return `at` plus this, on the wall clock of `zone` (UTC when left out)."""
        return add(at, self, zone or ZoneInfo("UTC"))


@dataclass(frozen=True, slots=True)
class Offset(Duration):
    """A duration before or after a date: "-30 days", "2 weeks"."""

    @classmethod
    def read(cls, value: object) -> Self:
        """Return the signed duration that `value` writes."""
        return cls._read_signed(value)

    @classmethod
    def described(cls) -> dict[str, Any]:
        amount = r"\d{1,6} (minute|hour|day|week|month|year)s?"
        return {"type": "string", "pattern": f"^[-+]?{amount}( {amount})*$", "examples": ["-30 days", "2 weeks"]}


@dataclass(frozen=True, slots=True)
class TimeOfDay(Written):
    """A time on the wall clock, to the minute."""

    at: time

    @classmethod
    def read(cls, value: object) -> Self:
        """Return the time written as "09:00"."""
        match = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise problem("bad-time", value=str(value))
        return cls(time(int(match[1]), int(match[2])))

    @classmethod
    def described(cls) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^([01]?\d|2[0-3]):[0-5]\d$", "examples": ["09:00"]}

    def __str__(self) -> str:
        return f"{self.at:%H:%M}"


@dataclass(frozen=True, slots=True)
class Window(Written):
    """A part of every day, from `start` up to but not including `end`; it crosses midnight when `end` is earlier."""

    start: time
    end: time

    @classmethod
    def read(cls, value: object) -> Self:
        """Return the window written as "21:00-08:00"; "24:00" may end one."""
        match = _WINDOW.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise problem("bad-window", value=str(value))
        ends = "00:00" if match[2] == "24:00" else match[2]
        try:
            start, end = TimeOfDay.read(match[1]).at, TimeOfDay.read(ends).at
        except ValueError as error:
            raise problem("bad-window", value=str(value)) from error
        if start == end:
            raise problem("whole-day-window", value=str(value))
        return cls(start, end)

    @classmethod
    def described(cls) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^\d{1,2}:\d{2}\s*-\s*\d{1,2}:\d{2}$", "examples": ["21:00-08:00"]}

    def __str__(self) -> str:
        return f"{self.start:%H:%M}-{self.end:%H:%M}"

    def holds(self, at: time) -> bool:
        """Return whether the wall-clock time `at` lies in the window."""
        if self.start < self.end:
            return self.start <= at < self.end
        return at >= self.start or at < self.end


@dataclass(frozen=True, slots=True)
class Days(Written):
    """Days of the week on which something may happen; 0 is Monday."""

    numbers: frozenset[int]

    @classmethod
    def read(cls, value: object) -> Self:
        """Return the days written as `weekdays`, `weekends`, `every day`, `mon` or `[mon, thu]`."""
        if isinstance(value, str) and value.strip().lower() in DAY_GROUPS:
            return cls(DAY_GROUPS[value.strip().lower()])
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not names:
            raise problem("bad-days", value=str(value))
        return cls(frozenset(_day_number(name) for name in names))

    @classmethod
    def described(cls) -> dict[str, Any]:
        names = {"enum": list(DAY_NAMES)}
        return {"anyOf": [{"enum": [*DAY_GROUPS, *DAY_NAMES]}, {"type": "array", "items": names, "minItems": 1}]}

    def __str__(self) -> str:
        for group, numbers in DAY_GROUPS.items():
            if numbers == self.numbers:
                return group
        return ", ".join(DAY_NAMES[number] for number in sorted(self.numbers))


def _day_number(name: object) -> int:
    word = str(name).strip().lower()
    if word in DAY_NAMES:
        return DAY_NAMES.index(word)
    if word in LONG_DAY_NAMES:
        return LONG_DAY_NAMES[word]
    raise problem("bad-days", value=str(name))


@dataclass(frozen=True, slots=True)
class Holidays(Written):
    """The public holidays of a country ("JP") or of a part of one ("US-CA")."""

    place: str

    @classmethod
    def read(cls, value: object) -> Self:
        """Return the holidays of the place that `value` names."""
        place = value.strip() if isinstance(value, str) else ""
        country, _, part = place.partition("-")
        supported = _holiday_places()
        if country not in supported or (part and part not in supported[country]):
            raise problem("bad-holidays", value=str(value))
        return cls(place)

    @classmethod
    def described(cls) -> dict[str, Any]:
        return {"type": "string", "pattern": "^[A-Z]{2}(-[A-Z0-9]+)?$", "examples": ["JP", "US", "US-CA"]}

    def __str__(self) -> str:
        return self.place

    def name_of(self, day: date) -> str | None:
        """Return the name of the holiday on `day`, or None."""
        name = _calendar(self.place).get(day)
        return str(name) if name is not None else None


@dataclass(frozen=True, slots=True)
class SendHours:
    """The hours and days at which messages may be sent; None leaves a rule out."""

    quiet_hours: Window | None = None
    days: Days | None = None
    holidays: Holidays | None = None


@lru_cache(maxsize=1)
def _holiday_places() -> dict[str, list[str]]:
    return dict(public_holidays.list_supported_countries())


@lru_cache(maxsize=64)
def _calendar(place: str) -> public_holidays.HolidayBase:
    country, _, part = place.partition("-")
    return public_holidays.country_holidays(country, subdiv=part or None)


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones())


@lru_cache(maxsize=1024)
def find_zone(name: str) -> ZoneInfo | None:
    """Return the time zone called `name`, old names included, or None when there is none."""
    return ZoneInfo(name) if name in _zone_names() else None


def zone_for(*names: object) -> ZoneInfo:
    """Return the first of `names` that is a time zone, else UTC: contact's, partner's, brand's."""
    for name in names:
        if name and isinstance(name, str) and (zone := find_zone(name)):
            return zone
    return ZoneInfo("UTC")


def resolve(wall: datetime, zone: ZoneInfo, *, not_before: datetime | None = None) -> datetime:
    """Return the instant at which the clock in `zone` shows `wall` (naive).

    A time that does not exist becomes the first instant that does; one that happens twice means the first, or the first that is not
    earlier than `not_before`.
    """
    first = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if first.astimezone(zone).replace(tzinfo=None) != wall:
        return _end_of_gap(wall, zone)
    if not_before is None or first >= not_before:
        return first
    return wall.replace(tzinfo=zone, fold=1).astimezone(UTC)


def _end_of_gap(wall: datetime, zone: ZoneInfo) -> datetime:
    before = wall.replace(tzinfo=zone, fold=1).astimezone(UTC) - timedelta(seconds=1)
    after = wall.replace(tzinfo=zone, fold=0).astimezone(UTC) + timedelta(seconds=1)
    old = before.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=int((after - before).total_seconds()) // 2)
        before, after = (middle, after) if middle.astimezone(zone).utcoffset() == old else (before, middle)
    return after.replace(microsecond=0)


def add(at: datetime, duration: Duration, zone: ZoneInfo) -> datetime:
    """Return `at` plus `duration`: years to days on the wall clock of `zone`, then hours and minutes as elapsed time."""
    if duration.months or duration.days:
        at = resolve(shift(at.astimezone(zone).replace(tzinfo=None, fold=0), duration), zone)
    return at + timedelta(minutes=duration.minutes) if duration.minutes else at


def shift(wall: datetime, duration: Duration) -> datetime:
    """Return the wall-clock time `wall` moved by the calendar part of `duration`; the 31st plus a month is the month's last day."""
    if duration.months:
        wall += relativedelta(months=duration.months)
    return wall + timedelta(days=duration.days)


def _closed(day: date, days: Days | None, public: Holidays | None) -> str | None:
    if days is not None and day.weekday() not in days.numbers:
        return f"day:{DAY_NAMES[day.weekday()]}"
    if public is not None and public.name_of(day) is not None:
        return f"holiday:{day.isoformat()}"
    return None


def _days_from(first: date) -> Iterator[date]:
    return (first + timedelta(days=number) for number in range(DAYS_TRIED))


def next_time(
    at: datetime,
    zone: ZoneInfo,
    time_of_day: TimeOfDay,
    days: Days | None = None,
    public: Holidays | None = None,
    *,
    strictly: bool = False,
) -> tuple[datetime, tuple[str, ...]]:
    """Return the first instant from `at` on (after `at` when `strictly`) that is `time_of_day` on an allowed day, and what moved it."""
    rules: list[str] = []
    for day in _days_from(at.astimezone(zone).date()):
        wall = datetime.combine(day, time_of_day.at)
        instant = resolve(wall, zone)
        if instant < at or (strictly and instant == at):
            continue
        if closed := _closed(day, days, public):
            rules.append(closed)
            continue
        if instant.astimezone(zone).replace(tzinfo=None) != wall:
            rules.append(f"gap:{time_of_day}")
        return instant, tuple(rules)
    raise InvalidInput(f"The time {time_of_day} never comes on the days {days} without the holidays {public}; allow more days.")


def next_day(at: datetime, zone: ZoneInfo, days: Days | None, public: Holidays | None) -> tuple[datetime, tuple[str, ...]]:
    """Return `at`, or the same wall-clock time on the next allowed day, and the rules that moved it."""
    rules: list[str] = []
    local = at.astimezone(zone)
    for day in _days_from(local.date()):
        if closed := _closed(day, days, public):
            rules.append(closed)
            continue
        return (at if not rules else resolve(datetime.combine(day, local.time()), zone)), tuple(rules)
    raise InvalidInput(f"No day is allowed by the days {days} without the holidays {public}; allow more days.")


def next_allowed(
    at: datetime, zone: ZoneInfo, quiet_hours: Window | None, days: Days | None = None, holidays: Holidays | None = None
) -> tuple[datetime, tuple[str, ...]]:
    """Return the first instant from `at` on whose wall clock is outside `quiet_hours` on an allowed day, and the rules that held it."""
    rules: list[str] = []
    for _ in range(DAYS_TRIED * 2):
        local = at.astimezone(zone)
        if closed := _closed(local.date(), days, holidays):
            rules.append(closed)
            at = resolve(datetime.combine(local.date() + timedelta(days=1), time()), zone)
        elif quiet_hours is not None and quiet_hours.holds(local.time()):
            rules.append(f"quiet_hours:{quiet_hours}")
            at = _end_of_quiet(at, local, quiet_hours, zone)
        else:
            return at, tuple(rules)
    raise InvalidInput(f"No time is allowed by quiet hours {quiet_hours}, days {days} and holidays {holidays}; allow more.")


def _end_of_quiet(at: datetime, local: datetime, quiet: Window, zone: ZoneInfo) -> datetime:
    ends_on = local.date() if local.time() < quiet.end else local.date() + timedelta(days=1)
    return resolve(datetime.combine(ends_on, quiet.end), zone, not_before=at)


def days_between(earlier: date, later: date) -> int:
    """Return the whole calendar days from `earlier` to `later`."""
    return (later - earlier).days


def as_date(value: object, zone: ZoneInfo) -> date | None:
    """Return the calendar day that `value` means in `zone`: a date, an aware datetime or a text (`days.read_day`); None for nothing.

    InvalidInput when it is something else.
    """
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        is_shifted = value.tzinfo is not None and FIRST_YEAR <= value.year <= LAST_YEAR  # else the shift may pass the last day
        return value.astimezone(zone).date() if is_shifted else value.date()
    if isinstance(value, date):
        return value
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return read_day(str(value), zone)
    raise InvalidInput(f'The value "{value}" is not a date; write it as 2026-12-24.')


def is_usable(day: date) -> bool:
    """Return whether a contact can wait for `day`: others are typing errors.

    An offset from those passes the first or the last day that Python can hold.
    """
    return FIRST_YEAR <= day.year <= LAST_YEAR


def usable_date(value: object, zone: ZoneInfo) -> date | None:
    """Return the day that a contact can wait for; None when `value` is no date, or one out of reach."""
    try:
        found = as_date(value, zone)
    except InvalidInput:
        return None
    return found if found is not None and is_usable(found) else None


def yearly(day: date, year: int) -> date:
    """Return the anniversary of `day` in `year`; 29 February falls on the 28th of a year that has none."""
    return day + relativedelta(year=year)


RULE_WORDS = {
    "quiet_hours": {"en": "quiet hours {value}", "ja": "送信しない時間帯 {value}"},
    "day": {"en": "not on {value}", "ja": "{value}は対象外"},
    "holiday": {"en": "public holiday {value}", "ja": "祝日 {value}"},
    "gap": {"en": "{value} does not exist that day (clocks go forward)", "ja": "その日は{value}が存在しません（夏時間への切り替え）"},
    "past": {"en": "already past: goes on at once", "ja": "すでに過ぎているためすぐ次へ"},
    "unread_date": {
        "en": "{value} holds no date: goes on at once",
        "ja": "{value} の値が日付ではないためすぐ次へ",
    },
    "no_date": {"en": "the contact has no such date: goes on at once", "ja": "日付が未登録のためすぐ次へ"},
    "best_time": {"en": "best hour of {value}", "ja": "反応の良い時刻（{value}）"},
}
DAYS_JA = dict(zip(DAY_NAMES, ("月曜", "火曜", "水曜", "木曜", "金曜", "土曜", "日曜"), strict=True))
DAYS_EN = dict(zip(DAY_NAMES, ("Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays"), strict=True))


def describe_rule(rule: str, lang: str) -> str:
    """Return `rule` ("quiet_hours:21:00-08:00", "holiday:2026-11-23" ...) in words of `lang`; a rule of another room as it is."""
    code, _, value = rule.partition(":")
    if code not in RULE_WORDS:
        return rule
    if code == "day":
        value = (DAYS_JA if lang == "ja" else DAYS_EN)[value]
    return RULE_WORDS[code]["ja" if lang == "ja" else "en"].format(value=value)
