"""Refusals in files: in whatever words and column, and whatever else is wrong with the line; and the channels that a ground covers."""

# ruff: noqa: E501  (a row of a table stays on its line)

from datetime import datetime
from typing import Any

import pytest
from sqlmodel import Session, col, select

from distmark.contacts import consents, imports
from distmark.contacts.model import SuppressionReason
from distmark.contacts.table import Consent, Contact
from distmark.db import Database
from distmark.errors import InvalidInput
from distmark.partners.model import Viewer
from distmark.sql import id_of
from tests.factories import make_contact, make_partner, make_viewer


def _import(session: Session, viewer: Viewer, content: str, now: datetime, **options: Any):
    options.setdefault("ground", "existing_customer")
    return imports.import_contacts(session, viewer, viewer.partner_id or 0, content.encode(), "book.csv", now, **options)


def _viewer(session: Session) -> Viewer:
    return make_viewer(session, partner=make_partner(session))


def _state(session: Session, channel: str = "email") -> dict[str | None, bool | None]:
    contacts = list(session.exec(select(Contact).order_by(col(Contact.id))))
    state = consents.consent_state(session, [id_of(contact) for contact in contacts], channel)
    return {contact.email or contact.phone: state[id_of(contact)] for contact in contacts}


@pytest.mark.parametrize(
    ("heading", "cell"),
    [
        *(("HasOptedOutOfEmail", "true"), ("HasOptedOutOfEmail", "1"), ("Email Opt Out", "TRUE"), ("Do Not Contact", "yes")),
        *(("Unsubscribed from all email", "true"), ("Opted out of email: Marketing Information", "Yes"), ("Marketing emails bounced", "2")),
        *(("UNSUB_TIME", "2025-01-01 00:00:00"), ("UNSUB_REASON", "N (No reason given)"), ("CLEAN_TIME", "2025-01-01 00:00:00")),
        *(("Status", "unsubscribed"), ("Status", "Cleaned"), ("Status", "bounced"), ("Email Status", "Hard Bounce"), ("state", "opted-out")),
        *(("Email Marketing Consent", "UNSUBSCRIBED"), ("Accepts Email Marketing", "no"), ("Newsletter", "off"), ("Subscribed", "FALSE")),
        *(("Do not allow Emails", "Do Not Allow"), ("Suppressed", "x"), ("No email", "✓"), ("unsubscribed_at", "2025/1/1")),
        *(("配信拒否", "○"), ("配信停止", "停止"), ("配信停止日", "2025/1/1"), ("メール配信停止", "希望する"), ("メルマガ", "停止"), ("メルマガ", "不要")),
        *(("DM不可", "1"), ("DM", "不可"), ("ＤＭ送付", "拒否"), ("メール配信", "×"), ("メール配信可否", "否"), ("受信拒否フラグ", "レ"), ("配信不要", "●")),
        *(("オプトアウト", "2024/12/1"), ("配信ステータス", "停止中"), ("メールステータス", "不達"), ("ステータス", "配信停止"), ("案内不要", "はい")),
        *(("備考", "DM不要"), ("備考", "メール配信は不要とのこと"), ("メモ", "メルマガ停止希望 1/10"), ("区分", "配信停止"), ("同意", "しない")),
    ],
)  # fmt: skip
def test_refusal_in_the_words_of_another_system_stays_a_refusal(db: Database, now: datetime, heading: str, cell: str):
    with db.writing() as session:
        report = _import(session, _viewer(session), f"Email,{heading}\na@example.com,{cell}\n", now)

        assert _state(session).get("a@example.com") is not True
        if _state(session):
            assert report.refusals == 1


@pytest.mark.parametrize(
    ("heading", "cell"),
    [
        *(("HasOptedOutOfEmail", "false"), ("HasOptedOutOfEmail", "0"), ("UNSUB_TIME", ""), ("UNSUB_TIME", "0000-00-00 00:00:00")),
        *(
            ("Status", "subscribed"),
            ("Status", "active"),
            ("Status", "停止"),
            ("配信停止", "いいえ"),
            ("配信拒否", "なし"),
            ("配信停止", "-"),
        ),
        *(
            ("メルマガ", "希望"),
            ("DM不可", "0"),
            ("Marketing emails bounced", "0"),
            ("HasOptedOutOfFax", "true"),
            ("Do not allow Emails", "Allow"),
        ),
        *(("unsubscribe_url", "https://example.com/u/1"), ("OPTIN_TIME", "2024-01-01"), ("備考", "メールで連絡"), ("plan", "停止")),
        *(("連絡不可時間帯", "午前中"), ("配信", "配信中"), ("備考", "ご案内済み")),
    ],
)
def test_contact_that_did_not_refuse_gets_the_ground(db: Database, now: datetime, heading: str, cell: str):
    with db.writing() as session:
        report = _import(session, _viewer(session), f"Email,{heading}\na@example.com,{cell}\n", now)

        assert (_state(session), report.refusals) == ({"a@example.com": True}, 0)


