"""`distmark journeys move`: dry run, act, undo, and what mistakes are answered with."""

from typing import Any

import pytest

from distmark.clock import FixedClock, wall_now
from distmark.db import Database
from tests.command_line import Run
from tests.driver import Stage
from tests.versions import OLD, inside, key_of, next_version, version_of

NEW = "  - {id: first, send: email, message: one}\n  - {id: pause, wait: {for: 9 days}}\n"


@pytest.fixture
async def journey(db: Database) -> tuple[Stage, str, Any]:
    """Two people inside version 1 of a journey whose version 2 calls their step otherwise."""
    stage = Stage(db, FixedClock(wall_now()))
    campaign, people = await inside(stage, OLD, 2)
    next_version(stage, campaign, NEW)
    return stage, key_of(stage, campaign), people


async def test_dry_run_then_move_then_undo(run: Run, journey: Any) -> None:
    stage, key, people = journey
    options = (key, "--from", 1, "--to", 2, "--map", "rest=pause", "--json")

    plan = run("journeys", "move", *options, "--dry-run")
    untouched = version_of(stage, stage.enrollment(people[0]))
    moved = run("journeys", "move", *options)
    there = version_of(stage, stage.enrollment(people[0]))
    undone = run("journeys", "move", key, "--undo", moved.rows[0]["move"], "--json")

    told = {"journey": key, "from": 1, "to": 2, "people": 2, "at_once": 0, "messages": {}, "unmapped": {}, "leaving": 0, "busy": 0}
    told |= {"finished": 0, "steps": [{"step": "rest", "to": "pause", "people": 2, "at_once": 0}]}
    assert (plan.code, plan.rows) == (0, [told | {"move": None, "dry_run": True}])
    assert (moved.code, moved.rows) == (0, [told | {"move": moved.rows[0]["move"], "dry_run": False}])
    assert (untouched, there) == (1, 2)
    assert undone.rows == [{"move": moved.rows[0]["move"], "back": 2, "gone": 0}]
    assert version_of(stage, stage.enrollment(people[0])) == 1


async def test_people_read_who_goes_where_and_how_to_take_it_back(run: Run, journey: Any) -> None:
    _stage, key, _people = journey

    ran = run("journeys", "move", key, "--from", 1, "--to", 2, "--map", "rest=pause")

    assert f"2 move from version 1 of {key} to 2; 0 go on at once" in ran.out
    assert "rest" in ran.out
    assert f"distmark journeys move {key} --undo" in ran.out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--from", 1, "--to", 2], "no place for those at rest (2)"),
        (["--from", 1, "--to", 2, "--dry-run"], "no place for those at rest (2); say it with --map STEP=STEP."),
        (["--from", 1], "give --from N and --to N, or --undo ID."),
        (["--from", 1, "--to", 2, "--map", "rest"], '"rest" is not STEP=STEP'),
        (["--from", 1, "--to", 2, "--map", "rest=puase"], "did you mean pause?"),
        (["--undo", 999], "There is no move 999"),
    ],
)
async def test_mistakes_are_answered_with_one_line(run: Run, journey: Any, options: list[Any], says: str) -> None:
    ran = run("journeys", "move", journey[1], *options)

    assert ran.code == 1
    assert says in ran.err
