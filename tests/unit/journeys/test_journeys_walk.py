"""Walking a journey: where a contact goes from each step, when it sleeps, and what it is told on the way."""

# ruff: noqa: E501  (a row of a table stays on its line)

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from distmark.journeys.model import (
    Act,
    CallWebhook,
    ChangeAudience,
    CreateTask,
    Decision,
    End,
    EnterJourney,
    EventFact,
    Facts,
    Go,
    IfHeld,
    Outcome,
    SendMessage,
    SentFact,
    Sleep,
    UpdateContact,
    Why,
)
from distmark.journeys.program import Program
from distmark.journeys.walk import EndlessLoop, NoSuchStep, Position, leaving, passed, start, walk, zone_of
from tests.journeys import WALKED_HEAD, program_of

TOKYO = {"zone": "Asia/Tokyo", "first_name": "恵", "phone": "+81"}
# Tuesday 10:00 in Tokyo.
NOW = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)


def facts_of(contact: Mapping[str, object] | None = None, **facts: object) -> Facts:
    return Facts(contact={**TOKYO, **(contact or {})}, **facts)  # type: ignore[arg-type]


def at(text: str) -> datetime:
    """Wall-clock time in Tokyo as UTC."""
    return (datetime.fromisoformat(text) - timedelta(hours=9)).replace(tzinfo=UTC)


def decided(
    steps: str, facts: Facts | None = None, *, arrived_at: datetime = NOW, now: datetime | None = None, visits: int = 1
) -> Decision:
    """What the first step of `steps` leads to, for a contact who arrived at it at `arrived_at`."""
    program = program_of(steps)
    position = Position(program.first, arrived_at, {program.first: visits})
    return walk(program, position, facts or facts_of(), now or arrived_at).decision


JOURNEY = """
- {id: welcome, send: email, message: welcome, editable: [note], if_held: skip}
- {id: read, wait: {for: 3 days, until: "09:00"}}
- id: engaged
  branch:
    - when: "clicked('welcome')"
      steps:
        - {id: call, task: {for: partner, title: "{{ contact.first_name }} さんに電話", due: 1 day}}
    - when: "not opened('welcome') and contact.phone"
      steps:
        - {id: nudge, send: sms, message: nudge}
        - {id: rest, wait: {for: 1 hour}}
- {id: booking, wait: {event: booked, timeout: 7 days, on_timeout: remind}}
- {id: done, exit: booked}
- {id: remind, send: email, message: remind}
"""
SENT = {"welcome": SentFact(NOW)}


def test_a_contact_at_the_door_goes_to_the_first_step() -> None:
    program = program_of(JOURNEY)

    at_the_door = walk(program, Position(None, NOW), facts_of(), NOW)

    assert at_the_door.decision == Act(SendMessage("welcome", "email", "welcome", ("note",), IfHeld.skip, False))
    assert at_the_door.position == start(program, NOW)
    assert at_the_door.trace == ()


def test_a_wait_sleeps_until_it_is_due_and_not_longer() -> None:
    program = program_of(JOURNEY)
    position = passed(program, start(program, NOW), NOW)

    asleep = walk(program, position, facts_of(sent=SENT), NOW)
    awake = walk(program, asleep.position, facts_of(sent=SENT), at("2026-11-28 09:00"))

    # Tuesday 10:00 and 3 days is Friday 10:00; the next 09:00 is Saturday's.
    assert asleep.decision == Sleep(at("2026-11-28 09:00"), Why.time)
    assert [(trace.step_id, trace.to) for trace in awake.trace] == [("read", "engaged"), ("engaged", "nudge")]


def test_arms_join_behind_the_split() -> None:
    program = program_of(JOURNEY)

    assert program.after == {
        "welcome": "read", "read": "engaged", "engaged": "booking", "call": "booking", "nudge": "rest", "rest": "booking",
        "booking": "done", "done": "remind", "remind": None,
    }  # fmt: skip
    assert [(placed.step_id, placed.depth, placed.split, placed.arm) for placed in program.order][2:6] == [
        ("engaged", 0, None, None), ("call", 1, "engaged", 0), ("nudge", 1, "engaged", 1), ("rest", 1, "engaged", 1),
    ]  # fmt: skip


