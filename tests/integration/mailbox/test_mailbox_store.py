"""Caught messages can be found, read and counted, by several processes at once."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from distmark.channels.base import OutgoingMessage
from distmark.channels.email.mime import build
from distmark.errors import NotFound
from distmark.mailbox.store import Incoming, MailboxStore, MessageKind

AT = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)


def mail(number: int, subject: str = "ご案内", text: str = "こんにちは。", html: str = "") -> bytes:
    return build(
        OutgoingMessage(
            message_id=f"<{number}@mail.brand.example>",
            from_name="山田太郎（アキタ保険）東京支店 お客様相談窓口",
            from_address="yamada@mail.brand.example",
            to_name="佐藤 花子",
            to_address="hanako@customer.example",
            subject=subject,
            text=text,
            html=html,
            sent_at=AT,
            unsubscribe_url="https://mail.brand.example/u/" + "x" * 100,
        )
    )


def add(store: MailboxStore, number: int, recipient: str = "hanako@customer.example", **fields: str) -> int:
    return store.add(mail(number, **fields), "yamada@mail.brand.example", [recipient], AT)[0]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MailboxStore]:
    store = MailboxStore(tmp_path / "new" / "mailbox.sqlite3")
    yield store
    store.close()


def test_mail_is_shown_decoded(store: MailboxStore) -> None:
    html = '<p>見て <a href="https://a.example/?x=1&amp;y=2">ここ</a> <A HREF=\'https://b.example/\'>b</A> <link href="no.css"></p>'

    item = store.get(add(store, 1, subject="とても長い件名です。" * 20, html=html))

    assert (item.kind, item.at, item.message_id) == (MessageKind.mail, AT, "<1@mail.brand.example>")
    assert (item.sender, item.recipient) == ("yamada@mail.brand.example", "hanako@customer.example")
    assert item.subject == "とても長い件名です。" * 20
    assert item.from_shown == "山田太郎（アキタ保険）東京支店 お客様相談窓口 <yamada@mail.brand.example>"
    assert item.to_shown == "佐藤 花子 <hanako@customer.example>"
    assert (item.text.rstrip(), item.html.rstrip()) == ("こんにちは。", html)
    assert item.header("list-unsubscribe") == "<https://mail.brand.example/u/" + "x" * 100 + ">"
    assert item.header("X-None") == ""
    assert item.links == ("https://a.example/?x=1&y=2", "https://b.example/")


def test_raw_bytes_are_kept_as_they_came(store: MailboxStore) -> None:
    assert store.raw(add(store, 1)) == mail(1)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no header at all",
        b"Subject: =?nonsense?B?44GC?=\r\n\r\nbody",
        b"Subject: =?utf-8?B?!!?=\r\nContent-Type: text/plain; charset=nonsense\r\n\r\n\xff\xfe",
        "Subject: 生の件名\r\nTo: 花子@customer.example\r\n\r\n本文".encode(),
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\n",
    ],
)
def test_malformed_mail_is_kept_and_shown_all_the_same(store: MailboxStore, raw: bytes) -> None:
    [item_id] = store.add(raw, "", ["a@customer.example"], AT)

    assert store.get(item_id).recipient == "a@customer.example"
    assert store.raw(item_id) == raw


def test_raw_utf8_headers_are_read(store: MailboxStore) -> None:
    [item_id] = store.add("Subject: 生の件名\r\nTo: 花子@customer.example\r\n\r\n本文".encode(), "", ["花子@customer.example"], AT)

    item = store.get(item_id)
    assert (item.subject, item.to_shown, item.text) == ("生の件名", "花子@customer.example", "本文")


def test_pages_go_from_the_newest_back_without_gaps_while_mail_arrives(store: MailboxStore) -> None:
    for number in range(1, 6):
        add(store, number)

    first = store.page(limit=2)
    add(store, 6)
    second = store.page(limit=2, before=first[-1].id)
    third = store.page(limit=2, before=second[-1].id)

    assert [item.message_id[1] for item in first + second + third] == ["5", "4", "3", "2", "1"]


def test_since_gives_what_came_after_oldest_first(store: MailboxStore) -> None:
    first = add(store, 1)
    add(store, 2)
    add(store, 3)

    assert [item.message_id for item in store.since(first)] == ["<2@mail.brand.example>", "<3@mail.brand.example>"]
    assert len(store.since(0, limit=2)) == 2
    assert store.since(store.newest_id()) == []


def test_items_are_found_by_recipient_kind_and_text(store: MailboxStore) -> None:
    add(store, 1, "Taro@customer.example", subject="100% 割引", text="本文に春の便り")
    add(store, 2, "hanako@customer.example", html="<p>HTML_only</p>")
    store.add_sms("春のお知らせ", "みらい証券", "+819012345678", AT, "<3@mail.brand.example>")

    def found(**filters: object) -> list[str]:
        return [item.message_id[1] for item in store.page(**filters)]  # type: ignore[arg-type]

    assert found(recipient=" taro@Customer.example") == ["1"]
    assert found(recipient="taro") == []
    assert found(kind=MessageKind.sms) == ["3"]
    assert found(text="春の") == ["3", "1"]
    assert found(text="html_ONLY") == ["2"]
    assert found(text="0%") == ["1"]
    assert found(text="L%o") == []  # a percent sign is a percent sign
    assert found(text="春の", kind=MessageKind.mail) == ["1"]
    assert store.count() == 3
    assert store.count(text="春の") == 2


def test_mail_to_two_recipients_is_two_items_and_one_acceptance(store: MailboxStore) -> None:
    ids = store.add(mail(1), "yamada@mail.brand.example", ["a@x.example", "b@x.example"], AT)

    assert len(ids) == store.count() == 2
    assert [entry.recipients for entry in store.accepted()] == [("a@x.example", "b@x.example")]


def test_duplicates_are_counted_per_recipient(store: MailboxStore) -> None:
    add(store, 1)
    add(store, 1)
    add(store, 2)
    add(store, 2, "other@customer.example")

    assert store.duplicates() == {"<1@mail.brand.example>": 2}


def test_emptied_mailbox_keeps_its_log_and_does_not_reuse_ids(store: MailboxStore) -> None:
    last = add(store, 1)

    store.clear()

    assert (store.count(), store.accepted_count()) == (0, 1)
    assert add(store, 2) > last


def test_missing_item_is_not_found(store: MailboxStore) -> None:
    with pytest.raises(NotFound, match="no message 7"):
        store.get(7)
    with pytest.raises(NotFound, match="no message 7"):
        store.raw(7)


def test_all_or_none_of_a_batch_is_stored(store: MailboxStore) -> None:
    good = Incoming(MessageKind.mail, "", ("a@x.example",), AT, mail(1))
    naive = Incoming(MessageKind.mail, "", ("a@x.example",), datetime(2026, 11, 24), mail(2))  # noqa: DTZ001

    with pytest.raises(ValueError, match="no time zone"):
        store.add_many([good, naive])

    assert (store.count(), store.accepted_count()) == (0, 0)


def test_several_processes_write_and_read_one_mailbox(tmp_path: Path) -> None:
    path = tmp_path / "mailbox.sqlite3"
    program = (
        "import sys; from datetime import datetime, UTC; from distmark.mailbox.store import MailboxStore\n"
        "store = MailboxStore(sys.argv[1])\n"
        "for n in range(40):\n"
        "    raw = b'Message-ID: <%d-%s@x>\\r\\n\\r\\nhi' % (n, sys.argv[2].encode())\n"
        "    store.add(raw, '', ['a@x.example'], datetime.now(UTC))\n"
        "    store.page(limit=5)\n"
    )

    processes = [subprocess.Popen([sys.executable, "-c", program, str(path), str(number)]) for number in range(4)]
    codes = [process.wait() for process in processes]

    store = MailboxStore(path)
    assert codes == [0] * 4
    assert (store.count(), store.accepted_count(), store.duplicates()) == (160, 160, {})
    store.close()


def test_stored_mail_is_on_the_disk_when_add_returns(store: MailboxStore) -> None:
    add(store, 1)

    with sqlite3.connect(store.path) as other:
        assert other.execute("SELECT count(*) FROM item").fetchone() == (1,)
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()
    assert store._connection.execute("PRAGMA synchronous").fetchone() == (2,)
