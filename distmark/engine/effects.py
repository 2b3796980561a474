"""What the effects of steps do. Two tables from effect to the function that performs it: in our own database, or on an errand outside.

Sends have a way of their own, in the delivery room.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlmodel import Session, select

from distmark.contacts.service import change_contact
from distmark.contacts.table import Contact
from distmark.engine.facts import plain
from distmark.enrollments.model import TimelineKind
from distmark.enrollments.table import Enrollment
from distmark.entries.model import EnrolVerdict
from distmark.entries.service import enter_from
from distmark.errors import DeliveryError, PermanentDeliveryError, TemporaryDeliveryError
from distmark.integrations.ad_audiences import AudienceAction, AudienceChange, Audiences, Member, audiences_of
from distmark.integrations.memory import MemoryAudiences, MemoryWebhooks
from distmark.integrations.webhooks import HttpWebhooks, WebhookAnswer, WebhookCall, Webhooks, idempotency_key
from distmark.journeys.model import CallWebhook, ChangeAudience, CreateTask, End, EnterJourney, Outcome, UpdateContact
from distmark.messages.compose import Person
from distmark.settings import Settings
from distmark.sql import id_of
from distmark.tasks.table import Task


@dataclass(frozen=True, slots=True)
class Integrations:
    """Where errands lead. Nowhere, unless told: what simulates or tests must call nobody by accident."""

    webhooks: Webhooks = field(default_factory=MemoryWebhooks)
    audiences: Audiences = field(default_factory=MemoryAudiences)


def integrations_of(settings: Settings) -> Integrations:
    """Return where errands of this installation lead."""
    return Integrations(HttpWebhooks.of(settings), audiences_of(settings))


@dataclass(frozen=True, slots=True)
class EffectRequest:
    """One member at an effect: the `visit`-th time at its step."""

    row: Enrollment
    person: Person
    effect: Any
    visit: int
    now: datetime

    @property
    def key(self) -> str:
        """The same on every try, and for nothing else."""
        return idempotency_key(self.row.run_key, self.row.id, self.effect.step_id, self.visit)


@dataclass(frozen=True, slots=True)
class EffectResult:
    """What to write in the timeline, and what the run's page shows in `text` (no personal data).

    `later` names a failure that may pass by itself: the effect is tried again, and this result counts only when that came to nothing.
    """

    move: TimelineKind
    detail: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    contact: Contact | None = None  # as it is from now on, when it changed
    answer: Mapping[str, Any] | None = None  # what answer('<step>') reads from now on
    end: End | None = None
    failed: bool = False
    later: str = ""


# --- in our own database, in the transaction that moves past the step ------------------------------------------------------------------


def create_task(session: Session, errand: EffectRequest) -> EffectResult:
    """Give the partner or the brand's staff a next action, once per visit."""
    row, effect, visit = errand.row, errand.effect, errand.visit
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
                created_at=errand.now,
                due_at=effect.due,
            )
        )
    return task_result(effect)


def task_result(effect: CreateTask) -> EffectResult:
    """Return what the timeline says of a task."""
    return EffectResult(TimelineKind.task, {"for": effect.for_, "due": effect.due}, f"for {effect.for_}")


def update_contact(session: Session, errand: EffectRequest) -> EffectResult:
    """Change the contact's data as the step says."""
    changes = errand.effect.changes
    contact = change_contact(session, id_of(errand.person.contact), changes, errand.now)
    return EffectResult(TimelineKind.passed, {"changed": sorted(changes)}, "contact updated", contact)


def enter_journey(session: Session, errand: EffectRequest) -> EffectResult:
    """Enter the contact into the newest version of another journey of the brand, if that journey lets them in."""
    effect: EnterJourney = errand.effect
    data = plain(effect.data)
    result = enter_from(session, errand.row, errand.person.contact, effect.key, effect.step_id, data, errand.now)
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


# --- outside, with no transaction open -------------------------------------------------------------------------------------------------

Results = list[EffectResult | Exception]


async def call_webhooks(outside: Integrations, errands: Sequence[EffectRequest]) -> Results:
    """Call each member's webhook; one result each, in their order."""
    answers = await asyncio.gather(*(_call_webhook(outside.webhooks, errand) for errand in errands), return_exceptions=True)
    return [_raised(answer) if isinstance(answer, BaseException) else answer for answer in answers]


def _raised(error: BaseException) -> Exception:
    """Return what one member's effect raised; what ends the whole process is raised on."""
    if not isinstance(error, Exception):
        raise error
    return error


async def _call_webhook(webhooks: Webhooks, errand: EffectRequest) -> EffectResult:
    effect: CallWebhook = errand.effect
    call = WebhookCall(
        url=effect.url,
        method=effect.method,
        idempotency_key=errand.key,
        headers=effect.headers,
        body=None if effect.body is None else plain(effect.body),
        secret=effect.secret,
        timeout_seconds=effect.timeout_seconds,
    )
    try:
        answer = await webhooks.call(call)
    except (TemporaryDeliveryError, PermanentDeliveryError) as error:
        return _webhook_result(effect, WebhookAnswer(0), error)
    return _webhook_result(effect, answer)


def _webhook_result(effect: CallWebhook, answer: WebhookAnswer, error: DeliveryError | None = None) -> EffectResult:
    said = f"status_{answer.status}" if error is None else error.code or "no_answer"
    may_pass = answer.may_pass if error is None else isinstance(error, TemporaryDeliveryError)
    end = End(Outcome.failed, f"webhook {effect.step_id}: {said}") if not answer.ok and effect.if_fails == "end" else None
    return EffectResult(
        move=TimelineKind.passed,
        detail={"status": answer.status, "ok": answer.ok, "said": said},
        text=said,
        answer={"status": answer.status, "ok": answer.ok, "data": answer.data},
        end=end,
        failed=not answer.ok,
        later=said if may_pass else "",
    )


async def change_audiences(outside: Integrations, errands: Sequence[EffectRequest]) -> Results:
    """Change each audience once for all members; one result each, in their order."""
    audiences = list(dict.fromkeys((errand.person.brand.key, errand.effect.audience) for errand in errands))
    failures = dict(zip(audiences, await asyncio.gather(*(_change_audience(outside, errands, *each) for each in audiences)), strict=True))
    return [failures[errand.person.brand.key, errand.effect.audience] or _audience_result(errand.effect) for errand in errands]


async def _change_audience(outside: Integrations, errands: Sequence[EffectRequest], brand: str, audience: str) -> Exception | None:
    changes = [
        AudienceChange(AudienceAction(errand.effect.action), member, errand.key)
        for errand in errands
        if (errand.person.brand.key, errand.effect.audience) == (brand, audience)
        and (member := Member.of(errand.person.contact.email, errand.person.contact.phone)).key
    ]
    try:
        if changes:
            await outside.audiences.change(brand, audience, changes)
    except Exception as error:  # tried again with each of these members, and shown at them
        return error
    return None


def _audience_result(effect: ChangeAudience) -> EffectResult:
    return EffectResult(TimelineKind.passed, {"audience": effect.audience, "action": effect.action}, f"{effect.action}: {effect.audience}")


EXTERNAL: dict[type, Callable[[Integrations, Sequence[EffectRequest]], Awaitable[Results]]] = {
    CallWebhook: call_webhooks,
    ChangeAudience: change_audiences,
}
