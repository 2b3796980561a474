"""A journey as written: the model of journey.yaml, and the reading of it with the line of every mistake."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, Field, PlainValidator, ValidationError, WithJsonSchema, model_validator
from pydantic_core import ErrorDetails

from distmark.journeys.entry import Entry
from distmark.journeys.expressions import Expression, Text
from distmark.journeys.field_types import Cap, Identifier, Name, Percent, Words
from distmark.journeys.fields import DefinitionPart, Written, problem
from distmark.journeys.findings import MESSAGES, DefinitionError, Finding, closest, finding
from distmark.journeys.model import IfHeld, Priority
from distmark.journeys.positions import Document, read_yaml
from distmark.journeys.positions import Path as Place
from distmark.journeys.source import Source
from distmark.journeys.steps import KINDS, Defaults, Step, Steps
from distmark.journeys.times import Days, Holidays, SendHours, Window

BUILT_IN: Mapping[str, Mapping[str, str]] = {
    "contact": {
        "first_name": "text", "last_name": "text", "full_name": "text", "greeting": "text", "email": "text", "phone": "text",
        "language": "text", "zone": "text", "company": "text", "city": "text", "birthday": "date",
    },
    "partner": {
        "name": "text", "title": "text", "phone": "text", "email": "text", "code": "text", "office": "text", "city": "text",
        "language": "text",
    },
    "brand": {"name": "text", "legal_name": "text", "address": "text", "contact": "text", "website": "text"},
    "campaign": {"name": "text", "key": "text"},
    "journey": {},
}  # fmt: skip
BUILT_IN_EVENTS = ("task_done",)
CAPS: Mapping[str, tuple[Cap, ...]] = {"marketing": (Cap.read("3 per week"),), "none": ()}
LINK_SCHEMES = ("https://", "http://", "mailto:", "tel:")
BLOCK_LENGTH = {"text": 300, "rich": 5_000, "image": 2_000}


class FieldType(StrEnum):
    """What an attribute holds."""

    text = "text"
    number = "number"
    bool = "bool"
    date = "date"


class Kind(StrEnum):
    """What the law calls the messages of a journey."""

    marketing = "marketing"
    transactional = "transactional"


@dataclass(frozen=True, slots=True)
class Caps(Written):
    """How many messages a contact may get: the name of a policy, or limits of the journey's own."""

    limits: tuple[Cap, ...]
    name: str = ""

    @classmethod
    def read(cls, value: object) -> Self:
        """Return the caps written as `marketing`, `none`, "2 per week" or a list of such limits."""
        if isinstance(value, str) and value in CAPS:
            return cls(CAPS[value], value)
        if isinstance(value, str) and " " not in value.strip():
            near = closest(value, list(CAPS))
            raise problem("bad-choice", value=value, allowed=", ".join(CAPS), **({"suggestion": near} if near else {}))
        return cls(tuple(Cap.read(item) for item in (value if isinstance(value, list) else [value])))

    @classmethod
    def described(cls) -> dict[str, Any]:
        return {"anyOf": [{"enum": list(CAPS)}, Cap.described(), {"type": "array", "items": Cap.described()}]}

    def __str__(self) -> str:
        return self.name or ", ".join(str(limit) for limit in self.limits)


def _read_link(value: object) -> str:
    text = Text.read(value).text
    if not text.startswith(LINK_SCHEMES):
        raise problem("bad-url", value=text)
    return text


Link = Annotated[str, PlainValidator(_read_link), WithJsonSchema({"type": "string", "pattern": "^(https?://|mailto:|tel:)"})]


def _at_least_one(values: tuple[Any, ...]) -> tuple[Any, ...]:
    # pydantic's own min_length complains of an empty list too when the items in it could not be read.
    if not values:
        raise problem("empty-list")
    return values


AT_LEAST_ONE = AfterValidator(_at_least_one)


class SendPolicy(DefinitionPart):
    """When messages may be sent, and how many."""

    quiet_hours: Window | None = Field(None, description="Hours in which nothing is sent, on the contact's clock.")
    days: Days | None = Field(None, description="Days on which messages are sent.")
    holidays: Holidays | None = Field(None, description="A country on whose public holidays nothing is sent.")
    caps: Caps = Field(Caps.read("marketing"), description="marketing (3 per week), none, or caps such as 2 per week.")
    priority: Priority = Field(
        Priority.normal, description="Whose message goes first when a cap leaves room for one of them: high before normal before low."
    )
    if_held: IfHeld = Field(IfHeld.hold, description="What a held message does: hold or skip.")

    @property
    def hours(self) -> SendHours:
        """When messages may be sent at all."""
        return SendHours(self.quiet_hours, self.days, self.holidays)


