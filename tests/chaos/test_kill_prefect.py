"""The Prefect server is killed -9 while the worker goes on, and is away for a while; nobody is lost and nobody gets a message twice."""

from pathlib import Path

import httpx2
import pytest

from distmark.db import Database
from tests.chaos.parts import Installation, Process, environment, process, wait_through_outages
from tests.prefect_server import copy_template, free_port

pytestmark = [pytest.mark.chaos, pytest.mark.prefect, pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]

PEOPLE, MORE = 16, 8


def wait_for_prefect(api: str, server: Process) -> None:
    try:
        wait_through_outages(
            lambda: httpx2.get(f"{api}/health", timeout=2, trust_env=False).status_code == 200, 120, "The answer of Prefect"
        )
    except AssertionError as late:
        raise AssertionError(f"{late} It says: {server.said()}") from None


def test_killing_prefect_while_the_worker_goes_on_loses_and_doubles_nothing(db: Database, tmp_path: Path) -> None:
    """L1, L2: contacts who enter while it is away get a run when it is back, and what became of a wake meanwhile is told to it then.

    It is killed twice: in the middle of wakes, when runs stay Running there that the worker has gone on from; and before new contacts
    enter. The worker must outlive both, as one process, and no message may be uncertain: Prefect has no part in what was accepted.
    """
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    # Prefect's client repeats a call for a minute; without that each call fails as it does when the server is away for an hour.
    env = environment(tmp_path, db, api, PREFECT_UI_API_URL=api, PREFECT_CLIENT_MAX_RETRIES="0")
    copy_template(tmp_path / "prefect-home")
    with process("-m", "flows.server", "--host", "127.0.0.1", "--port", str(port), env=env, log=tmp_path / "server.log") as server:
        wait_for_prefect(api, server)
        here = Installation(tmp_path, db, api, env)
        here.open()
        here.enrol(PEOPLE)
        with (
            process(*here.catcher(), env=env, log=tmp_path / "catcher.log"),
            process("-m", "flows.serve", env=env, log=tmp_path / "worker.log") as worker,
        ):
            here.wait_for_mail(0)
            server.kill()  # in the middle of wakes: some runs stay Running there, of others it never heard how they go on
            server.start()
            wait_for_prefect(api, server)
            here.wait_for_mail(here.store.count())
            server.kill()
            here.enrol(MORE)
            server.start()  # takes a while, in which the worker asks in vain
            wait_for_prefect(api, server)
            here.wait_for_all(PEOPLE + MORE, worker)
            worker.stop()

    assert worker.starts == 1, worker.said()  # it waits for Prefect, and needs nobody to start it again
    assert here.check_nothing_lost_or_doubled(PEOPLE + MORE) == 0  # Prefect has no part in what was accepted
