"""The arm of an experiment that leads, and the confidence in it. Pure.

The arm with the most per contact leads: the share of contacts who clicked, converted or opened, or the money per contact. Arms that
have exactly the same are a tie, which the one written first wins. Where an arm has nobody, or nobody did in any arm what is measured, there
is nothing to compare: such a test waits on, and in the end the arm written first wins.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import erf, sqrt

from distmark.journeys.steps.branch import LATE_WINNER_PATIENCE

CLEAR, LIKELY = 0.95, 0.80
LOOK_AGAIN = timedelta(hours=1)  # at a test that is due and has nothing to compare
PATIENCE = LATE_WINNER_PATIENCE - 2 * LOOK_AGAIN  # then it is decided all the same, before those held out give up waiting


class Confidence(StrEnum):
    """The confidence in the arm that leads."""

    clear = "clear"  # CLEAR or more
    likely = "likely"  # LIKELY or more
    chance = "chance"  # less: it leads, and that may be chance
    tie = "tie"
    nothing = "nothing"  # to compare


@dataclass(frozen=True, slots=True)
class ArmNumbers:
    """The numbers of one arm: contacts entered, contacts that did what is measured, the sum of their money, and the sum of its squares."""

    arm: str
    contacts: int
    hits: int = 0
    money: float = 0.0
    squares: float = 0.0

    def per_contact(self, by_money: bool) -> float:
        """Return what is measured, per contact: 0 to 1, or money. Nobody has nothing."""
        return (self.money if by_money else self.hits) / self.contacts if self.contacts else 0.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """The arm that leads. `sure` is the probability (0.5 to 1) that it is better than the runner-up; None with nothing to compare."""

    arm: str
    confidence: Confidence
    sure: float | None = None


def judge_arms(arms: Sequence[ArmNumbers], *, by_money: bool = False) -> Judgement:
    """Return which arm leads; `arms` are at least one, in the order written.

    Of shares, `sure` compares the normal approximations of two beta posteriors that began flat (Gelman et al., Bayesian Data Analysis,
    section 2.4); of money, it is the one-sided z test of two means with one pooled variance. Of several arms the least sure pair counts.
    """
    values = [arm.per_contact(by_money) for arm in arms]
    best = values.index(max(values))
    if not all(arm.contacts for arm in arms) or not any(arm.squares if by_money else arm.hits for arm in arms):
        return Judgement(arms[0].arm, Confidence.nothing)
    others = [number for number in range(len(arms)) if number != best]
    if any(values[number] == values[best] for number in others):
        return Judgement(arms[best].arm, Confidence.tie, 0.5)
    compare = _sure_by_money if by_money else _sure_by_share
    sure = min((compare(arms[best], arms[number]) for number in others), default=1.0)
    return Judgement(arms[best].arm, _in_words(sure), sure)


def _in_words(sure: float) -> Confidence:
    if sure >= CLEAR:
        return Confidence.clear
    return Confidence.likely if sure >= LIKELY else Confidence.chance


def _sure_by_share(best: ArmNumbers, other: ArmNumbers) -> float:
    (mean, variance), (other_mean, other_variance) = _posterior(best), _posterior(other)
    # Few against many: the flat beginning may pull the leader below the other, of which nobody can be surer than of a coin.
    return max(0.5, _normal((mean - other_mean) / sqrt(variance + other_variance)))


def _posterior(arm: ArmNumbers) -> tuple[float, float]:
    """Return mean and variance of Beta(1 + hits, 1 + misses)."""
    mean = (arm.hits + 1) / (arm.contacts + 2)
    return mean, mean * (1 - mean) / (arm.contacts + 3)


def _sure_by_money(best: ArmNumbers, other: ArmNumbers) -> float:
    many = best.contacts + other.contacts
    mean = (best.money + other.money) / many
    variance = max(0.0, best.squares + other.squares - many * mean**2) / (many - 1)
    if variance == 0:
        return 0.5
    error = sqrt(variance * (1 / best.contacts + 1 / other.contacts))
    return _normal((best.per_contact(True) - other.per_contact(True)) / error)


def _normal(z: float) -> float:
    """Return how much of the standard normal distribution is below `z`."""
    return 0.5 * (1 + erf(z / sqrt(2)))


def is_over(judgement: Judgement, due_at: datetime, now: datetime) -> bool:
    """Return whether the rule decides now: when the experiment is due, and with nothing to compare, PATIENCE later."""
    patience = PATIENCE if judgement.confidence is Confidence.nothing else timedelta()
    return now >= due_at + patience
