"""Repairs of upkeep against a real Prefect server: after any act of operations no contact is lost, and no message is sent twice."""

import asyncio
import uuid
from datetime import timedelta

import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Completed, Suspended

from distmark.clock import wall_now
from distmark.contacts.table import Contact
from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.table import Enrollment
from distmark.operations.parked import retry_parked
from distmark.sql import id_of
from flows.connection import prefect_client
from flows.launch import launch
from flows.queue_lock import QueueLock
from flows.states import claiming, running, waiting
from flows.upkeep import Cursor, Repaired, UpkeepContext, repair, upkeep
from tests.shop import EVENTS, SHOP_STEPS, Shop
from tests.waiting import until

pytestmark = [pytest.mark.prefect, pytest.mark.filterwarnings("default")]

ONE_MAIL = "  - {id: first, send: email, message: one}\n"
RARE = "  - {id: rest, wait: {for: 30 days}}\n  - {id: first, send: email, message: one}\n"


async def keep_up(shop: Shop, rounds: Cursor | None = None) -> Repaired:
    """Run the repairs of upkeep in this test's pool."""

    def once() -> Repaired:
        with temporary_settings({PREFECT_API_URL: shop.settings.prefect_api_url}), prefect_client() as client:
            return repair(UpkeepContext(shop.stage.db, shop.stage.clock, client, shop.pool, shop.settings.data_dir, rounds or Cursor()))

    return await asyncio.to_thread(once)


async def launched(shop: Shop, people: int = 1, steps: str = ONE_MAIL, **campaign: object) -> list[Contact]:
    """Enroll contacts and create their runs, without a worker."""
    made, contacts = await shop.open(steps, EVENTS if "booked" in steps else "", **campaign), [shop.stage.contact() for _ in range(people)]
    shop.stage.enrol(made, *contacts)
    await launch(shop.stage.db, shop.client, "default", wall_now())
    return contacts


def run_id(shop: Shop, contact: Contact) -> uuid.UUID:
    return uuid.UUID(shop.stage.enrollment(contact).flow_run_id or "")


def repairs(shop: Shop, contact: Contact) -> list[str]:
    return [str(move.detail["mended"]) for move in shop.stage.moves(contact) if move.kind is TimelineKind.woken]


async def test_nothing_is_mended_where_nothing_is_wrong(shop: Shop) -> None:
    await launched(shop, 3)
    shop.stage.clock.move(timedelta(hours=1))

    assert await keep_up(shop) == Repaired()


async def test_deleted_run_is_launched_anew_under_the_same_key_and_goes_on(shop: Shop) -> None:
    """L6: an enrollment whose run was deleted gets another, and its timeline says so."""
    (hanako,) = await launched(shop)
    before, key = run_id(shop, hanako), shop.stage.enrollment(hanako).run_key
    await shop.client.delete_flow_run(before)
    shop.stage.clock.move(timedelta(minutes=6))

    found = await keep_up(shop)
    async with shop.worker():
        await until(lambda: shop.stage.enrollment(hanako).outcome == "completed")

    assert found == Repaired(relaunched=1)
    assert (run_id(shop, hanako) != before, shop.stage.enrollment(hanako).run_key) == (True, key)
    assert (repairs(shop, hanako), len(shop.stage.mail.accepted)) == (["run_gone"], 1)


async def test_worker_that_finds_a_run_deleted_launches_it_anew_at_once(shop: Shop) -> None:
    (hanako,) = await launched(shop)
    before = run_id(shop, hanako)
    await shop.client.delete_flow_run(before)
    with shop.stage.db.writing() as session:
        row = session.get_one(Enrollment, shop.stage.enrollment(hanako).id)
        row.woken_at = shop.stage.clock.now()
        session.add(row)

    async with shop.worker():
        await until(lambda: shop.stage.enrollment(hanako).outcome == "completed")

    assert run_id(shop, hanako) != before
    assert len(shop.stage.mail.accepted) == 1


@pytest.mark.parametrize(
    "state",
    [Completed(), State(type=StateType.FAILED, name="Failed"), State(type=StateType.CRASHED, name="Crashed")],
    ids=["completed", "failed", "crashed"],
)
async def test_run_that_is_over_while_somebody_in_it_is_not_is_reopened(shop: Shop, state: State) -> None:
    (hanako,) = await launched(shop)
    await shop.client.set_flow_run_state(run_id(shop, hanako), state)
    shop.stage.clock.move(timedelta(minutes=6))

    found = await keep_up(shop)
    async with shop.worker():
        await until(lambda: len(shop.stage.mail.accepted) == 1)

    assert (found, repairs(shop, hanako)) == (Repaired(reopened=1), ["run_over"])


async def test_run_that_sleeps_past_its_time_is_woken(shop: Shop) -> None:
    """L2"""
    (hanako,) = await launched(shop)
    await shop.client.set_flow_run_state(run_id(shop, hanako), waiting(wall_now() + timedelta(days=3650), "asleep"))
    shop.stage.clock.move(timedelta(minutes=6))

    found = await keep_up(shop)

    assert (found, repairs(shop, hanako)) == (Repaired(recalled=1), ["asleep_too_long"])
    assert (await shop.run_of(hanako)).next_scheduled_start_time <= wall_now()


