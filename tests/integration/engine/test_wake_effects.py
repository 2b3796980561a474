"""Effects of steps other than messages: webhooks, audiences, other journeys, tasks; and failures of one member's step."""

import asyncio
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from distmark.channels.memory import Fault
from distmark.clock import FastClock, FixedClock
from distmark.contacts.table import Contact
from distmark.db import Database
from distmark.engagement.service import record_event
from distmark.engine.effects import LOCAL, Integrations
from distmark.engine.wake import EngineContext, wake
from distmark.enrollments.control import stop
from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.suspensions import Scope
from distmark.errors import PermanentDeliveryError, SettingsError, TemporaryDeliveryError
from distmark.integrations.ad_audiences import FileAudiences
from distmark.integrations.memory import MemoryWebhooks
from distmark.integrations.webhooks import WebhookAnswer, WebhookCall
from distmark.journeys.model import CreateTask
from distmark.journeys.table import Journey
from distmark.messages.model import MessageStatus
from tests import factories
from tests.driver import Stage, wake_together

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
ONE_MAIL = "  - {id: first, send: email, message: one}\n"
SCORE = """
  - id: score
    webhook:
      {url: "https://crm.example/score?who={{ contact.last_name }}", body: {name: "{{ contact.last_name }}", n: 1}, secret: crm%s}
"""
BY_SCORE = """
  - id: split
    branch:
      - {when: "answer('score').ok and answer('score').data.points > 5", steps: [{id: call, task: {for: partner, title: Call, due: 1 day}}]}
"""


@dataclass
class OutsideStage(Stage):
    """A stage on which external effects reach services kept in memory."""

    webhooks: MemoryWebhooks = field(default_factory=MemoryWebhooks)
    integrations: Integrations | None = None

    @property
    def context(self) -> EngineContext:
        return replace(super().context, integrations=self.integrations or Integrations(webhooks=self.webhooks))


@pytest.fixture
def stage(db: Database, clock: FixedClock) -> OutsideStage:
    return OutsideStage(db, clock)


def parked_of(stage: Stage, contact: Contact) -> tuple[EnrollmentStatus, int, str]:
    row = stage.enrollment(contact)
    return row.status, row.tries, row.error


# --- webhooks ---------------------------------------------------------------------------------------------------------------------------


async def test_webhook_is_called_with_its_slots_filled_and_its_answer_chooses_the_way(stage: OutsideStage) -> None:
    campaign = stage.journey(SCORE % "" + BY_SCORE)
    hanako, taro = stage.contact(last_name="鈴木"), stage.contact()
    stage.webhooks.answer(WebhookAnswer(200, {"points": 7}), WebhookAnswer(200, {"points": 3}))
    stage.enrol(campaign, hanako, taro)

    await stage.run_for(MINUTE)

    call = stage.webhooks.calls[0]
    assert (call.url, call.method, call.secret) == ("https://crm.example/score?who=鈴木", "POST", "crm")
    assert call.body == {"name": "鈴木", "n": 1}
    assert stage.enrollment(hanako).answers == {"score": {"status": 200, "ok": True, "data": {"points": 7}}}
    assert [task.contact_id for task in stage.tasks()] == [hanako.id]


async def test_failure_that_may_pass_is_tried_again_with_the_same_key_and_ever_longer_pauses(stage: OutsideStage) -> None:
    """L15"""
    campaign = stage.journey(SCORE % "" + BY_SCORE)
    hanako = stage.contact()
    gone = TemporaryDeliveryError("No answer.", code="timeout")
    stage.webhooks.answer(WebhookAnswer(503), gone, WebhookAnswer(429), WebhookAnswer(200, {"points": 7}))
    stage.enrol(campaign, hanako)
    await stage.run_for(timedelta(seconds=1))
    waiting = stage.enrollment(hanako)
    assert (waiting.why, waiting.rules, waiting.due_at) == ("retry", ["status_503"], stage.clock.now() + timedelta(seconds=4))

    await stage.run_for(DAY)

    assert len({call.idempotency_key for call in stage.webhooks.calls}) == 1
    assert len(stage.webhooks.calls) == 4
    waits = [move.detail["rules"] for move in stage.moves(hanako) if move.kind is TimelineKind.waiting]
    assert waits == [["status_503"], ["timeout"], ["status_429"]]
    assert len(stage.tasks()) == 1


