"""Journeys: writing, checking, submitting, approving by a second person, publishing, and looking at every message."""

import re

import pytest
from sqlmodel import select

from distmark.errors import Refused
from distmark.journeys.source import Source
from distmark.journeys.table import JourneyVersion, VersionStatus
from distmark.partners.model import Role
from tests import factories as make
from tests.web.conftest import PartnerPair


def form_of(source: Source, action: str) -> dict[str, str]:
    return {"definition": source.definition, "action": action, **{f"template:{name}": text for name, text in source.templates.items()}}


@pytest.fixture
def source(pair: PartnerPair) -> Source:
    return make.make_source("autumn-greeting", pair.brand.key)


def drafted(pair: PartnerPair, source: Source, client) -> JourneyVersion:
    client.post("/journeys/new", data=form_of(source, "save"))
    with pair.db.reading() as session:
        return session.exec(select(JourneyVersion).order_by(JourneyVersion.id.desc())).first()


def test_saved_draft_has_its_own_page_with_the_picture_and_the_list(pair: PartnerPair, source: Source):
    client = pair.as_(Role.marketer)

    answer = client.post("/journeys/new", data=form_of(source, "save"))

    assert answer.headers["location"] == "/journeys/autumn-greeting?v=1"
    page = client.get("/journeys/autumn-greeting?v=1").text
    assert "<svg" in page
    assert 'class="outline"' in page
    assert "下書き" in page


def test_check_shows_each_finding_beside_its_line_and_stores_nothing(pair: PartnerPair, source: Source):
    broken = Source(source.definition.replace("3 days", "3 moons"), source.templates)
    client = pair.as_(Role.marketer)

    answer = client.post("/journeys/new", data=form_of(broken, "check"))
    page = client.get(answer.headers["location"]).text

    assert answer.status_code == 303
    assert "3 moons" in page
    assert "期間" in page  # the finding, in Japanese
    assert client.get("/journeys/autumn-greeting").status_code == 404


def test_unreadable_text_is_not_saved_and_not_lost(pair: PartnerPair, source: Source):
    answer = pair.as_(Role.marketer).post("/journeys/new", data=form_of(Source("key: [", source.templates), "save"))

    assert answer.status_code == 422
    assert "key: [" in answer.text


def test_uploaded_files_replace_those_of_the_same_name(pair: PartnerPair, source: Source):
    files = [
        ("files", ("journey.yaml", source.definition.encode(), "text/yaml")),
        ("files", ("welcome.ja.subject.txt", "新しい件名".encode(), "text/plain")),
    ]

    client = pair.as_(Role.marketer)
    answer = client.post("/journeys/new", data=form_of(source, "check"), files=files)

    assert "新しい件名" in client.get(answer.headers["location"]).text


def test_text_that_is_not_saved_is_there_again_in_either_language_until_it_is_saved_or_discarded(pair: PartnerPair, source: Source):
    client, colleague = pair.as_(Role.marketer), pair.as_(Role.marketer)
    drafted(pair, source, client)
    edit = "/journeys/autumn-greeting/edit"
    typed = Source(source.definition.replace("3 days", "5 days"), source.templates)

    kept = client.post(edit, data=form_of(typed, "keep"))
    client.post("/language", data={"language": "en", "next": edit})
    page = client.get(edit).text

    assert kept.status_code == 204
    assert "5 days" in page
    assert "only you see it" in page
    assert "5 days" not in colleague.get(edit).text
    client.post(edit, data=form_of(typed, "discard"))
    assert "5 days" not in client.get(edit).text


@pytest.mark.parametrize("action", ["save", "check"])
def test_text_that_cannot_be_read_is_there_again_later(pair: PartnerPair, source: Source, action: str):
    client = pair.as_(Role.marketer)

    client.post("/journeys/new", data=form_of(Source("key: [half", source.templates), action))

    assert "key: [half" in client.get("/journeys/new").text


def test_saving_forgets_what_was_typed_before(pair: PartnerPair, source: Source):
    client = pair.as_(Role.marketer)
    client.post("/journeys/new", data=form_of(source, "check"))

    drafted(pair, source, client)

    assert "autumn-greeting" not in client.get("/journeys/new").text


def test_text_as_it_was_saved_is_no_draft(pair: PartnerPair, source: Source):
    client = pair.as_(Role.marketer)
    drafted(pair, source, client)

    client.post("/journeys/autumn-greeting/edit", data=form_of(source, "keep"))

    assert "入力中" not in client.get("/journeys/autumn-greeting/edit").text