def test_the_last_step_of_an_arm_leads_behind_the_split() -> None:
    program = program_of(JOURNEY)

    behind = passed(program, Position("call", NOW, {"call": 1}), NOW)

    assert behind.step_id == "booking"


def test_no_arm_matching_goes_on_behind_the_split() -> None:
    opened = {"welcome": SentFact(NOW, opened_at=NOW)}

    walked = walk(program_of(JOURNEY), Position("engaged", NOW, {"engaged": 1}), facts_of(sent=opened), NOW)

    assert walked.position.step_id == "booking"
    assert walked.trace[0].detail == {"arm": "none"}


def test_an_arm_without_steps_goes_on_behind_the_split() -> None:
    steps = """
    - {id: split, branch: [{when: "contact.phone", name: phone}, {otherwise: true, steps: [{id: no-phone, exit: none}]}]}
    - {id: behind, exit: reached}
    """

    assert decided(steps) == End(Outcome.exit, "reached")


def test_splits_inside_splits_join_at_the_outer_one() -> None:
    steps = """
    - id: outer
      branch:
        - when: "contact.phone"
          steps:
            - id: inner
              branch:
                - {when: "contact.score > 3", steps: [{id: deep, update: {plan: gold}}]}
    - {id: behind, exit: reached}
    """
    program = program_of(steps)

    assert program.after["deep"] == "behind"
    assert program.after["inner"] == "behind"
    assert decided(steps) == End(Outcome.exit, "reached")
    assert decided(steps, facts_of({"score": 5})) == Act(UpdateContact("deep", {"plan": "gold"}))


def test_running_out_of_steps_completes() -> None:
    program = program_of("- {id: only, update: {plan: gold}}")

    past_the_end = passed(program, start(program, NOW), NOW)

    assert past_the_end == Position(None, NOW, {"only": 1})
    assert walk(program, past_the_end, facts_of(), NOW).decision == End(Outcome.completed, "")


def test_the_goal_comes_before_the_exits_and_those_in_order() -> None:
    program = program_of(JOURNEY)
    bought = (EventFact("bought", NOW),)

    both = leaving(program, facts_of({"is_client": True}, events=bought, segments=frozenset({"closed"})), NOW)
    exits = leaving(program, facts_of({"is_client": True}, segments=frozenset({"closed"})), NOW)

    assert both == End(Outcome.goal, "購入")
    assert exits == End(Outcome.exit, "became a client")
    assert leaving(program, facts_of(segments=frozenset({"closed"})), NOW) == End(Outcome.exit, "closed")
    assert leaving(program, facts_of(), NOW) is None


def test_the_program_says_what_news_may_end_the_journey() -> None:
    assert program_of(JOURNEY).listens_to == {"bought", "contact", "segment"}


def test_the_same_position_decides_the_same_however_often_it_is_asked() -> None:
    """A restart in the middle of a wait changes nothing: the due time comes from the arrival, not from now."""
    program, position = program_of(JOURNEY), Position("read", NOW, {"welcome": 1, "read": 1})

    dues = [walk(program, position, facts_of(), NOW + timedelta(hours=hours)).decision for hours in range(0, 90, 7)]

    assert set(map(repr, dues)) == {repr(Sleep(at("2026-11-28 09:00"), Why.time))}


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        # Due 09:00, woken within ten minutes: the next "3 days, then 09:00" still ends three days later at 09:00.
        (timedelta(0), "2026-12-01 09:00"),
        (timedelta(seconds=7), "2026-12-01 09:00"),
        (timedelta(minutes=10), "2026-12-01 09:00"),
        # Woken later than that: 09:11 plus 3 days, then the next 09:00.
        (timedelta(minutes=11), "2026-12-02 09:00"),
    ],
)
def test_a_wake_a_little_late_costs_the_contact_no_day(late: timedelta, expected: str) -> None:
    """T8."""
    program = program_of("""
    - {id: first, wait: {for: 3 days, until: "09:00"}}
    - {id: mail, send: email, message: mail}
    - {id: second, wait: {for: 3 days, until: "09:00"}}
    """)
    due = at("2026-11-28 09:00")

    awake = walk(program, Position("first", NOW, {"first": 1}), facts_of(), due + late)
    asleep = walk(program, passed(program, awake.position, due + late), facts_of(), due + late)

    assert asleep.decision == Sleep(at(expected), Why.time)


