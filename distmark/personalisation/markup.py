"""MJML to HTML that mail programs show: elements checked, styles inlined, nothing fetched from disk or network."""

from html.parser import HTMLParser

import css_inline
import mjml

from distmark.personalisation.model import TemplateRefused

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
    ascii_source = source.encode("ascii", "xmlcharrefreplace").decode()
    try:
        html = mjml.mjml2html(ascii_source, disable_comments=True, fonts={})
    except ValueError as error:
        raise TemplateRefused(filename, None, f"is not well-formed MJML ({error}); look for an element that is not closed") from error
    return _INLINER.inline(html)
