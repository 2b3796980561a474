"""Effects of steps, in two tables from effect to function: `LOCAL` in our own database, `EXTERNAL` over the network.

Messages are not among them: the delivery room sends those.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlmodel import Session, select

from distmark.contacts.service import change_contact
from distmark.contacts.table import Contact
from distmark.engine.facts import as_json
from distmark.enrollments.model import TimelineKind
from distmark.enrollments.table import Enrollment
from distmark.entries.model import EnrolVerdict
from distmark.entries.service import enter_from
from distmark.errors import DeliveryError, PermanentDeliveryError, TemporaryDeliveryError
from distmark.integrations.ad_audiences import AudienceAction, AudienceChange, AudienceMember, Audiences, audiences_of
from distmark.integrations.memory import MemoryAudiences, MemoryWebhooks
from distmark.integrations.webhooks import HttpWebhooks, WebhookAnswer, WebhookCall, Webhooks, idempotency_key
from distmark.journeys.model import CallWebhook, ChangeAudience, CreateTask, End, EnterJourney, UpdateContact
from distmark.journeys.outcomes import Outcome
from distmark.messages.compose import Person
from distmark.settings import Settings
from distmark.sql import id_of
from distmark.tasks.table import Task


@dataclass(frozen=True, slots=True)
class Integrations:
    """The services that external effects call. By default they are kept in memory: a simulation or a test must call nobody by accident."""

    webhooks: Webhooks = field(default_factory=MemoryWebhooks)
    audiences: Audiences = field(default_factory=MemoryAudiences)


def integrations_of(settings: Settings) -> Integrations:
    """Return the services that this installation calls."""
    return Integrations(HttpWebhooks.of(settings), audiences_of(settings))


@dataclass(frozen=True, slots=True)
class EffectRequest:
    """A request to perform the effect of one member's step, on its `visit`-th visit there."""

    row: Enrollment
    person: Person
    effect: Any
    visit: int
    now: datetime

    @property
    def key(self) -> str:
        """The idempotency key: the same on every try of this effect, and different for any other."""
        return idempotency_key(self.row.run_key, self.row.id, self.effect.step_id, self.visit)


@dataclass(frozen=True, slots=True)
class EffectResult:
    """The result of an effect: its timeline entry (`kind`, `detail`), and its `text` for the run's page (no personal data).

    `later` names a failure that may pass by itself: the effect is tried again, and the result applies only when no try is left.
    """

    kind: TimelineKind
    detail: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    contact: Contact | None = None  # the contact as changed by the effect; None: not changed
    answer: Mapping[str, Any] | None = None  # the answer that answer('<step>') reads from now on
    end: End | None = None
    failed: bool = False
    later: str = ""


# --- in our own database, in the transaction that moves past the step --------------------------------------------------------------------


def create_task(session: Session, request: EffectRequest) -> EffectResult:
    """Create the task of the partner or the brand's staff, once per visit."""
    row, effect, visit = request.row, request.effect, request.visit
    there = session.exec(select(Task.id).where(Task.enrollment_id == row.id, Task.step_id == effect.step_id, Task.visit == visit)).first()
    if there is None:
        session.add(
            Task(
                enrollment_id=id_of(row),
                step_id=effect.step_id,
                visit=visit,
                brand_id=row.brand_id,
                partner_id=row.partner_id,
                contact_id=row.contact_id,
                role=effect.for_,
                title=effect.title[:300],
                created_at=request.now,
                due_at=effect.due,
            )
        )
    return task_result(effect)


def task_result(effect: CreateTask) -> EffectResult:
    """Return the result of creating a task."""
    return EffectResult(TimelineKind.task, {"for": effect.for_, "due": effect.due}, f"for {effect.for_}")


def update_contact(session: Session, request: EffectRequest) -> EffectResult:
    """Change the contact's data as the step says."""
    changes = request.effect.changes
    contact = change_contact(session, id_of(request.person.contact), changes, request.now)
    return EffectResult(TimelineKind.passed, {"changed": sorted(changes)}, "contact updated", contact)


