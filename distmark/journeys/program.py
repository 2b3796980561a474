"""A journey ready to walk: every step by id, and the step that follows each. Built once per version."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from distmark.journeys.definition import JourneyDefinition
from distmark.journeys.expressions import EVENT_FUNCTIONS, STEP_FUNCTIONS, Expression
from distmark.journeys.steps import Step
from distmark.journeys.times import SendHours


@dataclass(frozen=True, slots=True)
class Placed:
    """The place of a step in the document: its depth, its split and its arm, from 0."""

    step_id: str
    depth: int
    split: str | None = None
    arm: int | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Program:
    """A journey's steps by id; `after` falls through out of a split to the step after it, None being the end.

    `listens_to` names the news that may reach the goal or an exit rule: custom events, opened, clicked, replied ..., segment, contact.
    """

    definition: JourneyDefinition
    steps: Mapping[str, Step]
    after: Mapping[str, str | None]
    first: str
    order: tuple[Placed, ...]
    listens_to: frozenset[str] = frozenset()
    hours: SendHours = field(default_factory=SendHours)

    def ways(self, step_id: str) -> tuple[str | None, ...]:
        """Return the ids of the steps that may come right after `step_id`; None is the end."""
        return self.steps[step_id].ways(self.after[step_id])

    def kind(self, step_id: str) -> str:
        """Return the kind key of a step."""
        return self.steps[step_id].kind


def build_program(definition: JourneyDefinition) -> Program:
    """Return the program of `definition`; send steps take their policy from the journey where they say nothing."""
    steps: dict[str, Step] = {}
    after: dict[str, str | None] = {}
    order: list[Placed] = []

    def place(siblings: tuple[Step, ...], then: str | None, depth: int, split: str | None, arm: int | None, label: str | None) -> None:
        for number, step in enumerate(siblings):
            steps[step.id] = step.settled(definition.defaults)
            after[step.id] = siblings[number + 1].id if number + 1 < len(siblings) else then
            order.append(Placed(step.id, depth, split, arm, label))
            for index, path in enumerate(step.paths()):
                place(path.steps, after[step.id], depth + 1, step.id, index, path.label)

    place(definition.steps, None, 0, None, None, None)
    return Program(definition, steps, after, definition.steps[0].id, tuple(order), _listens_to(definition), definition.send_policy.hours)


TRIGGER_OF_FUNCTION = {**{name: name for name in STEP_FUNCTIONS}, "in_segment": "segment", "answer": "answer"}


def _listens_to(definition: JourneyDefinition) -> frozenset[str]:
    rules = [rule.when for rule in definition.exit] + ([definition.goal.when] if definition.goal else [])
    return frozenset(trigger for rule in rules for trigger in triggers_of(rule))


def triggers_of(expression: Expression) -> Iterator[str]:
    """Iterate over the news that may change what `expression` says: custom events, opened, clicked ..., segment, contact."""
    uses = expression.uses
    for call in uses.calls:
        if call.name in EVENT_FUNCTIONS:
            yield str(call.args[0] if call.args else call.named.get("name"))
        elif call.name in TRIGGER_OF_FUNCTION:
            yield TRIGGER_OF_FUNCTION[call.name]
    # A click counts as an open too.
    if any(call.name == "opened" for call in uses.calls):
        yield "clicked"
    if "contact" in uses.names:
        yield "contact"
