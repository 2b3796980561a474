"""Our Postgres is killed -9 in the middle of sending, and is away for a while; nobody is lost and nobody gets a message twice."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from distmark.db import Database
from distmark.tables import create_all
from tests.chaos.parts import Installation, process
from tests.postgres import NoPostgres, PostgresServer
from tests.waiting import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.prefect, pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]

PEOPLE = 24
STAYS_AWAY = (False, True, False)  # whether it comes back only when the worker has met its absence, each time
KEEPS_ITS_WORD = ("fsync=off", "full_page_writes=off", "listen_addresses=", "max_connections=100")  # committed is written


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    try:
        made = PostgresServer(KEEPS_ITS_WORD)
    except NoPostgres as missing:
        pytest.skip(str(missing))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.mark.parametrize("contacts_per_run", [1, 8])
def test_killing_postgres_while_mail_goes_out_loses_and_doubles_nothing(
    prefect_api: str, server: PostgresServer, tmp_path: Path, contacts_per_run: int
) -> None:
    """D3, L1, L2: what was accepted and could not be written yet is written when the database is back, or uncertain; never sent again.

    Three times Postgres is killed with all its processes just after a mail arrived, and comes back at once, or only when the worker has
    met its absence. One worker process lives through all of it. A run for each contact, and a run for eight, lose alike: at most what a
    run had just claimed is uncertain, each time.
    """
    db = Database(server.url(server.create()))
    create_all(db)
    here = Installation(tmp_path, db, prefect_api)
    here.open(contacts_per_run)
    here.enrol(PEOPLE)

    with (
        process(*here.catcher(), env=here.env, log=tmp_path / "catcher.log"),
        process("-m", "flows.serve", env=here.env, log=tmp_path / "worker.log") as worker,
    ):
        for stays_away in STAYS_AWAY:
            here.wait_for_mail(here.store.count())
            server.kill()
            if stays_away:
                missed = worker.said_how_often("OperationalError")
                wait_until(lambda missed=missed: worker.said_how_often("OperationalError") > missed + 1, what="Asking the database in vain")
            server.start_again()
        here.wait_for_all(PEOPLE // contacts_per_run, worker)
        worker.stop()

    assert worker.starts == 1, worker.said()  # it waits for its database, and needs nobody to start it again
    # The worker lived, and insisted on writing what it alone knew; but a claim may be committed and the answer to that lost.
    assert here.check_nothing_lost_or_doubled(PEOPLE) <= contacts_per_run * len(STAYS_AWAY)
    db.close()
