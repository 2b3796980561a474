"""A journey with a real mail, and very many contacts in it, in runs that Prefect knows."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import update
from sqlmodel import col, select

from distmark.campaigns.table import Campaign
from distmark.clock import wall_now
from distmark.enrollments.table import Enrollment
from distmark.entries.service import enrol
from distmark.journeys.table import JourneyVersion
from distmark.sql import batches, id_of
from tests import factories
from tests.bench.stand import WAITING, Plant, real_journey
from tests.driver import Stage

MAIL = "gym-new-year"
SEND = "  - {id: offer, send: email, message: offer, editable: [personal_note]}\n"
AT_ONCE = 10_000


def mail_campaign(stage: Stage, per_run: int, steps: str = SEND + WAITING) -> Campaign:
    """Return an open campaign of a sample journey that sends its first mail and waits."""
    with stage.db.writing() as session:
        version = factories.make_version(session, session.get_one(type(stage.brand), stage.brand.id), source=real_journey(MAIL, steps))
        return factories.make_campaign(session, version, contacts_per_run=per_run)


def version_of(stage: Stage, campaign: Campaign) -> int:
    """Return the campaign's one version."""
    with stage.db.reading() as session:
        (version_id,) = session.exec(select(JourneyVersion.id).where(JourneyVersion.journey_id == campaign.journey_id))
        return version_id or 0


def enrolled(stage: Stage, campaign: Campaign, contact_ids: Sequence[int], due_at: datetime | None = None) -> None:
    """Enter the contacts, to be woken at once or at a given time."""
    stage.clock.move_to(wall_now())
    for part in batches(contact_ids, AT_ONCE):
        with stage.db.writing() as session:
            enrol(session, stage.viewer, id_of(campaign), part, stage.clock.now())
    if due_at is not None:
        with stage.db.writing() as session:
            mine = update(Enrollment).where(col(Enrollment.campaign_id) == campaign.id)
            session.execute(mine.values(due_at=due_at))


def run_keys(stage: Stage, campaign: Campaign) -> list[str]:
    """Return the runs of the campaign's enrollments."""
    with stage.db.reading() as session:
        return list(session.exec(select(Enrollment.run_key).where(Enrollment.campaign_id == campaign.id).distinct()))


async def launched(here: Plant, at: datetime) -> int:
    """Create the flow runs of all enrollments, scheduled for `at`, and return how many."""
    from prefect.client.orchestration import get_client

    from flows.launch import launch

    count = 0
    async with get_client() as client:
        while created := await launch(here.db, client, "default", at):
            count += created
    return count