@pytest.mark.parametrize(("if_fails", "outcome", "mails"), [("go_on", "completed", 1), ("end", "failed", 0)])
async def test_after_six_tries_more_the_steps_own_rule_decides(stage: OutsideStage, if_fails: str, outcome: str, mails: int) -> None:
    campaign = stage.journey(SCORE % f", if_fails: {if_fails}" + ONE_MAIL)
    hanako = stage.contact()
    stage.webhooks.answer(*[WebhookAnswer(500)] * 20)
    stage.enrol(campaign, hanako)

    await stage.run_for(DAY)

    row = stage.enrollment(hanako)
    assert len(stage.webhooks.calls) == 7
    assert (row.outcome, len(stage.mail.accepted)) == (outcome, mails)
    assert row.answers["score"] == {"status": 500, "ok": False, "data": {}}


@pytest.mark.parametrize("answer", [WebhookAnswer(404, {"why": "unknown"}), PermanentDeliveryError("Never.", code="private_address")])
async def test_refusal_is_not_tried_again(stage: OutsideStage, answer: WebhookAnswer | Exception) -> None:
    campaign = stage.journey(SCORE % ", if_fails: end" + ONE_MAIL)
    hanako = stage.contact()
    stage.webhooks.answer(answer)
    stage.enrol(campaign, hanako)

    await stage.run_for(DAY)

    row = stage.enrollment(hanako)
    assert len(stage.webhooks.calls) == 1
    assert (row.outcome, stage.mail.accepted) == ("failed", [])
    assert row.reason == ("webhook score: status_404" if isinstance(answer, WebhookAnswer) else "webhook score: private_address")


async def test_news_does_not_call_a_failing_webhook_earlier(stage: OutsideStage) -> None:
    campaign = stage.journey(SCORE % "", "goal: {when: \"converted('opened_account')\"}\nevents: [opened_account, visited]")
    hanako, taro = stage.contact(), stage.contact()
    stage.webhooks.answer(*[WebhookAnswer(503)] * 20)
    stage.enrol(campaign, hanako, taro)
    await stage.run_for(20 * MINUTE)  # after 5 s, 30 s, 2 min and 10 min; the next is an hour later
    calls = len(stage.webhooks.calls)

    for contact, name in ((hanako, "visited"), (taro, "opened_account")):
        with stage.db.writing() as session:
            record_event(session, stage.brand.id, name, stage.clock.now(), contact_id=contact.id)
            row = session.get_one(type(stage.enrollment(contact)), stage.enrollment(contact).id)
            row.woken_at = stage.clock.now()
    await stage.run_for(MINUTE)

    assert len(stage.webhooks.calls) == calls
    assert (stage.enrollment(hanako).why, stage.enrollment(taro).outcome) == ("retry", "goal")


async def test_missing_key_parks_the_member_and_calls_nobody_without_it(stage: OutsideStage) -> None:
    campaign = stage.journey(SCORE % "")
    hanako = stage.contact()
    stage.webhooks.answer(*[SettingsError('There is no webhook secret "crm".')] * 20)
    stage.enrol(campaign, hanako)

    await stage.run_for(DAY)

    status, tries, error = parked_of(stage, hanako)
    assert (status, tries) == (EnrollmentStatus.parked, 5)
    assert "webhook secret" in error


