"""`distmark journeys when`: when a contact who reaches a step would go on from there, and why then."""

from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

from distmark.errors import NotFound
from distmark.journeys.findings import closest
from distmark.journeys.model import Act, Decision, End, Facts, SendMessage, Sleep
from distmark.journeys.program import Program
from distmark.journeys.times import describe_rule, next_allowed
from distmark.journeys.walk import Position, decide

NOTES = {
    "at_once": {"en": "goes on at once", "ja": "すぐ次へ進みます"},
    "event": {"en": "unless {event} comes first", "ja": "{event} が先に起きればその時点で進みます"},
    "never": {"en": "waits for {event} and for nothing else", "ja": "{event} だけを待ちます（時間切れなし）"},
    "ends": {"en": "the journey ends here: {reason}", "ja": "ここで終了します：{reason}"},
}
ANY_NEWS = {"en": "news of the contact", "ja": "お客様の動き"}


@dataclass(frozen=True, slots=True)
class WhenResult:
    """When the contact goes on: `due_at` aware UTC and `local` on the contact's clock, both None when only an event, or nothing, does that.

    `rules` moved the time, in order; `notes` are keys of NOTES with `values` for their text.
    """

    due_at: datetime | None
    local: datetime | None
    rules: tuple[str, ...]
    notes: tuple[str, ...] = ()
    values: dict[str, str] = field(default_factory=dict)

    def why(self, lang: str) -> list[str]:
        """Return the reasons in words of `lang`, one line each."""
        lang = "ja" if lang == "ja" else "en"
        values = {**self.values, "event": ANY_NEWS[lang]} if self.values.get("event") == "*" else self.values
        return [describe_rule(rule, lang) for rule in self.rules] + [NOTES[note][lang].format(**values) for note in self.notes]


def when(program: Program, step_id: str, at: datetime, zone: ZoneInfo, facts: Facts | None = None, *, number: int = 1) -> WhenResult:
    """Return when a contact who reaches `step_id` at `at` (aware) goes on; `number` is the how-many-th visit it is.

    A send goes on when its message may leave. Raises NotFound for an unknown step.
    """
    if step_id not in program.steps:
        near = closest(step_id, program.steps)
        hint = f'did you mean "{near}"?' if near else f"give one of {', '.join(program.steps)}."
        raise NotFound(f'The journey "{program.definition.key}" has no step "{step_id}"; {hint}')
    decision = decide(program, Position(step_id, at, {step_id: number}), facts or Facts(), at, zone)
    return _when_result(program, decision, at, zone)


def _when_result(program: Program, decision: Decision, at: datetime, zone: ZoneInfo) -> WhenResult:
    if isinstance(decision, End):
        return WhenResult(None, None, (), ("ends",), {"reason": decision.reason})
    if isinstance(decision, Sleep):
        return _asleep(decision, zone)
    if isinstance(decision, Act) and isinstance(decision.effect, SendMessage) and not decision.effect.transactional:
        policy = program.definition.send_policy
        allowed, rules = next_allowed(at, zone, policy.quiet_hours, policy.days, policy.holidays)
        return WhenResult(allowed, allowed.astimezone(zone), rules, () if rules else ("at_once",))
    detail = () if isinstance(decision, Act) else decision.detail.get("rules", ())
    rules = tuple(str(rule) for rule in detail) if isinstance(detail, tuple) else ()
    return WhenResult(at, at.astimezone(zone), rules, () if rules else ("at_once",))


def _asleep(sleep: Sleep, zone: ZoneInfo) -> WhenResult:
    values = {"event": sleep.event} if sleep.event else {}
    if sleep.until is None:
        return WhenResult(None, None, sleep.rules, ("never",), values)
    return WhenResult(sleep.until, sleep.until.astimezone(zone), sleep.rules, ("event",) if sleep.event else (), values)
