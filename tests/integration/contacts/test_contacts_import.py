"""Imports of contacts: reading files, rejecting lines, and keeping refusals."""

import time
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from sqlmodel import Session, col, func, select

from distmark.contacts import consents, imports
from distmark.contacts.files import MOST_BYTES, read_table
from distmark.contacts.headings import read_headings
from distmark.contacts.imports import BATCH
from distmark.contacts.model import ContactKind, SuppressionReason
from distmark.contacts.table import Consent, Contact
from distmark.db import Database
from distmark.errors import InvalidInput, NotAllowed, NotFound
from distmark.partners.model import Role, Viewer
from distmark.sql import id_of
from tests.factories import make_brand, make_contact, make_partner, make_viewer
from tests.workbooks import workbook

JAPANESE = """姓,名,メールアドレス,携帯,会社,市区町村,言語,誕生日,更新日,Plan
鈴木,花子,Hanako@example.com,090-1234-5678,鈴木商店,名古屋市,日本語,1980/4/1,2027-04-01,A
Smith,John,john@example.com,+1 212 555 0100,,,英語,,,
"""


def _viewer(session: Session) -> Viewer:
    return make_viewer(session, partner=make_partner(session))


def _import(session: Session, viewer: Viewer, content: str | bytes, now: datetime, name: str = "book.csv", **options: Any):
    data = content if isinstance(content, bytes) else content.encode()
    return imports.import_contacts(session, viewer, viewer.partner_id or 0, data, name, now, **options)


def _all(session: Session) -> list[Contact]:
    return list(session.exec(select(Contact).order_by(col(Contact.id))))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp932", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_file_is_read_in_the_encodings_of_spreadsheet_programs(encoding: str, line_end: str, delimiter: str):
    data = JAPANESE.replace("\n", line_end).replace(",", delimiter).encode(encoding)

    headings, rows = read_table(data, "book.csv")

    assert headings[:4] == ["姓", "名", "メールアドレス", "携帯"]
    assert [(number, cells[0]) for number, cells in rows] == [(2, "鈴木"), (3, "Smith")]


def test_columns_become_fields_and_the_rest_attributes(db: Database, now: datetime):
    with db.writing() as session:
        viewer = _viewer(session)

        report = _import(session, viewer, JAPANESE, now)

        hanako, john = _all(session)
        assert (report.created, report.updated, report.unchanged, report.rejected) == (2, 0, 0, [])
        assert (hanako.last_name, hanako.first_name, hanako.email, hanako.email_key) == (
            "鈴木",
            "花子",
            "Hanako@example.com",
            "hanako@example.com",
        )
        assert (hanako.phone, hanako.company, hanako.city, hanako.language) == ("+819012345678", "鈴木商店", "名古屋市", "ja")
        assert (hanako.birthday, hanako.attributes) == (date(1980, 4, 1), {"更新日": "2027-04-01", "plan": "A"})
        assert (john.language, john.phone, john.attributes, john.partner_id) == ("en", "+12125550100", {}, viewer.partner_id)
        assert report.columns["携帯"] == "phone"
        assert report.columns["Plan"] == "attribute:plan"


@pytest.mark.parametrize(
    ("heading", "field"),
    [
        *(("姓", "last_name"), ("Last Name", "last_name"), ("名", "first_name"), ("first_name", "first_name"), ("氏名", "full_name")),
        *(("メール", "email"), ("メールアドレス", "email"), ("E-Mail", "email"), ("Ｅメール", "email"), ("Email Address", "email")),
        *(("電話", "phone"), ("電話番号", "phone"), ("携帯", "phone"), ("携帯電話", "phone"), ("Mobile Phone", "phone"), ("TEL", "phone")),
        *(
            ("会社", "company"),
            ("会社名", "company"),
            ("市区町村", "city"),
            ("言語", "language"),
            ("誕生日", "birthday"),
            ("生年月日", "birthday"),
        ),
        *(
            ("タイムゾーン", "zone"),
            ("種別", "kind"),
            ("メール配信停止", "stopped_email"),
            ("同意", "consent_email"),
            ("Renewal Date", "renewal_date"),
        ),
        *(("メールアドレス（必須）", "email"), ("", "")),
    ],
)
def test_heading_is_known_in_both_languages(heading: str, field: str):
    assert read_headings([heading, "phone"])[0] == field


