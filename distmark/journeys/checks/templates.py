"""Are the messages complete and readable? Files per language, slots that exist, the legal footer, the size."""

import re
from collections.abc import Iterable, Iterator

from jinja2 import TemplateSyntaxError, nodes

from distmark.journeys.checks.context import Checked
from distmark.journeys.checks.references import DECLARED_IN
from distmark.journeys.definition import BUILT_IN
from distmark.journeys.expressions import Uses, reasons, uses_of
from distmark.journeys.field_types import Words
from distmark.journeys.findings import Finding, closest, finding
from distmark.journeys.source import MESSAGES_FOLDER, Source, template_name
from distmark.template_language import (
    MESSAGE_FILTERS,
    MESSAGES,
    BoundedEnvironment,
    LanguageError,
    UnknownFilter,
    read_template,
    violations,
)

ROOTS = (
    "contact",
    "partner",
    "brand",
    "campaign",
    "journey",
    "blocks",
    "links",
    "legal_footer",
    "greeting",
    "lang",
    "unsubscribe_url",
    "pixel_url",
)
FOOTER = "legal_footer"
NEEDS_FOOTER = ("text.txt", "mjml")
LARGEST_KB = 100
BYTES_PER_KB = 1024

_STATEMENT = re.compile(r"\{%")


class _MessageReader(BoundedEnvironment):
    """Reads templates of messages, to look at their content."""

    language = MESSAGES


_TEXT = _MessageReader(autoescape=True)
# In MJML only slots are Jinja's: a `{#` or `{%` of a style sheet is a style sheet's.
_MJML = _MessageReader(
    autoescape=True, block_start_string="\ue002", block_end_string="\ue003", comment_start_string="\ue004", comment_end_string="\ue005"
)


def check_syntax(source: Source) -> Iterator[Finding]:
    """Yield what is wrong with the templates by themselves: slots that cannot be read, statements in MJML, size."""
    for name, text in source.templates.items():
        if _is_too_large(text):
            yield finding(
                "big-message", file_of(name), 1, size=f"{len(text.encode(errors='replace')) / BYTES_PER_KB:.0f}", limit=str(LARGEST_KB)
            )
        else:
            yield from _syntax(name, text)


def _is_too_large(text: str) -> bool:
    return len(text.encode(errors="replace")) > LARGEST_KB * BYTES_PER_KB


def file_of(name: str) -> str:
    """Return the file of a template, relative to the journey's folder."""
    return f"{MESSAGES_FOLDER}/{name}"


def _parsed(name: str, text: str) -> nodes.Template:
    return read_template(_MJML if name.endswith(".mjml") else _TEXT, text)


def _syntax(name: str, text: str) -> Iterator[Finding]:
    try:
        tree = _parsed(name, text)
    except TemplateSyntaxError as error:
        yield finding("bad-template", file_of(name), error.lineno, **reasons(error))
    else:
        for violation in violations(tree, MESSAGES):
            yield _refused(name, violation)
    if name.endswith(".mjml") and (statement := _STATEMENT.search(text)):
        yield finding("statement-in-mjml", file_of(name), text.count("\n", 0, statement.start()) + 1)


def _refused(name: str, violation: LanguageError) -> Finding:
    if isinstance(violation, UnknownFilter):
        near = closest(violation.filter, MESSAGE_FILTERS)
        return finding("unknown-filter", file_of(name), violation.lineno, suggestion=near, name=violation.filter)
    return finding("bad-template", file_of(name), violation.lineno, **reasons(violation))


def check_templates(checked: Checked) -> Iterator[Finding]:
    """Yield what is wrong with the templates as part of the journey: files that lack, names, blocks and links that do not exist."""
    yield from _missing_files(checked)
    for name, text in checked.source.templates.items():
        if _is_used(checked, name):
            yield from _names(checked, name, text)
        else:
            yield finding("unused-template", file_of(name), 1)
    yield from _unused_blocks(checked)
    yield from _missing_languages(checked)


def _is_used(checked: Checked, name: str) -> bool:
    message, _, rest = name.partition(".")
    lang, _, part = rest.partition(".")
    return lang in checked.definition.languages and any(step.message == message and part in step.parts for step in checked.sends())


