"""Split contacts into arms: by conditions, at random by shares, or in a test whose winner takes the rest."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PlainValidator, TypeAdapter, WithJsonSchema, model_validator

from distmark.journeys.expressions import ENGAGEMENT_FUNCTIONS, Expression, namespace
from distmark.journeys.field_types import Identifier, Name, Percent, Words
from distmark.journeys.fields import DefinitionPart, problem, reference
from distmark.journeys.model import Decision, Go, Sleep, StepVisit, Why
from distmark.journeys.steps.base import Path, Step, StepKind, Steps
from distmark.journeys.times import Duration, add
from distmark.journeys.wording import listed

LEAST_ARMS, MOST_ARMS, MOST_CONDITIONS = 2, 20, 50
LATE_WINNER_CHECK = {"auto": timedelta(hours=1), "manual": timedelta(days=1)}
LATE_WINNER_PATIENCE = timedelta(days=7)
SHORTEST_TEST, LONGEST_TEST = timedelta(hours=1), timedelta(days=99)
ROUNDING = 1e-9

PEOPLE_ONLY = {"ja": "人の操作だけで判定", "en": "people's actions only"}
OTHERWISE = Words.read({"ja": "それ以外", "en": "otherwise"})
METRICS = {
    "click": {"ja": "クリック", "en": "clicks"},
    "conversion": {"ja": "成果", "en": "conversions"},
    "revenue": {"ja": "金額", "en": "revenue"},
    "open": {"ja": "開封", "en": "opens"},
}


class Condition(DefinitionPart):
    """An arm taken when `when` is true, or by all who are left."""

    when: Expression | None = None
    otherwise: Literal[True] | None = None
    name: Words | None = None
    steps: Steps = ()

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if (self.when is None) == (self.otherwise is None):
            raise problem("bad-arm")
        return self

    @property
    def label(self) -> str:
        """What people call the arm: its name, its condition, or "otherwise"."""
        return str(self.name or self.when or "otherwise")

    @property
    def shown_name(self) -> Words | None:
        """The arm's name per language; None for a condition without one."""
        return self.name or (OTHERWISE if self.otherwise else None)


class Arm(DefinitionPart):
    """An arm taken by a share of the contacts; equal shares when none says one."""

    name: Name
    share: Percent | None = None
    steps: Steps = ()


class Random(DefinitionPart):
    """Arms by chance; a contact's arm never changes."""

    random: tuple[Arm, ...]

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        check_arms(self.random)
        return self


class SplitTest(DefinitionPart):
    """What decides a test: the metric, how many wait for the result, and when it is read."""

    metric: Literal["click", "conversion", "revenue", "open"] = Field(description="What the winner has most of, per contact.")
    link: Name | None = Field(None, description="Only clicks of this link count.")
    event: Identifier | None = Field(None, description="The conversion that counts.")
    hold_out: Percent = Field(Percent.read("0%"), description="The share of contacts that waits for the winner.")
    evaluate_after: Duration = Field(description="How long to collect results.")
    winner: Literal["auto", "manual"] = Field("auto", description="Whether the winner is taken by itself or chosen by a person.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not SHORTEST_TEST <= self.evaluate_after.least <= LONGEST_TEST:
            raise _bad("evaluate_after is 1 hour to 99 days", "evaluate_after は 1 時間〜99 日です")
        if self.hold_out.rate >= 1:
            raise _bad("hold_out is less than 100%", "hold_out は 100% 未満です")
        if self.link and self.metric != "click":
            raise _bad("link goes with the metric click", "link は metric: click と一緒に使います")
        if self.event and self.metric not in ("conversion", "revenue"):
            raise _bad("event goes with the metric conversion or revenue", "event は conversion か revenue と一緒に使います")
        return self


class SplitTestOf(DefinitionPart):
    """A test; its arms stand beside it in the step."""

    test: SplitTest


def _bad(reason: str, reason_ja: str) -> Exception:
    return problem("bad-test", reason=reason, reason_ja=reason_ja)


Conditions = tuple[Condition, ...]
_CONDITIONS: TypeAdapter[Conditions] = TypeAdapter(Conditions)


def _read_branch(value: object) -> Conditions | Random | SplitTestOf:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _CONDITIONS.validate_python(value)
    if isinstance(value, Mapping) and "random" in value:
        return Random.model_validate(value)
    if isinstance(value, Mapping) and "test" in value:
        return SplitTestOf.model_validate(value)
    raise problem("bad-branch")


def check_arms(arms: Sequence[Arm]) -> None:
    """Raise a problem unless there are 2 to 20 differently named arms whose shares add up to 100%, or none of which has a share."""
    if not LEAST_ARMS <= len(arms) <= MOST_ARMS:
        raise problem("few-arms", least=str(LEAST_ARMS), most=str(MOST_ARMS), count=str(len(arms)))
    names = [arm.name for arm in arms]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise problem("double-arm", value=double)
    shares = [arm.share.rate if arm.share else 0.0 for arm in arms]
    if any(arm.share for arm in arms) and abs(sum(shares) - 1) > ROUNDING:
        raise problem("bad-shares", sum=f"{sum(shares) * 100:g}%")


_ARM_REF = {"type": "array", "items": reference("Arm"), "minItems": LEAST_ARMS, "maxItems": MOST_ARMS}
BRANCH_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "array", "items": reference("Condition"), "minItems": 1},
        {"type": "object", "properties": {"random": _ARM_REF}, "required": ["random"], "additionalProperties": False},
        {"type": "object", "properties": {"test": reference("SplitTest")}, "required": ["test"], "additionalProperties": False},
    ]
}


