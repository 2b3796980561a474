"""Which arm leads, how sure that is, and when the rule decides."""

from datetime import UTC, datetime, timedelta

import pytest

from distmark.experiments.statistics import ArmNumbers, Confidence, Judgement, is_over, judge_arms

DUE = datetime(2026, 11, 27, 1, tzinfo=UTC)


def _arms(*counts: tuple[int, int]) -> list[ArmNumbers]:
    return [ArmNumbers(name, contacts, hits) for name, (contacts, hits) in zip("abc", counts, strict=False)]


@pytest.mark.parametrize(
    ("counts", "leads", "sureness", "sure"),
    [
        # Beta(61, 941): mean .06088, variance .00005700; Beta(41, 961): .04092, .00003913; z = .01996 / .009805 = 2.036 -> .979
        (((1000, 60), (1000, 40)), "a", Confidence.clear, 0.979),
        # Beta(13, 89): mean .12745, variance .0010797; Beta(9, 93): .08824, .0007811; z = .03922 / .04314 = 0.909 -> .818
        (((100, 8), (100, 12)), "b", Confidence.likely, 0.818),
        # Beta(6, 46): mean .11538, variance .0019258; Beta(5, 47): .09615, .0016398; z = .01923 / .05971 = 0.322 -> .626
        (((50, 5), (50, 4)), "a", Confidence.chance, 0.626),
        # The least sure of its comparisons counts: against b .979 as above; against c, one click less: z = 0.0936 -> .537
        (((1000, 60), (1000, 40), (1000, 59)), "a", Confidence.chance, 0.537),
        # More of a small arm: 2 of 10 (20 %) beats 15 of 100 (15 %), but its flat beginning pulls it: z = .0931 / .1253 = 0.743 -> .771
        (((10, 2), (100, 15)), "a", Confidence.chance, 0.771),
        # One of one is more than 99 of 100, and says nothing: no surer than a coin.
        (((1, 1), (100, 99)), "a", Confidence.chance, 0.5),
        (((100, 10), (50, 5)), "a", Confidence.tie, 0.5),
        (((100, 4), (50, 5), (100, 10)), "b", Confidence.tie, 0.5),
    ],
)
def test_the_arm_with_the_most_per_contact_leads(counts: tuple, leads: str, sureness: Confidence, sure: float) -> None:
    judgement = judge_arms(_arms(*counts))

    assert (judgement.arm, judgement.confidence) == (leads, sureness)
    assert judgement.sure == pytest.approx(sure, abs=0.001)


@pytest.mark.parametrize("counts", [((100, 0), (100, 0)), ((0, 0), (100, 30)), ((0, 0), (0, 0))])
def test_with_nobody_in_an_arm_or_nothing_done_there_is_nothing_to_compare(counts: tuple) -> None:
    assert judge_arms(_arms(*counts)) == Judgement("a", Confidence.nothing)


def test_money_is_compared_per_contact_and_not_per_buyer() -> None:
    """Ten buy for 50 in one arm, four for 100 in the other: 5.00 and 4.00 per contact."""
    many = ArmNumbers("many", 100, 10, 500.0, 10 * 50.0**2)
    few = ArmNumbers("few", 100, 4, 400.0, 4 * 100.0**2)

    judgement = judge_arms([few, many], by_money=True)

    # Pooled: mean 4.5, variance (65,000 - 200 · 20.25) / 199 = 306.3; error sqrt(306.3 / 50) = 2.475; z = 1 / 2.475 = 0.404 -> .657
    assert (judgement.arm, judgement.confidence) == ("many", Confidence.chance)
    assert judgement.sure == pytest.approx(0.657, abs=0.001)


def test_two_contacts_with_the_same_money_each_are_a_tie() -> None:
    arms = [ArmNumbers(name, 1, 1, 80.0, 6400.0) for name in "ab"]

    assert judge_arms(arms, by_money=True) == Judgement("a", Confidence.tie, 0.5)


@pytest.mark.parametrize(
    ("sureness", "after", "over"),
    [
        (Confidence.chance, timedelta(0), True),
        (Confidence.tie, timedelta(0), True),
        (Confidence.clear, -timedelta(seconds=1), False),
        (Confidence.nothing, timedelta(days=6, hours=21), False),
        (Confidence.nothing, timedelta(days=6, hours=22), True),
    ],
)
def test_the_rule_decides_when_due_and_waits_almost_a_week_for_something_to_compare(
    sureness: Confidence, after: timedelta, over: bool
) -> None:
    assert is_over(Judgement("a", sureness), DUE, DUE + after) is over
