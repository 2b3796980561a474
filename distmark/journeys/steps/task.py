"""Ask a person, mostly the partner, for a next action."""

from typing import ClassVar, Literal

from pydantic import Field

from distmark.journeys.expressions import Texts, namespace
from distmark.journeys.fields import DefinitionPart
from distmark.journeys.model import Act, CreateTask, Decision, StepVisit
from distmark.journeys.steps.base import Step, StepKind
from distmark.journeys.times import Duration, add
from distmark.journeys.wording import duration_words, without_slots

WHO = {"partner": {"ja": "担当者", "en": "partner"}, "marketer": {"ja": "本部", "en": "marketer"}}


class TaskField(DefinitionPart):
    """Who does what until when."""

    for_: Literal["partner", "marketer"] = Field("partner", alias="for", description="Whose task it is.")
    title: Texts = Field(description="What to do, in one line; slots such as {{ contact.first_name }} are filled.")
    note: Texts | None = Field(None, description="More to know.")
    due: Duration = Field(Duration.read("1 day"), description="How long the person has.")


class TaskStep(Step):
    """Create a task and go on."""

    kind: ClassVar[str] = "task"

    task: TaskField


def decide(step: TaskStep, visit: StepVisit) -> Decision:
    """Return the task, worded in the partner's language."""
    task, names = step.task, namespace(visit.facts, visit.now, visit.zone)
    lang = str(visit.facts.partner.get("language") or "")
    note = task.note.text(lang).render(names) if task.note else ""
    return Act(CreateTask(step.id, task.for_, task.title.text(lang).render(names), add(visit.now, task.due, visit.zone), note))


def describe(step: TaskStep, lang: str) -> tuple[str, str]:
    """Return a title and a second line in `lang`."""
    due = duration_words(step.task.due, lang)
    who = WHO[step.task.for_][lang]
    return without_slots(step.task.title.text(lang).text, lang), (
        f"{who}のタスク・{due}以内" if lang == "ja" else f"task for the {who}, within {due}"
    )


KIND = StepKind("task", TaskStep, decide, describe, {"ja": "担当者タスク", "en": "Task"}, "phone-call", "#d97706")
