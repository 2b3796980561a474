"""`distmark journeys check`: every finding with its line, its place and its hint, in both languages."""

# ruff: noqa: E501  (a row of a table stays on its line)

import re
from datetime import UTC, datetime
from pathlib import Path
from string import Formatter

import pytest

from distmark.journeys.checks.run import check, has_errors
from distmark.journeys.definition import parse
from distmark.journeys.findings import MESSAGES, DefinitionError, Severity
from distmark.journeys.source import Source, load_source, scan
from tests.journeys import HEAD, MAIL, SEND, WAIT, found_in

NOW = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)


def branch(when: str, *more: str) -> str:
    arms = [f'      - {{when: "{when}", steps: [{{id: yes-0, update: {{plan: gold}}}}]}}', *more]
    return SEND + WAIT + "  - id: split\n    branch:\n" + "\n".join(arms) + "\n"


def test_a_journey_without_mistakes_has_no_findings() -> None:
    assert found_in(branch("clicked('welcome', 'plans') and days_until(contact.renewal_date) < 30 and journey.topic == 'x'"), now=NOW) == []


HEAD_CASES = [
    # (replace, by, code, line, suggestion)
    ("key: sample", "key: Sample Journey", "bad-name", 1, None),
    ("brand: acme", "brnd: acme", "unknown-field", 3, "brand"),
    ("brand: acme\n", "", "missing-field", 1, None),
    ("brand: acme", "brand: acme\nbrand: other", "double-field", 4, None),
    ("kind: marketing", "kind: markting", "bad-choice", 5, "marketing"),
    ("languages: [ja]", "languages: [japanese]", "bad-value", 4, None),
    ("languages: [ja]", "languages: ja", "bad-value", 4, None),
    ("reentry: after_exit", "reentry: after_exits", "bad-choice", 6, "after_exit"),
    ("cooldown: 30 days", "cooldown: 30 dys", "bad-duration", 6, None),
    ("cooldown: 30 days", "on: event", "bad-entry", 6, None),
    ("cooldown: 30 days", "segment: vip, event: booked", "bad-entry", 6, None),
    ("cooldown: 30 days", "event: bookd", "unknown-event", 6, "booked"),
    ("kind: marketing", "event_names: {bookd: Booked}", "unknown-event", 5, "booked"),
    ("cooldown: 30 days", "event: booked, where: \"evnt.value > 1\"", "unknown-name", 6, "event"),
    ("cooldown: 30 days", "date: contact.renewl_date, offset: -30 days, every: year", "unknown-attribute", 6, "contact.renewal_date"),
    ("cooldown: 30 days", "date: contact.plan", "not-a-date", 6, None),
    ("cooldown: 30 days", "cap: 500 a day", "bad-cap", 6, None),
    ("cooldown: 30 days", "cap: 0 per day", "bad-cap", 6, None),
    ("cooldown: 30 days", "filter: \"contact.plam == 'x'\"", "unknown-attribute", 6, "contact.plan"),
    ("converted('bought')", "convrted('bought')", "unknown-function", 7, "converted"),
    ("converted('bought')", "converted('bougt')", "unknown-event", 7, "bought"),
    ("converted('bought')", "converted('bought'", "bad-expression", 7, None),
    ("target: 12%", "target: 12", "bad-percent", 7, None),
    ("target: 12%", "target: 120%", "bad-percent", 7, None),
    ("contact.is_client", "contact.is_clent", "unknown-attribute", 8, "contact.is_client"),
    ("contact.is_client", "contct.is_client", "unknown-name", 8, "contact"),
    ("contact.is_client", "converted", "bad-arguments", 8, None),
    ("reason: became a client", "reason: {ja: 1}", "bad-words", 8, None),
    ("21:00-08:00", "21-8", "bad-window", 9, None),
    ("21:00-08:00", "08:00-08:00", "whole-day-window", 9, None),
    ("days: weekdays", "days: [mon, tues]", "bad-days", 9, None),
    ("holidays: JP", "holidays: Japan", "bad-holidays", 9, None),
    ("caps: marketing", "caps: marketng", "bad-choice", 9, "marketing"),
    ("is_client: bool", "is_client: boolean", "bad-choice", 10, "bool"),
    ("is_client: bool", "isClient: bool, is_client: bool", "bad-identifier", 10, None),
    ("https://example.com/book", "example.com/book", "bad-url", 13, None),
    ("partner.code", "partner.cod", "unknown-attribute", 13, "partner.code"),
    ("partner.code", "partnr.code", "unknown-name", 13, "partner"),
    ("kind: text,", "kind: texts,", "bad-choice", 14, "text"),
    ("default: {ja: 一言}", "default: {en: a word}", "missing-language", 14, None),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "code", "line", "suggestion"), HEAD_CASES, ids=[f"{case[2]}-{case[1][:24]}" for case in HEAD_CASES])
