"""The roll-up equals a plain recount of the raw rows, whatever the order, the batches and the repeats."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event as listen_to
from sqlmodel import select

from distmark.db import Database
from distmark.engagement.model import EventKind, Verdict
from distmark.engagement.table import Event
from distmark.enrollments.model import TimelineKind
from distmark.enrollments.table import TimelineEntry
from distmark.metrics.model import Key
from distmark.metrics.recount import recount
from distmark.metrics.rollup import roll_up
from distmark.metrics.service import metrics
from distmark.metrics.table import Count, RollUp
from tests.depth import examples
from tests.metrics_rows import AT, ENROLLMENTS, MESSAGES, fill

MINUTES = st.integers(0, 4 * 24 * 60)
MOVES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(list(TimelineKind)),
        "enrollment_id": st.sampled_from(ENROLLMENTS),
        "step_id": st.sampled_from(["welcome", "reminder", "split"]),
        "minute": MINUTES,
        "outcome": st.sampled_from(["completed", "goal", "", None]),
    }
)
EVENTS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(list(EventKind)),
        "verdict": st.sampled_from(list(Verdict)),
        "message_id": st.sampled_from([*MESSAGES, None]),
        "enrollment_id": st.sampled_from([True, False]),
        "minute": MINUTES,
        "link": st.sampled_from(["", "plans", "book"]),
        "first": st.booleans(),
        "value": st.sampled_from([None, 0.5, 1200.0]),
        "name": st.sampled_from(["booked", "a:b"]),
    }
)
ROUNDS = st.lists(st.lists(st.one_of(MOVES, EVENTS), max_size=12), min_size=1, max_size=4)


def as_row(fact: dict[str, Any], number: int) -> TimelineEntry | Event:
    at = AT + timedelta(minutes=fact["minute"])
    if "verdict" not in fact:
        detail = {} if fact["outcome"] is None else {"outcome": fact["outcome"]}
        return TimelineEntry(enrollment_id=fact["enrollment_id"], at=at, kind=fact["kind"], step_id=fact["step_id"], detail=detail)
    of_message = fact["message_id"] or 1
    return Event(
        natural_key=f"event-{number}",
        kind=fact["kind"],
        name=fact["name"],
        verdict=fact["verdict"],
        at=at,
        received_at=at,
        brand_id=1,
        partner_id=1,
        contact_id=1,
        enrollment_id=(of_message - 1) % 4 + 1 if fact["enrollment_id"] else None,
        message_id=fact["message_id"],
        link=fact["link"],
        value=fact["value"],
        first=fact["first"],
    )


def event(number: int, **fields: Any) -> Event:
    plain = {"kind": EventKind.opened, "verdict": Verdict.human, "message_id": 1, "enrollment_id": True, "minute": 0}
    return as_row({**plain, "link": "", "value": None, "first": False, "name": "", **fields}, number)  # type: ignore[return-value]


def move(kind: TimelineKind, minute: int = 0, **fields: Any) -> TimelineEntry:
    return as_row({"kind": kind, "enrollment_id": 2, "step_id": "welcome", "minute": minute, "outcome": None, **fields}, 0)  # type: ignore[return-value]


def add(db: Database, rows: Sequence[TimelineEntry | Event]) -> None:
    with db.writing() as session:
        session.add_all(rows)


def both(db: Database) -> tuple[dict[Key, Any], dict[Key, Any]]:
    with db.reading() as session:
        return metrics(session), recount(session)


def totals(db: Database) -> dict[str, int]:
    sums: dict[str, int] = {}
    for key, tally in both(db)[0].items():
        sums[key.metric] = sums.get(key.metric, 0) + tally.count
    return sums


@pytest.fixture
def filled(db: Database) -> Database:
    fill(db)
    return db


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(rounds=ROUNDS, batch=st.sampled_from([1, 2, 3, 7, 5000]))
def test_any_order_and_any_batches_give_the_recount(filled: Database, rounds: list[list[dict[str, Any]]], batch: int) -> None:
    with filled.writing() as session:
        for table in (TimelineEntry, Event, Count):
            session.execute(table.__table__.delete())  # type: ignore[attr-defined]
    for number, facts in enumerate(rounds):
        add(filled, [as_row(fact, number * 1000 + at) for at, fact in enumerate(facts)])
        roll_up(filled, AT, batch)
        roll_up(filled, AT, batch)

    rolled, counted = both(filled)

    assert rolled == counted


def test_a_repeated_roll_up_takes_nothing_and_changes_nothing(filled: Database) -> None:
    add(filled, [event(1), event(2, kind=EventKind.clicked, link="plans", first=True), move(TimelineKind.sent)])
    first = roll_up(filled, AT)
    before = both(filled)[0]

    second = roll_up(filled, AT)

    assert (first.events, first.moves, first.journey_ids) == (2, 1, (1,))
    assert (second.events, second.moves, second.journey_ids) == (0, 0, ())
    assert both(filled)[0] == before


def test_a_roll_up_that_dies_in_a_batch_is_made_good_by_the_next(filled: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    add(filled, [move(TimelineKind.sent, minute) for minute in range(5)])
    import distmark.metrics.rollup as rolling

    added, real = [], rolling._add

    def die_on_the_second_batch(session: Any, deltas: Any) -> None:
        real(session, deltas)
        added.append(deltas)
        if len(added) == 2:
            raise ConnectionError("the machine went away")

    monkeypatch.setattr(rolling, "_add", die_on_the_second_batch)
    with pytest.raises(ConnectionError):
        roll_up(filled, AT, batch=2)
    monkeypatch.setattr(rolling, "_add", real)
    rolled = roll_up(filled, AT, batch=2)

    assert rolled.moves == 3  # 5 rows, 2 of them taken by the batch that was committed
    assert totals(filled) == {"sent": 5}


def test_many_opens_of_one_message_count_once_and_machines_apart(filled: Database) -> None:
    """E1: what scanners and proxies fetch never enters the open rate."""
    add(filled, [event(n, minute=n) for n in range(3)] + [event(n, verdict=Verdict.machine) for n in range(3, 5)])

    roll_up(filled, AT)

    assert totals(filled) == {"opened": 1, "opens": 3, "opened_machine": 2}


def test_two_links_clicked_in_one_message_are_one_clicked_message(filled: Database) -> None:
    clicks = [event(n, kind=EventKind.clicked, link=link, first=True) for n, link in enumerate(("plans", "book"))]
    add(filled, clicks)

    roll_up(filled, AT)

    assert totals(filled) == {"clicked": 1, "clicks": 2, "link:plans": 1, "link:book": 1}


def test_an_earlier_open_that_arrives_later_moves_the_count_to_its_day(filled: Database) -> None:
    add(filled, [event(1, minute=3 * 24 * 60)])
    roll_up(filled, AT)
    add(filled, [event(2, minute=0)])
    roll_up(filled, AT)

    opened = {key.day: tally.count for key, tally in both(filled)[0].items() if key.metric == "opened"}

    assert opened == {date(2026, 11, 24): 1}


def test_an_unsubscribe_counts_whoever_seems_to_have_sent_it(filled: Database) -> None:
    """U2: a provider's one-click POST looks like a machine's and is a person's wish all the same."""
    add(filled, [event(1, kind=EventKind.unsubscribed, verdict=Verdict.machine)])

    roll_up(filled, AT)

    assert totals(filled) == {"unsubscribed": 1}


