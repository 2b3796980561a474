"""Journeys in words and as a picture, and the answer to "when?"."""

# ruff: noqa: E501  (a row of a table stays on its line)

import re
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree
from zoneinfo import ZoneInfo

import pytest

from distmark.errors import NotFound
from distmark.journeys.definition import parse
from distmark.journeys.describe import describe_step
from distmark.journeys.diagram import StepCounts, diagram, outline, text_width, wrapped
from distmark.journeys.entry import Admission, Admitted, Entry, admit
from distmark.journeys.model import Facts
from distmark.journeys.program import Program, build_program
from distmark.journeys.source import Source
from distmark.journeys.steps import KINDS
from distmark.journeys.when import when

TOKYO = ZoneInfo("Asia/Tokyo")
# Tuesday 10:00 in Tokyo.
NOW = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)
HEAD = """
key: sample
name: {ja: 見本のジャーニー, en: Sample <journey> & "more"}
brand: acme
goal: {when: "converted('bought')", name: {ja: 購入, en: Purchase}, target: 12%}
send_policy: {quiet_hours: "21:00-08:00", days: weekdays, holidays: JP}
events: [bought, booked]
contact_fields: {renewal_date: date}
steps:
"""
STEPS = """
  - {id: welcome, send: email, message: welcome}
  - {id: pause, wait: {for: 3 days, until: "09:00"}}
  - id: split
    branch:
      - when: "clicked('welcome')"
        name: {ja: 関心のある人でとても長い名前が付いている分岐の名前です, en: Interested}
        steps:
          - {id: call, task: {title: {ja: "{{ contact.first_name }}さんに電話してご都合のよい日時と場所を必ず確認する", en: "Call {{ contact.first_name }}"}}}
          - {id: booked, wait: {event: booked, timeout: 7 days, on_timeout: welcome}}
      - when: "not opened('welcome')"
        steps: [{id: gone, exit: not interested}]
  - {id: end, update: {city: null}}
"""


def program_of(steps: str = STEPS) -> Program:
    return build_program(parse(Source(HEAD + steps)))


WORDS = [
    ("wait: {for: 3 days, until: '09:00'}", "3日後の9:00まで", "3 days, then 09:00"),
    ("wait: {for: 90 minutes}", "1時間30分待つ", "90 minutes"),
    ("wait: {for: 2 weeks}", "2週間待つ", "2 weeks"),
    ("wait: {for: 1 month}", "1か月待つ", "1 month"),
    ("wait: {for: 1 year}", "1年待つ", "1 year"),
    ("wait: {until: '05:00', days: [mon, thu]}", "次の月曜・木曜5:00まで", "until Mon, Thu 05:00"),
    ("wait: {until: '09:00', days: weekdays}", "次の平日9:00まで", "until weekdays 09:00"),
    ("wait: {until: '21:30'}", "次の21:30まで", "until 21:30"),
    ("wait: {on: 2026-12-24, at: '09:00'}", "2026年12月24日の9:00まで", "until 2026-12-24, 09:00"),
    (
        "wait: {on: contact.renewal_date, offset: -30 days, at: '09:00', every: year}",
        "毎年 renewal date の30日前の9:00まで", "until every year, 30 days before renewal date, 09:00",
    ),
    ("wait: {on: contact.renewal_date, offset: 1 week}", "renewal date の1週間後まで", "until 1 week after renewal date"),
    ("wait: {event: booked, timeout: 7 days}", "booked を待つ・7日", "wait for booked, up to 7 days"),
    ("wait: {event: booked}", "booked を待つ", "wait for booked"),
    ("wait: {event: clicked, of: a, timeout: 1 day}", "a のクリック を待つ・1日", "wait for a click of a, up to 1 day"),
    ("wait: {when: contact.city, timeout: 1 day}", "条件 を待つ・1日", "wait for a condition, up to 1 day"),
    ("wait: {until: best_time, within: 24 hours}", "24時間以内の反応の良い時刻まで", "best time within 24 hours"),
    ("send: sms, message: nudge", "nudge SMS", "SMS: nudge"),
    ("task: {title: '{{ contact.first_name }} call'}", "○○ call", "… call"),
    ("update: {city: null}", "お客様の項目を更新", "Update the contact"),
    ("webhook: {url: 'https://x.example'}", "外部システムを呼ぶ", "Call a webhook"),
    ("audience: {add: x}", "広告オーディエンスに追加", "Add to ad audience"),
    ("audience: {remove: x}", "広告オーディエンスから外す", "Remove from ad audience"),
    ("journey: other", "別のジャーニーを始める", "Enter another journey"),
    ("goto: a", "「a」へ", "Go to a"),
    ("exit: {ja: 終わり, en: over}", "終わり", "over"),
    ("branch: [{when: contact.city}]", "条件で分ける", "Split by condition"),
    ("branch: {random: [{name: x}, {name: y}]}", "ランダムに分ける", "Random split"),
    ("branch: {test: {metric: click, evaluate_after: 3 days}}, arms: [{name: x}, {name: y}]", "テスト（クリックで判定）", "Test by clicks"),
]  # fmt: skip


