"""An SMTP server that takes every mail and keeps only when it came, for whom, and its Message-ID: `python -m tests.bench.sink FILE`.

The project's own catcher stores each mail durably and would be half of what is measured. A line of the file is "SECONDS ADDRESS MESSAGE-ID
BYTES", written before the mail is answered for; seconds are the wall clock's, since 1970.
"""

import asyncio
import re
import signal
import sys
import time
from pathlib import Path
from typing import IO

MESSAGE_ID = re.compile(rb"^message-id:\s*(\S+)", re.IGNORECASE | re.MULTILINE)
END = b"\r\n.\r\n"
ANSWERS = {b"EHLO": b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n", b"QUIT": b"221 2.0.0 Bye\r\n"}
ADDRESS = re.compile(rb"<([^>]*)>")


class Conversation(asyncio.Protocol):
    """One connection."""

    def __init__(self, log: IO[bytes]) -> None:
        self.log = log
        self.buffer = bytearray()
        self.reading = False
        self.recipient = b""
        self.seen = 0  # how much of a message's buffer was searched for its end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while self._take_message() if self.reading else self._take_command():
            pass

    def _take_command(self) -> bool:
        end = self.buffer.find(b"\r\n")
        if end < 0:
            return False
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 2]
        verb = line[:4].upper()
        if verb == b"RCPT" and (found := ADDRESS.search(line)):
            self.recipient = found[1]
        if verb == b"DATA":
            self.reading = True
            self.transport.write(b"354 Go on\r\n")
        else:
            self.transport.write(ANSWERS.get(verb, b"250 2.0.0 Ok\r\n"))
        return True

    def _take_message(self) -> bool:
        end = self.buffer.find(END, max(0, self.seen - len(END)))
        if end < 0:
            self.seen = len(self.buffer)
            return False
        found = MESSAGE_ID.search(self.buffer, 0, end)
        self.log.write(b"%.6f %b %b %d\n" % (time.time(), self.recipient, found[1] if found else b"-", end))
        self.log.flush()
        del self.buffer[: end + len(END)]
        self.reading, self.seen = False, 0
        self.transport.write(b"250 2.0.0 Ok\r\n")
        return True


async def serve(path: Path) -> None:
    """Take mail until SIGTERM; the first line on standard output is the port."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    with path.open("ab") as log:
        server = await loop.create_server(lambda: Conversation(log), "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await stop.wait()
        server.close()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
