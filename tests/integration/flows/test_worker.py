"""The journey worker against a real Prefect server: the runs that operations see and change there, and the enrollments in them."""

import asyncio
import uuid
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_WORKER_QUERY_SECONDS, temporary_settings
from prefect.states import Cancelled, Pending, Running

from distmark.clock import wall_now
from distmark.engagement.service import record_event
from distmark.enrollments.model import EnrollmentStatus
from flows.launch import JOURNEY_TAG, launch
from flows.prefect_api import QueueApi
from flows.queue_lock import QueueLock
from flows.states import claiming, running, waiting
from flows.worker import JourneyWorker
from tests.shop import Shop
from tests.waiting import until

pytestmark = [pytest.mark.prefect, pytest.mark.filterwarnings("default")]


async def test_contact_sleeps_as_waiting_and_is_shown_with_step_and_reason(shop: Shop) -> None:
    campaign, hanako = await shop.open(), shop.stage.contact()
    shop.stage.enrol(campaign, hanako)

    async with shop.worker():
        await until(lambda: shop.stage.enrollment(hanako).step_id == "booking" and shop.stage.enrollment(hanako).claimed_by is None)

        async def asleep() -> bool:
            return (await shop.run_of(hanako)).state_name == "Waiting"

        await until(asleep)

    run = await shop.run_of(hanako)
    assert run.state.state_details.scheduled_time == shop.stage.enrollment(hanako).due_at
    assert "booking · waits for booked until" in run.state.message
    assert {tag.split(":")[0] for tag in run.tags} == {"journey", "version", "campaign", "partner"}
    assert set(run.parameters) == {"run_key"}
    assert run.infrastructure_pid is None


