"""SMTP: a pool of reused connections, one recipient to a message, and an exact answer to "may it be sent again?"."""

import asyncio
import functools
import ipaddress
import re
import socket
import ssl
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NoReturn

import aiosmtplib
from aiosmtplib import SMTPException, SMTPHeloError, SMTPResponseException, SMTPServerDisconnected

from distmark.channels.base import OutgoingMessage, Receipt
from distmark.channels.email.mime import address, build
from distmark.channels.email.smtp_session import Conversation, Refusal
from distmark.clock import stopwatch
from distmark.errors import InvalidInput, PermanentDeliveryError, SettingsError, TemporaryDeliveryError, UncertainDelivery

MESSAGES_PER_CONNECTION = 100  # older docomo and SoftBank notices ask for at most 100 recipients a session
CHECK_AFTER_SECONDS = 10.0  # a connection idle longer is asked with RSET before it is trusted
FORGET_AFTER_SECONDS = 60.0  # one idle longer is dropped unasked: a firewall may have forgotten it, and asking would hang
CHECK_TIMEOUT_SECONDS = 5.0

# RFC 4954 and RFC 3207: the server wants a login or TLS. That says nothing about the message, so it waits until the setting is mended.
OUR_LOGIN = frozenset({454, 530, 534, 535, 538})
NO_TLS = "no_tls"  # the code of a refusal of our own
SERVICE_CLOSING = 421
BEFORE_DATA = frozenset({"MAIL FROM", "RCPT TO", "DATA"})

_ADDRESS = re.compile(r"<?[^\s<>@]+@[^\s<>@:,;]+>?")


class TlsMode(StrEnum):
    """The encryption of the connection."""

    auto = "auto"  # STARTTLS when the server offers it; without it no password is sent beyond this machine
    starttls = "starttls"  # STARTTLS, or nothing is sent
    on = "on"  # TLS from the first byte, port 465
    off = "off"


@dataclass(frozen=True, slots=True)
class _Envelope:
    sender: str
    recipient: str
    data: bytes


@dataclass(slots=True)
class _Connection:
    conversation: Conversation
    used_count: int = 0
    idle_since: float = 0.0
    needs_reset: bool = False


@dataclass(slots=True)
class _Pool:
    slots: asyncio.Semaphore
    idle: list[_Connection] = field(default_factory=list)
    closed: bool = False

    def give_back(self, connection: _Connection) -> None:
        connection.idle_since = stopwatch()
        if self.closed:
            connection.conversation.close()
        elif connection.conversation.is_open:
            self.idle.append(connection)


class _Stale(Exception):
    """A reused connection turned out to be closed before anything was handed over."""


