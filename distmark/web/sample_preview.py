"""Sample messages of a version, rendered for a made-up contact, for the people who write and approve it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from distmark.errors import NotFound
from distmark.journeys.definition import JourneyDefinition
from distmark.journeys.source import Source
from distmark.journeys.steps.send import SendStep
from distmark.messages.compose import brand_attributes
from distmark.partners.table import Brand
from distmark.personalisation.model import BlockKind, BlockValue, RenderContext, RenderedMessage
from distmark.personalisation.service import compile_message, render

PEOPLE: Mapping[str, Mapping[str, object]] = {
    "ja": {"first_name": "花子", "last_name": "見本", "full_name": "見本 花子", "city": "横浜市", "company": "見本商事"},
    "en": {"first_name": "Hana", "last_name": "Sample", "full_name": "Hana Sample", "city": "Yokohama", "company": "Sample Trading"},
}
PARTNERS: Mapping[str, Mapping[str, object]] = {
    "ja": {"name": "担当 太郎", "title": "担当者", "office": "横浜支店", "city": "横浜市"},
    "en": {"name": "Taro Partner", "title": "Adviser", "office": "Yokohama office", "city": "Yokohama"},
}
SAMPLE_VALUES: Mapping[str, object] = {"text": "…", "number": 12, "bool": False, "date": date(2027, 4, 1)}


@dataclass(frozen=True, slots=True)
class SampleMessage:
    """One message of a version: its step, name and channel."""

    step_id: str
    message: str
    channel: str


def samples_of(definition: JourneyDefinition) -> list[SampleMessage]:
    """Return each message of the journey once, in the order of its steps."""
    found: dict[str, SampleMessage] = {}
    for step in definition.all_steps():
        if isinstance(step, SendStep):
            found.setdefault(step.message, SampleMessage(step.id, step.message, step.send))
    return list(found.values())


def render_sample(source: Source, definition: JourneyDefinition, brand: Brand, message: str, lang: str, base_url: str) -> RenderedMessage:
    """Return the message rendered for a made-up contact, its editable blocks marked.

    NotFound when the journey does not send the message, or not in this language.
    """
    sample = next((each for each in samples_of(definition) if each.message == message), None)
    if sample is None or lang not in definition.languages:
        raise NotFound(f'This journey sends no message "{message}" in "{lang}".')
    parts = compile_message(source.templates, message, lang, sample.channel, {name: str(text) for name, text in definition.links.items()})
    spoken = lang if lang in PEOPLE else "en"
    declared = {name: SAMPLE_VALUES[str(kind)] for name, kind in definition.contact_fields.items()}
    reached = {"email": "hana@example.com", "phone": "+819012345678", "language": lang, "birthday": date(1985, 4, 1)}
    contact = {**declared, **PEOPLE[spoken], **reached}
    partner = {**PARTNERS[spoken], "phone": "+81451234567", "email": "partner@example.com", "code": "P0001"}
    blocks = {
        name: BlockValue(block.default.text(lang) or (block.label.text(lang) if block.kind != "image" else ""), kind=BlockKind(block.kind))
        for name, block in definition.blocks.items()
    }
    return render(
        parts,
        RenderContext(
            lang=lang,
            contact=contact,
            partner=partner,
            brand=brand_attributes(brand),
            campaign={"name": definition.name.text(lang), "key": definition.key},
            journey={name: SAMPLE_VALUES[str(kind)] for name, kind in definition.journey_fields.items()},
            blocks=blocks,
            unsubscribe_url=f"{base_url}/u/preview",
            mark_blocks=True,
        ),
    )
