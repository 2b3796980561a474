"""The status of an enrollment as a text: its step, until when it waits, and why. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from distmark.enrollments.model import UNMADE, EnrollmentStatus
from distmark.enrollments.table import Enrollment
from distmark.journeys.describe import describe_step
from distmark.journeys.field_types import Words
from distmark.journeys.model import Why
from distmark.journeys.outcomes import Outcome
from distmark.journeys.program import Program
from distmark.journeys.steps import Step
from distmark.journeys.steps.exit import ExitStep
from distmark.journeys.times import RULE_WORDS, describe_rule
from distmark.messages.model import MessageStatus
from distmark.messages.table import Message
from distmark.web.i18n import N_, Translator
from distmark.web.labels import ENROLLMENT, EVENT, OUTCOME, STEP, Label


@dataclass(frozen=True, slots=True)
class StatusText:
    """The status of an enrollment in words: its label, its step or the reason of its end (`place`), and until when or why (`detail`)."""

    label: Label
    place: str
    detail: str = ""


def status_of(enrollment: Enrollment, program: Program | None, translator: Translator) -> StatusText:
    """Return the status of the enrollment in the reader's language."""
    if enrollment.status is EnrollmentStatus.ended:
        return _ended(enrollment, program, translator)
    step = program.steps.get(enrollment.step_id or "") if program else None
    place = step_name(step, translator) if step else translator.gettext(N_("Is about to begin"))
    label = ENROLLMENT[enrollment.status]
    if enrollment.status is EnrollmentStatus.paused:
        return StatusText(label, place, translator.gettext(N_("Paused until somebody resumes it")))
    if enrollment.status is EnrollmentStatus.parked and enrollment.why == UNMADE:
        return StatusText(UNMADE_LABEL, place, unmade_reason(enrollment, translator))
    if enrollment.status is EnrollmentStatus.parked:
        return StatusText(label, place, translator.gettext(N_("The same error came again and again; operations are told")))
    return StatusText(label, place, waiting_text(enrollment, translator, program))


UNMADE_LABEL = Label(N_("Message not made"), "bad")
VALUES = {
    "contact.first_name": N_("Given name"),
    "contact.last_name": N_("Family name"),
    "contact.full_name": N_("Name"),
    "contact.company": N_("Company"),
    "contact.city": N_("City"),
    "contact.birthday": N_("Birthday"),
    "contact.email": N_("Mail address"),
    "contact.phone": N_("Phone"),
    "partner.name": N_("the partner's name"),
    "partner.title": N_("the partner's title"),
    "partner.office": N_("the partner's office or shop"),
    "partner.city": N_("the partner's town"),
    "partner.phone": N_("the partner's phone"),
    "partner.email": N_("the partner's mail address for answers"),
    "partner.code": N_("the partner's licence or shop number"),
}


def unmade_text(translator: Translator, count: int) -> str:
    """Return the sentence that so many messages were not sent, since they cannot be made."""
    return translator.ngettext("%(n)s not sent: the message cannot be made.", "%(n)s not sent: their messages cannot be made.", count)


def unmade_reason(enrollment: Enrollment, translator: Translator) -> str:
    """Return why the enrollment's message cannot be made, "" when it can."""
    return slot_reason(str(next(iter(enrollment.rules), UNMADE)).partition(":")[2], translator) if enrollment.why == UNMADE else ""


def slot_reason(slot: str, translator: Translator) -> str:
    """Return the reason that a message cannot be made, by the value that is missing or cannot be shown ("": not known which)."""
    if "." not in slot:
        return translator.gettext(N_("the message cannot be made from its template"))
    value = translator.gettext(VALUES[slot]) if slot in VALUES else slot
    return translator.gettext(N_("the message shows “%(value)s”, which is missing or cannot be shown"), value=value)


def waiting_text(enrollment: Enrollment, translator: Translator, program: Program | None = None) -> str:
    """Return until when a live enrollment waits, for which event, and the rules that made it wait."""
    parts = []
    if enrollment.awaits and enrollment.awaits != "*":
        parts.append(translator.gettext(N_("waits for “%(event)s”"), event=event_name(enrollment.awaits, translator, program)))
    if enrollment.due_at is not None and enrollment.step_id is not None:
        parts.append(translator.gettext(N_("until %(time)s"), time=translator.short(enrollment.due_at)))
    if enrollment.why == Why.retry:
        rules = [retry_text(str(code), translator) for code in enrollment.rules] or [
            translator.gettext(N_("an error came up, and it is tried again"))
        ]
    else:
        rules = [rule_text(str(rule), translator) for rule in enrollment.rules]
    if rules:
        parts.append(
            translator.gettext(N_("because: %(rules)s"), rules="、".join(rules) if translator.language == "ja" else ", ".join(rules))
        )
    return (" " if translator.language == "en" else "・").join(parts)


# The rules of sending; the rules of time are worded by the journeys room. %(value)s is the part of the rule after the colon.
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
    "words_changed": N_("words were changed after they were sent with, and nobody has agreed to them yet"),
    "not_approved": N_("the version is no longer approved"),
    "left": N_("the person has left the journey"),
}
# The reason of a retry, by the error's code; a number alone is the code of a mail server.
RETRIES = {
    "no_answer": N_("nobody answered, and it is tried again"),
    "no_connection": N_("no connection could be made, and it is tried again"),
    "timeout": N_("the other system did not answer in time and is asked again"),
    "status": N_("the other system answered with error %(value)s and is asked again"),
}