class SmtpChannel:
    """Mail to one SMTP server over at most `connections` connections in each event loop that uses it.

    `timeout_seconds` bounds every single step: connecting, each command, and the wait for the reply to the finished data.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        username: str = "",
        password: str = "",
        tls: str = TlsMode.auto,
        connections: int = 4,
        timeout_seconds: float = 30.0,
        tls_context: ssl.SSLContext | None = None,
    ) -> None:
        if tls not in TlsMode.__members__:
            raise SettingsError(f"The setting smtp_tls is {tls!r}; it must be one of {', '.join(TlsMode)}.")
        self.peer = f"{host}:{port}"
        self._host, self._port = host, port
        self._username, self._password = username, password
        self._tls, self._tls_context = TlsMode(tls), tls_context
        self._connections = connections
        self._timeout_seconds = timeout_seconds
        self._pools: dict[asyncio.AbstractEventLoop, _Pool] = {}
        self._lock = threading.Lock()

    async def deliver(self, message: OutgoingMessage) -> Receipt:
        """Return once the server has answered 2xx to the whole message; see `Channel.deliver` for the errors.

        A refusal by 4xx, and everything that breaks before the end of the data, is temporary; 5xx is permanent; a connection that is lost
        or silent between the end of the data and its reply is uncertain. A refused login, greeting or TLS is temporary: it is about us.
        """
        envelope = _envelope(message)
        pool = self._pool()
        async with pool.slots:
            reused = await self._reusable(pool)
            if reused is not None:
                try:
                    return await self._submit(pool, reused, envelope)
                except _Stale:
                    pass  # closed while it was idle; nothing was handed over, so a fresh one may try
            return await self._submit(pool, await self._fresh(), envelope)

    async def ping(self) -> Receipt:
        """Return the server's reply to NOOP over a fresh connection, logged in as for a message. Errors: TemporaryDeliveryError."""
        connection = await self._fresh()
        try:
            reply = await connection.conversation.ask(b"NOOP")
        except (ConnectionError, TimeoutError) as error:
            raise TemporaryDeliveryError(f"The mail server {self.peer} answers, but not to NOOP: {_words(error)}.") from error
        await _quit(connection)
        return Receipt(code=str(reply.code), detail=_without_addresses(reply.text), peer=self.peer)

    async def close(self) -> None:
        """Close the connections of this event loop; those in use close when their message is through."""
        with self._lock:
            pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is None:
            return
        pool.closed = True
        while pool.idle:
            await _quit(pool.idle.pop())

    def _pool(self) -> _Pool:
        # Connections belong to the loop that opened them, so each loop has its own.
        loop = asyncio.get_running_loop()
        with self._lock:
            if loop not in self._pools:
                self._pools = {other: pool for other, pool in self._pools.items() if not other.is_closed()}
                self._pools[loop] = _Pool(asyncio.Semaphore(self._connections))
            return self._pools[loop]

    async def _reusable(self, pool: _Pool) -> _Connection | None:
        while pool.idle:
            connection = pool.idle.pop()
            if await _usable(connection):
                return connection
        return None

    async def _fresh(self) -> _Connection:
        client = await self._client()
        try:
            await client.connect()
            if self._username:
                self._require_privacy(client)
                await client.login(self._username, self._password)
            await _greet(client)
            if not isinstance(client.transport, asyncio.WriteTransport):
                raise SMTPServerDisconnected("Connection lost")
        except (SMTPException, OSError, UnicodeError) as error:
            client.close()
            self._unreachable(error)
        except BaseException:
            client.close()
            raise
        return _Connection(Conversation(client.transport, frozenset(client.esmtp_extensions), self._timeout_seconds))

    async def _client(self) -> aiosmtplib.SMTP:
        if self._tls_context is None and self._tls is not TlsMode.off:
            self._tls_context = await asyncio.to_thread(ssl.create_default_context)
        return aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            use_tls=self._tls is TlsMode.on,
            start_tls={TlsMode.auto: None, TlsMode.starttls: True}.get(self._tls, False),
            tls_context=self._tls_context,
            timeout=self._timeout_seconds,
            local_hostname=await asyncio.to_thread(_own_name),
        )

    def _require_privacy(self, client: aiosmtplib.SMTP) -> None:
        """Refuse to send the password in the clear: under `auto` an attacker can hide the offer of STARTTLS."""
        transport = client.transport
        encrypted = transport is not None and transport.get_extra_info("ssl_object") is not None
        if self._tls is TlsMode.auto and not encrypted and not _is_loopback(transport):
            raise TemporaryDeliveryError(
                f"The mail server {self.peer} offers no TLS, so the password is kept back; set smtp_tls to starttls or on, for a server "
                "that has it, or to off when nobody can listen on the way.",
                code=NO_TLS,
            )

    def _unreachable(self, error: Exception) -> NoReturn:
        code = str(error.code) if isinstance(error, SMTPResponseException) and error.code > 0 else None
        raise TemporaryDeliveryError(
            f"The mail server {self.peer} took no connection: {_words(error)}; see that it runs and that the smtp settings are right.",
            code=code,
        ) from error

    async def _submit(self, pool: _Pool, connection: _Connection, envelope: _Envelope) -> Receipt:
        reused = connection.used_count > 0
        connection.used_count += 1
        try:
            reply = await connection.conversation.send(envelope.sender, envelope.recipient, envelope.data)
        except Refusal as error:
            self._refused(pool, connection, error, reused)
        except (ConnectionError, TimeoutError) as error:
            self._broken(connection.conversation, error, reused)
        pool.give_back(connection)
        return Receipt(code=str(reply.code), detail=_without_addresses(reply.text), peer=self.peer)

    def _refused(self, pool: _Pool, connection: _Connection, error: Refusal, reused: bool) -> NoReturn:
        step = connection.conversation.step
        if error.code == SERVICE_CLOSING:
            connection.conversation.close()
            if reused and step in BEFORE_DATA:
                raise _Stale from error
        connection.needs_reset = True
        pool.give_back(connection)
        kind = PermanentDeliveryError if error.code >= 500 and error.code not in OUR_LOGIN else TemporaryDeliveryError
        raise kind(f"The mail server {self.peer} refused the message at {step}: {_words(error)}.", code=str(error.code)) from error

    def _broken(self, conversation: Conversation, error: Exception, reused: bool) -> NoReturn:
        if conversation.handed_over:
            raise UncertainDelivery(
                f"The mail server {self.peer} got the whole message and gave no reply ({_words(error)}); it may have been delivered, "
                "so look there before sending it again."
            ) from error
        if reused and isinstance(error, ConnectionError):
            raise _Stale from error
        raise TemporaryDeliveryError(
            f"The mail server {self.peer} broke off at {conversation.step}: {_words(error)}; nothing was handed over."
        ) from error


