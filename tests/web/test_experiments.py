"""Experiments on a journey's page: the arms with their numbers, the confidence, and the button that chooses a winner."""

import pytest
from sqlmodel import select

from distmark.enrollments.model import TimelineKind
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.experiments.table import Experiment
from distmark.journeys.table import Journey, JourneyVersion
from distmark.metrics.rollup import roll_up
from distmark.partners.model import Role
from distmark.partners.table import Partner
from tests import factories as make
from tests.web.conftest import PartnerPair

STEPS = """steps:
  - id: subject
    name: {ja: 件名のテスト, en: Which subject}
    branch: {test: {metric: click, hold_out: 20%, evaluate_after: 3 days, winner: WINNER}}
    arms:
      - {name: plain, share: 50%, steps: [{id: welcome, send: email, message: welcome}]}
      - {name: warm, share: 50%, steps: [{id: call, task: {for: partner, title: Call, due: 1 day}}]}
"""


def with_experiment(pair: PartnerPair, winner: str = "auto", entered: tuple[int, int] = (4, 2), waiting: int = 1) -> Journey:
    """Return a registered journey with an experiment: `entered` contacts in each arm, and `waiting` ones that wait for the winner."""
    definition = make.JOURNEY.partition("steps:")[0] + STEPS.replace("WINNER", winner).replace("{", "{{").replace("}", "}}")
    with pair.db.writing() as session:
        source = make.make_source("two-subjects", pair.brand.key, journey=definition)
        version = make.make_version(session, session.merge(pair.brand), source=source)
        journey = session.get_one(Journey, version.journey_id)
        partner = session.get_one(Partner, pair.here.partner.id)
        for arm, many in (("plain", entered[0]), ("warm", entered[1]), ("", waiting)):
            for _number in range(many):
                member = make.make_member(session, make.make_campaign(session, version), make.make_contact(session, partner))
                row = make.make_enrollment(session, member, version, step_id="subject", arrived_at=make.NOW)
                if arm:
                    session.add(
                        TimelineEntry(enrollment_id=row.id, at=make.NOW, kind=TimelineKind.branched, step_id="subject", detail={"arm": arm})
                    )
                else:
                    row.awaits, row.why = "winner:subject", "test"
        session.flush()
        session.expunge(journey)
    roll_up(pair.db, make.NOW)
    return journey


def page_of(pair: PartnerPair, journey: Journey, role: Role = Role.marketer, language: str = "ja") -> str:
    answer = pair.as_(role, language).get(f"/journeys/{journey.key}")
    assert answer.status_code == 200
    return answer.text


def experiment_of(pair: PartnerPair) -> Experiment:
    with pair.db.reading() as session:
        return session.exec(select(Experiment)).one()


@pytest.mark.parametrize(
    ("language", "words"),
    [
        (
            "ja",
            [
                "件名のテスト",
                "テスト中",
                "比べられる結果はまだありません。",
                "11/27",
                "に規則により決まります。",
                "1人が決定を待っています。",
                "この案に決める",
            ],
        ),
        (
            "en",
            [
                "Which subject",
                "Test is running",
                "There is nothing to compare yet. The rule chooses on 27 Nov",
                "1 person waits for the winner.",
            ],
        ),
    ],
)
def test_page_shows_each_experiment_with_its_arms_and_numbers(pair: PartnerPair, language: str, words: list[str]):
    journey = with_experiment(pair)

    page = page_of(pair, journey, language=language)

    for text in words:
        assert text in page
    section = page.partition('id="test-subject"')[2].partition("</section>")[0]
    assert section.index("plain") < section.index("warm")
    assert section.count("<button") == 2


def test_marketer_chooses_an_arm_and_waiting_contacts_are_woken(pair: PartnerPair):
    journey = with_experiment(pair, "manual")

    answer = pair.as_(Role.marketer).post(f"/journeys/{journey.key}/1/splits/subject", data={"arm": "warm"})

    assert answer.headers["location"] == f"/journeys/{journey.key}?v=1#test-subject"
    run = experiment_of(pair)
    assert (run.arm, run.decided_by_id is not None) == ("warm", True)
    assert run.numbers["arms"][0] == {"arm": "plain", "contacts": 4, "hits": 0, "money": 0.0, "squares": 0.0}
    with pair.db.reading() as session:
        woken = session.exec(select(Enrollment.awaits).where(Enrollment.woken_at == make.NOW)).all()
    assert woken == ["winner:subject"]


def test_decided_experiment_says_who_chose_and_offers_no_button(pair: PartnerPair):
    journey = with_experiment(pair)
    pair.as_(Role.marketer).post(f"/journeys/{journey.key}/1/splits/subject", data={"arm": "warm"})

    section = page_of(pair, journey).partition('id="test-subject"')[2].partition("</section>")[0]

    assert "「warm」に決めました。そのとき比べられる結果はありませんでした。" in section
    assert "採用" in section
    assert "<button" not in section


def test_choosing_twice_is_refused_in_the_readers_language(pair: PartnerPair):
    journey = with_experiment(pair)
    client = pair.as_(Role.marketer)
    client.post(f"/journeys/{journey.key}/1/splits/subject", data={"arm": "warm"})

    answer = client.post(f"/journeys/{journey.key}/1/splits/subject", data={"arm": "plain"})

    assert answer.status_code == 409
    assert "すでに「warm」に決まっています" in answer.text
    assert experiment_of(pair).arm == "warm"


@pytest.mark.parametrize(
    ("role", "step", "arm", "status"),
    [
        (Role.partner, "subject", "warm", 403),
        (Role.approver, "subject", "warm", 403),
        (Role.marketer, "welcome", "warm", 404),
        (Role.marketer, "subject", "hot", 422),
        (Role.marketer, "subject", "", 422),
    ],
)
def test_nothing_is_chosen_by_others_or_by_mistake(pair: PartnerPair, role: Role, step: str, arm: str, status: int):
    journey = with_experiment(pair)

    answer = pair.as_(role).post(f"/journeys/{journey.key}/1/splits/{step}", data={"arm": arm})

    assert answer.status_code == status
    assert experiment_of(pair).arm is None


def test_approver_sees_the_numbers_and_no_button(pair: PartnerPair):
    section = page_of(pair, with_experiment(pair), Role.approver).partition('id="test-subject"')[2].partition("</section>")[0]

    assert "warm" in section
    assert "<button" not in section


def test_experiment_that_nobody_entered_says_so(pair: PartnerPair):
    page = page_of(pair, with_experiment(pair, entered=(0, 0), waiting=0), language="en")

    assert "Nobody has entered an arm yet." in page
    assert "Not begun" in page


def test_number_of_contacts_that_wait_for_a_winner_is_shown(pair: PartnerPair):
    journey = with_experiment(pair)
    with pair.db.reading() as session:
        row = session.exec(select(Enrollment).where(Enrollment.awaits == "winner:subject")).one()
        version = session.get_one(JourneyVersion, row.version_id)
        assert version.journey_id == journey.id

    page = pair.as_(Role.partner).get(f"/contacts/{row.contact_id}").text

    assert "「テストの決定」" in page
    assert "winner:" not in page
