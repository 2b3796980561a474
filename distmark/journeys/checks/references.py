"""Does everything that a journey names exist? Names, functions, attributes, steps, events, links, blocks."""

import re
from collections.abc import Iterator, Mapping
from zoneinfo import ZoneInfo

from distmark.journeys.checks.context import Checked, readables
from distmark.journeys.definition import BUILT_IN, BUILT_IN_EVENTS, FieldType
from distmark.journeys.expressions import (
    BY,
    EVENT_FUNCTIONS,
    FUNCTIONS,
    NAMES,
    STEP_FUNCTIONS,
    Expression,
    FunctionCall,
    Text,
    Uses,
)
from distmark.journeys.field_types import DateOf
from distmark.journeys.findings import Finding, closest
from distmark.journeys.positions import Path as Place
from distmark.journeys.steps.branch import BranchStep, SplitTestOf
from distmark.journeys.steps.journey import JourneyStep
from distmark.journeys.steps.send import SendStep
from distmark.journeys.steps.update import UpdateStep
from distmark.journeys.steps.wait import WaitStep
from distmark.journeys.steps.webhook import WebhookStep
from distmark.journeys.times import usable_date
from distmark.journeys.waits import ENGAGEMENT_EVENTS
from distmark.numbers import read_number

EVENT_ATTRIBUTES = ("name", "at", "data", "value")
DECLARED_IN = {"contact": "contact_fields", "journey": "journey_fields"}
LINK_ROOTS = ("contact", "partner", "brand", "campaign", "journey", "lang")
_UTC = ZoneInfo("UTC")
AUTOMATIC_LINK = re.compile(r"link-\d+")


def check_references(checked: Checked, journeys: frozenset[str] | None = None) -> Iterator[Finding]:
    """Yield a finding for everything named that does not exist; other journeys are looked up in `journeys` when given."""
    yield from _top(checked)
    for step in checked.program.steps.values():
        for place, readable in readables(step):
            yield from _readable(checked, step.id, place, readable)
        for field, target in step.targets():
            yield from _known_step(checked, step.id, tuple(field.split(".")), target)
        if isinstance(step, SendStep):
            yield from _editable(checked, step)
        elif isinstance(step, WaitStep):
            yield from _wait(checked, step)
        elif isinstance(step, UpdateStep):
            yield from _update(checked, step)
        elif isinstance(step, BranchStep) and isinstance(step.branch, SplitTestOf):
            yield from _test(checked, step, step.branch)
        elif isinstance(step, JourneyStep) and journeys is not None and step.journey not in journeys:
            near = closest(step.journey, journeys)
            yield checked.finding("unknown-journey", step.id, ("journey",), suggestion=near, name=step.journey)


def _top(checked: Checked) -> Iterator[Finding]:
    definition = checked.definition
    parts: tuple[tuple[Place, object], ...] = (
        (("goal",), definition.goal),
        (("exit",), definition.exit),
        (("entry",), definition.entry),
    )
    for root, part in parts:
        for place, readable in readables(part, root):
            yield from _readable(checked, None, place, readable)
    for name, url in definition.links.items():
        yield from _link_slots(checked, ("links", name), Text(url))
    for name in definition.event_names:
        yield from _event(checked, None, ("event_names", name), name)
    if definition.entry.event is not None:
        yield from _event(checked, None, ("entry", "event"), definition.entry.event)
    if definition.entry.date is not None:
        yield from _date(checked, None, ("entry", "date"), definition.entry.date)


def _readable(checked: Checked, step: str | None, place: Place, readable: Expression | Text) -> Iterator[Finding]:
    uses = readable.uses
    called = {call.name for call in uses.calls}
    roots = set(NAMES) if place[-1:] == ("where",) else set(NAMES) - {"event"}
    for name in sorted(uses.names):
        if name in FUNCTIONS and name not in called:
            yield checked.finding("bad-arguments", step, place, form=FUNCTIONS[name].form)
        elif name not in FUNCTIONS and name in called:
            yield checked.finding("unknown-function", step, place, suggestion=closest(name, FUNCTIONS), name=name)
        elif name not in FUNCTIONS and name not in roots:
            yield checked.finding(
                "unknown-name", step, place, suggestion=None if name == "event" else closest(name, [*roots, *FUNCTIONS]), name=name
            )
    for call in uses.calls:
        if call.name in FUNCTIONS:
            yield from _call(checked, step, place, call)
    yield from _attributes(checked, step, place, uses)


