"""Connections to Prefect at the address of distmark's settings, unless PREFECT_API_URL is set."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from distmark.settings import get_settings


@contextmanager
def connected() -> Iterator[None]:
    """Within the block, Prefect's clients talk to this installation's Prefect."""
    if os.environ.get("PREFECT_API_URL"):
        yield
        return
    with temporary_settings({PREFECT_API_URL: get_settings().prefect_api_url}):
        yield


@contextmanager
def prefect_client() -> Iterator[SyncPrefectClient]:
    """Give a client of this installation's Prefect. Errors while it is away are httpx's."""
    with connected(), get_client(sync_client=True) as client:
        yield client
