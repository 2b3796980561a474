"""`distmark pause`, `resume`, `stop`, `drain`: what the options name, dry runs, and what mistakes are answered with."""

from datetime import timedelta
from typing import Any

import pytest

from distmark.campaigns.table import Campaign
from distmark.clock import FixedClock, wall_now
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.enrollments.model import EnrollmentStatus
from distmark.journeys.table import Journey
from tests.command_line import Run
from tests.driver import Stage

STEPS = "  - {id: rest, wait: {for: 3 days}}\n  - {id: first, send: email, message: one}\n"


@pytest.fixture
async def inside(db: Database) -> tuple[Stage, Campaign, list[Contact]]:
    """Three people at a wait in a campaign, since five days ago by the machine's own clock."""
    stage = Stage(db, FixedClock(wall_now() - timedelta(days=5)))
    campaign, people = stage.journey(STEPS, "", {}, key="spring"), [stage.contact() for _ in range(3)]
    stage.enrol(campaign, *people)
    await stage.run_for(timedelta(hours=1))
    return stage, campaign, people


def names(stage: Stage, campaign: Campaign, people: list[Contact]) -> dict[str, list[Any]]:
    with stage.db.reading() as session:
        key = session.get_one(Journey, campaign.journey_id).key
    ids = [stage.enrollment(person).id for person in people]
    return {
        "journey": ["--journey", key],
        "version": ["--journey", key, "--version", 1],
        "campaign": ["--campaign", "spring"],
        "partner": ["--partner", stage.partner.key],
        "contact": ["--contact", people[0].id],
        "enrollment": ["--enrollment", ids[0], "--enrollment", ids[1]],
    }


@pytest.mark.parametrize(
    ("named", "count"), [("journey", 3), ("version", 3), ("campaign", 3), ("partner", 3), ("contact", 1), ("enrollment", 2)]
)
async def test_every_scope_is_paused_and_resumed_by_name(run: Run, inside: Any, named: str, count: int) -> None:
    options = names(*inside)[named]

    paused = run("pause", *options, "--reason", "wrong rate", "--json")
    plan = run("resume", *options, "--dry-run", "--json")
    frozen = [inside[0].enrollment(person).status for person in inside[2]].count(EnrollmentStatus.paused)
    resumed = run("resume", *options, "--json")

    assert (paused.code, paused.rows, paused.err) == (0, [{"paused": count, "dry_run": False}], "")
    told = {"paused": count, "resumed": count, "kept": 0, "at_once": count, "steps": {"rest": count}, "extended": False}
    assert plan.rows == [told | {"spread_until": None, "dry_run": True}]
    assert frozen == count
    assert resumed.rows == [told | {"spread_until": None, "dry_run": False}]
    assert {inside[0].enrollment(person).status for person in inside[2]} == {EnrollmentStatus.waiting}


async def test_dry_runs_change_nothing(run: Run, inside: Any) -> None:
    options = names(*inside)["campaign"]

    told = [run(command, *options, "--dry-run", "--json").rows[0] for command in ("pause", "stop", "drain")]
    after = run("pause", *options, "--json").rows[0]

    assert told == [{"paused": 3, "dry_run": True}, {"stopped": 3, "dry_run": True}, {"inside": 3, "dry_run": True}]
    assert after == {"paused": 3, "dry_run": False}


async def test_spread_is_shown_and_stop_ends_for_the_reason(run: Run, inside: Any) -> None:
    stage, _campaign, people = inside
    options = names(*inside)["campaign"]
    run("pause", *options)

    spread = run("resume", *options, "--spread", "2h")
    stopped = run("stop", *options, "--reason", "offer ended")

    assert "3 go on, 3 spread until" in spread.out
    assert "rest" in spread.out
    assert (stopped.out, stage.enrollment(people[0]).reason) == ("3 stopped.\n", "offer ended")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["pause"], "Say what is meant"),
        (["pause", "--version", "3"], "give --journey KEY with --version"),
        (["pause", "--campaign", "autumn"], "There is no campaign autumn"),
        (["stop", "--contact", "999999"], "There is no contact 999999"),
        (["resume", "--campaign", "spring", "--spread", "a while"], 'The time "a while" cannot be read; write it as 30m, 2h or 1d.'),
    ],
)
async def test_mistakes_are_answered_with_one_line(run: Run, inside: Any, arguments: list[str], says: str) -> None:
    ran = run(*arguments)

    assert ran.code == 1
    assert says in ran.err.replace("\n", " ")


async def test_version_that_is_not_there_is_refused_naming_those_there_are(run: Run, inside: Any) -> None:
    ran = run("drain", *names(*inside)["journey"], "--version", 7)

    assert ran.code == 1
    assert "has no version 7; it has 1." in ran.err
