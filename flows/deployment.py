"""The Prefect deployment of a journey version, and the work pools."""

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from distmark.errors import Refused
from distmark.journeys.program import Program
from distmark.journeys.table import JourneyVersion
from distmark.settings import Settings
from flows.journey import ENTRYPOINT, WORKER_TYPE, compile_journey


def create_deployment(client: SyncPrefectClient, settings: Settings, version: JourneyVersion, program: Program) -> str:
    """Make the version's deployment and its work pool, or find both, and return the deployment's id."""
    flow = compile_journey(version, program)
    ensure_pool(client, settings.work_pool, "Customer journeys. Pausing this pool holds everybody where they are.")
    deployment_id = client.create_deployment(
        flow_id=client.create_flow_from_name(flow.name),
        name=f"v{version.number}",
        version=str(version.number),
        description=flow.description,
        work_pool_name=settings.work_pool,
        work_queue_name=settings.work_queue,
        tags=[f"journey:{flow.name}", f"version:{version.number}"],
        entrypoint=ENTRYPOINT,
        parameter_openapi_schema={"type": "object", "properties": {"run_key": {"type": "string"}}, "required": ["run_key"]},
        enforce_parameter_schema=False,
    )
    return str(deployment_id)


def ensure_pool(client: SyncPrefectClient, name: str, description: str) -> None:
    """Make the work pool if it is missing. A pool of another type is refused: its runs would never wake."""
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        try:
            client.create_work_pool(WorkPoolCreate(name=name, type=WORKER_TYPE, description=description))
        except ObjectAlreadyExists:
            return
        return
    if pool.type != WORKER_TYPE:
        raise Refused(f'Work pool "{name}" is of type "{pool.type}", not "{WORKER_TYPE}"; choose another name in DISTMARK_WORK_POOL.')
