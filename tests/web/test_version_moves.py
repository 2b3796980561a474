"""Version moves on the web: the preview, the move with its map of steps, the undo, and the permission."""

import re
from html import unescape

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from distmark.engine.table import VersionMove
from distmark.enrollments.table import Enrollment
from distmark.journeys.source import Source
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.partners.model import Role
from distmark.sql import id_of
from tests import factories as make
from tests.web.conftest import PartnerPair


@pytest.fixture
def newer(pair: PartnerPair) -> JourneyVersion:
    """A second version of the journey in which the wait with the enrollments has another id."""
    return version_with(pair, "time-to-read", "time-to-think")


def version_with(pair: PartnerPair, old: str, new: str, status: VersionStatus = VersionStatus.registered) -> JourneyVersion:
    with pair.db.writing() as session:
        first = session.get_one(JourneyVersion, pair.version.id)
        source = Source.from_json(first.source)
        changed = Source(source.definition.replace(old, new), source.templates, path=pair.journey.key)
        return make.make_version(session, journey=session.get_one(Journey, pair.journey.id), source=changed, status=status)


def positions(pair: PartnerPair) -> list[tuple[int, str | None]]:
    with pair.db.reading() as session:
        numbers = {row.id: row.number for row in session.exec(select(JourneyVersion))}
        rows = [session.get_one(Enrollment, side.enrollment.id) for side in (pair.here, pair.there)]
        return [(numbers[row.version_id], row.step_id) for row in rows]


def path(pair: PartnerPair, number: int = 1) -> str:
    return f"/journeys/{pair.journey.key}/{number}/move"


MAP = {"to": "2", "step.time-to-read": "time-to-think"}


def shown_fields(pair: PartnerPair, client: TestClient) -> dict[str, str]:
    """Return the fields that the page's button posts after this map was shown."""
    (shown,) = re.findall(r'name="shown" value="([^"]+)"', client.get(path(pair), params=MAP).text)
    return MAP | {"action": "move", "shown": unescape(shown)}


def test_page_counts_and_maps_before_anything_moves(pair: PartnerPair, newer: JourneyVersion):
    client = pair.as_(Role.marketer, "en")

    page = client.get(path(pair)).text
    unmapped = client.get(path(pair), params={"to": 2}).text
    mapped = client.get(path(pair), params={"to": 2, "step.time-to-read": "time-to-think"}).text

    assert "Choose the version" in page
    assert "0 people would move to v2." in unmapped
    assert "2 people stand at steps that have no place in the new version" in unmapped
    assert 'value="move"' not in unmapped
    assert "2 people would move to v2. At once go on: 0; with a message: 0." in mapped
    assert re.findall(r'<option value="([\w-]+)" selected', mapped) == ["2", "time-to-think"]
    assert "Move 2 people" in mapped
    assert positions(pair) == [(1, "time-to-read")] * 2


def test_same_names_are_filled_in(pair: PartnerPair):
    version_with(pair, "09:00", "10:00")

    page = pair.as_(Role.marketer, "en").get(path(pair), params={"to": 2}).text

    assert re.findall(r'<option value="([\w-]+)" selected', page) == ["2", "time-to-read"]
    assert "no place yet" not in page


def test_people_move_and_are_put_back(pair: PartnerPair, newer: JourneyVersion):
    client = pair.as_(Role.marketer, "en")

    fields = shown_fields(pair, client)
    moved = client.post(path(pair), data=fields)
    there = positions(pair)
    again = client.post(path(pair), data=fields)
    (move_id,) = re.findall(r'name="move" value="(\d+)"', client.get(path(pair)).text)
    back = client.post(path(pair), data={"action": "undo", "move": move_id})
    twice = client.post(path(pair), data={"action": "undo", "move": move_id})

    assert (moved.status_code, there) == (303, [(2, "time-to-think")] * 2)
    assert (again.status_code, "Nobody can be moved" in again.text) == (422, True)
    assert (back.status_code, positions(pair)) == (303, [(1, "time-to-read")] * 2)
    assert (twice.status_code, "has been undone already" in twice.text) == (422, True)


