"""The changes between two versions of a journey: fields, steps, and templates line by line."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher, unified_diff
from enum import StrEnum

from distmark.journeys.checks.context import places_of
from distmark.journeys.definition import read_definition
from distmark.journeys.positions import Path as Place
from distmark.journeys.program import build_program
from distmark.journeys.source import Source

CONTEXT_LINES = 3
_HUNK = re.compile(r"@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@")


class Change(StrEnum):
    """The change of a step or a template."""

    added = "added"
    removed = "removed"
    changed = "changed"
    moved = "moved"


class LineKind(StrEnum):
    """The kind of a diff's line; `hunk` stands where unchanged lines were left out."""

    same = "same"
    added = "added"
    removed = "removed"
    hunk = "hunk"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One field with its value before and after, as text; None where it is not set."""

    field: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class StepChange:
    """One step that was added, removed, changed or moved; a step that was both moved and changed is `changed` with a field "position"."""

    step_id: str
    kind: str
    change: Change
    fields: tuple[FieldChange, ...]


@dataclass(frozen=True, slots=True)
class DiffLine:
    """A line of a template, with its number before and after (from 1; None on the side where it is not)."""

    kind: LineKind
    text: str
    old_number: int | None = None
    new_number: int | None = None


@dataclass(frozen=True, slots=True)
class TemplateChange:
    """One template that was added, removed or changed, line by line with three lines around each change."""

    name: str
    change: Change
    lines: tuple[DiffLine, ...]

    def count(self, kind: LineKind) -> int:
        """Return how many lines are of `kind`."""
        return sum(line.kind is kind for line in self.lines)


@dataclass(frozen=True, slots=True)
class SourceDiff:
    """The changes between two sources: fields of the journey, steps (in the new order, removed ones last), templates by name."""

    fields: tuple[FieldChange, ...]
    steps: tuple[StepChange, ...]
    templates: tuple[TemplateChange, ...]

    @property
    def is_empty(self) -> bool:
        """Return whether nothing that runs or is sent changed; comments in the definition may have."""
        return not (self.fields or self.steps or self.templates)


Diff = SourceDiff


@dataclass(frozen=True, slots=True)
class _Read:
    fields: Mapping[str, str]
    steps: Mapping[str, Mapping[str, str]]
    kinds: Mapping[str, str]
    parents: Mapping[str, Place]
    labels: Mapping[str, str]


def diff(old: Source, new: Source) -> SourceDiff:
    """Return what changed from `old` to `new`; raises DefinitionError when one cannot be read."""
    before, after = _read(old), _read(new)
    return SourceDiff(
        tuple(_fields(before.fields, after.fields)), tuple(_steps(before, after)), tuple(_templates(old.templates, new.templates))
    )


def _read(source: Source) -> _Read:
    definition, document = read_definition(source)
    places = places_of(document)
    data: dict[str, object] = document.data if isinstance(document.data, dict) else {}
    raw = {step_id: _at(data, place) for step_id, place in places.items()}
    return _Read(
        {path: text for key, value in data.items() if key != "steps" for path, text in _flat(value, key)},
        {step_id: dict(_flat_step(value)) for step_id, value in raw.items()},
        {step.id: step.kind for step in definition.all_steps()},
        {step_id: _parent(data, place) for step_id, place in places.items()},
        {placed.step_id: placed.label or "" for placed in build_program(definition).order},
    )


def _at(data: object, place: Place) -> object:
    for part in place:
        data = data[part]  # type: ignore[index]
    return data


def _parent(data: object, place: Place) -> Place:
    """Return the split around a step and the arm it is in; () at the top."""
    for end in range(len(place) - 1, 1, -1):
        if isinstance(place[end - 1], int) and place[end - 2] == "steps":
            split = _at(data, place[:end])
            return (str(split.get("id")) if isinstance(split, Mapping) else "", *place[end:-2])
    return ()


def _flat_step(step: object) -> Iterator[tuple[str, str]]:
    if isinstance(step, Mapping):
        for key, value in step.items():
            if key != "id":
                yield from _flat(value, str(key))


def _flat(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            # Steps inside an arm are told as steps of their own.
            if key != "steps":
                yield from _flat(inner, f"{path}.{key}")
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value):
            yield from _flat(item, f"{path}.{number}")
    elif isinstance(value, list):
        yield path, ", ".join(_text(item) for item in value)
    else:
        yield path, _text(value)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _fields(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[FieldChange]:
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield FieldChange(name, old.get(name), new.get(name))


def _steps(before: _Read, after: _Read) -> Iterator[StepChange]:
    moved = _moved(before, after)
    for step_id, fields in after.steps.items():
        changed = tuple(_fields(before.steps.get(step_id, {}), fields))
        if step_id not in before.steps:
            yield StepChange(step_id, after.kinds[step_id], Change.added, changed)
        elif changed or step_id in moved:
            position = (FieldChange("position", _where(before, step_id), _where(after, step_id)),) if step_id in moved else ()
            yield StepChange(step_id, after.kinds[step_id], Change.changed if changed else Change.moved, (*position, *changed))
    for step_id, fields in before.steps.items():
        if step_id not in after.steps:
            yield StepChange(step_id, before.kinds[step_id], Change.removed, tuple(_fields(fields, {})))


def _moved(before: _Read, after: _Read) -> set[str]:
    common = [step for step in after.steps if step in before.steps]
    moved = {step for step in common if not _same_arm(before, after, step)}
    for arm in {after.parents[step] for step in common}:
        new = [step for step in common if after.parents[step] == arm and step not in moved]
        old = [step for step in before.steps if step in new]
        blocks = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
        stayed = {step for block in blocks for step in new[block.b : block.b + block.size]}
        moved |= set(new) - stayed
    return moved


def _same_arm(before: _Read, after: _Read, step: str) -> bool:
    # An arm put in before shifts the numbers, an edited condition the label: it takes both to be another arm.
    old, new = before.parents[step], after.parents[step]
    return old[:1] == new[:1] and (old == new or before.labels[step] == after.labels[step])


def _where(read: _Read, step_id: str) -> str:
    siblings = [step for step in read.steps if read.parents[step] == read.parents[step_id]]
    number = siblings.index(step_id)
    inside = ".".join(str(part) for part in read.parents[step_id])
    place = f"after {siblings[number - 1]}" if number else "first"
    return f"{place} in {inside}" if inside else place


def _templates(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[TemplateChange]:
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            change = Change.added if name not in old else Change.removed if name not in new else Change.changed
            yield TemplateChange(name, change, tuple(_lines(old.get(name, ""), new.get(name, ""))))


def _lines(old: str, new: str) -> Iterator[DiffLine]:
    old_number = new_number = 0
    for line in list(unified_diff(old.splitlines(), new.splitlines(), n=CONTEXT_LINES, lineterm=""))[2:]:
        if hunk := _HUNK.match(line):
            old_number, new_number = int(hunk[1]), int(hunk[2])
            yield DiffLine(LineKind.hunk, line)
        elif line.startswith("+"):
            yield DiffLine(LineKind.added, line[1:], None, new_number)
            new_number += 1
        elif line.startswith("-"):
            yield DiffLine(LineKind.removed, line[1:], old_number, None)
            old_number += 1
        else:
            yield DiffLine(LineKind.same, line[1:], old_number, new_number)
            old_number, new_number = old_number + 1, new_number + 1
