"""The worker is killed -9 again and again while it works; nobody is lost and nobody gets a message twice."""

import random
import time
from pathlib import Path

import pytest

from distmark.db import Database
from tests.chaos.parts import Installation, process

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.both_databases,
    pytest.mark.prefect,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("default"),
]

PEOPLE, KILLS = 24, 6


def test_killing_the_worker_again_and_again_loses_and_doubles_nothing(prefect_api: str, db: Database, tmp_path: Path) -> None:
    """D3, L1, L2: the next worker takes up whatever the dead one had claimed, and sends nothing that may have gone out.

    Six times the worker is killed at a moment within half a second after a mail arrived: between what the mail server said and what we
    write of it, between two steps, while it claims or starts runs. Everybody has all three messages in the ledger in the end, no mail
    came twice, and a message whose fate only the dead knew is told as uncertain.
    """
    here = Installation(tmp_path, db, prefect_api)
    here.open()
    here.enrol(PEOPLE)

    chance = random.Random(20261124)
    with (
        process(*here.catcher(), env=here.env, log=tmp_path / "catcher.log"),
        process("-m", "flows.serve", env=here.env, log=tmp_path / "worker.log") as worker,
    ):
        for _kill in range(KILLS):
            here.wait_for_mail(here.store.count())
            time.sleep(chance.uniform(0.0, 0.5))  # not for something to happen: into the midst of what no condition names
            worker.kill()
            worker.start()
        here.wait_for_all(PEOPLE, worker)
        worker.stop()

    assert worker.starts == KILLS + 1  # it never ended by itself
    here.check_nothing_lost_or_doubled(PEOPLE)
