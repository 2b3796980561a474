"""Words changed after sending: the message that would say them waits, with that reason, until the partner agrees to them."""

from datetime import timedelta

import pytest
from sqlmodel import Session, col, select

from distmark.campaigns.service import save_campaign_blocks, save_member_blocks, save_partner_blocks
from distmark.campaigns.table import Campaign, Member
from distmark.compliance.table import AuditEntry
from distmark.contacts.table import Contact
from distmark.entries.members import agree, changed_words, shown_words
from distmark.errors import SelectionChanged
from distmark.journeys.model import Outcome
from tests import factories
from tests.driver import Stage

HEAD = """send_policy: {caps: none}
blocks:
  note: {label: {ja: 一言, en: Note}, max_length: 300, default: {ja: 標準の一言, en: Standard note}}
"""
STEPS = """
  - {id: first, send: email, message: words, editable: [note]}
  - {id: pause, wait: {for: 1 day}}
  - {id: second, send: email, message: words, editable: [note]}
  - {id: third, send: email, message: plain}
"""
TEXT = "{{ blocks.note }}\n{{ legal_footer }}\n"
TEMPLATES = {
    f"{message}.{lang}.{part}": text
    for message, body in (("words", TEXT), ("plain", "Plain.\n{{ legal_footer }}\n"))
    for lang in ("ja", "en")
    for part, text in (
        ("subject.txt", "件名\n"),
        ("text.txt", body),
        ("mjml", f"<mjml><mj-body><mj-section><mj-column><mj-text>{body}</mj-text></mj-column></mj-section></mj-body></mjml>"),
    )
}


@pytest.fixture
def campaign(stage: Stage) -> Campaign:
    return stage.journey(STEPS, HEAD, TEMPLATES)


def member_of(session: Session, contact: Contact) -> Member:
    return session.exec(select(Member).where(Member.contact_id == contact.id)).one()


def write(stage: Stage, campaign: Campaign, lang: str, text: str | None, layer: str, contact: Contact) -> None:
    """Write the note at this layer."""
    with stage.db.writing() as session:
        texts, now = {"note": text}, stage.clock.now()
        if layer == "campaign":
            save_campaign_blocks(session, stage.marketer, campaign.id, lang, texts, now)
        elif layer == "partner":
            save_partner_blocks(session, stage.viewer, campaign.id, lang, texts, now)
        else:
            save_member_blocks(session, stage.viewer, member_of(session, contact).id, lang, texts, now)


def agree_to_all(stage: Stage, campaign: Campaign) -> int:
    with stage.db.writing() as session:
        shown = shown_words(changed_words(session, stage.viewer, campaign.id))
        return agree(session, stage.viewer, campaign.id, shown, stage.clock.now())


def notes(stage: Stage) -> list[str]:
    return [message.text.splitlines()[0] for message in stage.mail.accepted]


@pytest.mark.parametrize("layer", ["campaign", "partner", "member"])
async def test_message_with_changed_words_waits_until_the_partner_agrees(stage: Stage, campaign: Campaign, layer: str) -> None:
    hanako = stage.contact()
    stage.enrol(campaign, hanako)
    await stage.run_for(timedelta(hours=1))
    write(stage, campaign, "ja", "変えた一言", layer, hanako)

    await stage.run_for(timedelta(days=2))
    held = stage.enrollment(hanako)
    agreed = agree_to_all(stage, campaign)
    await stage.run_for(timedelta(minutes=1))

    assert (held.step_id, held.why, held.rules) == ("second", "held", ["words_changed"])
    assert agreed == 1
    assert notes(stage) == ["標準の一言", "変えた一言", "Plain."]
    assert stage.enrollment(hanako).outcome == Outcome.completed
    with stage.db.reading() as session:
        trail = [row.action for row in session.exec(select(AuditEntry).order_by(col(AuditEntry.id)))]
    assert trail[-2:] == ["worded", "words_agreed"]


async def test_words_written_before_sending_are_agreed_to_by_sending(stage: Stage, campaign: Campaign) -> None:
    hanako = stage.contact()
    stage.add_member(campaign, hanako)
    write(stage, campaign, "ja", "花子さんへ", "member", hanako)
    stage.enrol(campaign, hanako)

    await stage.run_for(timedelta(days=2))

    assert notes(stage) == ["花子さんへ", "花子さんへ", "Plain."]


