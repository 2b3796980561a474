"""The numbers that people write, and what is none."""

import pytest

from distmark.numbers import read_number


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("12000", 12_000),
        ("12,000", 12_000),
        ("１２，０００", 12_000),
        ("１２万", 120_000),
        ("1.5万", 15_000),
        ("1億2,000万", 120_000_000),
        ("3千", 3_000),
        ("12,000円", 12_000),
        ("￥12,000", 12_000),
        ("¥ -500", -500),
        ("-¥500", -500),
        ("▲1,200", -1_200),
        ("0.5", 0.5),
        (".5", 0.5),
        (" 7 ", 7),
        ("1.2E+3", 1_200.0),
        ("$1,234.50", 1_234.5),
    ],
)
def test_a_number_is_read_as_people_write_it(written: str, number: float) -> None:
    assert read_number(written) == number


@pytest.mark.parametrize(
    "written", ["", "円", "万", "abc", "12,00", "1.234,56", "nan", "inf", "1e999", "12abc", "9" * 30, "--5", "1,2,3", "20-30"]
)
def test_what_writes_no_number_is_none(written: str) -> None:
    assert read_number(written) is None
