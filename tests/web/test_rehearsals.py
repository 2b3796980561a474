"""Testing a journey on oneself: the form, the page that tells where the test stands, and the links in its messages."""

import asyncio
import re
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from distmark.campaigns.table import PartnerBlocks
from distmark.channels.memory import MemoryChannel
from distmark.clock import wall_now
from distmark.contacts.table import Suppression
from distmark.delivery.service import Sender
from distmark.engagement.table import Event
from distmark.partners.model import Role
from distmark.rehearsals.runner import RunnerContext, rehearse
from distmark.rehearsals.sandbox import opened
from distmark.rehearsals.table import SIGN_OF_LIFE, Rehearsal
from distmark.settings import Settings
from distmark.sql import id_of
from tests.driver import PHONE
from tests.waiting import until
from tests.web.conftest import World

HERE = "https://testserver"
FROM_A_PHONE = {"user-agent": PHONE}


@pytest.fixture
def begun(world: World) -> list[int]:
    """The tests that were handed over to be walked."""
    ids: list[int] = []
    world.app.state.site.rehearse = ids.append
    return ids


def form_of(world: World, **changes: str) -> dict[str, str]:
    return {"seconds": "2", "language": "ja", "partner": str(world.here.partner.id), "campaign": "", "phone": "yes", **changes}


def begin(world: World, client: TestClient, **changes: str) -> Rehearsal:
    answer = client.post(f"/journeys/{world.journey.key}/1/test", data=form_of(world, **changes))
    assert answer.status_code == 303, answer.text
    with world.db.reading() as session:
        row = session.exec(select(Rehearsal).order_by(Rehearsal.id.desc())).first()
        assert answer.headers["location"] == f"/tests/{row.key}"
        return row


def walk(world: World, settings: Settings, row: Rehearsal) -> MemoryChannel:
    """Walk the test until its first message is out and it waits; what it sent is in the channel."""
    inbox = MemoryChannel()
    house = RunnerContext(world.db, settings.data_dir, inbox, Sender(HERE, "hello@mirai.example", "mirai.example"))

    def waits() -> bool:
        with world.db.reading() as session:
            return bool(inbox.accepted) and session.get_one(Rehearsal, row.id).next_at is not None

    async def for_a_while() -> None:
        task = asyncio.create_task(rehearse(house, id_of(row)))
        await until(lambda: task.done() or waits())
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(for_a_while())
    return inbox


def test_journey_page_leads_to_the_form_and_the_form_begins_a_test(world: World, begun: list[int]):
    client = world.as_(Role.marketer)

    assert f"/journeys/{world.journey.key}/1/test" in client.get(f"/journeys/{world.journey.key}").text
    assert "自分でテストする" in client.get(f"/journeys/{world.journey.key}/1/test").text
    row = begin(world, client)

    assert begun == [row.id]
    assert (row.seconds_per_wait, row.language, row.partner_id) == (2, "ja", world.here.partner.id)


def test_approver_may_test_and_a_partners_person_may_not(world: World, begun: list[int]):
    path = f"/journeys/{world.journey.key}/1/test"

    assert world.as_(Role.approver).get(path).status_code == 200
    assert world.as_(Role.partner).get(path).status_code == 403
    assert world.as_(Role.partner).post(path, data=form_of(world)).status_code == 403


@pytest.mark.parametrize("changes", [{"seconds": "1"}, {"seconds": "61"}, {"language": "fr"}, {"partner": ""}])
def test_wish_that_cannot_be_is_refused_beside_the_form(world: World, begun: list[int], changes: dict[str, str]):
    answer = world.as_(Role.marketer).post(f"/journeys/{world.journey.key}/1/test", data=form_of(world, **changes))

    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert begun == []


def test_partner_or_campaign_of_another_brand_cannot_be_named(world: World, begun: list[int]):
    client = world.as_(Role.marketer)

    answer = client.post(f"/journeys/{world.journey.key}/1/test", data=form_of(world, campaign=str(world.foreign.id)))

    assert answer.status_code == 404
    assert begun == []


def test_page_tells_where_the_test_stands_and_asks_again_by_itself(world: World, begun: list[int], settings: Settings):
    client = world.as_(Role.marketer)
    row = begin(world, client)
    walk(world, settings, row)
    _wait_longer(world, row)

    page = client.get(f"/tests/{row.key}").text
    block = client.get(f"/tests/{row.key}", headers={"hx-request": "true", "hx-target": "live"}).text

    assert f'hx-get="/tests/{row.key}" hx-trigger="every 1s"' in page
    assert re.search(r"あと \d+ 秒で先へ進みます", page)
    assert "メール「" in page
    assert block.lstrip().startswith('<div id="live"')


def test_story_tells_what_happened_in_its_order_newest_first(world: World, begun: list[int], settings: Settings):
    client = world.as_(Role.marketer)
    row = begin(world, client)
    walk(world, settings, row)

    page = client.get(f"/tests/{row.key}").text

    told = [page.index(words) for words in ("待機：", "メール「", "ジャーニーを開始")]
    assert told == sorted(told)


