"""Assembly of the parts of a worker process from its settings: database, clock, channels, sender, integrations."""

import os
import socket
import uuid
from functools import cache

from distmark.channels.base import Channel
from distmark.channels.email.smtp import SmtpChannel
from distmark.channels.sms.mailbox import MailboxSmsChannel
from distmark.db import get_database
from distmark.delivery.service import Sender
from distmark.engine.effects import integrations_of
from distmark.engine.wake import EngineContext
from distmark.mailbox.store import MailboxStore
from distmark.settings import Mode, Settings, get_settings


def make_channels(settings: Settings) -> dict[str, Channel]:
    """Return the channels by name. SMS is kept for the mailbox page outside production; in production it needs a provider."""
    channels: dict[str, Channel] = {
        "email": SmtpChannel(
            host=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_username,
            password=settings.smtp_password.get_secret_value(),
            tls=settings.smtp_tls,
            connections=settings.smtp_connections,
            timeout_seconds=settings.smtp_timeout_seconds,
        )
    }
    if settings.mode is not Mode.production:
        channels["sms"] = MailboxSmsChannel(MailboxStore(settings.data_dir / "mailbox.sqlite3"))
    return channels


def worker_name(queue: str) -> str:
    """Return a name unique to this process: queue, host, process id and random letters. Claims carry it."""
    return f"{queue}@{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


@cache
def get_engine_context() -> EngineContext:
    """Return the engine context of this process, made once."""
    settings = get_settings()
    return EngineContext(
        db=get_database(),
        clock=settings.clock(),
        channels=make_channels(settings),
        sender=Sender(settings.base_url, settings.mail_from, settings.mail_domain),
        worker=worker_name(settings.work_queue),
        integrations=integrations_of(settings),
    )
