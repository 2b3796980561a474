"""Addresses in the spellings of people: one reading of mail addresses and phone numbers."""

# ruff: noqa: E501  (a row of a table stays on its line)

import pytest

from distmark.contacts.addresses import searched_addresses, usual_email
from distmark.contacts.fields import FieldRefused, read_contact
from distmark.errors import InvalidInput

SPELLINGS = [
    *("hanako@example.com", "Hanako@Example.COM", "ｈａｎａｋｏ＠ｅｘａｍｐｌｅ．ｃｏｍ", " hanako@example.com ", "hanako @ example.com"),
    *("<hanako@example.com>", "鈴木 花子 <hanako@example.com>", '"Suzuki, Hanako" <hanako@example.com>', "mailto:hanako@example.com"),
    *("MAILTO:hanako@example.com?subject=x", "hanako@example.com,", "hanako@example.com;", "hanako@example.com。", "hanako@example.com."),
    *(
        "「hanako@example.com」",
        "(hanako@example.com)",
        "hanako@example.com（自宅）",
        "hanako@example.com\u200b",
        "\u202ahanako@example.com\u202c",
        "hanako@example。com",
    ),
]


@pytest.mark.parametrize("written", SPELLINGS)
def test_mail_address_is_the_same_in_every_spelling(written: str):
    assert (read_contact({"email": written}).email or "").lower() == "hanako@example.com"
    assert usual_email(written) == "hanako@example.com"
    assert searched_addresses(written) == ("hanako@example.com", None)


@pytest.mark.parametrize(
    ("written", "usual"),
    [
        ("a..b.@docomo.ne.jp", '"a..b."@docomo.ne.jp'),
        ("ａ．．ｂ＠ｄｏｃｏｍｏ．ｎｅ．ｊｐ", '"a..b"@docomo.ne.jp'),
        ('"a..b"@docomo.ne.jp', '"a..b"@docomo.ne.jp'),
        ("taro@日本語.jp", "taro@xn--wgv71a119e.jp"),
        ("taro@xn--wgv71a119e.jp", "taro@xn--wgv71a119e.jp"),
    ],
)
def test_addresses_of_carriers_and_of_other_scripts_have_one_form(written: str, usual: str):
    assert usual_email(written) == usual
    assert usual_email(usual) == usual


@pytest.mark.parametrize(
    "written", ["hanako", "foo bar@example.com", "a@example.com b@example.com", "a@b@example.com", "<>", "mailto:", "@", ""]
)
def test_text_that_is_no_mail_address_is_refused_without_quoting_it(written: str):
    with pytest.raises(InvalidInput) as refused:
        usual_email(written)

    assert written == "" or len(written) < 3 or written not in str(refused.value)


@pytest.mark.parametrize(
    "written",
    [
        *("03-1234-5678 内線12", "03-1234-5678（内線12）", "03-1234-5678 ext. 12", "03-1234-5678 x12", "03-1234-5678 #12", "03-1234-5678（代）"),
        *("TEL: 03-1234-5678", "tel:+81-3-1234-5678", "電話：０３−１２３４−５６７８", "03 1234 5678", "+81 3 1234 5678", "03-1234-5678。"),
        *("(03)1234-5678", "0312345678", "３１２３４５６７８", "+81 (0)3-1234-5678"),
    ],
)  # fmt: skip
def test_phone_number_is_the_same_in_every_spelling(written: str):
    assert read_contact({"phone": written}).phone == "+81312345678"
    assert searched_addresses(written) == (None, "+81312345678")


@pytest.mark.parametrize("written", ["03-12", "なし", "03-1234-5678 / 090-1234-5678", "内線12"])
def test_text_that_is_no_phone_number_is_refused(written: str):
    with pytest.raises(FieldRefused):
        read_contact({"phone": written})
    assert searched_addresses(written) == (None, None)
