"""The results flow: rolls new engagement up to journey metrics, decides due experiments, and publishes one artifact per journey."""

from collections.abc import Sequence

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from distmark.clock import Clock
from distmark.db import Database, get_database
from distmark.experiments.service import decide_due_experiments
from distmark.metrics.service import journeys_with_results, results_markdown, roll_up
from distmark.settings import get_settings


@flow(name="results", retries=0, log_prints=False)
def results(publish: bool = True) -> dict[str, int]:
    """Roll up everything new, decide experiments that are due, and publish the funnel of each journey that changed.

    Cost follows what is new, not the history; of an experiment that is due, it follows the contacts in it.
    """
    db, clock = get_database(), get_settings().clock()
    rolled = roll_up(db, clock.now())
    decided = decide_due_experiments(db, clock.now())
    published = publish_results(db, clock, rolled.journey_ids) if publish else 0
    return {"events": rolled.events, "moves": rolled.moves, "tests_decided": decided.tests, "published": published}


def publish_results(db: Database, clock: Clock, journey_ids: Sequence[int]) -> int:
    """Publish one Prefect artifact for each of these journeys and return how many. Artifacts hold counts only, nobody's data."""
    if not journey_ids:
        return 0
    with db.reading() as session:
        tables = {key: results_markdown(found, "en") for key, found in journeys_with_results(session, clock.now(), journey_ids)}
    for key, table in tables.items():
        create_markdown_artifact(markdown=table, key=f"journey-{key}", description=f"Results of {key}")
    return len(tables)
