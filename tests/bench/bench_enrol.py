"""Entering 100,000 contacts into a campaign by one call, committed. The baseline is putting as many bare rows into the same table.

Sizes: BENCH_ENROL (100,000); BENCH_DATABASE measures one database only.
"""

import time

from distmark.clock import FixedClock, wall_now
from distmark.entries.model import EnrolVerdict
from distmark.entries.service import enrol
from distmark.sql import id_of
from tests.bench.bench_finding import fill_waiting
from tests.bench.crowd import mail_campaign
from tests.bench.report import report
from tests.bench.stand import database, kinds, people, say, settle, size, temporary_folder
from tests.driver import Stage

CONTACTS, PER_RUN = size("ENROL", 100_000), 500
AIM_SECONDS = 10.0 * CONTACTS / 100_000


def main() -> None:
    """Measure on one database after another."""
    for kind in kinds():
        with temporary_folder() as folder, database(kind, folder) as db:
            _measure(kind, Stage(db, FixedClock(wall_now())))


def _measure(kind: str, stage: Stage) -> None:
    say(f"{kind}: {CONTACTS:,} contacts")
    strangers, ids = people(stage, CONTACTS), people(stage, CONTACTS)
    campaign = mail_campaign(stage, PER_RUN)
    settle(stage.db)
    began = time.perf_counter()
    fill_waiting(stage, strangers, due=0)
    bare = time.perf_counter() - began
    began, cpu = time.perf_counter(), time.process_time()
    with stage.db.writing() as session:
        results = enrol(session, stage.viewer, id_of(campaign), ids, stage.clock.now())
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    entered = sum(result.verdict is EnrolVerdict.enrolled for result in results)
    report(f"enrol_{kind}_one_call", seconds, "s", bare, at_most=AIM_SECONDS, contacts=CONTACTS)
    report(f"enrol_{kind}_rate", entered / seconds, "contacts/s", CONTACTS / bare)
    report(f"enrol_{kind}_cpu", cpu / CONTACTS * 1000, "ms CPU/contact")  # of this process alone
    report(f"enrol_{kind}_not_entered", CONTACTS - entered, "contacts", at_most=0)
