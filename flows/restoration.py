"""Restoration of deployments and runs that Prefect lost, with its whole database or by a deletion in the dashboard.

Journeys live in our database, so nothing is lost with Prefect's: a version whose deployment is gone gets another, and its enrollments get
new runs under their old keys. `upkeep` calls it each minute.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from sqlmodel import Session, col, exists, or_, select

from distmark.db import Database
from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.run_repairs import relaunch_runs
from distmark.enrollments.table import Enrollment
from distmark.journeys.service import program_of
from distmark.journeys.table import JourneyVersion, VersionStatus
from distmark.settings import Settings
from distmark.sql import id_of
from flows.deployment import create_deployment

PAGE = 200
logger = logging.getLogger("distmark.restoration")


@dataclass(frozen=True, slots=True)
class Restored:
    """Counts of one restoration: deployments made again, deployments that could not be, and enrollments that get new runs."""

    deployments: int = 0
    failed: int = 0
    enrollments: int = 0


def restore_deployments(db: Database, client: SyncPrefectClient, settings: Settings, now: datetime) -> Restored:
    """Make the deployments again that Prefect lost. A version that cannot be read is logged and counted; it stops no other."""
    with db.reading() as session:
        versions = _deployed(session)
    known = _known(client, "deployments", [str(version.deployment_id) for version in versions])
    restored = failed = enrollments = 0
    for version in versions:
        if str(version.deployment_id) in known:
            continue
        try:
            enrollments += _restore(db, client, settings, version, now)
            restored += 1
        except Exception:
            logger.exception("The deployment of version %s could not be restored.", version.id)
            failed += 1
    return Restored(restored, failed, enrollments)


def _deployed(session: Session) -> list[JourneyVersion]:
    """Return the versions that need a deployment: the registered, and those with somebody inside."""
    live = select(col(Enrollment.id)).where(Enrollment.version_id == JourneyVersion.id, Enrollment.status != EnrollmentStatus.ended)
    needed = or_(col(JourneyVersion.status) == VersionStatus.registered, exists(live))
    return list(session.exec(select(JourneyVersion).where(col(JourneyVersion.deployment_id).is_not(None), needed)))


def _restore(db: Database, client: SyncPrefectClient, settings: Settings, version: JourneyVersion, now: datetime) -> int:
    """Give the version a deployment, and its enrollments new runs where Prefect lost them; return how many enrollments."""
    version_id = id_of(version)
    with db.reading() as session:
        program = program_of(session, version_id)
    deployment_id = create_deployment(client, settings, version, program)
    relaunched, after = 0, ""
    while run_ids := _runs_of(db, version_id, after):
        known = _known(client, "flow_runs", run_ids)
        with db.writing() as session:
            relaunched += relaunch_runs(session, [run_id for run_id in run_ids if run_id not in known], now)
        after = run_ids[-1]
    with db.writing() as session:  # last: after a crash before it, the next restoration begins again and finds the same deployment
        row = session.get_one(JourneyVersion, version_id)
        row.deployment_id = deployment_id
        session.add(row)
    return relaunched


def _runs_of(db: Database, version_id: int, after: str) -> list[str]:
    """Return the next run ids of the version's live enrollments, ascending."""
    with db.reading() as session:
        mine = select(Enrollment.flow_run_id).where(Enrollment.version_id == version_id, Enrollment.status != EnrollmentStatus.ended)
        runs = mine.where(col(Enrollment.flow_run_id) > after).distinct().order_by(col(Enrollment.flow_run_id)).limit(PAGE)
        return [str(run_id) for run_id in session.exec(runs)]


def _known(client: SyncPrefectClient, kind: str, ids: Sequence[str]) -> set[str]:
    """Return those of the ids that Prefect has; `kind` is deployments or flow_runs."""
    found: set[str] = set()
    for start in range(0, len(ids), PAGE):
        part = list(ids[start : start + PAGE])
        body: dict[str, Any] = {kind: {"id": {"any_": part}}, "limit": PAGE}
        found.update(row["id"] for row in client.request("POST", f"/{kind}/filter", json=body).json())  # type: ignore[arg-type]
    return found
