"""The reasons of held sends and retries, in words."""

from zoneinfo import ZoneInfo

import pytest

from distmark.delivery.send_rate_spacing import RateScope, throttle_rule
from distmark.enrollments.table import Enrollment
from distmark.journeys.definition import parse
from distmark.journeys.field_types import PERIODS
from distmark.journeys.program import build_program
from distmark.journeys.source import Source
from distmark.web.i18n import Translator
from distmark.web.status_text import end_reason, retry_text, rule_text, waiting_text
from tests.factories import make_source

JA, EN = Translator("ja", ZoneInfo("Asia/Tokyo")), Translator("en", ZoneInfo("Asia/Tokyo"))


@pytest.mark.parametrize(
    ("rule", "en", "ja"),
    [
        ("cap_hour:2", "enough messages for one hour (at most 2)", "1時間の上限（2通）に達しています"),
        ("cap_month:9", "enough messages for one month (at most 9)", "1か月の上限（9通）に達しています"),
        ("priority:vip", "a message of the more important journey “vip” goes first", "優先度の高いジャーニー「vip」の送信が先です"),
        ("waits_longer:vip", "a message of the journey “vip” has waited longer", "先に待っているジャーニー「vip」の送信が先です"),
        (
            "throttle:destination_domain:docomo.ne.jp",
            "messages to docomo.ne.jp go out one after the other",
            "docomo.ne.jp への送信は間隔をあけて順番に行います",
        ),
        ("quiet_hours:21:00-08:00", "quiet hours 21:00-08:00", "送信しない時間帯 21:00-08:00"),
    ],
)
def test_rule_that_holds_a_send_reads_as_a_sentence(rule: str, en: str, ja: str):
    assert (rule_text(rule, EN), rule_text(rule, JA)) == (en, ja)


@pytest.mark.parametrize(
    ("code", "en", "ja"),
    [
        ("421", "the mail server asked to try again later", "メールサーバーから後で送るよう求められました"),
        ("no_answer", "nobody answered, and it is tried again", "応答がなかったため、再試行します"),
        ("no_connection", "no connection could be made, and it is tried again", "接続できなかったため、再試行します"),
        (
            "timeout",
            "the other system did not answer in time and is asked again",
            "連携先のシステムが時間内に応答しなかったため、再試行します",
        ),
        (
            "status_503",
            "the other system answered with error 503 and is asked again",
            "連携先のシステムがエラー 503 を返したため、再試行します",
        ),
    ],
)
def test_reason_of_another_try_names_who_did_not_answer(code: str, en: str, ja: str):
    assert (retry_text(code, EN), retry_text(code, JA)) == (en, ja)


@pytest.mark.parametrize("language", ["ja", "en"])
def test_every_rule_of_sending_has_words_of_its_own(language: str):
    translator = Translator(language, ZoneInfo("Asia/Tokyo"))
    rules = [f"cap_{period}:3" for period in PERIODS] + [throttle_rule(scope, "x.jp") for scope in RateScope]
    rules += ["throttle", "priority:vip", "waits_longer:vip", "not_approved"]

    texts = [rule_text(rule, translator) for rule in rules]

    assert len(set(texts)) == len(rules)
    assert not [words for rule, words in zip(rules, texts, strict=True) if rule in words or "%(" in words]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (["status_503"], "because: the other system answered with error 503 and is asked again"),
        ([], "because: an error came up, and it is tried again"),
    ],
)
def test_enrollment_that_tries_a_webhook_again_blames_no_mail_server(rules: list[str], expected: str):
    row = Enrollment(why="retry", rules=rules, step_id="call")

    assert waiting_text(row, EN) == expected


@pytest.mark.parametrize(
    ("reason", "en", "ja"),
    [
        (
            "renewal_date holds “4月ごろ”, which is no date",
            "renewal_date holds “4月ごろ”, which is no date",
            "renewal_date の値「4月ごろ」は日付ではありません",
        ),
        ("contact.renewal_date is missing", "renewal_date is missing", "renewal_date がありません"),
        ("他社に決めた", "他社に決めた", "他社に決めた"),
    ],
)
def test_reason_of_an_end_reads_as_a_sentence_and_a_person_s_own_stays(reason: str, en: str, ja: str):
    assert (end_reason(reason, EN), end_reason(reason, JA)) == (en, ja)


@pytest.mark.parametrize("stored", ["面談を予約", "Booked a meeting"])
def test_reason_of_the_journey_is_told_in_the_readers_language_whatever_language_was_kept(stored: str):
    rule = 'exit: [{when: "contact.city", reason: {ja: 面談を予約, en: Booked a meeting}}]\nlinks:'
    source = make_source("trial", "mirai-securities")
    program = build_program(parse(Source(source.definition.replace("links:", rule, 1), source.templates)))

    assert [end_reason(stored, words, program) for words in (JA, EN)] == ["面談を予約", "Booked a meeting"]
    assert end_reason("asked by phone", EN, program) == "asked by phone"
