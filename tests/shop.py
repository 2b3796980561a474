"""A brand's journey on a real Prefect server, with a worker."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, temporary_settings
from sqlalchemy import update

from distmark.campaigns.table import Campaign
from distmark.clock import FixedClock, wall_now
from distmark.db import Database
from distmark.journeys.table import JourneyVersion
from distmark.settings import Mode, Settings
from flows.worker import JourneyWorker
from tests.driver import Stage

SHOP_STEPS = (
    "  - {id: first, send: email, message: one}\n"
    "  - {id: booking, wait: {event: booked, timeout: 7 days}}\n"
    "  - {id: second, send: email, message: two}\n"
)
EVENTS = "events: [booked]"


@dataclass
class Shop:
    """A stage whose runs live in Prefect, in a work pool of its own."""

    stage: Stage
    client: PrefectClient
    pool: str
    settings: Settings

    async def open(self, steps: str = SHOP_STEPS, head: str = EVENTS, **campaign: object) -> Campaign:
        made = self.stage.journey(steps, head, **campaign)
        flow_id = await self.client.create_flow_from_name(f"trial-{self.pool}")
        deployment_id = await self.client.create_deployment(
            flow_id=flow_id, name=uuid.uuid4().hex, work_pool_name=self.pool, work_queue_name="default", enforce_parameter_schema=False
        )
        with self.stage.db.writing() as session:
            session.execute(
                update(JourneyVersion).where(JourneyVersion.journey_id == made.journey_id).values(deployment_id=str(deployment_id))
            )
        return made

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[JourneyWorker]:
        worker = JourneyWorker(
            work_pool_name=self.pool,
            work_queues=["default"],
            name=f"worker-{self.pool}",
            context=self.stage.context,
            settings=self.settings,
        )
        task = asyncio.create_task(worker.start(printer=lambda *_: None))
        try:
            yield worker
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def run_of(self, contact: Any) -> Any:
        return await self.client.read_flow_run(uuid.UUID(self.stage.enrollment(contact).flow_run_id))


@pytest.fixture
async def shop(prefect_api: str, db: Database, tmp_path: Path) -> AsyncIterator[Shop]:
    pool = f"pool-{uuid.uuid4().hex[:8]}"
    clock = FixedClock(wall_now())
    settings = Settings(mode=Mode.test, data_dir=tmp_path, prefect_api_url=prefect_api, poll_seconds=0.1, work_pool=pool)
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        async with get_client() as client:
            await client.create_work_pool(WorkPoolCreate(name=pool, type=JourneyWorker.type))
            yield Shop(Stage(db, clock), client, pool, settings)
