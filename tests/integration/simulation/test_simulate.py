"""What a simulation says, by the command line and the engine behind it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from distmark.cli import app
from distmark.journeys.source import Source, load_source
from distmark.simulation.simulate import Rates, simulate
from tests.driver import _templates

START = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)
GYM = Path(__file__).resolve().parents[3] / "journey_defs" / "gym-new-year"


def test_everybody_is_accounted_for_at_every_step() -> None:
    found = simulate(load_source(GYM), contacts=60, seed=3, start=START)

    assert sum(found.ended.values()) + found.still_inside == 60
    assert found.steps["offer"].messages == 60
    assert sum(each.messages for each in found.steps.values()) == found.messages == sum(found.hours.values())
    assert all(each.entered == each.left + each.waiting for each in found.steps.values())


def test_nobody_is_written_to_in_quiet_hours() -> None:
    nobody_books = Rates(events={"joined": 0, "visit_booked": 0})  # what confirms a booking goes at any hour

    found = simulate(load_source(GYM), contacts=60, seed=3, start=START, rates=nobody_books)

    assert found.messages > 60
    assert set(found.hours) <= set(range(8, 21))  # Tokyo


def test_same_seed_gives_the_same_simulation() -> None:
    by_chance = load_source(GYM.parent / "seasonal-coupon")  # has a random split

    one, two, other = (simulate(by_chance, contacts=40, seed=seed, start=START) for seed in (3, 3, 4))

    assert (one.ended, one.hours, one.steps) == (two.ended, two.hours, two.steps)
    assert (one.ended, one.steps) != (other.ended, other.steps)


def test_rates_decide_what_people_do() -> None:
    nobody = simulate(load_source(GYM), contacts=30, seed=1, start=START, rates=Rates(open=0))
    everybody = simulate(
        load_source(GYM),
        contacts=30,
        seed=1,
        start=START,
        rates=Rates(open=1, click=1, unsubscribe=0, events={"joined": 0, "visit_booked": 0}),
    )

    assert (nobody.steps["call"].entered, everybody.steps["call"].entered) == (0, 30)


def test_contacts_who_can_never_finish_are_counted(tmp_path: Path) -> None:
    definition = (
        (GYM / "journey.yaml")
        .read_text()
        .replace("wait: {event: visit_booked, timeout: 3 days, on_timeout: last-call}", "wait: {event: visit_booked}")
    )
    (tmp_path / "journey.yaml").write_text(definition)
    (tmp_path / "messages").symlink_to(GYM / "messages")

    found = simulate(load_source(tmp_path), contacts=20, seed=1, start=START, rates=Rates(open=0))

    assert (found.endless, found.steps["booking"].waiting) == (20, 20)


def test_arm_that_nobody_may_enter_does_not_keep_a_test_from_being_decided() -> None:
    steps = """
key: three-arms
name: {ja: 三案, en: Three arms}
brand: mirai-securities
languages: [ja, en]
send_policy: {caps: none}
steps:
  - id: try
    branch: {test: {metric: click, hold_out: 50%, evaluate_after: 2 days}}
    arms:
      - {name: a, share: 50%, steps: [{id: send-a, send: email, message: one}]}
      - {name: b, share: 50%, steps: [{id: send-b, send: email, message: two}]}
      - {name: c, share: 0%, steps: [{id: send-c, send: email, message: three}]}
  - {id: rest, wait: {for: 30 days}}
"""
    everybody = Rates(open=1, click=1, unsubscribe=0)

    found = simulate(Source(steps, _templates(), path="three-arms"), contacts=40, seed=1, start=START, rates=everybody, days=4)

    assert (found.steps["try"].waiting, found.messages, found.steps["send-c"].messages) == (0, 40, 0)


def test_command_prints_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    app(["journeys", "simulate", str(GYM), "--contacts", "20", "--seed", "5", "--at", START.isoformat(), "--json"], standalone_mode=False)

    report = json.loads(capsys.readouterr().out)
    assert set(report["steps"]["offer"]) == {"entered", "left", "waiting", "messages", "first_at", "last_at", "hours"}
    assert sum(report["steps"]["offer"]["hours"].values()) == report["steps"]["offer"]["messages"] == 20
    assert sum(report["ended"].values()) == 20
    assert report["seconds"] > 0
    assert datetime.fromisoformat(report["last_end_at"]) - START < timedelta(days=30)