def test_a_mistake_in_the_head_is_found_in_its_line(old: str, new: str, code: str, line: int, suggestion: str | None) -> None:
    found = found_in(SEND, HEAD.replace(old, new))

    assert [(item.code, item.line, item.suggestion) for item in found if item.code == code] == [(code, line, suggestion)]
    assert all(item.file == "journey.yaml" for item in found)


STEP_CASES = [
    # (steps, code, line, step, field, suggestion)
    ("  - {id: a, sned: email}\n", "unknown-kind", 16, "a", "sned", "send"),
    ("  - {id: a}\n", "unknown-kind", 16, "a", None, None),
    ("  - {id: a, exit: x, goto: a}\n", "two-kinds", 16, "a", None, None),
    ("  - {exit: x}\n", "missing-field", 16, None, "id", None),
    ("  - {id: A b, exit: x}\n", "bad-name", 16, "A b", "id", None),
    ("  - {id: a, send: fax, message: x}\n", "bad-choice", 16, "a", "send", None),
    (SEND.replace("editable", "editble"), "unknown-field", 16, "welcome", "editble", "editable"),
    (SEND.replace("[note]", "[not]"), "unknown-block", 16, "welcome", "editable.0", "note"),
    (SEND.replace("[note]", "note"), "bad-value", 16, "welcome", "editable", None),
    (SEND + SEND, "double-id", 17, "welcome", "id", None),
    (branch("clicked('welcome')", "      - {otherwise: true, steps: [{id: yes-0, exit: x}]}"), "double-id", 21, "yes-0", "id", None),
    ("  - id: a\n    wait:\n      fro: 3 days\n", "unknown-field", 18, "a", "wait.fro", "for"),
    ("  - {id: a, wait: {for: 3 dayz}}\n", "bad-duration", 16, "a", "wait.for", None),
    ("  - {id: a, wait: {for: 0 days}}\n", "no-duration", 16, "a", "wait", None),
    ("  - {id: a, wait: {for: 300 years}}\n", "long-duration", 16, "a", "wait.for", None),
    ("  - {id: a, wait: {until: '9 am'}}\n", "bad-time", 16, "a", "wait.until", None),
    ("  - {id: a, wait: {until: 24:00}}\n", "bad-time", 16, "a", "wait.until", None),
    ("  - {id: a, wait: {until: '09:00', days: [someday]}}\n", "bad-days", 16, "a", "wait.days", None),
    ("  - {id: a, wait: {on: tomorrow}}\n", "bad-date", 16, "a", "wait.on", None),
    ("  - {id: a, wait: {on: contact.plan}}\n", "not-a-date", 16, "a", "wait.on", None),
    ("  - {id: a, wait: {on: contact.renewaldate}}\n", "unknown-attribute", 16, "a", "wait.on", "contact.renewal_date"),
    ("  - {id: a, wait: {days: weekdays}}\n", "bad-wait", 16, "a", "wait", None),
    ("  - {id: a, wait: {for: 1 day, timeout: 2 days}}\n", "bad-wait", 16, "a", "wait", None),
    ("  - {id: a, wait: {event: booked, on_timeout: a}}\n", "bad-wait", 16, "a", "wait", None),
    ("  - {id: a, wait: {until: best_time}}\n", "bad-wait", 16, "a", "wait", None),
    ("  - {id: a, wait: {event: clicked}}\n", "bad-wait", 16, "a", "wait", None),
    ("  - {id: a, wait: {event: bookd}}\n", "unknown-event", 16, "a", "wait.event", "booked"),
    (SEND + "  - {id: a, wait: {event: clicked, of: welcom}}\n", "unknown-step", 17, "a", "wait.of", "welcome"),
    (SEND + "  - {id: a, wait: {event: clicked, of: welcome, link: plan}}\n", "unknown-link", 17, "a", "wait.link", "plans"),
    ("  - {id: a, wait: {event: booked, timeout: 1 day, on_timeout: en}}\n  - {id: end, exit: x}\n", "unknown-step", 16, "a", "wait.on_timeout", "end"),
    (WAIT + "  - {id: a, goto: paus}\n", "unknown-step", 17, "a", "goto", "pause"),
    (branch("clicked('welcom')"), "unknown-step", 20, "split", "branch.0.when", "welcome"),
    (branch("clicked('pause')"), "not-a-send", 20, "split", "branch.0.when", None),
    (branch("clicked('welcome', 'plan')"), "unknown-link", 20, "split", "branch.0.when", "plans"),
    (branch("clickd('welcome')"), "unknown-function", 20, "split", "branch.0.when", "clicked"),
    (branch("clicked('welcome', to='plans')"), "bad-arguments", 20, "split", "branch.0.when", None),
    (branch("clicked()"), "bad-arguments", 20, "split", "branch.0.when", None),
    (branch("opened('welcome', by='humans')"), "bad-choice", 20, "split", "branch.0.when", "human"),
    (branch("campain.key == 'x'"), "unknown-name", 20, "split", "branch.0.when", "campaign"),
    (branch("event.value > 1"), "unknown-name", 20, "split", "branch.0.when", None),
    (branch("partner.citty == 'x'"), "unknown-attribute", 20, "split", "branch.0.when", "partner.city"),
    (branch("journey.topik == 'x'"), "unknown-attribute", 20, "split", "branch.0.when", "journey.topic"),
    (branch("answer('welcome').ok"), "not-a-webhook", 20, "split", "branch.0.when", None),
    (branch("contact.plan | uper == 'X'"), "bad-expression", 20, "split", "branch.0.when", None),
    (branch("contact.plan", "      - {when: \"contact.city\", otherwise: true}"), "bad-arm", 21, "split", "branch.1", None),
    (branch("contact.plan", "      - {otherwise: true}", "      - {when: \"contact.city\"}"), "otherwise-last", 18, "split", None, None),
    ("  - {id: a, branch: 5}\n", "bad-branch", 16, "a", "branch", None),
    ("  - {id: a, branch: {random: [{name: x, share: 50%}, {name: y, share: 40%}]}}\n", "bad-shares", 16, "a", "branch", None),
    ("  - {id: a, branch: {random: [{name: x}]}}\n", "few-arms", 16, "a", "branch", None),
    ("  - {id: a, branch: {random: [{name: x}, {name: x}]}}\n", "double-arm", 16, "a", "branch", None),
    ("  - {id: a, branch: {random: [{name: x, share: 0.5}, {name: y}]}}\n", "bad-percent", 16, "a", "branch.random.0.share", None),
    ("  - {id: a, branch: {test: {metric: clicks, evaluate_after: 3 days}}, arms: [{name: x}, {name: y}]}\n", "bad-choice", 16, "a", "branch.test.metric", "click"),
    ("  - {id: a, branch: {test: {metric: click, evaluate_after: 3 minutes}}, arms: [{name: x}, {name: y}]}\n", "bad-test", 16, "a", "branch.test", None),
    ("  - {id: a, branch: {test: {metric: click, link: plan, evaluate_after: 3 days}}, arms: [{name: x}, {name: y}]}\n", "unknown-link", 16, "a", "branch.test.link", "plans"),
    ("  - {id: a, branch: {test: {metric: revenue, event: bougt, evaluate_after: 3 days}}, arms: [{name: x}, {name: y}]}\n", "unknown-event", 16, "a", "branch.test.event", "bought"),
    ("  - {id: a, task: {title: '{{ contact.firstname }}'}}\n", "unknown-attribute", 16, "a", "task.title", "contact.first_name"),
    ("  - {id: a, task: {title: {ja: '{{ contact.first_name }'}}}\n", "bad-expression", 16, "a", "task.title", None),
    ("  - {id: a, task: {for: boss, title: x}}\n", "bad-choice", 16, "a", "task.for", None),
    ("  - {id: a, update: {plam: gold}}\n", "unknown-attribute", 16, "a", "update.plam", "contact.plan"),
    ("  - {id: a, update: {}}\n", "empty-list", 16, "a", "update", None),
    ("  - {id: a, webhook: {url: ftp://x.example}}\n", "bad-url", 16, "a", "webhook.url", None),
    ("  - {id: a, update: {renewal_date: soon}}\n", "bad-field-value", 16, "a", "update.renewal_date", None),
    ("  - {id: a, webhook: {url: 'https://{{ contact.city }}/x'}}\n", "bad-url", 16, "a", "webhook.url", None),
    ("  - {id: a, webhook: {url: 'https://x.example', timeout_seconds: 600}}\n", "bad-value", 16, "a", "webhook.timeout_seconds", None),
    ("  - {id: a, audience: {add: x, remove: y}}\n", "bad-audience", 16, "a", "audience", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "code", "line", "step", "field", "suggestion"),
    STEP_CASES,
    ids=[f"{case[1]}-{number}" for number, case in enumerate(STEP_CASES)],
)
def test_a_mistake_in_a_step_is_found_with_line_step_and_field(
    steps: str, code: str, line: int, step: str | None, field: str | None, suggestion: str | None
) -> None:
    """DESIGN 4: an unknown name is a check error with file, line, step and field."""
    found = [item for item in found_in(steps) if item.code == code]

    assert [(item.line, item.step, item.field, item.suggestion) for item in found] == [(line, step, field, suggestion)]
    assert found[0].file == "journey.yaml"