def _is_loopback(transport: asyncio.BaseTransport | None) -> bool:
    peer = transport.get_extra_info("peername") if transport is not None else None
    return peer is not None and ipaddress.ip_address(str(peer[0]).partition("%")[0]).is_loopback


def _envelope(message: OutgoingMessage) -> _Envelope:
    try:
        return _Envelope(sender=address(message.from_address), recipient=address(message.to_address), data=build(message))
    except InvalidInput as error:
        raise PermanentDeliveryError(f"The message {message.message_id} cannot be written as mail: {error}") from error


async def _usable(connection: _Connection) -> bool:
    conversation = connection.conversation
    idle_seconds = stopwatch() - connection.idle_since
    if not conversation.is_open or idle_seconds > FORGET_AFTER_SECONDS:
        conversation.close()
        return False
    if connection.used_count >= MESSAGES_PER_CONNECTION:
        await _quit(connection)
        return False
    return await _reset(connection) if connection.needs_reset or idle_seconds > CHECK_AFTER_SECONDS else True


async def _reset(connection: _Connection) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            reply = await connection.conversation.ask(b"RSET")
    except (ConnectionError, TimeoutError):  # it was only a spare; a fresh one takes its place
        return False
    if reply.code // 100 != 2:
        connection.conversation.close()
        return False
    connection.needs_reset = False
    return True


async def _quit(connection: _Connection) -> None:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            await connection.conversation.ask(b"QUIT")
    except (ConnectionError, TimeoutError):  # a goodbye that nobody hears changes nothing
        pass
    finally:
        connection.conversation.close()


async def _greet(client: aiosmtplib.SMTP) -> None:
    if not client.is_ehlo_or_helo_needed:
        return
    try:
        await client.ehlo()
    except SMTPHeloError:
        if not client.is_connected:
            raise
        await client.helo()


@functools.cache
def _own_name() -> str:
    # Asks DNS and may take seconds, so once for the process; aiosmtplib would ask for every connection.
    return socket.getfqdn()


def _words(error: Exception) -> str:
    if isinstance(error, SMTPResponseException):
        return _without_addresses(f"{error.code} {error.message}")
    return _without_addresses(str(error)) or type(error).__name__


def _without_addresses(text: str) -> str:
    # Servers quote the recipient in their replies; these words are stored and shown where addresses must not be.
    return _ADDRESS.sub("(address)", " ".join(text.split()))[:500]
