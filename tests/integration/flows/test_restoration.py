"""After Prefect lost its database, or a deployment was deleted in the dashboard, contacts go on and get nothing twice."""

import asyncio
import uuid
from datetime import timedelta

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from sqlalchemy import update

from distmark.campaigns.table import Campaign
from distmark.clock import wall_now
from distmark.enrollments.table import Enrollment
from distmark.journeys.table import JourneyVersion, VersionStatus
from flows.connection import prefect_client
from flows.launch import launch
from flows.restoration import Restored, restore_deployments
from tests.shop import Shop
from tests.waiting import until

pytestmark = [pytest.mark.prefect, pytest.mark.filterwarnings("default")]

TWO_MAILS = "  - {id: first, send: email, message: one}\n  - {id: rest, wait: {for: 1 day}}\n  - {id: second, send: email, message: two}\n"
ONE_MAIL = "  - {id: first, send: email, message: one}\n"


async def restore(shop: Shop) -> Restored:
    def once() -> Restored:
        with temporary_settings({PREFECT_API_URL: shop.settings.prefect_api_url}), prefect_client() as client:
            return restore_deployments(shop.stage.db, client, shop.settings, shop.stage.clock.now())

    return await asyncio.to_thread(once)


def forget_in_prefect(shop: Shop, campaign: Campaign) -> None:
    """Point the version and its enrollments at a deployment and runs that Prefect does not have, as after the loss of its database."""
    with shop.stage.db.writing() as session:
        where = JourneyVersion.journey_id == campaign.journey_id
        session.execute(update(JourneyVersion).where(where).values(deployment_id=str(uuid.uuid4())))
        rows = session.execute(Enrollment.__table__.select().where(Enrollment.journey_id == campaign.journey_id)).all()
        for row in rows:
            if row.flow_run_id is not None:
                session.execute(update(Enrollment).where(Enrollment.id == row.id).values(flow_run_id=str(uuid.uuid4())))


async def test_contacts_inside_go_on_after_prefect_lost_everything(shop: Shop) -> None:
    campaign, hanako = await shop.open(TWO_MAILS), shop.stage.contact()
    shop.stage.enrol(campaign, hanako)
    async with shop.worker():
        await until(lambda: len(shop.stage.mail.accepted) == 1)
        await until(lambda: shop.stage.enrollment(hanako).step_id == "rest")
    forget_in_prefect(shop, campaign)

    restored, again = await restore(shop), await restore(shop)
    shop.stage.clock.move(timedelta(days=2))
    async with shop.worker():
        await until(lambda: shop.stage.enrollment(hanako).outcome == "completed")

    assert (restored, again) == (Restored(deployments=1, enrollments=1), Restored())
    assert [message.name for message in shop.stage.messages(hanako)] == ["one", "two"]
    assert len(shop.stage.mail.accepted) == 2


async def test_retired_version_with_somebody_inside_is_restored_and_an_empty_one_is_not(shop: Shop) -> None:
    full, empty = await shop.open(TWO_MAILS), await shop.open(TWO_MAILS)
    shop.stage.enrol(full, shop.stage.contact())
    for campaign in (full, empty):
        forget_in_prefect(shop, campaign)
    with shop.stage.db.writing() as session:
        session.execute(update(JourneyVersion).values(status=VersionStatus.retired))

    assert await restore(shop) == Restored(deployments=1)


async def test_version_that_cannot_be_read_stops_neither_the_others_nor_their_runs(shop: Shop) -> None:
    broken, sound = await shop.open(ONE_MAIL), await shop.open(ONE_MAIL)
    lost, well = shop.stage.contact(), shop.stage.contact()
    shop.stage.enrol(broken, lost)
    shop.stage.enrol(sound, well)
    for campaign in (broken, sound):
        forget_in_prefect(shop, campaign)
    with shop.stage.db.writing() as session:
        where = JourneyVersion.journey_id == broken.journey_id
        session.execute(
            update(JourneyVersion)
            .where(where)
            .values(source={"definition": "key: [", "templates": {}, "path": "broken"}, content_hash="0" * 64)
        )

    restored = await restore(shop)
    async with shop.worker():
        await until(lambda: shop.stage.enrollment(well).outcome == "completed")

    assert restored == Restored(deployments=1, failed=1)
    assert shop.stage.enrollment(lost).flow_run_id is None


async def test_deleted_deployment_stops_no_other_launch(shop: Shop) -> None:
    deleted, sound = await shop.open(ONE_MAIL), await shop.open(ONE_MAIL)
    first, second = shop.stage.contact(), shop.stage.contact()
    shop.stage.enrol(deleted, first)
    shop.stage.enrol(sound, second)
    forget_in_prefect(shop, deleted)

    launched = await launch(shop.stage.db, shop.client, "default", wall_now(), limit=1)
    await restore(shop)
    launched_after = await launch(shop.stage.db, shop.client, "default", wall_now())

    assert (launched, launched_after) == (1, 1)
    assert shop.stage.enrollment(first).flow_run_id is not None
