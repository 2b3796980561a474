"""What a wait may say: the model of the `wait` field, with its forms."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from distmark.journeys.expressions import Expression
from distmark.journeys.field_types import DateOf, Identifier, Name
from distmark.journeys.fields import DefinitionPart, problem
from distmark.journeys.times import Days, Duration, Holidays, Offset, TimeOfDay

BEST_TIME = "best_time"
LONGEST_BEST_TIME = timedelta(days=7)
ENGAGEMENT_EVENTS = ("opened", "clicked", "replied")


def _read_until(value: object) -> TimeOfDay | str:
    return BEST_TIME if value == BEST_TIME else TimeOfDay.read(value)


Until = Annotated[
    TimeOfDay | str,
    PlainValidator(_read_until),
    WithJsonSchema({"anyOf": [{"const": BEST_TIME}, TimeOfDay.described()]}),
]

# What may stand beside the field that starts each form of wait.
FORMS: Mapping[str, frozenset[str]] = {
    "event": frozenset({"where", "of", "link", "since", "timeout", "on_timeout"}),
    "when": frozenset({"timeout", "on_timeout"}),
    "on": frozenset({"offset", "at", "every", "days", "holidays", "if_missing"}),
    "for": frozenset({"until", "days", "holidays"}),
    "until": frozenset({"days", "holidays", "within"}),
}


class Wait(DefinitionPart):
    """How long to wait. Exactly one of `for`, `until`, `on`, `event` and `when` leads; `for` may be followed by `until`."""

    for_: Duration | None = Field(None, alias="for", description="A duration: minutes and hours elapse, days and longer are calendar.")
    until: Until | None = Field(None, description="A time of day in the contact's zone, or best_time.")
    days: Days | None = Field(None, description="Days of the week on which the wait may end.")
    holidays: Holidays | None = Field(None, description="A country on whose public holidays the wait does not end.")
    on: DateOf | None = Field(None, description="A day, or an attribute that holds one.")
    at: TimeOfDay | None = Field(None, description="The time on that day; 00:00 when left out.")
    offset: Offset | None = Field(None, description="How long before (-) or after that day.")
    every: Literal["year"] | None = Field(None, description="The next anniversary instead of the day itself.")
    if_missing: Literal["exit", "go_on"] = Field("exit", description="What to do for a contact without that date.")
    event: Identifier | None = Field(None, description="A custom event, or opened, clicked or replied with `of`.")
    where: Expression | None = Field(None, description="Which of these events count; `event` is the event.")
    of: Name | None = Field(None, description="The send step whose engagement is awaited.")
    link: Name | None = Field(None, description="The link that must be clicked.")
    since: Literal["entry", "arrival"] = Field("entry", description="From when on events count; on later visits always from arrival.")
    when: Expression | None = Field(None, description="A condition to wait for.")
    timeout: Duration | None = Field(None, description="How long to wait at most.")
    on_timeout: Name | None = Field(None, description="Where to go when the time is up; the step after when left out.")
    within: Duration | None = Field(None, description="How far the best time may be; at most 7 days.")

    @model_validator(mode="after")
    def _is_one_form(self) -> Self:
        given = {name.rstrip("_") for name in self.model_fields_set}
        leading = next((form for form in FORMS if form in given), None)
        if leading is None:
            raise _bad("it has none of for, until, on, event and when", "for・until・on・event・when のどれもありません")
        odd = sorted(given - FORMS[leading] - {leading})
        if odd:
            raise _bad(f'"{odd[0]}" does not go with "{leading}"', f"「{odd[0]}」は「{leading}」と一緒に使えません")
        self._check_details()
        return self

    def _check_details(self) -> None:
        if self.for_ is not None and self.for_.is_zero:
            raise problem("no-duration")
        if self.timeout is not None and self.timeout.is_zero:
            raise problem("no-duration")
        if self.on_timeout and self.timeout is None:
            raise _bad("on_timeout needs a timeout", "on_timeout には timeout が必要です")
        if (self.event in ENGAGEMENT_EVENTS) != (self.of is not None):
            raise _bad("of goes with opened, clicked or replied, and they need it", "of は opened・clicked・replied と一緒に使います")
        if self.link and self.event != "clicked":
            raise _bad("link goes with clicked", "link は clicked と一緒に使います")
        self._check_best_time()

    def _check_best_time(self) -> None:
        best = self.until == BEST_TIME
        if best != (self.within is not None):
            raise _bad("until: best_time and within go together", "until: best_time と within は一緒に使います")
        if best and (self.for_ or self.days or self.holidays):
            raise _bad("best_time goes with within only", "best_time と一緒に使えるのは within だけです")
        if self.within is not None and not timedelta() < self.within.least <= LONGEST_BEST_TIME:
            raise _bad("within is at most 7 days", "within は 7 日以内です")


def _bad(reason: str, reason_ja: str) -> Exception:
    return problem("bad-wait", reason=reason, reason_ja=reason_ja)