class Goal(DefinitionPart):
    """What the journey is for: whoever reaches it leaves at once."""

    when: Expression
    target: Percent | None = None
    name: Words | None = None


class Exit(DefinitionPart):
    """When a contact leaves at once, and why."""

    when: Expression
    reason: Words


class Block(DefinitionPart):
    """A region of the messages that a partner may change."""

    label: Words
    kind: Literal["text", "rich", "image"] = "text"
    max_length: int = Field(0, ge=0, le=20_000, description="The longest text in characters; by kind when left out.")
    default: Words = Field(Words.read(""), description="What is shown when the partner changes nothing.")
    hint: Words | None = None

    @property
    def longest(self) -> int:
        """How many characters the block may have."""
        return self.max_length or BLOCK_LENGTH[self.kind]


class JourneyDefinition(DefinitionPart):
    """A whole journey, as its file says it."""

    key: Name = Field(description="The name of the journey in addresses and files.")
    name: Words
    description: Words | None = Field(None, description="When a partner should pick it.")
    brand: Name
    languages: Annotated[tuple[Annotated[str, Field(pattern=r"^[a-z]{2}(-[A-Z]{2})?$")], ...], AT_LEAST_ONE] = Field(
        ("ja", "en"), json_schema_extra={"minItems": 1}
    )
    kind: Kind = Kind.marketing
    entry: Entry = Field(default_factory=lambda: Entry.model_validate({}))
    goal: Goal | None = None
    exit: tuple[Exit, ...] = ()
    send_policy: SendPolicy = Field(default_factory=lambda: SendPolicy.model_validate({}))
    contact_fields: dict[Identifier, FieldType] = Field(default_factory=dict, description="Attributes of contacts that the journey reads.")
    journey_fields: dict[Identifier, FieldType] = Field(default_factory=dict, description="Data frozen when a contact enters.")
    events: tuple[Identifier, ...] = Field((), description="Custom events that the journey reads.")
    event_names: dict[Identifier, Words] = Field(default_factory=dict, description="What people call these events.")
    links: dict[Identifier, Link] = Field(default_factory=dict, description="Named links, as {{ links.NAME }} in templates.")
    blocks: dict[Identifier, Block] = Field(default_factory=dict)
    steps: Annotated[Steps, AT_LEAST_ONE] = Field(json_schema_extra={"minItems": 1})

    def all_steps(self) -> Iterator[Step]:
        """Iterate over all steps, nested ones included, in document order."""
        return all_steps(self.steps)

    @model_validator(mode="after")
    def _has_unique_ids(self) -> Self:
        seen: set[str] = set()
        for step in self.all_steps():
            if step.id in seen:
                raise problem("double-id", value=step.id)
            seen.add(step.id)
        return self

    @property
    def defaults(self) -> Defaults:
        """What steps take over that say nothing themselves."""
        return Defaults(self.kind is Kind.transactional, self.send_policy.if_held)

    def attributes(self, root: str) -> Mapping[str, str]:
        """Return name and type of every attribute of `root` ("contact", "journey", "partner", ...) that the journey may read."""
        declared = {"contact": self.contact_fields, "journey": self.journey_fields}.get(root, {})
        return {**BUILT_IN[root], **{name: str(kind) for name, kind in declared.items()}}


def all_steps(steps: tuple[Step, ...]) -> Iterator[Step]:
    """Iterate over `steps` and all steps inside them, in document order."""
    for step in steps:
        yield step
        for path in step.paths():
            yield from all_steps(path.steps)


def parse(source: Source) -> JourneyDefinition:
    """Return the journey that `source` writes; raises DefinitionError with every mistake that reading finds."""
    return read_definition(source)[0]


def read_definition(source: Source) -> tuple[JourneyDefinition, Document]:
    """Return the journey with the positions of its parts; raises DefinitionError."""
    document = read_yaml(source.definition, source.file)
    if not isinstance(document.data, dict):
        raise DefinitionError([finding("not-a-mapping", source.file, 1)])
    try:
        return JourneyDefinition.model_validate(document.data), document
    except ValidationError as error:
        raise DefinitionError(findings_of(error, document, source.file)) from error


def findings_of(error: ValidationError, document: Document, file: str) -> list[Finding]:
    """Return what pydantic found as findings with lines, in file order."""
    found = [_finding_of(details, document, file) for details in error.errors(include_url=False)]
    return sorted((item for number, item in enumerate(found) if item not in found[:number]), key=lambda item: (item.line, item.field or ""))