@pytest.mark.parametrize(
    ("heading", "yes", "no"),
    [
        *(("Email Marketing Status", "SUBSCRIBED", "NEVER_SUBSCRIBED"), ("Email Permission Status", "Express", "Unsubscribed")),
        *(("Opt-Out Date", "", "2024-01-01"), ("Global Unsubscribe", "FALSE", "TRUE"), ("Do not email", "", "X"), ("Blocked", "", "yes")),
        *(
            ("Consent to marketing", "Yes", "No"),
            ("Can we email you?", "Yes", "No"),
            ("Mail OK", "Yes", "No"),
            ("GDPR", "yes", "withdrawn"),
        ),
        *(("opt_in", "1", "0"), ("email_opt_in_status", "opted_in", "opted_out"), ("Contact Status", "Active", "Do Not Contact")),
        *(
            ("メール配信フラグ", "1", "0"),
            ("メール受信", "受け取る", "受け取らない"),
            ("メルマガ配信", "する", "しない"),
            ("配信区分", "配信", "停止"),
        ),
        *(
            ("ご案内メール", "可", "不可"),
            ("DMお断り", "", "✓"),
            ("メール送信", "OK", "NG"),
            ("メール配信希望", "有", "無"),
            ("案内メール不要", "", "不要"),
        ),
        *(
            ("お知らせメール希望有無", "希望する", "希望しない"),
            ("DM停止依頼日", "", "令和5年3月1日"),
            ("受信可否", "可", "否"),
            ("許諾", "有", "無"),
        ),
        *(("パーミッション", "○", "×"), ("送付可否", "○", "×"), ("拒否", "", "1"), ("不要", "", "1"), ("退会日", "", "2024/3/1")),
        *(("タグ", "優良", "優良/配信停止"), ("Tags", "vip", '"vip, unsubscribed"'), ("Notes", "hi", "Please do not email")),
        *(
            ("備考", "良い客", "メールは送らないでください"),
            ("備考", "良い客", "配信停止済み（2024/3）"),
            ("メモ", "よく連絡する", "DM不要"),
        ),
    ],
)
def test_column_that_asks_whether_messages_are_wanted_is_heeded(db: Database, now: datetime, heading: str, yes: str, no: str):
    with db.writing() as session:
        report = _import(session, _viewer(session), f"Email,{heading}\na@example.com,{yes}\nb@example.com,{no}\n", now)

        assert (_state(session), report.rejected) == ({"a@example.com": True, "b@example.com": False}, [])


@pytest.mark.parametrize(
    ("heading", "cells"),
    [
        *(
            ("Marketing emails opened", ("0", "0")),
            ("Number of emails", ("0", "1")),
            ("メール送信回数", ("0", "3")),
            ("配信数", ("0", "0")),
        ),
        *(("会員区分", ("停止", "解除")), ("Email Domain", ("example.com", "x.example")), ("配信日", ("2024/1/1", "2024/2/1"))),
        *(("年賀状", ("×", "○")), ("子ども", ("なし", "あり")), ("車", ("no", "yes"))),
    ],
)
def test_column_of_something_else_refuses_nothing(db: Database, now: datetime, heading: str, cells: tuple[str, str]):
    with db.writing() as session:
        report = _import(session, _viewer(session), f"Email,{heading}\na@example.com,{cells[0]}\nb@example.com,{cells[1]}\n", now)

        assert (set(_state(session).values()), report.refusals) == ({True}, 0)


def test_no_ground_covers_a_contact_whose_cell_says_neither_yes_nor_no(db: Database, now: datetime):
    content = "Email,メルマガ\na@example.com,希望\nb@example.com,要確認\nc@example.com,不要\nd@example.com,\n"
    with db.writing() as session:
        _import(session, _viewer(session), content, now)

        assert list(_state(session).values()) == [True, None, False, True]


@pytest.mark.parametrize(("cells", "refuses"), [(("×", "○"), (False, True)), (("×", ""), (True, False)), (("x", "1"), (False, True))])
def test_cross_among_circles_is_a_no_and_among_blanks_a_mark(
    db: Database, now: datetime, cells: tuple[str, str], refuses: tuple[bool, bool]
):
    with db.writing() as session:
        _import(session, _viewer(session), f"Email,配信拒否\na@example.com,{cells[0]}\nb@example.com,{cells[1]}\n", now)

        assert list(_state(session).values()) == [not refused for refused in refuses]


