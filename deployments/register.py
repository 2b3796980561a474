"""Registering: one Prefect deployment per approved journey version, and one per system flow. Safe to repeat."""

from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.exceptions import ObjectNotFound

from distmark.compliance.service import mark_registered, require_approved
from distmark.db import Database
from distmark.errors import NotFound
from distmark.journeys.service import program_of
from distmark.journeys.table import JourneyVersion
from distmark.partners.model import Viewer
from distmark.settings import get_settings
from flows.connection import prefect_client
from flows.deployment import create_deployment, ensure_pool

UPKEEP_EVERY = timedelta(minutes=1)
SEARCHED = timedelta(days=400)  # the dashboard looks by the time of the entry, and a journey may last a year
ENTRIES_EVERY = timedelta(seconds=15)


def register_version(db: Database, version_id: int, viewer: Viewer | None = None) -> str:
    """Make the version's Prefect deployment and open it for entrants; return the deployment's id.

    Errors: NotFound, Refused when the version is not approved or its content is no longer what was approved.
    """
    settings, clock = get_settings(), get_settings().clock()
    with db.reading() as session:
        version = session.get(JourneyVersion, version_id)
        if version is None:
            raise NotFound(f"There is no journey version {version_id}.")
        require_approved(version)
        program = program_of(session, version_id)
    with prefect_client() as client:
        deployment_id = create_deployment(client, settings, version, program)
    with db.writing() as session:
        mark_registered(session, version_id, deployment_id, clock.now(), viewer=viewer)
    return deployment_id


def register_system_flows() -> None:
    """Make the deployments of the entries, results and upkeep flows, on their schedules."""
    settings = get_settings()
    from flows.entries import entries
    from flows.results import results
    from flows.upkeep import upkeep

    every = {"results": timedelta(seconds=settings.results_every_seconds), "upkeep": UPKEEP_EVERY, "entries": ENTRIES_EVERY}
    with prefect_client() as client:
        ensure_pool(client, settings.system_pool, "distmark's own flows: entries, results and upkeep.")
        for flow in (results, upkeep, entries):
            client.create_deployment(
                flow_id=client.create_flow_from_name(flow.name),
                name="system",
                work_pool_name=settings.system_pool,
                work_queue_name="default",
                tags=[f"system:{flow.name}"],
                description=flow.description,
                entrypoint=f"flows/{flow.name}.py:{flow.name}",
                schedules=[DeploymentScheduleCreate(schedule=IntervalSchedule(interval=every[flow.name]), active=True)],
                enforce_parameter_schema=False,
            )
        save_searches(client, settings.work_pool)


def save_searches(client: SyncPrefectClient, pool: str) -> None:
    """Save the dashboard's searches for the runs of contacts, without those of the system: all of them, and those to look after."""
    for name, states in (("Journeys", []), ("Journeys to look after", ["Parked", "Failed", "Crashed"])):
        wanted = {"workPool": [pool], "state": states, "range": {"type": "span", "seconds": -int(SEARCHED.total_seconds())}}
        common = {"object": "flowRun", "type": "", "operation": ""}
        filters = [{**common, "property": key, "value": value} for key, value in wanted.items() if value]
        client.request("PUT", "/saved_searches/", json={"name": name, "filters": filters})


def run_now(flow_name: str) -> str:
    """Ask for one run of a system flow at once, and return the run's id."""
    with prefect_client() as client:
        try:
            deployment = client.read_deployment_by_name(f"{flow_name}/system")
        except ObjectNotFound as error:
            raise NotFound(f'There is no system flow "{flow_name}" registered; run `distmark init`.') from error
        return str(client.create_flow_run_from_deployment(deployment.id).id)
