"""Rehearsals: the form, the page with the state of a rehearsal, and the links in its messages."""

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
from distmark.rehearsals.sandbox import open_sandbox
from distmark.rehearsals.table import SIGN_OF_LIFE, Rehearsal
from distmark.settings import Settings
from distmark.sql import id_of
from tests.driver import PHONE
from tests.waiting import until
from tests.web.conftest import PartnerPair

HERE = "https://testserver"
FROM_A_PHONE = {"user-agent": PHONE}


@pytest.fixture
def begun(pair: PartnerPair) -> list[int]:
    """The ids of the rehearsals that were handed over to run."""
    ids: list[int] = []
    pair.app.state.site.rehearse = ids.append
    return ids


def form_of(pair: PartnerPair, **changes: str) -> dict[str, str]:
    return {"seconds": "2", "language": "ja", "partner": str(pair.here.partner.id), "campaign": "", "phone": "yes", **changes}


def begin(pair: PartnerPair, client: TestClient, **changes: str) -> Rehearsal:
    answer = client.post(f"/journeys/{pair.journey.key}/1/test", data=form_of(pair, **changes))
    assert answer.status_code == 303, answer.text
    with pair.db.reading() as session:
        row = session.exec(select(Rehearsal).order_by(Rehearsal.id.desc())).first()
        assert answer.headers["location"] == f"/tests/{row.key}"
        return row


def walk(pair: PartnerPair, settings: Settings, row: Rehearsal) -> MemoryChannel:
    """Run the rehearsal until its first message is sent and it waits; return the channel with the message."""
    inbox = MemoryChannel()
    context = RunnerContext(pair.db, settings.data_dir, inbox, Sender(HERE, "hello@mirai.example", "mirai.example"))

    def waits() -> bool:
        with pair.db.reading() as session:
            return bool(inbox.accepted) and session.get_one(Rehearsal, row.id).next_at is not None

    async def for_a_while() -> None:
        task = asyncio.create_task(rehearse(context, id_of(row)))
        await until(lambda: task.done() or waits())
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(for_a_while())
    return inbox


def test_journey_page_leads_to_the_form_and_the_form_begins_a_rehearsal(pair: PartnerPair, begun: list[int]):
    client = pair.as_(Role.marketer)

    assert f"/journeys/{pair.journey.key}/1/test" in client.get(f"/journeys/{pair.journey.key}").text
    assert "自分でテストする" in client.get(f"/journeys/{pair.journey.key}/1/test").text
    row = begin(pair, client)

    assert begun == [row.id]
    assert (row.seconds_per_wait, row.language, row.partner_id) == (2, "ja", pair.here.partner.id)


def test_approver_may_rehearse_and_a_partners_user_may_not(pair: PartnerPair, begun: list[int]):
    path = f"/journeys/{pair.journey.key}/1/test"

    assert pair.as_(Role.approver).get(path).status_code == 200
    assert pair.as_(Role.partner).get(path).status_code == 403
    assert pair.as_(Role.partner).post(path, data=form_of(pair)).status_code == 403


@pytest.mark.parametrize("changes", [{"seconds": "1"}, {"seconds": "61"}, {"language": "fr"}, {"partner": ""}])
def test_impossible_option_is_refused_beside_the_form(pair: PartnerPair, begun: list[int], changes: dict[str, str]):
    answer = pair.as_(Role.marketer).post(f"/journeys/{pair.journey.key}/1/test", data=form_of(pair, **changes))

    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert begun == []


def test_partner_or_campaign_of_another_brand_cannot_be_named(pair: PartnerPair, begun: list[int]):
    client = pair.as_(Role.marketer)

    answer = client.post(f"/journeys/{pair.journey.key}/1/test", data=form_of(pair, campaign=str(pair.foreign.id)))

    assert answer.status_code == 404
    assert begun == []


def test_page_shows_the_state_of_the_rehearsal_and_reloads_by_itself(pair: PartnerPair, begun: list[int], settings: Settings):
    client = pair.as_(Role.marketer)
    row = begin(pair, client)
    walk(pair, settings, row)
    _wait_longer(pair, row)

    page = client.get(f"/tests/{row.key}").text
    block = client.get(f"/tests/{row.key}", headers={"hx-request": "true", "hx-target": "live"}).text

    assert f'hx-get="/tests/{row.key}" hx-trigger="every 1s"' in page
    assert re.search(r"あと\d+秒で先へ進みます", page)
    assert "メール「" in page
    assert block.lstrip().startswith('<div id="live"')


def test_timeline_is_in_order_newest_first(pair: PartnerPair, begun: list[int], settings: Settings):
    client = pair.as_(Role.marketer)
    row = begin(pair, client)
    walk(pair, settings, row)

    page = client.get(f"/tests/{row.key}").text

    places = [page.index(words) for words in ("待機：", "メール「", "ジャーニーを開始")]
    assert places == sorted(places)


def _wait_longer(pair: PartnerPair, row: Rehearsal) -> None:
    with pair.db.writing() as session:
        stored = session.get_one(Rehearsal, row.id)
        stored.seen_at = wall_now()
        stored.next_set_at = stored.seen_at + timedelta(seconds=30)
        session.add(stored)