def enter_journey(session: Session, request: EffectRequest) -> EffectResult:
    """Enter the contact into the newest version of another journey of the brand, if its rules admit them."""
    effect: EnterJourney = request.effect
    data = as_json(effect.data)
    result = enter_from(session, request.row, request.person.contact, effect.key, effect.step_id, data, request.now)
    if result is None:
        return EffectResult(TimelineKind.skipped, {"journey": effect.key, "reason": "journey_not_open"}, f"{effect.key}: not open")
    if result.verdict is not EnrolVerdict.enrolled:
        return EffectResult(
            TimelineKind.skipped, {"journey": effect.key, "reason": result.verdict.value}, f"{effect.key}: {result.verdict}"
        )
    return EffectResult(TimelineKind.passed, {"journey": effect.key, "enrollment": result.enrollment_id}, f"entered {effect.key}")


LOCAL: dict[type, Callable[[Session, EffectRequest], EffectResult]] = {
    CreateTask: create_task,
    UpdateContact: update_contact,
    EnterJourney: enter_journey,
}


# --- over the network, with no transaction open ------------------------------------------------------------------------------------------

ExternalResults = list[EffectResult | Exception]


async def call_webhooks(integrations: Integrations, requests: Sequence[EffectRequest]) -> ExternalResults:
    """Call each member's webhook; one result each, in their order."""
    answers = await asyncio.gather(*(_call_webhook(integrations.webhooks, request) for request in requests), return_exceptions=True)
    return [_as_result(answer) if isinstance(answer, BaseException) else answer for answer in answers]


def _as_result(error: BaseException) -> Exception:
    """Return the error of one member's effect as its result. Raises an error that ends the process, such as a cancellation."""
    if not isinstance(error, Exception):
        raise error
    return error


async def _call_webhook(webhooks: Webhooks, request: EffectRequest) -> EffectResult:
    effect: CallWebhook = request.effect
    call = WebhookCall(
        url=effect.url,
        method=effect.method,
        idempotency_key=request.key,
        headers=effect.headers,
        body=None if effect.body is None else as_json(effect.body),
        secret=effect.secret,
        timeout_seconds=effect.timeout_seconds,
    )
    try:
        answer = await webhooks.call(call)
    except (TemporaryDeliveryError, PermanentDeliveryError) as error:
        return _webhook_result(effect, WebhookAnswer(0), error)
    return _webhook_result(effect, answer)


def _webhook_result(effect: CallWebhook, answer: WebhookAnswer, error: DeliveryError | None = None) -> EffectResult:
    outcome = f"status_{answer.status}" if error is None else error.code or "no_answer"
    may_pass = answer.may_pass if error is None else isinstance(error, TemporaryDeliveryError)
    end = End(Outcome.failed, f"webhook {effect.step_id}: {outcome}") if not answer.ok and effect.if_fails == "end" else None
    return EffectResult(
        kind=TimelineKind.passed,
        detail={"status": answer.status, "ok": answer.ok, "said": outcome},
        text=outcome,
        answer={"status": answer.status, "ok": answer.ok, "data": answer.data},
        end=end,
        failed=not answer.ok,
        later=outcome if may_pass else "",
    )


async def change_audiences(integrations: Integrations, requests: Sequence[EffectRequest]) -> ExternalResults:
    """Change each audience once for all members; one result each, in their order."""
    audiences = list(dict.fromkeys((request.person.brand.key, request.effect.audience) for request in requests))
    failures = dict(
        zip(audiences, await asyncio.gather(*(_change_audience(integrations, requests, *each) for each in audiences)), strict=True)
    )
    return [failures[request.person.brand.key, request.effect.audience] or _audience_result(request.effect) for request in requests]


async def _change_audience(integrations: Integrations, requests: Sequence[EffectRequest], brand: str, audience: str) -> Exception | None:
    changes = [
        AudienceChange(AudienceAction(request.effect.action), member, request.key)
        for request in requests
        if (request.person.brand.key, request.effect.audience) == (brand, audience)
        and (member := AudienceMember.of(request.person.contact.email, request.person.contact.phone)).key
    ]
    try:
        if changes:
            await integrations.audiences.change(brand, audience, changes)
    except Exception as error:  # recorded at each of these members, and tried again with them
        return error
    return None


def _audience_result(effect: ChangeAudience) -> EffectResult:
    return EffectResult(TimelineKind.passed, {"audience": effect.audience, "action": effect.action}, f"{effect.action}: {effect.audience}")


EXTERNAL: dict[type, Callable[[Integrations, Sequence[EffectRequest]], Awaitable[ExternalResults]]] = {
    CallWebhook: call_webhooks,
    ChangeAudience: change_audiences,
}
