"""Contacts: searching, changing, importing, consent, and a contact's timeline."""

from datetime import timedelta

import pytest
from sqlmodel import select

from distmark.contacts.table import Consent, Contact
from distmark.engagement.model import EventKind
from distmark.engagement.table import Event
from distmark.enrollments.model import TimelineKind
from distmark.enrollments.table import Enrollment, TimelineEntry
from distmark.messages.model import MessageStatus
from distmark.messages.table import Message
from distmark.partners.model import Role
from tests.factories import NOW, make_contact
from tests.web.conftest import PartnerPair

CSV = "姓,名,メールアドレス,携帯\n新井,翼,arai@example.jp,090-1111-2222\n上田,恵,ueda@@example,\n"


def uploaded(client, text: str = CSV, **fields: str):
    """Upload a file and return the page that shows what importing it would do, or the mistake."""
    answer = client.post("/contacts/import", data=fields, files={"file": ("people.csv", text.encode(), "text/csv")})
    return client.get(answer.headers["location"]) if answer.status_code == 303 else answer


def name_of(page: str) -> str:
    return page.partition('name="upload" value="')[2].partition('"')[0]


def names(pair: PartnerPair) -> set[str]:
    with pair.db.reading() as session:
        return {row.last_name for row in session.exec(select(Contact).where(Contact.partner_id == pair.here.partner.id))}


def test_import_shows_first_what_would_happen_and_writes_nothing(pair: PartnerPair):
    answer = uploaded(pair.as_())

    assert answer.status_code == 200
    assert "新規1人" in answer.text
    assert "「ueda@@example」はメールアドレスではありません" in answer.text
    assert "新井" not in names(pair)


def test_confirmed_import_writes_the_good_lines(pair: PartnerPair):
    client = pair.as_()

    answer = client.post("/contacts/import", data={"upload": name_of(uploaded(client).text)})

    assert answer.status_code == 303
    assert "新井" in names(pair)
    assert "上田" not in names(pair)
    assert "新規1人" in client.get("/contacts").text


def test_import_confirmed_twice_says_that_the_file_is_gone(pair: PartnerPair):
    client = pair.as_()
    name = name_of(uploaded(client).text)
    client.post("/contacts/import", data={"upload": name})

    again = client.post("/contacts/import", data={"upload": name})

    assert again.status_code == 422
    assert "もう一度選んでください" in again.text


def test_somebody_elses_upload_cannot_be_imported(pair: PartnerPair):
    name = name_of(uploaded(pair.as_()).text)

    assert pair.as_().post("/contacts/import", data={"upload": name}).status_code == 422
    assert "新井" not in names(pair)


@pytest.mark.parametrize("name", ["abc.def.ghi", "../../etc/passwd", "0" * 32, "%2e%2e"])
def test_upload_that_is_not_there_is_refused_in_words(pair: PartnerPair, name: str):
    client = pair.as_()

    for answer in (client.post("/contacts/import", data={"upload": name}), client.get("/contacts/import", params={"file": name})):
        assert answer.status_code == 422
        assert "もう一度選んでください" in answer.text


def test_checked_file_has_an_address_that_can_be_loaded_again_in_the_other_language(pair: PartnerPair):
    client = pair.as_()
    files = {"file": ("people.csv", CSV.encode(), "text/csv")}

    to = client.post("/contacts/import", files=files).headers["location"]
    client.post("/language", data={"language": "en", "next": to})

    assert "1 person would be new" in client.get(to).text
    assert "people" not in to  # the file's name is not in the address


def test_import_that_would_do_something_else_than_was_shown_is_shown_again_and_writes_nothing(pair: PartnerPair):
    client = pair.as_()
    name = name_of(uploaded(client).text)
    with pair.db.writing() as session:
        make_contact(session, session.merge(pair.here.partner), last_name="新井", first_name="翼", email="arai@example.jp", phone="")

    changed = client.post("/contacts/import", data={"upload": name})
    page = client.get(changed.headers["location"]).text
    done = client.post("/contacts/import", data={"upload": name_of(page)})

    assert "もう一度ご確認" in page
    assert "新規0人" in page
    assert done.headers["location"] == "/contacts"


def test_import_uses_the_ground_that_was_chosen_with_the_file_and_no_other(pair: PartnerPair):
    client = pair.as_()
    name = name_of(uploaded(client).text)

    client.post("/contacts/import", data={"upload": name, "ground": "opt_in", "partner": str(pair.there.partner.id)})

    with pair.db.reading() as session:
        arai = session.exec(select(Contact).where(Contact.email == "arai@example.jp")).one()
        assert arai.partner_id == pair.here.partner.id
        assert session.exec(select(Consent).where(Consent.contact_id == arai.id)).all() == []