@pytest.mark.parametrize(("step", "ja", "en"), WORDS, ids=[case[2] for case in WORDS])
def test_a_step_is_told_in_both_languages(step: str, ja: str, en: str) -> None:
    found = program_of(f"  - {{id: a, {step}}}\n").steps["a"]

    assert describe_step(found, "ja")[0] == ja
    assert describe_step(found, "en")[0] == en


def test_the_second_line_tells_the_limits() -> None:
    step = program_of("  - {id: a, wait: {for: 3 days, until: '09:00', days: weekdays, holidays: JP}}\n").steps["a"]

    assert describe_step(step, "ja")[1] == "平日のみ・祝日（JP）を除く"
    assert describe_step(step, "en")[1] == "weekdays only, no JP holidays"


def test_a_named_step_is_called_by_its_name() -> None:
    step = program_of("  - {id: a, name: {ja: 様子を見る, en: See}, wait: {for: 1 day}}\n").steps["a"]

    assert describe_step(step, "ja") == ("様子を見る", "1日待つ")


def test_every_kind_has_words_and_a_colour() -> None:
    for kind in KINDS.values():
        assert set(kind.label) == {"ja", "en"}
        assert re.fullmatch("#[0-9a-f]{6}", kind.colour)
        assert kind.icon


# --- the picture -------------------------------------------------------------------------------------------------------------------------

COUNTS = {
    "welcome": StepCounts(2184, 0, 2184), "pause": StepCounts(2171, 402, 1769), "split": StepCounts(1769), "call": StepCounts(676, note="済 71 %"),
    "booked": StepCounts(676, 311, 365), "gone": StepCounts(588), "end": StepCounts(870), "goal": StepCounts(257),
}  # fmt: skip
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("lang", ["ja", "en"])
@pytest.mark.parametrize("counts", [None, COUNTS], ids=["plain", "counted"])
def test_the_picture_is_svg_that_a_strict_page_allows(lang: str, counts: dict[str, StepCounts] | None) -> None:
    picture = diagram(program_of(), lang, counts)

    root = ElementTree.fromstring(picture)
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == ("見本のジャーニー" if lang == "ja" else 'Sample <journey> & "more"')
    assert "7" in (root.findtext(f"{SVG}desc") or "")
    assert not re.search(r"\sstyle=|<style|<script|\son\w+=|href", picture)


def test_every_step_has_a_node_and_the_goal_one_of_its_own() -> None:
    root = ElementTree.fromstring(diagram(program_of(), "en"))

    nodes = [node for node in root.iter(f"{SVG}g") if "journey-node" in (node.get("class") or "")]
    assert [node.get("data-step") for node in nodes if node.get("data-step")] == list(program_of().steps)
    assert "journey-node journey-node-goal" in [node.get("class") for node in nodes]


def test_waits_show_who_is_there_and_other_steps_who_came() -> None:
    root = ElementTree.fromstring(diagram(program_of(), "en", COUNTS))

    shown = {
        node.get("data-step"): [text.text for text in node.iter(f"{SVG}text") if text.get("class") == "journey-count"] for node in root.iter(f"{SVG}g")
    }  # fmt: skip
    assert (shown["welcome"], shown["pause"], shown["split"]) == (["2,184"], ["402"], ["1,769"])