SHAPE_CASES = [
    # Behind an exit, and only the first of what is lost.
    ("  - {id: a, exit: x}\n  - {id: b, update: {plan: x}}\n  - {id: c, update: {plan: x}}\n", "unreachable", 17, "b", "error"),
    ("  - {id: a, goto: c}\n  - {id: b, update: {plan: x}}\n  - {id: c, exit: x}\n", "unreachable", 17, "b", "error"),
    (branch("true", "      - {otherwise: true, steps: [{id: b, exit: x}]}"), "dead-arm", 21, "split", "error"),
    (branch("false"), "dead-arm", 20, "split", "error"),
    (branch("contact.plan", "      - {when: \"contact.plan\"}"), "dead-arm", 21, "split", "error"),
    ("  - {id: a, branch: {random: [{name: x, share: 100%}, {name: y, share: 0%}]}}\n", "dead-arm", 16, "a", "error"),
    ("  - {id: a, update: {plan: x}}\n  - {id: b, goto: a}\n", "endless-loop", 16, "a", "error"),
    ("  - {id: a, wait: {on: 2027-01-01}}\n  - {id: b, goto: a}\n", "endless-loop", 16, "a", "error"),
    ("  - {id: a, wait: {when: contact.plan}}\n  - {id: b, goto: a}\n", "endless-loop", 16, "a", "error"),
    ("  - {id: a, branch: [{when: contact.plan, steps: [{id: b, goto: a}]}]}\n", "endless-loop", 16, "a", "error"),
    ("  - {id: a, branch: [{when: \"opened('welcome')\"}]}\n" + WAIT + SEND, "not-sent-before", 16, "a", "error"),
    # On the other arm of the same split.
    (
        "  - id: s\n    branch:\n      - {when: contact.plan, steps: [{id: welcome, send: email, message: welcome, editable: [note]}]}\n"
        "      - {otherwise: true, steps: [{id: t, task: {title: \"{{ clicked('welcome') }}\"}}]}\n", "not-sent-before", 19, "t", "error",
    ),
    ("  - {id: a, wait: {event: clicked, of: welcome, timeout: 1 day}}\n" + SEND, "not-sent-before", 16, "a", "error"),
    (SEND + "  - {id: a, branch: [{when: \"clicked('welcome')\"}]}\n", "no-time", 17, "a", "warning"),
    ("  - {id: a, wait: {on: 2026-01-01}}\n", "past-wait", 16, "a", "error"),
    # In the past of the day waited for before it, whatever today is.
    ("  - {id: a, wait: {on: 2027-03-01}}\n  - {id: b, wait: {on: 2027-02-01, at: '09:00'}}\n", "past-wait", 17, "b", "error"),
    (SEND + "".join(f"  - {{id: w{n}, wait: {{for: 1 day}}}}\n  - {{id: m{n}, send: email, message: welcome}}\n" for n in range(3)), "too-often", 16, "welcome", "warning"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "code", "line", "step", "severity"), SHAPE_CASES, ids=[f"{case[1]}-{number}" for number, case in enumerate(SHAPE_CASES)]
)
def test_a_journey_that_does_not_hold_together_is_found(steps: str, code: str, line: int, step: str, severity: str) -> None:
    """L10: nothing asks about a message that was not sent."""
    found = [item for item in found_in(steps, now=NOW) if item.code == code]

    assert [(item.line, item.step, str(item.severity)) for item in found] == [(line, step, severity)]


