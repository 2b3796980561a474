"""Fields of a contact: spellings that people use, and the values that are kept."""

from datetime import UTC, date, datetime

import pytest

from distmark.contacts.fields import ContactInput, FieldRefused, attribute_name, message, read_contact, typed
from distmark.contacts.model import ContactKind


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("taro@example.com", "taro@example.com"),
        ("  Taro@EXAMPLE.com ", "Taro@example.com"),  # the case of the part before @ is kept
        ("ｔａｒｏ＠example.com", "taro@example.com"),  # full-width letters
        ("taro@例え.jp", "taro@xn--r8jz45g.jp"),
        ("a..b@docomo.ne.jp", '"a..b"@docomo.ne.jp'),
        ("a.@ezweb.ne.jp", '"a."@ezweb.ne.jp'),
        (".a@docomo.ne.jp", '".a"@docomo.ne.jp'),
        ('"a..b"@docomo.ne.jp', '"a..b"@docomo.ne.jp'),
        ("", None),
        ("  ", None),
    ],
)
def test_mail_address_is_kept_in_the_form_that_servers_take(written: str, kept: str | None):
    assert read_contact({"email": written}).email == kept


@pytest.mark.parametrize(
    "written",
    [
        *("taro", "taro@", "@example.com", "taro@example", "a..b@gmail.com", "a.@example.com", "太郎@example.com", "a@b@example.com"),
        *("a@example.com, b@example.com", "a@-example.com", "a@example..com", '"a b"@example.com', "a@localhost"),
    ],
)
def test_bad_mail_address_is_refused_with_a_reason_in_both_languages(written: str):
    with pytest.raises(FieldRefused) as refused:
        read_contact({"email": written})

    assert refused.value.field == "email"
    assert "is not a mail address" in refused.value.message_en
    assert "メールアドレスではありません" in refused.value.message_ja
    assert refused.value.value.replace(" ", "") == written.replace(" ", "")


def test_line_break_in_an_address_cannot_smuggle_a_header():
    with pytest.raises(FieldRefused):
        read_contact({"email": "a@example.com\r\nBcc: b@example.com"})

    assert read_contact({"last_name": "鈴木\r\nBcc: b@example.com"}).last_name == "鈴木 Bcc: b@example.com"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("090-1234-5678", "+819012345678"),
        ("０９０（１２３４）５６７８", "+819012345678"),
        (9012345678, "+819012345678"),  # a spreadsheet dropped the first 0
        (9012345678.0, "+819012345678"),
        ("03-1234-5678", "+81312345678"),
        ("+1 212-555-0100", "+12125550100"),
        ("+81 90 1234 5678", "+819012345678"),
        ("", None),
    ],
)
def test_phone_is_kept_in_e164(written: object, kept: str | None):
    assert read_contact({"phone": written}).phone == kept


@pytest.mark.parametrize("written", ["12", "電話なし", "090-1234-567", "+99 1234"])
def test_bad_phone_number_is_refused(written: str):
    with pytest.raises(FieldRefused, match="is not a phone number"):
        read_contact({"phone": written})


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("1980-04-01", date(1980, 4, 1)),
        ("1980/4/1", date(1980, 4, 1)),
        ("1980年4月1日", date(1980, 4, 1)),
        ("19800401", date(1980, 4, 1)),
        (19800401.0, date(1980, 4, 1)),
        ("昭和55年4月1日", date(1980, 4, 1)),  # 1925 + 55
        ("S55.4.1", date(1980, 4, 1)),
        ("令和元年5月1日", date(2019, 5, 1)),  # 2018 + 1
        ("2000-02-29", date(2000, 2, 29)),
        (datetime(1980, 4, 1, tzinfo=UTC), date(1980, 4, 1)),
        ("1980-04-01 00:00:00", date(1980, 4, 1)),
        ("", None),
    ],
)
def test_birthday_is_read_as_people_in_japan_write_it(written: object, kept: date | None):
    assert read_contact({"birthday": written}).birthday == kept


