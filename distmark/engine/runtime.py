"""Assembly of the parts of a worker process from its settings: database, clock, channels, sender, integrations."""

import os
import socket
import uuid
from functools import cache

from distmark.channels.registry import make_channels
from distmark.db import get_database
from distmark.delivery.service import Sender
from distmark.engine.effects import integrations_of
from distmark.engine.wake import EngineContext
from distmark.settings import get_settings


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
