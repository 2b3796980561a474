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
from distmark.web.labels import ENROLLMENT, EVENT, OUTCOME, STEP, Said


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
    return Standing(said, where, waiting_for(enrollment, tongue, program))


def waiting_for(enrollment: Enrollment, tongue: Tongue, program: Program | None = None) -> str:
    """Return until when a live enrollment sleeps and which rules made it so."""
    parts = []
    if enrollment.awaits and enrollment.awaits != "*":
        parts.append(tongue.say(N_("waits for “%(event)s”"), event=event_name(enrollment.awaits, tongue, program)))
    if enrollment.due_at is not None and enrollment.step_id is not None:
        parts.append(tongue.say(N_("until %(time)s"), time=tongue.short(enrollment.due_at)))
    if enrollment.why == Why.retry:
        rules = [retry_words(str(code), tongue) for code in enrollment.rules] or [tongue.say(N_("an error came up, and it is tried again"))]
    else:
        rules = [rule_words(str(rule), tongue) for rule in enrollment.rules]
    if rules:
        parts.append(tongue.say(N_("because: %(rules)s"), rules="、".join(rules) if tongue.language == "ja" else ", ".join(rules)))
    return (" " if tongue.language == "en" else "・").join(parts)


# Rules of sending, beside those of time that the journeys room words itself. %(value)s is what stands behind the colon.
SEND_RULES = {
    "cap_hour": N_("enough messages for one hour (at most %(value)s)"),
    "cap_day": N_("enough messages for one day (at most %(value)s)"),
    "cap_week": N_("enough messages for one week (at most %(value)s)"),
    "cap_month": N_("enough messages for one month (at most %(value)s)"),
    "priority": N_("a message of the more important journey “%(value)s” goes first"),
    "waits_longer": N_("a message of the journey “%(value)s” has waited longer"),
    "throttle": N_("messages go out one after the other"),
    "throttle:partner": N_("messages of one partner go out one after the other"),
    "throttle:campaign": N_("messages of this campaign go out one after the other"),
    "throttle:sending_domain": N_("messages from %(value)s go out one after the other"),
    "throttle:destination_domain": N_("messages to %(value)s go out one after the other"),
    "not_approved": N_("the version is no longer approved"),
}
# Why something is tried again, by the code of who refused; a number alone is a mail server's.
RETRIES = {
    "no_answer": N_("nobody answered, and it is tried again"),
    "no_connection": N_("no connection could be made, and it is tried again"),
    "timeout": N_("the other system did not answer in time and is asked again"),
    "status": N_("the other system answered with error %(value)s and is asked again"),
}


def rule_words(rule: str, tongue: Tongue) -> str:
    """Return a rule that moved or holds something, in words."""
    code, _, value = rule.partition(":")
    if code == "throttle" and value:
        scope, _, value = value.partition(":")
        code = f"throttle:{scope}"
    if code in SEND_RULES:
        return tongue.say(SEND_RULES[code], value=value)
    return describe_rule(rule, tongue.language) if code in RULE_WORDS else rule


def retry_words(code: str, tongue: Tongue) -> str:
    """Return why something is tried again, in words; `code` is a mail server's, or says how a webhook or a connection failed."""
    if code.isdecimal():
        return tongue.say(N_("the mail server asked to try again later"))
    name, _, value = code.partition("_") if code.startswith("status_") else (code, "", "")
    return tongue.say(RETRIES.get(name, RETRIES["no_answer"]), value=value)


def event_name(name: str, tongue: Tongue, *programs: Program | None) -> str:
    """Return an event's name in words: those of the first of these journeys that has some, else ours, else as the journey calls it."""
    for program in programs:
        if program is not None and name in program.definition.event_names:
            return program.definition.event_names[name].text(tongue.language)
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
