"""Who may enter a journey, and when: how an entry is written, and the pure rule for coming back."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self
from zoneinfo import ZoneInfo

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from distmark.journeys.expressions import Expression
from distmark.journeys.field_types import Cap, DateOf, Identifier, Name
from distmark.journeys.fields import DefinitionPart, problem
from distmark.journeys.times import Duration, Offset, TimeOfDay, add

# What may stand beside the field that starts each form of entry.
FORMS = {"event": {"where"}, "segment": {"every"}, "date": {"offset", "every", "at"}}
ALWAYS = {"reentry", "cooldown", "filter", "cap", "on"}


def _read_every(value: object) -> Duration | str:
    return "year" if value == "year" else Duration.read(value)


Every = Annotated[Duration | str, PlainValidator(_read_every), WithJsonSchema({"anyOf": [{"const": "year"}, Duration.described()]})]


class Reentry(StrEnum):
    """Whether a contact who was in the journey may enter again."""

    never = "never"
    after_exit = "after_exit"
    any_time = "any_time"


class EntrySource(StrEnum):
    """What brings contacts in."""

    campaign = "campaign"
    event = "event"
    segment = "segment"
    date = "date"
    api = "api"


class Entry(DefinitionPart):
    """How contacts enter. Without `event`, `segment` or `date` it is by campaign, or `on: api`."""

    reentry: Reentry = Field(Reentry.after_exit, description="never, after_exit or any_time.")
    cooldown: Duration | None = Field(None, description="How long after leaving a contact may not enter again.")
    on: EntrySource | None = Field(None, description="What brings contacts in; told by the other fields when left out.")
    event: Identifier | None = Field(None, description="A custom event that enters the contact.")
    where: Expression | None = Field(None, description="Which of these events count; `event` is the event.")
    segment: Name | None = Field(None, description="A segment whose members enter.")
    date: DateOf | None = Field(None, description="An attribute with a date, such as contact.renewal_date.")
    offset: Offset | None = Field(None, description="How long before (-) or after that date.")
    at: TimeOfDay | None = Field(None, description="The time on that day.")
    every: Every | None = Field(None, description="How often the segment is read, or `year` for anniversaries.")
    filter: Expression | None = Field(None, description="Only contacts for whom this is true enter.")
    cap: Cap | None = Field(None, description="How many may enter in a period.")

    @model_validator(mode="after")
    def _is_one_form(self) -> Self:
        given = set(self.model_fields_set)
        leading = [form for form in FORMS if form in given]
        if len(leading) > 1:
            raise _bad(f"{leading[0]} and {leading[1]} do not go together", f"{leading[0]} と {leading[1]} は一緒に使えません")
        allowed = ALWAYS | set(leading) | (FORMS[leading[0]] if leading else set())
        if odd := sorted(given - allowed):
            raise _bad(f'"{odd[0]}" does not go with {self.source}', f"「{odd[0]}」は {self.source} と一緒に使えません")
        self._check_source(leading)
        return self

    def _check_source(self, leading: list[str]) -> None:
        needed = self.on in (EntrySource.event, EntrySource.segment, EntrySource.date)
        if self.on is not None and ((leading and leading[0] != self.on) or (needed and not leading)):
            raise _bad(f"on: {self.on} needs the field {self.on}", f"on: {self.on} には項目 {self.on} が必要です")
        if self.every == "year" and self.segment is not None:
            raise _bad("every: year goes with date", "every: year は date と一緒に使います")
        if self.date is not None and isinstance(self.every, Duration):
            raise _bad("a date comes every year or once", "date の every は year だけです")

    @property
    def source(self) -> EntrySource:
        """What brings contacts in."""
        if self.on is not None:
            return self.on
        return next((EntrySource(form) for form in FORMS if getattr(self, form) is not None), EntrySource.campaign)


def _bad(reason: str, reason_ja: str) -> Exception:
    return problem("bad-entry", reason=reason, reason_ja=reason_ja)


class Admission(StrEnum):
    """What the rule for coming back says."""

    admitted = "admitted"
    inside = "inside"
    been_before = "been_before"
    cooling_down = "cooling_down"


@dataclass(frozen=True, slots=True)
class Admitted:
    """The answer to "may she enter?"; `again_at` is when a contact who is cooling down may (aware UTC)."""

    admission: Admission
    again_at: datetime | None = None


def admit(entry: Entry, *, inside: bool, last_left_at: datetime | None, now: datetime, zone: ZoneInfo) -> Admitted:
    """Return whether a contact may enter, given whether she is inside and when she last left (None: never was in)."""
    if inside and entry.reentry is not Reentry.any_time:
        return Admitted(Admission.inside)
    if last_left_at is None:
        return Admitted(Admission.admitted)
    if entry.reentry is Reentry.never:
        return Admitted(Admission.been_before)
    again_at = add(last_left_at, entry.cooldown, zone) if entry.cooldown is not None else last_left_at
    return Admitted(Admission.admitted) if now >= again_at else Admitted(Admission.cooling_down, again_at)
