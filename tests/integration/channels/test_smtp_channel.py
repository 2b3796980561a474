"""One message, one recipient, one clear answer: sent, try again, never, or nobody can tell."""

import asyncio
import gc
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest

from distmark.channels.base import OutgoingMessage
from distmark.channels.email import smtp
from distmark.channels.email.mime import make_message_id
from distmark.channels.email.smtp import MESSAGES_PER_CONNECTION, SmtpChannel
from distmark.errors import PermanentDeliveryError, SettingsError, TemporaryDeliveryError, UncertainDelivery
from tests.smtp_faults import DROP, HANG, FaultySmtpServer, Moment

MESSAGE = OutgoingMessage(
    message_id=make_message_id("1", "mail.brand.example"),
    from_name="山田 太郎",
    from_address="yamada@mail.brand.example",
    to_name="佐藤 花子",
    to_address="hanako@customer.example",
    subject="ご案内",
    text="こんにちは。",
    html="<p>こんにちは。</p>",
    sent_at=datetime(2026, 11, 24, 1, 0, tzinfo=UTC),
    unsubscribe_url="https://mail.brand.example/u/abc",
)


def message(number: int) -> OutgoingMessage:
    return replace(MESSAGE, message_id=make_message_id(str(number), "mail.brand.example"))


@pytest.fixture(params=[False, True], ids=["one by one", "pipelined"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[FaultySmtpServer]:
    server = FaultySmtpServer(pipelining=request.param)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def channel(server: FaultySmtpServer) -> AsyncIterator[SmtpChannel]:
    channel = SmtpChannel("127.0.0.1", server.port, connections=2, timeout_seconds=5)
    yield channel
    await channel.close()


@pytest.fixture
async def hasty(server: FaultySmtpServer) -> AsyncIterator[SmtpChannel]:
    channel = SmtpChannel("127.0.0.1", server.port, connections=2, timeout_seconds=0.3)
    yield channel
    await channel.close()


async def test_accepted_message_gives_the_servers_receipt(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    receipt = await channel.deliver(MESSAGE)

    [(sender, recipient, data)] = server.accepted
    assert (receipt.code, receipt.detail, receipt.peer) == ("250", "2.0.0 Ok: queued as 4Wx1", f"127.0.0.1:{server.port}")
    assert (sender, recipient) == ("yamada@mail.brand.example", "hanako@customer.example")
    assert message_from_bytes(data, policy=default)["message-id"] == MESSAGE.message_id


@pytest.mark.parametrize(
    ("moment", "fault", "expected", "code"),
    [
        (Moment.connect, DROP, TemporaryDeliveryError, None),
        (Moment.connect, "421 4.3.2 too busy", TemporaryDeliveryError, "421"),
        (Moment.connect, "554 5.7.1 not from you", TemporaryDeliveryError, "554"),  # about us, not about this message
        (Moment.MAIL, "450 4.2.1 later", TemporaryDeliveryError, "450"),
        (Moment.MAIL, "550 5.7.1 sender refused", PermanentDeliveryError, "550"),
        (Moment.MAIL, "530 5.7.0 log in first", TemporaryDeliveryError, "530"),  # our setting, not this message
        (Moment.MAIL, DROP, TemporaryDeliveryError, None),
        (Moment.RCPT, "450 4.2.1 greylisted", TemporaryDeliveryError, "450"),
        (Moment.RCPT, "550 5.1.1 no such user", PermanentDeliveryError, "550"),
        (Moment.RCPT, DROP, TemporaryDeliveryError, None),
        (Moment.DATA, "451 4.3.0 disk full", TemporaryDeliveryError, "451"),
        (Moment.DATA, "554 5.5.1 no valid recipients", PermanentDeliveryError, "554"),
        (Moment.DATA, "250 this is no 354", TemporaryDeliveryError, None),
        (Moment.DATA, DROP, TemporaryDeliveryError, None),
        (Moment.dot, "452 4.3.1 no space", TemporaryDeliveryError, "452"),
        (Moment.dot, "552 5.2.2 mailbox full", PermanentDeliveryError, "552"),
        (Moment.dot, "421 4.3.2 closing", TemporaryDeliveryError, "421"),  # a reply was read, so nothing is uncertain
        (Moment.dot, DROP, UncertainDelivery, None),
        (Moment.dot, "what", UncertainDelivery, None),  # no SMTP reply
        (Moment.kept, DROP, UncertainDelivery, None),
    ],
)
async def test_every_fault_has_one_answer(
    server: FaultySmtpServer, channel: SmtpChannel, moment: Moment, fault: str, expected: type[Exception], code: str | None
) -> None:
    """D6, L15"""
    server.at(moment, fault)

    with pytest.raises(expected) as failure:
        await channel.deliver(MESSAGE)

    assert type(failure.value) is expected
    assert failure.value.code == code


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (Moment.connect, TemporaryDeliveryError),
        (Moment.MAIL, TemporaryDeliveryError),
        (Moment.RCPT, TemporaryDeliveryError),
        (Moment.DATA, TemporaryDeliveryError),
        (Moment.dot, UncertainDelivery),
        (Moment.kept, UncertainDelivery),
    ],
)
async def test_silence_is_uncertain_only_after_the_end_of_the_data(
    server: FaultySmtpServer, hasty: SmtpChannel, moment: Moment, expected: type[Exception]
) -> None:
    server.at(moment, HANG)

    with pytest.raises(expected) as failure:
        await hasty.deliver(MESSAGE)

    assert type(failure.value) is expected


@pytest.mark.parametrize("fault", [DROP, HANG])
async def test_connection_lost_in_the_middle_of_a_large_message_is_temporary(
    server: FaultySmtpServer, hasty: SmtpChannel, fault: str
) -> None:
    """The end-of-data marker cannot have arrived, since the server read nothing and no socket buffer holds 40 MB."""
    server.at(Moment.body, fault)

    with pytest.raises(TemporaryDeliveryError):
        await hasty.deliver(replace(MESSAGE, html="あ" * 10_000_000))


async def test_message_accepted_before_the_connection_drops_is_sent_and_the_next_one_too(
    server: FaultySmtpServer, channel: SmtpChannel
) -> None:
    """D6"""
    server.at(Moment.replied, DROP)

    await channel.deliver(message(1))
    await channel.deliver(message(2))

    assert len(server.accepted) == 2


async def test_uncertain_message_is_not_handed_over_again(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    """D3, D6"""
    await channel.deliver(message(1))
    server.at(Moment.kept, DROP)

    with pytest.raises(UncertainDelivery):
        await channel.deliver(message(2))

    assert len(server.accepted) == 2
    assert server.seen[Moment.MAIL] == 2


async def test_connections_closed_by_the_server_while_idle_do_no_harm(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    await asyncio.gather(channel.deliver(message(1)), channel.deliver(message(2)))
    await server.hang_up()

    await channel.deliver(message(3))

    assert len(server.accepted) == 3


@pytest.mark.parametrize("moment", [Moment.MAIL, Moment.RCPT, Moment.DATA])
@pytest.mark.parametrize("fault", [DROP, "421 4.4.2 idle too long"])
async def test_reused_connection_that_turns_out_closed_is_replaced(
    server: FaultySmtpServer, channel: SmtpChannel, moment: Moment, fault: str
) -> None:
    await channel.deliver(message(1))
    server.at(moment, fault)

    await channel.deliver(message(2))

    assert len(server.accepted) == 2
    assert server.opened_count == 2


async def test_farewell_on_an_idle_connection_is_not_taken_for_a_reply(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    await channel.deliver(message(1))
    await server.say("250 2.0.0 this is not about your next message")
    await asyncio.wait_for(_until_heard(channel), 5)

    await channel.deliver(message(2))

    assert len(server.accepted) == 2
    assert server.opened_count == 2


async def _until_heard(channel: SmtpChannel) -> None:
    [pool] = channel._pools.values()
    while pool.idle[0].conversation.is_open:
        await asyncio.sleep(0)


async def test_server_that_says_go_on_after_a_refusal_gets_no_message(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    server.at(Moment.RCPT, "550 5.1.1 no such user")
    server.at(Moment.DATA, "354 go on")

    with pytest.raises(PermanentDeliveryError) as failure:
        await channel.deliver(message(1))
    server._faults.clear()
    await channel.deliver(message(2))

    assert failure.value.code == "550"
    assert [message_from_bytes(data)["Message-ID"] for _, _, data in server.accepted] == [message(2).message_id]


async def test_reply_of_several_lines_is_one_reply(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    server.at(Moment.RCPT, "550-5.1.1 no such user\r\n550-here\r\n550 5.1.1 sorry")

    with pytest.raises(PermanentDeliveryError, match=r"550 5\.1\.1 no such user here 5\.1\.1 sorry"):
        await channel.deliver(message(1))
    await channel.deliver(message(2))

    assert server.opened_count == 1


async def test_reply_without_an_end_is_given_up(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    server.at(Moment.MAIL, "250 " + "x" * 100_000)

    with pytest.raises(TemporaryDeliveryError, match="no end"):
        await channel.deliver(MESSAGE)


async def test_fresh_connection_that_breaks_too_is_temporary(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    await channel.deliver(message(1))
    server.at(Moment.MAIL, DROP, DROP)

    with pytest.raises(TemporaryDeliveryError):
        await channel.deliver(message(2))

    assert len(server.accepted) == 1


async def test_refused_message_leaves_the_connection_usable(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    """D4"""
    server.at(Moment.RCPT, "", "550 5.1.1 no such user", "")

    await channel.deliver(message(1))
    with pytest.raises(PermanentDeliveryError):
        await channel.deliver(message(2))
    await channel.deliver(message(3))

    assert server.opened_count == 1
    assert server.seen[Moment.RSET] == 1
    assert [data.count(message(number).message_id.encode()) for number, (_, _, data) in zip((1, 3), server.accepted, strict=True)] == [1, 1]


async def test_connection_that_does_not_answer_a_reset_is_replaced(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    server.at(Moment.RCPT, "550 5.1.1 no such user")
    server.at(Moment.RSET, DROP)

    with pytest.raises(PermanentDeliveryError):
        await channel.deliver(message(1))
    await channel.deliver(message(2))

    assert len(server.accepted) == 1
    assert server.opened_count == 2


async def test_long_idle_connection_is_asked_before_it_is_used(
    server: FaultySmtpServer, channel: SmtpChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp, "CHECK_AFTER_SECONDS", -1.0)

    await channel.deliver(message(1))
    await channel.deliver(message(2))

    assert server.seen[Moment.RSET] == 1
    assert server.opened_count == 1


async def test_very_long_idle_connection_is_forgotten(
    server: FaultySmtpServer, channel: SmtpChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp, "FORGET_AFTER_SECONDS", -1.0)

    await channel.deliver(message(1))
    await channel.deliver(message(2))

    assert server.opened_count == 2


async def test_server_that_is_down_and_comes_up_is_used(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    await server.stop()

    with pytest.raises(TemporaryDeliveryError, match="took no connection"):
        await channel.deliver(message(1))
    with pytest.raises(TemporaryDeliveryError):
        await channel.ping()
    await server.start()
    await channel.deliver(message(1))

    assert len(server.accepted) == 1


async def test_host_that_does_not_exist_is_temporary() -> None:
    channel = SmtpChannel("", 1)

    with pytest.raises(TemporaryDeliveryError):
        await SmtpChannel("no such host.invalid", 25, timeout_seconds=5).deliver(MESSAGE)
    with pytest.raises(TemporaryDeliveryError):
        await channel.deliver(MESSAGE)


async def test_many_deliveries_share_few_connections(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    await asyncio.gather(*(channel.deliver(message(number)) for number in range(60)))

    sent = sorted(message_from_bytes(data)["Message-ID"] for _, _, data in server.accepted)
    assert sent == sorted(message(number).message_id for number in range(60))
    assert server.most_open <= 2


async def test_one_bad_recipient_among_many_stops_nobody(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    """D4"""
    server.at(Moment.RCPT, *[""] * 7, "554 5.1.1 no", *[""] * 12)

    results = await asyncio.gather(*(channel.deliver(message(number)) for number in range(20)), return_exceptions=True)

    assert [type(result) for result in results if isinstance(result, Exception)] == [PermanentDeliveryError]
    assert len({data for _, _, data in server.accepted}) == 19


async def test_connection_carries_a_limited_number_of_messages(server: FaultySmtpServer) -> None:
    channel = SmtpChannel("127.0.0.1", server.port, connections=1)

    for number in range(MESSAGES_PER_CONNECTION + 1):
        await channel.deliver(message(number))

    assert server.opened_count == 2
    await channel.close()


async def test_cancelled_delivery_does_not_give_its_reply_to_the_next(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    server.at(Moment.dot, HANG)
    cancelled = asyncio.create_task(channel.deliver(message(1)))
    await server.reached(Moment.dot)

    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await channel.deliver(message(2))

    assert [message_from_bytes(data)["Message-ID"] for _, _, data in server.accepted] == [message(2).message_id]


async def test_closed_channel_opens_again(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    await channel.deliver(message(1))
    await channel.close()

    await channel.deliver(message(2))

    assert len(server.accepted) == 2
    assert server.opened_count == 2


async def test_close_lets_a_running_delivery_finish(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    running = asyncio.create_task(channel.deliver(message(1)))
    await server.reached(Moment.MAIL)

    await channel.close()
    await running

    assert len(server.accepted) == 1
    assert not channel._pools


async def test_channel_works_in_the_event_loop_of_another_thread(server: FaultySmtpServer) -> None:
    channel = SmtpChannel("127.0.0.1", server.port, connections=1)
    failures: list[BaseException] = []

    async def send_two() -> None:
        await asyncio.gather(channel.deliver(message(1)), channel.deliver(message(2)))
        await channel.close()

    def run() -> None:
        try:
            asyncio.run(send_two())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)

    assert failures == []
    assert len(server.accepted) == 4
    gc.collect()


async def test_lines_that_begin_with_a_dot_arrive_whole(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    text = ".\n..two\n.one\nplain\n."

    await channel.deliver(replace(MESSAGE, text=text, html=""))

    received = message_from_bytes(server.accepted[0][2], policy=default)
    assert received.get_content().replace("\r\n", "\n") == text + "\n"


async def test_old_docomo_address_is_quoted_in_the_envelope(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    await channel.deliver(replace(MESSAGE, to_address="a..b.@docomo.ne.jp"))

    assert server.accepted[0][1].replace('"', "") == "a..b.@docomo.ne.jp"


async def test_address_beyond_ascii_travels_by_smtputf8(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    await channel.deliver(replace(MESSAGE, to_address="花子@例え.jp"))

    assert server.accepted[0][1] == "花子@xn--r8jz45g.jp"


@pytest.mark.parametrize(
    "broken",
    [{"to_address": "no at sign"}, {"to_address": "a@b.example> SIZE=1\r\nRCPT TO:<x@y.example"}, {"subject": "a\r\nBcc: x@y.example"}],
)
async def test_message_that_cannot_be_written_is_permanent_and_touches_no_server(
    server: FaultySmtpServer, channel: SmtpChannel, broken: dict[str, str]
) -> None:
    with pytest.raises(PermanentDeliveryError):
        await channel.deliver(replace(MESSAGE, **broken))

    assert server.opened_count == 0


async def test_no_address_is_repeated_from_the_servers_words(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    server.at(Moment.RCPT, "550 5.1.1 <hanako@customer.example>: unknown, ask postmaster@customer.example")

    with pytest.raises(PermanentDeliveryError) as failure:
        await channel.deliver(MESSAGE)

    assert "5.1.1 (address): unknown, ask (address)" in str(failure.value)


async def test_ping_says_that_the_server_answers_and_leaves_nothing_open(server: FaultySmtpServer, channel: SmtpChannel) -> None:
    receipt = await channel.ping()

    assert receipt.code == "250"
    assert server.seen[Moment.MAIL] == 0
    await server.hang_up()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command += f" -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout {path} -out {path}.crt"
    subprocess.run(command.split(), check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture
async def guarded(certificate: Path) -> AsyncIterator[FaultySmtpServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = FaultySmtpServer(password="right", tls_context=context)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def trust(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=f"{certificate}.crt")


async def test_message_goes_over_starttls_after_a_login(guarded: FaultySmtpServer, trust: ssl.SSLContext) -> None:
    channel = SmtpChannel("127.0.0.1", guarded.port, username="brand", password="right", tls="starttls", tls_context=trust)

    await channel.deliver(message(1))
    await channel.deliver(message(2))
    await channel.close()

    assert len(guarded.accepted) == 2
    assert guarded.opened_count == 1


async def test_wrong_password_waits_for_the_operator(guarded: FaultySmtpServer, trust: ssl.SSLContext) -> None:
    channel = SmtpChannel("127.0.0.1", guarded.port, username="brand", password="wrong", tls_context=trust)

    with pytest.raises(TemporaryDeliveryError) as failure:
        await channel.deliver(MESSAGE)

    assert failure.value.code == "535"
    assert "wrong" not in str(failure.value)


async def test_certificate_that_is_not_trusted_is_refused(guarded: FaultySmtpServer) -> None:
    channel = SmtpChannel("127.0.0.1", guarded.port, username="brand", password="right")

    with pytest.raises(TemporaryDeliveryError, match="certificate"):
        await channel.deliver(MESSAGE)

    assert guarded.accepted == []


async def test_starttls_that_is_not_offered_sends_nothing(server: FaultySmtpServer) -> None:
    channel = SmtpChannel("127.0.0.1", server.port, tls="starttls")

    with pytest.raises(TemporaryDeliveryError):
        await channel.deliver(MESSAGE)

    assert server.seen[Moment.MAIL] == 0


def own_address() -> str:
    """An address of this machine that others reach, too."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


@pytest.fixture
async def in_the_clear() -> AsyncIterator[FaultySmtpServer]:
    """A server without TLS that asks for a password, and is not on loopback."""
    server = FaultySmtpServer(password="right", host=own_address())
    if server.host.startswith("127."):
        pytest.skip("This machine has no address but loopback.")
    await server.start()
    yield server
    await server.stop()


async def test_no_password_is_said_to_a_server_without_tls(in_the_clear: FaultySmtpServer) -> None:
    channel = SmtpChannel(in_the_clear.host, in_the_clear.port, username="brand", password="right")

    with pytest.raises(TemporaryDeliveryError, match="no TLS, so the password is kept back") as failure:
        await channel.deliver(MESSAGE)

    assert failure.value.code == "no_tls"
    assert in_the_clear.logins == []
    await in_the_clear.hang_up()


async def test_password_goes_in_the_clear_only_when_the_operator_says_so(in_the_clear: FaultySmtpServer) -> None:
    channel = SmtpChannel(in_the_clear.host, in_the_clear.port, username="brand", password="right", tls="off")

    await channel.deliver(MESSAGE)
    await channel.close()

    assert len(in_the_clear.accepted) == len(in_the_clear.logins) == 1


async def test_mail_without_a_password_needs_no_tls(in_the_clear: FaultySmtpServer) -> None:
    in_the_clear.password = ""
    channel = SmtpChannel(in_the_clear.host, in_the_clear.port)

    await channel.deliver(MESSAGE)
    await channel.close()

    assert len(in_the_clear.accepted) == 1


async def test_password_is_said_to_a_server_of_this_machine() -> None:
    server = FaultySmtpServer(password="right")
    await server.start()
    channel = SmtpChannel("127.0.0.1", server.port, username="brand", password="right")

    await channel.deliver(MESSAGE)
    await channel.close()
    await server.stop()

    assert len(server.accepted) == 1


def test_unknown_tls_setting_is_refused() -> None:
    with pytest.raises(SettingsError, match="smtp_tls is 'yes'"):
        SmtpChannel("127.0.0.1", 25, tls="yes")


async def test_port_where_nobody_listens_is_temporary() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        channel = SmtpChannel("127.0.0.1", probe.getsockname()[1])

        with pytest.raises(TemporaryDeliveryError):
            await channel.deliver(MESSAGE)
