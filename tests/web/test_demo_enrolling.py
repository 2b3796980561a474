"""The demo's partner at the pages: sends those who can begin, and is at no loss when there are none."""

from sqlmodel import col, func, select

from distmark.demo.brands import BRANDS
from distmark.demo.enrolling import PartnerAtWork
from distmark.demo.run import _enrol_some
from distmark.enrollments.table import Enrollment
from distmark.partners.model import Role
from tests.prefect_server import free_port
from tests.small_machine import SmallMachine, settings_of
from tests.web.conftest import PartnerPair


def at_the_pages(pair: PartnerPair) -> PartnerAtWork:
    partner = PartnerAtWork("http://testserver", "sato@mirai.example")
    partner._http.close()
    partner._http = pair.as_(Role.partner)
    return partner


def enrolled_count(pair: PartnerPair) -> int:
    with pair.db.reading() as session:
        return session.exec(select(func.count(col(Enrollment.id)))).one()


def test_a_partner_sends_those_who_can_begin_and_then_has_nobody_left(pair: PartnerPair) -> None:
    partner, before = at_the_pages(pair), enrolled_count(pair)

    first = partner.enrol(3)
    second = partner.enrol(3)

    assert len(first.contact_ids) == enrolled_count(pair) - before > 0
    assert second.contact_ids == ()


def test_a_partner_whose_page_does_not_answer_keeps_no_other_partner_from_sending(tmp_path) -> None:
    machine = SmallMachine(settings_of(tmp_path / "data", port=free_port()))

    faults = _enrol_some(machine)

    assert len(faults) == len(BRANDS)
    assert all("sent nobody" in fault for fault in faults)
