"""Days in the spellings of people, spreadsheets and other systems: one reader for files, waits and entries."""

# ruff: noqa: E501  (a row of a table stays on its line)

from datetime import date
from zoneinfo import ZoneInfo

import pytest

from distmark.errors import InvalidInput
from distmark.journeys.days import read_day
from distmark.journeys.times import as_date

TOKYO, NEW_YORK = ZoneInfo("Asia/Tokyo"), ZoneInfo("America/New_York")
FIRST_OF_APRIL = date(1980, 4, 1)


@pytest.mark.parametrize(
    "written",
    [
        *("1980-04-01", "1980/4/1", "1980.4.1", "19800401", "1980年4月1日", "１９８０／４／１", "'1980-04-01", "1980 / 4 / 1"),
        *("1980/4/1 0:00", "1980/04/01 0:00:00", "1980-04-01 10:30", "1980-04-01T00:00", "1980/04/01 10:30:45.123", "1980/4/1 24:00"),
        *("1980-04-01T00:00:00.000Z", "1980-04-01 00:00:00+09:00", "1980-04-01T00:00:00+0900", "1980-04-01 00:00:00 UTC", "19800401T000000Z"),
        *("1980/4/1(火)", "1980年4月1日（火）", "1980年4月1日火曜日", "1980年04月01日（火・祝） 10:30", "1980/4/1 午前0:00", "1980年4月1日 10時30分"),
        *("1 Apr 1980", "1-Apr-1980", "Apr 1, 1980", "April 1st, 1980", "Tuesday, April 1, 1980", "Tue, 01 Apr 1980 00:00:00 GMT"),
        *("1980/4/1 12:00:00 AM", "Tue Apr 01 1980 00:00:00 GMT+0900 (Japan Standard Time)", "1980-04-01T00:00:00+09:00[Asia/Tokyo]"),
        *("昭和55年4月1日", "昭和55年4月1日(火) 10:30", "S55.4.1", "㍼55年4月1日", "29312", "29312.5"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("zone", [TOKYO, NEW_YORK])
def test_day_is_the_one_that_is_written(written: str, zone: ZoneInfo):
    assert read_day(written, zone) == FIRST_OF_APRIL
    assert as_date(written, zone) == FIRST_OF_APRIL


@pytest.mark.parametrize(
    ("written", "zone", "day"),
    [
        ("1980-03-31T15:00:00Z", TOKYO, FIRST_OF_APRIL),  # midnight in Tokyo, as a program in UTC writes it
        ("1980-04-01T03:00:00Z", NEW_YORK, date(1980, 3, 31)),  # 22:00 the day before
        ("1980-04-01T23:30:00+09:00", TOKYO, FIRST_OF_APRIL),
    ],
)
def test_time_with_its_offset_is_an_instant_in_the_zone_of_the_contact(written: str, zone: ZoneInfo, day: date):
    assert read_day(written, zone) == day


@pytest.mark.parametrize(
    "written",
    [
        *("1/4/1980", "31/12/1980", "4/1", "--04-01", "1980", "1980-04", "1980-13-01", "1999-02-29", "0000-00-00", "99999999"),
        *("soon", "春", "1980-04-01 soon", "1980/4/1 25:00", "1980-04-01 10:30 12:30", "昭和99年99月1日", "1.5", "9" * 5000, "-1", "１"),
    ],
)
def test_text_that_is_no_day_or_two_is_refused(written: str):
    with pytest.raises(InvalidInput, match="is not a date"):
        read_day(written, TOKYO)