def test_link_in_a_message_of_a_rehearsal_leads_to_its_target_and_is_recorded_in_the_sandbox_alone(
    pair: PartnerPair, begun: list[int], settings: Settings
):
    client = pair.as_(Role.marketer)
    row = begin(pair, client)
    inbox = walk(pair, settings, row)
    [link, *_] = re.findall(rf'href="{HERE}(/t/{row.key}/c/[^"]+)"', inbox.accepted[0].html)
    [pixel] = re.findall(rf"/t/{row.key}/o/[^\"]+\.gif", inbox.accepted[0].html)

    opened_at = client.get(pixel, headers=FROM_A_PHONE)
    answer = client.get(link, headers=FROM_A_PHONE)

    assert opened_at.headers["content-type"] == "image/gif"
    assert answer.status_code == 302
    assert answer.headers["location"].startswith("https://")
    with pair.db.reading() as session:
        assert session.exec(select(Event)).all() == []
    with open_sandbox(settings.data_dir, row.key) as db, db.reading() as session:
        assert {event.kind.value for event in session.exec(select(Event))} == {"opened", "clicked"}
    assert "クリック" in client.get(f"/tests/{row.key}").text


def test_unsubscribing_in_a_rehearsal_stops_the_rehearsal_and_nothing_else(pair: PartnerPair, begun: list[int], settings: Settings):
    row = begin(pair, pair.as_(Role.marketer))
    path = walk(pair, settings, row).accepted[0].unsubscribe_url.removeprefix(HERE)
    stranger = TestClient(pair.app, follow_redirects=False)

    page = stranger.get(path)
    done = stranger.post(path, data={"List-Unsubscribe": "One-Click"}, headers={"sec-fetch-site": "cross-site"})

    assert f'action="{path}"' in page.text
    assert done.status_code == 200
    with pair.db.reading() as session:
        assert session.exec(select(Suppression)).all() == []
    with open_sandbox(settings.data_dir, row.key) as db, db.reading() as session:
        assert len(session.exec(select(Suppression)).all()) == 1


def test_unknown_key_in_a_link_is_answered_as_a_page_that_is_not_there(pair: PartnerPair, begun: list[int]):
    assert TestClient(pair.app).get("/t/nobodys/c/token/link").status_code == 404


def test_messages_of_a_rehearsal_hold_the_words_of_the_campaigns_partner(pair: PartnerPair, begun: list[int], settings: Settings):
    with pair.db.writing() as session:
        words = {"ja": {"personal_note": "いつもの窓口でお待ちしています。"}}
        of: dict[str, object] = {"campaign_id": pair.campaign.id, "partner_id": pair.here.partner.id}
        session.add(PartnerBlocks(blocks=words, updated_at=pair.here.enrollment.entered_at, **of))
    row = begin(pair, pair.as_(Role.marketer), campaign=str(pair.campaign.id))

    inbox = walk(pair, settings, row)

    assert "いつもの窓口でお待ちしています。" in inbox.accepted[0].text


def test_rehearsal_of_a_colleague_is_not_there(pair: PartnerPair, begun: list[int]):
    row = begin(pair, pair.as_(Role.marketer))
    colleague = pair.as_(Role.marketer)

    for answer in (
        colleague.get(f"/tests/{row.key}"),
        *(colleague.post(f"/tests/{row.key}/{what}") for what in ("stop", "go-on", "happen")),
    ):
        assert answer.status_code == 404


def test_interrupted_rehearsal_says_so_and_can_be_begun_again_as_it_was(pair: PartnerPair, begun: list[int]):
    client = pair.as_(Role.marketer)
    row = begin(pair, client, seconds="7")
    with pair.db.writing() as session:
        stored = session.get_one(Rehearsal, row.id)
        stored.seen_at -= SIGN_OF_LIFE * 3
        session.add(stored)

    page = client.get(f"/tests/{row.key}").text
    again = client.get(f"/journeys/{pair.journey.key}/1/test").text

    assert "中断" in page
    assert "hx-trigger" not in page.split('id="live"')[1].split(">")[0]
    assert 'value="7"' in again


def test_version_with_errors_is_not_rehearsed(pair: PartnerPair, begun: list[int]):
    with pair.db.writing() as session:
        version = session.get_one(type(pair.version), pair.version.id)
        version.source = {**version.source, "definition": version.source["definition"].replace("message: welcome", "message: nowhere")}
        session.add(version)

    answer = pair.as_(Role.marketer).post(f"/journeys/{pair.journey.key}/1/test", data=form_of(pair))

    assert answer.status_code == 303
    assert begun == []


def test_process_that_cannot_send_says_so(pair: PartnerPair):
    page = pair.as_(Role.marketer).get(f"/journeys/{pair.journey.key}/1/test")

    assert "テストできません" in page.text


def test_sandbox_is_readable_by_its_owner_only(pair: PartnerPair, begun: list[int], settings: Settings):
    row = begin(pair, pair.as_(Role.marketer))

    folder = Path(settings.data_dir) / "tests"
    assert [file.name for file in folder.glob("*.sqlite3")] == [f"{row.key}.sqlite3"]
    assert folder.stat().st_mode & 0o077 == 0
