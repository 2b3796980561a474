"""The check before approval: the journey, the parts that this installation lacks for it, and its messages for several kinds of people."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import Any

from distmark.channels.registry import lacking
from distmark.journeys.checks.installation import NEVER_HEARD
from distmark.journeys.checks.run import check, sort_findings
from distmark.journeys.definition import JourneyDefinition, parse
from distmark.journeys.findings import DefinitionError, Finding, finding
from distmark.journeys.source import MESSAGES_FOLDER, Source
from distmark.journeys.steps.send import SendStep
from distmark.personalisation.model import BlockKind, BlockValue, CompiledMessage, RenderContext, RenderError, TemplateRefused
from distmark.personalisation.service import compile_message, render, template_files
from distmark.personalisation.web_addresses import holds_personal_link
from distmark.settings import Settings

KEPT = 256  # journeys whose messages were checked
MOST_VALUES = 40  # missing values named for each message


@dataclass(frozen=True, slots=True)
class Installation:
    """The capabilities missing in this installation, each with the missing part by language, and the names of its webhook keys."""

    lacking: Mapping[str, Mapping[str, str]]
    secrets: frozenset[str]


def installation_of(settings: Settings) -> Installation:
    """Return the capabilities of this installation, for the check."""
    return Installation({**lacking(settings), **NEVER_HEARD}, frozenset(settings.webhook_secrets))


def check_journey(
    source: Source,
    *,
    now: datetime | None = None,
    journeys: Collection[str] | None = None,
    segments: Collection[str] | None = None,
    installation: Installation | None = None,
) -> list[Finding]:
    """Return all findings about a journey, by file and line; the arguments are those of `journeys.checks.run.check`."""
    lacks, secrets = (installation.lacking, installation.secrets) if installation else (None, None)
    found = check(source, now=now, journeys=journeys, lacking=lacks, segments=segments, secrets=secrets)
    broken = {each.file for each in found if each.severity == "error"}
    made = [
        each for each in _message_findings(source.content_hash, _Uncached(source)) if each.file not in broken or each.code != "never-made"
    ]
    return sort_findings([*found, *made, *_personal_links(source)], source)


def _personal_links(source: Source) -> Iterator[Finding]:
    """Yield each line with a personal link of a message: every visitor of that link would act as its person."""
    files = {source.file: source.definition} | {f"{MESSAGES_FOLDER}/{name}": text for name, text in source.templates.items()}
    for file, text in files.items():
        for line, written in enumerate(text.splitlines(), 1):
            if holds_personal_link(written):
                yield finding("personal-link", file, line)


class _Uncached:
    """Carries the source past the cache's key, which is the content hash alone."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Uncached)

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=KEPT)
def _message_findings(content_hash: str, uncached: _Uncached) -> tuple[Finding, ...]:
    try:
        definition = parse(uncached.source)
    except DefinitionError:
        return ()
    sends = {(step.message, step.send): step for step in definition.all_steps() if isinstance(step, SendStep)}
    return tuple(
        each for step in sends.values() for lang in definition.languages for each in _of_message(uncached.source, definition, step, lang)
    )


def _of_message(source: Source, definition: JourneyDefinition, step: SendStep, lang: str) -> Iterator[Finding]:
    files = template_files(step.message, lang, step.send)
    if any(name not in source.templates for name in files):
        return  # the check of the templates says so
    try:
        compiled = compile_message(
            source.templates, step.message, lang, step.send, {name: str(url) for name, url in definition.links.items()}
        )
    except TemplateRefused as error:
        file, line = (f"{MESSAGES_FOLDER}/{error.template}", error.line) if error.template in source.templates else (source.file, None)
        reason = str(error).partition(": ")[2]
        yield finding("never-made", file, line or 1, message=step.message, lang=lang, reason=reason.rstrip("."))
        return
    yield from _of_people(source, definition, step, compiled)


def _of_people(source: Source, definition: JourneyDefinition, step: SendStep, compiled: CompiledMessage) -> Iterator[Finding]:
    first, lang = f"{MESSAGES_FOLDER}/{template_files(step.message, compiled.lang, step.send)[-1]}", compiled.lang
    error = _failure(definition, step, compiled, _full(definition))
    if error is not None:
        file, line = _place(source, step, compiled, error.slot) or (first, 1)
        yield finding("never-made", file, line, message=step.message, lang=lang, reason=str(error).partition(": ")[2].rstrip("."))
        return
    yield from _missing_values(source, definition, step, compiled)
    error = _failure(definition, step, compiled, _awkward(definition))
    if error is not None:
        yield _sometimes(source, step, compiled, error, _UNUSUAL)


def _missing_values(source: Source, definition: JourneyDefinition, step: SendStep, compiled: CompiledMessage) -> Iterator[Finding]:
    full, values = _full(definition), _empty(definition)
    for _ in range(MOST_VALUES):
        error = _failure(definition, step, compiled, values)
        if error is None:
            return
        name = error.slot
        root, _, attribute = name.partition(".")
        if attribute not in full.get(root, {}) or attribute in values[root]:
            yield _sometimes(source, step, compiled, error, _UNKNOWN)
            return
        file, line = _place(source, step, compiled, name) or (source.file, _line_of(source.definition, name))
        yield finding("sometimes-missing", file, line, name=name)
        values[root] = {**values[root], attribute: full[root][attribute]}


