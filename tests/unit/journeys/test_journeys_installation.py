"""What a journey uses is known to the installation and possible in it, and its messages can be made for everybody."""

import pytest

from distmark.compliance.journey_check import Installation, check_journey, installation_of
from distmark.journeys.checks.installation import NEVER_HEARD
from distmark.journeys.findings import Finding, Severity
from distmark.journeys.source import Source
from distmark.settings import Settings
from tests.journeys import HEAD, SEND
from tests.journeys import MAIL as SAMPLE_MAIL

MAIL = SAMPLE_MAIL | {"welcome.ja.subject.txt": "ようこそ"}
WAIT = "  - {id: pause, wait: {for: 1 day}}\n"
NOTHING_LACKS = Installation({}, frozenset({"crm"}))


def findings(
    steps: str = SEND, templates: dict[str, str] | None = None, head: str = HEAD, installation: Installation = NOTHING_LACKS
) -> list[Finding]:
    return check_journey(
        Source(head + steps, {**MAIL, **(templates or {})}, "sample"), segments={"closed", "gold"}, installation=installation
    )


def test_a_journey_without_mistakes_has_no_findings() -> None:
    assert findings() == []


@pytest.mark.parametrize(
    ("steps", "code", "name"),
    [
        (SEND + WAIT + "  - {id: a, branch: [{when: \"replied('welcome')\"}]}\n", "not-possible", "replied"),
        (SEND + WAIT + "  - {id: a, branch: [{when: \"not bounced('welcome')\"}]}\n", "not-possible", "bounced"),
        (SEND + "  - {id: a, wait: {event: replied, of: welcome, timeout: 1 day}}\n", "not-possible", "replied"),
        (SEND + "  - {id: a, task: {for: marketer, title: Call}}\n", "not-possible", "task: marketer"),
        (SEND + "  - {id: a, task: {title: Call, note: soon}}\n", "not-possible", "task: note"),
        (SEND + "  - {id: a, branch: [{when: \"in_segment('never-made')\"}]}\n", "unknown-segment", "never-made"),
        (SEND + "  - {id: a, webhook: {url: 'https://x.example', secret: crn}}\n", "unknown-secret", "crn"),
    ],
)
def test_what_the_installation_lacks_or_does_not_know_is_an_error_in_both_languages(steps: str, code: str, name: str) -> None:
    found = findings(steps, installation=Installation(NEVER_HEARD, frozenset({"crm"})))

    wrong = [item for item in found if item.code == code]
    assert [(item.severity, item.values["name"]) for item in wrong] == [(Severity.error, name)]
    assert name in wrong[0].message("en")
    assert name in wrong[0].message("ja")


def test_a_known_segment_and_key_are_no_finding_and_a_misspelt_one_is_suggested() -> None:
    steps = SEND + "  - {id: a, branch: [{when: \"in_segment('gold')\"}]}\n  - {id: b, webhook: {url: 'https://x.example', secret: crm}}\n"

    assert findings(steps) == []
    assert [item.suggestion for item in findings(steps.replace("'gold'", "'golt'"))] == ["gold"]


def test_an_entry_by_a_segment_that_does_not_exist_is_found() -> None:
    found = findings(head=HEAD.replace("entry: {reentry: after_exit, cooldown: 30 days}", "entry: {segment: nobody}"))

    assert [(item.code, item.line) for item in found] == [("unknown-segment", 6)]


def test_this_installation_lacks_replies_bounces_and_the_marketers_tasks() -> None:
    found = installation_of(Settings(mode="test", webhook_secrets={"crm": "x"}, _env_file=None))

    assert {*NEVER_HEARD} <= {*found.lacking}
    assert found.secrets == {"crm"}