@pytest.mark.parametrize("written", ["1/4/1980", "1980-13-01", "1999-02-29", "春", "0001-01-01"])
def test_date_that_could_mean_two_days_or_none_is_refused(written: str):
    with pytest.raises(FieldRefused, match="is not a date"):
        read_contact({"birthday": written})


@pytest.mark.parametrize(("written", "kept"), [("日本語", "ja"), ("JA_JP", "ja"), ("English", "en"), ("英語", "en"), ("", "")])
def test_language_is_known_by_its_names(written: str, kept: str):
    assert read_contact({"language": written}).language == kept


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "Europe/Kiev", "America/New_York", ""])
def test_known_zone_is_kept(zone: str):
    """T7"""
    assert read_contact({"zone": zone}).zone == zone


def test_unknown_zone_is_refused():
    """T7"""
    with pytest.raises(FieldRefused, match="“Asia/Tokio” is not a time zone"):
        read_contact({"zone": "Asia/Tokio"})


@pytest.mark.parametrize(("written", "kind"), [("", "contact"), ("見込み客", "lead"), ("Lead", "lead"), ("法人", "account")])
def test_kind_is_known_by_its_names(written: str, kind: str):
    assert read_contact({"kind": written}).kind is ContactKind(kind)


def test_names_are_kept_in_usual_widths_and_single_spaced():
    contact = read_contact({"last_name": "ｽｽﾞｷ\u3000 ", "first_name": "\u0000花子"})

    assert (contact.last_name, contact.first_name) == ("スズキ", "花子")


def test_attributes_keep_their_types_and_get_names_that_expressions_can_use():
    contact = read_contact(
        {"attributes": {"Renewal date": date(2027, 4, 1), "契約 番号": "0012", "2nd": 3.0, "client": True, "empty": None}}
    )

    assert contact.attributes == {"renewal_date": "2027-04-01", "契約_番号": "0012", "_2nd": 3, "client": True, "empty": None}


@pytest.mark.parametrize("value", [["a"], {"a": 1}, b"a"])
def test_attribute_that_is_no_plain_value_is_refused(value: object):
    with pytest.raises(FieldRefused, match="cannot be kept"):
        read_contact({"attributes": {"a": value}})


def test_unknown_field_is_refused():
    with pytest.raises(FieldRefused, match="partner_id"):
        read_contact({"partner_id": 7})


def test_text_from_a_file_is_converted_to_the_type_that_the_journey_declares():
    values = {"is_client": "false", "renewal_date": "2027-04-01", "score": "1,200", "plan": "A", "late": "soon", "none": None}

    read = typed(values, {"is_client": "bool", "renewal_date": "date", "score": "number", "plan": "text", "late": "date", "none": "bool"})

    assert read == {"is_client": False, "renewal_date": date(2027, 4, 1), "score": 1200, "plan": "A", "late": None, "none": None}


def test_long_values_are_shown_cut_in_messages():
    assert len(message("bad-email", "x" * 500, "en")) < 200


def test_fields_not_given_are_known_as_such():
    assert ContactInput(email="a@example.com").model_fields_set == {"email"}


@pytest.mark.parametrize(
    ("heading", "name"), [("Renewal Date", "renewal_date"), ("プラン", "プラン"), ("!?", "column"), ("A.B-C", "a_b_c")]
)
def test_heading_becomes_a_name(heading: str, name: str):
    assert attribute_name(heading) == name


@pytest.mark.parametrize(
    ("written", "number"),
    [("12,000", 12_000), ("１２万", 120_000), ("12,000円", 12_000), ("¥500", 500), (7, 7), ("many", None), ("nan", None)],
)
def test_a_declared_number_is_read_as_people_write_it(written: object, number: float | None) -> None:
    assert typed({"balance": written}, {"balance": "number"}) == {"balance": number}
