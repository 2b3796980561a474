"""SMTP: a pool of reused connections, one recipient to a message, and an exact answer to "may it be sent again?"."""

import asyncio
import functools
import re
import socket
import ssl
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NoReturn
from weakref import WeakKeyDictionary

import aiosmtplib
from aiosmtplib import SMTPException, SMTPHeloError, SMTPResponseException, SMTPServerDisconnected, SMTPTimeoutError

from distmark.clock import stopwatch
from distmark.delivery.channel import OutgoingMessage, Receipt
from distmark.delivery.mime import address, build
from distmark.errors import InvalidInput, PermanentDeliveryError, SettingsError, TemporaryDeliveryError, UncertainDelivery

MESSAGES_PER_CONNECTION = 100  # older docomo and SoftBank notices ask for at most 100 recipients a session
CHECK_AFTER_SECONDS = 10.0  # a connection idle longer is asked with RSET before it is trusted
FORGET_AFTER_SECONDS = 60.0  # one idle longer is dropped unasked: a firewall may have forgotten it, and asking would hang
CHECK_TIMEOUT_SECONDS = 5.0

# RFC 4954 and RFC 3207: the server wants a login or TLS. That says nothing about the message, so it waits until the setting is mended.
OUR_LOGIN = frozenset({454, 530, 534, 535, 538})
SERVICE_CLOSING = 421

_ADDRESS = re.compile(r"<?[^\s<>@]+@[^\s<>@:,;]+>?")


class TlsMode(StrEnum):
    """How the connection is encrypted."""

    auto = "auto"  # STARTTLS when the server offers it
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
    client: aiosmtplib.SMTP
    used_count: int = 0
    idle_since: float = 0.0
    needs_reset: bool = False
    step: str = ""  # of the conversation under way
    handed_over: bool = False  # the end-of-data marker may have reached the server and its reply was not read


@dataclass(slots=True)
class _Pool:
    slots: asyncio.Semaphore
    idle: list[_Connection] = field(default_factory=list)
    closed: bool = False

    def give_back(self, connection: _Connection) -> None:
        connection.idle_since = stopwatch()
        if self.closed:
            connection.client.close()
        elif connection.client.is_connected:
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
        self._pools: WeakKeyDictionary[asyncio.AbstractEventLoop, _Pool] = WeakKeyDictionary()
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
                    return await self._hand_over(pool, reused, envelope)
                except _Stale:
                    pass  # closed while it was idle; nothing was handed over, so a fresh one may try
            return await self._hand_over(pool, await self._fresh(), envelope)

    async def ping(self) -> Receipt:
        """Return the server's reply to NOOP over a fresh connection, logged in as for a message. Errors: TemporaryDeliveryError."""
        connection = await self._fresh()
        try:
            reply = await connection.client.noop()
        except (SMTPException, OSError) as error:
            raise TemporaryDeliveryError(f"The mail server {self.peer} answers, but not to NOOP: {_words(error)}.") from error
        finally:
            await _quit(connection)
        return Receipt(code=str(reply.code), detail=_one_line(reply.message), peer=self.peer)

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
            pool = self._pools.get(loop)
            if pool is None:
                pool = self._pools[loop] = _Pool(asyncio.Semaphore(self._connections))
            return pool

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
            await _greet(client)
        except (SMTPException, OSError, UnicodeError) as error:
            client.close()
            self._unreachable(error)
        except BaseException:
            client.close()
            raise
        return _Connection(client)

    async def _client(self) -> aiosmtplib.SMTP:
        if self._tls_context is None and self._tls is not TlsMode.off:
            self._tls_context = await asyncio.to_thread(ssl.create_default_context)
        return aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            username=self._username or None,
            password=self._password if self._username else None,
            use_tls=self._tls is TlsMode.on,
            start_tls={TlsMode.auto: None, TlsMode.starttls: True}.get(self._tls, False),
            tls_context=self._tls_context,
            timeout=self._timeout_seconds,
            local_hostname=await asyncio.to_thread(_own_name),
        )

    def _unreachable(self, error: Exception) -> NoReturn:
        code = str(error.code) if isinstance(error, SMTPResponseException) and error.code > 0 else None
        raise TemporaryDeliveryError(
            f"The mail server {self.peer} took no connection: {_words(error)}; see that it runs and that the smtp settings are right.",
            code=code,
        ) from error

    async def _hand_over(self, pool: _Pool, connection: _Connection, envelope: _Envelope) -> Receipt:
        reused = connection.used_count > 0
        connection.used_count += 1
        connection.handed_over = False
        try:
            reply = await _converse(connection, envelope, self._timeout_seconds)
        except SMTPResponseException as error:
            self._refused(pool, connection, error, reused)
        except (SMTPException, OSError) as error:
            connection.client.close()
            self._broken(connection, error, reused)
        except BaseException:  # cancelled in the middle: what comes next on this connection would belong to this message
            connection.client.close()
            raise
        pool.give_back(connection)
        return Receipt(code=str(reply.code), detail=_one_line(reply.message), peer=self.peer)

    def _refused(self, pool: _Pool, connection: _Connection, error: SMTPResponseException, reused: bool) -> NoReturn:
        if not 400 <= error.code <= 599:  # no SMTP reply at all: garbled
            connection.client.close()
            self._broken(connection, error, reused)
        if error.code == SERVICE_CLOSING:
            connection.client.close()
            if reused and not connection.handed_over:
                raise _Stale from error
        connection.needs_reset = True
        pool.give_back(connection)
        kind = PermanentDeliveryError if error.code >= 500 and error.code not in OUR_LOGIN else TemporaryDeliveryError
        raise kind(
            f"The mail server {self.peer} refused the message at {connection.step}: {_words(error)}.", code=str(error.code)
        ) from error

    def _broken(self, connection: _Connection, error: Exception, reused: bool) -> NoReturn:
        if connection.handed_over:
            raise UncertainDelivery(
                f"The mail server {self.peer} got the whole message and gave no reply ({_words(error)}); it may have been delivered, "
                "so look there before sending it again."
            ) from error
        if reused and isinstance(error, ConnectionError):
            raise _Stale from error
        raise TemporaryDeliveryError(
            f"The mail server {self.peer} broke off at {connection.step}: {_words(error)}; nothing was handed over."
        ) from error


