"""Which contacts a journey's messages cannot be made for, looked at before anybody is enrolled: every message is made, and none is sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from distmark.campaigns.table import Campaign, Member
from distmark.contacts.table import Contact
from distmark.errors import DistmarkError
from distmark.journeys.program import Program
from distmark.journeys.source import Source
from distmark.journeys.steps.send import SendStep
from distmark.messages.compose import Person, blocks_of, compiled, language_of, render_for
from distmark.partners.table import Brand, Partner
from distmark.sql import among, by_id, id_of

MOST_TRIED = 1000  # contacts: one message takes a fraction of a millisecond
UNSUBSCRIBE = "https://unsubscribe.example/"


@dataclass(frozen=True, slots=True)
class Unmakeable:
    """A contact, the first step whose message cannot be made for that contact, the missing value (""), and the error."""

    contact: Contact
    step: SendStep
    slot: str
    reason: str


def unmakeable(session: Session, program: Program, source: Source, campaign: Campaign, contacts: Sequence[Contact]) -> list[Unmakeable]:
    """Return those of the first `MOST_TRIED` contacts with a message of the journey that cannot be made, in their order."""
    tried = contacts[:MOST_TRIED]
    sends = [step for step in program.steps.values() if isinstance(step, SendStep)]
    found = [_first_fault(session, program, source, person, sends) for person in _people(session, campaign, tried)]
    return [each for each in found if each is not None]


def _people(session: Session, campaign: Campaign, contacts: Sequence[Contact]) -> list[Person]:
    partners = by_id(session, Partner, {contact.partner_id for contact in contacts})
    brands = by_id(session, Brand, {contact.brand_id for contact in contacts})
    wanted = select(Member).where(
        Member.campaign_id == id_of(campaign), among(session, col(Member.contact_id), [id_of(contact) for contact in contacts])
    )
    members: Mapping[int, Member] = {member.contact_id: member for member in session.exec(wanted)}
    return [
        Person(contact, partners[contact.partner_id], brands[contact.brand_id], campaign, members.get(id_of(contact)))
        for contact in contacts
    ]


def _first_fault(session: Session, program: Program, source: Source, person: Person, sends: Sequence[SendStep]) -> Unmakeable | None:
    definition = program.definition
    language = language_of(definition, person.contact)
    data = {name: person.contact.attributes[name] for name in definition.journey_fields if name in person.contact.attributes}
    for step in sends:
        try:
            render_for(
                person,
                data,
                compiled(source, definition, step.message, language, step.send),
                blocks_of(session, person, definition, language),
                None,
                marketing=step.purpose != "transactional",
                preview_unsubscribe_url=UNSUBSCRIBE,
                contact_fields=definition.contact_fields,
            )
        except DistmarkError as error:
            return Unmakeable(person.contact, step, str(getattr(error, "slot", "")), str(error))
    return None
