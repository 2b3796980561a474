"""Steps and the rules of sending in words, in Japanese and English: for pictures, lists and pages. The words stand beside each kind."""

from collections.abc import Iterator

from distmark.journeys.definition import JourneyDefinition, SendPolicy
from distmark.journeys.field_types import Cap
from distmark.journeys.model import Priority
from distmark.journeys.steps import KINDS, Step
from distmark.journeys.wording import limits_words, listed, readable

PRIORITIES = {
    Priority.high: {"ja": "優先度：高（他のジャーニーより先）", "en": "high priority (before other journeys)"},
    Priority.low: {"ja": "優先度：低（他のジャーニーの後）", "en": "low priority (after other journeys)"},
}
PERIODS = {"hour": "1 時間", "day": "1 日", "week": "1 週間", "month": "1 か月"}


def describe_step(step: Step, lang: str, definition: JourneyDefinition | None = None) -> tuple[str, str]:
    """Return a title and a second line (perhaps empty) for `step` in `lang`: "ja", or anything else for English.

    With its `definition` the events and steps that it speaks of have the names that they have there.
    """
    lang = "ja" if lang == "ja" else "en"
    title, detail = KINDS[step.kind].describe(step, lang)
    if definition is not None and step.kind == "wait":
        title, detail = _with_names(title, definition, lang), _with_names(detail, definition, lang)
    if step.name is None:
        return title, detail
    # How long a wait takes must be seen whatever the wait is called; of other kinds the name says as much as the title.
    return step.name.text(lang), listed([part for part in (title, detail) if part], lang) if step.kind == "wait" else detail or title


def _with_names(text: str, definition: JourneyDefinition, lang: str) -> str:
    for key, name in definition.event_names.items():
        text = text.replace(readable(key), name.text(lang))
    for step in definition.all_steps():
        if step.name is not None and text.endswith(f"→ {readable(step.id)}"):
            return text.removesuffix(readable(step.id)) + step.name.text(lang)
    return text


def describe_policy(policy: SendPolicy, lang: str) -> str:
    """Return a journey's send policy in words of `lang`: its hours, its caps and its priority; "" when nothing limits it."""
    return listed(list(_policy_words(policy, "ja" if lang == "ja" else "en")), lang)


def _policy_words(policy: SendPolicy, lang: str) -> Iterator[str]:
    if policy.quiet_hours is not None:
        yield f"{policy.quiet_hours} は送らない" if lang == "ja" else f"not at {policy.quiet_hours}"
    if limits := limits_words(policy.days, policy.holidays, lang):
        yield limits
    yield from (_cap_words(cap, lang) for cap in policy.caps.limits)
    if policy.caps.limits and policy.priority in PRIORITIES:
        yield PRIORITIES[policy.priority][lang]


def _cap_words(cap: Cap, lang: str) -> str:
    return f"{PERIODS[cap.period]}に {cap.count} 通まで" if lang == "ja" else f"at most {cap}"