FINE = [
    # A loop with a wait; a loop that ends by itself; a bounded retry.
    WAIT + "  - {id: again, goto: pause}\n",
    "  - {id: a, webhook: {url: 'https://x.example'}}\n  - {id: b, branch: [{when: \"not answer('a').ok\", steps: [{id: c, goto: a, at_most: 3}]}]}\n",
    # A loop through a time of day, and through an anniversary.
    "  - {id: a, wait: {until: '09:00'}}\n  - {id: b, goto: a}\n",
    "  - {id: a, wait: {on: contact.birthday, every: year}}\n  - {id: b, goto: a}\n",
    # Asked by the wait itself; asked behind the wait; asked in the next round.
    SEND + "  - {id: a, wait: {event: clicked, of: welcome, timeout: 1 day}}\n",
    SEND + "  - {id: a, wait: {when: \"clicked('welcome')\", timeout: 1 day}}\n",
    SEND + "  - {id: a, wait: {on: 2027-01-01}}\n  - {id: b, branch: [{when: \"clicked('welcome')\"}]}\n",
    "  - {id: a, branch: [{when: \"clicked('welcome')\", steps: [{id: x, exit: x}]}]}\n" + SEND + WAIT + "  - {id: again, goto: a}\n",
    # Bounced is known at once.
    SEND + "  - {id: a, branch: [{when: \"bounced('welcome')\"}]}\n",
    # Three within a week is the cap; the fourth comes a week after the first.
    SEND + "".join(f"  - {{id: w{n}, wait: {{for: {d} days}}}}\n  - {{id: m{n}, send: email, message: welcome}}\n" for n, d in enumerate((3, 3, 1))),
    # Reached only when time is up.
    "  - {id: a, wait: {event: booked, timeout: 1 day, on_timeout: late}}\n  - {id: b, exit: x}\n  - {id: late, exit: y}\n",
    # A link that the renderer named by itself.
    branch("clicked('welcome', 'link-2')"),
    "  - {id: a, wait: {event: task_done, timeout: 1 day}}\n",
]  # fmt: skip


