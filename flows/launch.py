"""Launch of flow runs from a transactional outbox: enrollments without a run. Created in bulk, each once by its idempotency key."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from httpx import HTTPStatusError, codes
from prefect.client.orchestration import PrefectClient
from sqlalchemy import func, select, update
from sqlmodel import Session, col

from distmark.campaigns.table import Campaign
from distmark.db import Database
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.journeys.table import Journey, JourneyVersion
from distmark.partners.table import Partner
from flows.states import enrolled

JOURNEY_TAG = "journey"  # of every contact's run and of no run of the system: the dashboard's filter
BULK = 100  # Prefect's own limit per call
logger = logging.getLogger("distmark.launch")


@dataclass(frozen=True, slots=True)
class RunToLaunch:
    """One flow run to create. Holds ids and keys only, since Prefect stores and shows them."""

    run_key: str
    deployment_id: str
    name: str
    tags: tuple[str, ...]
    queue: str


async def launch(db: Database, client: PrefectClient, queue: str, now: datetime, limit: int = 1000) -> int:
    """Create the flow runs of enrollments that have none yet, oldest first, and return how many were created.

    After a crash between Prefect's answer and our record of it, the next call completes: Prefect knows the idempotency key and answers with
    the same run. Errors: those of the client when Prefect is away; then call again, nothing is lost.
    """
    created = 0
    lost: set[str] = set()
    while True:
        with db.reading() as session:
            waiting = runs_to_launch(session, queue, limit, lost)
        lost_before = len(lost)
        for deployment_id in dict.fromkeys(each.deployment_id for each in waiting):
            group = [each for each in waiting if each.deployment_id == deployment_id]
            try:
                created += await _launch_group(db, client, deployment_id, group, now)
            except HTTPStatusError as error:
                if error.response.status_code != codes.NOT_FOUND:
                    raise
                lost.add(deployment_id)
                logger.warning("Prefect has no deployment %s; upkeep makes it again, then its %s runs begin.", deployment_id, len(group))
        if len(lost) == lost_before:
            return created


async def _launch_group(db: Database, client: PrefectClient, deployment_id: str, group: Sequence[RunToLaunch], now: datetime) -> int:
    created = 0
    for start in range(0, len(group), BULK):
        made = await _create(client, deployment_id, group[start : start + BULK], now)
        with db.writing() as session:
            for run_key, flow_run_id in made.items():
                session.execute(update(Enrollment).where(col(Enrollment.run_key) == run_key).values(flow_run_id=flow_run_id))
        created += len(made)
    return created


def runs_to_launch(session: Session, queue: str, limit: int, lost: Collection[str] = ()) -> list[RunToLaunch]:
    """Return the runs that the queue's enrollments still need, oldest first, but those of `lost` deployments."""
    # Plain `select`: SQLModel's knows the types of at most four columns.
    rows = session.execute(
        select(
            col(Enrollment.run_key),
            col(JourneyVersion.deployment_id),
            col(JourneyVersion.number),
            col(Journey.key),
            col(Campaign.key),
            col(Partner.key),
            func.min(col(Enrollment.id)),
            func.count(),
        )
        .join(JourneyVersion, col(JourneyVersion.id) == col(Enrollment.version_id))
        .join(Journey, col(Journey.id) == col(Enrollment.journey_id))
        .join(Partner, col(Partner.id) == col(Enrollment.partner_id))
        .outerjoin(Campaign, col(Campaign.id) == col(Enrollment.campaign_id))
        .where(
            col(Enrollment.flow_run_id).is_(None),
            col(Enrollment.status) == EnrollmentStatus.waiting,  # an enrollment paused or stopped before its start needs no run
            col(Enrollment.queue) == queue,
            col(JourneyVersion.deployment_id).is_not(None),
            col(JourneyVersion.deployment_id).not_in(lost),
        )
        .group_by(
            col(Enrollment.run_key),
            col(JourneyVersion.deployment_id),
            col(JourneyVersion.number),
            col(Journey.key),
            col(Campaign.key),
            col(Partner.key),
        )
        .order_by(func.min(col(Enrollment.id)))
        .limit(limit)
    ).all()
    return [
        RunToLaunch(
            run_key=run_key,
            deployment_id=str(deployment_id),
            name=f"{journey} #{first}" if count == 1 else f"{journey} #{first}+{count - 1}",
            tags=(JOURNEY_TAG, f"journey:{journey}", f"version:{number}", f"campaign:{campaign or '-'}", f"partner:{partner}"),
            queue=queue,
        )
        for run_key, deployment_id, number, journey, campaign, partner, first, count in rows
    ]


async def _create(client: PrefectClient, deployment_id: str, runs: Sequence[RunToLaunch], now: datetime) -> dict[str, str]:
    state = enrolled(now)
    body = [
        {
            "name": run.name,
            "parameters": {"run_key": run.run_key},
            "enforce_parameter_schema": False,
            "idempotency_key": run.run_key,
            "tags": list(run.tags),
            "work_queue_name": run.queue,
            "state": {
                "type": state.type.value,
                "name": state.name,
                "state_details": {"scheduled_time": now.isoformat()},
            },
        }
        for run in runs
    ]
    path = f"/deployments/{deployment_id}/create_flow_run/bulk"  # not among the routes the client has types for
    response = await client.request("POST", path, json=body, timeout=60)  # type: ignore[arg-type]
    results = response.json()["results"]
    return {run.run_key: result["flow_run_id"] for run, result in zip(runs, results, strict=True) if result.get("status") == "CREATED"}
