"""The context of every check: the journey, its program, and the place of each step and field in the file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel

from distmark.journeys.definition import JourneyDefinition
from distmark.journeys.expressions import Expression, Text, Texts
from distmark.journeys.findings import Finding, finding
from distmark.journeys.positions import Document
from distmark.journeys.positions import Path as Place
from distmark.journeys.program import Program
from distmark.journeys.source import Source
from distmark.journeys.steps import Step
from distmark.journeys.steps.send import SendStep

Readable = Expression | Text


@dataclass(frozen=True, slots=True)
class Checked:
    """A journey under check. `places` maps step id to the step's place in the document; `now` is for waits in the past, when known."""

    source: Source
    definition: JourneyDefinition
    document: Document
    program: Program
    places: Mapping[str, Place]
    now: datetime | None = None

    def finding(
        self, code: str, step: str | None, place: Place, *, suggestion: str | None = None, key: bool = False, **values: str
    ) -> Finding:
        """Return a finding in the definition's file, at `place` inside `step`, or inside the document when `step` is None."""
        full = (*self.places[step], *place) if step is not None else place
        line = self.document.key_line(full) if key else self.document.line(full)
        field = ".".join(str(part) for part in place) or None
        return finding(code, self.source.file, line, step=step, field=field, suggestion=suggestion, **values)

    def sends(self) -> Iterator[SendStep]:
        """Iterate over the send steps, in document order."""
        return (step for step in self.program.steps.values() if isinstance(step, SendStep))


def places_of(document: Document) -> dict[str, Place]:
    """Return the place of each step in the document, by id."""
    places: dict[str, Place] = {}
    _collect(document.data, (), places)
    return places


def _collect(data: object, place: Place, places: dict[str, Place]) -> None:
    if isinstance(data, Mapping):
        for key, value in data.items():
            _collect(value, (*place, key), places)
    elif isinstance(data, list):
        for number, value in enumerate(data):
            if place[-1:] == ("steps",) and isinstance(value, Mapping) and "id" in value:
                places.setdefault(str(value["id"]), (*place, number))
            _collect(value, (*place, number), places)


def readables(value: object, place: Place = ()) -> Iterator[tuple[Place, Readable]]:
    """Iterate over the expressions and texts below `value` with their places; steps inside a step are left to themselves."""
    if isinstance(value, Expression | Text):
        yield place, value
    elif isinstance(value, Texts):
        for lang, text in value.texts.items():
            yield ((*place, lang) if lang else place), text
    elif isinstance(value, BaseModel) and (not place or not isinstance(value, Step)):
        for name, field in type(value).model_fields.items():
            yield from readables(getattr(value, name), (*place, field.alias or name))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from readables(inner, (*place, str(key)))
    elif isinstance(value, tuple):
        for number, inner in enumerate(value):
            yield from readables(inner, (*place, number))


def all_readables(checked: Checked) -> Iterator[tuple[str | None, Place, Readable]]:
    """Iterate over all expressions and texts of the journey with their steps (None: at the top) and places."""
    definition = checked.definition
    for root, part in (("goal", definition.goal), ("exit", definition.exit), ("entry", definition.entry)):
        yield from ((None, place, readable) for place, readable in readables(part, (root,)))
    for step in checked.program.steps.values():
        yield from ((step.id, place, readable) for place, readable in readables(step))
