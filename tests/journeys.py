"""Sample journeys for tests of the language: their findings, and their programs."""

from collections.abc import Mapping
from datetime import datetime
from textwrap import dedent

from distmark.journeys.checks.run import check
from distmark.journeys.definition import parse
from distmark.journeys.findings import Finding
from distmark.journeys.program import Program, build_program
from distmark.journeys.source import Source

# Lines 1 to 15; the steps of a case begin in line 16.
Lacking = Mapping[str, Mapping[str, str]] | None
HEAD = """\
key: sample
name: {ja: 見本, en: Sample}
brand: acme
languages: [ja]
kind: marketing
entry: {reentry: after_exit, cooldown: 30 days}
goal: {when: "converted('bought')", target: 12%}
exit: [{when: "contact.is_client", reason: became a client}]
send_policy: {quiet_hours: "21:00-08:00", days: weekdays, holidays: JP, caps: marketing}
contact_fields: {is_client: bool, renewal_date: date, plan: text}
journey_fields: {topic: text}
events: [booked, bought]
links: {plans: "https://example.com/plans?ref={{ partner.code }}", book: "https://example.com/book"}
blocks: {note: {label: Note, kind: text, default: {ja: 一言}}}
steps:
"""
SEND = "  - {id: welcome, send: email, message: welcome, editable: [note]}\n"
WAIT = "  - {id: pause, wait: {for: 3 days, until: '09:00'}}\n"
MAIL = {
    "welcome.ja.subject.txt": "ようこそ {{ contact.first_name }}様",
    "welcome.ja.text.txt": "{{ greeting }}\n{{ blocks.note }}\n{{ links.plans }} {{ links.book }}\n{{ legal_footer }}",
    "welcome.ja.mjml": "<mjml><mj-body>{{ blocks.note }} {{ links.plans }} {{ links.book }}\n{{ legal_footer }}</mj-body></mjml>",
}


def found_in(
    steps: str = SEND, head: str = HEAD, templates: dict[str, str] | None = None, *, now: datetime | None = None, lacking: Lacking = None
) -> list[Finding]:
    return check(Source(head + steps, MAIL if templates is None else templates, "sample"), now=now, lacking=lacking)


WALKED_HEAD = """
key: sample
name: Sample
brand: acme
goal: {when: "converted('bought')", name: {ja: 購入, en: Purchase}}
exit: [{when: "contact.is_client", reason: became a client}, {when: "in_segment('closed')", reason: closed}]
contact_fields: {is_client: bool, renewal_date: date, plan: text, score: number}
events: [booked, bought]
links: {plans: "https://example.com/plans", book: "https://example.com/book"}
"""


def program_of(steps: str, head: str = WALKED_HEAD) -> Program:
    return build_program(parse(Source(head + "steps:\n" + dedent(steps))))