def test_file_without_addresses_names_the_columns_it_has_and_needs(db: Database, now: datetime):
    with db.writing() as session, pytest.raises(InvalidInput, match=r"it has 姓, 名, 住所, but needs one of メールアドレス \(email\)"):
        _import(session, _viewer(session), "姓,名,住所\n鈴木,花子,東京\n", now)


def test_broken_address_on_line_17_names_line_17_and_the_others_go_in(db: Database, now: datetime):
    lines = ["姓,メール", *(f"鈴木,a{line}@example.com" for line in range(2, 21))]
    lines[16] = "佐藤,これは違う"
    with db.writing() as session:
        report = _import(session, _viewer(session), "\n".join(lines), now)

        (refused,) = report.rejected
        assert (refused.line, refused.field, refused.value) == (17, "email", "これは違う")
        assert "これは違う" in refused.message_en
        assert "「これは違う」はメールアドレスではありません" in refused.message_ja
        assert report.created == len(_all(session)) == 18  # 19 lines of people, one refused


def test_line_numbers_are_those_of_an_editor_after_empty_lines_and_cells_of_several_lines(db: Database, now: datetime):
    content = 'email,memo\na@example.com,"one\ntwo\nthree"\n\n,,\nbroken,x\n'  # lines 2-4, 5, 6, then 7
    with db.writing() as session:
        report = _import(session, _viewer(session), content, now)

        assert [refused.line for refused in report.rejected] == [7]
        assert _all(session)[0].attributes == {"memo": "one\ntwo\nthree"}


@pytest.mark.parametrize(
    ("cells", "field"),
    [
        ("x@y,,,", "email"),
        (",123,,", "phone"),
        ("a@example.com,,1/4/1980,", "birthday"),
        ("a@example.com,,,klingon", "language"),
        (",,,ja", "email"),
    ],
)
def test_each_field_that_is_wrong_is_named(db: Database, now: datetime, cells: str, field: str):
    with db.writing() as session:
        report = _import(session, _viewer(session), f"email,phone,birthday,language\n{cells}\n", now)

        assert [(refused.line, refused.field) for refused in report.rejected] == [(2, field)]
        assert report.rejected[0].message_ja != report.rejected[0].message_en
        assert _all(session) == []


def test_second_line_with_the_same_address_is_refused(db: Database, now: datetime):
    with db.writing() as session:
        report = _import(session, _viewer(session), "email,city\na@example.com,東京\nA@EXAMPLE.com,大阪\n", now)

        assert [(refused.line, refused.value) for refused in report.rejected] == [(3, "A@example.com")]
        assert [contact.city for contact in _all(session)] == ["東京"]


def test_carrier_addresses_go_in_quoted(db: Database, now: datetime):
    with db.writing() as session:
        report = _import(session, _viewer(session), "メール\na..b@docomo.ne.jp\na.@ezweb.ne.jp\na..b@gmail.com\n", now)

        assert [contact.email for contact in _all(session)] == ['"a..b"@docomo.ne.jp', '"a."@ezweb.ne.jp']
        assert [refused.line for refused in report.rejected] == [4]


def test_mobile_phone_wins_and_the_other_fills_in(db: Database, now: datetime):
    with db.writing() as session:
        _import(session, _viewer(session), "メール,携帯,電話\na@example.com,090-1234-5678,03-1234-5678\nb@example.com,,03-1234-5678\n", now)

        assert [contact.phone for contact in _all(session)] == ["+819012345678", "+81312345678"]