async def test_run_that_was_claimed_and_forgotten_goes_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.upkeep.wall_now", lambda: wall_now() + timedelta(minutes=6))
    pending, begun = await launched(shop, 2)
    await shop.client.set_flow_run_state(run_id(shop, pending), claiming())
    await shop.client.set_flow_run_state(run_id(shop, begun), claiming())
    await shop.client.set_flow_run_state(run_id(shop, begun), running())
    shop.stage.clock.move(timedelta(minutes=6))

    found = await keep_up(shop)

    assert found == Repaired(recovered=2)
    assert {(await shop.run_of(contact)).state_name for contact in (pending, begun)} == {"Waiting"}


async def test_run_that_was_claimed_just_now_is_left_alone(shop: Shop) -> None:
    (hanako,) = await launched(shop)
    await shop.client.set_flow_run_state(run_id(shop, hanako), claiming())
    shop.stage.clock.move(timedelta(minutes=6))

    assert await keep_up(shop) == Repaired()
    assert (await shop.run_of(hanako)).state_name == "Pending"


async def test_run_suspended_by_ops_is_counted_and_left_to_them(shop: Shop) -> None:
    (hanako,) = await launched(shop)
    for state in (claiming(), running(), Suspended(timeout_seconds=3600)):
        await shop.client.set_flow_run_state(run_id(shop, hanako), state)
    shop.stage.clock.move(timedelta(minutes=6))

    assert await keep_up(shop) == Repaired(held=1)


async def test_cancelling_many_sleeping_runs_ends_all_their_enrollments(shop: Shop) -> None:
    people = await launched(shop, 6, RARE)
    for person in people[:5]:
        await shop.client.set_flow_run_state(run_id(shop, person), Cancelled())

    found = await keep_up(shop)

    assert found == Repaired(cancelled=5)
    assert [shop.stage.enrollment(person).status for person in people] == [EnrollmentStatus.ended] * 5 + [EnrollmentStatus.waiting]
    assert "dashboard" in shop.stage.enrollment(people[0]).reason


async def test_cohort_run_that_is_deleted_is_launched_anew_for_those_still_inside(shop: Shop) -> None:
    """L6"""
    people = await launched(shop, 4, contacts_per_run=10)
    with shop.stage.db.writing() as session:
        row = session.get_one(Enrollment, shop.stage.enrollment(people[0]).id)
        row.status, row.due_at = EnrollmentStatus.ended, None
        session.add(row)
    await shop.client.delete_flow_run(run_id(shop, people[1]))
    shop.stage.clock.move(timedelta(minutes=6))

    await keep_up(shop)
    async with shop.worker():
        await until(lambda: len(shop.stage.mail.accepted) == 3)

    assert len({run_id(shop, person) for person in people[1:]}) == 1


async def test_run_without_an_enrollment_is_cancelled_and_one_being_launched_is_not(shop: Shop) -> None:
    lost, launching = await launched(shop, 2, RARE)
    orphan, early = run_id(shop, lost), run_id(shop, launching)
    with shop.stage.db.writing() as session:
        row = session.get_one(Enrollment, shop.stage.enrollment(lost).id)
        row.run_key = "another"  # as if a backup of our database had been restored
        session.add(row)
        row = session.get_one(Enrollment, shop.stage.enrollment(launching).id)
        row.flow_run_id = None  # as if we had died between Prefect's answer and our note of it
        session.add(row)

    found = await keep_up(shop)

    assert found == Repaired(orphans=1)
    assert (await shop.client.read_flow_run(orphan)).state_name == "Cancelled"
    assert (await shop.client.read_flow_run(early)).state_name == "Enrolled"


async def test_claims_of_a_dead_worker_are_let_go_and_those_of_a_living_one_are_only_told(shop: Shop) -> None:
    """L3"""
    (hanako,) = await launched(shop)
    with shop.stage.db.writing() as session:
        row = session.get_one(Enrollment, shop.stage.enrollment(hanako).id)
        row.claimed_by, row.claimed_at = "default@gone:1:dead", shop.stage.clock.now()
        session.add(row)
    shop.stage.clock.move(timedelta(minutes=11))
    alive = QueueLock(shop.stage.db, "default", shop.settings.data_dir)
    assert alive.acquire()

    first_repair = await keep_up(shop)
    alive.release()
    freed = await keep_up(shop)

    assert (first_repair.stuck, first_repair.released, freed.stuck, freed.released) == (1, 0, 0, 1)
    assert shop.stage.enrollment(hanako).claimed_by is None
    assert repairs(shop, hanako) == ["claim_of_the_dead"]