def test_a_link_is_as_wide_as_the_share_that_goes_on() -> None:
    root = ElementTree.fromstring(diagram(program_of(), "en", COUNTS))

    widths = [float(link.get("width") or 0) for link in root.iter(f"{SVG}rect") if link.get("class") == "journey-link"]
    # 120 px for all: 2171, 1769 of 2184, inside the arm 676, behind the split 870, to the goal 257.
    assert widths == pytest.approx([120 * count / 2184 for count in (2171, 1769, 676, 870, 257)], abs=0.01)


def test_nothing_sticks_out_of_its_node_or_of_the_picture() -> None:
    root = ElementTree.fromstring(diagram(program_of(), "ja", COUNTS))

    for node in root.iter(f"{SVG}g"):
        box = node.find(f"{SVG}rect")
        assert box is not None
        left, width = float(box.get("x") or 0), float(box.get("width") or 0)
        assert left >= 0
        assert left + width <= float(root.get("width") or 0)
        for text in node.iter(f"{SVG}text"):
            length = text_width(text.text or "", float(text.get("font-size") or 0))
            start = float(text.get("x") or 0) - (length if text.get("text-anchor") == "end" else 0)
            assert left <= start
            assert start + length <= left + width
            assert float(text.get("y") or 0) < float(box.get("y") or 0) + float(box.get("height") or 0)


def test_nodes_do_not_lie_on_each_other() -> None:
    root = ElementTree.fromstring(diagram(program_of(), "ja", COUNTS))
    boxes = [
        tuple(float(box.get(side) or 0) for side in ("x", "y", "width", "height"))
        for box in root.iter(f"{SVG}rect")
        if box.get("class") == "journey-box"
    ]

    for number, (x, y, width, height) in enumerate(boxes):
        for other_x, other_y, other_width, other_height in boxes[number + 1 :]:
            assert x + width <= other_x or other_x + other_width <= x or y + height <= other_y or other_y + other_height <= y


def test_an_arm_that_ends_the_journey_is_not_joined() -> None:
    root = ElementTree.fromstring(diagram(program_of(), "en"))

    lines = [line for line in root.iter(f"{SVG}path") if line.get("class") == "journey-line"]
    # Three arms are forked to (two, and who takes neither); two of them join again.
    assert len(lines) == 3 + 2
    assert len([jump for jump in root.iter(f"{SVG}path") if jump.get("class") == "journey-jump"]) == 1


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("短い", ["短い"]),
        ("", []),
        # Ten full-width characters of 10 px fit 100 px.
        ("一二三四五六七八九十", ["一二三四五六七八九十"]),
        ("一二三四五六七八九十壱弐", ["一二三四五六七八九十", "壱弐"]),
        ("一二三四五六七八九十" * 3, ["一二三四五六七八九十", "一二三四五六七八九…"]),
        # A Latin word is kept whole.
        ("several words here", ["several words", "here"]),
        ("averyveryverylongwordthatdoesnotfit", ["averyveryverylo", "ngwordthatdoe…"]),
    ],
)
def test_text_is_wrapped_to_two_lines_and_cut_with_an_ellipsis(text: str, lines: list[str]) -> None:
    assert wrapped(text, 100, 10) == lines


def test_the_list_says_the_same_in_order() -> None:
    items = outline(program_of(), "ja", COUNTS)

    assert [(item.number, item.depth, item.step_id) for item in items] == [
        ("1", 0, "welcome"), ("2", 0, "pause"), ("3", 0, "split"), ("3.1.1", 1, "call"), ("3.1.2", 1, "booked"), ("3.2.1", 1, "gone"), ("4", 0, "end"),
    ]  # fmt: skip
    assert items[3].arm == "関心のある人でとても長い名前が付いている分岐の名前です"
    assert items[4].arm is None
    assert items[4].jumps_to == ("welcome",)
    assert items[3].share == pytest.approx(676 / 2184)
    assert [item.share for item in outline(program_of(), "en")] == [None] * 7


