"""When a message may go: one table for each rule, the sums beside the rows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distmark.delivery.send_policy import (
    SEND,
    CompetingSend,
    SendDecision,
    SendFacts,
    SendVerdict,
    cap_allows_from,
    counted_since,
    decide_send,
    ranked_before,
)
from distmark.journeys.field_types import Cap
from distmark.journeys.model import IfHeld, Priority
from distmark.journeys.times import Window, next_allowed

TOKYO = ZoneInfo("Asia/Tokyo")
NIGHT = "quiet_hours:21:00-08:00"
MARKETING = (Cap(2, "day"), Cap(4, "week"))


def tokyo(day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2026, 11, day, hour, minute, tzinfo=TOKYO).astimezone(UTC)


FACTS = SendFacts(now=tokyo(24, 10), zone=TOKYO)


def night(at: datetime) -> tuple[datetime, tuple[str, ...]]:
    return next_allowed(at, TOKYO, Window.read("21:00-08:00"))


def held(*rules: str, until: datetime | None) -> SendDecision:
    return SendDecision(SendVerdict.hold, rules, until)


def test_message_that_nothing_holds_is_sent() -> None:
    assert decide_send(FACTS, MARKETING, night) == SEND


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (replace(FACTS, left=True, suppressed=True), SendDecision(SendVerdict.skip, ("left",))),
        (replace(FACTS, suppressed=True, consented=False), SendDecision(SendVerdict.suppress, ("suppressed",))),
        (replace(FACTS, consented=False, approved=False), SendDecision(SendVerdict.suppress, ("no_consent",))),
        (replace(FACTS, approved=False, now=tokyo(24, 23)), held("not_approved", until=None)),
        (replace(FACTS, now=tokyo(24, 23), written_at=[tokyo(24, 9), tokyo(24, 9)]), held(NIGHT, until=tokyo(25, 8))),
        (
            replace(FACTS, written_at=[tokyo(24, 9), tokyo(24, 9)], turn_at=tokyo(24, 11)),
            held("cap_day:2", NIGHT, until=tokyo(25, 8)),  # the day frees at midnight, the night ends at 8
        ),
        (
            replace(FACTS, now=tokyo(24, 23), written_at=[tokyo(25, 7), tokyo(25, 7)]),
            held(NIGHT, "cap_day:2", NIGHT, until=tokyo(26, 8)),  # the morning after is full already
        ),
        (replace(FACTS, turn_at=tokyo(24, 11)), held("throttle", until=tokyo(24, 11))),
        (replace(FACTS, turn_at=tokyo(24, 11), throttle="throttle:partner:sato"), held("throttle:partner:sato", until=tokyo(24, 11))),
        (replace(FACTS, turn_at=tokyo(24, 22)), held("throttle", NIGHT, until=tokyo(25, 8))),
        (replace(FACTS, turn_at=tokyo(24, 9)), SEND),
    ],
)
def test_rules_are_told_in_the_order_in_which_they_hold(facts: SendFacts, expected: SendDecision) -> None:
    assert decide_send(facts, MARKETING, night) == expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (FACTS, SEND),
        (replace(FACTS, now=tokyo(24, 3)), SEND),
        (replace(FACTS, consented=False, written_at=[tokyo(24, 9)] * 9), SEND),
        (replace(FACTS, suppressed=True), SendDecision(SendVerdict.suppress, ("suppressed",))),
        (replace(FACTS, approved=False), held("not_approved", until=None)),
        (replace(FACTS, turn_at=tokyo(24, 23)), held("throttle", until=tokyo(24, 23))),
    ],
)
def test_transactional_message_passes_quiet_hours_caps_and_consent_only(facts: SendFacts, expected: SendDecision) -> None:
    """U5"""
    assert decide_send(replace(facts, transactional=True), [Cap(1, "month")], night) == expected


@pytest.mark.parametrize(
    "facts",
    [
        replace(FACTS, now=tokyo(24, 23)),
        replace(FACTS, written_at=[tokyo(24, 1)] * 2),
        replace(FACTS, turn_at=tokyo(24, 12)),
    ],
)
def test_step_that_says_skip_is_left_out_instead_of_held(facts: SendFacts) -> None:
    waiting = decide_send(facts, MARKETING, night)

    skipped = decide_send(facts, MARKETING, night, IfHeld.skip)

    assert waiting.outcome is SendVerdict.hold
    assert skipped == SendDecision(SendVerdict.skip, waiting.rules)


def test_no_cap_allows_any_number() -> None:
    """U5"""
    facts = replace(FACTS, written_at=[FACTS.now] * 50)

    assert decide_send(facts, ()) == SEND


def test_cap_of_none_at_all_cannot_be_written() -> None:
    """U5: 0 has meant both "never" and "no cap" elsewhere."""
    with pytest.raises(ValueError, match="0 per day"):
        Cap.read("0 per day")


@pytest.mark.parametrize(
    ("sent", "until", "reason"),
    [
        ([], None, ""),
        ([(24, 1)], None, ""),  # 1 today of 2
        ([(24, 1), (24, 9)], (25, 0), "cap_day:2"),  # 2 today of 2: free at midnight in Tokyo
        ([(23, 23), (23, 23)], None, ""),  # yesterday in Tokyo, though today in UTC: 0 today, 2 in the week
        ([(18, 9), (19, 9), (20, 9), (21, 9)], (25, 0), "cap_week:4"),  # 18th to 24th are 4; on the 25th the 18th falls out
        ([(17, 9), (18, 9), (19, 9), (20, 9)], None, ""),  # the 17th is out: 3 of 4
        ([(23, 9), (23, 9), (24, 1), (24, 1)], (30, 0), "cap_week:4"),  # tomorrow's day is free, the week only on the 30th
        ([(24, 1)] * 6, (31, 0), "cap_week:4"),  # 6 today, more than the week: free after 7 days, not 3 weeks
    ],
)
def test_cap_holds_until_the_first_instant_that_it_allows(sent: list[tuple[int, int]], until: tuple[int, int] | None, reason: str) -> None:
    """L16"""
    at = tokyo(24, 10)
    free = at if until is None else tokyo(1) + timedelta(days=until[0] - 1)

    assert cap_allows_from(at, TOKYO, MARKETING, [tokyo(*moment) for moment in sent]) == (free, reason)


@pytest.mark.parametrize(
    ("cap", "sent", "until"),
    [
        (Cap(1, "hour"), [(24, 9, 30)], tokyo(24, 10, 30)),  # elapsed: 9:30 + 60 minutes
        (Cap(1, "hour"), [(24, 9, 0)], None),  # an hour ago to the minute
        (Cap(2, "hour"), [(24, 9, 10), (24, 9, 40), (24, 9, 50)], tokyo(24, 10, 40)),  # 3 in the hour: free when the second is out
        (Cap(1, "month"), [(1, 12, 0)], tokyo(1) + timedelta(days=30)),  # 1 November + 30 days, at midnight
        (Cap(3, "week"), [(22, 9, 0), (23, 9, 0), (24, 9, 0)], tokyo(29)),  # 3 in 7 days: the 22nd is out on the 29th, not in 3 weeks
    ],
)
def test_cap_of_any_period_frees_when_the_message_that_fills_it_falls_out(
    cap: Cap, sent: list[tuple[int, int, int]], until: datetime | None
) -> None:
    """L16"""
    at = tokyo(24, 10)

    free, rule = cap_allows_from(at, TOKYO, [cap], [tokyo(*moment) for moment in sent])

    assert (free, rule) == ((at, "") if until is None else (until, f"cap_{cap.period}:{cap.count}"))


def test_message_of_the_last_day_that_matters_is_looked_for() -> None:
    assert counted_since([Cap(2, "day"), Cap(4, "month")], tokyo(30)) == tokyo(30) - timedelta(days=31)
    assert counted_since([], tokyo(30)) is None


def test_cap_frees_at_the_first_instant_of_a_day_without_midnight() -> None:
    beirut = ZoneInfo("Asia/Beirut")  # 29 March 2026: the clock goes from 00:00 to 01:00
    at = datetime(2026, 3, 28, 12, tzinfo=UTC)

    until, _ = cap_allows_from(at, beirut, [Cap(1, "day")], [at])

    assert until.astimezone(beirut).isoformat() == "2026-03-29T01:00:00+03:00"


def test_cap_counts_days_in_the_contacts_zone() -> None:
    sent = [tokyo(24, 1)] * 2  # 24 November 01:00 in Tokyo is 23 November 08:00 in Los Angeles

    assert decide_send(replace(FACTS, written_at=sent), MARKETING).outcome is SendVerdict.hold
    assert decide_send(replace(FACTS, zone=ZoneInfo("America/New_York"), written_at=sent), MARKETING).reason == "cap_day:2"
    assert decide_send(replace(FACTS, now=tokyo(24, 18), zone=ZoneInfo("America/Los_Angeles"), written_at=sent), MARKETING).outcome is (
        SendVerdict.send
    )


@given(
    st.lists(st.integers(0, 14 * 24 * 60), max_size=12),
    st.integers(0, 24 * 60),
    st.sampled_from(["Asia/Tokyo", "America/New_York", "Europe/London", "Pacific/Auckland"]),
    st.booleans(),
    st.lists(st.builds(Cap, st.integers(1, 5), st.sampled_from(["hour", "day", "week", "month"])), min_size=1, max_size=3),
)
def test_held_message_may_go_at_the_moment_that_was_promised(
    minutes_ago: list[int], minute: int, zone: str, quiet: bool, caps: list[Cap]
) -> None:
    """Whoever wakes at `until` is not told to wait once more, and is never made to wait longer than the longest period and a day."""
    now = datetime(2026, 10, 25, tzinfo=UTC) + timedelta(minutes=minute)
    facts = SendFacts(now=now, zone=ZoneInfo(zone), written_at=[now - timedelta(minutes=ago) for ago in minutes_ago])

    def open_from(at: datetime) -> tuple[datetime, tuple[str, ...]]:
        return next_allowed(at, ZoneInfo(zone), Window.read("21:00-08:00")) if quiet else (at, ())

    decision = decide_send(facts, caps, open_from)

    if decision.outcome is SendVerdict.hold:
        assert decision.until is not None
        assert now < decision.until < now + timedelta(days=max(cap.days for cap in caps) + 2)
        assert decide_send(replace(facts, now=decision.until), caps, open_from).outcome is SendVerdict.send


DAILY, WEEKLY, HOURLY = Cap(1, "day"), Cap(3, "week"), Cap(1, "hour")


def rival(at: datetime, *caps: Cap, priority: Priority = Priority.high, journey: str = "vip", number: int = 1) -> CompetingSend:
    return CompetingSend(number, journey, priority, at, None, caps)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        # It is 24 November, 10:00. The place of the day is the other's, whose time is 18:00; kept for a quarter of an hour.
        (replace(FACTS, rivals=[rival(tokyo(24, 18), DAILY)]), held("priority:vip", until=tokyo(24, 18, 15))),
        (replace(FACTS, rivals=[rival(tokyo(24, 22), DAILY)]), held("priority:vip", NIGHT, until=tokyo(25, 8))),
        (replace(FACTS, rivals=[rival(tokyo(24, 18), DAILY, priority=Priority.normal)]), held("waits_longer:vip", until=tokyo(24, 18, 15))),
        # A day on its place is another day's; the week's is not, and neither is looked for longer than a day on.
        (replace(FACTS, rivals=[rival(tokyo(25, 9), DAILY)]), SEND),
        (
            replace(FACTS, written_at=[tokyo(22, 9), tokyo(23, 9)], rivals=[rival(tokyo(27, 9), WEEKLY)]),
            held("priority:vip", until=tokyo(25, 10, 15)),
        ),
        # By the 29th that of the 22nd is out of the seven days, and two are left with this one.
        (replace(FACTS, written_at=[tokyo(22, 9), tokyo(23, 9)], rivals=[rival(tokyo(29, 9), WEEKLY)]), SEND),
        # Room for it and for this one: 0 + 2 <= 2 a day, 1 + 2 <= 3 a week, an hour that is over by then.
        (replace(FACTS, rivals=[rival(tokyo(24, 18), Cap(2, "day"))]), SEND),
        (replace(FACTS, written_at=[tokyo(23, 9)], rivals=[rival(tokyo(24, 18), WEEKLY)]), SEND),
        (replace(FACTS, rivals=[rival(tokyo(24, 18), HOURLY)]), SEND),
        (replace(FACTS, rivals=[rival(tokyo(24, 10, 59), HOURLY)]), held("priority:vip", until=tokyo(24, 11, 14))),
        # Two others take both places of the day, and the later of them would be the one to lose its own.
        (
            replace(FACTS, rivals=[rival(tokyo(24, 12), Cap(2, "day")), rival(tokyo(24, 18), Cap(2, "day"), journey="late")]),
            held("priority:late", until=tokyo(24, 18, 15)),
        ),
        # What nothing caps cannot lose its place, and what is held by its own cap is told so.
        (replace(FACTS, rivals=[rival(tokyo(24, 18))]), SEND),
        (
            replace(FACTS, written_at=[tokyo(24, 8), tokyo(24, 9)], rivals=[rival(tokyo(24, 18), DAILY)]),
            held("cap_day:2", NIGHT, until=tokyo(25, 8)),
        ),
        # The throttle comes after.
        (
            replace(FACTS, rivals=[rival(tokyo(24, 18), DAILY)], turn_at=tokyo(24, 19)),
            held("priority:vip", "throttle", until=tokyo(24, 19)),
        ),
        (replace(FACTS, transactional=True, rivals=[rival(tokyo(24, 18), DAILY)]), SEND),
    ],
)
def test_message_leaves_a_caps_last_place_to_those_before_it(facts: SendFacts, expected: SendDecision) -> None:
    assert decide_send(facts, MARKETING, night) == expected


def test_message_of_a_journey_without_caps_leaves_its_place_to_nobody() -> None:
    assert decide_send(replace(FACTS, rivals=[rival(tokyo(24, 18), DAILY)]), (), night) == SEND


@pytest.mark.parametrize(
    ("other", "goes_before"),
    [
        (CompetingSend(9, "vip", Priority.high, tokyo(24, 23), None), True),  # expected on the same day
        (CompetingSend(9, "vip", Priority.high, tokyo(25, 0), None), False),
        (CompetingSend(9, "vip", Priority.high, tokyo(27, 0), tokyo(24, 9)), True),  # at its send, held till then
        (CompetingSend(9, "vip", Priority.normal, tokyo(24, 10), None), False),  # not there yet
        (CompetingSend(9, "vip", Priority.normal, tokyo(24, 10), tokyo(24, 8)), True),  # there for longer: since 8:00, this one since 9:00
        (CompetingSend(9, "vip", Priority.normal, tokyo(24, 10), tokyo(24, 9)), False),  # as long, and enrolled later
        (CompetingSend(3, "vip", Priority.normal, tokyo(24, 10), tokyo(24, 9)), True),
        (CompetingSend(3, "vip", Priority.low, tokyo(24, 10), tokyo(20, 9)), False),
    ],
)
def test_who_goes_before_whom(other: CompetingSend, goes_before: bool) -> None:
    mine = CompetingSend(5, "usual", Priority.normal, tokyo(24, 10), tokyo(24, 9))

    assert ranked_before(mine, [other], TOKYO) == ([other] if goes_before else [])


MOMENTS = st.integers(0, 72).map(lambda hour: tokyo(24) + timedelta(hours=hour))
RIVALS = st.builds(
    CompetingSend, st.integers(1, 5), st.just("x"), st.sampled_from(Priority), MOMENTS, st.none() | MOMENTS, st.just((DAILY,))
)


@given(st.lists(RIVALS, min_size=2, max_size=5, unique_by=lambda each: each.enrollment_id))
def test_of_any_messages_one_waits_for_no_other(rivals: list[CompetingSend]) -> None:
    """Or they would wait for each other without end."""
    assert any(not ranked_before(mine, [each for each in rivals if each is not mine], TOKYO) for mine in rivals)


@given(st.lists(RIVALS, max_size=4), MOMENTS)
def test_message_held_for_others_looks_again_later_and_within_a_day_of_open_time(rivals: list[CompetingSend], now: datetime) -> None:
    later = [replace(each, at=max(each.at, now)) for each in rivals]

    decision = decide_send(replace(FACTS, now=now, rivals=later), MARKETING)

    if decision.outcome is SendVerdict.hold:
        assert decision.until is not None
        assert now < decision.until <= now + timedelta(days=1, minutes=15)
