"""A message for one person: its contact, its language and its blocks. Rows in, rendered text out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from sqlmodel import Session

from distmark.campaigns.attributes import campaign_attributes
from distmark.campaigns.service import blocks_for
from distmark.campaigns.table import Campaign, Member
from distmark.contacts.attributes import attributes_of
from distmark.contacts.table import Contact
from distmark.enrollments.table import Enrollment
from distmark.journeys.definition import JourneyDefinition
from distmark.journeys.source import Source
from distmark.partners.attributes import brand_attributes, partner_attributes
from distmark.partners.table import Brand, Partner
from distmark.partners.translations import translated
from distmark.personalisation.header_text import one_line
from distmark.personalisation.model import BlockValue, CompiledMessage, RenderContext, RenderedMessage
from distmark.personalisation.service import compile_message, render
from distmark.sql import by_id, id_of

__all__ = [
    "Links",
    "Person",
    "brand_attributes",
    "campaign_attributes",
    "compiled",
    "language_of",
    "partner_attributes",
    "people_of",
    "render_for",
]

COMPILED_KEPT = 512
WHY_SERVICE = {
    "ja": "このメールは、お手続きやご予約など、お客様に必要なご連絡としてお送りしています。",
    "en": "You receive this message because it concerns your own request, booking or contract.",
}


@dataclass(frozen=True, slots=True)
class Person:
    """A contact with everything around them that a message or a decision may read."""

    contact: Contact
    partner: Partner
    brand: Brand
    campaign: Campaign | None
    member: Member | None

    @property
    def zone(self) -> str:
        """The contact's zone, else the partner's, else the brand's."""
        return self.contact.zone or self.partner.zone or self.brand.zone


@dataclass(frozen=True, slots=True)
class Links:
    """The public addresses inside one message. Without a token (a preview) links show their targets and nothing is counted."""

    base_url: str
    token: str

    def tracked(self, name: str) -> str:
        return f"{self.base_url}/c/{self.token}/{quote(name, safe='')}"

    @property
    def pixel(self) -> str:
        return f"{self.base_url}/o/{self.token}.gif"

    @property
    def unsubscribe(self) -> str:
        return f"{self.base_url}/u/{self.token}"


def people_of(session: Session, enrollments: Sequence[Enrollment]) -> dict[int, Person]:
    """Return each enrollment's person, by enrollment id, with one query per table."""
    contacts = by_id(session, Contact, {row.contact_id for row in enrollments})
    partners = by_id(session, Partner, {row.partner_id for row in enrollments})
    brands = by_id(session, Brand, {row.brand_id for row in enrollments})
    campaigns = by_id(session, Campaign, {row.campaign_id for row in enrollments if row.campaign_id})
    members = by_id(session, Member, {row.member_id for row in enrollments if row.member_id})
    return {
        id_of(row): Person(
            contact=contacts[row.contact_id],
            partner=partners[row.partner_id],
            brand=brands[row.brand_id],
            campaign=campaigns.get(row.campaign_id or 0),
            member=members.get(row.member_id or 0),
        )
        for row in enrollments
    }


def language_of(definition: JourneyDefinition, contact: Contact) -> str:
    """Return the contact's language if the journey speaks it, else the journey's first."""
    return contact.language if contact.language in definition.languages else definition.languages[0]


def compiled(source: Source, definition: JourneyDefinition, message: str, lang: str, channel: str) -> CompiledMessage:
    """Return the message compiled, kept per content: a version's templates are compiled once per process."""
    return _compiled(source.content_hash, message, lang, channel, _Uncached(source, definition))


class _Uncached:
    """Carries what compiling needs past the cache's key, which is the content hash alone."""

    def __init__(self, source: Source, definition: JourneyDefinition) -> None:
        self.source, self.definition = source, definition

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Uncached)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=COMPILED_KEPT)
def _compiled(content_hash: str, message: str, lang: str, channel: str, uncached: _Uncached) -> CompiledMessage:
    return compile_message(
        uncached.source.templates, message, lang, channel, {name: str(target) for name, target in uncached.definition.links.items()}
    )


def render_for(
    person: Person,
    data: Mapping[str, Any],
    parts: CompiledMessage,
    blocks: Mapping[str, BlockValue],
    links: Links | None,
    *,
    marketing: bool = True,
    mark_blocks: bool = False,
    preview_unsubscribe_url: str = "",
    contact_fields: Mapping[str, str] | None = None,
) -> RenderedMessage:
    """Return what this person gets. Without `links` it is a preview: targets are shown as they are and nothing is tracked."""
    tracked: Callable[[str], str] | None = links.tracked if links else None
    unsubscribe = (links.unsubscribe if links else preview_unsubscribe_url) if marketing else None
    return render(
        parts,
        RenderContext(
            lang=parts.lang,
            contact=attributes_of(person.contact, contact_fields),
            partner=partner_attributes(person.partner, parts.lang),
            brand=brand_attributes(person.brand, parts.lang),
            campaign=campaign_attributes(person.campaign, parts.lang),
            journey=data,
            blocks=blocks,
            tracked=tracked,
            unsubscribe_url=unsubscribe,
            pixel_url=links.pixel if links else None,
            mark_blocks=mark_blocks,
            why="" if marketing else WHY_SERVICE.get(parts.lang, WHY_SERVICE["en"]),
        ),
    )


def blocks_of(session: Session, person: Person, definition: JourneyDefinition, lang: str) -> dict[str, BlockValue]:
    """Return every block's value for this person and the layer it comes from."""
    return blocks_for(session, person.campaign, id_of(person.partner), person.member, definition, lang)


def from_name(person: Person, lang: str) -> str:
    """Return the display name of the sender in the language of the message: the partner, of the brand."""
    return one_line(f"{translated(person.brand, 'name', lang)} {translated(person.partner, 'name', lang)}")


def to_name(person: Person) -> str:
    """Return the recipient's display name in the order their language writes it."""
    contact = person.contact
    parts = [contact.last_name, contact.first_name] if contact.language == "ja" else [contact.first_name, contact.last_name]
    return one_line(" ".join(part for part in parts if part))
