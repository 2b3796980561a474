"""The values of a rendered message, and the errors that name a template, a language and a slot. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from jinja2 import Template

from distmark.errors import InvalidInput, Refused

MAX_TEMPLATE_CHARACTERS = 60_000
MAX_OUTPUT_CHARACTERS = 500_000
# Gmail clips a message above 102 KB of HTML and takes footer and pixel with it.
MAX_HTML_BYTES = 100_000


class TemplateRefused(InvalidInput):
    """A template cannot be compiled; `template` is its file name and `line` the line in it (1 is the first), when known."""

    def __init__(self, template: str, line: int | None, problem: str) -> None:
        self.template = template
        self.line = line
        super().__init__(f"{template}, line {line}: {problem}" if line else f"{template}: {problem}")


class RenderError(Refused):
    """A message cannot be rendered for this person; `slot` names the value that is missing or wrong, when one is to blame."""

    def __init__(self, message: str, lang: str, slot: str, problem: str) -> None:
        self.message = message
        self.lang = lang
        self.slot = slot
        super().__init__(f"Message {message} ({lang}): {slot} {problem}")


class BlockKind(StrEnum):
    TEXT = "text"
    RICH = "rich"
    IMAGE = "image"


class Layer(StrEnum):
    """The layer from which a block's value comes; a later layer wins."""

    JOURNEY = "journey"
    BRAND = "brand"
    CAMPAIGN = "campaign"
    GROUP = "group"
    MEMBER = "member"


@dataclass(frozen=True, slots=True)
class BlockValue:
    """The value of one editable block for one person, and the layer from which it comes."""

    value: str
    layer: Layer = Layer.JOURNEY
    kind: BlockKind = BlockKind.TEXT


@dataclass(frozen=True, slots=True)
class CompiledMessage:
    """One message in one language, ready to be rendered many times. `link_targets` maps each link's name to its URL template."""

    message: str
    lang: str
    channel: str
    subject: Template | None
    text: Template
    html: Template | None
    link_targets: Mapping[str, "UrlTemplate"]
    blocks: frozenset[str]
    names: frozenset[str]
    "The dotted names that the templates read, such as `contact.first_name`."


@dataclass(frozen=True, slots=True)
class UrlTemplate:
    """A link's target: literal parts and expressions in turn; `source` is what the author wrote."""

    source: str
    parts: tuple[str | Callable[..., object], ...]


@dataclass(frozen=True, slots=True)
class RenderContext:
    """Everything that one rendering reads.

    `tracked` gives the public URL for a link's name; without it links show their targets (previews). `unsubscribe_url` is None only
    where nothing may be refused (transactional mail). `why` says in one sentence why the person gets this; without it a general
    sentence is used.
    """

    lang: str
    contact: Mapping[str, object]
    partner: Mapping[str, object]
    brand: Mapping[str, object]
    campaign: Mapping[str, object] = field(default_factory=dict)
    journey: Mapping[str, object] = field(default_factory=dict)
    blocks: Mapping[str, BlockValue] = field(default_factory=dict)
    tracked: Callable[[str], str] | None = None
    unsubscribe_url: str | None = None
    pixel_url: str | None = None
    mark_blocks: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class RenderedMessage:
    """One person's message. `subject` and `html` are empty on channels without them; `link_targets` maps names to real URLs."""

    subject: str
    text: str
    html: str
    link_targets: Mapping[str, str]

    @property
    def html_bytes(self) -> int:
        """The size of the HTML part in bytes of UTF-8, before any transfer encoding."""
        return len(self.html.encode())

    @property
    def is_too_large(self) -> bool:
        """Return whether a mailbox provider would clip the message, and its footer with it."""
        return self.html_bytes > MAX_HTML_BYTES