def test_file_without_addresses_is_refused_in_words(pair: PartnerPair):
    answer = uploaded(pair.as_(), "趣味\n読書\n")

    assert answer.status_code == 422
    assert "アドレスの列がありません" in answer.text


def test_import_never_subscribes_again(pair: PartnerPair):
    """U8: a contact that refused stays unsubscribed, whatever a file says."""
    client = pair.as_()
    client.post(f"/contacts/{pair.here.contact.id}/consent", data={"given": "no"})
    text = f"姓,名,メールアドレス,同意\n鈴木,花子,{pair.here.contact.email},はい\n"

    client.post("/contacts/import", data={"upload": name_of(uploaded(client, text, ground="opt_in").text)})

    with pair.db.reading() as session:
        newest = session.exec(select(Consent).where(Consent.contact_id == pair.here.contact.id).order_by(Consent.id.desc())).first()
    assert newest.given is False


def test_search_finds_by_name_without_the_space(pair: PartnerPair):
    page = pair.as_().get("/contacts?q=鈴木花子").text

    assert f'href="/contacts/{pair.here.contact.id}"' in page


def test_contact_page_shows_the_whole_timeline(pair: PartnerPair):
    with pair.db.writing() as session:
        until = (NOW + timedelta(days=3)).isoformat()
        detail = {"until": until, "rules": ["quiet_hours:21:00-08:00"]}
        session.add(
            TimelineEntry(enrollment_id=pair.here.enrollment.id, at=NOW, kind=TimelineKind.waiting, step_id="time-to-read", detail=detail)
        )

    page = pair.as_().get(f"/contacts/{pair.here.enrolled.id}").text

    assert "メール「資料のご案内」" in page
    assert "送信済み" in page
    assert "11/27 10:00 まで" in page
    assert "理由：送信しない時間帯 21:00-08:00" in page
    assert "伊藤さんに電話" in page


def test_link_to_the_prefect_run_is_for_people_of_the_brand(pair: PartnerPair):
    with pair.db.writing() as session:
        row = session.get_one(Enrollment, pair.here.enrollment.id)
        row.flow_run_id = "0f0f"
        session.add(row)

    assert "/runs/flow-run/0f0f" in pair.as_(Role.ops).get(f"/contacts/{pair.here.enrolled.id}").text
    assert "flow-run" not in pair.as_().get(f"/contacts/{pair.here.enrolled.id}").text


@pytest.mark.parametrize(("action", "status"), [("pause", "paused"), ("stop", "ended")])
def test_partner_pauses_and_stops_one_persons_journey(pair: PartnerPair, action: str, status: str):
    pair.as_().post(f"/contacts/{pair.here.enrolled.id}/stop", data={"enrollment": str(pair.here.enrollment.id), "action": action})

    with pair.db.reading() as session:
        assert session.get_one(Enrollment, pair.here.enrollment.id).status == status


def test_paused_journey_goes_on_when_it_is_resumed(pair: PartnerPair):
    client, data = pair.as_(), {"enrollment": str(pair.here.enrollment.id)}

    client.post(f"/contacts/{pair.here.enrolled.id}/stop", data=data | {"action": "pause"})
    client.post(f"/contacts/{pair.here.enrolled.id}/stop", data=data | {"action": "resume"})

    with pair.db.reading() as session:
        assert session.get_one(Enrollment, pair.here.enrollment.id).status == "waiting"


def test_finished_task_leaves_the_list_at_once(pair: PartnerPair):
    client = pair.as_()
    assert "伊藤さんに電話" in client.get("/").text

    part = client.post(f"/tasks/{pair.here.task.id}/done", headers={"hx-request": "true", "hx-target": "section#tasks"})

    assert part.status_code == 200
    assert "<html" not in part.text
    assert "伊藤さんに電話" not in part.text
    assert "伊藤さんに電話" not in client.get("/").text


def test_changing_a_contact_leaves_consent_alone(pair: PartnerPair):
    client = pair.as_()
    fields = {"last_name": "鈴木", "first_name": "華子", "email": pair.here.contact.email, "city": "岡崎市", "language": "ja"}

    client.post(f"/contacts/{pair.here.contact.id}/edit", data=fields)

    with pair.db.reading() as session:
        row = session.get_one(Contact, pair.here.contact.id)
        consents = session.exec(select(Consent).where(Consent.contact_id == row.id)).all()
    assert (row.first_name, row.city) == ("華子", "岡崎市")
    assert len(consents) == 1


def test_taken_mail_address_comes_back_with_the_reason(pair: PartnerPair):
    fields = {"last_name": "別", "first_name": "人", "email": pair.here.contact.email, "ground": "opt_in"}

    answer = pair.as_().post("/contacts/new", data=fields)

    assert answer.status_code == 422
    assert "はすでに登録されています" in answer.text


