"""Occasions: when a contact enters a journey by a date. Pure; as in `journeys.times`: the contact's wall clock, leap days, no gaps."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from distmark.journeys.entry import Entry
from distmark.journeys.times import MINUTES_PER_DAY, Offset, TimeOfDay, as_date, resolve, shift, yearly

MIDNIGHT = TimeOfDay.read("00:00")
DAYS_PER_YEAR = 366
LAST_YEAR = 9000  # later dates are typing errors, and adding to them passes the last day that Python can hold
YEARS_TRIED = 8


@dataclass(frozen=True, slots=True)
class Occasion:
    """One occurrence of a date: its day (the date itself, or an anniversary of it), and when the contact enters by it (aware UTC)."""

    day: date
    due_at: datetime


def day_of(entry: Entry, attributes: Mapping[str, Any], zone: ZoneInfo) -> date | None:
    """Return the contact's date that the entry names; None when the contact has none, or one that cannot be read."""
    if entry.date is None:
        return None
    if entry.date.day is not None:
        return entry.date.day
    # A journey's own data exists only after entering, so no contact can enter by it.
    found = as_date(attributes.get(entry.date.attribute), zone) if entry.date.root == "contact" else None
    return found if found is not None and found.year <= LAST_YEAR else None


def next_occasion(entry: Entry, day: date, zone: ZoneInfo, since: datetime, *, strictly: bool = False) -> Occasion | None:
    """Return the first occasion of `day` that is due from `since` on (after it when `strictly`); None when there is none any more.

    With `every: year` the first occasion is the day itself, and there is always another one.
    """
    if entry.every is None:
        occasion = Occasion(day, due_at(entry, day, zone))
        return occasion if _is_due_since(occasion, since, strictly) else None
    first = max(day.year, since.astimezone(zone).year - _years(entry.offset) - 1)
    for year in range(first, first + 2 * _years(entry.offset) + YEARS_TRIED):
        occasion = Occasion(yearly(day, year), due_at(entry, yearly(day, year), zone))
        if _is_due_since(occasion, since, strictly):
            return occasion
    raise AssertionError("an anniversary comes every year")


def due_at(entry: Entry, day: date, zone: ZoneInfo) -> datetime:
    """Return when a contact enters by `day`: the entry's time on it, moved by the offset on the wall clock of `zone`."""
    offset = entry.offset or Offset()
    wall = shift(datetime.combine(day, (entry.at or MIDNIGHT).at), offset)
    return resolve(wall, zone) + timedelta(minutes=offset.minutes)


def _is_due_since(occasion: Occasion, since: datetime, strictly: bool) -> bool:
    return occasion.due_at > since or (occasion.due_at == since and not strictly)


def _years(offset: Offset | None) -> int:
    """Return the most years that the offset can reach, rounded up; 0 without an offset."""
    if offset is None:
        return 0
    days = abs(offset.months) * 31 + abs(offset.days) + abs(offset.minutes) // MINUTES_PER_DAY
    return days // DAYS_PER_YEAR + 1