def test_step_chosen_after_the_plan_was_shown_moves_nobody(pair: PartnerPair, newer: JourneyVersion):
    client = pair.as_(Role.marketer, "en")
    fields = shown_fields(pair, client) | {"step.time-to-read": "welcome"}

    answer = client.post(path(pair), data=fields)

    assert (answer.status_code, "changed after this was shown" in answer.text) == (422, True)
    assert positions(pair) == [(1, "time-to-read")] * 2


def test_more_people_than_were_shown_move_nobody(pair: PartnerPair, newer: JourneyVersion):
    client = pair.as_(Role.marketer, "en")
    fields = shown_fields(pair, client)
    with pair.db.writing() as session:
        member = make.make_member(session, session.merge(pair.campaign), make.make_contact(session, session.merge(pair.here.partner)))
        make.make_enrollment(session, member, session.merge(pair.version), step_id="time-to-read", arrived_at=make.NOW)

    answer = client.post(path(pair), data=fields)

    assert "it concerns 3 people now, not 2" in answer.text
    assert positions(pair) == [(1, "time-to-read")] * 2
    client.post(path(pair), data=shown_fields(pair, client))
    assert positions(pair) == [(2, "time-to-think")] * 2


@pytest.mark.parametrize("shown", ["", "x", "[]", "[2]", "null", '[2, [["time-to-read", "time-to-think"]]]', "[" * 50])
def test_move_without_a_plan_that_was_shown_moves_nobody(pair: PartnerPair, newer: JourneyVersion, shown: str):
    answer = pair.as_(Role.marketer).post(path(pair), data=MAP | {"action": "move", "shown": shown})

    assert answer.status_code == 422
    assert positions(pair) == [(1, "time-to-read")] * 2


@pytest.mark.parametrize(
    ("data", "explanation"),
    [
        ({"action": "move", "to": "2"}, "行き先"),
        ({"action": "move", "to": ""}, "数として読めません"),
        ({"action": "move", "to": "2", "step.time-to-read": "nothing"}, "nothing"),
        ({"action": "undo", "move": "x"}, "数として読めません"),
    ],
)
def test_mistake_is_explained_and_moves_nobody(pair: PartnerPair, newer: JourneyVersion, data: dict[str, str], explanation: str):
    answer = pair.as_(Role.marketer).post(path(pair), data=data)

    assert (answer.status_code, explanation in answer.text) == (422, True)
    assert positions(pair) == [(1, "time-to-read")] * 2


def test_only_version_says_that_there_is_none_to_move_to(pair: PartnerPair):
    version_with(pair, "09:00", "10:00", VersionStatus.submitted)
    client = pair.as_(Role.marketer, "en")

    assert "no other published version" in client.get(path(pair)).text
    assert client.get(path(pair, 2)).status_code == 404
    assert f'href="{path(pair)}"' in client.get(f"/journeys/{pair.journey.key}/1/control").text


@pytest.mark.parametrize("role", [Role.partner, Role.approver])
def test_others_may_not(pair: PartnerPair, newer: JourneyVersion, role: Role):
    client = pair.as_(role)

    assert client.get(path(pair)).status_code == 403
    assert client.post(path(pair), data={"action": "move", "to": "2", "step.time-to-read": "time-to-think"}).status_code == 403
    assert positions(pair) == [(1, "time-to-read")] * 2


def test_another_brand_finds_neither_the_journey_nor_the_move(pair: PartnerPair, newer: JourneyVersion):
    marketer = pair.as_(Role.marketer)
    marketer.post(path(pair), data=shown_fields(pair, marketer))
    with pair.db.writing() as session:
        brand = make.make_brand(session)
        own = session.get_one(Journey, make.make_version(session, brand).journey_id).key
        (move,) = session.exec(select(VersionMove)).all()
        move.brand_id = id_of(brand)  # as if it were another brand's
        session.add(move)
        move_id = move.id

    answer = pair.as_(Role.marketer).post(path(pair), data={"action": "undo", "move": str(move_id)})

    assert (answer.status_code, positions(pair)) == (404, [(2, "time-to-think")] * 2)
    if own != pair.journey.key:
        assert pair.as_(Role.marketer).get(f"/journeys/{own}/1/move").status_code == 404