def _envelope(message: OutgoingMessage) -> _Envelope:
    try:
        return _Envelope(sender=address(message.from_address), recipient=address(message.to_address), data=build(message))
    except InvalidInput as error:
        raise PermanentDeliveryError(f"The message {message.message_id} cannot be written as mail: {error}") from error


async def _converse(connection: _Connection, envelope: _Envelope, timeout_seconds: float) -> aiosmtplib.SMTPResponse:
    client = connection.client
    connection.step = "MAIL FROM"
    await _command(client, b"MAIL", b"FROM:<" + envelope.sender.encode() + b">", *_mail_options(client, envelope))
    connection.step = "RCPT TO"
    await _command(client, b"RCPT", b"TO:<" + envelope.recipient.encode() + b">")
    connection.step = "DATA"
    await _command(client, b"DATA", expected=3)
    return await _send_data(connection, envelope.data, timeout_seconds)


def _mail_options(client: aiosmtplib.SMTP, envelope: _Envelope) -> list[bytes]:
    options = [b"SIZE=%d" % len(envelope.data)] if client.supports_extension("size") else []
    if not (envelope.sender.isascii() and envelope.recipient.isascii()):
        if not client.supports_extension("smtputf8"):
            raise SMTPResponseException(550, "5.6.7 the address is not ASCII and the server does not offer SMTPUTF8")
        options.append(b"SMTPUTF8")
    return options


async def _command(client: aiosmtplib.SMTP, *words: bytes, expected: int = 2) -> None:
    reply = await client.execute_command(*words)
    if reply.code // 100 != expected:
        raise SMTPResponseException(reply.code, reply.message)


async def _send_data(connection: _Connection, data: bytes, timeout_seconds: float) -> aiosmtplib.SMTPResponse:
    # Not `client.data()`: it writes the end-of-data marker together with the body, so that after a broken connection nobody can tell
    # whether the server may have the whole message. Here the marker goes out alone, once everything before it has left.
    connection.step = "the message's data"
    protocol, transport = connection.client.protocol, connection.client.transport
    if protocol is None or not isinstance(transport, asyncio.WriteTransport):
        raise SMTPServerDisconnected("Connection lost")
    protocol.write(data.replace(b"\r\n.", b"\r\n.."))
    await _written(transport, timeout_seconds)
    protocol.write(b".\r\n")
    connection.handed_over = True
    connection.step = "the end of the data"
    reply = await protocol.read_response(timeout=timeout_seconds)
    if not 200 <= reply.code <= 299:
        connection.handed_over = not 400 <= reply.code <= 599
        raise SMTPResponseException(reply.code, reply.message)
    return reply


async def _written(transport: asyncio.WriteTransport, timeout_seconds: float) -> None:
    deadline = stopwatch() + timeout_seconds
    pause = 0.0  # the first turn of the loop is free: it notices a connection that is already closed
    while True:
        await asyncio.sleep(pause)
        if transport.is_closing():
            raise SMTPServerDisconnected("Connection lost")
        if not transport.get_write_buffer_size():
            return
        if stopwatch() > deadline:
            raise SMTPTimeoutError("Timed out writing the message")
        pause = 0.005


async def _usable(connection: _Connection) -> bool:
    client = connection.client
    if not client.is_connected:
        return False
    idle_seconds = stopwatch() - connection.idle_since
    if connection.used_count >= MESSAGES_PER_CONNECTION:
        await _quit(connection)
        return False
    if idle_seconds > FORGET_AFTER_SECONDS:
        client.close()
        return False
    return await _reset(connection) if connection.needs_reset or idle_seconds > CHECK_AFTER_SECONDS else True


async def _reset(connection: _Connection) -> bool:
    try:
        await connection.client.rset(timeout=CHECK_TIMEOUT_SECONDS)
    except (SMTPException, OSError):  # it was only a spare; a fresh one takes its place
        connection.client.close()
        return False
    except BaseException:
        connection.client.close()
        raise
    connection.needs_reset = False
    return True


async def _quit(connection: _Connection) -> None:
    try:
        if connection.client.is_connected:
            await connection.client.quit(timeout=CHECK_TIMEOUT_SECONDS)
    except (SMTPException, OSError):  # a goodbye that nobody hears changes nothing
        pass
    finally:
        connection.client.close()


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
        return f"{error.code} {_one_line(error.message)}"
    return _one_line(str(error)) or type(error).__name__


def _one_line(text: str) -> str:
    # Servers quote the recipient in their replies; these words are stored and shown where addresses must not be.
    return _ADDRESS.sub("(address)", " ".join(text.split()))[:500]
