"""Registration of approved versions as Prefect deployments, and the deployments of the system flows."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.importtools import import_object

from deployments.register import ENTRIES_EVERY, register_system_flows, register_version, run_now
from distmark.clock import wall_now
from distmark.db import Database
from distmark.errors import Refused
from distmark.journeys.service import program_of
from distmark.journeys.table import JourneyVersion, VersionStatus
from distmark.settings import Mode, Settings
from flows.connection import prefect_client
from flows.journey import compile_journey
from flows.system import SYSTEM_FLOWS
from tests import factories

pytestmark = [pytest.mark.prefect, pytest.mark.filterwarnings("default")]


@pytest.fixture
def settings(prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    pool_settings = Settings(
        mode=Mode.test,
        data_dir=tmp_path,
        prefect_api_url=prefect_api,
        work_pool=f"journeys-{uuid.uuid4().hex[:6]}",
        system_pool=f"system-{uuid.uuid4().hex[:6]}",
    )
    monkeypatch.setattr("deployments.register.get_settings", lambda: pool_settings)
    with temporary_settings({PREFECT_API_URL: prefect_api}):
        yield pool_settings


def _version(db: Database, status: VersionStatus) -> JourneyVersion:
    with db.writing() as session:
        return factories.make_version(session, status=status)


def test_approved_version_becomes_a_flow_with_its_steps_in_order(db: Database) -> None:
    version = _version(db, VersionStatus.approved)
    with db.reading() as session:
        program = program_of(session, version.id)

    flow = compile_journey(version, program)

    assert (flow.name, flow.version, flow.retries) == (program.definition.key, "1", 0)
    assert [line.split("**")[1] for line in flow.description.splitlines() if "**" in line] == ["welcome", "time-to-read", "engaged", "call"]


@pytest.mark.parametrize("status", [VersionStatus.draft, VersionStatus.submitted, VersionStatus.sent_back])
def test_version_that_nobody_approved_is_not_registered(db: Database, settings: Settings, status: VersionStatus) -> None:
    version = _version(db, status)

    with pytest.raises(Refused):
        register_version(db, version.id)


def test_version_changed_after_approval_is_not_registered(db: Database, settings: Settings) -> None:
    version = _version(db, VersionStatus.approved)
    with db.writing() as session:
        row = session.get_one(JourneyVersion, version.id)
        row.source = {**row.source, "definition": row.source["definition"].replace("3 days", "2 days")}
        session.add(row)

    with pytest.raises(Refused):
        register_version(db, version.id)


def test_registering_makes_one_deployment_however_often(db: Database, settings: Settings) -> None:
    version = _version(db, VersionStatus.approved)

    first, second = register_version(db, version.id), register_version(db, version.id)

    with get_client(sync_client=True) as client:
        deployment = client.read_deployment(first)
    assert first == second
    assert (deployment.work_pool_name, deployment.name, deployment.version) == (settings.work_pool, "v1", "1")
    with db.reading() as session:
        assert session.get_one(JourneyVersion, version.id).status is VersionStatus.registered


def test_system_flows_are_registered_on_their_schedules_and_on_demand(settings: Settings) -> None:
    register_system_flows()
    register_system_flows()

    run_id = run_now("results")

    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("results/system")
        run = client.read_flow_run(uuid.UUID(run_id))
    assert len(deployment.schedules) == 1
    assert "system:results" in run.tags
    assert run.expected_start_time <= wall_now()


def test_entries_flow_is_registered_on_its_schedule_and_runs_where_system_flows_run(settings: Settings) -> None:
    register_system_flows()

    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("entries/system")
    assert [schedule.schedule.interval for schedule in deployment.schedules] == [ENTRIES_EVERY]
    assert import_object(deployment.entrypoint).name == "entries"
    assert SYSTEM_FLOWS["entries"].name == "entries"


def test_searches_for_the_runs_of_contacts_are_saved_once(settings: Settings) -> None:
    register_system_flows()
    register_system_flows()

    with prefect_client() as client:
        saved = client.request("POST", "/saved_searches/filter", json={}).json()
    searches = {each["name"]: {found["property"]: found["value"] for found in each["filters"]} for each in saved}
    assert len(saved) == 2
    assert searches["Journeys"]["workPool"] == searches["Journeys to look after"]["workPool"] == [settings.work_pool]
    assert "Parked" in searches["Journeys to look after"]["state"]
