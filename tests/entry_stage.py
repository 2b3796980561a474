"""The stage of tests of entries: journeys that contacts enter by event, segment or date, and runs of the entries flow."""

from datetime import datetime, timedelta
from typing import Any

from sqlmodel import col, select

from distmark.contacts.fields import ContactInput
from distmark.contacts.service import update_contact
from distmark.contacts.table import Contact
from distmark.engagement.service import record_event
from distmark.enrollments.table import Enrollment
from distmark.entries.table import Entrance
from distmark.journeys.source import Source
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.partners.table import Brand, Partner
from distmark.segments import service
from distmark.sql import id_of
from flows.entries import EntryCounts, admit_due
from tests import factories
from tests.driver import HEAD, Stage, _templates

STEPS = "  - {id: pause, wait: {for: 1 day}}\n  - {id: done, exit: done}\n"


class EntryStage(Stage):
    """A brand with journeys that contacts enter without a campaign; `look` is one run of the entries flow at the clock's time."""

    def registered(self, entry: str, steps: str = STEPS, head: str = "events: [booked, visited]\n", key: str = "") -> Journey:
        """Register a journey with this entry, without a campaign; with the `key` of an earlier one, its next version."""
        key = key or f"entry-{next(factories._numbers)}"
        text = HEAD.format(key=key) + "send_policy: {caps: none}\n" + head + f"entry: {entry}\nsteps:\n" + steps
        source = Source(text, _templates(), path=key)
        with self.db.writing() as session:
            brand = session.get_one(Brand, self.brand.id)
            journey = session.exec(select(Journey).where(Journey.key == key)).first() or factories.make_journey(session, brand, source)
            factories.make_version(session, brand, journey, source, registered_at=self.clock.now())
            return journey

    def retire(self, journey: Journey) -> None:
        """Retire all versions of the journey."""
        with self.db.writing() as session:
            for version in session.exec(select(JourneyVersion).where(JourneyVersion.journey_id == journey.id)):
                version.status = VersionStatus.retired

    def look(self) -> EntryCounts:
        looked = admit_due(self.db, self.clock)
        assert looked.unfinished == []
        return looked

    def look_every(self, step: timedelta, until: datetime) -> None:
        """Run the entries flow at intervals of `step` until then."""
        while self.clock.now() < until:
            self.clock.move_to(min(self.clock.now() + step, until))
            self.look()

    def contact(self, consent: bool | None = True, **fields: Any) -> Contact:
        """Return a new contact, created now, with this consent to mail."""
        return super().contact(consent, **({"created_at": self.clock.now(), "updated_at": self.clock.now()} | fields))

    def change(self, contact: Contact, **fields: Any) -> None:
        """Change these fields of the contact."""
        with self.db.writing() as session:
            update_contact(session, self.viewer, id_of(contact), ContactInput(**fields), self.clock.now())

    def segment(self, key: str = "gold", rule: str | None = None) -> int:
        """Create a segment and return its id."""
        with self.db.writing() as session:
            return id_of(service.create_segment(session, self.marketer, key, key, self.clock.now(), rule=rule))

    def list_in(self, segment_id: int, *contacts: Contact) -> None:
        """Add the contacts to a listed segment."""
        with self.db.writing() as session:
            service.add_to_segment(session, self.marketer, segment_id, [id_of(each) for each in contacts], self.clock.now())

    def unlist(self, segment_id: int, *contacts: Contact) -> None:
        """Remove the contacts from a listed segment."""
        with self.db.writing() as session:
            service.remove_from_segment(session, self.marketer, segment_id, [id_of(each) for each in contacts], self.clock.now())

    def happens(self, name: str, contact: Contact, **fields: Any) -> None:
        """Record an event of the contact."""
        with self.db.writing() as session:
            record_event(session, self.brand.id, name, self.clock.now(), contact_id=contact.id, **fields)

    def entered(self, journey: Journey) -> list[Enrollment]:
        """Return the enrollments in the journey, oldest first."""
        with self.db.reading() as session:
            return list(session.exec(select(Enrollment).where(Enrollment.journey_id == journey.id).order_by(col(Enrollment.id))))

    def contacts_in(self, journey: Journey) -> list[int]:
        """Return the contact ids of the enrollments in the journey, oldest enrollment first."""
        return [row.contact_id for row in self.entered(journey)]

    def queued(self, journey: Journey) -> list[int]:
        """Return the ids of the contacts that are queued for the journey, oldest first."""
        with self.db.reading() as session:
            waiting = select(Entrance).where(Entrance.journey_id == journey.id, col(Entrance.settled_at).is_(None))
            return [row.contact_id for row in session.exec(waiting.order_by(col(Entrance.id)))]

    def partner_in(self, zone: str) -> Partner:
        """Return a new partner of the brand in this time zone."""
        with self.db.writing() as session:
            return factories.make_partner(session, session.get_one(Brand, self.brand.id), zone=zone)