def test_draft_with_errors_cannot_be_submitted_and_says_where_they_are(pair: PartnerPair, source: Source):
    client = pair.as_(Role.marketer)
    version = drafted(pair, Source(source.definition, {}), client)

    answer = client.post(f"/journeys/versions/{version.id}/submit")

    assert answer.headers["location"] == "/journeys/autumn-greeting/edit?v=1"
    assert "先に、ここに示したエラーを修正してください" in client.get("/journeys/autumn-greeting/edit?v=1").text
    with pair.db.reading() as session:
        assert session.get_one(JourneyVersion, version.id).status == VersionStatus.draft


def test_the_way_from_draft_to_published_needs_two_people_and_prefect(pair: PartnerPair, source: Source, registered: list[int]):
    marketer, approver = pair.as_(Role.marketer), pair.as_(Role.approver)
    version = drafted(pair, source, marketer)

    marketer.post(f"/journeys/versions/{version.id}/submit")
    assert "autumn-greeting" in approver.get("/approvals").text or "資料のご案内" in approver.get("/approvals").text
    approver.post(f"/approvals/{version.id}/approve", data={"note": "よい"})
    answer = marketer.post(f"/journeys/versions/{version.id}/register")

    assert answer.status_code == 303
    assert registered == [version.id]
    with pair.db.reading() as session:
        assert session.get_one(JourneyVersion, version.id).status == VersionStatus.registered


def test_draft_that_a_colleague_changed_meanwhile_is_not_submitted_unread(pair: PartnerPair, source: Source):
    client = pair.as_(Role.marketer, "en")
    version = drafted(pair, source, client)
    (shown,) = re.findall(r'/submit"><input type="hidden" name="shown" value="(\w+)"', client.get("/journeys/autumn-greeting?v=1").text)
    with pair.db.writing() as session:
        row = session.get_one(JourneyVersion, version.id)
        row.content_hash = "0" * 64
        session.add(row)

    answer = client.post(f"/journeys/versions/{version.id}/submit", data={"shown": shown})

    assert "was changed since you looked" in client.get(answer.headers["location"]).text
    with pair.db.reading() as session:
        assert session.get_one(JourneyVersion, version.id).status is VersionStatus.draft


def test_text_other_than_the_one_shown_is_not_approved(pair: PartnerPair, source: Source):
    marketer, approver = pair.as_(Role.marketer), pair.as_(Role.approver, "en")
    version = drafted(pair, source, marketer)
    marketer.post(f"/journeys/versions/{version.id}/submit")
    (shown,) = re.findall(r'name="shown" value="(\w+)"', approver.get(f"/approvals/{version.id}").text)

    other = approver.post(f"/approvals/{version.id}/approve", data={"shown": "0" * 64})
    same = approver.post(f"/approvals/{version.id}/approve", data={"shown": shown})

    assert (other.status_code, same.status_code) == (409, 303)


def test_nobody_approves_their_own_text(pair: PartnerPair, source: Source):
    ops = pair.as_(Role.ops)  # may write and approve
    version = drafted(pair, source, ops)
    ops.post(f"/journeys/versions/{version.id}/submit")

    answer = ops.post(f"/approvals/{version.id}/approve")

    assert answer.status_code == 403
    assert "ほかの方の承認が必要です" in answer.text
    assert "内容で承認する" not in ops.get(f"/approvals/{version.id}").text


def test_sending_back_needs_a_reason_and_shows_it_to_the_author(pair: PartnerPair, source: Source):
    marketer, approver = pair.as_(Role.marketer), pair.as_(Role.approver)
    version = drafted(pair, source, marketer)
    marketer.post(f"/journeys/versions/{version.id}/submit")

    without = approver.post(f"/approvals/{version.id}/send-back", data={"note": " "})
    assert without.status_code == 422
    assert "何を直すのか書いてください" in without.text

    approver.post(f"/approvals/{version.id}/send-back", data={"note": "件名を短く"})
    assert "件名を短く" in marketer.get("/journeys/autumn-greeting?v=1").text


def test_approver_sees_exactly_what_changed(pair: PartnerPair):
    changed = make.make_source(
        pair.journey.key, pair.brand.key, templates={"welcome.ja.subject.txt": "{{ contact.last_name }}様、年末のご挨拶"}
    )
    marketer = pair.as_(Role.marketer)
    marketer.post(f"/journeys/{pair.journey.key}/edit", data=form_of(changed, "save"))
    with pair.db.reading() as session:
        version = session.exec(select(JourneyVersion).order_by(JourneyVersion.id.desc())).first()
    marketer.post(f"/journeys/versions/{version.id}/submit")

    page = pair.as_(Role.approver).get(f"/approvals/{version.id}").text

    assert "v1 から v2 への変更は、これですべてです" in page
    assert "welcome.ja.subject.txt" in page
    assert "資料のご案内" in page
    assert "年末のご挨拶" in page
    assert "welcome.en.subject.txt" not in page
    assert f"/journeys/{pair.journey.key}/1/message.html" in page  # old and new beside each other
    assert f"/journeys/{pair.journey.key}/2/message.html" in page


