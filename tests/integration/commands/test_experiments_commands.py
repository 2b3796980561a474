"""`distmark journeys decide`: how a test stands, its winner by hand, and what mistakes are answered with."""

from datetime import timedelta
from typing import Any

import pytest

from distmark.clock import FixedClock, wall_now
from distmark.db import Database
from distmark.metrics.rollup import roll_up
from tests.command_line import Run
from tests.driver import Stage
from tests.experiments import click_message, experiment_steps
from tests.versions import key_of

TEST = "metric: click, hold_out: 50%, evaluate_after: 2 days, winner: manual"


@pytest.fixture
async def journey(db: Database) -> tuple[Stage, str, Any]:
    """A test with three people in each arm, two waiting, and one click for "warm"."""
    stage = Stage(db, FixedClock(wall_now() - timedelta(hours=2)))
    campaign, arms = experiment_steps(stage, TEST, held=2)
    await stage.run_for(timedelta(hours=1))
    click_message(stage, arms["warm"][:1])
    return stage, key_of(stage, campaign), arms


async def test_shows_how_the_test_stands_and_changes_nothing(run: Run, journey: Any) -> None:
    _stage, key, _arms = journey

    ran = run("journeys", "decide", key, "subject", "--refresh", "--json")

    row = ran.rows[0]
    assert ran.code == 0
    assert [(arm["arm"], arm["contacts"], arm["hits"]) for arm in row["arms"]] == [("plain", 3, 0), ("warm", 3, 1)]
    assert (row["leads"], row["sureness"], row["waiting"], row["winner"], row["by"]) == ("warm", "chance", 2, None, None)
    # Beta(2, 3) against Beta(1, 4): means .4 and .2, variances .04 and .0267; z = .2 / .2582 = 0.775 -> .781
    assert row["sure"] == pytest.approx(0.781, abs=0.001)


async def test_winner_is_chosen_and_told(run: Run, journey: Any) -> None:
    stage, key, arms = journey
    roll_up(stage.db, stage.clock.now())

    ran = run("journeys", "decide", key, "subject", "--winner", "warm")
    again = run("journeys", "decide", key, "subject", "--winner", "plain")
    shown = run("journeys", "decide", key, "subject", "--json")

    assert '"warm" won on' in ran.out
    assert "by hand" in ran.out
    assert all(stage.enrollment(contact).woken_at for contact in arms["held"])
    assert (again.code, 'The test "subject" is decided: "warm" won' in again.err) == (1, True)
    assert (shown.rows[0]["winner"], shown.rows[0]["by"]) == ("warm", "hand")


async def test_people_read_what_the_numbers_say(run: Run, journey: Any) -> None:
    _stage, key, _arms = journey

    ran = run("journeys", "decide", key, "subject", "--refresh")

    assert '"warm" leads, but that may be chance: 78.1% sure.' in ran.out
    assert "33.3%" in ran.out
    assert "2 wait for the winner" in ran.out


@pytest.mark.parametrize(
    ("step", "options", "says"),
    [
        ("rest", [], 'has no test "rest"; its tests are: subject.'),
        ("subject", ["--winner", "hot"], 'has no arm "hot"; choose one of plain, warm.'),
        ("subject", ["--version", 7], "has no such version"),
    ],
)
async def test_mistakes_are_answered_with_one_line(run: Run, journey: Any, step: str, options: list[Any], says: str) -> None:
    ran = run("journeys", "decide", journey[1], step, *options)

    assert ran.code == 1
    assert says in ran.err
