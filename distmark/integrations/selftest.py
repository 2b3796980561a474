"""A signed webhook to ourselves: the calls of this installation arrive, and a receiver can verify them as the documentation says."""

import asyncio
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from distmark.clock import wall_now
from distmark.errors import DistmarkError
from distmark.integrations.webhooks import SIGNATURE, HttpWebhooks, WebhookCall, is_signed
from distmark.settings import Settings

SECONDS = 5
MADE_HERE = "made here"


class _Receiver(ThreadingHTTPServer):
    """Answers 204 to a call that is signed with the key named by its path, else 401."""

    def __init__(self, keys: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.keys = [*keys.values()]


class _Handler(BaseHTTPRequestHandler):
    server: _Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        key = self.server.keys[int(self.path.strip("/"))]
        verified = is_signed(key, self.headers.get(SIGNATURE, ""), body, int(wall_now().timestamp()))
        self.send_response(204 if verified else 401)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Write nothing."""


def wrongly_signed(settings: Settings) -> list[str]:
    """Return the names of the configured keys whose signed call to ourselves was not verified; empty when all were.

    Where no key is configured one is made, so that the way itself is looked at.
    """
    keys = {name: secret.get_secret_value().encode() for name, secret in settings.webhook_secrets.items()}
    keys = keys or {MADE_HERE: secrets.token_bytes(32)}
    try:
        with _receiving(keys) as port:
            return asyncio.run(_call_each(keys, port))
    except OSError:  # no port may be opened
        return list(keys)


@contextmanager
def _receiving(keys: dict[str, bytes]) -> Iterator[int]:
    with _Receiver(keys) as receiver:
        thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield receiver.server_port
        finally:
            receiver.shutdown()
            thread.join()


async def _call_each(keys: dict[str, bytes], port: int) -> list[str]:
    webhooks = HttpWebhooks(keys.__getitem__, allow_private=True)
    return [name for place, name in enumerate(keys) if not await _is_verified(webhooks, f"http://127.0.0.1:{port}/{place}", name)]


async def _is_verified(webhooks: HttpWebhooks, url: str, name: str) -> bool:
    call = WebhookCall(url, "POST", secrets.token_hex(8), body={"from": "doctor"}, secret=name, timeout_seconds=SECONDS)
    try:
        return (await webhooks.call(call)).ok
    except DistmarkError:
        return False
