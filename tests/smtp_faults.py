"""A real SMTP server that can be told to misbehave at any moment of a conversation."""

import asyncio
import ssl
import warnings
from collections import defaultdict, deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

DROP = "drop"
HANG = "hang"


class Moment(StrEnum):
    connect = "connect"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"  # before 354
    body = "body"  # after 354, before anything of the message is read
    dot = "dot"  # the whole message is read, nothing is kept
    kept = "kept"  # the message is kept, no reply was given
    replied = "replied"  # after the 250
    RSET = "RSET"


@dataclass
class FaultySmtpServer:
    """`accepted` holds (sender, recipient, bytes) of what was kept. `password` turns on AUTH for the user "brand"; `logins` were tried."""

    password: str = ""
    pipelining: bool = False
    tls_context: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    logins: list[object] = field(default_factory=list)
    accepted: list[tuple[str, str, bytes]] = field(default_factory=list)
    opened_count: int = 0
    most_open: int = 0
    port: int = 0
    seen: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _faults: dict[Moment, deque[str]] = field(default_factory=lambda: defaultdict(deque))
    _open: set["_Conversation"] = field(default_factory=set)
    _server: asyncio.Server | None = None
    _happened: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> int:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Conversation(self, loop), self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self.port

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self.hang_up()
            self._server = None

    def at(self, moment: Moment, *faults: str) -> None:
        """Do these at the next times that `moment` comes: an SMTP reply, DROP, HANG, or "" for nothing unusual."""
        self._faults[moment].extend(faults)

    async def hang_up(self) -> None:
        """Close every connection and wait until all are gone."""
        for conversation in list(self._open):
            if conversation.transport is not None:
                conversation.transport.close()
        while self._open:
            await asyncio.sleep(0)

    async def say(self, words: str) -> None:
        """Send words that nobody asked for over every connection."""
        for conversation in self._open:
            await conversation.push(words)

    async def reached(self, moment: Moment, times: int = 1) -> None:
        """Return once `moment` has come `times` times."""
        while self.seen[moment] < times:
            self._happened.clear()
            await self._happened.wait()

    async def strike(self, moment: Moment, conversation: "_Conversation") -> bool:
        """Do what was told for this moment; True when the conversation must not go on as usual."""
        self.seen[moment] += 1
        self._happened.set()
        fault = self._faults[moment].popleft() if self._faults[moment] else ""
        if fault == DROP:
            assert conversation.transport is not None
            conversation.transport.abort() if moment is Moment.body else conversation.transport.close()
        elif fault == HANG:
            await asyncio.Event().wait()
        elif fault:
            await conversation.push(fault)
            if fault.startswith("421") and conversation.transport is not None:
                conversation.transport.close()
        return bool(fault)


class _Conversation(SMTP):
    def __init__(self, server: FaultySmtpServer, loop: asyncio.AbstractEventLoop) -> None:
        self.faulty = server
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # aiosmtpd advises against a login without TLS, as do we
            super().__init__(
                _Keep(server),
                enable_SMTPUTF8=True,
                data_size_limit=2**27,
                hostname="faulty.example",
                loop=loop,
                tls_context=server.tls_context,
                auth_required=bool(server.password),
                auth_require_tls=server.tls_context is not None,
                authenticator=self.check if server.password else None,
            )

    def check(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, auth: Any) -> AuthResult:
        self.faulty.logins.append(auth)
        right = isinstance(auth, LoginPassword) and auth == LoginPassword(b"brand", self.faulty.password.encode())
        return AuthResult(success=right, handled=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self not in self.faulty._open:  # STARTTLS comes here a second time
            self.faulty.opened_count += 1
            self.faulty._open.add(self)
            self.faulty.most_open = max(self.faulty.most_open, len(self.faulty._open))
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.faulty._open.discard(self)
        super().connection_lost(error)

    async def _handle_client(self) -> None:
        if not await self.faulty.strike(Moment.connect, self):
            await super()._handle_client()

    async def smtp_MAIL(self, arg: str | None) -> None:
        if not await self.faulty.strike(Moment.MAIL, self):
            await super().smtp_MAIL(arg)

    async def smtp_RCPT(self, arg: str | None) -> None:
        if not await self.faulty.strike(Moment.RCPT, self):
            await super().smtp_RCPT(arg)

    async def smtp_DATA(self, arg: str) -> None:
        if await self.faulty.strike(Moment.DATA, self):
            return
        if self.faulty._faults[Moment.body]:
            assert self.transport is not None
            await self.push("354 go on")
            self.transport.pause_reading()
            await self.faulty.strike(Moment.body, self)
            return
        await super().smtp_DATA(arg)
        await self.faulty.strike(Moment.replied, self)

    async def smtp_RSET(self, arg: str) -> None:
        if not await self.faulty.strike(Moment.RSET, self):
            await super().smtp_RSET(arg)


@dataclass
class _Keep:
    server: FaultySmtpServer

    async def handle_EHLO(self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]) -> list[str]:
        session.host_name = hostname
        return ["250-PIPELINING", *responses] if self.server.pipelining else responses

    async def handle_DATA(self, conversation: _Conversation, session: Session, envelope: Envelope) -> str:
        fault = self.server._faults[Moment.dot][0] if self.server._faults[Moment.dot] else ""
        if fault and fault not in {DROP, HANG}:
            self.server.seen[Moment.dot] += 1
            return self.server._faults[Moment.dot].popleft()
        if await self.server.strike(Moment.dot, conversation):
            return "250 never sent"
        self.server.accepted.append((envelope.mail_from or "", envelope.rcpt_tos[0], envelope.original_content or b""))
        await self.server.strike(Moment.kept, conversation)
        return "250 2.0.0 Ok: queued as 4Wx1"