@pytest.mark.parametrize("steps", FINE, ids=range(len(FINE)))
def test_what_is_right_is_not_complained_about(steps: str) -> None:
    assert [
        item for item in found_in(steps, templates={} if "welcome" not in steps else None, now=NOW) if item.code not in ("unused-template",)
    ] == []


TEMPLATE_CASES = [
    # (template, text, code, line, suggestion)
    ("welcome.ja.text.txt", "a\n{% if contact.city %}\n{{ legal_footer }}", "bad-template", 3, None),
    ("welcome.ja.text.txt", "a\n{{ contact.first_name }\n{{ legal_footer }}", "bad-template", 2, None),
    ("welcome.ja.mjml", "<mjml>\n{% if x %}{% endif %}{{ legal_footer }}</mjml>", "statement-in-mjml", 2, None),
    ("welcome.ja.text.txt", "{{ legal_footer }}\n\n{{ contct.city }}", "unknown-name", 3, "contact"),
    ("welcome.ja.text.txt", "{{ legal_footer }}\n{{ contact.firstname }}", "unknown-attribute", 2, "contact.first_name"),
    ("welcome.ja.mjml", "<mjml>{{ legal_footer }}\n{{ blocks.note }}{{ blocks.notes }}</mjml>", "unknown-block", 2, "note"),
    ("welcome.ja.mjml", "<mjml>{{ legal_footer }}\n\n{{ links.plan }}</mjml>", "unknown-link", 3, "plans"),
    ("welcome.ja.text.txt", "{{ legal_footer }}\n{{ contact.city | uper }}", "unknown-filter", 2, "upper"),
    ("welcome.ja.text.txt", "no footer", "missing-footer", 1, None),
    ("welcome.ja.mjml", "<mjml></mjml>", "missing-footer", 1, None),
    ("welcome.ja.mjml", "<mjml>{{ legal_footer }}" + "あ" * 35_000 + "</mjml>", "big-message", 1, None),
    ("welcome.ja.subject.txt", "  \n", "empty-subject", 1, None),
    ("welcome.ja.subject.txt", "one\ntwo", "subject-lines", 2, None),
    ("other.ja.text.txt", "x", "unused-template", 1, None),
    ("welcome.fr.text.txt", "x", "unused-template", 1, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "code", "line", "suggestion"),
    TEMPLATE_CASES,
    ids=[f"{case[2]}-{number}" for number, case in enumerate(TEMPLATE_CASES)],
)
def test_a_mistake_in_a_template_is_found_in_its_own_file(name: str, text: str, code: str, line: int, suggestion: str | None) -> None:
    found = [item for item in found_in(templates={**MAIL, name: text}) if item.code == code]

    assert [(item.file, item.line, item.suggestion) for item in found] == [(f"messages/{name}", line, suggestion)]


