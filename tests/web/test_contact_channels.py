"""Grounds and channels on the pages: a ground counts for the channels that were chosen, and refusals of a file are shown and recorded."""

import pytest
from sqlmodel import col, select

from distmark.contacts.table import Consent, Contact
from tests.web.conftest import PartnerPair
from tests.workbooks import sparse_workbook, workbook

NEW = {"last_name": "新井", "first_name": "翼", "email": "arai@example.jp", "phone": "090-1234-5678"}


def given(pair: PartnerPair, email: str = "arai@example.jp") -> list[tuple[str, bool, str]]:
    with pair.db.reading() as session:
        rows = select(Consent).join(Contact, col(Contact.id) == col(Consent.contact_id)).where(Contact.email == email)
        return [(row.channel, row.given, row.ground) for row in session.exec(rows.order_by(col(Consent.id)))]


def uploaded(client, data: bytes, name: str, **fields: object):
    answer = client.post("/contacts/import", data=fields, files={"file": (name, data)})
    return client.get(answer.headers["location"]) if answer.status_code == 303 else answer


@pytest.mark.parametrize(
    ("channels", "consents"),
    [
        ([], [("email", True, "opt_in")]),
        (["email"], [("email", True, "opt_in")]),
        (["sms"], [("sms", True, "opt_in")]),
        (["email", "sms"], [("email", True, "opt_in"), ("sms", True, "opt_in")]),
    ],
)
def test_agreement_counts_for_the_channels_that_were_chosen(pair: PartnerPair, channels: list[str], consents: list[tuple[str, bool, str]]):
    pair.as_().post("/contacts/new", data=NEW | {"ground": "opt_in", "channel": channels})

    assert given(pair) == consents


def test_business_card_is_no_ground_for_a_text_message(pair: PartnerPair):
    answer = pair.as_().post("/contacts/new", data=NEW | {"ground": "business_card", "channel": ["email", "sms"]})

    assert answer.status_code == 422
    assert "本人の同意が必要です" in answer.text
    assert 'value="sms" checked' in answer.text
    assert given(pair) == []


def test_contact_without_an_address_for_the_chosen_channel_is_not_recorded_as_agreeing(pair: PartnerPair):
    answer = pair.as_().post("/contacts/new", data=NEW | {"email": "", "ground": "opt_in", "channel": ["email"]})

    assert answer.status_code == 422
    assert "選んだ方法の宛先がありません" in answer.text


def test_import_shows_refusals_and_cells_left_out_and_keeps_the_chosen_channels(pair: PartnerPair):
    client = pair.as_()
    data = "姓,メール,携帯,配信拒否\n新井,arai@example.jp,090-1234-5678,\n岡,oka@example.jp,03-12,○\n".encode()

    page = uploaded(client, data, "people.csv", ground="opt_in", channel=["email", "sms"]).text
    client.post("/contacts/import", data={"upload": page.partition('name="upload" value="')[2].partition('"')[0]})

    assert "1人の配信拒否を記録します" in page
    assert "「03-12」は電話番号ではありません" in page
    assert given(pair) == [("email", True, "opt_in"), ("sms", True, "opt_in")]
    assert given(pair, "oka@example.jp") == [("email", False, "opt_in"), ("sms", False, "opt_in")]


def test_import_on_a_ground_that_does_not_cover_the_channel_is_refused_in_words(pair: PartnerPair):
    answer = uploaded(pair.as_(), "メール\na@example.jp\n".encode(), "people.csv", ground="business_card", channel=["sms"])

    assert answer.status_code == 422
    assert "本人の同意が必要です" in answer.text


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (sparse_workbook({1: {"A": "email"}, 1_048_576: {"XFD": "x"}}), "people.xlsx", "大きすぎて読めません"),
        (b"email" + b"," * 1_000_000, "people.csv", "列あります"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\xff" * 5000, "people.xls", "表として読めません"),
    ],
)
def test_hostile_file_is_refused_in_words_and_the_site_goes_on(pair: PartnerPair, data: bytes, name: str, words: str):
    client = pair.as_()

    answer = uploaded(client, data, name)

    assert answer.status_code == 422
    assert words in answer.text
    assert "1人" in uploaded(client, workbook([["メール"], ["a@example.jp"]]), "people.xlsx").text
