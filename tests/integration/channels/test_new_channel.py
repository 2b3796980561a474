"""Adding a channel: its own folder with a `ChannelKind`, and one row in the registry; language, check, consent, sending, preview follow."""

from collections.abc import Mapping
from datetime import timedelta

import pytest

from distmark.channels import registry
from distmark.channels.base import Channel
from distmark.channels.kind import Addressed, AddressForm, ChannelKind, Probe
from distmark.channels.memory import MemoryChannel
from distmark.clock import FixedClock
from distmark.contacts.consents import record_consent, suppress
from distmark.contacts.model import SuppressionReason
from distmark.db import Database
from distmark.journeys.describe import describe_step
from distmark.journeys.schema import json_schema
from distmark.messages.model import MessageStatus
from distmark.messages.service import preview
from distmark.settings import Settings
from tests.driver import Stage
from tests.journeys import found_in, program_of

# --- what the new folder would hold ------------------------------------------------------------------------------------------------------

SENT = MemoryChannel()


def _address(person: Addressed) -> str | None:
    return person.attributes.get("line_id")


def _lacks(settings: Settings) -> Mapping[str, str]:
    return {} if settings.mode == "test" else {"ja": "LINE の接続設定", "en": "a LINE channel access token"}


def _make(settings: Settings) -> Channel:
    return SENT


def _probe(settings: Settings) -> Probe:
    return Probe("LINE", "api.line.example answers")


LINE = ChannelKind(
    key="line",
    labels={"ja": "LINE", "en": "LINE"},
    text="line.txt",
    address=_address,
    form=AddressForm.identifier,
    lacks=_lacks,
    make=_make,
    probe=_probe,
)

# --- its one row -------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> MemoryChannel:
    monkeypatch.setitem(registry.CHANNELS, "line", LINE)
    SENT.accepted.clear()
    return SENT


STEPS = "  - {id: hello, send: line, message: hello}\n"
TEMPLATES = {f"hello.{lang}.line.txt": "{{ greeting }} {{ legal_footer }}" for lang in ("ja", "en")}


def stage_with_line(db: Database, clock: FixedClock) -> Stage:
    stage = Stage(db, clock)
    stage.more_channels = registry.make_channels(Settings(mode="test", _env_file=None))
    return stage


async def test_message_of_a_new_channel_reaches_the_address_that_the_channel_knows(
    db: Database, clock: FixedClock, line: MemoryChannel
) -> None:
    stage = stage_with_line(db, clock)
    campaign = stage.journey(STEPS, templates=TEMPLATES)
    hanako, taro = stage.contact(attributes={"line_id": "U4711"}), stage.contact()
    with db.writing() as session:
        for person in (hanako, taro):
            record_consent(session, person.id, "line", given=True, now=clock.now(), source="test")

    results = stage.enrol(campaign, hanako, taro)
    await stage.run_for(timedelta(hours=1))

    assert [result.verdict.value for result in results] == ["enrolled", "no_address"]
    assert [message.to_address for message in line.accepted] == ["U4711"]
    assert [message.status for message in stage.messages(hanako)] == [MessageStatus.sent]


async def test_refusal_on_a_new_channel_is_of_that_channel_alone(db: Database, clock: FixedClock, line: MemoryChannel) -> None:
    stage = stage_with_line(db, clock)
    campaign = stage.journey(STEPS + "  - {id: mail, send: email, message: one}\n", templates=TEMPLATES)
    hanako = stage.contact(attributes={"line_id": "U4711"})
    with db.writing() as session:
        record_consent(session, hanako.id, "line", given=True, now=clock.now(), source="test")

    stage.enrol(campaign, hanako)
    with db.writing() as session:
        suppress(session, stage.brand.id, "line", "U4711", SuppressionReason.unsubscribed, clock.now())
    await stage.run_for(timedelta(hours=1))

    assert line.accepted == []
    assert [message.status for message in stage.messages(hanako)] == [MessageStatus.suppressed, MessageStatus.sent]


def test_preview_shows_what_the_new_channel_sends(db: Database, clock: FixedClock, line: MemoryChannel) -> None:
    stage = stage_with_line(db, clock)
    campaign = stage.journey(STEPS, templates=TEMPLATES)
    hanako = stage.contact(attributes={"line_id": "U4711"})
    stage.add_member(campaign, hanako)

    with db.reading() as session:
        shown = preview(session, stage.viewer, campaign.id, hanako.id, "hello", None, unsubscribe_url="https://mail.example/u/preview")

    assert (shown.channel, shown.subject, shown.html) == ("line", "", "")
    assert "鈴木" in shown.text
    assert "https://mail.example/u/preview" in shown.text  # the short footer of text messages


def test_check_schema_and_picture_know_the_new_channel(line: MemoryChannel) -> None:
    wrong = found_in("  - {id: hello, send: line, message: hello}\n", templates={})
    right = program_of("  - {id: hello, send: line, message: hello}\n")

    assert [(finding.code, finding.step) for finding in wrong] == [("missing-template", "hello")]
    assert json_schema()["$defs"]["SendStep"]["properties"]["send"]["enum"] == ["email", "sms", "line"]
    assert describe_step(right.steps["hello"], "ja")[0] == "hello LINE"


def test_channel_that_nobody_added_is_refused_with_those_that_exist() -> None:
    [wrong] = [finding for finding in found_in("  - {id: hello, send: line, message: hello}\n", templates={}) if finding.step == "hello"]

    assert (wrong.code, wrong.field) == ("bad-choice", "send")
    assert "email, sms" in wrong.message("en")


def test_check_refuses_a_channel_that_this_installation_lacks_and_says_what_is_missing(line: MemoryChannel) -> None:
    production = Settings(mode="production", secret_key="x" * 40, _env_file=None)
    found = found_in("  - {id: hello, send: line, message: hello}\n", templates={}, lacking=registry.lacking(production))

    [wrong] = [finding for finding in found if finding.code == "channel-lacking"]
    assert "a LINE channel access token" in wrong.message("en")
    assert "LINE の接続設定" in wrong.message("ja")


def test_doctor_asks_the_new_channel(line: MemoryChannel) -> None:
    settings = Settings(mode="test", smtp_port=1, _env_file=None)

    assert [probe.subject for probe in registry.probes(settings)] == ["Mail server", "LINE"]
