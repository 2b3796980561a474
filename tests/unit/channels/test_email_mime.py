"""The bytes of a message: exact headers, short lines, and every text back as it was written."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import default
from email.utils import parseaddr
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from distmark.channels.base import OutgoingMessage
from distmark.channels.email.mime import address, build, make_message_id
from distmark.errors import InvalidInput
from tests.depth import examples

LONG_URL = "https://mail.brand.example/u/" + "A1b2C3d4" * 20  # 189 characters, past the 78 at which the standard library encodes
LONG_SUBJECT = "【重要】個人退職年金のご案内：これからの暮らしに備える三つの選択肢と、あなたの担当者 山田太郎 からのお知らせ（第2回）" * 3

MESSAGE = OutgoingMessage(
    message_id="<abc123@mail.brand.example>",
    from_name="山田太郎（アキタ保険）",
    from_address="yamada@mail.brand.example",
    to_name="佐藤 花子",
    to_address="hanako@customer.example",
    subject="ご案内",
    text="こんにちは。",
    html="<p>こんにちは。</p>",
    sent_at=datetime(2026, 11, 24, 10, 0, tzinfo=timezone(timedelta(hours=9))),
    reply_to="yamada@partner.example",
    unsubscribe_url="https://mail.brand.example/u/abc",
    list_id="retirement.mail.brand.example",
    feedback_id="c12:p34:marketing:brand",
)


def lines(message: OutgoingMessage) -> list[bytes]:
    return build(message).split(b"\r\n")


def parsed(message: OutgoingMessage) -> EmailMessage:
    return cast(EmailMessage, message_from_bytes(build(message), policy=default))


def content(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    return part.get_content().replace("\r\n", "\n")


def mailbox(header: str) -> tuple[str, str]:
    name, found = parseaddr(re.sub(r"\r\n(?= )", "", header))
    return str(make_header(decode_header(name))), found


def test_headers_that_machines_read_stand_raw_on_one_line() -> None:
    found = lines(replace(MESSAGE, unsubscribe_url=LONG_URL))

    assert found[0] == b"Message-ID: <abc123@mail.brand.example>"
    assert f"List-Unsubscribe: <{LONG_URL}>".encode() in found
    assert b"List-Unsubscribe-Post: List-Unsubscribe=One-Click" in found
    assert b"List-Id: <retirement.mail.brand.example>" in found
    assert b"Feedback-ID: c12:p34:marketing:brand" in found
    assert b"Precedence: bulk" in found


def test_date_is_the_moment_of_sending_in_utc() -> None:
    assert b"Date: Tue, 24 Nov 2026 01:00:00 +0000" in lines(MESSAGE)


def test_transactional_mail_carries_no_list_headers() -> None:
    """U7"""
    names = {name.lower() for name, _ in parsed(replace(MESSAGE, marketing=False)).items()}

    assert not names & {"list-unsubscribe", "list-unsubscribe-post", "list-id", "precedence"}
    assert "auto-submitted" in names


def test_marketing_mail_without_an_unsubscribe_address_is_refused() -> None:
    """U7"""
    with pytest.raises(InvalidInput, match="no unsubscribe address"):
        build(replace(MESSAGE, unsubscribe_url=""))


@pytest.mark.parametrize(
    "url", ["mailto:x@y.example", "https://a.example/ b", "https://a.example/>", "https://a.example/あ", "javascript:1"]
)
def test_unsubscribe_address_must_be_a_plain_web_address(url: str) -> None:
    with pytest.raises(InvalidInput, match="unsubscribe address"):
        build(replace(MESSAGE, unsubscribe_url=url))


def test_body_is_text_and_html_in_that_order() -> None:
    message = parsed(MESSAGE)

    assert [part.get_content_type() for part in message.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert content(message, "plain") == "こんにちは。\n"
    assert content(message, "html") == "<p>こんにちは。</p>\n"
    assert not any(part.defects for part in message.walk())


def test_message_without_html_is_text_alone() -> None:
    message = parsed(replace(MESSAGE, html=""))

    assert message.get_content_type() == "text/plain"


def test_message_without_text_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no plain text"):
        build(replace(MESSAGE, text=" \n"))


def test_equal_messages_give_equal_bytes() -> None:
    assert build(MESSAGE) == build(replace(MESSAGE))


@pytest.mark.parametrize("text", ["a" * 5000, "あ" * 5000, "x " * 3000 + "\n", "=" * 2000, "\n" * 50 + "end", "a\rb\r\nc"])
def test_no_line_is_long_and_every_line_ends_in_crlf(text: str) -> None:
    message = replace(MESSAGE, subject=LONG_SUBJECT, text=text, html=f"<p>{text}</p>", unsubscribe_url=LONG_URL)

    data = build(message)

    assert data.isascii()
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", data)
    body = data.partition(b"\r\n\r\n")[2]
    assert max(map(len, data.split(b"\r\n"))) < 998
    assert max(map(len, body.split(b"\r\n"))) <= 76


@pytest.mark.parametrize(
    "subject",
    [
        LONG_SUBJECT,
        "Your retirement account",
        "A long English subject that has to be folded because it goes on well past the seventy-six characters of a line",
        "x" * 300,
        "two  blanks",
        " leading and trailing ",
        "",
        "looks like =?utf-8?B?44GC?= an encoded word",
        "Hello 世界 hello",
        "a" * 60 + " " + "b" * 70,
        "\U0001f469‍\U0001f4bb " * 20,
        "tab\there",
        "é" * 200,
    ],
)
def test_subject_is_read_back_exactly(subject: str) -> None:
    assert parsed(replace(MESSAGE, subject=subject))["subject"] == subject


def test_japanese_subject_is_one_encoded_text_of_short_words() -> None:
    header = re.search(rb"\r\nSubject: (.*?)\r\n(?! )", build(replace(MESSAGE, subject=LONG_SUBJECT)), re.DOTALL)

    assert header is not None
    words = header.group(1).split(b"\r\n ")
    assert all(re.fullmatch(rb"=\?utf-8\?B\?[A-Za-z0-9+/=]+\?=", word) and len(word) <= 75 for word in words)
    assert len(b"Subject: " + words[0]) <= 76


visible = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=120)


@settings(max_examples=examples(150))
@given(visible)
@example("=?")
@example("0 " * 50)
def test_any_subject_is_read_back_exactly(subject: str) -> None:
    found = parsed(replace(MESSAGE, subject=subject))

    assert found["subject"] == subject
    assert max(map(len, lines(replace(MESSAGE, subject=subject)))) <= 78


@settings(max_examples=examples(150))
@given(visible)
@example('Sato "the boss" \\ Co., Ltd. (Tokyo)')
@example("山田太郎" * 20)
@example("a" * 200)
@example("x; y: z <w@v>")
def test_any_display_name_is_read_back_exactly(name: str) -> None:
    # The newer policies put a blank between two encoded words of a name, against RFC 2047 6.2; the older functions do not.
    message = message_from_bytes(build(replace(MESSAGE, from_name=name, to_name=name)))

    assert mailbox(message["from"]) == (name.strip(), "yamada@mail.brand.example")
    assert mailbox(message["to"]) == (name.strip(), "hanako@customer.example")


@settings(max_examples=examples(100))
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1, max_size=400).filter(lambda text: text.strip())
)
@example("line with a blank at its end \nnext\t\n.\n..\nFrom here\n--boundary\n")
def test_any_text_is_read_back_up_to_the_blanks_at_its_end(text: str) -> None:
    message = parsed(replace(MESSAGE, text=text, html=text))

    assert content(message, "plain").removesuffix("\n") == text.rstrip()
    assert content(message, "html").removesuffix("\n") == text.rstrip()


@pytest.mark.parametrize("forged", ["a\r\nBcc: x@y.example", "a\nb", "a\rb", "a\x00b", "a\x0bb", "a\x1fb", "a\x7fb"])
@pytest.mark.parametrize(
    "field",
    ["subject", "from_name", "to_name", "from_address", "to_address", "reply_to", "message_id", "list_id", "feedback_id", "language"],
)
def test_control_characters_cannot_forge_a_header(field: str, forged: str) -> None:
    with pytest.raises(InvalidInput):
        build(replace(MESSAGE, **{field: forged}))


@pytest.mark.parametrize("header", [("X-Note", "a\r\nBcc: x"), ("X-Note\r\nBcc", "x"), ("X Note", "x"), ("X:Note", "x"), ("", "x")])
def test_further_headers_are_checked_too(header: tuple[str, str]) -> None:
    with pytest.raises(InvalidInput):
        build(replace(MESSAGE, headers=(header,)))


def test_further_headers_are_written_in_order() -> None:
    message = parsed(replace(MESSAGE, headers=(("X-Journey", "退職年金"), ("X-Step", "welcome"))))

    assert (message["x-journey"], message["x-step"]) == ("退職年金", "welcome")


@pytest.mark.parametrize("field", ["list_id", "feedback_id"])
@pytest.mark.parametrize("value", ["キャンペーン", "x" * 1000])
def test_raw_header_that_cannot_stand_on_one_ascii_line_is_refused(field: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=r"must be ASCII|shorten it"):
        build(replace(MESSAGE, **{field: value}))


@pytest.mark.parametrize("field", ["subject", "text", "html", "to_name"])
def test_half_a_character_is_refused(field: str) -> None:
    with pytest.raises(InvalidInput, match="half of a character"):
        build(replace(MESSAGE, **{field: "a\ud83d"}))


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("hanako@customer.example", "hanako@customer.example"),
        ("a..b@docomo.ne.jp", '"a..b"@docomo.ne.jp'),
        ("a.@ezweb.ne.jp", '"a."@ezweb.ne.jp'),
        ('"a..b"@docomo.ne.jp', '"a..b"@docomo.ne.jp'),
        ("a,b@customer.example", '"a,b"@customer.example'),
        ("taro+x@例え.jp", "taro+x@xn--r8jz45g.jp"),
        ("花子@customer.example", "花子@customer.example"),
    ],
)
def test_address_is_written_as_mail_needs_it(given: str, written: str) -> None:
    assert address(given) == written


@pytest.mark.parametrize(
    "given",
    [
        "",
        "nobody",
        "@x.example",
        "a@",
        "a b@x.example",
        "a@b@x.example",
        "a@x..example",
        "a@x.example>",
        'a"b@x.example',
        "a@-x.example",
        "a>b@x",
    ],
)
def test_address_that_cannot_be_written_is_refused(given: str) -> None:
    with pytest.raises(InvalidInput):
        address(given)


def test_message_id_is_the_same_for_the_same_row_and_shows_nothing_of_it() -> None:
    """D3"""
    first, again, other = (make_message_id(key, "mail.brand.example") for key in ("7:welcome:1", "7:welcome:1", "7:welcome:2"))

    assert first == again != other
    assert re.fullmatch(r"<[a-z2-7]{32}@mail\.brand\.example>", first)


def test_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        build(replace(MESSAGE, sent_at=datetime(2026, 11, 24, 1, 0)))  # noqa: DTZ001


def test_mostly_ascii_text_stays_readable_on_the_wire() -> None:
    data = build(replace(MESSAGE, text="Hello – your account is ready.", html="<p>Hello</p>", sent_at=datetime(2026, 11, 24, tzinfo=UTC)))

    assert b"Hello =E2=80=93 your account is ready." in data
