"""The links of a message: each gets a name, keeps its target as a URL template, and shows a slot for its public URL."""

from collections.abc import Callable, Sequence
from urllib.parse import quote

from jinja2 import UndefinedError

from distmark.personalisation import sandbox
from distmark.personalisation.model import TemplateRefused, UrlTemplate
from distmark.personalisation.outline import Edit, Element, edited, outline
from distmark.personalisation.web_addresses import clean_url, is_web_url

_LINKING_ELEMENTS = ("a", "area", "v:roundrect", "v:rect")
KEPT_SCHEMES = ("mailto:", "tel:", "sms:", "#")


def linking_elements(html: str) -> Sequence[Element]:
    """Return the elements of `html` that lead somewhere when clicked, in document order; `<link>` is none of them."""
    return [element for element in outline(html) if element.name in _LINKING_ELEMENTS and element.attribute("href") is not None]


def is_kept(href: str) -> bool:
    """Return whether `href` stays as it is: mail, telephone and same-page links have no target to count."""
    return href.strip().lower().startswith(KEPT_SCHEMES)


def name_links(html: str, slot: Callable[[str], str], named: Callable[[str], str | None]) -> tuple[str, dict[str, str]]:
    """Return `html` with every http(s) link's href replaced by `slot(name)`, and the targets by name.

    Links are named link-1, link-2 ... in document order, two links to one URL too. A link that only Outlook sees (a conditional
    comment) shares the name of the link with the same URL that the others see. `named(href)` returns what an href that is already a
    slot becomes, or None for an ordinary one. Addresses that mail cannot follow raise ValueError with the href.
    """
    elements = [element for element in linking_elements(html) if not is_kept(element.attribute("href") or "")]
    targets: dict[str, str] = {}
    name_by_url: dict[str, str] = {}
    edits: list[Edit] = []
    for element in sorted(elements, key=lambda each: each.conditional):
        href = clean_url(element.attribute("href") or "")
        written = named(href)
        if written is None:
            name = name_by_url.get(href, "") if element.conditional else ""
            name = name or f"link-{len(targets) + 1}"
            targets[name] = href
            name_by_url.setdefault(href, name)
            written = slot(name)
        edits.append(Edit(element.start, element.end, element.with_attribute("href", written)))
    return edited(html, edits), targets


def url_template(source: str, filename: str) -> UrlTemplate:
    """Return `source` ready to be filled in; TemplateRefused when it is neither an http(s) URL nor begins with a slot."""
    tree = sandbox.template_tree(source, filename)
    sandbox.dotted_names(tree, filename)
    tokens, expressions = sandbox.slots_to_tokens(source, filename)
    parts = _parts(clean_url(tokens), expressions)
    if not parts or (isinstance(parts[0], str) and not parts[0].lower().startswith(("https://", "http://"))):
        raise TemplateRefused(filename, None, f"the link {source} must begin with https:// or http://, or be mailto:, tel: or #")
    if isinstance(parts[0], str) and not is_web_url(_with_slots_filled(parts)):
        raise TemplateRefused(
            filename, None, f"the link {source} has no host that a browser could look up; write it like https://example.com/page"
        )
    return UrlTemplate(source, parts)


def _with_slots_filled(parts: Sequence[str | Callable[..., object]]) -> str:
    return "".join(part if isinstance(part, str) else "1" for part in parts)


def _parts(tokens: str, expressions: list[str]) -> tuple[str | Callable[..., object], ...]:
    parts: list[str | Callable[..., object]] = []
    rest = tokens
    for number, expression in enumerate(expressions):
        literal, _, rest = rest.partition(sandbox.token(number))
        parts += [literal] if literal else []
        parts.append(sandbox.compiled_slot(expression))
    return tuple([*parts, rest] if rest else parts)


def filled_url(template: UrlTemplate, facts: dict[str, object]) -> str:
    """Return the URL for one person: values are percent-encoded, so none can add a parameter or a path; a leading slot is a whole URL.

    UndefinedError names a value that is missing; ValueError says that the result is no http(s) URL.
    """
    written = [part if isinstance(part, str) else _value(part(facts), whole=at == 0) for at, part in enumerate(template.parts)]
    url = "".join(written)
    if not is_web_url(url):
        raise ValueError("comes out as no http(s) URL")
    return url


def _value(value: object, whole: bool) -> str:
    if value is None:
        raise UndefinedError("a slot came out empty")
    # A value may hold half of a character, which cannot be encoded.
    written = str(value).encode(errors="ignore").decode()
    return clean_url(written) if whole else quote(written, safe="")