async def test_words_of_another_language_hold_nobody(stage: Stage, campaign: Campaign) -> None:
    hanako, jane = stage.contact(language="ja"), stage.contact(language="en")
    stage.enrol(campaign, hanako, jane)
    await stage.run_for(timedelta(hours=1))
    write(stage, campaign, "en", "Dear all", "partner", jane)

    await stage.run_for(timedelta(days=2))

    assert stage.enrollment(hanako).outcome == Outcome.completed
    assert stage.enrollment(jane).rules == ["words_changed"]


async def test_words_put_back_as_they_were_go_out_without_another_agreement(stage: Stage, campaign: Campaign) -> None:
    hanako = stage.contact()
    stage.add_member(campaign, hanako)
    write(stage, campaign, "ja", "花子さんへ", "member", hanako)
    stage.enrol(campaign, hanako)
    await stage.run_for(timedelta(hours=1))

    write(stage, campaign, "ja", "誤り", "member", hanako)
    write(stage, campaign, "ja", "花子さんへ", "member", hanako)
    await stage.run_for(timedelta(days=2))

    assert notes(stage) == ["花子さんへ", "花子さんへ", "Plain."]


async def test_words_taken_away_leave_the_text_that_was_approved_with_the_version(stage: Stage, campaign: Campaign) -> None:
    hanako = stage.contact()
    stage.add_member(campaign, hanako)
    write(stage, campaign, "ja", "花子さんへ", "member", hanako)
    stage.enrol(campaign, hanako)
    await stage.run_for(timedelta(hours=1))

    write(stage, campaign, "ja", None, "member", hanako)
    await stage.run_for(timedelta(days=2))

    assert notes(stage) == ["花子さんへ", "標準の一言", "Plain."]


async def test_agreement_is_to_the_words_that_were_shown(stage: Stage, campaign: Campaign) -> None:
    hanako = stage.contact()
    stage.enrol(campaign, hanako)
    await stage.run_for(timedelta(hours=1))
    write(stage, campaign, "ja", "一度目", "partner", hanako)
    with stage.db.reading() as session:
        shown = shown_words(changed_words(session, stage.viewer, campaign.id))
    write(stage, campaign, "ja", "二度目", "partner", hanako)

    with pytest.raises(SelectionChanged, match="changed again"), stage.db.writing() as session:
        agree(session, stage.viewer, campaign.id, shown, stage.clock.now())

    await stage.run_for(timedelta(days=2))
    assert notes(stage) == ["標準の一言"]


async def test_people_with_like_words_are_shown_together_and_nobody_of_another_partner(stage: Stage, campaign: Campaign) -> None:
    people = [stage.contact() for _ in range(3)]
    stage.enrol(campaign, *people)
    await stage.run_for(timedelta(hours=1))
    write(stage, campaign, "ja", "皆さまへ", "partner", people[0])
    write(stage, campaign, "ja", "花子さんへ", "member", people[2])

    with stage.db.writing() as session:
        groups = changed_words(session, stage.viewer, campaign.id)
        other = factories.make_partner(session, stage.brand)
        others = changed_words(session, factories.make_viewer(session, partner=other), campaign.id)

    assert [(group.after["note"], [contact.id for _, contact in group.members]) for group in groups] == [
        ("皆さまへ", [people[0].id, people[1].id]),
        ("花子さんへ", [people[2].id]),
    ]
    assert others == []


async def test_who_has_finished_waits_for_no_agreement(stage: Stage, campaign: Campaign) -> None:
    hanako = stage.contact()
    stage.enrol(campaign, hanako)
    await stage.run_for(timedelta(days=3))

    write(stage, campaign, "ja", "あとから", "partner", hanako)

    with stage.db.reading() as session:
        assert changed_words(session, stage.viewer, campaign.id) == []


async def test_sending_again_agrees_to_the_words_of_then(stage: Stage) -> None:
    campaign = stage.journey(STEPS, HEAD + "entry: {reentry: after_exit}\n", TEMPLATES)
    hanako = stage.contact()
    stage.enrol(campaign, hanako)
    await stage.run_for(timedelta(days=3))
    write(stage, campaign, "ja", "二回目の案内", "partner", hanako)

    stage.enrol(campaign, hanako)
    await stage.run_for(timedelta(days=3))

    assert notes(stage) == ["標準の一言", "標準の一言", "Plain.", "二回目の案内", "二回目の案内", "Plain."]