def _attributes(checked: Checked, step: str | None, place: Place, uses: Uses) -> Iterator[Finding]:
    for root, attribute in sorted(uses.attributes):
        if root == "event" and attribute not in EVENT_ATTRIBUTES:
            yield checked.finding("unknown-name", step, place, suggestion=closest(attribute, EVENT_ATTRIBUTES), name=f"event.{attribute}")
        elif root in BUILT_IN and attribute not in checked.definition.attributes(root):
            yield _unknown_attribute(checked, step, place, root, attribute)


def _unknown_attribute(checked: Checked, step: str | None, place: Place, root: str, attribute: str) -> Finding:
    near = closest(attribute, checked.definition.attributes(root))
    where = DECLARED_IN.get(root, root)
    suggestion = f"{root}.{near}" if near else None
    return checked.finding("unknown-attribute", step, place, suggestion=suggestion, name=f"{root}.{attribute}", where=where)


def _call(checked: Checked, step: str | None, place: Place, call: FunctionCall) -> Iterator[Finding]:
    given = arguments(call)
    if given is None:
        yield checked.finding("bad-arguments", step, place, form=FUNCTIONS[call.name].form)
        return
    if call.name in STEP_FUNCTIONS:
        yield from _sent_step(checked, step, place, given)
        yield from _clicked_link(checked, step, place, given)
    if call.name in EVENT_FUNCTIONS and isinstance(given.get("name"), str):
        yield from _event(checked, step, place, str(given["name"]))
    if call.name == "answer" and isinstance(given.get("step"), str):
        yield from _webhook(checked, step, place, str(given["step"]))
    by = given.get("by")
    if isinstance(by, str) and by not in BY:
        yield checked.finding("bad-choice", step, place, suggestion=closest(by, BY), value=by, allowed=", ".join(BY))


def arguments(call: FunctionCall) -> Mapping[str, object] | None:
    """Return the arguments of `call` by name, or None when it is not written as the function asks."""
    form = FUNCTIONS[call.name]
    names = (*form.needs, *form.takes)
    if len(call.args) > len(names) or any(name not in names for name in call.named):
        return None
    given = {**dict(zip(names, call.args, strict=False)), **call.named}
    return given if all(name in given for name in form.needs) and len(given) == len(call.args) + len(call.named) else None


def _sent_step(checked: Checked, step: str | None, place: Place, given: Mapping[str, object]) -> Iterator[Finding]:
    name = given.get("step")
    if not isinstance(name, str):
        return
    found = checked.program.steps.get(name)
    if found is None:
        sends = [send.id for send in checked.sends()]
        yield checked.finding("unknown-step", step, place, suggestion=closest(name, sends), name=name)
    elif not isinstance(found, SendStep):
        yield checked.finding("not-a-send", step, place, name=name)


def _clicked_link(checked: Checked, step: str | None, place: Place, given: Mapping[str, object]) -> Iterator[Finding]:
    link, name = given.get("link"), given.get("step")
    if isinstance(link, str):
        yield from _link(checked, step, place, link, str(name))


def _link(checked: Checked, step: str | None, place: Place, link: str, send: str) -> Iterator[Finding]:
    if AUTOMATIC_LINK.fullmatch(link):
        return
    if link not in checked.definition.links:
        yield checked.finding("unknown-link", step, place, suggestion=closest(link, checked.definition.links), name=link)
        return
    found = checked.program.steps.get(send)
    if isinstance(found, SendStep) and not _holds_link(checked, found, link):
        # Named `in_step`: the finding's own step is the one that asks.
        yield checked.finding("link-not-in-message", step, place, name=link, in_step=send)