def _missing_files(checked: Checked) -> Iterator[Finding]:
    reported: set[str] = set()
    for step in checked.sends():
        for lang in checked.definition.languages:
            for part in step.parts:
                name = template_name(step.message, lang, part)
                if name not in checked.source.templates and name not in reported:
                    reported.add(name)
                    yield checked.finding(
                        "missing-template",
                        step.id,
                        ("message",),
                        suggestion=_near_file(checked, name),
                        message=step.message,
                        template=file_of(name),
                    )


def _near_file(checked: Checked, name: str) -> str | None:
    unused = [other for other in checked.source.templates if not _is_used(checked, other)]
    near = closest(name, unused)
    return file_of(near) if near else None


def _names(checked: Checked, name: str, text: str) -> Iterator[Finding]:
    tree = _readable_tree(name, text)
    if tree is None:
        return  # told by check_syntax
    uses = uses_of(tree)
    loops = {"loop"} if next(tree.find_all(nodes.For), None) is not None else set()
    for unknown in sorted(uses.names - set(ROOTS) - loops):
        yield _at(name, uses, unknown, "unknown-name", closest(unknown, ROOTS), name=unknown)
    for root, attribute in sorted(uses.attributes):
        yield from _attribute(checked, name, uses, root, attribute)
    yield from _part_rules(name, text, uses)


def _readable_tree(name: str, text: str) -> nodes.Template | None:
    try:
        tree = None if _is_too_large(text) else _parsed(name, text)
    except TemplateSyntaxError:
        return None
    odd = tree is not None and any(not isinstance(violation, UnknownFilter) for violation in violations(tree, MESSAGES))
    return None if odd else tree


def _at(template: str, uses: Uses, slot: str, code: str, suggestion: str | None, **values: str) -> Finding:
    return finding(code, file_of(template), uses.lines.get(slot, 1), suggestion=suggestion, **values)


def _attribute(checked: Checked, template: str, uses: Uses, root: str, attribute: str) -> Iterator[Finding]:
    definition, name = checked.definition, f"{root}.{attribute}"
    known: Iterable[str]
    if root in ("blocks", "links"):
        known, code = (definition.blocks, "unknown-block") if root == "blocks" else (definition.links, "unknown-link")
        if attribute not in known:
            yield _at(template, uses, name, code, closest(attribute, known), name=attribute)
    elif root in BUILT_IN and attribute not in (known := definition.attributes(root)):
        near = closest(attribute, known)
        suggestion = f"{root}.{near}" if near else None
        yield _at(template, uses, name, "unknown-attribute", suggestion, name=name, where=DECLARED_IN.get(root, root))


def _part_rules(name: str, text: str, uses: Uses) -> Iterator[Finding]:
    part = name.split(".", 2)[2]
    if part in NEEDS_FOOTER and FOOTER not in uses.names:
        yield finding("missing-footer", file_of(name), 1)
    if part == "subject.txt" and not text.strip():
        yield finding("empty-subject", file_of(name), 1)
    if part == "subject.txt" and "\n" in text.strip():
        yield finding("subject-lines", file_of(name), 2)


def _unused_blocks(checked: Checked) -> Iterator[Finding]:
    for step in checked.sends():
        texts = [text for name, text in checked.source.templates.items() if name.split(".")[0] == step.message]
        for number, block in enumerate(step.editable):
            if texts and block in checked.definition.blocks and not _shows(texts, block):
                yield checked.finding("unused-block", step.id, ("editable", number), name=block, message=step.message)


def _shows(texts: list[str], block: str) -> bool:
    slot = re.compile(rf"blocks\s*(\.\s*{block}\b|\[\s*['\"]{block}['\"]\s*\])")
    return any(slot.search(text) for text in texts)


def _missing_languages(checked: Checked) -> Iterator[Finding]:
    definition = checked.definition
    words: list[tuple[tuple[str, ...], Words]] = [(("name",), definition.name)]
    if definition.description is not None:
        words.append((("description",), definition.description))
    for name, block in definition.blocks.items():
        words += [(("blocks", name, "label"), block.label), (("blocks", name, "default"), block.default)]
    for place, text in words:
        for lang in definition.languages:
            if text.lacks(lang):
                yield checked.finding("missing-language", None, place, lang=lang)
