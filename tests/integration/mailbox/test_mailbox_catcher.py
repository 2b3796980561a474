"""The catcher is a real mail server: what it answers 250 to is kept."""

import asyncio
import signal
import smtplib
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest

from distmark.channels.base import OutgoingMessage
from distmark.channels.email.mime import build, make_message_id
from distmark.channels.email.smtp import SmtpChannel
from distmark.errors import TemporaryDeliveryError
from distmark.mailbox import catcher as catching
from distmark.mailbox.catcher import Catcher
from distmark.mailbox.store import MailboxStore

MESSAGE = OutgoingMessage(
    message_id="<1@mail.brand.example>",
    from_name="山田 太郎",
    from_address="yamada@mail.brand.example",
    to_name="佐藤 花子",
    to_address="hanako@customer.example",
    subject="ご案内",
    text="こんにちは。\n.\n..\n.点で始まる行",
    html="<p>こんにちは。</p>" * 2000,
    sent_at=datetime(2026, 11, 24, 1, 0, tzinfo=UTC),
    unsubscribe_url="https://mail.brand.example/u/abc",
)


def message(number: int) -> OutgoingMessage:
    return replace(MESSAGE, message_id=make_message_id(str(number), "mail.brand.example"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MailboxStore]:
    store = MailboxStore(tmp_path / "mailbox.sqlite3")
    yield store
    store.close()


@pytest.fixture
async def catcher(store: MailboxStore) -> AsyncIterator[Catcher]:
    catcher = Catcher(store, port=0)
    await catcher.start()
    yield catcher
    await catcher.stop()


@pytest.fixture
async def channel(catcher: Catcher) -> AsyncIterator[SmtpChannel]:
    channel = SmtpChannel("127.0.0.1", catcher.port, connections=4, timeout_seconds=10)
    yield channel
    await channel.close()


async def test_caught_mail_is_byte_for_byte_what_was_sent(store: MailboxStore, channel: SmtpChannel) -> None:
    await channel.deliver(MESSAGE)

    [item] = store.page()
    assert store.raw(item.id) == build(MESSAGE)
    assert (item.sender, item.recipient, item.subject) == ("yamada@mail.brand.example", "hanako@customer.example", "ご案内")


async def test_ascii_mail_with_dots_is_caught_as_it_was_sent(store: MailboxStore, channel: SmtpChannel) -> None:
    dotted = replace(MESSAGE, text=".\n.a\n..b\nends in a dot.\n.", html="")

    await channel.deliver(dotted)

    assert store.raw(store.newest_id()) == build(dotted)


async def test_many_at_once_are_each_kept_once(store: MailboxStore, channel: SmtpChannel) -> None:
    """D1, L1"""
    await asyncio.gather(*(channel.deliver(message(number)) for number in range(150)))

    assert {entry.message_id for entry in store.accepted()} == {message(number).message_id for number in range(150)}
    assert (store.count(), store.accepted_count(), store.duplicates()) == (150, 150, {})


async def test_addresses_beyond_ascii_are_taken(store: MailboxStore, channel: SmtpChannel) -> None:
    await channel.deliver(replace(MESSAGE, to_address="花子@customer.example"))

    [item] = store.page()
    assert item.recipient == "花子@customer.example"
    assert item.to_shown == "佐藤 花子 <花子@customer.example>"


async def test_mail_that_cannot_be_stored_is_refused_for_now(
    store: MailboxStore, channel: SmtpChannel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> list[int]:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(store, "add_many", full)
        with pytest.raises(TemporaryDeliveryError, match="451"):
            await channel.deliver(message(1))
    await channel.deliver(message(2))

    assert "could not store" in caplog.text
    assert [entry.message_id for entry in store.accepted()] == [message(2).message_id]


async def test_mail_is_caught_after_the_disk_was_full_while_nobody_wrote(
    store: MailboxStore, channel: SmtpChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, loop = asyncio.Event(), asyncio.get_running_loop()

    def full(limit: int) -> int:
        loop.call_soon_threadsafe(failed.set)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(catching, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(store, "read_waiting", full)
    await channel.deliver(message(1))
    await asyncio.wait_for(failed.wait(), 10)

    await asyncio.wait_for(channel.deliver(message(2)), 10)

    assert [entry.message_id for entry in store.accepted()] == [message(number).message_id for number in (1, 2)]


async def test_waiting_mail_is_decoded_when_the_catcher_has_time(
    store: MailboxStore, channel: SmtpChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = asyncio.Event()
    loop = asyncio.get_running_loop()
    original = store.read_waiting

    def read(limit: int) -> int:
        count = original(limit)
        loop.call_soon_threadsafe(decoded.set)
        return count

    monkeypatch.setattr(store, "read_waiting", read)
    monkeypatch.setattr(catching, "IDLE_SECONDS", 0.01)
    await channel.deliver(MESSAGE)

    await asyncio.wait_for(decoded.wait(), 10)

    with sqlite3.connect(store.path) as other:
        assert other.execute("SELECT subject FROM item").fetchone() == ("ご案内",)
    other.close()


async def test_too_large_a_message_is_refused_and_the_conversation_goes_on(
    store: MailboxStore, catcher: Catcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catching, "MAX_MESSAGE_BYTES", 10_000)
    monkeypatch.setattr(catching._Conversation, "line_length_limit", 4_000)

    def converse() -> list[int]:
        with smtplib.SMTP("127.0.0.1", catcher.port) as client:
            client.ehlo()
            codes = []
            for size in (50_000, 10):
                client.mail("a@x.example")
                client.rcpt("b@x.example")
                codes.append(client.data(b"Subject: x\r\n\r\n" + b"y" * size)[0])
            return codes

    assert await asyncio.to_thread(converse) == [552, 250]
    assert store.count() == 1


async def test_commands_out_of_order_are_refused(catcher: Catcher) -> None:
    def converse() -> list[int]:
        with smtplib.SMTP("127.0.0.1", catcher.port) as client:
            early = client.docmd("DATA")[0]
            client.ehlo()
            return [early, client.docmd("DATA")[0], client.docmd("NOOP")[0]]

    assert await asyncio.to_thread(converse) == [503, 503, 250]


@pytest.fixture
def process(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "distmark.mailbox.catcher", "--port", "0", "--store", str(tmp_path / "mailbox.sqlite3")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def _port(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    words, _, port = process.stdout.readline().rpartition(":")
    assert words == "listening on 127.0.0.1"
    return int(port)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_program_says_where_it_listens_and_leaves_cleanly(process: "subprocess.Popen[str]", number: signal.Signals, tmp_path: Path) -> None:
    port = _port(process)
    with smtplib.SMTP("127.0.0.1", port) as client:
        client.sendmail("a@x.example", ["b@x.example"], build(MESSAGE))
        process.send_signal(number)  # while a connection is open
        _, errors = process.communicate(timeout=20)

    store = MailboxStore(tmp_path / "mailbox.sqlite3")
    assert (process.returncode, errors) == (0, "")
    assert message_from_bytes(store.raw(1), policy=default)["subject"] == "ご案内"
    store.close()


def test_what_was_answered_250_survives_a_kill(process: "subprocess.Popen[str]", tmp_path: Path) -> None:
    """L1"""
    port = _port(process)
    with smtplib.SMTP("127.0.0.1", port) as client:
        for number in range(5):
            client.sendmail("a@x.example", ["b@x.example"], build(message(number)))
        process.kill()
        process.wait()

    store = MailboxStore(tmp_path / "mailbox.sqlite3")
    assert store.accepted_count() == store.count() == 5
    store.close()


def test_port_in_use_is_said_in_one_line(process: "subprocess.Popen[str]", tmp_path: Path) -> None:
    port = _port(process)
    command = [sys.executable, "-m", "distmark.mailbox.catcher", "--port", str(port), "--store", str(tmp_path / "other.sqlite3")]

    second = subprocess.run(command, capture_output=True, text=True, check=False)

    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in second.stderr
    assert second.stderr.count("\n") == 1
