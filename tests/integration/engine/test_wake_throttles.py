"""How fast messages go out: rates honoured by all processes together, in the order in which people came."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlmodel import select

from distmark.channels.memory import Fault
from distmark.compliance.service import audit_trail
from distmark.delivery.send_rate_spacing import RateScope
from distmark.delivery.send_rates import forget_past_slots, list_rates, remove_rate, set_rate
from distmark.delivery.table import Pace
from distmark.enrollments.control import pause, resume
from distmark.enrollments.model import TimelineKind
from distmark.enrollments.suspensions import Scope
from distmark.errors import InvalidInput, NotAllowed, NotFound
from distmark.messages.model import MessageStatus
from distmark.partners.model import Role
from tests import factories
from tests.driver import Stage, wake_together

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
ONE_MAIL = "  - {id: first, send: email, message: one}\n"


@pytest.fixture
def ops(stage: Stage):
    with stage.db.writing() as session:
        return factories.make_viewer(session, Role.ops, session.get_one(type(stage.brand), stage.brand.id))


def slow(stage: Stage, ops, scope: RateScope, key: str, per_hour: int, **burst: int) -> None:
    with stage.db.writing() as session:
        set_rate(session, ops, scope, key, per_hour, stage.clock.now(), **burst)


def minutes_of(stage: Stage, start: datetime) -> list[float]:
    return [(message.sent_at - start) / MINUTE for message in stage.mail.accepted]


async def test_one_an_hour_is_one_an_hour_first_come_first_served(stage: Stage, ops) -> None:
    slow(stage, ops, RateScope.partner, stage.partner.key, 1)
    campaign = stage.journey(ONE_MAIL)
    people = [stage.contact() for _person in range(4)]
    start = stage.clock.now()
    stage.enrol(campaign, *people)

    await stage.run_for(DAY)

    assert minutes_of(stage, start) == [0, 60, 120, 180]
    assert [message.to_address for message in stage.mail.accepted] == [person.email for person in people]


async def test_held_member_tells_whose_throttle_and_until_when_and_is_counted_once(stage: Stage, ops) -> None:
    slow(stage, ops, RateScope.partner, stage.partner.key, 2)
    campaign = stage.journey(ONE_MAIL, contacts_per_run=10)
    people = [stage.contact() for _person in range(3)]
    start = stage.clock.now()
    stage.enrol(campaign, *people)

    await stage.run_for(MINUTE)

    last, rule = stage.enrollment(people[2]), f"throttle:partner:{stage.partner.key}"
    assert (last.why, last.rules, last.due_at) == ("held", [rule], start + HOUR)
    await stage.run_for(2 * HOUR)
    assert [move.detail["rules"] for move in stage.moves(people[2]) if move.kind is TimelineKind.held] == [[rule]]
    assert stage.enrollment(people[2]).wakes == 2  # it came, and it came back at its turn


async def test_slowest_of_several_rates_decides(stage: Stage, ops) -> None:
    campaign = stage.journey(ONE_MAIL)
    slow(stage, ops, RateScope.partner, stage.partner.key, 60)
    slow(stage, ops, RateScope.campaign, campaign.key, 6)
    slow(stage, ops, RateScope.sending_domain, "mirai.example", 30)
    start = stage.clock.now()
    stage.enrol(campaign, *[stage.contact() for _person in range(3)])

    await stage.run_for(DAY)

    assert minutes_of(stage, start) == [0, 10, 20]


async def test_each_destination_has_a_pace_of_its_own(stage: Stage, ops) -> None:
    slow(stage, ops, RateScope.destination_domain, "*", 60)
    slow(stage, ops, RateScope.destination_domain, "Docomo.ne.jp", 6)
    campaign = stage.journey(ONE_MAIL, contacts_per_run=20)
    addresses = [f"{name}@{domain}" for domain in ("docomo.ne.jp", "example.com", "example.org") for name in "abc"]
    start = stage.clock.now()
    stage.enrol(campaign, *[stage.contact(email=address) for address in addresses])

    await stage.run_for(DAY)

    sent = {domain: [] for domain in ("docomo.ne.jp", "example.com", "example.org")}
    for message in stage.mail.accepted:
        sent[message.to_address.partition("@")[2]].append((message.sent_at - start) / MINUTE)
    assert sent == {"docomo.ne.jp": [0, 10, 20], "example.com": [0, 1, 2], "example.org": [0, 1, 2]}


async def test_burst_goes_at_once_and_the_rest_at_the_rate(stage: Stage, ops) -> None:
    slow(stage, ops, RateScope.partner, stage.partner.key, 6, burst=3)
    campaign = stage.journey(ONE_MAIL, contacts_per_run=10)
    start = stage.clock.now()
    stage.enrol(campaign, *[stage.contact() for _person in range(5)])

    await stage.run_for(DAY)

    assert minutes_of(stage, start) == [0, 0, 0, 10, 20]


async def test_turn_never_falls_into_quiet_hours_and_the_rate_holds_in_the_morning(stage: Stage, ops) -> None:
    stage.clock.move_to(datetime(2026, 11, 24, 10, 30, tzinfo=UTC))  # 19:30 in Tokyo
    slow(stage, ops, RateScope.partner, stage.partner.key, 1)
    campaign = stage.journey(ONE_MAIL, 'send_policy: {quiet_hours: "21:00-08:00", caps: none}')
    people = [stage.contact() for _person in range(5)]
    start = stage.clock.now()
    stage.enrol(campaign, *people)

    await stage.run_for(MINUTE)
    assert stage.enrollment(people[2]).rules == [f"throttle:partner:{stage.partner.key}", "quiet_hours:21:00-08:00"]
    await stage.run_for(2 * DAY)

    # 19:30 and 20:30 are free; then 8:00, 9:00 and 10:00 of the next day, 12.5 hours on.
    assert minutes_of(stage, start) == [0, 60, 750, 810, 870]
    assert [message.to_address for message in stage.mail.accepted] == [person.email for person in people]


async def test_throttle_slows_down_transactional_messages_too(stage: Stage, ops) -> None:
    slow(stage, ops, RateScope.partner, stage.partner.key, 1)
    campaign = stage.journey("  - {id: first, send: email, message: one, kind: transactional}\n")
    start = stage.clock.now()
    stage.enrol(campaign, stage.contact(), stage.contact())

    await stage.run_for(DAY)

    assert minutes_of(stage, start) == [0, 60]


async def test_message_left_out_by_rule_takes_nobodys_turn(stage: Stage, ops) -> None:
    slow(stage, ops, RateScope.partner, stage.partner.key, 1)
    campaign = stage.journey("  - {id: first, send: email, message: one, if_held: skip}\n", contacts_per_run=10)
    people = [stage.contact() for _person in range(3)]
    start = stage.clock.now()
    stage.enrol(campaign, *people)
    await stage.run_for(MINUTE)

    stage.enrol(stage.journey(ONE_MAIL), stage.contact())
    await stage.run_for(DAY)

    assert [move.detail["reason"] for move in stage.moves(people[1]) if move.kind is TimelineKind.skipped] == [
        f"throttle:partner:{stage.partner.key}"
    ]
    assert minutes_of(stage, start) == [0, 60]


async def test_second_throttled_step_waits_for_a_turn_of_its_own(stage: Stage, ops) -> None:
    slow(stage, ops, RateScope.partner, stage.partner.key, 1)
    campaign = stage.journey(ONE_MAIL + "  - {id: second, send: email, message: two}\n")
    start = stage.clock.now()
    stage.enrol(campaign, stage.contact(), stage.contact())

    await stage.run_for(DAY)

    assert minutes_of(stage, start) == [0, 60, 120, 180]


async def test_try_again_needs_no_second_turn(stage: Stage, ops) -> None:
    """L15"""
    slow(stage, ops, RateScope.partner, stage.partner.key, 1)
    campaign = stage.journey(ONE_MAIL)
    hanako, taro = stage.contact(), stage.contact()
    stage.mail.fail_address(hanako.email, Fault.temporary, times=2)
    start = stage.clock.now()
    stage.enrol(campaign, hanako, taro)

    await stage.run_for(DAY)

    assert [message.status for message in stage.messages()] == [MessageStatus.sent] * 2
    assert [message.to_address for message in stage.mail.accepted] == [hanako.email, taro.email]
    assert minutes_of(stage, start)[1] == 60


async def test_news_before_its_turn_keeps_the_turn(stage: Stage, ops) -> None:
    slow(stage, ops, RateScope.partner, stage.partner.key, 1)
    campaign = stage.journey(ONE_MAIL)
    people = [stage.contact() for _person in range(3)]
    start = stage.clock.now()
    stage.enrol(campaign, *people)
    await stage.run_for(MINUTE)
    with stage.db.writing() as session:
        from distmark.enrollments.service import wake as ask

        ask(session, [stage.enrollment(people[1]).id], stage.clock.now())

    await stage.run_for(DAY)

    assert minutes_of(stage, start) == [0, 60, 120]
    assert [message.to_address for message in stage.mail.accepted] == [person.email for person in people]


async def test_turns_missed_in_a_pause_are_not_all_taken_at_once(stage: Stage, ops) -> None:
    """D7, L12"""
    slow(stage, ops, RateScope.partner, stage.partner.key, 1)
    campaign = stage.journey(ONE_MAIL, contacts_per_run=10)
    start = stage.clock.now()
    ids = [result.enrollment_id for result in stage.enrol(campaign, *[stage.contact() for _person in range(4)])]
    await stage.run_for(MINUTE)
    with stage.db.writing() as session:
        pause(session, stage.viewer, Scope.listed(ids[1:]), stage.clock.now())
    await stage.run_until(start + 10 * HOUR)
    with stage.db.writing() as session:
        resume(session, stage.viewer, Scope.listed(ids[1:]), stage.clock.now())

    await stage.run_for(DAY)

    assert minutes_of(stage, start) == [0, 600, 660, 720]


async def test_new_rate_counts_for_those_who_wait_already(stage: Stage, ops) -> None:
    slow(stage, ops, RateScope.partner, stage.partner.key, 1)
    campaign = stage.journey(ONE_MAIL, contacts_per_run=10)
    start = stage.clock.now()
    stage.enrol(campaign, *[stage.contact() for _person in range(4)])
    await stage.run_for(10 * MINUTE)

    slow(stage, ops, RateScope.partner, stage.partner.key, 60)
    await stage.run_for(MINUTE / 2)
    with stage.db.writing() as session:
        remove_rate(session, ops, RateScope.partner, stage.partner.key, stage.clock.now())
    await stage.run_for(DAY)

    assert minutes_of(stage, start) == [0, 10, 10.5, 10.5]


def test_workers_at_once_give_each_turn_once(stage: Stage, ops) -> None:
    """D2"""
    slow(stage, ops, RateScope.partner, stage.partner.key, 60, burst=5)
    slow(stage, ops, RateScope.destination_domain, "*", 3600, burst=100)
    runs, people = [], []
    for _run in range(4):
        group = [stage.contact() for _person in range(5)]
        stage.enrol(stage.journey(ONE_MAIL, contacts_per_run=10), *group)
        runs.append(stage.enrollment(group[0]).run_key)
        people += group

    wake_together(stage, [[run_key] for run_key in runs])

    now = stage.clock.now()
    turns = sorted((stage.enrollment(person).due_at - now) / MINUTE for person in people if stage.enrollment(person).outcome is None)
    assert len(stage.mail.accepted) == 5
    assert turns == [float(minute) for minute in range(1, 16)]


def test_rate_is_listed_recorded_and_removed(stage: Stage, ops) -> None:
    now = stage.clock.now()
    with stage.db.writing() as session:
        row = set_rate(session, ops, RateScope.destination_domain, " Docomo.NE.jp ", 100, now)
        set_rate(session, ops, RateScope.destination_domain, "docomo.ne.jp", 200, now, burst=10)
        listed = [(rate.scope, rate.key, rate.per_hour, rate.burst) for rate in list_rates(session, ops)]
        remove_rate(session, ops, RateScope.destination_domain, "docomo.ne.jp", now)
        audited = [(entry.action, entry.user_id, entry.detail["per_hour"]) for entry in audit_trail(session, ops, "send_rate", row.id)]

        assert list_rates(session, ops) == []
    assert listed == [("destination_domain", "docomo.ne.jp", 200, 10)]
    assert audited == [("set_rate", ops.user_id, 100), ("set_rate", ops.user_id, 200), ("removed_rate", ops.user_id, 200)]


@pytest.mark.parametrize(
    ("scope", "key", "per_hour", "burst", "error"),
    [
        (RateScope.partner, "nobody", 10, 1, NotFound),
        (RateScope.campaign, "nothing", 10, 1, NotFound),
        (RateScope.sending_domain, "hello@mirai.example", 10, 1, InvalidInput),
        (RateScope.destination_domain, "localhost", 10, 1, InvalidInput),
        (RateScope.destination_domain, "example.com", 0, 1, InvalidInput),
        (RateScope.destination_domain, "example.com", 10, 0, InvalidInput),
        (RateScope.destination_domain, "example.com", 10, 11, InvalidInput),
    ],
)
def test_rate_that_makes_no_sense_is_refused(stage: Stage, ops, scope, key, per_hour, burst, error) -> None:
    with stage.db.reading() as session, pytest.raises(error):
        set_rate(session, ops, scope, key, per_hour, stage.clock.now(), burst=burst)


def test_rates_are_for_operations_alone(stage: Stage) -> None:
    with stage.db.reading() as session:
        with pytest.raises(NotAllowed):
            set_rate(session, stage.viewer, RateScope.partner, stage.partner.key, 10, stage.clock.now())
        with pytest.raises(NotAllowed):
            remove_rate(session, stage.marketer, RateScope.partner, stage.partner.key, stage.clock.now())
        with pytest.raises(NotAllowed):
            list_rates(session, stage.viewer)


async def test_without_rates_nobody_lines_up(stage: Stage) -> None:
    stage.enrol(stage.journey(ONE_MAIL), stage.contact())

    await stage.run_for(MINUTE)

    with stage.db.reading() as session:
        assert session.exec(select(Pace)).all() == []


async def test_turns_that_were_taken_leave_no_row_and_old_paces_are_forgotten(stage: Stage, ops) -> None:
    """L14"""
    slow(stage, ops, RateScope.partner, stage.partner.key, 60)
    stage.enrol(stage.journey(ONE_MAIL), *[stage.contact() for _person in range(3)])
    await stage.run_for(HOUR)
    with stage.db.reading() as session:
        assert [row.key for row in session.exec(select(Pace))] == [f"{stage.brand.id}:throttle:partner:{stage.partner.key}"]

    with stage.db.writing() as session:
        assert forget_past_slots(session, stage.clock.now()) == 0
        assert forget_past_slots(session, stage.clock.now() + 2 * DAY) == 1
