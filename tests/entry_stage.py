"""A stage on which the entries flow comes by: journeys that contacts enter without a person."""

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
    """A brand whose journeys take contacts by themselves; `look` is one run of the entries flow at the clock's time."""

    def registered(self, entry: str, steps: str = STEPS, head: str = "events: [booked, visited]\n", key: str = "") -> Journey:
        """Register a journey with this entry, without any campaign; the same `key` again makes its next version."""
        key = key or f"entry-{next(factories._numbers)}"
        text = HEAD.format(key=key) + "send_policy: {caps: none}\n" + head + f"entry: {entry}\nsteps:\n" + steps
        source = Source(text, _templates(), path=key)
        with self.db.writing() as session:
            brand = session.get_one(Brand, self.brand.id)
            journey = session.exec(select(Journey).where(Journey.key == key)).first() or factories.make_journey(session, brand, source)
            factories.make_version(session, brand, journey, source, registered_at=self.clock.now())
            return journey

    def retire(self, journey: Journey) -> None:
        with self.db.writing() as session:
            for version in session.exec(select(JourneyVersion).where(JourneyVersion.journey_id == journey.id)):
                version.status = VersionStatus.retired

    def look(self) -> EntryCounts:
        looked = admit_due(self.db, self.clock)
        assert looked.unfinished == []
        return looked

    def look_every(self, step: timedelta, until: datetime) -> None:
        while self.clock.now() < until:
            self.clock.move_to(min(self.clock.now() + step, until))
            self.look()

    def contact(self, consent: bool | None = True, **fields: Any) -> Contact:
        return super().contact(consent, **({"created_at": self.clock.now(), "updated_at": self.clock.now()} | fields))

    def change(self, contact: Contact, **fields: Any) -> None:
        with self.db.writing() as session:
            update_contact(session, self.viewer, id_of(contact), ContactInput(**fields), self.clock.now())

    def segment(self, key: str = "gold", rule: str | None = None) -> int:
        with self.db.writing() as session:
            return service.create_segment(session, self.marketer, key, key, self.clock.now(), rule=rule).id or 0

    def list_in(self, segment_id: int, *contacts: Contact) -> None:
        with self.db.writing() as session:
            service.add_to_segment(session, self.marketer, segment_id, [id_of(each) for each in contacts], self.clock.now())

    def unlist(self, segment_id: int, *contacts: Contact) -> None:
        with self.db.writing() as session:
            service.remove_from_segment(session, self.marketer, segment_id, [id_of(each) for each in contacts], self.clock.now())

    def happens(self, name: str, contact: Contact, **fields: Any) -> None:
        with self.db.writing() as session:
            record_event(session, self.brand.id, name, self.clock.now(), contact_id=contact.id, **fields)

    def entered(self, journey: Journey) -> list[Enrollment]:
        with self.db.reading() as session:
            return list(session.exec(select(Enrollment).where(Enrollment.journey_id == journey.id).order_by(col(Enrollment.id))))

    def who(self, journey: Journey) -> list[int]:
        return [row.contact_id for row in self.entered(journey)]

    def outside(self, journey: Journey) -> list[int]:
        with self.db.reading() as session:
            waiting = select(Entrance).where(Entrance.journey_id == journey.id, col(Entrance.settled_at).is_(None))
            return [row.contact_id for row in session.exec(waiting.order_by(col(Entrance.id)))]

    def partner_in(self, zone: str) -> Partner:
        with self.db.writing() as session:
            return factories.make_partner(session, session.get_one(Brand, self.brand.id), zone=zone)
