"""The capabilities that the journey uses, against those of this installation: channels, replies, tasks, segments, keys of webhooks."""

from collections.abc import Collection, Iterator, Mapping

from distmark.journeys.checks.context import Checked, all_readables
from distmark.journeys.checks.references import arguments
from distmark.journeys.findings import Finding, closest
from distmark.journeys.positions import Path as Place
from distmark.journeys.steps.task import TaskStep
from distmark.journeys.steps.wait import WaitStep
from distmark.journeys.steps.webhook import WebhookStep

Lacking = Mapping[str, Mapping[str, str]]

# Uses of the language that an installation may lack the means for; `lacking` names them beside the channels.
REPLIES, BOUNCES, MARKETER_TASKS, TASK_NOTES = "replied", "bounced", "task: marketer", "task: note"
NEVER_HEARD: Lacking = {
    REPLIES: {"en": "a mailbox whose answers it reads", "ja": "お客様の返信を受け取るメールボックス"},
    BOUNCES: {"en": "a mailbox for returned mail", "ja": "不達の通知を受け取るメールボックス"},
    MARKETER_TASKS: {"en": "a page on which marketers see their tasks", "ja": "本部の担当者がタスクを確認する画面"},
    TASK_NOTES: {
        "en": "a page that shows the note of a task; write it into the title",
        "ja": "タスクのメモを表示する画面（件名に書いてください）",
    },
}


def check_installation(
    checked: Checked, lacking: Lacking, segments: Collection[str] | None, secrets: Collection[str] | None
) -> Iterator[Finding]:
    """Yield each use of a capability that this installation lacks (`lacking`), of an unknown segment, and of an unknown key of webhooks."""
    yield from _channels(checked, lacking)
    yield from _uses(checked, lacking)
    if segments is not None:
        yield from _segments(checked, segments)
    if secrets is not None:
        yield from _secrets(checked, secrets)


def _channels(checked: Checked, lacking: Lacking) -> Iterator[Finding]:
    for step in checked.sends():
        if step.send in lacking:
            lack = lacking[step.send]
            yield checked.finding("channel-lacking", step.id, ("send",), channel=step.send, lacks=lack["en"], lacks_ja=lack["ja"])


def _uses(checked: Checked, lacking: Lacking) -> Iterator[Finding]:
    for step_id, place, name in _named_uses(checked):
        if name in lacking:
            yield checked.finding("not-possible", step_id, place, name=name, lacks=lacking[name]["en"], lacks_ja=lacking[name]["ja"])


def _named_uses(checked: Checked) -> Iterator[tuple[str | None, Place, str]]:
    for step_id, place, readable in all_readables(checked):
        yield from ((step_id, place, name) for name in dict.fromkeys(call.name for call in readable.uses.calls))
    for step in checked.program.steps.values():
        if isinstance(step, WaitStep) and step.wait.of is not None and step.wait.event is not None:
            yield step.id, ("wait", "event"), step.wait.event
        elif isinstance(step, TaskStep) and step.task.for_ == "marketer":
            yield step.id, ("task", "for"), MARKETER_TASKS
        if isinstance(step, TaskStep) and step.task.note is not None:
            yield step.id, ("task", "note"), TASK_NOTES


def _segments(checked: Checked, segments: Collection[str]) -> Iterator[Finding]:
    for step_id, place, readable in all_readables(checked):
        for call in readable.uses.called("in_segment"):
            key = (arguments(call) or {}).get("key")
            if isinstance(key, str) and key not in segments:
                yield checked.finding("unknown-segment", step_id, place, suggestion=closest(key, segments), name=key)
    entry = checked.definition.entry.segment
    if entry is not None and entry not in segments:
        yield checked.finding("unknown-segment", None, ("entry", "segment"), suggestion=closest(entry, segments), name=entry)


def _secrets(checked: Checked, secrets: Collection[str]) -> Iterator[Finding]:
    for step in checked.program.steps.values():
        if isinstance(step, WebhookStep) and step.webhook.secret is not None and step.webhook.secret not in secrets:
            near = closest(step.webhook.secret, secrets)
            yield checked.finding("unknown-secret", step.id, ("webhook", "secret"), suggestion=near, name=step.webhook.secret)