def test_loops_and_conditions_in_texts_are_fine() -> None:
    text = "{% for word in ['a', 'b'] %}{{ loop.index }} {{ word }}{% endfor %}{{ blocks.note }}{{ legal_footer }}"

    assert found_in(templates={**MAIL, "welcome.ja.text.txt": text}) == []


def test_a_style_sheet_in_mjml_is_no_template() -> None:
    style = "<mjml><mj-style>@media {#a{color:red}} .b{#}</mj-style>{{ blocks.note }}{{ links.plans }}{{ legal_footer }}</mjml>"

    assert found_in(templates={**MAIL, "welcome.ja.mjml": style}) == []


@pytest.mark.parametrize("missing", sorted(MAIL))
def test_a_file_that_lacks_is_found_where_the_message_is_sent(missing: str) -> None:
    found = found_in(templates={name: text for name, text in MAIL.items() if name != missing})

    assert [(item.code, item.file, item.line, item.step) for item in found] == [("missing-template", "journey.yaml", 16, "welcome")]
    assert f"messages/{missing}" in found[0].message()


def test_every_language_needs_its_files() -> None:
    found = found_in(head=HEAD.replace("languages: [ja]", "languages: [ja, en]"))

    assert [item.values["template"] for item in found if item.code == "missing-template"] == [
        "messages/welcome.en.subject.txt", "messages/welcome.en.text.txt", "messages/welcome.en.mjml",
    ]  # fmt: skip


def test_a_misnamed_file_is_suggested() -> None:
    renamed = {name.replace("welcome.ja.mjml", "welcom.ja.mjml"): text for name, text in MAIL.items()}

    found = [item for item in found_in(templates=renamed) if item.code == "missing-template"]

    assert found[0].hint() == 'Did you mean "messages/welcom.ja.mjml"?'


def test_an_editable_block_that_no_template_shows_is_a_warning() -> None:
    hidden = {name: text.replace("{{ blocks.note }}", "") for name, text in MAIL.items()}

    found = found_in(templates=hidden)

    assert [(item.code, item.field, item.severity) for item in found] == [("unused-block", "editable.0", Severity.warning)]


def test_a_link_that_the_message_does_not_hold_is_a_warning() -> None:
    without = {name: text.replace("{{ links.plans }}", "") for name, text in MAIL.items()}

    found = found_in(branch("clicked('welcome', 'plans')"), templates=without)

    assert [(item.code, item.line) for item in found] == [("link-not-in-message", 20)]


def test_a_journey_that_nobody_wrote_is_found_when_the_others_are_known() -> None:
    source = Source(HEAD + "  - {id: a, journey: welcom-back}\n", {}, "sample")

    found = check(source, journeys=["welcome-back"])

    assert [(item.code, item.suggestion) for item in found] == [("unknown-journey", "welcome-back")]
    assert check(source) == []


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("key: [a", "bad-yaml", 1),
        ("key: a\n  name: b", "bad-yaml", 2),
        ("- a\n- b", "not-a-mapping", 1),
        ("", "not-a-mapping", 1),
        ("a: &a [*a]", "bad-yaml", 1),
        ("key: x\nsteps: []\nname: x\nbrand: y", "empty-list", 2),
        ("x" * 500_001, "big-file", 1),
        ("a: " + "[" * 200 + "]" * 200, "bad-yaml", 1),
        ("a: " + "[" * 5000 + "]" * 5000, "bad-yaml", 1),
    ],
)
def test_a_file_that_is_no_journey_is_found(text: str, code: str, line: int) -> None:
    first = check(Source(text, {}, "sample"))[0]

    assert (first.code, first.line) == (code, line)