class BranchStep(Step):
    """Split, and join again after the split."""

    kind: ClassVar[str] = "branch"

    branch: Annotated[Conditions | Random | SplitTestOf, PlainValidator(_read_branch), WithJsonSchema(BRANCH_SCHEMA)]
    arms: tuple[Arm, ...] = Field((), description="The arms of a test.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if isinstance(self.branch, SplitTestOf):
            check_arms(self.arms)
        elif self.arms:
            raise _bad("arms go with a test", "arms は test と一緒に使います")
        if isinstance(self.branch, tuple):
            _check_conditions(self.branch)
        return self

    @property
    def split(self) -> tuple[Arm, ...]:
        """The arms of a split by shares; none for one by conditions."""
        if isinstance(self.branch, Random):
            return self.branch.random
        return self.arms

    def paths(self) -> tuple[Path, ...]:
        if isinstance(self.branch, tuple):
            return tuple(Path(arm.label, arm.steps, name=arm.shown_name) for arm in self.branch)
        return tuple(Path(arm.name, arm.steps, share) for arm, share in zip(self.split, shares_of(self.split), strict=True))

    def dead_arms(self) -> tuple[tuple[tuple[str | int, ...], str], ...]:
        """Return where in the step the arms stand that nobody can take, and why: a key of DEAD."""
        if isinstance(self.branch, tuple):
            return tuple((("branch", number), why) for number, why in _dead_conditions(self.branch))
        place: tuple[str | int, ...] = ("branch", "random") if isinstance(self.branch, Random) else ("arms",)
        return tuple(((*place, number), "no_share") for number, share in enumerate(shares_of(self.split)) if share == 0)

    def ways(self, after: str | None) -> tuple[str | None, ...]:
        ways = [path.first(after) for path in self.paths()]
        takes_all = (
            not isinstance(self.branch, tuple) or self.branch[-1].otherwise or any(arm.when and arm.when.constant for arm in self.branch)
        )
        return tuple(dict.fromkeys(ways if takes_all else [*ways, after]))


DEAD: Mapping[str, tuple[str, str]] = {
    "never": ("its condition is never true", "条件が常に成り立ちません"),
    "behind": ("an arm above takes everybody", "上の分岐が全員を受け取ります"),
    "twice": ("an arm above has the same condition", "上に同じ条件の分岐があります"),
    "no_share": ("its share is 0%", "割合が 0% です"),
}


def _dead_conditions(conditions: Conditions) -> Iterator[tuple[int, str]]:
    seen: set[str] = set()
    taken = False
    for number, condition in enumerate(conditions):
        always = condition.when.constant if condition.when else True
        text = str(condition.when or "")
        if taken or text in seen or always is False:
            yield number, "behind" if taken else "twice" if text in seen else "never"
        seen.add(text)
        taken = taken or always is True


def _check_conditions(conditions: Conditions) -> None:
    if not 1 <= len(conditions) <= MOST_CONDITIONS:
        raise problem("few-arms", least="1", most=str(MOST_CONDITIONS), count=str(len(conditions)))
    if any(condition.otherwise for condition in conditions[:-1]):
        raise problem("otherwise-last")


def shares_of(arms: Sequence[Arm]) -> list[float]:
    """Return the share (0-1) of each arm; equal when none says one."""
    if not any(arm.share for arm in arms):
        return [1 / len(arms)] * len(arms)
    return [arm.share.rate if arm.share else 0.0 for arm in arms]


def draw(random_key: str, salt: str) -> float:
    """Return a number from 0 up to 1 that is always the same for the same contact and salt."""
    return int.from_bytes(sha256(f"{random_key}{salt}".encode()).digest()[:7]) / 2**56


def decide(step: BranchStep, visit: StepVisit) -> Decision:
    """Return the way into the arm, or the sleep of a contact held out of a test."""
    if isinstance(step.branch, tuple):
        return _by_condition(step.branch, visit)
    if isinstance(step.branch, SplitTestOf):
        return _by_test(step, step.branch.test, visit)
    return _into(_drawn(step.split, visit))


def _by_condition(conditions: Conditions, visit: StepVisit) -> Decision:
    names = namespace(visit.facts, visit.now, visit.zone)
    for condition in conditions:
        if condition.when is None or condition.when.holds(names):
            return Go(condition.steps[0].id if condition.steps else None, {"arm": condition.label})
    return Go(detail={"arm": "none"})


def _drawn(arms: Sequence[Arm], visit: StepVisit) -> Arm:
    point, reached = draw(visit.facts.random_key, visit.step_id), 0.0
    taken = [(arm, share) for arm, share in zip(arms, shares_of(arms), strict=True) if share > 0]
    for arm, share in taken:
        reached += share
        if point < reached:
            return arm
    return taken[-1][0]


def _into(arm: Arm, **detail: object) -> Go:
    return Go(arm.steps[0].id if arm.steps else None, {"arm": arm.name, **detail})


def _by_test(step: BranchStep, test: SplitTest, visit: StepVisit) -> Decision:
    if winner := next((arm for arm in step.arms if arm.name == visit.facts.winners.get(step.id)), None):
        return _into(winner, winner=True)
    if draw(visit.facts.random_key, f"{step.id}:hold_out") >= test.hold_out.rate:
        return _into(_drawn(step.arms, visit))
    evaluated_at = add(visit.arrived_at, test.evaluate_after, visit.zone)
    if test.winner == "auto" and visit.now >= evaluated_at + LATE_WINNER_PATIENCE:
        return _into(_drawn(step.arms, visit), held_out=True)
    return Sleep(_next_check(evaluated_at, visit.now, LATE_WINNER_CHECK[test.winner]), Why.test, (), f"winner:{step.id}")


def _next_check(evaluated_at: datetime, now: datetime, every: timedelta) -> datetime:
    if now < evaluated_at:
        return evaluated_at
    return evaluated_at + every * ((now - evaluated_at) // every + 1)


def describe(step: BranchStep, lang: str) -> tuple[str, str]:
    """Return a title and a second line in `lang`."""
    labels = listed([path.words(lang) for path in step.paths()], lang)
    if isinstance(step.branch, Random):
        return ("ランダムに分ける" if lang == "ja" else "Random split"), labels
    if isinstance(step.branch, SplitTestOf):
        metric = METRICS[step.branch.test.metric][lang]
        return (f"テスト（{metric}で判定）" if lang == "ja" else f"Test by {metric}"), labels
    return ("条件で分ける" if lang == "ja" else "Split by condition"), (PEOPLE_ONLY[lang] if _judges_people(step.branch) else labels)


def _judges_people(conditions: Conditions | Random | SplitTestOf) -> bool:
    whens = [arm.when for arm in conditions if arm.when is not None] if isinstance(conditions, tuple) else []
    calls = [call for when in whens for call in when.uses.called(*ENGAGEMENT_FUNCTIONS)]
    return bool(calls) and not any(call.named.get("by") == "any" for call in calls)


KIND = StepKind("branch", BranchStep, decide, describe, {"ja": "分岐", "en": "Split"}, "split", "#8b5cf6")
