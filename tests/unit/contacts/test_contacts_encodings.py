"""Encodings of files are told apart by their bytes."""

import pytest

from distmark.contacts.encodings import decoded
from distmark.errors import InvalidInput

JAPANESE = ("鈴木 花子", "髙橋 﨑子", "山田", "森", "林 エミ", "ｽｽﾞｷ ﾊﾅｺ", "ﾀﾅｶ ﾀﾛｳ", "NTT東日本", "Aさん", "澪", "渚、凛")
WESTERN = ("Müller", "Hélène", "Björn Ångström", "François Lefèvre", "José García", "Éric", "Muñoz Peña", "João Conceição", "D’Été", "Zoë")


@pytest.mark.parametrize("name", JAPANESE)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("headings", ["氏名,メール", "name,email"])
def test_japanese_text_is_read_in_the_encodings_of_japanese_programs(name: str, encoding: str, headings: str):
    text = f"{headings}\r\n{name},a@example.com\r\n"

    assert decoded(text.encode(encoding), "a.csv") == text


@pytest.mark.parametrize("encoding", ["euc_jp", "iso2022_jp"])
def test_japanese_text_is_read_in_the_encodings_of_old_systems(encoding: str):
    text = "氏名,メール\n鈴木 花子,a@example.com\n佐藤 エミ,b@example.com\n"

    assert decoded(text.encode(encoding), "a.csv") == text


@pytest.mark.parametrize("name", WESTERN)
@pytest.mark.parametrize("headings", ["Name,Email", "Prénom,Email"])
def test_western_names_are_not_read_as_kanji(name: str, headings: str):
    text = f"{headings}\n{name},a@example.com\n"

    assert decoded(text.encode("cp1252"), "a.csv") == text


@pytest.mark.parametrize("text", ["name,price\nA,10 €\n", "name,note\nA,It’s “fine” – really…\n"])
def test_signs_of_windows_are_read(text: str):
    assert decoded(text.encode("cp1252"), "a.csv") == text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("氏名\n鈴木花子\n山田太郎\n".encode() + b"\xe3\x81\n", r"neither UTF-8 nor Shift_JIS \(line 4\)"),
        (b"email\na\x00@example.com\n", "is not text"),
        (b"\x89PNG\r\n\x00\x00\x01", "is not text"),
        (b"\xff\xfee\x00m\x00\x00\xd8", "neither UTF-8"),
    ],
)
def test_bytes_that_are_no_text_are_refused(data: bytes, reason: str):
    with pytest.raises(InvalidInput, match=reason):
        decoded(data, "a.csv")
