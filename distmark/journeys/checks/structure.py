"""Does the journey hold together? Unreachable steps, dead arms, loops without a wait, questions about messages not sent yet."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from heapq import heappop, heappush
from zoneinfo import ZoneInfo

from distmark.journeys.checks.context import Checked, readables
from distmark.journeys.checks.references import arguments
from distmark.journeys.expressions import ENGAGEMENT_FUNCTIONS, STEP_FUNCTIONS
from distmark.journeys.findings import Finding
from distmark.journeys.positions import Path as Place
from distmark.journeys.program import Program
from distmark.journeys.steps.branch import DEAD, BranchStep
from distmark.journeys.steps.goto import GotoStep
from distmark.journeys.steps.send import SendStep
from distmark.journeys.steps.wait import MIDNIGHT, WaitStep
from distmark.journeys.times import resolve, shift

WEEK = timedelta(days=7)
# The zone in which a day ends last: what is past there is past everywhere.
LAST_ZONE = ZoneInfo("Etc/GMT+12")


def check_shape(checked: Checked) -> Iterator[Finding]:
    """Yield what is wrong with the journey as a whole; every step that it names must exist."""
    yield from _unreachable(checked)
    yield from _dead_arms(checked)
    yield from _endless_loops(checked)
    yield from _too_early(checked)
    yield from _past_waits(checked)
    yield from _too_often(checked)


def reach(program: Program, start: str, passes: Callable[[str], bool] = lambda step_id: True) -> set[str]:
    """Return the steps that may come after `start`, going on only through steps that `passes` allows; `start` only if in a loop."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for way in program.ways(waiting.pop()):
            if way is not None and way not in found:
                found.add(way)
                if passes(way):
                    waiting.append(way)
    return found


def _unreachable(checked: Checked) -> Iterator[Finding]:
    program = checked.program
    reached = reach(program, program.first) | {program.first}
    lost = [step for step in program.steps if step not in reached]
    followers = {way for step in lost for way in program.ways(step) if way != step}
    # Only where the lost part begins; what follows from it is lost for the same reason.
    for step in [step for step in lost if step not in followers] or lost:
        yield checked.finding("unreachable", step, (), name=step)


def _dead_arms(checked: Checked) -> Iterator[Finding]:
    for step in checked.program.steps.values():
        if isinstance(step, BranchStep):
            for place, why in step.dead_arms():
                reason, reason_ja = DEAD[why]
                yield checked.finding("dead-arm", step.id, place, reason=reason, reason_ja=reason_ja)


def _endless_loops(checked: Checked) -> Iterator[Finding]:
    program = checked.program
    seen: set[str] = set()
    for step in program.steps:
        if step not in seen and (loop := _loop_from(program, step)):
            seen.update(loop)
            yield checked.finding("endless-loop", step, (), steps=" -> ".join([*loop, step]))


def _loop_from(program: Program, start: str) -> list[str] | None:
    if program.steps[start].pauses:
        return None
    came_from: dict[str, str] = {}
    waiting = [start]
    while waiting:
        step = waiting.pop()
        for way in _ways_at_once(program, step):
            if way == start:
                return _back(came_from, step)
            if way not in came_from and not program.steps[way].pauses:
                came_from[way] = step
                waiting.append(way)
    return None


def _ways_at_once(program: Program, step_id: str) -> list[str]:
    step = program.steps[step_id]
    # A goto with `at_most` ends by itself.
    bounded = step.goto if isinstance(step, GotoStep) and step.at_most is not None else None
    return [way for way in program.ways(step_id) if way is not None and way != bounded]


def _back(came_from: dict[str, str], step: str) -> list[str]:
    path = [step]
    while path[-1] in came_from:
        path.append(came_from[path[-1]])
    return path[::-1]


def _too_early(checked: Checked) -> Iterator[Finding]:
    after: dict[str, set[str]] = {}
    at_once: dict[str, set[str]] = {}
    for asker, place, send, is_engagement in _questions(checked):
        if send not in after:
            after[send] = reach(checked.program, send)
            at_once[send] = reach(checked.program, send, lambda step: checked.program.kind(step) != "wait")
        if asker not in after[send]:
            yield checked.finding("not-sent-before", asker, place, name=send)
        elif is_engagement and asker in at_once[send]:
            yield checked.finding("no-time", asker, place, name=send)


