"""The registry of step kinds. A new kind is one file beside these and one line here."""

from collections.abc import Mapping

from distmark.journeys.steps import audience, branch, exit, goto, journey, send, task, update, wait, webhook
from distmark.journeys.steps.base import Defaults, Path, Step, StepKind, Steps

KINDS: Mapping[str, StepKind] = {
    "send": send.KIND,
    "wait": wait.KIND,
    "branch": branch.KIND,
    "task": task.KIND,
    "update": update.KIND,
    "webhook": webhook.KIND,
    "audience": audience.KIND,
    "journey": journey.KIND,
    "goto": goto.KIND,
    "exit": exit.KIND,
}

__all__ = ["KINDS", "Defaults", "Path", "Step", "StepKind", "Steps"]
