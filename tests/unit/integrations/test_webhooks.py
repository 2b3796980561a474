"""Calls to systems of the brand: what is sent, what is believed of the answer, and where nobody is ever called."""

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from distmark.clock import wall_now
from distmark.errors import PermanentDeliveryError, SettingsError, TemporaryDeliveryError
from distmark.integrations.webhooks import (
    MOST_ANSWER_BYTES,
    HttpWebhooks,
    WebhookAnswer,
    WebhookCall,
    idempotency_key,
    is_public,
    is_signed,
    read_object,
    secrets_of,
    sign,
)
from distmark.settings import Mode, Settings

SECRET = b"correct horse battery staple"


@dataclass
class Seen:
    """A request as it came over the wire."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """A server on this machine that answers what it is told, byte for byte."""

    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    pause_seconds: float = 0.0
    serving: set[asyncio.Task] = field(default_factory=set)

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.current_task())
        try:
            await self._answer(reader, writer)
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *rest = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in rest)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.seen.append(Seen(line, headers, body))
        await asyncio.sleep(self.pause_seconds)
        writer.write(self.answer)
        await writer.drain()
        writer.write_eof()
        await reader.read()


def http(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def serving(**fields: object) -> AsyncIterator[Server]:
    server = Server(**fields)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield server
        for task in server.serving:
            task.cancel()
        await asyncio.gather(*server.serving, return_exceptions=True)


def webhooks(**options: object) -> HttpWebhooks:
    return HttpWebhooks(lambda _name: SECRET, **{"allow_private": True, **options})


def call(url: str, **fields: object) -> WebhookCall:
    return WebhookCall(**{"url": url, "method": "POST", "idempotency_key": "key-1", **fields})


async def test_call_carries_its_body_its_key_and_a_signature_over_both_time_and_body() -> None:
    async with serving() as server:
        answer = await webhooks().call(
            call(server.url("/hook?a=1"), body={"name": "花子", "n": 1}, secret="crm", headers={"X-Brand": "mirai"})
        )

    (seen,) = server.seen
    assert answer == WebhookAnswer(200, {})
    assert seen.line == "POST /hook?a=1 HTTP/1.1"
    assert json.loads(seen.body) == {"name": "花子", "n": 1}
    assert (seen.headers["host"], seen.headers["x-brand"]) == (f"127.0.0.1:{server.port}", "mirai")
    assert (seen.headers["content-type"], seen.headers["idempotency-key"]) == ("application/json", "key-1")
    now = int(wall_now().timestamp())
    assert is_signed(SECRET, seen.headers["distmark-signature"], seen.body, now)
    assert not is_signed(SECRET, seen.headers["distmark-signature"], seen.body + b" ", now)
    assert not is_signed(b"another", seen.headers["distmark-signature"], seen.body, now)
    assert not is_signed(SECRET, seen.headers["distmark-signature"], seen.body, now + 600)


def test_signature_is_hmac_sha256_over_time_dot_body() -> None:
    # printf '1700000000.{}' | openssl dgst -sha256 -hmac secret
    assert sign(b"secret", 1_700_000_000, b"{}") == "t=1700000000,v1=b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"


async def test_journey_cannot_forge_what_the_call_says_of_itself() -> None:
    forged = {"Host": "bank.example", "idempotency-key": "mine", "Distmark-Signature": "t=1,v1=00", "Content-Length": "1"}
    async with serving() as server:
        await webhooks().call(call(server.url(), headers=forged, body={}))

    headers = server.seen[0].headers
    assert (headers["host"], headers["idempotency-key"], headers["content-length"]) == (f"127.0.0.1:{server.port}", "key-1", "2")
    assert "distmark-signature" not in headers


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (http("200 OK", b'{"points": 7}'), WebhookAnswer(200, {"points": 7})),
        (http("201 Created", b"[1, 2]"), WebhookAnswer(201)),
        (http("200 OK", b"<html>"), WebhookAnswer(200)),
        (http("204 No Content", b""), WebhookAnswer(204)),
        (http("404 Not Found", b'{"why": "gone"}'), WebhookAnswer(404, {"why": "gone"})),
        (http("503 Busy", b"{}"), WebhookAnswer(503)),
        (http("302 Found", b"", "Location: http://127.0.0.1:1/"), WebhookAnswer(302)),
        (http("200 OK", zlib.compress(b'{"a": 1}'), "Content-Encoding: deflate"), WebhookAnswer(200)),
        (http("200 OK", json.dumps({"a": "x" * MOST_ANSWER_BYTES}).encode()), WebhookAnswer(200)),
    ],
)
async def test_answer_is_taken_for_what_it_is(answer: bytes, expected: WebhookAnswer) -> None:
    async with serving(answer=answer) as server:
        assert await webhooks().call(call(server.url())) == expected
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("status", "ok", "may_pass"), [(200, True, False), (302, False, False), (404, False, False), (429, False, True), (500, False, True)]
)
def test_failure_of_the_other_side_may_pass_and_a_refusal_does_not(status: int, ok: bool, may_pass: bool) -> None:
    """L15"""
    assert (WebhookAnswer(status).ok, WebhookAnswer(status).may_pass) == (ok, may_pass)


async def test_endless_answer_is_cut_off() -> None:
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MOST_ANSWER_BYTES * 4)
    async with serving(answer=endless) as server:
        assert await webhooks().call(call(server.url())) == WebhookAnswer(200)


async def test_silence_is_a_temporary_failure() -> None:
    async with serving(pause_seconds=5) as server:
        with pytest.raises(TemporaryDeliveryError, match=r"within 0\.2 seconds"):
            await webhooks().call(call(server.url(), timeout_seconds=0.2))


async def test_closed_door_is_a_temporary_failure() -> None:
    async with serving() as server:
        url = server.url()

    with pytest.raises(TemporaryDeliveryError, match="could not be reached"):
        await webhooks().call(call(url))


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "file:///etc/passwd", "http://"])
async def test_only_http_is_called(url: str) -> None:
    with pytest.raises(PermanentDeliveryError):
        await webhooks().call(call(url))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1"])
async def test_own_network_is_never_called(host: str) -> None:
    async with serving() as server:
        with pytest.raises(PermanentDeliveryError, match="inside our own network"):
            await webhooks(allow_private=False).call(call(server.url(host=host)))
    assert server.seen == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::a00:1", False),  # 10.0.0.1 behind NAT64
        ("2002:a00:1::", False),  # 10.0.0.1 behind 6to4
        ("::10.0.0.1", False),
        ("::93.184.216.34", False),
        ("fec0::1", False),
        ("64:ff9b:1::a00:1", False),  # translated within a network: RFC 8215
        ("64:ff9b::5db8:d822", True),  # 93.184.216.34 behind NAT64
        ("192.88.99.1", False),  # a relay of 6to4
        ("nonsense", False),
    ],
)
def test_public_addresses_are_told_from_private_ones(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_only_demos_and_tests_may_call_their_own_machine(tmp_path) -> None:
    allowed = {mode: HttpWebhooks.of(Settings(mode=mode, data_dir=tmp_path))._allow_private for mode in Mode}

    assert allowed == {Mode.production: False, Mode.demo: True, Mode.test: True}


async def test_unknown_key_is_told_by_name_and_never_sent_without() -> None:
    secret_of: Callable[[str], bytes] = secrets_of(Settings(webhook_secrets={"crm": "s3"}))
    async with serving() as server:
        with pytest.raises(SettingsError, match="erp"):
            await HttpWebhooks(secret_of, allow_private=True).call(call(server.url(), secret="erp"))

    assert server.seen == []
    assert secret_of("crm") == b"s3"


@pytest.mark.parametrize(
    ("raw", "stored"),
    [
        (b'{"a": "x\\u0000y"}', {"a": "xy"}),  # Postgres refuses NUL in JSON
        (b'{"a": "\\ud800"}', {"a": "?"}),  # half a character
        (b'{"a": 1e999, "b": [NaN]}', {"a": None, "b": [None]}),
        (b"[" * 60_000, {}),
        (b"\xff\xfe", {}),
        (b'"text"', {}),
    ],
)
def test_answer_is_fit_to_be_stored(raw: bytes, stored: dict) -> None:
    assert read_object(raw) == stored


def test_idempotency_key_is_the_same_for_the_same_thing_only() -> None:
    assert idempotency_key("run", 1, "score", 1) == idempotency_key("run", 1, "score", 1)
    assert idempotency_key("run", 1, "score", 1) != idempotency_key("run", 1, "score", 2)


@pytest.mark.parametrize("headers", [{"X-Name": "a\r\nX-Admin: yes"}, {"X Name": "a"}, {"X-Name": "a\nb"}])
async def test_header_that_would_begin_another_is_refused(headers: dict[str, str]) -> None:
    async with serving() as server:
        with pytest.raises(PermanentDeliveryError):
            await webhooks().call(call(server.url(), headers=headers))
    assert server.seen == []
