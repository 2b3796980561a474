"""Members walked in memory on a virtual clock, by the rules of a wake: for simulations. What the ledger would hold is in their facts.

The decisions are the engine's own: entering, walking, when a message may go, rendering it, what an effect means, which news wakes whom, who
wins a test. Only keeping rows and asking for them again is left out.
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
from distmark.delivery.policy import SendFacts, SendVerdict, decide_send
from distmark.delivery.service import Prepared, Readiness, SendRequest
from distmark.engine.advance import (
    Walker,
    Work,
    apply_result,
    move_past_step,
    note_status,
    now_written,
    record_failure,
    settle_external,
    settle_unsent,
    walk_all,
)
from distmark.engine.effects import EXTERNAL, LOCAL, EffectRequest, EffectResult, Integrations, task_result
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
LEFT = frozenset(
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
    """A message that would have been accepted: whose, of which step and visit, when, and the names of the links in it."""

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
    """Something a person does at `at`: opened or clicked (a link) the message of `step_id`, unsubscribed by it, or the event `name`.

    `sent_at` tells that message from those of other visits to its step; whoever takes the deed in sets it.
    """

    at: datetime
    what: str
    name: str = ""
    step_id: str = ""
    sent_at: datetime | None = None


Readers = Callable[[AcceptedMessage], Iterable[SimulatedAction]]


@dataclass(slots=True)
class _Member:
    """One contact inside, and what is remembered of them: messages by channel for the caps, stopped channels, arms of tests entered."""

    walker: Walker
    written: dict[str, list[datetime]] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)
    arms: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    read: list[SimulatedAction] = field(default_factory=list)  # what was opened and clicked, where there are tests


@dataclass(slots=True)
class Counts:
    """What has happened: who left which step (by enrollment), accepted messages in order, and how many wakes that took."""

    left: dict[str, set[int]] = field(default_factory=dict)
    accepted: list[AcceptedMessage] = field(default_factory=list)
    wakes: int = 0


class Simulator:
    """The members of one journey version, each with the moment at which something next happens to them."""

    def __init__(self, work: Work, clock: FixedClock, session: Session, base_url: str, readers: Readers) -> None:
        """`work` without members; `clock` is the same as its clock."""
        self.work, self.clock, self.session, self.base_url, self.readers = work, clock, session, base_url, readers
        self.counts = Counts()
        self._members: list[_Member] = []
        self._agenda: list[tuple[datetime, int, int, SimulatedAction | None]] = []  # when, order, who (-1: nobody), a deed or a due wake
        self._order = count()
        self._blocks: dict[str, Mapping[str, BlockValue]] = {}
        self._tests = experiments_in(work.program)
        self._due: dict[str, datetime] = {}  # when each begun test is due
        self._winners: dict[str, str] = {}

    @property
    def rows(self) -> list[Enrollment]:
        """Every member's enrollment as it stands."""
        return [member.walker.row for member in self._members]

    def enter(self, row: Enrollment, person: Person, facts: Facts) -> None:
        """Let a member in, due at once. The row is copied, and stays as it is."""
        now = self.clock.now()
        standing: Any = SimpleNamespace(
            **{name: getattr(row, name) for name in Enrollment.model_fields}
        )  # a row is ten times slower to write
        walker = Walker(standing, person, facts, start(self.work.program, now), now, unsubscribed=False)
        self._members.append(_Member(walker))
        self._put(row.due_at or now, len(self._members) - 1, None)

    async def run(self, until: datetime, progress: Callable[[datetime], None]) -> None:
        """Let everything happen up to `until`, each thing at its own time, and leave the clock there."""
        while self._agenda and self._agenda[0][0] <= until:
            at, _order, number, deed = heapq.heappop(self._agenda)
            if at > self.clock.now():
                self.clock.move_to(at)
                progress(at)
            if number < 0:
                await self._evaluate(deed)
            elif self._is_concerned(self._members[number], deed, at):
                await self._wake(number)
        self.clock.move_to(max(until, self.clock.now()))

    def _put(self, at: datetime, number: int, deed: SimulatedAction | None) -> None:
        heapq.heappush(self._agenda, (at, next(self._order), number, deed))

    # --- news ---------------------------------------------------------------------------------------------------------------------------

    def _is_concerned(self, member: _Member, deed: SimulatedAction | None, at: datetime) -> bool:
        """Take the deed in, and say whether the member is to look at the world now."""
        walker, row = member.walker, member.walker.row
        if row.status is not EnrollmentStatus.waiting:
            return False
        if deed is None:
            return row.due_at == at
        if deed.what == "unsubscribed":
            member.stopped.add(deed.name)
            if deed.name == "email" and self.work.program.definition.kind is Kind.marketing:
                walker.unsubscribed = True
            walker.facts = _engaged(walker.facts, deed)
            return True
        if deed.what == "event":
            walker.facts = replace(walker.facts, events=[*walker.facts.events, EventFact(deed.name, at)])
            return is_triggered_by(self.work.program, row.awaits, deed.name)
        walker.facts = _engaged(walker.facts, deed)
        if self._tests:
            member.read.append(deed)
        news = ("opened", "clicked") if deed.what == "clicked" else ("opened",)  # a click is an open, too
        return any(is_triggered_by(self.work.program, row.awaits, each) for each in news)

    # --- a wake -------------------------------------------------------------------------------------------------------------------------

    async def _wake(self, number: int) -> None:
        member = self._members[number]
        walker = member.walker
        walker.now, walker.done, walker.effect = self.clock.now(), False, None
        if self._tests:
            walker.facts = replace(walker.facts, winners=self._winners)
        for _round in range(MAX_ROUNDS):
            walk_all(self.work, [walker])
            if isinstance(walker.effect, End):
                self._end(walker)
            if walker.done:
                break
            await self._perform(number, member)
        self._note(number, member)

    def _end(self, walker: Walker) -> None:
        walker.note(TimelineKind.ended, walker.position.step_id or "")
        for name, value in ended_columns(walker.effect.outcome, walker.effect.reason, walker.now).items():
            setattr(walker.row, name, value)
        walker.effect = None

    def _note(self, number: int, member: _Member) -> None:
        walker = member.walker
        for move in walker.moves:
            if move["kind"] in LEFT:
                self.counts.left.setdefault(move["step_id"], set()).add(walker.id)
            if move["kind"] is TimelineKind.branched and move["step_id"] in self._tests:
                self._enter_arm(member, move["step_id"], str(move["detail"].get("arm")), move["at"])
        walker.moves, self.work.shown = [], []
        self.counts.wakes += 1
        if walker.row.status is EnrollmentStatus.waiting and walker.row.due_at is not None:
            self._put(max(walker.row.due_at, self.clock.now()), number, None)

    async def _perform(self, number: int, member: _Member) -> None:
        walker = member.walker
        effect = walker.effect
        if isinstance(effect, SendMessage):
            self._send(number, member, effect)
            return
        errand = EffectRequest(walker.row, walker.person, effect, walker.visit, walker.now)
        if type(effect) in EXTERNAL:
            result = (await EXTERNAL[type(effect)](Integrations(), [errand]))[0]
            settle_external(self.work, walker, result)
            return
        try:
            local = self._done_here(effect, errand)
        except Exception as error:  # as in a wake: a poison step parks its own member
            record_failure(self.work, walker, error)
            return
        apply_result(self.work, walker, local)
        if local.contact is not None:
            contact = walker.person.contact
            walker.facts = replace(walker.facts, segments=segment_keys_of(self.session, [contact], walker.now)[id_of(contact)])

    def _done_here(self, effect: Any, errand: EffectRequest) -> EffectResult:
        if isinstance(effect, CreateTask):
            return task_result(effect)
        with self.session.begin_nested():
            return LOCAL[type(effect)](self.session, errand)

    # --- sending ------------------------------------------------------------------------------------------------------------------------

    def _send(self, number: int, member: _Member, effect: SendMessage) -> None:
        walker = member.walker
        visit, marketing = walker.visit, self._is_marketing(effect)
        request = SendRequest(walker.row, walker.person, effect, visit)
        prepared = self._decided(member, request, marketing) or self._rendered(request, marketing)
        if prepared.readiness is not Readiness.ready:
            settle_unsent(self.work, walker, prepared)
            return
        note_status(self.work, walker, effect.step_id, MessageStatus.sent, "", "250")
        move_past_step(self.work, walker)
        walker.facts = now_written(walker.facts, effect, MessageStatus.sent, walker.now)
        if marketing:
            member.written.setdefault(effect.channel, []).append(walker.now)
        self._accept(number, walker, effect, visit, marketing, tuple(sorted(prepared.rules)))

    def _accept(self, number: int, walker: Walker, effect: SendMessage, visit: int, marketing: bool, links: tuple[str, ...]) -> None:
        contact_id = id_of(walker.person.contact)
        accepted = AcceptedMessage(number, contact_id, effect.step_id, visit, effect.channel, marketing, walker.now, links)
        self.counts.accepted.append(accepted)
        for deed in self.readers(accepted):
            self._put(deed.at, number, replace(deed, sent_at=accepted.at))

    def _is_marketing(self, effect: SendMessage) -> bool:
        return self.work.program.definition.kind is Kind.marketing and not effect.transactional

    def _decided(self, member: _Member, request: SendRequest, marketing: bool) -> Prepared | None:
        """Return why the message may not go now; None when it may."""
        policy, effect, now = self.work.program.definition.send_policy, request.effect, member.walker.now
        if not address_of(request.person.contact, effect.channel):
            return Prepared(request, Readiness.settled, status=MessageStatus.suppressed, detail="no_address")
        zone = zone_for(request.person.zone)
        facts = SendFacts(
            now=now,
            zone=zone,
            transactional=not marketing,
            suppressed=marketing and effect.channel in member.stopped,
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
        """Render the message as it would go out; ready with the names of its links as `rules`, or failed as it would fail."""
        definition, person, effect = self.work.program.definition, request.person, request.effect
        lang = language_of(definition, person.contact)
        try:
            parts = compiled(self.work.source, definition, effect.message, lang, effect.channel)
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
            return Prepared(request, Readiness.settled, status=MessageStatus.failed, detail=str(error))
        return Prepared(request, Readiness.ready, tuple(rendered.link_targets))

    def _blocks_in(self, lang: str, person: Person) -> Mapping[str, BlockValue]:
        # Nobody of a simulation has words of their own, so that all have the same.
        if lang not in self._blocks:
            self._blocks[lang] = blocks_of(self.session, replace(person, member=None), self.work.program.definition, lang)
        return self._blocks[lang]

    # --- tests --------------------------------------------------------------------------------------------------------------------------

    def _enter_arm(self, member: _Member, step_id: str, arm: str, at: datetime) -> None:
        member.arms.setdefault(step_id, (arm, at))
        test = _test(self._tests[step_id])
        if step_id not in self._due and test.winner == "auto":
            self._due[step_id] = add(at, test.evaluate_after, zone_for(member.walker.person.brand.zone))
            self._put(self._due[step_id], -1, SimulatedAction(self._due[step_id], "evaluate", step_id=step_id))

    async def _evaluate(self, deed: SimulatedAction | None) -> None:
        """Decide the test if its numbers say enough, and wake who waits for the winner; else look again later."""
        if deed is None:
            return
        step_id, now = deed.step_id, self.clock.now()
        judgement = judge_arms(self._numbers(self._tests[step_id]))
        if not is_over(judgement, self._due[step_id], now):
            self._put(now + LOOK_AGAIN, -1, deed)
            return
        self._winners = {**self._winners, step_id: judgement.arm}
        for number, member in enumerate(self._members):
            row = member.walker.row
            if row.status is EnrollmentStatus.waiting and row.awaits == f"winner:{step_id}":
                await self._wake(number)

    def _numbers(self, step: BranchStep) -> Sequence[ArmNumbers]:
        contacts: dict[str, int] = {}
        hits: dict[str, int] = {}
        test = _test(step)
        for member in self._members:
            arm, since = member.arms.get(step.id, ("", None))
            if since is not None:
                contacts[arm] = contacts.get(arm, 0) + 1
                hits[arm] = hits.get(arm, 0) + _did(member, test, since, goal_events(self.work.program))
        open_arms = [arm.name for arm, share in zip(step.arms, shares_of(step.arms), strict=True) if share > 0]
        return [ArmNumbers(arm, contacts.get(arm, 0), hits.get(arm, 0)) for arm in open_arms]


def _test(step: BranchStep) -> SplitTest:
    if not isinstance(step.branch, SplitTestOf):
        raise TypeError(f"Step {step.id} is no test.")
    return step.branch.test


def _did(member: _Member, test: SplitTest, since: datetime, goals: frozenset[str]) -> bool:
    """Say whether the contact did since then what the test measures. Nothing in a simulation is worth money."""
    if test.metric in ("click", "open"):
        read = [deed for deed in member.read if deed.sent_at is not None and deed.sent_at >= since]
        return any(test.metric == "open" or (deed.what == "clicked" and test.link in (None, deed.name)) for deed in read)
    names = {test.event} if test.event else goals
    return test.metric == "conversion" and any(event.name in names and event.at >= since for event in member.walker.facts.events)


def _engaged(facts: Facts, deed: SimulatedAction) -> Facts:
    """Return the facts with that message opened, clicked or unsubscribed by; a click implies an open."""
    fact: Any = facts.sent.get(deed.step_id)
    if fact is None or fact.at != deed.sent_at:  # the step's last message is what journeys ask about
        return facts
    done = {"unsubscribed_at": deed.at} if deed.what == "unsubscribed" else {"opened_at": fact.opened_at or deed.at}
    fact = replace(fact, **done)
    if deed.what == "clicked":
        fact = replace(fact, clicked={deed.name: deed.at, **fact.clicked})
    return replace(facts, sent={**facts.sent, deed.step_id: fact})
