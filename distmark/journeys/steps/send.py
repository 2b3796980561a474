"""Send a message through a channel."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from distmark.channels.registry import CHANNELS
from distmark.journeys.field_types import Identifier, Name
from distmark.journeys.fields import problem
from distmark.journeys.findings import closest
from distmark.journeys.model import Act, Decision, IfHeld, SendMessage, StepVisit
from distmark.journeys.steps.base import Defaults, Step, StepKind
from distmark.journeys.wording import listed


def _known(value: str) -> str:
    if value not in CHANNELS:
        near = closest(value, CHANNELS)
        raise problem("bad-choice", value=value, allowed=", ".join(CHANNELS), **({"suggestion": near} if near else {}))
    return value


class _OfRegistry:
    """The JSON Schema of a channel's name: the channels of the registry."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "enum": list(CHANNELS)}


ChannelName = Annotated[str, AfterValidator(_known), _OfRegistry]


class SendStep(Step):
    """Send `message`; `editable` are the blocks that the partner may change."""

    kind: ClassVar[str] = "send"

    send: ChannelName = Field(description="The channel.")
    message: Name = Field(description="The name of the files below messages/.")
    editable: tuple[Identifier, ...] = Field((), description="Blocks that the partner may change; all else is locked.")
    if_held: IfHeld | None = Field(None, description="What to do when quiet hours, a cap or a throttle hold the message.")
    purpose: Literal["marketing", "transactional"] | None = Field(
        None, alias="kind", description="Transactional passes caps and quiet hours."
    )

    @property
    def time_inputs(self) -> frozenset[str]:
        # Quiet hours, days and caps hold a message until a time on the contact's clock.
        return frozenset({"zone"})

    @property
    def parts(self) -> tuple[str, ...]:
        """The template files that the channel needs, in each language."""
        return CHANNELS[self.send].parts

    def settled(self, defaults: Defaults) -> Self:
        purpose = self.purpose or ("transactional" if defaults.transactional else "marketing")
        return self.model_copy(update={"purpose": purpose, "if_held": self.if_held or defaults.if_held})


def decide(step: SendStep, visit: StepVisit) -> Decision:
    """Return the message to send."""
    return Act(SendMessage(step.id, step.send, step.message, step.editable, step.if_held, step.purpose == "transactional"))


def describe(step: SendStep, lang: str) -> tuple[str, str]:
    """Return a title and a second line in `lang`."""
    channel = CHANNELS[step.send].labels[lang]
    title = f"{step.message} {channel}" if lang == "ja" else f"{channel}: {step.message}"
    notes = []
    if step.editable:
        count = len(step.editable)
        notes.append(f"差し込み {count} か所" if lang == "ja" else f"{count} editable {'block' if count == 1 else 'blocks'}")
    if step.purpose == "transactional":
        notes.append("取引メッセージ" if lang == "ja" else "transactional")
    if step.if_held == "skip":
        notes.append("送れない時は飛ばす" if lang == "ja" else "skipped when held")
    return title, listed(notes, lang)


KIND = StepKind("send", SendStep, decide, describe, {"ja": "送信", "en": "Send"}, "mail", "#0b6e69")