def test_the_cost_follows_new_rows_not_history(filled: Database) -> None:
    """E12: nothing that the roll-up asks reads rows that were rolled before, but for the messages it touches."""
    add(filled, [event(n, message_id=1) for n in range(200)] + [move(TimelineKind.passed) for _ in range(200)])
    roll_up(filled, AT)
    add(filled, [event(1000, message_id=2), move(TimelineKind.sent)])
    statements: list[str] = []
    listen_to.listen(filled.engine, "before_cursor_execute", lambda c, cursor, statement, *rest: statements.append(statement))

    rolled = roll_up(filled, AT)

    assert (rolled.events, rolled.moves) == (1, 1)
    if filled.is_sqlite:
        unrolled = [statement for statement in statements if statement.startswith("SELECT") and "rolled = 0" in statement]
        assert len(unrolled) == 2
        for statement in unrolled:
            with filled.engine.connect() as connection:
                plan = " ".join(map(str, connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", (0,) * statement.count("?"))))
            assert "unrolled" in plan, plan


def test_every_run_of_the_roll_up_is_noted(filled: Database) -> None:
    add(filled, [move(TimelineKind.entered)])

    roll_up(filled, AT)

    with filled.reading() as session:
        noted = session.exec(select(RollUp)).one()
    assert (noted.at, noted.moves, noted.events) == (AT, 1, 0)