@pytest.mark.parametrize(
    ("step", "effect"),
    [
        (
            "{task: {title: {ja: '{{ contact.first_name }}さんへ電話', en: call}, due: 2 days, note: '{{ contact.score }} 点'}}",
            CreateTask("step", "partner", "恵さんへ電話", NOW + timedelta(days=2), "4 点"),
        ),
        ("{update: {plan: gold, score: '{{ contact.score + 1 }}', is_client: null}}", UpdateContact("step", {"plan": "gold", "score": 5, "is_client": None})),
        (
            "{webhook: {url: 'https://x.example/{{ contact.plan }}', body: {score: '{{ contact.score }}'}, secret: crm}}",
            CallWebhook("step", "https://x.example/", "POST", {}, {"score": 4}, "crm", 10, "go_on"),
        ),
        ("{audience: {remove: lookalike}}", ChangeAudience("step", "remove", "lookalike")),
        ("{journey: other, data: {topic: 'from {{ brand.name }}'}}", EnterJourney("step", "other", {"topic": "from Acme"})),
        ("{send: sms, message: hi, kind: transactional}", SendMessage("step", "sms", "hi", (), IfHeld.hold, True)),
    ],
)  # fmt: skip
def test_each_effect_is_filled_for_the_contact(step: str, effect: object) -> None:
    facts = Facts(contact={**TOKYO, "score": 4}, partner={"language": "ja"}, brand={"name": "Acme"})

    assert decided(f"- {{id: step, {step[1:]}", facts) == Act(effect)  # type: ignore[arg-type]


def test_an_exit_step_says_its_outcome() -> None:
    assert decided("- {id: step, exit: done, outcome: completed}") == End(Outcome.completed, "done")
    assert decided("- {id: step, exit: {reason: {ja: 予約, en: booked}}}") == End(Outcome.exit, "予約")


def test_sends_of_a_transactional_journey_are_transactional() -> None:
    program = program_of("- {id: step, send: email, message: hi}", WALKED_HEAD + "kind: transactional\nsend_policy: {if_held: skip}\n")

    effect = walk(program, start(program, NOW), facts_of(), NOW).decision

    assert effect == Act(SendMessage("step", "email", "hi", (), IfHeld.skip, True))


def test_a_goto_goes_round_and_counts_the_visits() -> None:
    program = program_of("""
    - {id: pause, wait: {for: 1 day}}
    - {id: again, goto: pause}
    """)

    walked = walk(program, Position("pause", NOW, {"pause": 1}), facts_of(), NOW + timedelta(days=1))

    assert walked.position == Position("pause", NOW + timedelta(days=1), {"pause": 2, "again": 1})
    assert walked.decision == Sleep(NOW + timedelta(days=2), Why.time)


def test_a_goto_with_at_most_goes_on_after_so_many_times() -> None:
    program = program_of("""
    - {id: mail, send: email, message: mail}
    - {id: again, goto: mail, at_most: 2}
    - {id: end, exit: enough}
    """)
    position, sent = start(program, NOW), 0
    while isinstance((walked := walk(program, position, facts_of(), NOW)).decision, Act):
        sent, position = sent + 1, passed(program, walked.position, NOW)

    # Once, and twice again.
    assert sent == 3
    assert walked.decision == End(Outcome.exit, "enough")


def test_a_loop_without_a_wait_is_an_error_that_names_it() -> None:
    program = program_of("""
    - {id: here, branch: [{when: "contact.phone", steps: [{id: back, goto: here}]}]}
    """)

    with pytest.raises(EndlessLoop, match="here -> back -> here"):
        walk(program, start(program, NOW), facts_of(), NOW)


