"""The part of an SMTP conversation that carries messages: pipelined, and exact about what may have reached the server.

aiosmtplib greets, encrypts and logs in; then this takes the connection over. The library sends the end-of-data marker together with the
body, so after a broken connection nobody could tell whether the server may hold the whole message; and it waits for each reply before
the next command, which makes a mail take four round trips where RFC 2920 allows two.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

MAX_REPLY_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Reply:
    """The server's answer to one command, its lines joined."""

    code: int
    text: str


class Refusal(Exception):
    """The server answered, and the answer is no."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code


class Conversation(asyncio.Protocol):
    """One connection that is ready for MAIL, for one message at a time. `step` tells how far the message under way has come.

    `handed_over` is True from the moment the end-of-data marker may have left until a reply to it is read.
    """

    def __init__(self, transport: asyncio.WriteTransport, extensions: frozenset[str], timeout_seconds: float) -> None:
        self.step = ""
        self.handed_over = False
        self._extensions = extensions
        self._timeout_seconds = timeout_seconds
        self._transport = transport
        self._buffer = bytearray()
        self._lines: list[str] = []
        self._replies: deque[Reply] = deque()
        self._changed: asyncio.Future[None] | None = None
        self._paused = False
        self._lost = ""
        transport.set_write_buffer_limits(
            high=1, low=0
        )  # "not paused" means that the socket has taken everything; TLS never resumes from 0
        transport.set_protocol(self)

    @property
    def is_open(self) -> bool:
        """True while the connection can carry a message, as far as is known here. Words that nobody asked for are a farewell."""
        return not (self._lost or self._transport.is_closing() or self._replies or self._lines or self._buffer)

    def close(self) -> None:
        """Close without a word."""
        self._lose("The connection was closed here")

    async def ask(self, command: bytes) -> Reply:
        """Return the answer to one command between messages. Errors: ConnectionError, TimeoutError; then the connection is closed."""
        try:
            self._write(command + b"\r\n")
            return await self._reply()
        except BaseException:
            self.close()
            raise

    async def send(self, sender: str, recipient: str, data: bytes) -> Reply:
        """Return the server's 2xx to the whole message. `data` has CRLF line ends and ends with one.

        Errors: Refusal; ConnectionError and TimeoutError. After these two, or when cancelled, the connection is closed.
        """
        try:
            self.step, self.handed_over = "MAIL FROM", False
            await self._open(b"FROM:<%b>%b" % (sender.encode(), self._options(sender, recipient, data)), b"TO:<%b>" % recipient.encode())
            self.step = "the message's data"
            self._write(data.replace(b"\r\n.", b"\r\n.."))
            await self._written()
            self._write(b".\r\n")
            self.step, self.handed_over = "the end of the data", True
            reply = _expected(2, await self._reply())
        except Refusal:
            self.handed_over = False
            raise
        except BaseException:
            self.close()
            raise
        self.handed_over = False
        return reply

    def _options(self, sender: str, recipient: str, data: bytes) -> bytes:
        options = b" SIZE=%d" % len(data) if "size" in self._extensions else b""
        if sender.isascii() and recipient.isascii():
            return options
        if "smtputf8" not in self._extensions:
            raise Refusal(550, "5.6.7 the address is not ASCII and the server does not offer SMTPUTF8")
        return options + b" SMTPUTF8"

    async def _open(self, sender: bytes, recipient: bytes) -> None:
        steps = (("MAIL FROM", b"MAIL %b\r\n" % sender, 2), ("RCPT TO", b"RCPT %b\r\n" % recipient, 2), ("DATA", b"DATA\r\n", 3))
        pipelined = "pipelining" in self._extensions
        if pipelined:
            self._write(b"".join(command for _, command, _ in steps))
        for number, (step, command, expected) in enumerate(steps, start=1):
            self.step = step
            if not pipelined:
                self._write(command)
            try:
                _expected(expected, await self._reply())
            except Refusal:
                if pipelined:
                    await self._skip(len(steps) - number)
                raise

    async def _skip(self, reply_count: int) -> None:
        # The commands after the refused one are answered too. A server that says "go on" to DATA all the same waits for a message that
        # must not come, and one that says nothing more is of no use: both are left.
        try:
            replies = [await self._reply() for _ in range(reply_count)]
        except (ConnectionError, TimeoutError):
            self.close()
            return
        if replies and replies[-1].code < 400:
            self.close()

    def _write(self, data: bytes) -> None:
        if self._lost or self._transport.is_closing():
            raise ConnectionResetError(self._lost or "The connection is closing")
        self._transport.write(data)

    async def _written(self) -> None:
        await asyncio.sleep(0)  # one turn of the loop, which notices a connection that is already closed
        while self._paused and not self._lost:
            await self._change()
        if self._lost or self._transport.is_closing():
            raise ConnectionResetError(self._lost or "The connection is closing")

    async def _reply(self) -> Reply:
        while not self._replies:
            if self._lost:
                raise ConnectionResetError(self._lost)
            await self._change()
        return self._replies.popleft()

    async def _change(self) -> None:
        self._changed = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                await self._changed
        except TimeoutError as error:
            raise TimeoutError(f"nothing happened for {self._timeout_seconds:g} seconds") from error
        finally:
            self._changed = None

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _lose(self, why: str) -> None:
        self._lost = self._lost or why
        self._transport.close()
        self._wake()

    def data_received(self, data: bytes) -> None:
        """Collect replies; a line that is none ends the conversation."""
        self._buffer += data
        if len(self._buffer) > MAX_REPLY_BYTES or len(self._lines) > MAX_REPLY_BYTES // 4:
            return self._lose("The server's reply has no end")
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end]).rstrip()
            del self._buffer[: end + 1]
            if not line[:3].isdigit() or line[3:4] not in {b"", b" ", b"-"}:
                return self._lose(f"The server's reply is no SMTP: {line[:80].decode('utf-8', 'replace')}")
            self._lines.append(line[4:].decode("utf-8", "replace"))
            if line[3:4] != b"-":
                self._replies.append(Reply(int(line[:3]), " ".join(self._lines)))
                self._lines.clear()
                self._wake()
        return None

    def eof_received(self) -> None:
        """The server hung up."""
        self._lose("The server closed the connection")

    def connection_lost(self, error: Exception | None) -> None:
        """Raise in the waiting call that there will be no reply."""
        self._lose(f"The connection was lost{f': {error}' if error else ''}")

    def pause_writing(self) -> None:
        """The socket has not taken everything yet."""
        self._paused = True

    def resume_writing(self) -> None:
        """The socket has taken everything."""
        self._paused = False
        self._wake()


def _expected(hundreds: int, reply: Reply) -> Reply:
    if reply.code // 100 == hundreds:
        return reply
    if 400 <= reply.code <= 599:
        raise Refusal(reply.code, reply.text)
    raise ConnectionAbortedError(f"The server's reply makes no sense here: {reply.code} {reply.text}")
