"""Template and data to rendered message: compile once per version, message and language; render once per person. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from jinja2 import Template, TemplateError, UndefinedError
from jinja2.exceptions import SecurityError
from markupsafe import Markup

from distmark.channels.registry import CHANNELS
from distmark.personalisation import links, markup, sandbox
from distmark.personalisation.blocks import block_html, plain_text
from distmark.personalisation.footer import FooterIncomplete, LegalFooter, legal_footer
from distmark.personalisation.greeting import greeting_for
from distmark.personalisation.header_text import has_controls, one_line
from distmark.personalisation.model import (
    MAX_OUTPUT_CHARACTERS,
    BlockKind,
    BlockValue,
    CompiledMessage,
    RenderContext,
    RenderedMessage,
    RenderError,
    TemplateRefused,
    UrlTemplate,
)
from distmark.personalisation.outline import Edit, Element, edited, last_end_tag, outline
from distmark.personalisation.sandbox import SLOT_CLOSE, SLOT_OPEN, TAG_CLOSE, TAG_OPEN, TemplateFacts
from distmark.template_language import bounded_work, gathered

MAX_SUBJECT_CHARACTERS = 200
ONLY_IF = "only-if-"
"An element of this CSS class is left out when the block named after the dash is empty."


@dataclass(frozen=True, slots=True)
class _Source:
    filename: str
    text: str
    names: frozenset[str]


def template_files(message: str, lang: str, channel: str) -> tuple[str, ...]:
    """Return the names of the files that make up one message in one language on one channel."""
    return tuple(f"{message}.{lang}.{ending}" for ending in CHANNELS[channel].parts)


def compile_message(templates: Mapping[str, str], message: str, lang: str, channel: str, link_names: Mapping[str, str]) -> CompiledMessage:
    """Return one message ready to be rendered for anybody.

    `templates` maps file names (`welcome.ja.mjml`; a folder in front is allowed) to their text, `link_names` the journey's named links to
    their URL templates. TemplateRefused names file and line of what is missing, not allowed or unknown.
    """
    kind = CHANNELS[channel]
    files = {ending: _source(templates, f"{message}.{lang}.{ending}") for ending in kind.parts}
    sources = list(files.values())
    targets = {name: links.url_template(link_names[name], f"links.{name}") for name in _linked(sources, link_names)}
    html = None
    if kind.html:
        _need_footer([files[kind.text], files[kind.html]])
        html, found = _compiled_html(files[kind.html])
        targets |= found
    text, subject = files[kind.text], files.get(kind.subject)
    if subject is not None and has_controls(subject.text.strip()):
        raise TemplateRefused(subject.filename, None, "holds a line break or a control character; a subject is one line of text")
    names = frozenset().union(*(source.names for source in sources))
    return CompiledMessage(
        message=message,
        lang=lang,
        channel=channel,
        subject=sandbox.compiled_text(subject.text, subject.filename) if subject else None,
        text=sandbox.compiled_text(text.text, text.filename),
        html=html,
        link_targets=targets,
        blocks=frozenset(name.removeprefix("blocks.") for name in names if name.startswith("blocks.")),
        names=names,
    )


def _source(templates: Mapping[str, str], filename: str) -> _Source:
    text = templates.get(filename, templates.get(f"messages/{filename}"))
    if text is None:
        raise TemplateRefused(filename, None, "is missing; every message needs it in every language of the journey")
    tree = sandbox.template_tree(text, filename)
    return _Source(filename, text, sandbox.dotted_names(tree, filename))


def _linked(sources: list[_Source], link_names: Mapping[str, str]) -> list[str]:
    used = []
    for source in sources:
        for name in sorted(name.removeprefix("links.") for name in source.names if name.startswith("links.")):
            if name not in link_names:
                line = next((at for at, text in enumerate(source.text.splitlines(), 1) if name in text), None)
                raise TemplateRefused(
                    source.filename, line, f"links.{name} is not a link of the journey; it has {', '.join(link_names) or 'none'}"
                )
            used.append(name)
    return list(dict.fromkeys(used))


def _need_footer(sources: list[_Source]) -> None:
    for source in sources:
        if "legal_footer" not in source.names:
            raise TemplateRefused(
                source.filename, None, "lacks {{ legal_footer }}; sender, address and refusal must be shown in every message"
            )


def _compiled_html(source: _Source) -> tuple[Template, dict[str, UrlTemplate]]:
    tokens, expressions = sandbox.slots_to_tokens(source.text, source.filename)
    html = markup.html_from_mjml(tokens, source.filename)
    lost = set(range(len(expressions))) - set(sandbox.token_numbers(html))
    if lost:
        raise TemplateRefused(
            source.filename, None, f"the slot {{{{ {expressions[min(lost)]} }}}} stands where it is never shown; move it into text"
        )
    html = _only_if(_with_language(html, source.filename), source.filename)
    html, urls = _with_links(html, expressions, source.filename)
    body_end = last_end_tag(html, "body")
    assert body_end is not None, "the MJML compiler writes a whole document"
    html = html[:body_end] + _PIXEL + html[body_end:]
    compiled = sandbox.HTML.from_string(sandbox.tokens_to_slots(html, expressions, SLOT_OPEN, SLOT_CLOSE))
    found = {name: sandbox.tokens_to_slots(url, expressions, "{{", "}}") for name, url in urls.items()}
    return compiled, {name: links.url_template(url, source.filename) for name, url in found.items()}


_PIXEL = (
    f"{TAG_OPEN} if pixel_url {TAG_CLOSE}"
    f'<img src="{SLOT_OPEN} pixel_url {SLOT_CLOSE}" width="1" height="1" alt="" style="display:block;border:0;width:1px;height:1px;">'
    f"{TAG_OPEN} endif {TAG_CLOSE}"
)


def _with_language(html: str, filename: str) -> str:
    lang = filename.split(".")[-2]
    return edited(html, [Edit(each.start, each.end, each.with_attribute("lang", lang)) for each in outline(html) if each.name == "html"])


def _only_if(html: str, filename: str) -> str:
    edits: list[Edit] = []
    for element in outline(html):
        block = _shown_only_with(element)
        if block and element.closed_at is not None and not element.conditional:
            edits.append(Edit(element.start, element.start, f"{TAG_OPEN} if blocks['{block}'] {TAG_CLOSE}"))
            edits.append(Edit(element.closed_at, element.closed_at, f"{TAG_OPEN} endif {TAG_CLOSE}"))
    return edited(html, edits)


def _shown_only_with(element: Element) -> str:
    classes = (element.attribute("class") or "").split()
    return next((each.removeprefix(ONLY_IF) for each in classes if each.startswith(ONLY_IF)), "")


def _with_links(html: str, expressions: list[str], filename: str) -> tuple[str, dict[str, str]]:
    def named(href: str) -> str | None:
        roots = [expressions[number].split(".")[0].split("[")[0] for number in sandbox.token_numbers(href)]
        if not {"links", "unsubscribe_url"}.intersection(roots):
            return None
        if not sandbox.is_only_token(href):
            raise TemplateRefused(
                filename, None, f"the link {sandbox.tokens_to_slots(href, expressions, '{{', '}}')} mixes a named link with other text"
            )
        return href

    def slot(name: str) -> str:
        expressions.append(f"links['{name}']")
        return sandbox.token(len(expressions) - 1)

    try:
        return links.name_links(html, slot, named)
    except ValueError as error:
        raise TemplateRefused(filename, None, str(error)) from error


def render(compiled: CompiledMessage, context: RenderContext) -> RenderedMessage:
    """Return what one person gets. Nothing half-filled is ever returned: RenderError names message, language and slot."""
    return _Rendering(compiled, context).result()


class _Rendering:
    """One rendering: the facts, said twice, once for text and once for HTML."""

    def __init__(self, compiled: CompiledMessage, context: RenderContext) -> None:
        self._compiled = compiled
        self._context = context
        self._facts: dict[str, object] = {
            label: TemplateFacts(label, getattr(context, label)) for label in ("contact", "partner", "brand", "campaign", "journey")
        }
        self._facts["lang"] = context.lang
        self._facts["greeting"] = greeting_for(context.contact, context.lang)

    def _error(self, slot: str, problem: str) -> RenderError:
        return RenderError(self._compiled.message, self._compiled.lang, slot, problem)

    def result(self) -> RenderedMessage:
        if self._context.unsubscribe_url is not None and not self._context.unsubscribe_url.startswith(("https://", "http://")):
            raise self._error("unsubscribe_url", f"is {self._context.unsubscribe_url!r}, which is no URL")
        targets = self._targets()
        tracked = self._context.tracked or targets.__getitem__
        footer = self._footer()
        self._facts |= {
            "links": TemplateFacts("links", {name: tracked(name) for name in targets}),
            "unsubscribe_url": self._context.unsubscribe_url,
        }
        short = CHANNELS[self._compiled.channel].short_footer
        text = self._text(footer.sms if short else footer.text) if footer else self._text("")
        return RenderedMessage(self._subject(), text, self._html(footer), targets)

    def _targets(self) -> dict[str, str]:
        targets = {}
        for name, template in self._compiled.link_targets.items():
            try:
                targets[name] = links.filled_url(template, self._facts)
            except (TemplateError, TypeError, ArithmeticError) as error:
                raise self._error(_slot_of(error, f"links.{name}"), f"is missing or cannot be shown in link {name} ({error})") from error
            except ValueError as error:
                raise self._error(f"links.{name}", str(error)) from error
        return targets

    def _footer(self) -> LegalFooter | None:
        context = self._context
        if "legal_footer" not in self._compiled.names:
            return None
        try:
            return legal_footer(context.brand, context.partner, context.lang, context.unsubscribe_url, context.why)
        except FooterIncomplete as error:
            raise self._error(str(error), "is missing, and every message must show it") from error

    def _subject(self) -> str:
        if self._compiled.subject is None:
            return ""
        subject = one_line(self._filled(self._compiled.subject, "subject", self._facts | {"blocks": self._plain_blocks()}))
        if not subject or len(subject) > MAX_SUBJECT_CHARACTERS:
            raise self._error("subject", f"is {len(subject)} characters long; it needs 1 to {MAX_SUBJECT_CHARACTERS}")
        return subject

    def _text(self, footer: str) -> str:
        facts = self._facts | {"blocks": self._plain_blocks(), "legal_footer": footer}
        return self._filled(self._compiled.text, "text", facts).strip() + ("\n" if CHANNELS[self._compiled.channel].html else "")

    def _html(self, footer: LegalFooter | None) -> str:
        if self._compiled.html is None:
            return ""
        blocks = {name: self._block_html(name, block) for name, block in self._blocks()}
        facts = self._facts | {
            "blocks": TemplateFacts("blocks", blocks),
            "legal_footer": footer.html if footer else Markup(""),
            "pixel_url": self._context.pixel_url,
        }
        return self._filled(self._compiled.html, "html", facts)

    def _blocks(self) -> list[tuple[str, BlockValue]]:
        return [(name, block) for name, block in self._context.blocks.items() if name in self._compiled.blocks]

    def _block_html(self, name: str, block: BlockValue) -> Markup:
        if block.kind is BlockKind.IMAGE and block.value and not block.value.startswith("https://"):
            raise self._error(f"blocks.{name}", "is a picture without an https address")
        return block_html(name, block, self._context.mark_blocks)

    def _plain_blocks(self) -> TemplateFacts:
        return TemplateFacts("blocks", {name: plain_text(block.kind, block.value) for name, block in self._blocks()})

    def _filled(self, template: Template, part: str, facts: dict[str, object]) -> str:
        try:
            with bounded_work():
                shown = gathered(template.generate(facts), MAX_OUTPUT_CHARACTERS)
        except (UndefinedError, SecurityError) as error:
            raise self._error(_slot_of(error, part), f"is missing or cannot be shown in the {part} ({error})") from error
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise self._error(part, f"cannot be filled in ({error})") from error
        return shown


def _slot_of(error: Exception, part: str) -> str:
    quoted = str(error).split("'")
    return quoted[1] if len(quoted) > 2 else part
