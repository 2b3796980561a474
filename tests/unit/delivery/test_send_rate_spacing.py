"""Whose turn it is: the arithmetic of a pace, the sums beside the rows."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distmark.delivery.send_rate_spacing import EACH, Rate, RateScope, ThrottleBatch, rated, reservation_key, throttle_rule

NOW = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)
SATO, AUTUMN = (RateScope.partner, "sato"), (RateScope.campaign, "autumn")


def minutes(rate: Rate, count: int, *, level: datetime = NOW) -> list[float]:
    """The turns that `count` messages asked for at once are given, in minutes from now."""
    batch, rates = ThrottleBatch(NOW, {"it": level}), {"it": rate}
    turns = []
    for _message in range(count):
        turns.append((batch.next_slot(rates)[0] - NOW).total_seconds() / 60)
        batch.reserve(rates)
    return turns


@pytest.mark.parametrize(
    ("rate", "level", "turns"),
    [
        (Rate(1), NOW, [0, 60, 120]),  # one an hour
        (Rate(60), NOW, [0, 1, 2]),
        (Rate(3600), NOW, [0, 1 / 60, 2 / 60]),
        (Rate(60, burst=2), NOW, [0, 0, 1, 2]),  # two at once, then evenly
        (Rate(60), NOW - timedelta(days=1), [0, 1, 2]),  # a silence saves nothing up
        (Rate(60, burst=3), NOW - timedelta(days=1), [0, 0, 0, 1]),
        (Rate(60), NOW + timedelta(minutes=5), [5, 6, 7]),  # five turns are given away already
        (Rate(60, burst=3), NOW + timedelta(minutes=5), [3, 4, 5]),
    ],
)
def test_turns_are_evenly_spaced_after_the_burst(rate: Rate, level: datetime, turns: list[float]) -> None:
    assert minutes(rate, len(turns), level=level) == pytest.approx(turns)


def test_slowest_rate_decides_and_is_named() -> None:
    rates = {throttle_rule(*SATO): Rate(60), throttle_rule(*AUTUMN): Rate(1)}
    batch = ThrottleBatch(NOW, {})
    batch.reserve(rates)

    assert batch.next_slot(rates) == (NOW + timedelta(hours=1), "throttle:campaign:autumn")
    assert batch.moved == set(rates)


def test_turn_at_once_names_no_rule() -> None:
    assert ThrottleBatch(NOW, {}).next_slot({"throttle:partner:sato": Rate(1)}) == (NOW, "")


def test_own_rate_goes_before_the_one_for_each() -> None:
    rates = {(RateScope.partner, EACH): Rate(10), SATO: Rate(99)}

    assert rated(rates, [SATO, AUTUMN]) == {"throttle:partner:sato": Rate(99)}
    assert rated(rates, [(RateScope.partner, "suzuki")]) == {"throttle:partner:suzuki": Rate(10)}


def test_ticket_is_one_per_visit_to_a_step() -> None:
    assert (
        len(
            {
                reservation_key(1, "a", 1),
                reservation_key(1, "a", 2),
                reservation_key(1, "b", 1),
                reservation_key(2, "a", 1),
                reservation_key(1, "a", 1),
            }
        )
        == 4
    )


@given(st.integers(1, 100_000), st.integers(1, 50), st.lists(st.integers(0, 7200), min_size=1, max_size=60))
def test_no_stretch_of_time_has_more_turns_than_the_rate_and_one_burst(per_hour: int, burst: int, gaps_seconds: list[int]) -> None:
    rate, at, level, turns = Rate(per_hour, burst), NOW, NOW, []
    for gap in gaps_seconds:
        at += timedelta(seconds=gap)
        turns.append(rate.next_slot(level, at))
        level = rate.taken(level, at)

    assert turns == sorted(turns)
    for first, start in enumerate(turns):
        for last in range(first, len(turns)):
            allowed = (turns[last] - start) / rate.interval + burst
            assert last - first + 1 <= allowed + 0.001
