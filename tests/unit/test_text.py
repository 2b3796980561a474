"""Cleaning of texts: one for every way in."""

import pytest

from distmark.text import clean, clean_values, has_private_characters, tidy


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("ｽｽﾞｷ　ﾊﾅｺ", "スズキ ハナコ"),
        ("Ａｌｉｃｅ", "Alice"),
        ("髙橋", "髙橋"),
        ("山﨑", "山﨑"),
        ("\ufa19田", "\ufa19田"),  # which NFKC would turn into 神
        ("\ufa10本", "\ufa10本"),
        ("葛󠄀西", "葛󠄀西"),  # with a variation selector
        ("\u200b鈴\u2060木\ufeff", "鈴木"),
        ("\u202e鈴木\u202c", "鈴木"),
        ("鈴\u00ad木", "鈴木"),
        ("鈴\u3164木\u2800", "鈴木"),
        ("渡\ue000部", "渡部"),
        ("鈴\u200d木", "鈴木"),
        ("家族👨\u200d👩\u200d👧", "家族👨\u200d👩\u200d👧"),
        ("नि\u200dमा", "नि\u200dमा"),
        ("a\tb\r\nc\u2028d\x00\x1b", "a b c d"),
        ("\ud800x\ufffe", "x"),
        ("\U0003134a", "\U0003134a"),  # a kanji that is newer than the tables of some Pythons
    ],
)
def test_line_keeps_what_can_be_seen_in_its_usual_width(written: str, kept: str):
    assert tidy(written) == kept
    assert tidy(kept) == kept


def test_text_of_several_lines_keeps_lines_and_widths():
    assert clean("  一行目\u200b\r\n\tＡ　Ｂ\x00 \n") == "一行目\n\tＡ　Ｂ"


def test_values_of_an_event_are_cleaned_inside():
    content = {"na\u200bme": ["鈴\x00木", {"a": "b\ufeff"}], "n": 1.5, "no": None, "yes": True}

    assert clean_values(content) == {"name": ["鈴木", {"a": "b"}], "n": 1.5, "no": None, "yes": True}


@pytest.mark.parametrize(("written", "has"), [("渡\ue000部", True), ("渡\U000f0000", True), ("渡部", False), ("Watanabe", False)])
def test_private_characters_are_noticed(written: str, has: bool):
    assert has_private_characters(written) is has
