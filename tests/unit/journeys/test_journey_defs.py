"""Every sample journey: found right by the checker, and every message of it fit to be sent in both languages."""

import re
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

import pytest

from distmark.journeys.checks.run import check
from distmark.journeys.definition import JourneyDefinition, all_steps, parse
from distmark.journeys.source import Source, load_source, scan
from distmark.journeys.steps.base import Step
from distmark.journeys.steps.wait import WaitStep
from distmark.personalisation import (
    BlockKind,
    RenderContext,
    RenderedMessage,
    compile_message,
    plain_text,
    render,
    resolve_blocks,
    sms_parts,
)
from distmark.personalisation.links import linking_elements

FOLDER = Path(__file__).parents[3] / "journey_defs"
JOURNEYS = [path.name for path in scan(FOLDER)]
LANGUAGES = ("ja", "en")
UNSUBSCRIBE = "https://mail.brand.example/u/7hG2kPq9rTzV3xYb1LmNcw"
SHORT_JOURNEYS = ("gym-new-year", "dealer-year-end", "seasonal-coupon")
LONGEST = {key: timedelta(days=10 if key in SHORT_JOURNEYS else 20) for key in JOURNEYS}
PEOPLE = {
    "full": {"first_name": "恵", "last_name": "佐藤", "full_name": "佐藤 恵", "company": "港食品", "current_car": "ルート"},
    "bare": {"email": "a@b.example"},
}
PLACEHOLDER = re.compile(r"\{\{|\}\}|\{%|\bNone\b|Undefined|slotq|[\ue000-\uf8ff]")


@lru_cache
def source_of(key: str) -> Source:
    return load_source(FOLDER / key)


@lru_cache
def definition_of(key: str) -> JourneyDefinition:
    return parse(source_of(key))


def sends(key: str) -> list[tuple[str, str]]:
    """Return message and channel of every send step."""
    return [(step.message, step.send) for step in all_steps(definition_of(key).steps) if step.kind == "send"]  # type: ignore[attr-defined]


MESSAGES = [(key, message, channel, lang) for key in JOURNEYS for message, channel in sends(key) for lang in LANGUAGES]


def rendered(key: str, message: str, channel: str, lang: str, person: str = "full") -> RenderedMessage:
    definition = definition_of(key)
    defaults = {name: block.default.texts.get(lang, "") for name, block in definition.blocks.items()}
    kinds = {name: block.kind for name, block in definition.blocks.items()}
    context = RenderContext(
        lang=lang,
        contact=PEOPLE[person],
        partner={"name": "山本 健太", "office": "横浜支店", "phone": "045-000-1234", "code": "JP0123"},
        brand={"name": "ブランド", "legal_name": "ブランド株式会社", "address": "東京都中央区1-1", "contact": "0120-000-000"},
        blocks=resolve_blocks(defaults, {}, {}, {}, {}, kinds=kinds),
        tracked=lambda name: f"https://go.brand.example/c/7hG2kPq9rTzV3xYb/{name}",
        unsubscribe_url=UNSUBSCRIBE,
        pixel_url="https://go.brand.example/o/7hG2kPq9rTzV3xYb.gif",
    )
    urls = {name: str(url) for name, url in definition.links.items()}
    return render(compile_message(source_of(key).templates, message, lang, channel, urls), context)


def test_there_are_six_journeys_of_six_brands() -> None:
    assert len(JOURNEYS) == 6
    assert len({definition_of(key).brand for key in JOURNEYS}) == 6
    assert [definition_of(key).key for key in JOURNEYS] == JOURNEYS


@pytest.mark.parametrize("key", JOURNEYS)
def test_checker_finds_nothing(key: str) -> None:
    assert [item.line_of_text() for item in check(source_of(key))] == []


@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize(("key", "message", "channel", "lang"), MESSAGES)
def test_message_shows_no_placeholder_even_to_somebody_hardly_known(key: str, message: str, channel: str, lang: str, person: str) -> None:
    got = rendered(key, message, channel, lang, person)

    assert got.text.strip()
    body = got.html.partition("<body")[2]
    for shown in (got.subject, got.text, body):
        assert PLACEHOLDER.search(shown) is None


