"""Wakes in memory on a virtual clock, for simulations. The facts of each member stand in for the message ledger.

The decisions are the engine's own: steps, send policy, rendering, effects, wake-ups by events, winners of experiments. Only storing rows
and reading them again is left out.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count
from types import SimpleNamespace
from typing import Any

from sqlmodel import Session

from distmark.channels.registry import address_of
from distmark.clock import FixedClock
from distmark.delivery.send_policy import SendFacts, SendVerdict, decide_send
from distmark.delivery.service import Prepared, Readiness, SendRequest
from distmark.engine.advance import (
    WakeGroup,
    WokenMember,
    advance_all,
    apply_result,
    move_past_step,
    note_status,
    record_failure,
    settle_external,
    settle_unsent,
    with_message_sent,
)
from distmark.engine.effects import EXTERNAL, LOCAL, EffectRequest, EffectResult, Integrations, task_result
from distmark.engine.facts import ending_channels
from distmark.enrollments.model import EnrollmentStatus, TimelineKind
from distmark.enrollments.service import ended_columns
from distmark.enrollments.table import Enrollment
from distmark.enrollments.wakeups import goal_events, is_triggered_by
from distmark.errors import DistmarkError
from distmark.experiments.service import experiments_in
from distmark.experiments.statistics import LOOK_AGAIN, ArmNumbers, is_over, judge_arms
from distmark.journeys.definition import Kind
from distmark.journeys.model import CreateTask, End, EventFact, Facts, IfHeld, SendMessage
from distmark.journeys.steps.branch import BranchStep, SplitTest, SplitTestOf, shares_of
from distmark.journeys.times import add, next_allowed, zone_for
from distmark.journeys.walk import start
from distmark.messages.compose import Links, Person, blocks_of, compiled, language_of, render_for
from distmark.messages.model import MessageStatus
from distmark.personalisation.model import BlockValue
from distmark.segments.membership import segment_keys_of
from distmark.sql import id_of

MAX_ROUNDS = 200
LEAVING_KINDS = frozenset(
    {
        TimelineKind.passed,
        TimelineKind.branched,
        TimelineKind.sent,
        TimelineKind.failed,
        TimelineKind.skipped,
        TimelineKind.suppressed,
        TimelineKind.uncertain,
        TimelineKind.task,
        TimelineKind.ended,
    }
)


@dataclass(frozen=True, slots=True)
class AcceptedMessage:
    """A message that a channel would have accepted, with the names of the links in it. `member` is the number of its member, from 0."""

    member: int
    contact_id: int
    step_id: str
    visit: int
    channel: str
    marketing: bool
    at: datetime
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SimulatedAction:
    """An action of a contact: `what` is opened, clicked (the link `name`), unsubscribed (from the channel `name`) or event (`name`).

    `step_id` is the step of the message that was read. `sent_at`, set by the simulator, tells it from the messages of other visits.
    """

    at: datetime
    what: str
    name: str = ""
    step_id: str = ""
    sent_at: datetime | None = None


Behaviour = Callable[[AcceptedMessage], Iterable[SimulatedAction]]


@dataclass(slots=True)
class _SimulatedMember:
    """One contact in the journey: message times by channel for the caps, unsubscribed channels, and the arms of experiments by step."""

    woken: WokenMember
    written: dict[str, list[datetime]] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)
    arms: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    engagements: list[SimulatedAction] = field(default_factory=list)  # opens and clicks, kept for experiments only


@dataclass(slots=True)
class Counts:
    """Counts of a simulation: enrollment ids that left each step, accepted messages in order, and wakes."""

    left: dict[str, set[int]] = field(default_factory=dict)
    accepted: list[AcceptedMessage] = field(default_factory=list)
    wakes: int = 0


class Simulator:
    """A simulation of one journey version: its members, and a schedule of their wakes and actions in the order of time."""

    def __init__(self, group: WakeGroup, clock: FixedClock, session: Session, base_url: str, behaviour: Behaviour) -> None:
        """`group` holds the version, without members; `clock` is its clock. `behaviour` gives the actions that follow a message."""
        self.group, self.clock, self.session, self.base_url, self.behaviour = group, clock, session, base_url, behaviour
        self.counts = Counts()
        self._members: list[_SimulatedMember] = []
        self._schedule: list[
            tuple[datetime, int, int, SimulatedAction | None]
        ] = []  # time, order, member (-1: none), an action or a due wake (None)
        self._order = count()
        self._blocks: dict[str, Mapping[str, BlockValue]] = {}
        self._experiments = experiments_in(group.program)
        self._due: dict[str, datetime] = {}  # due time of each experiment that has begun, by step
        self._winners: dict[str, str] = {}

    @property
    def rows(self) -> list[Enrollment]:
        """The present enrollment row of every member."""
        return [member.woken.row for member in self._members]

    def enter(self, row: Enrollment, person: Person, facts: Facts) -> None:
        """Add a member, due at once. The row is copied and not changed."""
        now = self.clock.now()
        copied: Any = SimpleNamespace(
            **{name: getattr(row, name) for name in Enrollment.model_fields}
        )  # a row is ten times slower to write
        woken = WokenMember(copied, person, facts, start(self.group.program, now), now, unsubscribed=False)
        self._members.append(_SimulatedMember(woken))
        self._plan(row.due_at or now, len(self._members) - 1, None)

    async def run(self, until: datetime, progress: Callable[[datetime], None]) -> None:
        """Run every wake and action up to `until` at its own time, and leave the clock there."""
        while self._schedule and self._schedule[0][0] <= until:
            at, _order, number, action = heapq.heappop(self._schedule)
            if at > self.clock.now():
                self.clock.move_to(at)
                progress(at)
            if number < 0:
                await self._evaluate(action)
            elif self._apply_action(self._members[number], action, at):
                await self._wake(number)
        self.clock.move_to(max(until, self.clock.now()))

    def _plan(self, at: datetime, number: int, action: SimulatedAction | None) -> None:
        heapq.heappush(self._schedule, (at, next(self._order), number, action))

    # --- actions -------------------------------------------------------------------------------------------------------------------------

    def _apply_action(self, member: _SimulatedMember, action: SimulatedAction | None, at: datetime) -> bool:
        """Add the action to the member's facts, and say whether the member wakes now."""
        woken, row = member.woken, member.woken.row
        if row.status is not EnrollmentStatus.waiting:
            return False
        if action is None:
            return row.due_at == at
        if action.what == "unsubscribed":
            member.stopped.add(action.name)
            if ending_channels(self.group.program.definition) <= member.stopped and self.group.program.definition.kind is Kind.marketing:
                woken.unsubscribed = True
            woken.facts = _with_engagement(woken.facts, action)
            return True
        if action.what == "event":
            woken.facts = replace(woken.facts, events=[*woken.facts.events, EventFact(action.name, at)])
            return is_triggered_by(self.group.program, row.awaits, action.name)
        woken.facts = _with_engagement(woken.facts, action)
        if self._experiments:
            member.engagements.append(action)
        events = ("opened", "clicked") if action.what == "clicked" else ("opened",)  # a click implies an open
        return any(is_triggered_by(self.group.program, row.awaits, each) for each in events)

    # --- a wake --------------------------------------------------------------------------------------------------------------------------

    async def _wake(self, number: int) -> None:
        member = self._members[number]
        woken = member.woken
        woken.now, woken.done, woken.effect = self.clock.now(), False, None
        if self._experiments:
            woken.facts = replace(woken.facts, winners=self._winners)
        for _round in range(MAX_ROUNDS):
            advance_all(self.group, [woken])
            if isinstance(woken.effect, End):
                self._end(woken)
            if woken.done:
                break
            await self._perform(number, member)
        self._note(number, member)

    def _end(self, woken: WokenMember) -> None:
        woken.note(TimelineKind.ended, woken.position.step_id or "")
        for name, value in ended_columns(woken.effect.outcome, woken.effect.reason, woken.now).items():
            setattr(woken.row, name, value)
        woken.effect = None

    def _note(self, number: int, member: _SimulatedMember) -> None:
        woken = member.woken
        for entry in woken.timeline:
            if entry["kind"] in LEAVING_KINDS:
                self.counts.left.setdefault(entry["step_id"], set()).add(woken.id)
            if entry["kind"] is TimelineKind.branched and entry["step_id"] in self._experiments:
                self._enter_arm(member, entry["step_id"], str(entry["detail"].get("arm")), entry["at"])
        woken.timeline, self.group.shown = [], []
        self.counts.wakes += 1
        if woken.row.status is EnrollmentStatus.waiting and woken.row.due_at is not None:
            self._plan(max(woken.row.due_at, self.clock.now()), number, None)

    async def _perform(self, number: int, member: _SimulatedMember) -> None:
        woken = member.woken
        effect = woken.effect
        if isinstance(effect, SendMessage):
            self._send(number, member, effect)
            return
        request = EffectRequest(woken.row, woken.person, effect, woken.visit, woken.now)
        if type(effect) in EXTERNAL:
            result = (await EXTERNAL[type(effect)](Integrations(), [request]))[0]
            settle_external(self.group, woken, result)
            return
        try:
            result = self._perform_local(effect, request)
        except Exception as error:  # as in a wake: recorded at this member alone
            record_failure(self.group, woken, error)
            return
        apply_result(self.group, woken, result)
        if result.contact is not None:
            contact = woken.person.contact
            woken.facts = replace(woken.facts, segments=segment_keys_of(self.session, [contact], woken.now)[id_of(contact)])

    def _perform_local(self, effect: Any, request: EffectRequest) -> EffectResult:
        if isinstance(effect, CreateTask):
            return task_result(effect)
        with self.session.begin_nested():
            return LOCAL[type(effect)](self.session, request)

    # --- sending -------------------------------------------------------------------------------------------------------------------------

    def _send(self, number: int, member: _SimulatedMember, effect: SendMessage) -> None:
        woken = member.woken
        visit, marketing = woken.visit, self._is_marketing(effect)
        request = SendRequest(woken.row, woken.person, effect, visit)
        prepared = self._policy_result(member, request, marketing) or self._rendered(request, marketing)
        if prepared.readiness is not Readiness.ready:
            settle_unsent(self.group, woken, prepared)
            return
        note_status(self.group, woken, effect.step_id, MessageStatus.sent, "", "250")
        move_past_step(self.group, woken)
        woken.facts = with_message_sent(woken.facts, effect, MessageStatus.sent, woken.now)
        if marketing:
            member.written.setdefault(effect.channel, []).append(woken.now)
        self._accept(number, woken, effect, visit, marketing, tuple(sorted(prepared.rules)))

    def _accept(self, number: int, woken: WokenMember, effect: SendMessage, visit: int, marketing: bool, links: tuple[str, ...]) -> None:
        contact_id = id_of(woken.person.contact)
        accepted = AcceptedMessage(number, contact_id, effect.step_id, visit, effect.channel, marketing, woken.now, links)
        self.counts.accepted.append(accepted)
        for action in self.behaviour(accepted):
            self._plan(action.at, number, replace(action, sent_at=accepted.at))

    def _is_marketing(self, effect: SendMessage) -> bool:
        return self.group.program.definition.kind is Kind.marketing and not effect.transactional

    def _policy_result(self, member: _SimulatedMember, request: SendRequest, marketing: bool) -> Prepared | None:
        """Return the hold, skip or suppression of the message by the send policy; None when it may be sent now."""
        policy, effect, now = self.group.program.definition.send_policy, request.effect, member.woken.now
        if not address_of(request.person.contact, effect.channel):
            return Prepared(request, Readiness.settled, status=MessageStatus.suppressed, detail="no_address")
        zone = zone_for(request.person.zone)
        facts = SendFacts(
            now=now,
            zone=zone,
            transactional=not marketing,
            suppressed=marketing and effect.channel in member.stopped,
            suppression="unsubscribed",
            written_at=member.written.get(effect.channel, ()),
        )
        if_held = IfHeld(str(effect.if_held or policy.if_held or IfHeld.hold))

        def open_from(at: datetime) -> tuple[datetime, tuple[str, ...]]:
            return next_allowed(at, zone, policy.quiet_hours, policy.days, policy.holidays)

        decision = decide_send(facts, policy.caps.limits, open_from, if_held)
        if decision.outcome is SendVerdict.send:
            return None
        if decision.outcome is SendVerdict.suppress:
            return Prepared(request, Readiness.settled, status=MessageStatus.suppressed, detail=decision.reason)
        readiness = Readiness.held if decision.outcome is SendVerdict.hold else Readiness.skipped
        return Prepared(request, readiness, decision.rules, decision.until)

    def _rendered(self, request: SendRequest, marketing: bool) -> Prepared:
        """Return the message rendered: ready, with the names of its links in `rules`, or failed with the error as `detail`."""
        definition, person, effect = self.group.program.definition, request.person, request.effect
        lang = language_of(definition, person.contact)
        try:
            parts = compiled(self.group.source, definition, effect.message, lang, effect.channel)
            rendered = render_for(
                person,
                request.enrollment.data,
                parts,
                self._blocks_in(lang, person),
                Links(self.base_url, "-"),
                marketing=marketing,
                contact_fields=definition.contact_fields,
            )
        except DistmarkError as error:
            return Prepared(request, Readiness.unmade, error=error)
        return Prepared(request, Readiness.ready, tuple(rendered.link_targets))

    def _blocks_in(self, lang: str, person: Person) -> Mapping[str, BlockValue]:
        # No member of a simulation has blocks of its own, so all share the same.
        if lang not in self._blocks:
            self._blocks[lang] = blocks_of(self.session, replace(person, member=None), self.group.program.definition, lang)
        return self._blocks[lang]

    # --- experiments ---------------------------------------------------------------------------------------------------------------------

    def _enter_arm(self, member: _SimulatedMember, step_id: str, arm: str, at: datetime) -> None:
        member.arms.setdefault(step_id, (arm, at))
        experiment = _experiment_of(self._experiments[step_id])
        if step_id not in self._due and experiment.winner == "auto":
            self._due[step_id] = add(at, experiment.evaluate_after, zone_for(member.woken.person.brand.zone))
            self._plan(self._due[step_id], -1, SimulatedAction(self._due[step_id], "evaluate", step_id=step_id))

    async def _evaluate(self, action: SimulatedAction | None) -> None:
        """Decide the experiment when its numbers suffice, and wake the members that wait for the winner; else evaluate again later."""
        if action is None:
            return
        step_id, now = action.step_id, self.clock.now()
        judgement = judge_arms(self._numbers(self._experiments[step_id]))
        if not is_over(judgement, self._due[step_id], now):
            self._plan(now + LOOK_AGAIN, -1, action)
            return
        self._winners = {**self._winners, step_id: judgement.arm}
        for number, member in enumerate(self._members):
            row = member.woken.row
            if row.status is EnrollmentStatus.waiting and row.awaits == f"winner:{step_id}":
                await self._wake(number)

    def _numbers(self, step: BranchStep) -> Sequence[ArmNumbers]:
        contacts: dict[str, int] = {}
        hits: dict[str, int] = {}
        experiment = _experiment_of(step)
        for member in self._members:
            arm, since = member.arms.get(step.id, ("", None))
            if since is not None:
                contacts[arm] = contacts.get(arm, 0) + 1
                hits[arm] = hits.get(arm, 0) + _reached_metric(member, experiment, since, goal_events(self.group.program))
        open_arms = [arm.name for arm, share in zip(step.arms, shares_of(step.arms), strict=True) if share > 0]
        return [ArmNumbers(arm, contacts.get(arm, 0), hits.get(arm, 0)) for arm in open_arms]