@pytest.mark.parametrize(
    "line",
    [
        "new@example.com,1/4/1980,,,yes",
        "new@example.com,,03-12,,yes",
        f"new@example.com,,,{'x' * 3000},yes",
        "new@example.com,,,,yes,too,many",
        "new@example.com,2027-13-45,,,○",
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_refusal_beside_a_bad_cell_is_recorded_with_what_can_be_read(db: Database, now: datetime, line: str, known: bool):
    with db.writing() as session:
        viewer = _viewer(session)
        if known:
            make_contact(session, _partner(session, viewer), email="new@example.com")

        report = _import(session, viewer, f"Email,Birthday,Phone,Memo,Unsubscribed\n{line}\nother@example.com,,,,\n", now)
        _import(session, viewer, "Email\nnew@example.com\n", now)

        assert _state(session)["new@example.com"] is False
        assert _state(session)["other@example.com"] is True
        assert report.refusals == 1


def _partner(session: Session, viewer: Viewer):
    from distmark.partners.table import Partner

    return session.get_one(Partner, viewer.partner_id)


def test_refusal_on_any_line_of_an_address_holds_for_all_of_them(db: Database, now: datetime):
    lines = ("a@example.com,", "A@EXAMPLE.com,yes", "b@example.com,yes", "b@example.com,no", "＜c@example.com＞,", "mailto:C@example.com,○")
    content = "\n".join(("Email,Unsubscribed", *lines))
    with db.writing() as session:
        report = _import(session, _viewer(session), content, now)

        assert _state(session) == {"a@example.com": False, "b@example.com": False, "c@example.com": False}
        assert (report.refusals, [line.line for line in report.rejected]) == (3, [3, 5, 7])


def test_refusal_of_calls_stops_text_messages_to_everybody_with_that_phone(db: Database, now: datetime):
    content = "Email,Phone,DoNotCall\na@example.com,090-1234-5678,\nb@example.com,,\n,+81 90 1234 5678,true\n"
    with db.writing() as session:
        viewer = _viewer(session)
        family = make_contact(session, _partner(session, viewer), email="family@example.com", phone="+819012345678")
        consents.record_consent(session, id_of(family), "sms", given=True, now=now)

        _import(session, viewer, content, now, ground="opt_in", channels=("email", "sms"))

        sms = _state(session, "sms")
        assert (sms["a@example.com"], sms["family@example.com"], sms["b@example.com"]) == (False, False, None)
        assert _state(session)["a@example.com"] is True


def test_second_import_of_a_refusal_records_nothing_new(db: Database, now: datetime):
    with db.writing() as session:
        viewer = _viewer(session)
        first = _import(session, viewer, "Email,Unsubscribed\na@example.com,yes\n", now)

        second = _import(session, viewer, "Email,Unsubscribed\na@example.com,yes\n", now)

        assert (first.refusals, second.refusals) == (1, 0)


def test_dry_run_counts_the_refusals_that_it_would_record(db: Database, now: datetime):
    with db.writing() as session:
        viewer = _viewer(session)
        content = "Email,Unsubscribed,Birthday\na@example.com,yes,1/4/1980\nb@example.com,,\n"
        planned = _import(session, viewer, content, now, dry_run=True)

        assert planned == _import(session, viewer, content, now)
        assert (planned.refusals, [cell.field for cell in planned.omitted]) == (1, ["birthday"])


def test_no_ground_is_recorded_for_a_suppressed_address(db: Database, now: datetime):
    with db.writing() as session:
        viewer = _viewer(session)
        consents.suppress(session, viewer.brand_id, "email", "a@example.com", SuppressionReason.unsubscribed, now)

        _import(session, viewer, "Email\nA@example.com\nb@example.com\n", now)

        assert _state(session) == {"A@example.com": None, "b@example.com": True}


def test_ground_counts_for_the_channels_that_were_chosen(db: Database, now: datetime):
    content = "Email,携帯\na@example.com,090-1234-5678\n"
    with db.writing() as session:
        viewer = _viewer(session)
        _import(session, viewer, content, now, ground="business_card")
        assert (_state(session), _state(session, "sms")) == ({"a@example.com": True}, {"a@example.com": None})

        _import(session, viewer, content, now, ground="opt_in", channels=("sms",))
        assert _state(session, "sms") == {"a@example.com": True}


@pytest.mark.parametrize("ground", ["business_card", "existing_customer", "published_address"])
def test_only_an_agreement_covers_text_messages(db: Database, now: datetime, ground: str):
    with db.writing() as session:
        viewer = _viewer(session)
        contact = make_contact(session, _partner(session, viewer), phone="+819012345678")

        with pytest.raises(InvalidInput, match="does not cover sms"):
            _import(session, viewer, "携帯\n090-1234-5678\n", now, ground=ground, channels=("email", "sms"))
        with pytest.raises(InvalidInput, match="does not cover sms"):
            consents.record_consent(session, id_of(contact), "sms", given=True, now=now, ground=ground)

        consents.record_consent(session, id_of(contact), "sms", given=False, now=now, ground=ground)
        assert list(_state(session, "sms").values()) == [False]


def test_yes_in_the_file_is_an_agreement_whatever_the_ground_for_the_others(db: Database, now: datetime):
    with db.writing() as session:
        _import(session, _viewer(session), "Email,携帯,SMS同意\na@example.com,090-1234-5678,はい\n", now, ground="business_card")

        rows = session.exec(select(Consent).order_by(col(Consent.id))).all()
        assert [(row.channel, row.ground) for row in rows] == [("email", "business_card"), ("sms", "opt_in")]
