"""A real SMTP server that keeps every message. It answers 250 only when the message is on the disk."""

import argparse
import asyncio
import logging
import re
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

from distmark.clock import SystemClock
from distmark.mailbox.store import Incoming, MailboxStore, MessageKind

MAX_MESSAGE_BYTES = 33_554_432
IDLE_SECONDS = 0.5  # after so long without mail, what has come is decoded for those who will read it
READ_AT_ONCE = 20

_PLAIN_ADDRESS = re.compile(r"<([A-Za-z0-9_+.-]+@[A-Za-z0-9.-]+)>(.*)\Z")

log = logging.getLogger(__name__)


class Catcher:
    """An SMTP server on `host`:`port` that stores into `store`; port 0 takes a free one, and `port` tells which once it has started.

    Several messages that arrive together share one commit.
    """

    def __init__(self, store: MailboxStore, host: str = "127.0.0.1", port: int = 1025) -> None:
        self.store, self.host, self.port = store, host, port
        self._server: asyncio.Server | None = None
        self._keeper = _Keeper(store)
        self._keeping: asyncio.Task[None] | None = None
        self._open: set[asyncio.BaseTransport] = set()

    async def start(self) -> int:
        """Listen; return the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Conversation(self._keeper, self._open, loop), self.host, self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])
        self._keeping = asyncio.create_task(self._keeper.run())
        return self.port

    async def stop(self) -> None:
        """Take no more connections, keep what has been received, answer it, and hang up."""
        if self._server is None or self._keeping is None:
            return
        self._server.close()
        await self._keeper.finish(self._keeping)
        for transport in list(self._open):
            transport.close()
        await self._server.wait_closed()
        self._server = self._keeping = None


class _Keeper:
    """Takes messages from all conversations and stores those that came together in one transaction, in a thread."""

    def __init__(self, store: MailboxStore) -> None:
        self._store = store
        self._waiting: list[tuple[Incoming, asyncio.Future[None]]] = []
        self._arrived = asyncio.Event()
        self._finished = False

    async def keep(self, incoming: Incoming) -> None:
        """Return once `incoming` is on the disk; an error of the store is raised here."""
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((incoming, stored))
        self._arrived.set()
        await stored

    async def finish(self, running: asyncio.Task[None]) -> None:
        """Return once everything that waits is stored."""
        self._finished = True
        self._arrived.set()
        await running

    async def run(self) -> None:
        with ThreadPoolExecutor(1, "mailbox") as thread:
            while self._waiting or not self._finished:
                if self._waiting:
                    await self._store_waiting(thread)
                else:
                    await self._idle(thread)

    async def _store_waiting(self, thread: ThreadPoolExecutor) -> None:
        batch, self._waiting = self._waiting, []
        self._arrived.clear()
        try:
            await asyncio.get_running_loop().run_in_executor(thread, self._store.add_many, [incoming for incoming, _ in batch])
        except Exception as error:  # told to every conversation, which answers 451
            _settle(batch, error)
        else:
            _settle(batch, None)

    async def _idle(self, thread: ThreadPoolExecutor) -> None:
        more = True
        while more and not self._arrived.is_set():
            try:
                await asyncio.wait_for(self._arrived.wait(), IDLE_SECONDS if more is True else 0.01)
            except TimeoutError:
                more = await self._read_waiting(thread)
        await self._arrived.wait()

    async def _read_waiting(self, thread: ThreadPoolExecutor) -> bool:
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, self._store.read_waiting, READ_AT_ONCE) > 0
        except Exception:  # a full disk: without this loop no message would ever be answered again
            log.exception("could not read the messages that are kept")
            return False


def _settle(batch: list[tuple[Incoming, asyncio.Future[None]]], error: Exception | None) -> None:
    for _, stored in batch:
        if stored.done():  # the sender hung up meanwhile
            continue
        if error is None:
            stored.set_result(None)
        else:
            stored.set_exception(error)


@dataclass(frozen=True, slots=True)
class _Answers:
    """The handler that aiosmtpd calls for each message."""

    keeper: _Keeper

    async def handle_EHLO(self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]) -> list[str]:
        session.host_name = hostname
        return ["250-PIPELINING", *responses]  # commands are read from a buffer one by one, so they may come in one piece

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        incoming = Incoming(
            kind=MessageKind.mail,
            sender=envelope.mail_from or "",
            recipients=tuple(envelope.rcpt_tos),
            at=SystemClock().now(),
            raw=bytes(envelope.original_content or b""),
        )
        try:
            await self.keeper.keep(incoming)
        except Exception:
            log.exception("could not store a caught message")
            return "451 4.3.0 The mailbox cannot store the message now"
        return "250 2.0.0 Ok: kept"


class _Conversation(SMTP):
    """aiosmtpd's server, reading the message in large pieces: line by line it takes 2 ms for a mail of 40 KB."""

    line_length_limit = MAX_MESSAGE_BYTES  # the reader's buffer; commands keep their own limit

    def __init__(self, keeper: _Keeper, transports: set[asyncio.BaseTransport], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            _Answers(keeper),
            enable_SMTPUTF8=True,
            data_size_limit=MAX_MESSAGE_BYTES,
            hostname="mailbox",
            ident="distmark mailbox",
            loop=loop,
        )
        self._transports = transports

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transports.add(transport)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._transports.discard(self.transport)
        super().connection_lost(error)

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        # The parser of `email` takes a quarter of a millisecond for each of the two addresses of a message.
        plain = _PLAIN_ADDRESS.match(arg)
        return (plain.group(1), plain.group(2)) if plain else super()._getaddr(arg)

    async def smtp_DATA(self, arg: str) -> None:
        """Read the message, store it, answer."""
        if await self.check_helo_needed() or await self.check_auth_needed("DATA"):
            return
        envelope = self.envelope
        if arg or envelope is None or not envelope.rcpt_tos:
            await self.push("501 Syntax: DATA" if arg else "503 Error: need RCPT command")
            return
        await self.push("354 End data with <CR><LF>.<CR><LF>")
        envelope.original_content = await self._read_data()
        if envelope.original_content is None:
            answer = "552 5.3.4 The message is too large"
        else:
            answer = await self.event_handler.handle_DATA(self, self.session, envelope)
        self._set_post_data_state()  # type: ignore[no-untyped-call]
        await self.push(answer)

    async def _read_data(self) -> bytes | None:
        data = bytearray()
        too_large = False
        while True:
            try:
                data += await self._reader.readuntil(b".\r\n")
            except asyncio.LimitOverrunError as overrun:
                data += await self._reader.readexactly(overrun.consumed)
            if data == b".\r\n" or data.endswith(b"\r\n.\r\n"):
                return None if too_large else _unstuffed(bytes(data[:-3]))
            if len(data) > MAX_MESSAGE_BYTES:
                too_large = True
                del data[:-5]  # go on to the end of the data, which may begin in what is kept


def _unstuffed(data: bytes) -> bytes:
    # RFC 5321 4.5.2: the sender put one more dot before each dot that begins a line.
    return data.removeprefix(b".").replace(b"\r\n.", b"\r\n")


async def run_catcher(host: str, port: int, store: MailboxStore) -> None:
    """Catch mail until SIGTERM or SIGINT; say `listening on HOST:PORT` on one line once it does."""
    catcher = Catcher(store, host, port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await catcher.start()
    print(f"listening on {host}:{catcher.port}", flush=True)
    await stop.wait()
    await catcher.stop()


def main(arguments: list[str] | None = None) -> int:
    """Run the catcher from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m distmark.mailbox.catcher", description="Catch mail and keep it.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1025, help="0 takes a free port")
    parser.add_argument("--store", type=Path, required=True, metavar="PATH", help="the SQLite file to keep mail in")
    options = parser.parse_args(arguments)
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)  # aiosmtpd writes addresses there
    store = MailboxStore(options.store)
    try:
        asyncio.run(run_catcher(options.host, options.port, store))
    except OSError as error:
        print(f"The mailbox cannot listen on {options.host}:{options.port}: {error.strerror}; choose another port.", file=sys.stderr)
        return 1
    finally:
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