def _experiment_of(step: BranchStep) -> SplitTest:
    if not isinstance(step.branch, SplitTestOf):
        raise TypeError(f"Step {step.id} is no experiment.")
    return step.branch.test


def _reached_metric(member: _SimulatedMember, experiment: SplitTest, since: datetime, goals: frozenset[str]) -> bool:
    """Return whether the contact has met the experiment's metric since then. Revenue is never met: simulated events have no value."""
    if experiment.metric in ("click", "open"):
        since_then = [action for action in member.engagements if action.sent_at is not None and action.sent_at >= since]
        if experiment.metric == "open":
            return bool(since_then)
        return any(action.what == "clicked" and experiment.link in (None, action.name) for action in since_then)
    names = {experiment.event} if experiment.event else goals
    return experiment.metric == "conversion" and any(event.name in names and event.at >= since for event in member.woken.facts.events)


def _with_engagement(facts: Facts, action: SimulatedAction) -> Facts:
    """Return the facts with the open, click or unsubscription at its message; a click implies an open."""
    fact: Any = facts.sent.get(action.step_id)
    if fact is None or fact.at != action.sent_at:  # journeys look at the last message of a step only
        return facts
    done = {"unsubscribed_at": action.at} if action.what == "unsubscribed" else {"opened_at": fact.opened_at or action.at}
    fact = replace(fact, **done)
    if action.what == "clicked":
        fact = replace(fact, clicked={action.name: action.at, **fact.clicked})
    return replace(facts, sent={**facts.sent, action.step_id: fact})