def test_no_more_messages_is_recorded_with_the_partner_as_source(pair: PartnerPair):
    pair.as_().post(f"/contacts/{pair.here.contact.id}/consent", data={"given": "no"})

    with pair.db.reading() as session:
        rows = session.exec(select(Consent).where(Consent.contact_id == pair.here.contact.id, Consent.given.is_(False))).all()
    assert {row.channel for row in rows} == {"email", "sms"}
    assert all(row.by_user_id for row in rows)


def test_names_are_written_in_the_order_of_their_letters_to_every_reader(pair: PartnerPair):
    with pair.db.writing() as session:
        make_contact(session, pair.here.partner, last_name="Smith", first_name="Ann")
    japanese, english = pair.as_().get("/contacts").text, pair.as_(language="en").get("/contacts").text

    assert "鈴木 花子 様" in japanese
    assert "Ann Smith 様" in japanese
    assert ">鈴木 花子</a>" in english  # in its own letters a name keeps its own order
    assert ">Ann Smith</a>" in english


def test_brand_person_says_in_whose_book_a_contact_goes(pair: PartnerPair):
    fields = {"last_name": "本", "first_name": "部", "email": "hq@example.jp", "ground": "opt_in", "partner": str(pair.there.partner.id)}

    pair.as_(Role.ops).post("/contacts/new", data=fields)

    with pair.db.reading() as session:
        assert session.exec(select(Contact).where(Contact.email == "hq@example.jp")).one().partner_id == pair.there.partner.id


def test_phones_are_written_nationally_and_dial(pair: PartnerPair):
    with pair.db.writing() as session:
        own = make_contact(session, pair.here.partner, email=None, phone="+819012345678")
        abroad = make_contact(session, pair.here.partner, email=None, phone="+12125550100")
        own_id, abroad_id = own.id, abroad.id
    client = pair.as_()

    for path in ("/contacts", f"/contacts/{own_id}"):
        assert '<a class="tel" href="tel:+819012345678">090-1234-5678</a>' in client.get(path).text
    assert '<a class="tel" href="tel:+12125550100">+1 212-555-0100</a>' in client.get(f"/contacts/{abroad_id}").text
    assert 'value="090-1234-5678"' in client.get(f"/contacts/{own_id}/edit").text


def test_reading_of_a_name_is_written_in_the_form_and_finds_the_contact(pair: PartnerPair):
    client = pair.as_()
    contact_id = pair.here.contact.id
    form = {"last_name": "髙橋", "first_name": "花子", "email": "h@example.com", "reading": "タカハシ ハナコ"}

    client.post(f"/contacts/{contact_id}/edit", data=form)

    assert 'value="タカハシ ハナコ"' in client.get(f"/contacts/{contact_id}/edit").text
    for words in ("高橋", "たかはし", "たかはしはなこ"):
        assert "髙橋 花子" in client.get("/contacts", params={"q": words}).text
    client.post(f"/contacts/{contact_id}/edit", data=form | {"reading": ""})
    assert "髙橋 花子" not in client.get("/contacts", params={"q": "たかはし"}).text


def test_timeline_of_one_instant_is_in_the_order_of_cause_newest_first(pair: PartnerPair):
    contact, enrollment = pair.here.enrolled, pair.here.enrollment
    shared = {
        "brand_id": enrollment.brand_id,
        "partner_id": enrollment.partner_id,
        "contact_id": contact.id,
        "enrollment_id": enrollment.id,
    }
    at, later = NOW + timedelta(days=2), NOW + timedelta(days=2, seconds=1)
    with pair.db.writing() as session:
        for kind, step in (
            (TimelineKind.branched, "arm"),
            (TimelineKind.sent, "second"),
            (TimelineKind.waiting, "pause"),
            (TimelineKind.ended, ""),
        ):
            session.add(TimelineEntry(enrollment_id=enrollment.id, at=at, kind=kind, step_id=step))
            session.flush()
        # Handed over while the wake went on: its own time is after that of the entries that follow it.
        message = Message(
            **shared,
            version_id=enrollment.version_id,
            token="t2",
            header_id="h2",
            step_id="second",
            channel="email",
            name="second",
            language="ja",
            subject="第二信",
            status=MessageStatus.sent,
            created_at=at,
            sent_at=later,
        )
        session.add(message)
        session.flush()
        session.add(Event(natural_key="a", kind=EventKind.custom, name="came_by", at=at, received_at=at, **shared))
        session.add(Event(natural_key="b", kind=EventKind.clicked, link="plans", at=at, received_at=at, message_id=message.id, **shared))

    page = pair.as_().get(f"/contacts/{contact.id}").text

    places = [page.index(words) for words in ("終了：", "待機：pause", "クリック：plans", "メール「第二信」", "分岐：arm", "came by")]
    assert places == sorted(places)
