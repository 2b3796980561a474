"""Call an address of the brand's own systems; later steps may read the answer."""

from typing import Annotated, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from distmark.journeys.expressions import Text, namespace
from distmark.journeys.field_types import Name
from distmark.journeys.fields import DefinitionPart, problem
from distmark.journeys.model import Act, CallWebhook, Decision, StepVisit
from distmark.journeys.steps.base import Step, StepKind
from distmark.journeys.steps.update import Value, filled


def _has_fixed_host(url: Text) -> Text:
    # A contact's data may fill the path or the query, never choose the machine that is called.
    parts = urlsplit(url.text)
    if parts.scheme not in ("https", "http") or not parts.netloc or "{" in parts.netloc:
        raise problem("bad-url", value=url.text)
    return url


class Webhook(DefinitionPart):
    """What to call and how."""

    url: Annotated[Text, AfterValidator(_has_fixed_host)] = Field(description="http(s) address; slots may fill path and query.")
    method: Literal["POST", "PUT", "GET", "DELETE"] = "POST"
    headers: dict[str, Text] = Field(default_factory=dict)
    body: dict[str, Value] | None = Field(None, description="Sent as JSON.")
    secret: Name | None = Field(None, description="The name of the key that signs the call.")
    timeout_seconds: int = Field(10, ge=1, le=60)
    if_fails: Literal["go_on", "end"] = Field("go_on", description="What a final failure does to the enrollment.")


class WebhookStep(Step):
    """Call and go on; `answer('<id>')` reads what came back."""

    kind: ClassVar[str] = "webhook"

    webhook: Webhook


def decide(step: WebhookStep, visit: StepVisit) -> Decision:
    """Return the call with its slots filled."""
    hook, names = step.webhook, namespace(visit.facts, visit.now, visit.zone)
    headers = {name: text.render(names) for name, text in hook.headers.items()}
    body = None if hook.body is None else {field: filled(value, names) for field, value in hook.body.items()}
    return Act(CallWebhook(step.id, hook.url.render(names), hook.method, headers, body, hook.secret, hook.timeout_seconds, hook.if_fails))


def describe(step: WebhookStep, lang: str) -> tuple[str, str]:
    """Return a title and a second line in `lang`."""
    return ("外部システムを呼ぶ" if lang == "ja" else "Call a webhook"), f"{step.webhook.method} {step.webhook.url}"


KIND = StepKind("webhook", WebhookStep, decide, describe, {"ja": "Webhook", "en": "Webhook"}, "webhook", "#475569")