@pytest.mark.parametrize(("key", "message", "channel", "lang"), [row for row in MESSAGES if row[2] == "email"])
def test_mail_has_both_parts_the_footer_and_a_way_to_refuse_and_is_not_clipped(key: str, message: str, channel: str, lang: str) -> None:
    got = rendered(key, message, channel, lang)

    assert 5 <= len(got.subject) <= 80
    assert not got.is_too_large
    for part in (got.text, got.html):
        for fact in (UNSUBSCRIBE, "ブランド株式会社", "東京都中央区1-1", "0120-000-000"):
            assert fact in part
    assert 'src="https://go.brand.example/o/' in got.html


@pytest.mark.parametrize(("key", "message", "channel", "lang"), [row for row in MESSAGES if row[2] == "email"])
def test_text_part_leads_to_the_same_places_as_the_html(key: str, message: str, channel: str, lang: str) -> None:
    got = rendered(key, message, channel, lang)

    hrefs = {element.attribute("href") for element in linking_elements(got.html)}
    counted = {href for href in hrefs if href and href.startswith("https://go.")}
    assert counted == {f"https://go.brand.example/c/7hG2kPq9rTzV3xYb/{name}" for name in got.link_targets}
    assert all(href in got.text for href in counted)
    assert all(url.startswith(f"https://{definition_of(key).brand}.example/") for url in got.link_targets.values())


@pytest.mark.parametrize("key", JOURNEYS)
def test_default_of_every_block_fits_in_every_language(key: str) -> None:
    for block in definition_of(key).blocks.values():
        for lang in LANGUAGES:
            assert 0 < len(plain_text(BlockKind(block.kind), block.default.texts[lang])) <= block.longest


@pytest.mark.parametrize(("key", "message", "channel", "lang"), [row for row in MESSAGES if row[2] == "sms"])
def test_short_message_says_how_to_refuse_and_stays_short(key: str, message: str, channel: str, lang: str) -> None:
    got = rendered(key, message, channel, lang)

    assert UNSUBSCRIBE in got.text
    assert sms_parts(got.text).parts <= 4


def longest(steps: tuple[Step, ...]) -> timedelta:
    """The waiting of the longest way through: a target of a timeout lies further on, so the sum over all is never less."""
    return sum((longest_of(step) for step in steps), timedelta())


def longest_of(step: Step) -> timedelta:
    if isinstance(step, WaitStep):
        wait = step.wait
        return (wait.timeout or wait.for_).least if wait.timeout or wait.for_ else timedelta()  # type: ignore[union-attr]
    return max((longest(path.steps) for path in step.paths()), default=timedelta())


@pytest.mark.parametrize("key", JOURNEYS)
def test_journey_ends_in_time(key: str) -> None:
    assert timedelta(days=4) <= longest(definition_of(key).steps) <= LONGEST[key]


def test_journeys_between_them_use_what_the_language_offers() -> None:
    texts = "\n".join(source_of(key).definition for key in JOURNEYS)

    for feature in (
        "timeout:",
        "on_timeout:",
        "until:",
        "days: [",
        "on: contact.",
        "random:",
        "otherwise:",
        "task:",
        "update:",
        "exit:",
        "send: sms",
    ):
        assert feature in texts


@pytest.mark.parametrize("key", JOURNEYS)
def test_journey_says_who_may_enter_when_it_is_over_and_when_it_sleeps(key: str) -> None:
    definition = definition_of(key)

    assert "reentry" in definition.entry.model_fields_set
    assert definition.goal is not None
    assert definition.exit
    assert str(definition.send_policy.quiet_hours) == "21:00-08:00"
    assert len(definition.links) <= 5


@pytest.mark.parametrize("key", JOURNEYS)
def test_every_step_and_event_has_a_name_in_both_languages(key: str):
    definition = parse(load_source(FOLDER / key))

    unnamed = [step.id for step in definition.all_steps() if step.name is None or set(step.name.texts) != {"ja", "en"}]
    unnamed += [name for name in definition.events if set(definition.event_names[name].texts) != {"ja", "en"}]

    assert unnamed == []