async def test_worker_of_the_systems_pool_asks_for_work_and_minds_the_alarms(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    webhooks: list[str] = []

    async def note(_db: object, _clock: object, webhook: str, _client: object) -> int:
        webhooks.append(webhook)
        return 1

    monkeypatch.setattr("flows.worker.raise_alarms_without_prefect", note)
    shop.settings.system_pool, shop.settings.alarm_webhook = shop.pool, "http://127.0.0.1:1/alarm"

    async with shop.worker() as worker:
        await until(lambda: worker._polled_at > 0)

    assert webhooks == ["http://127.0.0.1:1/alarm"]


async def test_event_wakes_the_run_early_and_it_completes(shop: Shop) -> None:
    campaign, hanako = await shop.open(), shop.stage.contact()
    shop.stage.enrol(campaign, hanako)

    async with shop.worker():
        await until(lambda: shop.stage.enrollment(hanako).step_id == "booking")
        with shop.stage.db.writing() as session:
            record_event(session, shop.stage.brand.id, "booked", shop.stage.clock.now(), contact_id=hanako.id)

        async def over() -> bool:
            return (await shop.run_of(hanako)).state.is_completed()

        await until(over)

    assert [message.subject for message in shop.stage.mail.accepted] == ["one", "two"]
    assert "completed" in (await shop.run_of(hanako)).state.message


async def test_steps_show_on_the_page_of_the_run(shop: Shop) -> None:
    campaign, hanako = await shop.open("  - {id: first, send: email, message: one}\n", ""), shop.stage.contact()
    shop.stage.enrol(campaign, hanako)

    async def shown() -> bool:
        flow_run_id = shop.stage.enrollment(hanako).flow_run_id
        if flow_run_id is None:
            return False
        found = await shop.client.request("POST", "/task_runs/filter", json={"flow_runs": {"id": {"any_": [flow_run_id]}}})
        return [run["name"] for run in found.json()] == ["first · send"]

    async with shop.worker():
        await until(shown)


async def logs_of(shop: Shop, flow_run_id: str | None) -> list[str]:
    if flow_run_id is None:
        return []
    asked = {"logs": {"flow_run_id": {"any_": [flow_run_id]}}, "sort": "TIMESTAMP_ASC"}
    return [line["message"] for line in (await shop.client.request("POST", "/logs/filter", json=asked)).json()]


async def test_a_sleeping_run_says_each_step_with_the_way_to_our_page(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.worker.LOGS_EVERY_SECONDS", 0.1)
    shop.settings.public_url = "https://mail.mirai.example"
    campaign, hanako = await shop.open(), shop.stage.contact()
    shop.stage.enrol(campaign, hanako)

    async with shop.worker():

        async def shown() -> bool:
            return len(await logs_of(shop, shop.stage.enrollment(hanako).flow_run_id)) >= 2

        await until(shown)

    lines = await logs_of(shop, shop.stage.enrollment(hanako).flow_run_id)
    assert lines[0].startswith("first · send: sent")
    assert "booking · waits for booked until" in lines[-1]
    assert all(line.endswith(f" · https://mail.mirai.example/enrollments/{shop.stage.enrollment(hanako).id}") for line in lines)
    assert not any(known and known in line for line in lines for known in (hanako.email, hanako.last_name, hanako.first_name))


async def test_lines_of_many_wakes_go_to_prefect_in_one_call(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    add_logs = QueueApi.add_logs

    async def count(api: QueueApi, lines: list[dict[str, Any]]) -> None:
        calls.append(len(lines))
        await add_logs(api, lines)

    monkeypatch.setattr(QueueApi, "add_logs", count)
    campaign, people = await shop.open(), [shop.stage.contact() for _ in range(6)]
    shop.stage.enrol(campaign, *people)

    async with shop.worker() as worker:
        await until(lambda: worker.wakes >= len(people))

    assert sum(calls) >= 2 * len(people)
    assert len(calls) < len(people)
    assert all([len(await logs_of(shop, shop.stage.enrollment(person).flow_run_id)) >= 2 for person in people])  # none waits at the end


async def test_runs_of_contacts_have_a_tag_that_no_run_of_the_system_has(shop: Shop) -> None:
    campaign, hanako = await shop.open(), shop.stage.contact()
    shop.stage.enrol(campaign, hanako)
    async with shop.worker():
        await until(lambda: shop.stage.enrollment(hanako).flow_run_id)

    assert JOURNEY_TAG in (await shop.run_of(hanako)).tags


async def test_cancelling_a_sleeping_run_ends_the_enrollment(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.worker.CANCELLED_EVERY_SECONDS", 0.1)
    campaign, hanako = await shop.open(), shop.stage.contact()
    shop.stage.enrol(campaign, hanako)

    async with shop.worker():
        await until(lambda: shop.stage.enrollment(hanako).step_id == "booking")

        async def asleep() -> bool:
            return (await shop.run_of(hanako)).state_name == "Waiting"

        await until(asleep)
        await shop.client.set_flow_run_state(uuid.UUID(shop.stage.enrollment(hanako).flow_run_id), Cancelled())
        await until(lambda: shop.stage.enrollment(hanako).status is EnrollmentStatus.ended)

    assert "dashboard" in shop.stage.enrollment(hanako).reason


async def test_paused_pool_holds_everybody_and_loses_nobody(shop: Shop) -> None:
    campaign, people = await shop.open(), [shop.stage.contact() for _ in range(5)]
    await shop.client.update_work_pool(shop.pool, WorkPoolUpdate(is_paused=True))
    shop.stage.enrol(campaign, *people)

    async with shop.worker() as worker:
        await until(lambda: all(shop.stage.enrollment(person).flow_run_id for person in people))
        with shop.stage.db.writing() as session:
            record_event(session, shop.stage.brand.id, "booked", shop.stage.clock.now(), contact_id=people[0].id)
        for _look in range(3):
            before = worker._polled_at
            await until(lambda before=before: worker._polled_at > before)
        held = list(shop.stage.mail.accepted)
        await shop.client.update_work_pool(shop.pool, WorkPoolUpdate(is_paused=False))
        await until(lambda: len(shop.stage.mail.accepted) >= 5)

    assert held == []


@pytest.mark.both_databases
async def test_runs_of_a_dead_worker_go_on_when_the_next_one_starts(shop: Shop) -> None:
    """L1, L2"""
    campaign, people = await shop.open(), [shop.stage.contact() for _ in range(3)]
    shop.stage.enrol(campaign, *people)
    await launch(shop.stage.db, shop.client, "default", wall_now())
    pending, begun, _claimed = (uuid.UUID(shop.stage.enrollment(person).flow_run_id) for person in people)
    await shop.client.set_flow_run_state(pending, claiming())
    await shop.client.set_flow_run_state(begun, claiming())
    await shop.client.set_flow_run_state(begun, running())
    with shop.stage.db.writing() as session:
        row = session.get_one(type(shop.stage.enrollment(people[2])), shop.stage.enrollment(people[2]).id)
        row.claimed_by = "default@gone:1:dead"
        session.add(row)

    async with shop.worker():
        await until(lambda: len(shop.stage.mail.accepted) == 3)

    assert len({message.to_address for message in shop.stage.mail.accepted}) == 3


async def test_claim_whose_answer_was_lost_goes_on(shop: Shop) -> None:
    campaign, hanako = await shop.open(), shop.stage.contact()

    async with shop.worker() as worker:
        await until(lambda: worker._polled_at > 0)  # it has recovered what it found when it began
        shop.stage.enrol(campaign, hanako)
        await launch(shop.stage.db, shop.client, "default", wall_now())
        await shop.client.set_flow_run_state(uuid.UUID(shop.stage.enrollment(hanako).flow_run_id), claiming())
        flow_run = await shop.run_of(hanako)
        if shop.stage.enrollment(hanako).step_id is None:
            await worker.executor.execute(flow_run)

        await until(lambda: len(shop.stage.mail.accepted) == 1)


@pytest.mark.both_databases
async def test_launching_twice_makes_one_run(shop: Shop) -> None:
    campaign, hanako = await shop.open(), shop.stage.contact()
    shop.stage.enrol(campaign, hanako)
    await launch(shop.stage.db, shop.client, "default", wall_now())
    first = shop.stage.enrollment(hanako).flow_run_id
    with shop.stage.db.writing() as session:
        row = session.get_one(type(shop.stage.enrollment(hanako)), shop.stage.enrollment(hanako).id)
        row.flow_run_id = None  # as if we had died between Prefect's answer and our note of it
        session.add(row)

    created = await launch(shop.stage.db, shop.client, "default", wall_now())

    assert (created, shop.stage.enrollment(hanako).flow_run_id) == (1, first)


@pytest.mark.both_databases
async def test_only_one_worker_owns_a_queue(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """D1"""
    taken: list[bool] = []
    acquire = QueueLock.acquire

    def note(lock: QueueLock) -> bool:
        taken.append(acquire(lock))
        return taken[-1]

    monkeypatch.setattr(QueueLock, "acquire", note)
    campaign, people = await shop.open("  - {id: first, send: email, message: one}\n", ""), [shop.stage.contact() for _ in range(10)]
    shop.stage.enrol(campaign, *people)

    async with shop.worker() as one, shop.worker() as two:
        await until(lambda: len(shop.stage.mail.accepted) == 10)
        await until(lambda: False in taken)

    assert sorted([one.wakes > 0, two.wakes > 0]) == [False, True]
    assert len(shop.stage.mail.accepted) == 10


async def test_more_are_due_at_once_than_are_asked_for_at_a_time(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """L9: runs beyond the limit of one poll are found by the next one, whether they are to be launched, due or woken."""
    monkeypatch.setattr("flows.worker.POLL_LIMIT", 3)
    monkeypatch.setattr("flows.worker.EARLY_LIMIT", 3)
    monkeypatch.setattr("flows.launch.BULK", 2)
    monkeypatch.setattr("flows.worker.launch", partial(launch, limit=4))
    campaign, people = await shop.open(), [shop.stage.contact() for _ in range(10)]
    shop.stage.enrol(campaign, *people)

    async with shop.worker():
        await until(lambda: all(shop.stage.enrollment(person).step_id == "booking" for person in people))
        with shop.stage.db.writing() as session:
            for person in people:
                record_event(session, shop.stage.brand.id, "booked", shop.stage.clock.now(), contact_id=person.id)
        await until(lambda: all(shop.stage.enrollment(person).outcome == "completed" for person in people))

    sent = sorted((message.to_address, message.subject) for message in shop.stage.mail.accepted)
    assert sent == sorted((person.email, subject) for person in people for subject in ("one", "two"))


async def test_worker_whose_own_loop_ends_ends_too(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """L2: otherwise it would send heartbeats forever and do nothing."""

    async def unheard_of(_worker: JourneyWorker) -> int:
        raise KeyError("a fault of ours")

    monkeypatch.setattr(JourneyWorker, "_launch", unheard_of)
    worker = JourneyWorker(
        work_pool_name=shop.pool, work_queues=["default"], name=f"worker-{shop.pool}", context=shop.stage.context, settings=shop.settings
    )

    often = temporary_settings({PREFECT_WORKER_QUERY_SECONDS: 0.1})  # Prefect's own loop is what notices
    with often, pytest.raises(ExceptionGroup) as ended:
        await asyncio.wait_for(worker.start(printer=lambda *_: None), 30)

    assert ended.group_contains(KeyError, match="a fault of ours")


async def test_cohort_of_many_contacts_is_one_run(shop: Shop) -> None:
    campaign, people = await shop.open(contacts_per_run=50), [shop.stage.contact() for _ in range(20)]
    shop.stage.enrol(campaign, *people)

    async with shop.worker():
        await until(lambda: len(shop.stage.mail.accepted) == 20)

    assert len({shop.stage.enrollment(person).flow_run_id for person in people}) == 1


class TestWhatWeRelyOnInPrefect:
    """Behaviour of Prefect that is not promised by its documentation; an upgrade that changes it fails here first."""

    async def _run(self, shop: Shop) -> uuid.UUID:
        campaign, hanako = await shop.open(), shop.stage.contact()
        shop.stage.enrol(campaign, hanako)
        await launch(shop.stage.db, shop.client, "default", wall_now())
        return uuid.UUID(shop.stage.enrollment(hanako).flow_run_id)

    async def test_second_claim_is_refused(self, shop: Shop) -> None:
        run = await self._run(shop)
        first = await shop.client.set_flow_run_state(run, Pending())
        second = await shop.client.set_flow_run_state(run, Pending())
        assert (first.status.value, second.status.value) == ("ACCEPT", "ABORT")

    async def test_running_goes_back_to_waiting_and_sleeps_for_years(self, shop: Shop) -> None:
        run = await self._run(shop)
        for state in (claiming(), running(), waiting(wall_now() + timedelta(days=800), "asleep")):
            answer = await shop.client.set_flow_run_state(run, state)
            assert answer.status.value == "ACCEPT"
        assert (await shop.client.read_flow_run(run)).state_name == "Waiting"

    async def test_sleeping_run_can_be_claimed_before_its_time(self, shop: Shop) -> None:
        run = await self._run(shop)
        for state in (claiming(), running(), waiting(wall_now() + timedelta(days=800), "asleep"), claiming(), running()):
            answer = await shop.client.set_flow_run_state(run, state)
        assert (answer.status.value, (await shop.client.read_flow_run(run)).state_type) == ("ACCEPT", StateType.RUNNING)

    async def test_cancelled_run_refuses_the_claim(self, shop: Shop) -> None:
        run = await self._run(shop)
        await shop.client.set_flow_run_state(run, Cancelled())
        answer = await shop.client.set_flow_run_state(run, claiming())
        assert answer.status.value in ("ABORT", "REJECT")

    async def test_running_is_no_lock(self, shop: Shop) -> None:
        run = await self._run(shop)
        await shop.client.set_flow_run_state(run, claiming())
        await shop.client.set_flow_run_state(run, Running())
        answer = await shop.client.set_flow_run_state(run, Running())
        assert answer.status.value == "ACCEPT"
