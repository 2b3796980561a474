"""Webhooks and ad audiences kept in memory, for tests and simulations."""

from collections import deque
from collections.abc import Sequence

from distmark.integrations.ad_audiences import AudienceAction, AudienceChange
from distmark.integrations.webhooks import WebhookAnswer, WebhookCall


class MemoryWebhooks:
    """Webhooks that call no one: each call is kept in `calls` and answered as prepared, else by 200 with an empty object."""

    def __init__(self) -> None:
        self.calls: list[WebhookCall] = []
        self._answers: deque[WebhookAnswer | Exception] = deque()

    def answer(self, *answers: WebhookAnswer | Exception) -> None:
        """Answer the next calls so, in this order."""
        self._answers.extend(answers)

    async def call(self, call: WebhookCall) -> WebhookAnswer:
        """Keep the call, and answer or raise as told."""
        self.calls.append(call)
        answer = self._answers.popleft() if self._answers else WebhookAnswer(200)
        if isinstance(answer, Exception):
            raise answer
        return answer


class MemoryAudiences:
    """Keeps audiences in `members`, by brand and audience."""

    def __init__(self) -> None:
        self.members: dict[tuple[str, str], set[str]] = {}

    async def change(self, brand: str, audience: str, changes: Sequence[AudienceChange]) -> None:
        """Make these changes."""
        members = self.members.setdefault((brand, audience), set())
        for change in changes:
            if change.action is AudienceAction.add:
                members.add(change.member.key)
            else:
                members.discard(change.member.key)