@pytest.mark.parametrize(
    ("whole", "last", "first"),
    [
        ("鈴木 花子", "鈴木", "花子"),
        ("鈴木\u3000花子", "鈴木", "花子"),
        ("鈴木", "鈴木", ""),
        ("Hanako Marie Suzuki", "Suzuki", "Hanako Marie"),
        ("José García", "García", "José"),
        ('"Suzuki, Hanako"', "Suzuki", "Hanako"),
        ("鈴木，花子", "鈴木", "花子"),
        ('"Acme, Inc."', "Acme, Inc.", ""),
    ],
)
def test_one_column_with_the_whole_name_is_split(db: Database, now: datetime, whole: str, last: str, first: str):
    with db.writing() as session:
        _import(session, _viewer(session), f"氏名,メール\n{whole},a@example.com\n", now)

        (contact,) = _all(session)
        assert (contact.last_name, contact.first_name) == (last, first)


def test_second_import_of_the_same_file_changes_nothing(db: Database, now: datetime):
    with db.writing() as session:
        viewer = _viewer(session)
        _import(session, viewer, JAPANESE, now)

        report = _import(session, viewer, JAPANESE, now + timedelta(days=1))

        assert (report.created, report.updated, report.unchanged) == (0, 0, 2)
        assert [contact.updated_at for contact in _all(session)] == [now, now]


def test_later_import_updates_filled_cells_and_keeps_empty_ones(db: Database, now: datetime):
    with db.writing() as session:
        viewer = _viewer(session)
        _import(session, viewer, JAPANESE, now)

        report = _import(session, viewer, "メール,市区町村,会社,plan,新\nhanako@EXAMPLE.com,東京都,,B,x\n", now + timedelta(days=1))

        hanako, john = _all(session)
        assert (report.created, report.updated, report.unchanged) == (0, 1, 0)
        assert (hanako.city, hanako.company, hanako.last_name) == ("東京都", "鈴木商店", "鈴木")
        assert hanako.attributes == {"更新日": "2027-04-01", "plan": "B", "新": "x"}
        assert (hanako.updated_at, john.updated_at) == (now + timedelta(days=1), now)


def test_import_never_resubscribes(db: Database, now: datetime):
    """U8"""
    with db.writing() as session:
        viewer = _viewer(session)
        _import(session, viewer, "email,同意\na@example.com,はい\n", now)
        (contact,) = _all(session)
        consents.record_consent(session, id_of(contact), "email", given=False, now=now + timedelta(days=1))
        consents.suppress(session, viewer.brand_id, "email", "a@example.com", SuppressionReason.unsubscribed, now)

        report = _import(session, viewer, "email,同意\na@example.com,はい\n", now + timedelta(days=2), ground="existing_customer")

        assert report.kept_refusals == 1
        assert consents.consent_state(session, [id_of(contact)], "email") == {contact.id: False}
        assert consents.suppressed(session, viewer.brand_id, "email", ["a@example.com"], marketing=True)


def test_contact_that_is_imported_again_is_still_suppressed(db: Database, now: datetime):
    """U8"""
    with db.writing() as session:
        brand = make_brand(session)
        consents.suppress(session, id_of(brand), "email", "a@example.com", SuppressionReason.erased, now)

        _import(session, make_viewer(session, partner=make_partner(session, brand)), "email,同意\nA@example.com,はい\n", now)

        assert consents.suppressed(session, id_of(brand), "email", [_all(session)[0].email or ""], marketing=True)


def test_file_can_hold_consents_and_refusals(db: Database, now: datetime):
    """U9"""
    lines = (
        "email,同意,配信停止,SMS同意,携帯",
        "a@example.com,はい",
        "b@example.com,いいえ",
        "c@example.com,はい,○",
        "d@example.com,,,yes,090-1234-5678",
    )
    content = "\n".join(lines)
    with db.writing() as session:
        _import(session, _viewer(session), content, now)

        ids = {contact.email: id_of(contact) for contact in _all(session)}
        mail, sms = consents.consent_state(session, ids.values(), "email"), consents.consent_state(session, ids.values(), "sms")
        assert [mail[ids[f"{name}@example.com"]] for name in "abcd"] == [True, False, False, None]
        assert sms[ids["d@example.com"]] is True
        row = session.exec(select(Consent).where(Consent.contact_id == ids["a@example.com"])).one()
        assert (row.source, row.at, row.ground) == ("import book.csv", now, "opt_in")


def test_unclear_consent_is_refused_rather_than_guessed(db: Database, now: datetime):
    with db.writing() as session:
        report = _import(session, _viewer(session), "email,同意\na@example.com,たぶん\n", now)

        assert [(refused.line, refused.value) for refused in report.rejected] == [(2, "たぶん")]


