"""Folding of spellings in searches."""

import pytest

from distmark.contacts.search import folded, search_text, search_words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("髙橋", "高橋"),
        ("山﨑", "山崎"),
        ("齋藤", "斎藤"),
        ("斉藤", "斎藤"),
        ("渡邊", "渡辺"),
        ("渡邉\U000e0100", "渡辺"),
        ("澤田", "沢田"),
        ("𠮷野", "吉野"),
        ("佐々木", "佐佐木"),
        ("サトウ", "さとう"),
        ("ｻﾄｳ", "さとう"),
        ("ガ", "か\u3099"),
        ("ヴァン", "ゔぁん"),
        ("市ヶ谷", "市ケ谷"),
        ("ＨＡＮＡＫＯ", "hanako"),
        ("José", "jose"),
        ("Łódź", "lodz"),
        ("Straße", "strasse"),
    ],
)
def test_spellings_of_one_name_are_folded_to_one(one: str, other: str):
    assert folded(one) == folded(other)


@pytest.mark.parametrize(("one", "other"), [("か", "が"), ("は", "ぱ"), ("土田", "上田"), ("大田", "太田")])
def test_other_names_stay_apart(one: str, other: str):
    assert folded(one) != folded(other)


def test_folding_again_changes_nothing():
    text = folded("髙橋 サトウ ヴ José 佐々木 市ヶ谷 渡邉")

    assert folded(text) == text


def test_text_of_a_contact_holds_both_orders_its_fields_and_readings():
    text = search_text("髙橋", "花子", ("H@example.jp", None, "㈱山田 商店"), {"姓カナ": "タカハシ", "名カナ": "ハナコ", "plan": "A"})

    assert text.split("\n") == ["高橋花子", "花子高橋", "h@example.jp", "(株)山田商店", "たかはし", "はなこ", "たかはしはなこ"]


def test_words_of_a_search_are_parted_at_any_space():
    assert search_words("  タカハシ　花子 ") == ["たかはし", "花子"]