def _questions(checked: Checked) -> Iterator[tuple[str, Place, str, bool]]:
    sends = {step.id for step in checked.sends()}
    for step in checked.program.steps.values():
        waits = isinstance(step, WaitStep)
        asked: set[tuple[Place, str]] = set()
        for place, readable in readables(step):
            for call in readable.uses.called(*STEP_FUNCTIONS):
                send = str((arguments(call) or {}).get("step"))
                if send in sends and (place, send) not in asked:
                    asked.add((place, send))
                    yield step.id, place, send, call.name in ENGAGEMENT_FUNCTIONS and not waits
        if isinstance(step, WaitStep) and step.wait.of in sends:
            yield step.id, ("wait", "of"), str(step.wait.of), False


def _ends_at(step: WaitStep) -> datetime | None:
    """Return when a wait for a fixed day ends at the latest anywhere on Earth, or None."""
    wait = step.wait
    if wait.on is None or wait.on.day is None or wait.every is not None:
        return None
    wall = datetime.combine(wait.on.day, (wait.at or MIDNIGHT).at)
    return resolve(shift(wall, wait.offset) if wait.offset else wall, LAST_ZONE)


def _past_waits(checked: Checked) -> Iterator[Finding]:
    passed = _surely_passed(checked)
    for step in checked.program.steps.values():
        ends_at = _ends_at(step) if isinstance(step, WaitStep) else None
        known = [at for at in (checked.now, passed.get(step.id)) if at is not None]
        if ends_at is not None and any(ends_at < at for at in known):
            yield checked.finding("past-wait", step.id, ("wait", "on"), value=f"{ends_at.astimezone(LAST_ZONE):%Y-%m-%d %H:%M}")


def _surely_passed(checked: Checked) -> dict[str, datetime | None]:
    """Return for each reachable step the latest fixed day that every way to it waits for."""
    program = checked.program
    passed: dict[str, datetime | None] = {program.first: None}
    waiting = [program.first]
    while waiting:
        step_id = waiting.pop()
        step = program.steps[step_id]
        here = _later(passed[step_id], _ends_at(step) if isinstance(step, WaitStep) else None)
        for way in program.ways(step_id):
            if way is None:
                continue
            merged = _earlier(passed[way], here) if way in passed else here
            if way not in passed or merged != passed[way]:
                passed[way] = merged
                waiting.append(way)
    return passed


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((at for at in (one, other) if at is not None), default=None)


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return None if one is None or other is None else min(one, other)


def _too_often(checked: Checked) -> Iterator[Finding]:
    limits = [limit.count * max(1.0, WEEK.days / limit.days) for limit in checked.definition.send_policy.caps.limits]
    cap = int(min(limits, default=0))
    for step in checked.program.steps:
        if cap and _counts(checked.program, step) and _reaches_within_a_week(checked.program, step, cap + 1):
            yield checked.finding("too-often", step, (), cap=str(cap))
            return


def _counts(program: Program, step_id: str) -> bool:
    step = program.steps[step_id]
    return isinstance(step, SendStep) and step.purpose != "transactional"


def _reaches_within_a_week(program: Program, start: str, count: int) -> bool:
    """Return whether `count` messages may leave within a week from the send `start` on, when events come at once and waits are shortest."""
    # Dijkstra over (step, messages so far): the least time in which a contact can stand there.
    waiting: list[tuple[timedelta, str, int]] = [(timedelta(), start, 1)]
    seen: set[tuple[str, int]] = set()
    while waiting:
        elapsed, step_id, sent = heappop(waiting)
        if (step_id, sent) in seen:
            continue
        seen.add((step_id, sent))
        step = program.steps[step_id]
        later = elapsed + (step.least if isinstance(step, WaitStep) else timedelta())
        for way in program.ways(step_id):
            more = sent + (way is not None and _counts(program, way))
            if more == count and later < WEEK:
                return True
            if way is not None and later < WEEK and more < count:
                heappush(waiting, (later, way, more))
    return False
