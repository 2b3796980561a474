"""Moving people between versions on the web: what the page counts, the move with its map, the way back, and for whom."""

import re

import pytest
from sqlmodel import select

from distmark.engine.table import VersionMove
from distmark.enrollments.table import Enrollment
from distmark.journeys.source import Source
from distmark.journeys.table import Journey, JourneyVersion, VersionStatus
from distmark.partners.model import Role
from distmark.sql import id_of
from tests import factories as make
from tests.web.conftest import World


@pytest.fixture
def newer(world: World) -> JourneyVersion:
    """A second version of the world's journey in which the wait where people stand has another name."""
    return version_with(world, "time-to-read", "time-to-think")


def version_with(world: World, old: str, new: str, status: VersionStatus = VersionStatus.registered) -> JourneyVersion:
    with world.db.writing() as session:
        first = session.get_one(JourneyVersion, world.version.id)
        source = Source.from_json(first.source)
        changed = Source(source.definition.replace(old, new), source.templates, path=world.journey.key)
        return make.make_version(session, journey=session.get_one(Journey, world.journey.id), source=changed, status=status)


def stands(world: World) -> list[tuple[int, str | None]]:
    with world.db.reading() as session:
        numbers = {row.id: row.number for row in session.exec(select(JourneyVersion))}
        rows = [session.get_one(Enrollment, side.enrollment.id) for side in (world.here, world.there)]
        return [(numbers[row.version_id], row.step_id) for row in rows]


def path(world: World, number: int = 1) -> str:
    return f"/journeys/{world.journey.key}/{number}/move"


def test_page_counts_and_maps_before_anything_moves(world: World, newer: JourneyVersion):
    client = world.as_(Role.marketer, "en")

    asked = client.get(path(world)).text
    unmapped = client.get(path(world), params={"to": 2}).text
    mapped = client.get(path(world), params={"to": 2, "step.time-to-read": "time-to-think"}).text

    assert "Choose the version" in asked
    assert "0 people would move to v2." in unmapped
    assert "2 people stand at steps that have no place in the new version" in unmapped
    assert 'value="move"' not in unmapped
    assert "2 people would move to v2. At once go on: 0; with a message: 0." in mapped
    assert re.findall(r'<option value="([\w-]+)" selected', mapped) == ["2", "time-to-think"]
    assert "Move 2 people" in mapped
    assert stands(world) == [(1, "time-to-read")] * 2


def test_same_names_are_filled_in(world: World):
    version_with(world, "09:00", "10:00")

    page = world.as_(Role.marketer, "en").get(path(world), params={"to": 2}).text

    assert re.findall(r'<option value="([\w-]+)" selected', page) == ["2", "time-to-read"]
    assert "no place yet" not in page


def test_people_move_and_are_put_back(world: World, newer: JourneyVersion):
    client = world.as_(Role.marketer, "en")

    moved = client.post(path(world), data={"action": "move", "to": "2", "step.time-to-read": "time-to-think"})
    there = stands(world)
    again = client.post(path(world), data={"action": "move", "to": "2", "step.time-to-read": "time-to-think"})
    (move_id,) = re.findall(r'name="move" value="(\d+)"', client.get(path(world)).text)
    back = client.post(path(world), data={"action": "undo", "move": move_id})
    twice = client.post(path(world), data={"action": "undo", "move": move_id})

    assert (moved.status_code, there) == (303, [(2, "time-to-think")] * 2)
    assert (again.status_code, "Nobody can be moved" in again.text) == (422, True)
    assert (back.status_code, stands(world)) == (303, [(1, "time-to-read")] * 2)
    assert (twice.status_code, "has been undone already" in twice.text) == (422, True)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"action": "move", "to": "2"}, "行き先"),
        ({"action": "move", "to": ""}, "数として読めません"),
        ({"action": "move", "to": "2", "step.time-to-read": "nothing"}, "nothing"),
        ({"action": "undo", "move": "x"}, "数として読めません"),
    ],
)
def test_mistake_is_told_in_words_and_moves_nobody(world: World, newer: JourneyVersion, data: dict[str, str], said: str):
    answer = world.as_(Role.marketer).post(path(world), data=data)

    assert (answer.status_code, said in answer.text) == (422, True)
    assert stands(world) == [(1, "time-to-read")] * 2


def test_only_version_says_that_there_is_none_to_move_to(world: World):
    version_with(world, "09:00", "10:00", VersionStatus.submitted)
    client = world.as_(Role.marketer, "en")

    assert "no other published version" in client.get(path(world)).text
    assert client.get(path(world, 2)).status_code == 404
    assert f'href="{path(world)}"' in client.get(f"/journeys/{world.journey.key}/1/control").text


@pytest.mark.parametrize("role", [Role.partner, Role.approver])
def test_others_may_not(world: World, newer: JourneyVersion, role: Role):
    client = world.as_(role)

    assert client.get(path(world)).status_code == 403
    assert client.post(path(world), data={"action": "move", "to": "2", "step.time-to-read": "time-to-think"}).status_code == 403
    assert stands(world) == [(1, "time-to-read")] * 2


def test_another_brand_finds_neither_the_journey_nor_the_move(world: World, newer: JourneyVersion):
    world.as_(Role.marketer).post(path(world), data={"action": "move", "to": "2", "step.time-to-read": "time-to-think"})
    with world.db.writing() as session:
        brand = make.make_brand(session)
        own = session.get_one(Journey, make.make_version(session, brand).journey_id).key
        (move,) = session.exec(select(VersionMove)).all()
        move.brand_id = id_of(brand)  # as if it were another brand's
        session.add(move)
        move_id = move.id

    answer = world.as_(Role.marketer).post(path(world), data={"action": "undo", "move": str(move_id)})

    assert (answer.status_code, stands(world)) == (404, [(2, "time-to-think")] * 2)
    if own != world.journey.key:
        assert world.as_(Role.marketer).get(f"/journeys/{own}/1/move").status_code == 404