async def test_retrying_a_parked_run_in_the_dashboard_lets_its_step_be_tried_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.worker.POLL_ANYWAY_SECONDS", 0.1)
    (hanako,) = await launched(shop)
    with shop.stage.db.writing() as session:
        row = session.get_one(Enrollment, shop.stage.enrollment(hanako).id)
        row.status, row.due_at, row.tries, row.error = EnrollmentStatus.parked, None, 5, "KeyError"
        session.add(row)
    for state in (claiming(), running(), State(type=StateType.FAILED, name="Parked")):
        await shop.client.set_flow_run_state(run_id(shop, hanako), state)

    async with shop.worker() as worker:
        await until(lambda: worker._polled_at > 0)
        before = shop.stage.enrollment(hanako).status
        retry = State(type=StateType.SCHEDULED, name="AwaitingRetry", message="Retry from the UI")
        await shop.client.set_flow_run_state(run_id(shop, hanako), retry)
        await until(lambda: shop.stage.enrollment(hanako).status is EnrollmentStatus.ended)

    row = shop.stage.enrollment(hanako)
    assert (before, row.outcome, row.tries, len(shop.stage.mail.accepted)) == (EnrollmentStatus.parked, "completed", 0, 1)
    assert any(move.kind is TimelineKind.resumed and move.detail.get("parked") for move in shop.stage.moves(hanako))


async def test_trying_again_on_our_page_needs_nothing_in_the_dashboard(shop: Shop) -> None:
    (hanako,) = await launched(shop)
    with shop.stage.db.writing() as session:
        row = session.get_one(Enrollment, shop.stage.enrollment(hanako).id)
        row.status, row.due_at, row.tries, row.error = EnrollmentStatus.parked, None, 5, "KeyError"
        session.add(row)
    for state in (claiming(), running(), State(type=StateType.FAILED, name="Parked")):
        await shop.client.set_flow_run_state(run_id(shop, hanako), state)
    before = run_id(shop, hanako)

    async with shop.worker():
        with shop.stage.db.writing() as session:
            retry_parked(session, shop.stage.marketer, [id_of(shop.stage.enrollment(hanako))], shop.stage.clock.now())

        async def over() -> bool:
            return (await shop.run_of(hanako)).state.is_completed()

        await until(over)

    row = shop.stage.enrollment(hanako)
    assert (run_id(shop, hanako), row.outcome, row.tries, len(shop.stage.mail.accepted)) == (before, "completed", 0, 1)


async def test_event_in_a_cohort_leaves_its_parked_member_parked(shop: Shop) -> None:
    from distmark.engagement.service import record_event

    parked, waiting_one = await launched(shop, 2, SHOP_STEPS, contacts_per_run=10)
    async with shop.worker():
        await until(lambda: {shop.stage.enrollment(each).step_id for each in (parked, waiting_one)} == {"booking"})
        await until(lambda: shop.stage.enrollment(parked).claimed_by is None)
        with shop.stage.db.writing() as session:
            row = session.get_one(Enrollment, shop.stage.enrollment(parked).id)
            row.status, row.due_at = EnrollmentStatus.parked, None
            session.add(row)
            record_event(session, shop.stage.brand.id, "booked", shop.stage.clock.now(), contact_id=waiting_one.id)
        await until(lambda: shop.stage.enrollment(waiting_one).status is EnrollmentStatus.ended)

        async def over() -> bool:
            return (await shop.run_of(parked)).state_name == "Parked"

        await until(over)

    assert shop.stage.enrollment(parked).status is EnrollmentStatus.parked


async def test_rounds_go_on_where_the_last_one_ended(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.upkeep.MOST_OVERDUE", 2)
    monkeypatch.setattr("distmark.enrollments.run_repairs.MOST_OVERDUE", 2)
    people = await launched(shop, 3)
    for person in people:
        await shop.client.set_flow_run_state(run_id(shop, person), waiting(wall_now() + timedelta(days=1), "asleep"))
    shop.stage.clock.move(timedelta(minutes=6))
    rounds = Cursor()

    first, second = await keep_up(shop, rounds), await keep_up(shop, rounds)

    assert (first.recalled, second.recalled) == (2, 1)


async def test_upkeep_flow_mends_and_its_alarms_are_events_in_prefect(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    (hanako,) = await launched(shop)
    await shop.client.delete_flow_run(run_id(shop, hanako))
    shop.stage.clock.move(timedelta(minutes=6))
    monkeypatch.setattr(type(shop.settings), "clock", lambda _settings: shop.stage.clock)
    monkeypatch.setattr("flows.upkeep.get_settings", lambda: shop.settings)
    monkeypatch.setattr("flows.upkeep.get_database", lambda: shop.stage.db)

    def once() -> dict[str, int]:
        with temporary_settings({PREFECT_API_URL: shop.settings.prefect_api_url}):
            return upkeep()

    found = await asyncio.to_thread(once)

    async def first_repair() -> bool:
        body = {"filter": {"event": {"name": ["distmark.alarm.raised"]}}}
        events = (await shop.client.request("POST", "/events/filter", json=body)).json()["events"]
        return any(event["payload"]["kind"] == "late" and event["resource"]["prefect.resource.id"].endswith(".v1") for event in events)

    await until(first_repair)
    assert (found["relaunched"], found["alarms_raised"], found["alarms_cleared"]) == (1, 1, 0)