async def test_database_is_left_alone_while_the_webhook_answers(stage: OutsideStage) -> None:
    campaign = stage.journey(SCORE % "")
    hanako = stage.contact()
    stage.enrol(campaign, hanako)

    class Meanwhile(MemoryWebhooks):
        async def call(self, call: WebhookCall) -> WebhookAnswer:
            def write() -> None:  # from a thread of its own, as the web would
                with stage.db.writing() as session:
                    stop(session, stage.viewer, Scope.listed([stage.enrollment(hanako).id]), "called off", stage.clock.now())

            await asyncio.wait_for(asyncio.to_thread(write), 5)
            return await super().call(call)

    stage.webhooks = Meanwhile()
    await stage.run_for(MINUTE)

    row = stage.enrollment(hanako)
    assert (row.outcome, row.reason, len(stage.webhooks.calls)) == ("stopped", "called off", 1)


async def test_each_visit_of_a_loop_is_another_call(stage: OutsideStage) -> None:
    loop = """
  - {id: pause, wait: {for: 1 day}}
  - id: again
    branch:
      - {when: "answer('score').data.points < 2", steps: [{id: back, goto: score}]}
"""
    campaign = stage.journey(SCORE % "" + loop)
    stage.webhooks.answer(WebhookAnswer(200, {"points": 1}), WebhookAnswer(200, {"points": 2}))
    stage.enrol(campaign, stage.contact())

    await stage.run_for(5 * DAY)

    assert len({call.idempotency_key for call in stage.webhooks.calls}) == 2


async def test_simulated_context_calls_nobody(stage: OutsideStage) -> None:
    assert isinstance(Stage.context.fget(stage).integrations.webhooks, MemoryWebhooks)


# --- audiences --------------------------------------------------------------------------------------------------------------------------


async def test_audience_of_a_whole_cohort_is_written_once(stage: OutsideStage, tmp_path) -> None:
    campaign = stage.journey(
        "  - {id: in, audience: {add: lookalike}}\n  - {id: pause, wait: {for: 1 day}}\n  - {id: out, audience: {remove: lookalike}}\n",
        contacts_per_run=10,
    )
    files = FileAudiences(tmp_path)
    stage.integrations = Integrations(stage.webhooks, files)
    stage.enrol(campaign, *[stage.contact() for _person in range(3)])

    await stage.run_for(HOUR)
    inside = files.path(stage.brand.key, "lookalike").read_text().splitlines()
    await stage.run_for(2 * DAY)

    assert len(inside) == 4
    assert files.path(stage.brand.key, "lookalike").read_text().splitlines() == ["email_sha256,phone_sha256"]


async def test_audience_that_cannot_be_kept_parks_its_members_and_no_others(stage: OutsideStage) -> None:
    campaign = stage.journey(
        "  - id: who\n    branch:\n      - {when: \"contact.city == 'A'\", steps: [{id: in, audience: {add: broken}}]}\n"
        "  - {id: in-too, audience: {add: fine}}\n",
        contacts_per_run=10,
    )

    class Broken:
        changed: list[str] = []  # noqa: RUF012

        async def change(self, brand: str, audience: str, changes: object) -> None:
            if audience == "broken":
                raise TemporaryDeliveryError("The platform is away.")
            self.changed.append(audience)

    stage.integrations = Integrations(stage.webhooks, Broken())
    unlucky, fine = stage.contact(city="A"), stage.contact(city="B")
    stage.enrol(campaign, unlucky, fine)

    await stage.run_for(DAY)

    assert parked_of(stage, unlucky)[:2] == (EnrollmentStatus.parked, 5)
    assert stage.enrollment(fine).outcome == "completed"


# --- other journeys ---------------------------------------------------------------------------------------------------------------------


def key_of(stage: Stage, campaign) -> str:
    with stage.db.reading() as session:
        return session.get_one(Journey, campaign.journey_id).key