def test_ground_covers_every_contact_without_consent_or_refusal(db: Database, now: datetime):
    with db.writing() as session:
        viewer = _viewer(session)

        _import(session, viewer, "email,同意\na@example.com,\nb@example.com,いいえ\n", now, ground="business_card")
        _import(session, viewer, "email,同意\na@example.com,\nb@example.com,\n", now, ground="business_card")

        rows = session.exec(select(Consent).order_by(col(Consent.id))).all()
        assert [(row.given, row.ground) for row in rows] == [(True, "business_card"), (False, "business_card")]
        with pytest.raises(InvalidInput, match="'because'"):
            _import(session, viewer, "email\n", now, ground="because")


def test_dry_run_reports_the_same_and_writes_nothing(db: Database, now: datetime):
    with db.writing() as session:
        viewer = _viewer(session)
        _import(session, viewer, "email,city\na@example.com,東京\nb@example.com,東京\n", now)
    second = "email,city,同意\na@example.com,大阪,はい\nb@example.com,東京,\nc@example.com,京都,はい\nbroken,,\n"
    with db.writing() as session:
        planned = _import(session, viewer, second, now, dry_run=True)
    with db.writing() as session:
        assert [contact.city for contact in _all(session)] == ["東京", "東京"]
        assert session.exec(select(func.count(col(Consent.id)))).one() == 0

        done = _import(session, viewer, second, now)

    assert planned == done
    assert (done.created, done.updated, done.unchanged, len(done.rejected)) == (1, 1, 1, 1)


def test_phone_is_what_a_contact_without_mail_is_found_by(db: Database, now: datetime):
    with db.writing() as session:
        viewer = _viewer(session)
        for city in ("東京", "大阪"):
            _import(session, viewer, f"姓,携帯,市区町村\n鈴木,090-1234-5678,{city}\n", now)

        assert [contact.city for contact in _all(session)] == ["大阪"]


def test_family_that_shares_a_phone_is_not_made_one_person(db: Database, now: datetime):
    with db.writing() as session:
        partner = make_partner(session)
        hanako = make_contact(session, partner, email="hanako@example.com", phone="+819012345678")

        report = _import(session, make_viewer(session, partner=partner), "姓,名,携帯\n鈴木,太郎,090-1234-5678\n", now)

        assert report.created == 1
        assert hanako.first_name == "花子"


def test_same_address_in_another_book_is_another_contact(db: Database, now: datetime):
    with db.writing() as session:
        brand = make_brand(session)
        other_contact = make_contact(session, make_partner(session, brand), email="a@example.com", city="京都")

        report = _import(session, make_viewer(session, partner=make_partner(session, brand)), "email,city\na@example.com,東京\n", now)

        assert report.created == 1
        assert other_contact.city == "京都"


@pytest.mark.parametrize(
    ("data", "name", "reason"),
    [
        (b"", "book.csv", "is empty"),
        (b"\n\n", "book.csv", "is empty"),
        (b"email\na@example.com\n\x81\xff\xfe", "book.csv", r"neither UTF-8 nor Shift_JIS \(line 3\)"),
        (b"\x89PNG\r\n\x00\x00", "book.csv", "is not text"),
        ("姓,email\n鈴木,a@example.com\n佐藤,".encode() + b"\xe3\x81\n", "book.csv", r"neither UTF-8 nor Shift_JIS \(line 3\)"),
        (b'email,a\n"a@example.com"x,b\n', "book.csv", "from line 2"),
        (b'email\n"a@example.com\n', "book.csv", "from line 2"),
        (b"not a zip", "book.xlsx", "not a spreadsheet"),
        (b"PK\x03\x04 broken", "book.xlsx", "not a spreadsheet"),
        (b"x" * (MOST_BYTES + 1), "book.csv", "so split it"),
        (b"a," * 300 + b"email\n", "book.csv", "301 columns"),
    ],
)
def test_file_that_cannot_be_read_is_refused_with_the_reason(data: bytes, name: str, reason: str):
    with pytest.raises(InvalidInput, match=reason):
        read_headings(read_table(data, name)[0])


