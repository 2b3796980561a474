"""What holds for every file: it is read or refused in words, no line is lost, and whoever refuses never agrees by it."""

from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distmark.contacts.encodings import decoded
from distmark.contacts.fields import ContactInput, FieldRefused, read_contact
from distmark.contacts.files import read_table
from distmark.contacts.headings import read_headings
from distmark.contacts.lines import read_lines
from distmark.errors import InvalidInput
from distmark.journeys.days import read_day
from distmark.text import clean, tidy
from tests.depth import examples

# ruff: noqa: PT017  (most texts are no mistake)

QUICK = settings(max_examples=examples(80), deadline=None, suppress_health_check=[HealthCheck.too_slow])

HEADINGS = ("メール", "Email", "電話", "氏名", "姓", "誕生日", "種別", "配信拒否", "DM", "Status", "備考", "HasOptedOutOfEmail", "plan", "")
CELLS = st.one_of(
    st.sampled_from(
        ["", "a@example.com", "A@Example.com", "b@example.com", "090-1234-5678", "○", "×", "yes", "no", "停止", "unsubscribed"]
    ),
    st.sampled_from(["#N/A", "1/4/1980", "1980/4/1 0:00", "鈴木 花子", "Suzuki, Hanako", "髙橋", "VIP", "DM不要", "29312", "\ue000"]),
    st.text(max_size=20),
)
BYTES = st.one_of(st.binary(max_size=300), st.text(max_size=200).map(lambda text: text.encode("cp932", "ignore")))
TABLES = st.tuples(st.lists(st.sampled_from(HEADINGS), min_size=1, max_size=6), st.lists(st.lists(CELLS, max_size=7), max_size=8))


@QUICK
@given(
    st.one_of(st.binary(max_size=300), st.text(max_size=200).map(lambda text: text.encode("cp932", "ignore"))),
    st.sampled_from(["csv", "txt"]),
)
def test_any_bytes_are_read_or_refused_in_words(data: bytes, ending: str):
    try:
        headings, rows = read_table(data, f"a.{ending}")
        read_lines(read_headings(headings), rows, headings)
    except InvalidInput as refused:
        assert "a." in str(refused) or "column of addresses" in str(refused)


@QUICK
@given(st.text(max_size=100).filter(lambda text: "\x00" not in text and "\x1b" not in text))
def test_text_in_utf8_is_read_as_it_was_written(text: str):
    assert decoded(text.encode("utf-8", "ignore"), "a.csv") == text.encode("utf-8", "ignore").decode().removeprefix("\ufeff")


@QUICK
@given(TABLES)
def test_every_line_is_taken_or_rejected_once_and_a_refusal_is_never_an_agreement(table: tuple[list[str], list[list[str]]]):
    headings, cells = table
    rows = list(enumerate(cells, start=2))
    try:
        columns = read_headings(headings)
    except InvalidInput:
        return

    lines, rejected = read_lines(columns, rows, headings)

    numbers = [line.number for line in lines] + [line.line for line in rejected]
    assert sorted(numbers) == [number for number, _ in rows]
    assert len({line.address for line in lines}) == len(lines)
    assert all(line.message_en and line.message_ja for line in rejected)
    for line in lines:
        said = [value for name, value in zip(columns, cells[line.number - 2], strict=False) if name.startswith("stopped")]
        if any(value in ("yes", "○", "停止", "unsubscribed") for value in said):
            assert False in line.consents.values()


@QUICK
@given(st.sampled_from(["email", "phone", "birthday", "last_name", "zone", "kind", "language"]), st.text(max_size=60))
def test_any_text_in_a_field_is_read_or_refused_and_what_was_read_is_read_again(field: str, text: str):
    try:
        first = getattr(read_contact({field: text}), field)
    except FieldRefused as refused:
        assert refused.message_en != refused.message_ja
        return

    assert getattr(ContactInput(**{field: first}), field) == first


@QUICK
@given(st.text(max_size=80))
def test_day_is_read_or_refused(text: str):
    try:
        assert read_day(text, ZoneInfo("Asia/Tokyo")).year > 0
    except InvalidInput as refused:
        assert "is not a date" in str(refused)


@QUICK
@given(st.text(max_size=80))
def test_cleaning_twice_is_cleaning_once(text: str):
    assert tidy(tidy(text)) == tidy(text)
    assert clean(clean(text)) == clean(text)
