"""Where a contact stands in a journey, in words: what step, until when, and why. Pure."""

from dataclasses import dataclass

from distmark.enrollments.model import EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.journeys.describe import describe_step
from distmark.journeys.model import Outcome, Why
from distmark.journeys.program import Program
from distmark.journeys.steps import Step
from distmark.journeys.times import RULE_WORDS, describe_rule
from distmark.web.i18n import N_, Tongue
from distmark.web.words import ENROLLMENT, EVENT, OUTCOME, STEP, Said


@dataclass(frozen=True, slots=True)
class Standing:
    """One enrollment in words: its chip, where it is, and until when or why."""

    said: Said
    where: str
    detail: str = ""


def standing(enrollment: Enrollment, program: Program | None, tongue: Tongue) -> Standing:
    """Return where this enrollment stands, in the reader's language."""
    if enrollment.status is EnrollmentStatus.ended:
        return _ended(enrollment, tongue)
    step = program.steps.get(enrollment.step_id or "") if program else None
    where = step_name(step, tongue) if step else tongue.say(N_("Is about to begin"))
    said = ENROLLMENT[enrollment.status]
    if enrollment.status is EnrollmentStatus.paused:
        return Standing(said, where, tongue.say(N_("Stands still until somebody lets it go on")))
    if enrollment.status is EnrollmentStatus.parked:
        return Standing(said, where, tongue.say(N_("The same error came again and again; operations are told")))
    return Standing(said, where, waiting_for(enrollment, tongue))


def waiting_for(enrollment: Enrollment, tongue: Tongue) -> str:
    """Return until when a live enrollment sleeps and which rules made it so."""
    parts = []
    if enrollment.awaits and enrollment.awaits != "*":
        parts.append(tongue.say(N_("waits for “%(event)s”"), event=event_name(enrollment.awaits, tongue)))
    if enrollment.due_at is not None and enrollment.step_id is not None:
        parts.append(tongue.say(N_("until %(time)s"), time=tongue.short(enrollment.due_at)))
    rules = [rule_words(str(rule), tongue) for rule in enrollment.rules]
    if enrollment.why == Why.retry:
        rules.append(tongue.say(N_("the mail server asked to try again later")))
    if rules:
        parts.append(tongue.say(N_("because: %(rules)s"), rules="、".join(rules) if tongue.language == "ja" else ", ".join(rules)))
    return (" " if tongue.language == "en" else "・").join(parts)


# Rules of sending, beside those of time that the journeys room words itself.
SEND_RULES = {
    "cap_day": N_("enough messages for one day"),
    "cap_week": N_("enough messages for one week"),
    "throttle": N_("messages go out one after the other"),
    "not_approved": N_("the version is no longer approved"),
}


def rule_words(rule: str, tongue: Tongue) -> str:
    """Return a rule that moved or holds something, in words."""
    code = rule.partition(":")[0]
    if code in SEND_RULES:
        return tongue.say(SEND_RULES[code])
    return describe_rule(rule, tongue.language) if code in RULE_WORDS else rule


def event_name(name: str, tongue: Tongue) -> str:
    """Return an event's name in words where it has some, else as the journey calls it."""
    if name.startswith("winner:"):
        return tongue.say(N_("the winner of the test"))
    return tongue.say(EVENT[name]) if name in EVENT else name


def _ended(enrollment: Enrollment, tongue: Tongue) -> Standing:
    said = OUTCOME.get(enrollment.outcome or "", ENROLLMENT[EnrollmentStatus.ended])
    detail = tongue.short(enrollment.ended_at) if enrollment.ended_at else ""
    where = enrollment.reason if enrollment.outcome in (Outcome.exit, Outcome.goal, Outcome.stopped) else ""
    return Standing(said, where, detail)


def step_name(step: Step, tongue: Tongue) -> str:
    """Return what people call a step: its own name, else what it does; a task, whose title holds slots, is just called a task."""
    if step.kind == "task" and not step.name:
        return tongue.say(STEP[step.kind])
    return describe_step(step, tongue.language)[0]