def test_spreadsheet_is_read_with_its_types_and_line_numbers(db: Database, now: datetime):
    rows = [
        ["姓", "メール", "電話", "誕生日", "会員"],
        ["鈴木", "a@example.com", 9012345678, ("date", 29312), ("bool", 1)],  # 29312 days after 30 December 1899: 1 April 1980
        [],
        ["佐藤", "broken", "", "", ""],
    ]
    with db.writing() as session:
        report = _import(session, _viewer(session), workbook(rows), now, name="book.XLSX")

        (contact,) = _all(session)
        assert (contact.phone, contact.birthday, contact.attributes) == ("+819012345678", date(1980, 4, 1), {"会員": True})
        assert [refused.line for refused in report.rejected] == [4]


def test_formula_in_a_cell_is_kept_as_text(db: Database, now: datetime):
    with db.writing() as session:
        _import(session, _viewer(session), "email,memo\na@example.com,=1+1\n", now)

        assert _all(session)[0].attributes == {"memo": "=1+1"}


def test_five_thousand_lines_are_imported_within_seconds_with_progress(db: Database, now: datetime):
    lines = "\n".join(f"鈴木,花子{n},hanako{n}@example.com,090-{n:04d}-{n:04d},名古屋市,はい,{n}" for n in range(5000))
    content = f"姓,名,メール,携帯,市区町村,同意,会員番号\n{lines}\n"
    seen: list[tuple[int, int]] = []
    with db.writing() as session:
        viewer = _viewer(session)
        begun = time.perf_counter()

        report = _import(session, viewer, content, now, progress=lambda done, of: seen.append((done, of)))

        seconds = time.perf_counter() - begun
        assert report.created + len(report.rejected) == 5000
        assert session.exec(select(func.count(col(Contact.id)))).one() == report.created
        assert seen == sorted(seen)
        assert seen[-1] == (5000, 5000)
        assert len(seen) >= 5000 // BATCH - 1
        assert seconds < 30  # about 3 on an idle core


def test_marketer_does_not_import(db: Database, now: datetime):
    with db.writing() as session:
        partner = make_partner(session)

        with pytest.raises(NotAllowed):
            imports.import_contacts(session, make_viewer(session, Role.marketer), id_of(partner), b"email\n", "a.csv", now)


def test_partner_does_not_import_into_another_book(db: Database, now: datetime):
    with db.writing() as session:
        viewer, other = _viewer(session), make_partner(session)

        with pytest.raises(NotFound):
            imports.import_contacts(session, viewer, id_of(other), b"email\na@example.com", "a.csv", now)


def test_kind_of_record_is_read(db: Database, now: datetime):
    with db.writing() as session:
        _import(session, _viewer(session), "email,種別\na@example.com,見込み客\n", now)

        assert _all(session)[0].kind is ContactKind.lead


def test_phone_that_cannot_be_read_is_left_out_of_a_line_with_a_mail_address(db: Database, now: datetime):
    lines = "a@example.com,03-1234-5678 内線12\nb@example.com,なし\nc@example.com,03-12 か 090-34\n"
    with db.writing() as session:
        report = _import(session, _viewer(session), f"メール,電話\n{lines}", now)

        assert [contact.phone for contact in _all(session)] == ["+81312345678", None, None]
        assert report.rejected == []
        assert [(cell.line, cell.field, cell.value) for cell in report.omitted] == [(4, "phone", "03-12 か 090-34")]
        assert "電話番号ではありません" in report.omitted[0].message_ja


def test_line_with_more_cells_than_headings_is_refused_with_the_reason(db: Database, now: datetime):
    with db.writing() as session:
        report = _import(
            session, _viewer(session), "Email,Last name,City\na@example.com,Suzuki, Hanako,Tokyo\nb@example.com,Ito,Osaka,,\n", now
        )

        assert [(refused.line, refused.value) for refused in report.rejected] == [(2, "4")]
        assert "quotation marks" in report.rejected[0].message_en
        assert [contact.last_name for contact in _all(session)] == ["Ito"]