@pytest.mark.parametrize(
    ("name", "text", "value", "line"),
    [
        ("welcome.ja.subject.txt", "{{ contact.first_name }}さんへ", "contact.first_name", 1),
        ("welcome.ja.text.txt", "{{ legal_footer }}\n\n{{ contact.city }}", "contact.city", 3),
        ("welcome.ja.text.txt", "{{ legal_footer }}\n{{ partner.title }}", "partner.title", 2),
        ("welcome.ja.text.txt", "{{ legal_footer }}\n{{ contact['company'] | upper }}", "contact.company", 2),
    ],
)
def test_a_value_that_may_be_missing_is_a_warning_with_the_mend(name: str, text: str, value: str, line: int) -> None:
    found = [item for item in findings(templates={name: text}) if item.code == "sometimes-missing"]

    assert [(item.file, item.line, item.severity, item.values["name"]) for item in found] == [
        (f"messages/{name}", line, Severity.warning, value)
    ]
    assert f"{{{{ {value} | default(" in found[0].message("en")
    assert f"{{{{ {value} | default(" in found[0].message("ja")


@pytest.mark.parametrize(
    "text",
    ["{{ contact.city | default('x') }}", "{% if contact.city %}{{ contact.city }}{% endif %}", "{{ greeting }}", "{{ brand.name }}"],
)
def test_a_value_with_a_default_or_asked_about_is_no_warning(text: str) -> None:
    found = findings(templates={"welcome.ja.text.txt": f"{{{{ legal_footer }}}}\n{text}"})

    assert [item for item in found if item.code == "sometimes-missing"] == []


def test_several_missing_values_are_all_named() -> None:
    text = "{{ legal_footer }}\n{{ contact.city }}\n{{ contact.company }} {{ contact.city }}\n{{ contact.last_name }}"

    found = [item for item in findings(templates={"welcome.ja.text.txt": text}) if item.code == "sometimes-missing"]

    assert [(item.line, item.values["name"]) for item in found] == [(2, "contact.city"), (3, "contact.company"), (4, "contact.last_name")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("welcome.ja.text.txt", "{{ legal_footer }}\n{{ contact.first_name | number }}"),
        ("welcome.ja.subject.txt", "あ" * 201),
        ("welcome.ja.text.txt", "{{ legal_footer }}{% for a in [" + "1," * 60 + "] %}{% endfor %}"),
    ],
)
def test_a_message_that_can_be_made_for_nobody_is_an_error(name: str, text: str) -> None:
    found = [item for item in findings(templates={name: text}) if item.code == "never-made"]

    assert [item.severity for item in found] == [Severity.error]


def test_a_message_that_fails_for_an_unusual_name_is_a_warning() -> None:
    found = findings(templates={"welcome.ja.subject.txt": "{{ contact.full_name | default('-') }}" * 9})

    assert [(item.code, item.severity) for item in found] == [("sometimes-unmade", Severity.warning)]


def test_a_subject_that_may_come_out_empty_is_a_warning() -> None:
    found = findings(templates={"welcome.ja.subject.txt": "{{ contact.full_name | default('') }}"})

    assert [(item.code, item.file) for item in found] == [("sometimes-unmade", "messages/welcome.ja.subject.txt")]


def test_a_link_that_needs_a_value_that_may_be_missing_is_a_warning_at_the_link() -> None:
    found = findings(head=HEAD.replace("partner.code", "contact.plan"))

    assert [(item.code, item.file, item.line, item.values["name"]) for item in found] == [
        ("sometimes-missing", "journey.yaml", 13, "contact.plan")
    ]


def test_a_link_that_leads_nowhere_is_found_by_the_check() -> None:
    body = MAIL["welcome.ja.mjml"].replace("{{ legal_footer }}", "<a href='https://a b.example/'>x</a>{{ legal_footer }}")

    found = [item for item in findings(templates={"welcome.ja.mjml": body}) if item.severity is Severity.error]

    assert [item.file for item in found] == ["messages/welcome.ja.mjml"]


def test_a_link_out_of_a_message_to_one_person_is_found_in_a_template() -> None:
    text = "{{ legal_footer }}\nhttps://mail.example/u/AbCdEfGhIjKlMnOpQrStUv"

    found = findings(templates={"welcome.ja.text.txt": text})

    assert [(item.code, item.file, item.line) for item in found if item.code == "personal-link"] == [
        ("personal-link", "messages/welcome.ja.text.txt", 2)
    ]