def test_silent_prefect_changes_nothing_and_says_so(pair: PartnerPair, source: Source):
    def silent(version_id: int, viewer: object) -> str:
        raise Refused("Prefect did not answer, so nothing was changed; check that it runs and try again.")

    pair.app.state.site.register = silent
    marketer = pair.as_(Role.marketer)
    version = drafted(pair, source, marketer)
    marketer.post(f"/journeys/versions/{version.id}/submit")
    pair.as_(Role.approver).post(f"/approvals/{version.id}/approve")

    answer = marketer.post(f"/journeys/versions/{version.id}/register")

    assert answer.status_code == 409
    assert "Prefect から応答がない" in answer.text
    with pair.db.reading() as session:
        assert session.get_one(JourneyVersion, version.id).status == VersionStatus.approved


@pytest.mark.parametrize("lang", ["ja", "en"])
def test_each_message_is_shown_in_each_language_to_a_made_up_person(pair: PartnerPair, lang: str):
    client = pair.as_(Role.marketer)

    page = client.get(f"/journeys/{pair.journey.key}/1/messages?message=welcome&lang={lang}").text
    frame = client.get(f"/journeys/{pair.journey.key}/1/message.html?message=welcome&lang={lang}").text

    assert {"ja": "見本様へ、資料のご案内", "en": "A short introduction for Hana"}[lang] in page
    assert f'lang="{lang}"' in frame
    assert pair.brand.legal_name in frame


def test_retired_version_takes_nobody_any_more(pair: PartnerPair):
    pair.as_(Role.marketer).post(f"/journeys/versions/{pair.version.id}/retire")

    with pair.db.reading() as session:
        assert session.get_one(JourneyVersion, pair.version.id).status == VersionStatus.retired
    assert "公開中の版がないため" in pair.as_().get(f"/campaigns/{pair.campaign.id}").text


def test_journey_of_another_brand_is_not_there(pair: PartnerPair):
    with pair.db.writing() as session:
        foreign = make.make_version(session)
        key = session.get_one(type(pair.journey), foreign.journey_id).key
    client = pair.as_(Role.marketer)

    assert client.get(f"/journeys/{key}").status_code == 404
    assert client.post(f"/journeys/versions/{foreign.id}/submit").status_code == 404


def test_results_say_what_each_number_counts(pair: PartnerPair):
    from distmark.metrics.service import roll_up

    roll_up(pair.db, make.NOW)

    page = pair.as_(Role.marketer).get(f"/results/{pair.journey.key}").text

    assert "人がリンクを1回以上クリックした通数 ÷ 送信した通数" in page
    assert "<table" in page
    assert page.count("<polyline") == 3
    assert "表で見る" in page


def test_partner_sees_results_of_their_own_contacts_only(pair: PartnerPair):
    from distmark.enrollments.model import TimelineKind
    from distmark.enrollments.table import TimelineEntry
    from distmark.metrics.service import roll_up

    with pair.db.writing() as session:
        for side in (pair.here, pair.there, pair.there):
            session.add(TimelineEntry(enrollment_id=side.enrollment.id, at=make.NOW, kind=TimelineKind.entered))
    roll_up(pair.db, make.NOW)

    assert "1人が開始しました" in pair.as_().get(f"/results/{pair.journey.key}").text
    assert "3人が開始しました" in pair.as_(Role.marketer).get(f"/results/{pair.journey.key}").text


def test_results_of_a_campaign_of_others_are_not_there(pair: PartnerPair):
    assert pair.as_().get(f"/results/{pair.journey.key}?campaign={pair.foreign.id}").status_code == 404


def test_reason_of_sending_back_is_shown_on_the_versions_after_it(pair: PartnerPair):
    with pair.db.writing() as session:
        first = make.make_version(session, journey=session.get_one(type(pair.journey), pair.journey.id))
        first.status, first.decision_note, first.decided_at = VersionStatus.sent_back, "件名に社名を入れてください", make.NOW
        second = make.make_version(session, journey=session.get_one(type(pair.journey), pair.journey.id))
        second.status = VersionStatus.submitted
        session.add_all((first, second))
        session.flush()
        numbers, second_id = (first.number, second.number), second.id

    author = pair.as_(Role.marketer).get(f"/journeys/{pair.journey.key}?v={numbers[1]}").text
    approver = pair.as_(Role.approver).get(f"/approvals/{second_id}").text

    for page in (author, approver):
        assert f"v{numbers[0]}は差し戻されました" in page
        assert "件名に社名を入れてください" in page
