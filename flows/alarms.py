"""Alarms and Prefect: each notice as an event that automations can act on, and alarms while Prefect is away."""

import asyncio

from prefect.client.orchestration import PrefectClient
from prefect.events import emit_event

from distmark.clock import Clock
from distmark.db import Database
from distmark.operations.alerts import AlarmNotice, announce_alarms


def raise_alarms(db: Database, clock: Clock, webhook: str) -> tuple[int, int]:
    """Announce alarms to the webhook and as Prefect events, and return how many were raised and cleared."""
    return announce_alarms(db, clock, webhook, emit)


async def raise_alarms_without_prefect(db: Database, clock: Clock, webhook: str, client: PrefectClient) -> int:
    """Announce alarms to the webhook alone while Prefect does not answer, and return how many were raised and cleared.

    Returns 0 while Prefect answers: upkeep, a flow that Prefect starts, announces them then. No event is emitted, since none would arrive.
    """
    if await client.api_healthcheck() is None:
        return 0
    return sum(await asyncio.to_thread(announce_alarms, db, clock, webhook))


def emit(notice: AlarmNotice) -> None:
    """Emit the notice as a Prefect event about the journey version."""
    resource = {"prefect.resource.id": f"distmark.journey.{notice.journey}.v{notice.version}", "prefect.resource.name": notice.journey}
    emit_event(event=notice.event, resource=resource, payload=notice.body)