async def test_step_enters_the_contact_into_another_journey_with_its_data(stage: OutsideStage) -> None:
    other = stage.journey(
        "  - id: by-topic\n    branch:\n      - {when: \"journey.topic == '年金'\", steps: [{id: hello, send: email, message: two}]}\n",
        "journey_fields: {topic: text}",
    )
    campaign = stage.journey(f"  - {{id: hop, journey: {key_of(stage, other)}, data: {{topic: 年金}}}}\n" + ONE_MAIL)
    hanako = stage.contact()
    (first,) = stage.enrol(campaign, hanako)

    await stage.run_for(MINUTE)

    entered = stage.enrollment(hanako)
    assert (entered.journey_id, entered.data, entered.campaign_id) == (other.journey_id, {"topic": "年金"}, None)
    assert sorted(message.subject for message in stage.mail.accepted) == ["one", "two"]
    (came,) = [move for move in stage.moves(hanako) if move.kind is TimelineKind.entered and move.enrollment_id == entered.id]
    assert (came.detail["from_enrollment"], came.detail["from_step"]) == (first.enrollment_id, "hop")


async def test_other_journeys_own_rules_decide_and_the_contact_goes_on(stage: OutsideStage) -> None:
    other = stage.journey("  - {id: pause, wait: {for: 30 days}}\n", "entry: {reentry: never}")
    campaign = stage.journey(f"  - {{id: hop, journey: {key_of(stage, other)}}}\n  - {{id: gone, journey: nowhere}}\n" + ONE_MAIL)
    hanako = stage.contact()
    stage.enrol(other, hanako)
    await stage.run_for(MINUTE)
    stage.enrol(campaign, hanako)

    await stage.run_for(MINUTE)

    skipped = [(move.step_id, move.detail["reason"]) for move in stage.moves(hanako) if move.kind is TimelineKind.skipped]
    assert skipped == [("hop", "already_in"), ("gone", "journey_not_open")]
    assert len(stage.mail.accepted) == 1


async def test_journey_that_enters_itself_does_not_go_round_without_end(stage: OutsideStage) -> None:
    own_key = f"trial-{next(factories._numbers) + 1}"
    campaign = stage.journey(f"  - {{id: hop, journey: {own_key}}}\n", "entry: {reentry: any_time}")
    hanako = stage.contact()
    stage.enrol(campaign, hanako)

    await stage.run_for(HOUR)

    assert key_of(stage, campaign) == own_key
    assert len([move for move in stage.moves(hanako) if move.kind is TimelineKind.entered]) == 10
    assert [move.detail["reason"] for move in stage.moves(hanako) if move.kind is TimelineKind.skipped] == ["too_soon"]


# --- when a step fails ------------------------------------------------------------------------------------------------------------------