def test_many_aliases_do_not_blow_up() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(8)
    )

    assert check(Source(bomb, {}, "sample"))[0].code == "bad-yaml"


def test_all_mistakes_are_told_at_once_in_file_order() -> None:
    steps = "  - {id: a, wait: {for: 3 dys}}\n  - {id: b, exitt: x}\n  - {id: c, send: emial, message: x}\n"

    found = found_in(steps, HEAD.replace("caps: marketing", "caps: marketng"), {"x.ja.mjml": "{% if %}"})

    assert [(item.file, item.line) for item in found] == [
        ("journey.yaml", 9), ("journey.yaml", 16), ("journey.yaml", 17), ("journey.yaml", 18), ("messages/x.ja.mjml", 1),
    ]  # fmt: skip
    assert has_errors(found)


def test_a_finding_reads_as_one_line_in_both_languages() -> None:
    found = found_in(branch("clicked('welcom')"))[0]

    assert found.line_of_text("en") == 'journey.yaml:20: error: [split.branch.0.when] There is no step "welcom". Did you mean "welcome"?'
    assert (
        found.line_of_text("ja")
        == "journey.yaml:20: error: [split.branch.0.when] 「welcom」というステップはありません。 「welcome」のことですか？"
    )
    assert found.to_json("en")["hint"] == 'Did you mean "welcome"?'


@pytest.mark.parametrize("code", sorted(MESSAGES))
def test_every_finding_is_worded_alike_in_both_languages(code: str) -> None:
    wording = MESSAGES[code]
    slots = {lang: {name for _, name, _, _ in Formatter().parse(text) if name} for lang, text in (("en", wording.en), ("ja", wording.ja))}

    assert wording.en.endswith((".", "{reason}."))
    assert re.search(r"[ぁ-んァ-ヶ一-龠]", wording.ja)
    assert {name.removesuffix("_ja") for name in slots["ja"]} <= slots["en"]


def test_every_finding_of_the_table_is_tested_or_has_no_case_of_its_own() -> None:
    tested = (
        {case[2] for case in HEAD_CASES}
        | {case[1] for case in STEP_CASES}
        | {case[1] for case in SHAPE_CASES}
        | {case[2] for case in TEMPLATE_CASES}
    )
    elsewhere = {
        "bad-yaml", "not-a-mapping", "big-file", "missing-template", "unused-block", "link-not-in-message", "unknown-journey",
        "not-text", "long-text", "channel-lacking", "no-expression", "long-expression", "never-evaluates",
        "not-possible", "unknown-segment", "unknown-secret", "never-made", "sometimes-missing", "sometimes-unmade", "personal-link",
    }  # fmt: skip

    assert set(MESSAGES) - tested - elsewhere == set()


def test_parse_raises_with_all_findings() -> None:
    with pytest.raises(DefinitionError) as caught:
        parse(Source(HEAD.replace("brand: acme\n", "") + "  - {id: a, wait: {for: 3 dys}}\n", {}, "sample"))

    assert [item.code for item in caught.value.findings] == ["missing-field", "bad-duration"]
    assert "journey.yaml:15" in str(caught.value)


def test_a_single_file_names_itself() -> None:
    found = check(Source("key: x", {}, "/somewhere/sample.yaml"))

    assert {item.file for item in found} == {"sample.yaml"}


@pytest.mark.parametrize("path", scan(Path(__file__).parents[3] / "journey_defs"), ids=lambda path: path.name)
def test_the_journeys_that_come_along_have_no_errors(path: Path) -> None:
    assert [item.line_of_text() for item in check(load_source(path)) if item.severity is Severity.error] == []


def test_a_very_long_journey_is_checked_quickly() -> None:
    """A thousand steps with a loop of short waits: no recursion, no explosion."""
    steps = "".join(f"  - {{id: s{n}, update: {{plan: x}}}}\n  - {{id: w{n}, wait: {{for: 10 minutes}}}}\n" for n in range(500))

    found = found_in(SEND + steps + "  - {id: again, goto: s0}\n")

    assert found == []


def test_a_loop_of_short_waits_that_sends_is_too_often() -> None:
    found = found_in(SEND + "  - {id: w, wait: {for: 90 minutes}}\n  - {id: again, goto: welcome}\n")

    assert [(item.code, item.step) for item in found] == [("too-often", "welcome")]