def _finding_of(details: ErrorDetails, document: Document, file: str) -> Finding:
    place = tuple(part for part in details["loc"] if part != "[key]")
    values = {name: str(value) for name, value in details.get("ctx", {}).items()}
    code, texts = _worded(details, values, place)
    suggestion = values.get("suggestion")
    if code == "double-id":
        place = _second_use(document, values["value"]) or place
    if code == "unknown-field":
        allowed = fields_at(document.data, place[:-1])
        suggestion, texts = closest(str(place[-1]), allowed), {**texts, "allowed": ", ".join(allowed)}
    is_key = code in ("unknown-field",) or "[key]" in details["loc"]
    line = document.key_line(place) if is_key else document.line(place)
    step, field = step_and_field(document, place)
    return finding(code, file, line, step=step, field=field or values.get("field"), suggestion=suggestion, **texts)


PYDANTIC_WORDS: Mapping[str, tuple[str, str]] = {
    "string_type": ("a text in quotes", "引用符で囲んだ文字列"),
    "int_type": ("a whole number", "整数"),
    "int_parsing": ("a whole number", "整数"),
    "int_from_float": ("a whole number", "整数"),
    "float_type": ("a number", "数"),
    "bool_type": ("true or false", "true か false"),
    "bool_parsing": ("true or false", "true か false"),
    "dict_type": ("a group of fields", "項目のまとまり"),
    "model_type": ("a group of fields", "項目のまとまり"),
    "model_attributes_type": ("a group of fields", "項目のまとまり"),
    "tuple_type": ("a list", "一覧（リスト）"),
    "list_type": ("a list", "一覧（リスト）"),
    "too_short": ("not empty", "空でない値"),
    "greater_than_equal": ("at least {ge}", "{ge} 以上"),
    "less_than_equal": ("at most {le}", "{le} 以下"),
    "string_pattern_mismatch": ("a language such as ja, en or pt-BR", "ja・en・pt-BR のような言語"),
}


def _worded(details: ErrorDetails, values: dict[str, str], place: Place) -> tuple[str, dict[str, str]]:
    kind, value = details["type"], str(details.get("input"))
    if kind in MESSAGES:
        return kind, {name: text for name, text in values.items() if name not in ("code", "values", "suggestion", "field")}
    if kind == "missing":
        return "missing-field", {"name": str(place[-1])}
    if kind == "extra_forbidden":
        return "unknown-field", {"name": str(place[-1])}
    if kind in ("literal_error", "enum"):
        allowed = values["expected"].replace("'", "").replace(" or ", ", ")
        near = closest(value, allowed.split(", "))
        values.update({"suggestion": near} if near else {})
        return "bad-choice", {"value": value, "allowed": allowed}
    expected, expected_ja = PYDANTIC_WORDS.get(kind, (details["msg"], "正しい値"))
    return "bad-value", {"value": value[:80], "expected": expected.format(**values), "expected_ja": expected_ja.format(**values)}


def _at(data: Any, place: Place) -> Any:
    for part in place:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def step_and_field(document: Document, place: Place) -> tuple[str | None, str | None]:
    """Return the id of the innermost step around `place`, and the field below it, dotted."""
    for end in range(len(place), 0, -1):
        if isinstance(place[end - 1], int) and end >= 2 and place[end - 2] == "steps":
            here = _at(document.data, place[:end])
            step = here.get("id") if isinstance(here, dict) else None
            return (str(step) if step is not None else None), ".".join(str(part) for part in place[end:]) or None
    return None, ".".join(str(part) for part in place) or None


def _second_use(document: Document, step_id: str) -> Place | None:
    uses = [place for place in document.lines if place[-1:] == ("id",) and _at(document.data, place) == step_id]
    return sorted(uses, key=document.line)[1] if len(uses) > 1 else None


def fields_at(data: Any, place: Place) -> list[str]:
    """Return the fields that a journey file may have at `place`."""
    models: list[type[BaseModel]] = [JourneyDefinition]
    for number, part in enumerate(place):
        models = list(_below(models, part, _at(data, place[: number + 1])))
    names = [field.alias or name for model in models for name, field in model.model_fields.items()]
    return list(dict.fromkeys(names))


def _below(models: list[type[BaseModel]], part: str | int, value: Any) -> Iterator[type[BaseModel]]:
    if isinstance(part, int) or (models and not any(_field_named(model, part) for model in models)):
        yield from _of_kind(models, value)
        return
    for model in models:
        if annotation := _field_named(model, str(part)):
            yield from _of_kind(list(_models_in(annotation)), value)


def _of_kind(models: list[type[BaseModel]], value: Any) -> Iterator[type[BaseModel]]:
    for model in models:
        kind = next((key for key in KINDS if isinstance(value, dict) and key in value), None)
        if model is not Step:
            yield model
        elif kind is not None:
            yield KINDS[kind].model
        elif isinstance(value, list):
            yield model


def _field_named(model: type[BaseModel], name: str) -> Any:
    return next((field.annotation for key, field in model.model_fields.items() if (field.alias or key) == name), None)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for inner in get_args(annotation):
        yield from _models_in(inner)