def test_a_position_of_another_version_is_an_error_that_names_it() -> None:
    with pytest.raises(NoSuchStep, match="gone"):
        walk(program_of(JOURNEY), Position("gone", NOW, {"gone": 1}), facts_of(), NOW)


@pytest.mark.parametrize(
    ("contact", "partner", "brand", "expected"),
    [
        ({"zone": "Europe/Paris"}, {"zone": "Asia/Tokyo"}, {}, "Europe/Paris"),
        ({}, {"zone": "Asia/Tokyo"}, {"zone": "UTC"}, "Asia/Tokyo"),
        ({"zone": "Nowhere/Land"}, {}, {"zone": "Asia/Tokyo"}, "Asia/Tokyo"),
        ({}, {}, {}, "UTC"),
    ],
)
def test_the_zone_is_the_contacts_then_the_partners_then_the_brands(
    contact: dict[str, object], partner: dict[str, object], brand: dict[str, object], expected: str
) -> None:
    """T6, T7."""
    assert str(zone_of(Facts(contact=contact, partner=partner, brand=brand))) == expected


def _due(wait: str, arrived: str, contact: Mapping[str, object] | None = None, visits: int = 1) -> Decision:
    return decided(f"- {{id: step, wait: {wait}}}", facts_of(contact), arrived_at=at(arrived), visits=visits)


@pytest.mark.parametrize(
    ("wait", "arrived", "due"),
    [
        ("{for: 90 minutes}", "2026-11-24 10:00", "2026-11-24 11:30"),
        ("{for: 3 days}", "2026-11-24 10:00", "2026-11-27 10:00"),
        ("{for: 1 month}", "2027-01-31 10:00", "2027-02-28 10:00"),
        # Wednesday and 3 days is Saturday; without the weekend and Labour Thanksgiving Day, Tuesday.
        ("{for: 3 days, days: weekdays, holidays: JP}", "2026-11-18 10:00", "2026-11-24 10:00"),
        ("{for: 3 days, until: '09:00'}", "2026-11-24 08:59", "2026-11-27 09:00"),
        ("{for: 3 days, until: '09:00'}", "2026-11-24 09:00", "2026-11-27 09:00"),
        ("{for: 3 days, until: '09:00'}", "2026-11-24 09:01", "2026-11-28 09:00"),
        ("{for: 3 days, until: '09:00', days: weekdays, holidays: JP}", "2026-11-18 10:00", "2026-11-24 09:00"),
        ("{until: '05:00', days: [mon]}", "2026-11-24 10:00", "2026-11-30 05:00"),
        ("{until: '21:00'}", "2026-11-24 10:00", "2026-11-24 21:00"),
        ("{on: 2026-12-24, at: '09:00'}", "2026-11-24 10:00", "2026-12-24 09:00"),
        ("{on: 2026-12-24}", "2026-11-24 10:00", "2026-12-24 00:00"),
        ("{on: 2026-12-24, offset: -30 days, at: '09:00'}", "2026-11-22 10:00", "2026-11-24 09:00"),
        # Sunday 20 December; on weekdays, Monday.
        ("{on: 2026-12-20, at: '09:00', days: weekdays}", "2026-11-24 10:00", "2026-12-21 09:00"),
    ],
)
def test_a_wait_for_time_ends_on_the_contacts_wall_clock(wait: str, arrived: str, due: str) -> None:
    """T5, T6, T8: unquoted 21:00 and dates are read as written."""
    decision = _due(wait, arrived)

    assert isinstance(decision, Sleep)
    assert (decision.until, decision.why) == (at(due), Why.time)


@pytest.mark.parametrize(
    ("wait", "arrived", "due"),
    [
        ("{on: contact.renewal_date, offset: -30 days, at: '09:00'}", "2026-11-24 10:00", "2027-01-01 09:00"),
        ("{on: contact.renewal_date, offset: 2 weeks, at: '09:00'}", "2026-11-24 10:00", "2027-02-14 09:00"),
        # Every year: the next one that is not past.
        ("{on: contact.birthday, at: '09:00', every: year}", "2026-11-24 10:00", "2027-02-28 09:00"),
        ("{on: contact.birthday, at: '09:00', every: year}", "2027-12-01 10:00", "2028-02-29 09:00"),
        ("{on: contact.birthday, offset: -60 days, at: '09:00', every: year}", "2026-11-24 10:00", "2026-12-30 09:00"),
    ],
)
def test_a_wait_for_an_attributes_date_uses_the_contacts_own(wait: str, arrived: str, due: str) -> None:
    """T9."""
    decision = _due(wait, arrived, {"renewal_date": "2027-01-31", "birthday": "1996-02-29"})

    assert isinstance(decision, Sleep)
    assert decision.until == at(due)