def _holds_link(checked: Checked, send: SendStep, link: str) -> bool:
    texts = [text for name, text in checked.source.templates.items() if name.split(".")[0] == send.message]
    slot = re.compile(rf"links\s*(\.\s*{link}\b|\[\s*['\"]{link}['\"]\s*\])")
    return not texts or any(slot.search(text) for text in texts)


def _event(checked: Checked, step: str | None, place: Place, name: str) -> Iterator[Finding]:
    known = (*checked.definition.events, *BUILT_IN_EVENTS)
    if name not in known:
        yield checked.finding("unknown-event", step, place, suggestion=closest(name, known), name=name)


def _webhook(checked: Checked, step: str | None, place: Place, name: str) -> Iterator[Finding]:
    found = checked.program.steps.get(name)
    if found is None:
        hooks = [other.id for other in checked.program.steps.values() if isinstance(other, WebhookStep)]
        yield checked.finding("unknown-step", step, place, suggestion=closest(name, hooks), name=name)
    elif not isinstance(found, WebhookStep):
        yield checked.finding("not-a-webhook", step, place, name=name)


def _known_step(checked: Checked, step: str, place: Place, target: str) -> Iterator[Finding]:
    if target not in checked.program.steps:
        yield checked.finding("unknown-step", step, place, suggestion=closest(target, checked.program.steps), name=target)


def _editable(checked: Checked, step: SendStep) -> Iterator[Finding]:
    for number, block in enumerate(step.editable):
        if block not in checked.definition.blocks:
            near = closest(block, checked.definition.blocks)
            yield checked.finding("unknown-block", step.id, ("editable", number), suggestion=near, name=block)


def _wait(checked: Checked, step: WaitStep) -> Iterator[Finding]:
    wait = step.wait
    if wait.of is not None:
        yield from _sent_step(checked, step.id, ("wait", "of"), {"step": wait.of})
        if wait.link is not None:
            yield from _link(checked, step.id, ("wait", "link"), wait.link, wait.of)
    elif wait.event is not None and wait.event not in ENGAGEMENT_EVENTS:
        yield from _event(checked, step.id, ("wait", "event"), wait.event)
    if wait.on is not None:
        yield from _date(checked, step.id, ("wait", "on"), wait.on)


def _date(checked: Checked, step: str | None, place: Place, on: DateOf) -> Iterator[Finding]:
    if on.day is not None:
        return
    kind = checked.definition.attributes(on.root).get(on.attribute)
    if kind is None:
        yield _unknown_attribute(checked, step, place, on.root, on.attribute)
    elif kind != FieldType.date:
        yield checked.finding("not-a-date", step, place, name=str(on))


def _update(checked: Checked, step: UpdateStep) -> Iterator[Finding]:
    for name, value in step.update.items():
        kinds = checked.definition.attributes("contact")
        if name not in kinds:
            yield _unknown_attribute(checked, step.id, ("update", name), "contact", name)
        elif isinstance(value, str) and not _is_readable(value, kinds[name]):
            yield checked.finding("bad-field-value", step.id, ("update", name), name=name, value=value, kind=kinds[name])


def _is_readable(value: str, kind: str) -> bool:
    if kind == FieldType.number:
        return read_number(value) is not None
    return kind != FieldType.date or usable_date(value, _UTC) is not None


def _test(checked: Checked, step: BranchStep, branch: SplitTestOf) -> Iterator[Finding]:
    test = branch.test
    if test.event is not None:
        yield from _event(checked, step.id, ("branch", "test", "event"), test.event)
    if test.link is not None and test.link not in checked.definition.links and not AUTOMATIC_LINK.fullmatch(test.link):
        near = closest(test.link, checked.definition.links)
        yield checked.finding("unknown-link", step.id, ("branch", "test", "link"), suggestion=near, name=test.link)


def _link_slots(checked: Checked, place: Place, text: Text) -> Iterator[Finding]:
    uses = text.uses
    for name in sorted(uses.names - set(LINK_ROOTS)):
        yield checked.finding("unknown-name", None, place, suggestion=closest(name, LINK_ROOTS), name=name)
    yield from _attributes(checked, None, place, uses)
