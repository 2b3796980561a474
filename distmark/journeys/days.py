"""Days as people, spreadsheets and other systems write them: one reader for files, forms, waits and entries. Pure."""

import re
import unicodedata
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from distmark.errors import InvalidInput

LONGEST = 60
ERAS = {"明治": 1867, "大正": 1911, "昭和": 1925, "平成": 1988, "令和": 2018, "m": 1867, "t": 1911, "s": 1925, "h": 1988, "r": 2018}
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
SPREADSHEET_EPOCH = date(1899, 12, 30)

_WEEKDAY = (
    r"(?:\s*[(\[]?(?:[月火水木金土日](?:曜日?)?|(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?)(?:[・,]?祝)?[)\]]?,?)?"
)
_ERA = r"(?P<era>明治|大正|昭和|平成|令和|[mtshr])\s*\.?\s*(?P<era_year>\d{1,2}|元)"
_MONTH_NAME = rf"(?P<{{}}>(?:{'|'.join(MONTHS)})[a-z]*)\.?"
_DATES = (
    r"(?P<year>\d{4})\s*(?:[-/.]|年)\s*(?P<month>\d{1,2})\s*(?:[-/.]|月)\s*(?P<day>\d{1,2})\s*[日.]?",
    rf"{_ERA}\s*(?:[-/.]|年)\s*(?P<month>\d{{1,2}})\s*(?:[-/.]|月)\s*(?P<day>\d{{1,2}})\s*日?",
    r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})",
    rf"{_WEEKDAY}\s*(?P<day>\d{{1,2}})(?:st|nd|rd|th)?[\s-]+{_MONTH_NAME.format('name')},?[\s-]+(?P<year>\d{{4}})",
    rf"{_WEEKDAY}\s*{_MONTH_NAME.format('name')}\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?,?\s+(?P<year>\d{{4}})",
)
_TIME = (
    r"(?:[\s,]*t?\s*(?P<half>午前|午後)?\s*(?P<hour>\d{1,2})(?::|時)(?P<minute>\d{1,2})?(?:分)?(?::?(?P<second>\d{1,2})(?:秒)?(?:[.,]\d+)?)?"
    r"\s*(?P<ampm>[ap]\.?m\.?)?\s*(?P<zone>z|utc|gmt|jst|(?:utc|gmt)?[+-]\d{1,2}(?::?\d{2})?)?(?:\[[\w/]+\]|\s*\([\w\s]+\))?)?"
)
_COMPACT_TIME = r"(?:t?(?P<hour>\d{2})(?P<minute>\d{2})(?P<second>\d{2})?(?P<zone>z|[+-]\d{2}:?\d{2})?)?"
_FORMS = (
    *(re.compile(rf"{form}{_WEEKDAY}{_TIME}", re.IGNORECASE) for form in _DATES),
    re.compile(rf"{_DATES[2]}{_COMPACT_TIME}", re.IGNORECASE),
)
_SERIAL = re.compile(r"(\d{5})(?:\.(\d+))?")


def read_day(written: str, zone: ZoneInfo) -> date:
    """Return the day in a text such as 1980-04-01, 1980/4/1(火) 0:00, 昭和55年4月1日, 1 Apr 1980, 2027-03-31T15:00:00Z or 29312.

    A midnight is the day as it is written; another time that names its offset is an instant, and its day is that in `zone`. A number of
    five digits counts days from 30 December 1899, as spreadsheets do. InvalidInput for any other text, and for 1/4/1980, which is two days.
    """
    text = " ".join(unicodedata.normalize("NFKC", written[: LONGEST + 1]).split()).strip("'")
    refused = InvalidInput(f'The value "{written[:LONGEST]}" is not a date; write it as 2026-12-24.')
    if len(text) > LONGEST:
        raise refused
    try:
        if serial := _SERIAL.fullmatch(text):
            return SPREADSHEET_EPOCH + timedelta(days=int(serial[1]))
        for form in _FORMS:
            if match := form.fullmatch(text):
                return _day(match, zone)
    except (ValueError, OverflowError) as error:
        raise refused from error
    raise refused


def _day(match: re.Match[str], zone: ZoneInfo) -> date:
    parts = {name: value for name, value in match.groupdict().items() if value}
    month = int(parts["month"]) if "month" in parts else MONTHS.index(parts["name"][:3].lower()) + 1
    day = date(_year(parts), month, int(parts["day"]))
    hour, minute, second = (int(parts.get(name, 0)) for name in ("hour", "minute", "second"))
    if "ampm" in parts or "half" in parts:
        late = parts.get("half") == "午後" or parts.get("ampm", "").lower().startswith("p")
        hour = hour % 12 + (12 if late else 0)
    if hour == 24:
        hour = 0 if minute == second == 0 else hour  # 24:00 ends the day that is written
    moment = datetime(day.year, day.month, day.day, hour, minute, min(second, 59), tzinfo=_zone(parts.get("zone")))
    if moment.tzinfo is None or (hour, minute, second) == (0, 0, 0):
        return day
    return moment.astimezone(zone).date()


def _year(parts: dict[str, str]) -> int:
    if "era" in parts:
        return ERAS[parts["era"].lower()] + (1 if parts["era_year"] == "元" else int(parts["era_year"]))
    return int(parts["year"])


def _zone(written: str | None) -> timezone | None:
    if written is None:
        return None
    name = written.lower()
    if name == "jst":
        return timezone(timedelta(hours=9))
    offset = re.fullmatch(r"(?:utc|gmt)?([+-])(\d{1,2}):?(\d{2})?", name)
    if offset is None:
        return UTC
    distance = timedelta(hours=int(offset[2]), minutes=int(offset[3] or 0))
    return timezone(-distance if offset[1] == "-" else distance)