def test_an_anniversary_is_waited_for_again_on_the_next_visit() -> None:
    wait = "{on: contact.birthday, at: '09:00', every: year}"
    birthday = {"birthday": "1990-11-24"}

    first = _due(wait, "2026-11-24 09:00", birthday)
    again = _due(wait, "2026-11-24 09:00", birthday, visits=2)

    assert first == End(Outcome.completed, "")
    assert isinstance(again, Sleep)
    assert again.until == at("2027-11-24 09:00")


def test_a_time_of_day_lets_nobody_through_twice_on_one_day() -> None:
    assert _due("{until: '09:00'}", "2026-11-24 09:00") == End(Outcome.completed, "")
    again = _due("{until: '09:00'}", "2026-11-24 09:00", visits=2)
    assert isinstance(again, Sleep)
    assert again.until == at("2026-11-25 09:00")


def test_a_date_that_is_past_goes_on_at_once_and_says_so() -> None:
    program = program_of("- {id: step, wait: {on: 2026-11-01, at: '09:00'}}")

    walked = walk(program, start(program, NOW), facts_of(), NOW)

    assert walked.decision == End(Outcome.completed, "")
    assert walked.trace[0].detail == {"rules": ("past",)}


def test_a_contact_without_the_date_leaves_and_is_never_taken_for_due() -> None:
    """T9: a wait for a date never silently means no wait."""
    assert _due("{on: contact.renewal_date, offset: -30 days}", "2026-11-24 10:00") == End(Outcome.exit, "contact.renewal_date is missing")
    assert _due("{on: contact.renewal_date, if_missing: go_on}", "2026-11-24 10:00") == End(Outcome.completed, "")


EVENT_WAIT = """
- {id: step, wait: {event: booked, where: "event.data.place == 'Ginza'", timeout: 7 days, on_timeout: late}}
- {id: came, exit: came}
- {id: late, exit: late}
"""


def _booked(when: datetime, place: str = "Ginza") -> EventFact:
    return EventFact("booked", when, {"place": place})


@pytest.mark.parametrize(
    ("events", "now", "visits", "expected"),
    [
        ((), NOW, 1, Sleep(NOW + timedelta(days=7), Why.event, (), "booked")),
        ((_booked(NOW, "Ueno"),), NOW, 1, Sleep(NOW + timedelta(days=7), Why.event, (), "booked")),
        ((_booked(NOW + timedelta(hours=1)),), NOW + timedelta(hours=1), 1, End(Outcome.exit, "came")),
        # What happened since entry counts on the first visit, and on a later one only what happened since it began.
        ((_booked(NOW - timedelta(days=1)),), NOW, 1, End(Outcome.exit, "came")),
        ((_booked(NOW - timedelta(days=1)),), NOW, 2, Sleep(NOW + timedelta(days=7), Why.event, (), "booked")),
        # Time is up.
        ((), NOW + timedelta(days=7), 1, End(Outcome.exit, "late")),
        # In time counts although the wake is late; too late does not.
        ((_booked(NOW + timedelta(days=6)),), NOW + timedelta(days=8), 1, End(Outcome.exit, "came")),
        ((_booked(NOW + timedelta(days=7, hours=1)),), NOW + timedelta(days=8), 1, End(Outcome.exit, "late")),
    ],
)
def test_a_wait_for_an_event(events: tuple[EventFact, ...], now: datetime, visits: int, expected: Decision) -> None:
    assert decided(EVENT_WAIT, facts_of(events=events), now=now, visits=visits) == expected


