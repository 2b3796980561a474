"""The reasons for which a journey ends for a contact.

A new one is added here, and its words to `web.labels.OUTCOME` and `metrics.definitions.OUTCOMES`.
"""

from enum import StrEnum


class Outcome(StrEnum):
    """The end of an enrollment."""

    completed = "completed"
    goal = "goal"
    exit = "exit"
    stopped = "stopped"
    unsubscribed = "unsubscribed"
    failed = "failed"
    moved = "moved"