_UNUSUAL = {"who": "long names, quotation marks, other scripts", "who_ja": "長い名前、引用符、他の文字など"}
_UNKNOWN = {"who": "about whom little is known", "who_ja": "登録項目の少ない方"}


def _sometimes(source: Source, step: SendStep, compiled: CompiledMessage, error: RenderError, who: Mapping[str, str]) -> Finding:
    first = f"{MESSAGES_FOLDER}/{template_files(step.message, compiled.lang, step.send)[0]}"
    file, line = _place(source, step, compiled, error.slot) or (first, 1)
    reason = str(error).partition(": ")[2].rstrip(".")
    return finding("sometimes-unmade", file, line, message=step.message, lang=compiled.lang, reason=reason, **who)


def _line_of(text: str, name: str) -> int:
    return next((line for line, written in enumerate(text.splitlines(), 1) if name in written), 1)


def _place(source: Source, step: SendStep, compiled: CompiledMessage, slot: str) -> tuple[str, int] | None:
    """Return the first file and line, of the message or the definition, that shows the value without a default; None without any."""
    root, _, name = slot.partition(".")
    if not name:
        return None
    shown = re.compile(
        rf"\b{re.escape(root)}\s*(?:\.\s*{re.escape(name)}\b|\[\s*['\"]{re.escape(name)}['\"]\s*\])(?!\s*\|\s*d(?:efault)?\b)"
    )
    for file in template_files(step.message, compiled.lang, step.send):
        for line, text in enumerate(source.templates[file].splitlines(), 1):
            if shown.search(text) and "{% if" not in text.partition(slot)[0][-40:]:
                return f"{MESSAGES_FOLDER}/{file}", line
    in_links = (line for line, text in enumerate(source.definition.splitlines(), 1) if shown.search(text))
    return next(((source.file, line) for line in in_links), None)


# --- people ------------------------------------------------------------------------------------------------------------------------------

People = dict[str, dict[str, Any]]
_BRAND = {
    "name": "見本", "legal_name": "見本株式会社", "address": "東京都千代田区1-1", "contact": "03-0000-0000", "website": "https://brand.example",
    "licence": "1",
}  # fmt: skip
_PARTNER = {
    "name": "山本 健太", "title": "担当", "phone": "03-1111-1111", "email": "partner@brand.example", "code": "P1", "office": "本店",
    "city": "東京", "language": "ja",
}  # fmt: skip
_CAMPAIGN = {"name": "秋のご案内", "key": "autumn"}
_SAMPLES: Mapping[str, Any] = {"text": "見本", "number": 3, "bool": True, "date": date(2026, 4, 1)}
_KNOWN = {
    "email": "hanako@brand.example", "phone": "+819012345678", "language": "ja", "zone": "Asia/Tokyo", "first_name": "花子",
    "last_name": "鈴木", "full_name": "鈴木 花子",
}  # fmt: skip
_AWKWARD = 'Jean-Luc "Ｊ" d\'Ångström & <b>ابن</b> \U0001f468\u200d\U0001f469 髙橋'


def _full(definition: JourneyDefinition) -> People:
    contact = {name: _KNOWN.get(name, _SAMPLES[kind]) for name, kind in definition.attributes("contact").items()}
    journey = {name: _SAMPLES[kind] for name, kind in definition.attributes("journey").items()}
    return {"contact": contact, "partner": dict(_PARTNER), "brand": dict(_BRAND), "campaign": dict(_CAMPAIGN), "journey": journey}


def _empty(definition: JourneyDefinition) -> People:
    # Partners are few, and their brand enters them with what its messages show; only a title is for some.
    partner = {name: value for name, value in _PARTNER.items() if name != "title"}
    known = {name: _KNOWN[name] for name in ("language",)}
    return {"contact": known, "partner": partner, "brand": dict(_BRAND), "campaign": dict(_CAMPAIGN), "journey": {}}


def _awkward(definition: JourneyDefinition) -> People:
    people = _full(definition)
    texts = {name for name, kind in definition.attributes("contact").items() if kind == "text"} - {"email", "phone", "language", "zone"}
    people["contact"] |= dict.fromkeys(texts, _AWKWARD)
    return people


def _failure(definition: JourneyDefinition, step: SendStep, compiled: CompiledMessage, people: People) -> RenderError | None:
    try:
        render(
            compiled,
            RenderContext(
                lang=compiled.lang,
                contact=people["contact"],
                partner=people["partner"],
                brand=people["brand"],
                campaign=people["campaign"],
                journey=people["journey"],
                blocks={
                    name: BlockValue(block.default.text(compiled.lang), kind=BlockKind(block.kind))
                    for name, block in definition.blocks.items()
                },
                tracked=lambda name: "https://brand.example/c",
                unsubscribe_url="https://brand.example/u" if step.purpose != "transactional" else None,
            ),
        )
    except RenderError as error:
        return error
    return None