def test_a_wait_for_an_event_without_timeout_is_woken_by_the_event_only() -> None:
    assert decided("- {id: step, wait: {event: booked}}") == Sleep(None, Why.event, (), "booked")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (SentFact(NOW), Sleep(NOW + timedelta(days=2), Why.event, (), "clicked")),
        (SentFact(NOW, clicked={"book": NOW}), Sleep(NOW + timedelta(days=2), Why.event, (), "clicked")),
        (SentFact(NOW, clicked={"plans": NOW}), End(Outcome.completed, "")),
    ],
)
def test_a_wait_for_a_click_on_a_link(sent: SentFact, expected: Decision) -> None:
    program = program_of("""
    - {id: mail, send: email, message: mail}
    - {id: step, wait: {event: clicked, of: mail, link: plans, timeout: 2 days}}
    """)

    assert walk(program, Position("step", NOW, {"mail": 1, "step": 1}), facts_of(sent={"mail": sent}), NOW).decision == expected


def test_a_wait_for_a_condition_is_woken_by_any_news() -> None:
    steps = """- {id: step, wait: {when: "contact.score >= 5 or opened('mail')", timeout: 1 day}}"""

    assert decided(steps, facts_of({"score": 4})) == Sleep(NOW + timedelta(days=1), Why.event, (), "*")
    assert decided(steps, facts_of({"score": 5})) == End(Outcome.completed, "")
    assert decided(steps, facts_of({"score": 4}), now=NOW + timedelta(days=1)) == End(Outcome.completed, "")


@pytest.mark.parametrize(
    ("hours", "due"),
    [
        ({"contact": {19: 0.9, 12: 0.5}}, "2026-11-24 19:00"),
        ({"segment": {12: 0.5}}, "2026-11-24 12:00"),
        ({"contact": {}, "default": {7: 1.0}}, "2026-11-25 07:00"),
        # Hours of the week: Wednesday 08:00 is 2 * 24 + 8.
        ({"contact": {56: 1.0, 10: 0.2}}, "2026-11-25 08:00"),
    ],
)
def test_the_best_time_is_the_hour_with_the_most_weight_in_reach(hours: dict[str, dict[int, float]], due: str) -> None:
    steps = "- {id: step, wait: {until: best_time, within: 24 hours}}"

    decision = decided(steps, facts_of(best_hours=hours))

    assert isinstance(decision, Sleep)
    assert decision.until == at(due)


def test_quiet_hours_come_before_the_best_time() -> None:
    program = program_of(
        "- {id: step, wait: {until: best_time, within: 24 hours}}", WALKED_HEAD + "send_policy: {quiet_hours: '21:00-08:00'}\n"
    )
    facts = facts_of(best_hours={"contact": {23: 1.0, 20: 0.4, 9: 0.1}})

    decision = walk(program, start(program, NOW), facts, NOW).decision

    assert isinstance(decision, Sleep)
    assert decision.until == at("2026-11-24 20:00")


def test_without_any_knowledge_the_best_time_is_now() -> None:
    assert decided("- {id: step, wait: {until: best_time, within: 24 hours}}") == End(Outcome.completed, "")


@pytest.mark.parametrize("hours", [{}, {"contact": {10: 1.0}}])
def test_who_comes_round_again_waits_for_the_next_best_time(hours: dict[str, dict[int, float]]) -> None:
    decision = decided("- {id: step, wait: {until: best_time, within: 24 hours}}", facts_of(best_hours=hours), visits=2)

    assert isinstance(decision, Sleep)
    assert decision.until == at("2026-11-25 10:00")


def test_an_event_lets_nobody_through_twice() -> None:
    program = program_of("""
    - {id: pause, wait: {event: booked}}
    - {id: again, goto: pause}
    """)
    booked = NOW + timedelta(hours=1)

    walked = walk(program, Position("pause", NOW, {"pause": 1}), facts_of(events=(EventFact("booked", booked),)), booked)

    assert walked.position == Position("pause", booked, {"pause": 2, "again": 1})
    assert walked.decision == Sleep(None, Why.event, (), "booked")