async def test_effect_that_raises_parks_its_member_after_five_tries_and_no_other(
    stage: OutsideStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D4, D5"""
    campaign = stage.journey("  - {id: call, task: {for: partner, title: Call, due: 1 day}}\n" + ONE_MAIL, contacts_per_run=10)
    poison, fine = stage.contact(), stage.contact()
    create = LOCAL[CreateTask]

    def raising(session, request):
        if request.person.contact.id == poison.id:
            raise RuntimeError("no such person")
        return create(session, request)

    monkeypatch.setitem(LOCAL, CreateTask, raising)
    stage.enrol(campaign, poison, fine)

    await stage.run_for(DAY)

    assert parked_of(stage, poison) == (EnrollmentStatus.parked, 5, "RuntimeError: no such person")
    assert stage.enrollment(fine).outcome == "completed"
    assert len(stage.mail.accepted) == 1


async def test_message_that_cannot_be_made_for_one_does_not_hold_up_the_others(
    stage: OutsideStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D4, D5"""
    campaign = stage.journey(ONE_MAIL, contacts_per_run=10)
    people = [stage.contact() for _person in range(3)]
    from distmark.delivery import service

    render = service.render_for

    def raising(person, *arguments, **options):
        if person.contact.id == people[1].id:
            raise ZeroDivisionError
        return render(person, *arguments, **options)

    monkeypatch.setattr(service, "render_for", raising)
    stage.enrol(campaign, *people)
    await stage.run_for(DAY)
    assert parked_of(stage, people[1])[:2] == (EnrollmentStatus.parked, 5)
    assert [message.to_address for message in stage.mail.accepted] == [people[0].email, people[2].email]
    assert stage.messages(people[1]) == []

    monkeypatch.setattr(service, "render_for", render)
    with stage.db.writing() as session:
        row = session.get_one(type(stage.enrollment(people[1])), stage.enrollment(people[1]).id)
        row.status, row.woken_at = EnrollmentStatus.waiting, stage.clock.now()
    await stage.run_for(MINUTE)

    assert [message.status for message in stage.messages(people[1])] == [MessageStatus.sent]


async def test_channel_that_fails_in_an_unheard_of_way_leaves_the_others_answers(stage: OutsideStage) -> None:
    """D5"""
    campaign = stage.journey(ONE_MAIL, contacts_per_run=10)
    people = [stage.contact() for _person in range(3)]
    deliver = stage.mail.deliver

    async def raising(message):
        if message.to_address == people[1].email:
            raise KeyError("a fault of ours")
        return await deliver(message)

    stage.mail.deliver = raising
    stage.enrol(campaign, *people)

    await stage.run_for(DAY)

    assert [stage.messages(person)[0].status for person in people] == [MessageStatus.sent, MessageStatus.uncertain, MessageStatus.sent]
    assert len(stage.mail.accepted) == 2


async def test_one_refused_address_in_a_cohort_is_marked_and_the_rest_are_sent_once(stage: OutsideStage) -> None:
    """D4, D5"""
    campaign = stage.journey(ONE_MAIL + "  - {id: pause, wait: {for: 1 day}}\n", contacts_per_run=50)
    people = [stage.contact() for _person in range(20)]
    stage.mail.fail_address(people[7].email, Fault.permanent)
    stage.enrol(campaign, *people)

    await stage.run_for(3 * DAY)

    assert stage.mail.calls == 20
    assert [message.status for message in stage.messages(people[7])] == [MessageStatus.rejected]
    assert len(stage.mail.accepted) == 19


@pytest.mark.parametrize("poison", ["walk", "effect"])
async def test_tries_after_an_error_wait_for_machines_and_so_in_real_time(db: Database, poison: str) -> None:
    """On a demo's clock an hour passes in a second; a failed effect still gets the same real time until its next try."""
    fast = FastClock(3600.0, datetime.now(UTC), datetime(2026, 11, 24, 1, 0, tzinfo=UTC))
    stage = OutsideStage(db, fast)
    if poison == "walk":
        steps, fields = (
            '  - id: odd\n    branch:\n      - {when: "100 / contact.amount > 5", steps: [{id: out, exit: rich}]}\n',
            "contact_fields: {amount: number}",
        )
    else:
        steps, fields = SCORE % "", ""
        stage.webhooks.answer(RuntimeError("away"))
    campaign = stage.journey(steps, fields)
    hanako = stage.contact(attributes={"amount": 0})
    stage.enrol(campaign, hanako)
    before = fast.now()

    await wake(stage.context, stage.enrollment(hanako).run_key)

    real = (stage.enrollment(hanako).due_at - before) / 3600.0
    assert stage.enrollment(hanako).tries == 1
    assert 2 * MINUTE <= real <= 3 * MINUTE


# --- several workers --------------------------------------------------------------------------------------------------------------------


def test_workers_that_wake_the_same_people_at_once_send_each_message_once(stage: OutsideStage) -> None:
    """D2"""
    campaign = stage.journey(ONE_MAIL + SCORE % "" + "  - {id: second, send: email, message: two}\n", contacts_per_run=10)
    people = [stage.contact() for _person in range(30)]
    stage.enrol(campaign, *people)
    runs = sorted({stage.enrollment(person).run_key for person in people})

    wake_together(stage, [(runs[number % len(runs) :] + runs[: number % len(runs)]) * 2 for number in range(4)])

    sent = sorted((message.to_address, message.subject) for message in stage.mail.accepted)
    assert sent == sorted((person.email, subject) for person in people for subject in ("one", "two"))
    assert len(stage.webhooks.calls) == 30
    assert {message.status for message in stage.messages()} == {MessageStatus.sent}