def test_cells_of_a_spreadsheet_without_heading_are_notes(db: Database, now: datetime):
    with db.writing() as session:
        report = _import(
            session, _viewer(session), workbook([["email", "市"], ["a@example.com", "津", "あとで電話"]]), now, name="book.xlsx"
        )

        assert report.rejected == []
        assert [(contact.city, contact.attributes) for contact in _all(session)] == [("津", {})]


@pytest.mark.parametrize("empty", ["#N/A", "NULL", "#REF!", "#DIV/0!", "-", "ー", "n/a", "(null)", " "])
def test_cell_that_says_nothing_is_nothing(db: Database, now: datetime, empty: str):
    with db.writing() as session:
        _import(
            session,
            _viewer(session),
            f"Email,Last name,City,電話,誕生日,plan\na@example.com,{empty},{empty},{empty},{empty},{empty}\n",
            now,
        )

        (contact,) = _all(session)
        assert (contact.last_name, contact.city, contact.phone, contact.birthday, contact.attributes) == ("", "", None, None, {})


def test_name_that_looks_like_an_empty_value_stays_a_name(db: Database, now: datetime):
    with db.writing() as session:
        _import(session, _viewer(session), "Email,Last name,First name\na@example.com,Null,Nan\n", now)

        assert [(contact.last_name, contact.first_name) for contact in _all(session)] == [("Null", "Nan")]


def test_value_that_is_no_kind_and_no_zone_stays_an_own_attribute(db: Database, now: datetime):
    with db.writing() as session:
        report = _import(
            session, _viewer(session), "メール,種別,時間帯\na@example.com,VIP,午前中\nb@example.com,見込み客,Asia/Tokyo\n", now
        )

        vip, lead = _all(session)
        assert report.rejected == []
        assert (vip.kind, vip.zone, vip.attributes) == (ContactKind.contact, "", {"種別": "VIP", "時間帯": "午前中"})
        assert (lead.kind, lead.zone, lead.attributes) == (ContactKind.lead, "Asia/Tokyo", {})


def test_separator_that_the_first_line_declares_is_used_and_lines_keep_their_numbers(db: Database, now: datetime):
    with db.writing() as session:
        report = _import(session, _viewer(session), "sep=;\r\nEmail;Last name, first\r\na@example.com;Suzuki\r\nbroken;x\r\n", now)

        assert (report.created, [refused.line for refused in report.rejected]) == (1, [4])


def test_mobile_phone_of_an_address_book_wins_over_other_phones(db: Database, now: datetime):
    headings = "姓,名,会社電話,自宅電話,携帯電話,電子メール アドレス,電子メール 2 アドレス,電子メールの種類"
    content = f"{headings}\n鈴木,花子,03-1234-5678,,090-1234-5678,a@example.com,b@example.com,SMTP\n"
    with db.writing() as session:
        _import(session, _viewer(session), content.encode("cp932"), now)

        (contact,) = _all(session)
        assert (contact.email, contact.phone) == ("a@example.com", "+819012345678")


def test_several_addresses_in_one_cell_of_google_are_the_first(db: Database, now: datetime):
    with db.writing() as session:
        _import(session, _viewer(session), "Given Name,E-mail 1 - Value,Birthday\nHana,a@example.com ::: b@example.com,--04-01\n", now)

        assert [(contact.email, contact.birthday) for contact in _all(session)] == [("a@example.com", None)]


def test_kanji_with_a_form_of_their_own_stay_as_they_are_written(db: Database, now: datetime):
    with db.writing() as session:
        _import(session, _viewer(session), "姓,名,メール\n髙塚,﨑神,a@example.com\n".encode(), now)

        assert [(contact.last_name, contact.first_name) for contact in _all(session)] == [("髙塚", "﨑神")]


def test_character_of_one_computer_is_left_out_and_named(db: Database, now: datetime):
    with db.writing() as session:
        report = _import(session, _viewer(session), "姓,メール\n渡\ue000部,a@example.com\n", now)

        assert [contact.last_name for contact in _all(session)] == ["渡部"]
        assert [(cell.line, cell.field) for cell in report.omitted] == [(2, "last_name")]