def _wait_longer(world: World, row: Rehearsal) -> None:
    with world.db.writing() as session:
        stored = session.get_one(Rehearsal, row.id)
        stored.seen_at = wall_now()
        stored.next_set_at = stored.seen_at + timedelta(seconds=30)
        session.add(stored)


def test_link_in_a_message_of_a_test_leads_to_its_target_and_is_recorded_on_the_stage_alone(
    world: World, begun: list[int], settings: Settings
):
    client = world.as_(Role.marketer)
    row = begin(world, client)
    inbox = walk(world, settings, row)
    [link, *_] = re.findall(rf'href="{HERE}(/t/{row.key}/c/[^"]+)"', inbox.accepted[0].html)
    [pixel] = re.findall(rf"/t/{row.key}/o/[^\"]+\.gif", inbox.accepted[0].html)

    opened_at = client.get(pixel, headers=FROM_A_PHONE)
    answer = client.get(link, headers=FROM_A_PHONE)

    assert opened_at.headers["content-type"] == "image/gif"
    assert answer.status_code == 302
    assert answer.headers["location"].startswith("https://")
    with world.db.reading() as session:
        assert session.exec(select(Event)).all() == []
    with opened(settings.data_dir, row.key) as db, db.reading() as session:
        assert {event.kind.value for event in session.exec(select(Event))} == {"opened", "clicked"}
    assert "クリック" in client.get(f"/tests/{row.key}").text


def test_unsubscribing_in_a_test_stops_the_test_and_nothing_else(world: World, begun: list[int], settings: Settings):
    row = begin(world, world.as_(Role.marketer))
    path = walk(world, settings, row).accepted[0].unsubscribe_url.removeprefix(HERE)
    stranger = TestClient(world.app, follow_redirects=False)

    asked = stranger.get(path)
    done = stranger.post(path, data={"List-Unsubscribe": "One-Click"}, headers={"sec-fetch-site": "cross-site"})

    assert f'action="{path}"' in asked.text
    assert done.status_code == 200
    with world.db.reading() as session:
        assert session.exec(select(Suppression)).all() == []
    with opened(settings.data_dir, row.key) as db, db.reading() as session:
        assert len(session.exec(select(Suppression)).all()) == 1


def test_unknown_key_in_a_link_is_answered_as_a_page_that_is_not_there(world: World, begun: list[int]):
    assert TestClient(world.app).get("/t/nobodys/c/token/link").status_code == 404


def test_messages_of_a_test_hold_the_words_of_the_campaigns_partner(world: World, begun: list[int], settings: Settings):
    with world.db.writing() as session:
        words = {"personal_note": "いつもの窓口でお待ちしています。"}
        of: dict[str, object] = {"campaign_id": world.campaign.id, "partner_id": world.here.partner.id}
        session.add(PartnerBlocks(blocks=words, updated_at=world.here.enrollment.entered_at, **of))
    row = begin(world, world.as_(Role.marketer), campaign=str(world.campaign.id))

    inbox = walk(world, settings, row)

    assert "いつもの窓口でお待ちしています。" in inbox.accepted[0].text


def test_test_of_a_colleague_is_not_there(world: World, begun: list[int]):
    row = begin(world, world.as_(Role.marketer))
    colleague = world.as_(Role.marketer)

    for answer in (
        colleague.get(f"/tests/{row.key}"),
        *(colleague.post(f"/tests/{row.key}/{what}") for what in ("stop", "go-on", "happen")),
    ):
        assert answer.status_code == 404


def test_interrupted_test_says_so_and_can_be_begun_again_as_it_was(world: World, begun: list[int]):
    client = world.as_(Role.marketer)
    row = begin(world, client, seconds="7")
    with world.db.writing() as session:
        stored = session.get_one(Rehearsal, row.id)
        stored.seen_at -= SIGN_OF_LIFE * 3
        session.add(stored)

    page = client.get(f"/tests/{row.key}").text
    again = client.get(f"/journeys/{world.journey.key}/1/test").text

    assert "中断" in page
    assert "hx-trigger" not in page.split('id="live"')[1].split(">")[0]
    assert 'value="7"' in again


def test_version_with_errors_is_not_tested(world: World, begun: list[int]):
    with world.db.writing() as session:
        version = session.get_one(type(world.version), world.version.id)
        version.source = {**version.source, "definition": version.source["definition"].replace("message: welcome", "message: nowhere")}
        session.add(version)

    answer = world.as_(Role.marketer).post(f"/journeys/{world.journey.key}/1/test", data=form_of(world))

    assert answer.status_code == 303
    assert begun == []


def test_process_without_a_way_out_says_so(world: World):
    page = world.as_(Role.marketer).get(f"/journeys/{world.journey.key}/1/test")

    assert "テストできません" in page.text


def test_stage_is_kept_where_only_its_owner_reads(world: World, begun: list[int], settings: Settings):
    row = begin(world, world.as_(Role.marketer))

    folder = Path(settings.data_dir) / "tests"
    assert [file.name for file in folder.glob("*.sqlite3")] == [f"{row.key}.sqlite3"]
    assert folder.stat().st_mode & 0o077 == 0