# --- when --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "at", "local", "rules"),
    [
        ("send: email, message: x", NOW, "2026-11-24 10:00", ()),
        # Friday 22:00 in Tokyo; Monday is a holiday: Tuesday 08:00.
        (
            "send: email, message: x", datetime(2026, 11, 20, 13, 0, tzinfo=UTC), "2026-11-24 08:00",
            ("quiet_hours:21:00-08:00", "day:sat", "day:sun", "holiday:2026-11-23"),
        ),
        ("send: email, message: x, kind: transactional", datetime(2026, 11, 20, 13, 0, tzinfo=UTC), "2026-11-20 22:00", ()),
        ("wait: {for: 3 days, until: '09:00'}", NOW, "2026-11-28 09:00", ()),
        ("wait: {on: 2026-01-01}", NOW, "2026-11-24 10:00", ("past",)),
        ("wait: {event: booked, timeout: 7 days}", NOW, "2026-12-01 10:00", ()),
        ("update: {city: null}", NOW, "2026-11-24 10:00", ()),
    ],
)  # fmt: skip
def test_when_a_contact_would_go_on_and_why(step: str, at: datetime, local: str, rules: tuple[str, ...]) -> None:
    found = when(program_of(f"  - {{id: a, {step}}}\n"), "a", at, TOKYO)

    assert found.local == datetime.fromisoformat(local).replace(tzinfo=TOKYO)
    assert found.due_at is not None
    assert found.due_at.tzinfo is UTC
    assert found.rules[: len(rules)] == rules


def test_when_nothing_but_an_event_helps() -> None:
    found = when(program_of("  - {id: a, wait: {event: booked}}\n"), "a", NOW, TOKYO)

    assert (found.due_at, found.local) == (None, None)
    assert found.why("en") == ["waits for booked and for nothing else"]
    assert found.why("ja") == ["booked だけを待ちます（時間切れなし）"]


def test_when_tells_an_attributes_date_of_the_given_contact() -> None:
    program = program_of("  - {id: a, wait: {on: contact.renewal_date, offset: -30 days, at: '09:00'}}\n")

    assert when(program, "a", NOW, TOKYO, Facts(contact={"renewal_date": "2027-01-31"})).local == datetime(2027, 1, 1, 9, 0, tzinfo=TOKYO)
    assert when(program, "a", NOW, TOKYO).why("en") == ["the journey ends here: contact.renewal_date is missing"]


def test_when_suggests_the_step_that_was_meant() -> None:
    with pytest.raises(NotFound, match='did you mean "pause"'):
        when(program_of(), "paus", NOW, TOKYO)


# --- entry -------------------------------------------------------------------------------------------------------------------------------

LONG_AGO, LATELY = NOW - timedelta(days=31), NOW - timedelta(days=29)


@pytest.mark.parametrize(
    ("entry", "inside", "left_at", "expected"),
    [
        ({}, False, None, Admitted(Admission.admitted)),
        ({}, True, None, Admitted(Admission.inside)),
        ({}, False, NOW, Admitted(Admission.admitted)),
        ({"reentry": "never"}, False, LONG_AGO, Admitted(Admission.been_before)),
        ({"reentry": "never"}, False, None, Admitted(Admission.admitted)),
        ({"reentry": "any_time"}, True, None, Admitted(Admission.admitted)),
        ({"cooldown": "30 days"}, False, LONG_AGO, Admitted(Admission.admitted)),
        ({"cooldown": "30 days"}, False, LATELY, Admitted(Admission.cooling_down, NOW + timedelta(days=1))),
    ],
)
def test_who_may_enter_again(entry: dict[str, str], inside: bool, left_at: datetime | None, expected: Admitted) -> None:
    """D9."""
    assert admit(Entry.model_validate(entry), inside=inside, last_left_at=left_at, now=NOW, zone=TOKYO) == expected


@pytest.mark.parametrize(
    ("entry", "source"),
    [
        ({}, "campaign"), ({"on": "api"}, "api"), ({"event": "booked", "where": "event.value > 1"}, "event"), ({"on": "event", "event": "booked"}, "event"),
        ({"segment": "vip", "every": "1 day"}, "segment"), ({"date": "contact.renewal_date", "offset": "-30 days", "every": "year"}, "date"),
    ],
)  # fmt: skip
def test_an_entry_knows_what_brings_contacts_in(entry: dict[str, str], source: str) -> None:
    assert Entry.model_validate(entry).source == source


def test_named_wait_still_says_how_long_it_takes():
    program = program_of("  - {id: rest, name: {ja: 読む間, en: Time to read}, wait: {for: 3 days, until: '09:00', days: weekdays}}\n")
    step = program.steps["rest"]

    assert describe_step(step, "ja") == ("読む間", "3日後の9:00まで・平日のみ")
    assert describe_step(step, "en") == ("Time to read", "3 days, then 09:00, weekdays only")
