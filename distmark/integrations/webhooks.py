"""Calls to the brand's own systems: signed, bounded in time and size, and never to an address inside our own network."""

import asyncio
import hashlib
import hmac
import ipaddress
import json
import math
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import httpx2

from distmark.clock import wall_now
from distmark.errors import InvalidInput, PermanentDeliveryError, SettingsError, TemporaryDeliveryError
from distmark.settings import Mode, Settings

SIGNATURE = "Distmark-Signature"
IDEMPOTENCY_KEY = "Idempotency-Key"
MOST_ANSWER_BYTES = 64 * 1024
MOST_AT_ONCE = 20
SIGNATURE_KEPT_SECONDS = 300
TOO_MANY = 429
SERVER_ERROR = 500
# Headers that a journey may not set: they would contradict the call, or pretend to be ours.
OURS = frozenset(
    {"host", "content-length", "content-encoding", "transfer-encoding", "connection", SIGNATURE.lower(), IDEMPOTENCY_KEY.lower()}
)
# Networks that Python's `is_global` does not know as reserved: addresses of the site, translation within one network (RFC 8215), IPv4
# addresses written as IPv6 ones, and the relays of 6to4.
RESERVED = tuple(ipaddress.ip_network(each) for each in ("fec0::/10", "64:ff9b:1::/48", "::/96", "192.88.99.0/24"))
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class WebhookCall:
    """One call. `idempotency_key` is the same on every try; `secret` names the key that signs it."""

    url: str
    method: str
    idempotency_key: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    secret: str | None = None
    timeout_seconds: int = 10


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """The answer to a call. `data` is the answer's JSON object, empty when it was none or longer than `MOST_ANSWER_BYTES`."""

    status: int
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Return whether the other side accepted the call."""
        return 200 <= self.status < 300

    @property
    def may_pass(self) -> bool:
        """Return whether the call failed in a way that may pass."""
        return self.status == TOO_MANY or self.status >= SERVER_ERROR


class Webhooks(Protocol):
    """A way to call. Safe for many calls at once in one event loop."""

    async def call(self, call: WebhookCall) -> WebhookAnswer:
        """Return the other side's answer, of any status.

        Errors: TemporaryDeliveryError when there was no answer, PermanentDeliveryError for a call that must not or cannot be made,
        SettingsError for a key that this installation does not have.
        """
        ...


Secrets = Callable[[str], bytes]


def secrets_of(settings: Settings) -> Secrets:
    """Return how the keys that sign calls are looked up: by name, in the settings, and nowhere kept."""

    def secret_of(name: str) -> bytes:
        secret = settings.webhook_secrets.get(name)
        if secret is None:
            raise SettingsError(f'There is no webhook secret "{name}"; add it to DISTMARK_WEBHOOK_SECRETS, such as {{"{name}": "..."}}.')
        return secret.get_secret_value().encode()

    return secret_of


def sign(secret: bytes, at_seconds: int, body: bytes) -> str:
    """Return the signature header's value: HMAC-SHA256 over the time, a dot and the raw body."""
    digest = hmac.new(secret, f"{at_seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_seconds},v1={digest}"


def is_signed(secret: bytes, header: str, body: bytes, now_seconds: int, kept_seconds: int = SIGNATURE_KEPT_SECONDS) -> bool:
    """Return whether `header` is a recent signature of `body` with `secret`; a receiver asks this before it trusts a call."""
    given = dict(part.partition("=")[::2] for part in header.split(","))
    at = given.get("t", "")
    if not at.isdecimal() or abs(now_seconds - int(at)) > kept_seconds:
        return False
    return hmac.compare_digest(sign(secret, int(at), body), header)


class HttpWebhooks:
    """Calls over http(s). No redirect is followed, no proxy of the environment used, and the address that was checked is the one called.

    `allow_private` lets calls reach this machine and its own network: for demos and tests.
    """

    def __init__(self, secret_of: Secrets, *, allow_private: bool = False) -> None:
        self._secret_of = secret_of
        self._allow_private = allow_private
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)

    @classmethod
    def of(cls, settings: Settings) -> "HttpWebhooks":
        """Return the calls of this installation."""
        return cls(secrets_of(settings), allow_private=settings.mode is not Mode.production)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    async def call(self, call: WebhookCall) -> WebhookAnswer:
        """Return what the other side answered; see `Webhooks`."""
        body = b"" if call.body is None else json.dumps(call.body, ensure_ascii=False, separators=(",", ":")).encode()
        headers = self._headers(call, body)
        async with self._slots:
            try:
                async with asyncio.timeout(call.timeout_seconds):
                    return await self._call(call, headers, body)
            except TimeoutError as error:
                text = f"The webhook did not answer within {call.timeout_seconds} seconds."
                raise TemporaryDeliveryError(text, code="timeout") from error
            except (httpx2.InvalidURL, httpx2.LocalProtocolError, httpx2.UnsupportedProtocol, UnicodeError) as error:
                raise PermanentDeliveryError(f"The webhook's call cannot be made as written: {error}.", code="bad_call") from error
            except (httpx2.TransportError, OSError) as error:
                text = f"The webhook could not be reached: {type(error).__name__}."
                raise TemporaryDeliveryError(text, code="no_connection") from error

    def _headers(self, call: WebhookCall, body: bytes) -> dict[str, str]:
        headers = {name: value for name, value in call.headers.items() if name.lower() not in OURS}
        given = {name.lower() for name in headers}
        usual = {"User-Agent": "distmark", "Accept": "application/json", "Accept-Encoding": "identity"}
        if call.body is not None:
            usual["Content-Type"] = "application/json"
        headers |= {name: value for name, value in usual.items() if name.lower() not in given}
        headers[IDEMPOTENCY_KEY] = call.idempotency_key
        if call.secret is not None:
            headers[SIGNATURE] = sign(self._secret_of(call.secret), int(wall_now().timestamp()), body)
        return headers

    async def _call(self, call: WebhookCall, headers: Mapping[str, str], body: bytes) -> WebhookAnswer:
        url = httpx2.URL(call.url)
        if url.scheme not in ("http", "https") or not url.host:
            raise PermanentDeliveryError(f"The webhook's address begins with {url.scheme}:, but only http(s) is called.", code="bad_call")
        addresses = await self._addresses(url)
        for address in addresses[:-1]:
            try:
                return await self._ask(call, url, address, headers, body)
            except httpx2.ConnectError:
                continue
        return await self._ask(call, url, addresses[-1], headers, body)

    async def _addresses(self, url: httpx2.URL) -> list[str]:
        """Return where the host is, checked: what is called afterwards is the address, so the name cannot change its mind between."""
        port = url.port or (443 if url.scheme == "https" else 80)
        found = await asyncio.get_running_loop().getaddrinfo(url.raw_host.decode(), port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        if not self._allow_private and not all(is_public(address) for address in addresses):
            raise PermanentDeliveryError("The webhook's address is inside our own network, which is never called.", code="private_address")
        return addresses

    async def _ask(self, call: WebhookCall, url: httpx2.URL, address: str, headers: Mapping[str, str], body: bytes) -> WebhookAnswer:
        host = url.raw_host.decode()
        async with (
            httpx2.AsyncClient(verify=self._tls, trust_env=False, follow_redirects=False, timeout=call.timeout_seconds) as client,
            client.stream(
                call.method,
                url.copy_with(host=address),
                headers={**headers, "Host": url.netloc.decode()},
                content=body,
                extensions={"sni_hostname": host},
            ) as response,
        ):
            return WebhookAnswer(response.status_code, await _data(response))


async def _data(response: httpx2.Response) -> Mapping[str, Any]:
    """Return the JSON object in the answer. What is compressed is not opened: it may be far longer than it looks."""
    read = bytearray()
    async for chunk in response.aiter_raw():
        read += chunk
        if len(read) > MOST_ANSWER_BYTES:
            return {}
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        return {}
    return read_object(bytes(read))


def read_object(raw: bytes) -> dict[str, Any]:
    """Return the JSON object that `raw` is, fit to be stored in either database; empty when it is none."""
    try:
        found = _storable(json.loads(raw))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _storable(value: Any) -> Any:
    """Return `value` without what Postgres refuses in JSON: the character NUL, half characters, and numbers that are none."""
    if isinstance(value, str):
        return value.replace("\x00", "").encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_storable(name): _storable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_storable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def is_public(address: str) -> bool:
    """Return whether an IP address lies outside every private, local or reserved network, in any form of writing."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return all(inner.is_global and not inner.is_multicast and not _is_reserved(inner) for inner in _inner(ip))


def _is_reserved(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(ip in network for network in RESERVED if network.version == ip.version)


def _inner(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Sequence[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return the IPv4 addresses that an IPv6 address leads to, else the address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return [ip]
    if ip.ipv4_mapped is not None:
        return [ip.ipv4_mapped]
    if ip in NAT64:
        return [ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)]
    if ip.sixtofour is not None:
        return [ip, ip.sixtofour]
    return [ip, *ip.teredo] if ip.teredo is not None else [ip]


def idempotency_key(*parts: object) -> str:
    """Return a key that is the same for the same parts, and tells nothing about them."""
    if not parts:
        raise InvalidInput("An idempotency key is made of something; give what the call is about.")
    return hashlib.sha256(":".join(str(part) for part in parts).encode()).hexdigest()[:40]