RANDOM = """
- {id: split, branch: {random: [{name: a, share: 50%, steps: [{id: in-a, exit: a}]}, {name: b, share: 30%, steps: [{id: in-b, exit: b}]}, {name: c, share: 20%}]}}
- {id: behind, exit: c}
"""


def _arms(steps: str, keys: range, **facts: object) -> list[str]:
    program = program_of(steps)
    found = []
    for key in keys:
        decision = walk(program, start(program, NOW), facts_of(random_key=f"enrollment-{key}", **facts), NOW).decision
        found.append(decision.reason if isinstance(decision, End) else "held")
    return found


def test_a_random_split_keeps_its_shares() -> None:
    arms = _arms(RANDOM, range(4000))

    # Standard deviation of a share of 4000 draws is below 0.8 %; four of them.
    for arm, share in {"a": 0.5, "b": 0.3, "c": 0.2}.items():
        assert abs(arms.count(arm) / 4000 - share) < 0.032


def test_a_contacts_arm_never_changes() -> None:
    assert _arms(RANDOM, range(50)) == _arms(RANDOM, range(50))


def test_two_splits_draw_independently() -> None:
    other = RANDOM.replace("id: split", "id: other")

    same = sum(one == two for one, two in zip(_arms(RANDOM, range(1000)), _arms(other, range(1000)), strict=True))

    # By chance 0.5² + 0.3² + 0.2² = 38 % agree.
    assert 320 < same < 440


def test_arms_without_shares_are_equal() -> None:
    steps = """
    - {id: split, branch: {random: [{name: a, steps: [{id: in-a, exit: a}]}, {name: b, steps: [{id: in-b, exit: b}]}]}}
    """

    assert 430 < _arms(steps, range(1000)).count("a") < 570


SPLIT_TEST = """
- id: split
  branch: {test: {metric: click, hold_out: 20%, evaluate_after: 3 days, winner: WINNER}}
  arms:
    - {name: a, share: 50%, steps: [{id: in-a, exit: a}]}
    - {name: b, share: 50%, steps: [{id: in-b, exit: b}]}
"""
AUTO, MANUAL = SPLIT_TEST.replace("WINNER", "auto"), SPLIT_TEST.replace("WINNER", "manual")


def test_a_test_holds_out_its_share_until_the_winner_is_known() -> None:
    arms = _arms(AUTO, range(2000))

    assert 0.16 < arms.count("held") / 2000 < 0.24
    assert 0.36 < arms.count("a") / 2000 < 0.44


def test_everybody_who_comes_later_gets_the_winner() -> None:
    assert set(_arms(AUTO, range(100), winners={"split": "b"})) == {"b"}


def _held_out(steps: str) -> tuple[Program, Position, Facts]:
    program = program_of(steps)
    for key in range(100):
        facts = facts_of(random_key=f"enrollment-{key}")
        walked = walk(program, start(program, NOW), facts, NOW)
        if isinstance(walked.decision, Sleep):
            return program, walked.position, facts
    raise AssertionError("nobody was held out")


def test_who_is_held_out_sleeps_until_the_evaluation_and_then_looks_again() -> None:
    program, position, facts = _held_out(AUTO)
    evaluated_at = NOW + timedelta(days=3)

    assert walk(program, position, facts, NOW).decision == Sleep(evaluated_at, Why.test, (), "winner:split")
    assert walk(program, position, facts, evaluated_at).decision == Sleep(evaluated_at + timedelta(hours=1), Why.test, (), "winner:split")


def test_a_winner_that_never_comes_strands_nobody() -> None:
    """L5."""
    program, position, facts = _held_out(AUTO)

    late = walk(program, position, facts, NOW + timedelta(days=10)).decision

    assert isinstance(late, End)
    assert late.reason in ("a", "b")


def test_a_manual_winner_is_waited_for_as_long_as_it_takes() -> None:
    program, position, facts = _held_out(MANUAL)

    assert walk(program, position, facts, NOW + timedelta(days=40)).decision == Sleep(
        NOW + timedelta(days=41), Why.test, (), "winner:split"
    )


def test_decisions_are_values() -> None:
    assert Go() == Go(None, {}, None)
