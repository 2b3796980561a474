"""MJML to HTML that mail programs show: elements checked, styles inlined, nothing fetched from disk or network."""

import re
from html.parser import HTMLParser

import css_inline
import mjml

from distmark.personalisation.model import TemplateRefused
from distmark.personalisation.outline import Edit, edited, outline

# What each content element may hold besides text. mj-raw, mj-include and mj-social are left out: they bring in what nobody checked.
_LAYOUT = frozenset(
    {
        "mjml", "mj-head", "mj-body", "mj-attributes", "mj-all", "mj-class", "mj-breakpoint", "mj-section", "mj-wrapper", "mj-group",
        "mj-column", "mj-hero", "mj-image", "mj-divider", "mj-spacer", "mj-navbar",
    }
)  # fmt: skip
_CONTENT = frozenset({"mj-text", "mj-button", "mj-table", "mj-title", "mj-preview", "mj-style", "mj-navbar-link"})
MJML_ELEMENTS = _LAYOUT | _CONTENT
HTML_ELEMENTS = frozenset(
    [
        "a",
        "b",
        "blockquote",
        "br",
        "caption",
        "code",
        "div",
        "em",
        "h1",
        "h2",
        "h3",
        "h4",
        "hr",
        "i",
        "img",
        "li",
        "mark",
        "ol",
        "p",
        "rp",
        "rt",
        "ruby",
        "s",
        "small",
        "span",
        "strong",
        "sub",
        "sup",
        "table",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "tr",
        "u",
        "ul",
        "wbr",
    ]
)
FIRST_PRINTABLE = 32
_INLINER = css_inline.CSSInliner(load_remote_stylesheets=False, keep_style_tags=True)


class _Checker(HTMLParser):
    """Refuses the first element or attribute that a mail must not hold, with its line."""

    def __init__(self, filename: str) -> None:
        super().__init__(convert_charrefs=True)
        self._filename = filename
        self._open: list[str] = []

    def _refuse(self, problem: str) -> None:
        raise TemplateRefused(self._filename, self.getpos()[0], problem)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        in_attributes = "mj-attributes" in self._open
        if tag.startswith("mj"):
            if tag not in MJML_ELEMENTS:
                self._refuse(f"<{tag}> is not an element that mails may use; use one of {', '.join(sorted(MJML_ELEMENTS))}")
        elif tag not in HTML_ELEMENTS:
            self._refuse(f"<{tag}> is not an element that mails may use")
        elif not in_attributes and not _CONTENT.intersection(self._open):
            self._refuse(f"<{tag}> must stand inside an element for content, such as <mj-text>")
        for name, _ in attrs:
            if name.startswith("on"):
                self._refuse(f"the attribute {name} would run a script; mail must not")
        self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if "mj-style" in self._open and not data.isascii():
            self._refuse("the style holds characters outside ASCII; write them as CSS escapes such as \\3000")


def check_markup(source: str, filename: str) -> None:
    """Pass when `source` holds only elements and attributes that mails may use; TemplateRefused names the line of the first other."""
    checker = _Checker(filename)
    checker.feed(source)
    checker.close()


def html_from_mjml(source: str, filename: str) -> str:
    """Return `source` as a whole HTML document with inlined styles, media queries kept; TemplateRefused when it is no valid MJML."""
    check_markup(source, filename)
    # The compiler writes ideographic spaces and joined emoji in attributes as Rust escapes; as references they pass untouched.
    ascii_source = with_plain_attributes(source).encode("ascii", "xmlcharrefreplace").decode()
    try:
        html = mjml.mjml2html(ascii_source, disable_comments=True, fonts={})
    except ValueError as error:
        raise TemplateRefused(filename, None, f"is not well-formed MJML ({error}); look for an element that is not closed") from error
    return _INLINER.inline(html)


_ATTRIBUTE = re.compile(r"""([\w:.-]+)(\s*=\s*)(?:"([^"]*)"|'([^']*)')""")
_ADDRESSES = ("href", "src", "background-url")
_ESCAPED = {'"': "&quot;", "'": "&#39;", "\\": "&#92;", "<": "&lt;", ">": "&gt;"}


def with_plain_attributes(source: str) -> str:
    """Return `source` with each attribute value in double quotes on one line, and references for characters that the compiler would escape.

    It writes attributes as Rust writes strings for programmers: a quote would come out as a backslash and a quote that ends the value.
    """
    edits = [
        Edit(element.start, element.end, _ATTRIBUTE.sub(_plain_attribute, source[element.start : element.end]))
        for element in outline(source)
    ]
    return edited(source, edits)


def _plain_attribute(found: re.Match[str]) -> str:
    written = found[3] if found[3] is not None else found[4]
    # In an address a line break is nothing, elsewhere it is a blank.
    lines = [line.strip() for line in written.splitlines()] if found[1].lower() in _ADDRESSES else written.splitlines()
    value = ("" if found[1].lower() in _ADDRESSES else " ").join(lines).replace("\t", " ")
    kept = (_ESCAPED.get(letter, letter) for letter in value if ord(letter) >= FIRST_PRINTABLE)
    return f'{found[1]}{found[2]}"{"".join(kept)}"'