def rule_text(rule: str, translator: Translator) -> str:
    """Return the text of a rule that delayed or holds a send."""
    code, _, value = rule.partition(":")
    if code == "throttle" and value:
        scope, _, value = value.partition(":")
        code = f"throttle:{scope}"
    if code in SEND_RULES:
        return translator.gettext(SEND_RULES[code], value=value)
    return describe_rule(rule, translator.language) if code in RULE_WORDS else readable_key(rule)


def retry_text(code: str, translator: Translator) -> str:
    """Return the reason of a retry as a text; `code` is the code of a mail server, or of the way a webhook or a connection failed."""
    if code.isdecimal():
        return translator.gettext(N_("the mail server asked to try again later"))
    name, _, value = code.partition("_") if code.startswith("status_") else (code, "", "")
    return translator.gettext(RETRIES.get(name, RETRIES["no_answer"]), value=value)


_NO_DATE = re.compile(r"(\w+) holds “(.*)”, which is no date", re.DOTALL)
_MISSING = re.compile(r"(?:contact|journey)\.(\w+) is missing")


def end_reason(reason: str, translator: Translator, program: Program | None = None) -> str:
    """Return the reason of an end for readers: one of the engine's or of the journey's in their language, one that a person wrote as is."""
    if match := _NO_DATE.fullmatch(reason):
        return translator.gettext(N_("%(name)s holds “%(value)s”, which is no date"), name=match[1], value=match[2])
    if match := _MISSING.fullmatch(reason):
        return translator.gettext(N_("%(name)s is missing"), name=match[1])
    known = _reasons_of(program) if program is not None and reason else ()
    for words in known:
        if reason in words.texts.values():
            return words.text(translator.language)
    return condition_text(reason, translator, program) if _CONDITION.search(reason) else reason


def _reasons_of(program: Program) -> Iterator[Words]:
    """Yield the reasons for which the journey itself ends: of its exit rules, its exits and its goal."""
    yield from (rule.reason for rule in program.definition.exit)
    yield from (step.exit for step in program.steps.values() if isinstance(step, ExitStep))
    if program.definition.goal is not None and program.definition.goal.name is not None:
        yield program.definition.goal.name


# A rule or goal without a name gives its condition as the reason.
_CONDITION = re.compile(r"\w\(['\"]|\bcontact\.\w|\bnot \w+\(|[=<>]=|\b(?:in_segment|days_since|days_until)\(")
_HAPPENED = re.compile(r"(\w+)\('([^']*)'(?:,[^)]*)?\)")


def condition_text(condition: str, translator: Translator, program: Program | None = None) -> str:
    """Return a condition for readers when it is that one thing happened; "" for any other, which only its author can read."""
    match = _HAPPENED.fullmatch(condition.strip().replace('"', "'"))
    if match is None or match[1] not in EVENT:
        return ""
    return f"{translator.gettext(EVENT[match[1]])}{translator.gettext(N_(': '))}{event_name(match[2], translator, program)}"


def readable_key(key: str) -> str:
    """Return a key that has no name of its own for readers: visit_booked is visit booked."""
    return " ".join(part for part in re.split(r"[_:]+", key) if part)


def event_name(name: str, translator: Translator, *programs: Program | None) -> str:
    """Return an event's name for readers: as the first of these journeys names it, else our own label for it, else its key."""
    for program in programs:
        if program is not None and name in program.definition.event_names:
            return program.definition.event_names[name].text(translator.language)
    if name.startswith("winner:"):
        return translator.gettext(N_("the winner of the test"))
    return translator.gettext(EVENT[name]) if name in EVENT else readable_key(name)


# What a mail server's refusal means, by the beginning of its enhanced status code (RFC 3463).
REFUSALS = {
    "5.1": N_("the address does not exist or takes no mail"),
    "5.2": N_("the mailbox is full or takes no mail"),
    "5.3": N_("the message is too large, or the recipient's mail server cannot take it"),
    "5.4": N_("the recipient's mail server could not be reached"),
    "5.7": N_("the recipient's mail server does not take our mail"),
}
_ENHANCED = re.compile(r"\b(5\.\d)\.\d{1,3}\b")


def delivery_text(message: Message, translator: Translator) -> str:
    """Return why a message is not with its recipient yet or ever; "" when its status says all there is to say."""
    if message.status is MessageStatus.deferred:
        return retry_text(message.code or "no_answer", translator)
    if message.status is MessageStatus.uncertain:
        return translator.gettext(N_("the connection broke before the answer came"))
    if message.status in (MessageStatus.bounced, MessageStatus.rejected):
        found = _ENHANCED.search(f"{message.code} {message.detail}")
        other = N_("the recipient's mail server refused it") if message.channel == "email" else N_("the recipient's network refused it")
        return translator.gettext(REFUSALS.get(found[1], other) if found else other)
    return ""


def _ended(enrollment: Enrollment, program: Program | None, translator: Translator) -> StatusText:
    label = OUTCOME.get(enrollment.outcome or "", ENROLLMENT[EnrollmentStatus.ended])
    detail = translator.short(enrollment.ended_at) if enrollment.ended_at else ""
    is_shown = enrollment.outcome in (Outcome.exit, Outcome.goal, Outcome.stopped)
    place = end_reason(enrollment.reason, translator, program) if is_shown else ""
    return StatusText(label, place, detail)


def step_name(step: Step, translator: Translator) -> str:
    """Return a step's name for readers: its own name, else its description; for a task without a name "Task", as its title holds slots."""
    if step.kind == "task" and not step.name:
        return translator.gettext(STEP[step.kind])
    return describe_step(step, translator.language)[0]
