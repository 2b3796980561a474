"""`distmark rates`, and what `distmark watch` tells of sends that are held."""

from datetime import timedelta

import pytest
from sqlmodel import select

from distmark.clock import FixedClock, wall_now
from distmark.compliance.table import AuditEntry
from distmark.db import Database
from distmark.delivery.table import Pace
from distmark.partners.model import Role
from flows.upkeep import Cursor, UpkeepContext, _forget_slots
from tests import factories
from tests.command_line import Run
from tests.driver import Stage

MAIL = "  - {id: mail, send: email, message: one}\n"


@pytest.fixture
def stage(db: Database) -> Stage:
    stage = Stage(db, FixedClock(wall_now()))
    with db.writing() as session:
        factories.make_user(session, Role.ops, session.merge(stage.brand), email="ops@mirai.example")
    return stage


async def test_rate_is_set_listed_with_what_waits_and_removed(run: Run, stage: Stage) -> None:
    made = run("rates", "set", "partner", stage.partner.key, 60, "--burst", 2, "--json")
    run("rates", "set", "destination-domain", "*", 100000)
    stage.enrol(stage.journey(MAIL, contacts_per_run=10), *[stage.contact() for _person in range(5)])
    await stage.run_for(timedelta(seconds=1))

    listed, shown = run("rates", "list", "--json"), run("rates", "list")
    watched, seen = run("watch", "--json"), run("watch")
    removed = run("rates", "remove", "partner", stage.partner.key)

    assert (made.code, made.rows, made.err) == (
        0, [{"scope": "partner", "key": stage.partner.key, "per_hour": 60, "burst": 2}], "",
    )  # fmt: skip
    assert [(row["scope"], row["key"], row["each"], row["waiting"]) for row in listed.rows] == [
        ("partner", stage.partner.key, False, 3),
        ("destination-domain", "*", True, 0),
    ]
    assert stage.partner.key in shown.out
    held = [row for row in watched.rows if "held_by" in row]
    assert [(row["step"], row["held_by"], row["held"]) for row in held] == [("mail", f"throttle:partner:{stage.partner.key}", 3)]
    assert "throttle:partner" in seen.out
    assert (removed.code, len(run("rates", "list", "--json").rows)) == (0, 1)
    with stage.db.reading() as session:
        told = session.exec(select(AuditEntry).where(AuditEntry.subject_kind == "send_rate").order_by(AuditEntry.id)).all()
        assert [entry.action for entry in told] == ["set_rate", "set_rate", "removed_rate"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("set", "planet", "mars", 5), "partner, campaign, sending-domain, destination-domain"),
        (("set", "partner", "nobody", 5), 'Your brand has no partner "nobody"'),
        (("set", "destination-domain", "docomo.ne.jp", 0), "not between 1 and"),
        (("remove", "destination-domain", "docomo.ne.jp"), "There is no rate"),
        (("list", "--brand", "nowhere"), "nowhere"),
    ],
)
def test_mistake_changes_nothing_and_says_what_to_do(run: Run, stage: Stage, arguments: tuple[object, ...], said: str) -> None:
    found = run("rates", *arguments)

    assert found.code == 1
    assert said in " ".join(found.err.split())


def test_without_a_rate_the_list_says_what_that_means(run: Run, stage: Stage) -> None:
    assert "every message goes when it is due" in run("rates", "list").out


def test_only_people_of_operations_change_rates(run: Run, stage: Stage) -> None:
    with stage.db.writing() as session:
        factories.make_user(session, Role.marketer, session.merge(stage.brand), email="mari@mirai.example")

    assert run("rates", "set", "partner", "*", 5, "--as", "mari@mirai.example").code == 1
    assert run("rates", "set", "partner", "*", 5, "--as", "ops@mirai.example").code == 0


def test_upkeep_sweeps_past_turns_away_once_a_day(stage: Stage) -> None:
    yard = UpkeepContext(stage.db, stage.clock, None, "journeys", None, Cursor())  # type: ignore[arg-type]  (it asks Prefect nothing)

    def past(key: str) -> None:
        with stage.db.writing() as session:
            session.add(Pace(key=key, next_at=stage.clock.now() - timedelta(days=2)))

    def kept() -> list[str]:
        with stage.db.reading() as session:
            return sorted(row.key for row in session.exec(select(Pace)))

    past("first")
    _forget_slots(yard)
    after_the_first = kept()
    past("second")
    _forget_slots(yard)
    within_the_day = kept()
    stage.clock.move(timedelta(days=1))
    _forget_slots(yard)

    assert (after_the_first, within_the_day, kept()) == ([], ["second"], [])
