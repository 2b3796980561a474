"""Connections to Prefect at the address and with the sign-in of distmark's settings, unless PREFECT_API_URL is set."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from distmark.machine.prefect import prefect_auth
from distmark.settings import get_settings


@contextmanager
def connected() -> Iterator[None]:
    """Within the block, Prefect's clients talk to this installation's Prefect."""
    settings = get_settings()
    chosen = {} if os.environ.get("PREFECT_API_URL") else {PREFECT_API_URL: settings.prefect_api_url}
    if os.environ.get("PREFECT_API_URL", settings.prefect_api_url) == settings.prefect_api_url:
        chosen |= {PREFECT_API_AUTH_STRING: auth} if (auth := prefect_auth(settings)) else {}
    with temporary_settings(chosen) if chosen else nullcontext():
        yield


@contextmanager
def prefect_client() -> Iterator[SyncPrefectClient]:
    """Give a client of this installation's Prefect. Errors while it is away are httpx's."""
    with connected(), get_client(sync_client=True) as client:
        yield client
