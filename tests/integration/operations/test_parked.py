"""Who is parked after errors and tries again, what nobody knows to have arrived, and what finding both costs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import Session, col, select

from distmark.campaigns.table import Campaign
from distmark.channels.memory import Fault
from distmark.compliance.table import AuditEntry
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.enrollments.control import pause
from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.suspensions import Scope
from distmark.errors import InvalidInput, NotAllowed, NotFound
from distmark.messages.model import MessageStatus
from distmark.operations.held_send_counts import held_sends
from distmark.operations.parked import Retried, parked, parked_count, retry_parked, retry_parked_at_step
from distmark.operations.uncertain import uncertain, uncertain_count
from distmark.partners.model import Role, Viewer
from distmark.sql import id_of
from tests import factories
from tests.driver import Stage

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
POISON = (
    "  - id: odd\n    branch:\n"
    '      - {when: "10 / contact.amount > 5", steps: [{id: out, exit: rich}]}\n'
    "  - {id: first, send: email, message: one}\n"
)
AMOUNT = "contact_fields: {amount: number}"


async def poisoned(stage: Stage, people: int = 1) -> tuple[Campaign, list[Contact]]:
    """Enrol people at whose step something is divided by zero, and let them try until they are parked."""
    campaign, contacts = stage.journey(POISON, AMOUNT), [stage.contact(attributes={"amount": 0}) for _ in range(people)]
    stage.enrol(campaign, *contacts)
    await stage.run_for(2 * HOUR)
    assert {stage.enrollment(each).status for each in contacts} == {EnrollmentStatus.parked}
    return campaign, contacts


def mend(stage: Stage, *contacts: Contact) -> None:
    with stage.db.writing() as session:
        for contact in contacts:
            session.get_one(Contact, contact.id).attributes = {"amount": 4}


def only_id(stage: Stage, contact: Contact) -> int:
    return id_of(stage.enrollment(contact))


async def test_parked_are_shown_newest_first_with_journey_error_tries_and_since_when(stage: Stage) -> None:
    _campaign, (hanako, taro, yumi) = await poisoned(stage, 3)

    with stage.db.reading() as session:
        first = parked(session, stage.marketer, limit=2)
        rest = parked(session, stage.marketer, before=first[-1].enrollment.id, limit=2)
        total = parked_count(session, stage.marketer)

    assert [row.enrollment.contact_id for row in (*first, *rest)] == [yumi.id, taro.id, hanako.id]
    assert (total, first[0].version, first[0].enrollment.step_id, first[0].enrollment.tries) == (3, 1, "odd", 5)
    assert "zero" in first[0].enrollment.error
    last = [move.at for move in stage.moves(yumi) if move.kind is TimelineKind.error][-1]
    assert first[0].since == last
    assert first[0].journey.startswith("trial-")


async def test_mended_one_that_tries_again_goes_on_and_only_that_one(stage: Stage) -> None:
    _campaign, (hanako, taro) = await poisoned(stage, 2)
    mend(stage, hanako, taro)

    with stage.db.writing() as session:
        done = retry_parked(session, stage.marketer, [only_id(stage, hanako)], stage.clock.now())
    await stage.run_for(MINUTE)

    assert (done, stage.enrollment(hanako).outcome, len(stage.messages(hanako))) == (Retried(1, 0), "completed", 1)
    assert stage.enrollment(taro).status is EnrollmentStatus.parked
    resumed = [move.detail for move in stage.moves(hanako) if move.kind is TimelineKind.resumed]
    assert resumed == [{"by": stage.marketer.user_id, "parked": True}]


async def test_one_that_fails_again_has_all_its_tries_before_it_is_parked_again(stage: Stage) -> None:
    _campaign, (hanako,) = await poisoned(stage)

    with stage.db.writing() as session:
        retry_parked(session, stage.marketer, [only_id(stage, hanako)], stage.clock.now())
    await stage.run_for(MINUTE)
    once = stage.enrollment(hanako)
    await stage.run_for(2 * HOUR)

    row = stage.enrollment(hanako)
    assert (once.status, once.tries) == (EnrollmentStatus.waiting, 1)
    assert (row.status, row.tries) == (EnrollmentStatus.parked, 5)


async def test_everybody_at_a_step_tries_again_by_one_act(stage: Stage) -> None:
    _campaign, people = await poisoned(stage, 3)
    mend(stage, *people)
    version_id = stage.enrollment(people[0]).version_id

    with stage.db.writing() as session:
        elsewhere = retry_parked_at_step(session, stage.marketer, version_id, "first", stage.clock.now())
        done = retry_parked_at_step(session, stage.marketer, version_id, "odd", stage.clock.now())
    await stage.run_for(MINUTE)

    assert (elsewhere, done) == (Retried(), Retried(3, 0))
    assert [stage.enrollment(each).outcome for each in people] == ["completed"] * 3


async def test_nobody_is_moved_out_of_a_pause_by_trying_again(stage: Stage) -> None:
    campaign, (hanako,) = await poisoned(stage)
    with stage.db.writing() as session:
        pause(session, stage.marketer, Scope(journey_id=campaign.journey_id), stage.clock.now())

    with stage.db.writing() as session:
        done = retry_parked(session, stage.marketer, [only_id(stage, hanako)], stage.clock.now())

    assert (done, stage.enrollment(hanako).status) == (Retried(0, 1), EnrollmentStatus.parked)


async def test_one_that_is_not_parked_any_more_stays_as_it_is(stage: Stage) -> None:
    hanako = stage.contact()
    stage.enrol(stage.journey("  - {id: rest, wait: {for: 3 days}}\n  - {id: first, send: email, message: one}\n"), hanako)
    await stage.run_for(MINUTE)
    before = stage.enrollment(hanako)

    with stage.db.writing() as session:
        done = retry_parked(session, stage.marketer, [id_of(before)], stage.clock.now())

    assert (done, stage.enrollment(hanako).model_dump()) == (Retried(), before.model_dump())


async def test_trying_again_is_in_the_audit_trail(stage: Stage) -> None:
    _campaign, (hanako, taro) = await poisoned(stage, 2)

    with stage.db.writing() as session:
        retry_parked(session, stage.marketer, [only_id(stage, hanako)], stage.clock.now())
        retry_parked_at_step(session, stage.marketer, stage.enrollment(taro).version_id, "odd", stage.clock.now())

    with stage.db.reading() as session:
        entries = session.exec(select(AuditEntry).where(AuditEntry.action == "tried_again").order_by(col(AuditEntry.id))).all()
    assert [(entry.subject_kind, entry.subject_id, entry.user_id) for entry in entries] == [
        ("enrollment", only_id(stage, hanako), stage.marketer.user_id),
        ("journey_version", stage.enrollment(taro).version_id, stage.marketer.user_id),
    ]
    assert entries[1].detail == {"step": "odd", "count": 1}


async def test_people_of_another_brand_reach_nobody_and_partners_may_not_look(stage: Stage) -> None:
    """S5"""
    _campaign, (hanako,) = await poisoned(stage)
    row = stage.enrollment(hanako)
    now = stage.clock.now()
    with stage.db.writing() as session:
        stranger = factories.make_viewer(session, Role.marketer)

    with stage.db.writing() as session:
        assert (parked(session, stranger), parked_count(session, stranger)) == ([], 0)
        assert (uncertain(session, stranger), uncertain_count(session, stranger)) == ([], 0)
        with pytest.raises(NotFound):
            retry_parked(session, stranger, [id_of(row)], now)
        with pytest.raises(NotFound):
            retry_parked_at_step(session, stranger, row.version_id, "odd", now)
        looks: tuple[Callable[[Session, Viewer], object], ...] = (parked, parked_count, uncertain, uncertain_count)
        for look in looks:
            with pytest.raises(NotAllowed):
                look(session, stage.viewer)
        with pytest.raises(NotAllowed):
            retry_parked(session, stage.viewer, [id_of(row)], now)
    assert stage.enrollment(hanako).status is EnrollmentStatus.parked


@pytest.mark.parametrize("number", [0, 201])
async def test_none_and_too_many_at_once_are_refused(stage: Stage, number: int) -> None:
    with stage.db.writing() as session, pytest.raises(InvalidInput, match=f"{number} enrollments were chosen"):
        retry_parked(session, stage.marketer, range(1, number + 1), stage.clock.now())


async def test_uncertain_messages_are_counted_and_listed_newest_first(stage: Stage) -> None:
    campaign, people = stage.journey("  - {id: first, send: email, message: one}\n"), [stage.contact() for _ in range(3)]
    for person in people[:2]:
        stage.mail.fail_address(str(person.email), Fault.uncertain)
    stage.enrol(campaign, *people)
    await stage.run_for(MINUTE)

    with stage.db.reading() as session:
        first = uncertain(session, stage.marketer, limit=1)
        rest = uncertain(session, stage.marketer, before=first[0].message.id)
        total = uncertain_count(session, stage.marketer)

    assert [row.message.contact_id for row in (*first, *rest)] == [people[1].id, people[0].id]
    assert (total, first[0].message.status, first[0].version) == (2, MessageStatus.uncertain, 1)


@contextmanager
def statements(db: Database) -> Iterator[list[tuple[str, Any]]]:
    """Collect what is asked of the database, with its parameters."""
    asked: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        asked.append((statement, parameters))

    event.listen(db.engine, "before_cursor_execute", note)
    yield asked
    event.remove(db.engine, "before_cursor_execute", note)


def plan_of(session: Session, db: Database, statement: str, parameters: Any) -> str:
    connection = session.connection()
    if db.is_sqlite:
        return " ".join(map(str, connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)))
    connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # a table of three rows is read whole otherwise
    return " ".join(map(str, connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)))


@pytest.mark.parametrize(
    ("look", "index"),
    [
        (held_sends, "ix_enrollment_held"),
        (lambda session, viewer: held_sends(session, viewer, 1), "ix_enrollment_held"),
        (parked, "ix_enrollment_parked"),
        (parked_count, "ix_enrollment_parked"),
        (uncertain_count, "ix_message_uncertain"),
    ],
    ids=["held", "held in one version", "parked", "how many parked", "how many uncertain"],
)
async def test_counting_trouble_does_not_read_those_who_just_wait(stage: Stage, look: Any, index: str) -> None:
    with stage.db.reading() as session:
        with statements(stage.db) as asked:
            look(session, stage.marketer)
        question = next(each for each in asked if each[0].startswith(("SELECT", "WITH")))
        plan = plan_of(session, stage.db, *question)

    assert index in plan, plan
