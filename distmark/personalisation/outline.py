"""The place of each element of an HTML document in its source, so that one can be changed without touching the rest."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from html.parser import HTMLParser

_VOID = frozenset(["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"])


@dataclass(frozen=True, slots=True)
class Element:
    """One start tag: source offsets of the tag [`start`, `end`) and of the whole element up to `closed_at` (None: never closed)."""

    name: str
    attributes: tuple[tuple[str, str | None], ...]
    start: int
    end: int
    line: int
    closed_at: int | None = None
    conditional: bool = False
    "Whether it stands in a conditional comment, which only Outlook reads."

    def attribute(self, name: str) -> str | None:
        """Return the decoded value of an attribute (`&amp;` is `&`), or None."""
        return next((value for key, value in self.attributes if key == name), None)

    def with_attribute(self, name: str, value: str) -> str:
        """Return the start tag's source with one attribute set to `value`."""
        pairs = [(key, value if key == name else old) for key, old in self.attributes]
        if self.attribute(name) is None:
            pairs.append((name, value))
        written = "".join(f" {key}" if text is None else f' {key}="{escape(text)}"' for key, text in pairs)
        return f"<{self.name}{written}>"


@dataclass(frozen=True, slots=True)
class Edit:
    """Put `text` in place of the source between two offsets."""

    start: int
    end: int
    text: str


class _Outliner(HTMLParser):
    def __init__(self, source: str, offset: int, conditional: bool) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self.end_tags: list[tuple[str, int]] = []
        self._open: list[int] = []
        self._line_starts = _line_starts(source)
        self._offset = offset
        self._conditional = conditional
        self._source = source
        self.feed(source)
        self.close()

    def _here(self) -> int:
        line, column = self.getpos()
        return self._line_starts[line - 1] + column

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        start = self._here()
        end = start + len(self.get_starttag_text() or "")
        element = Element(tag, tuple(attrs), start + self._offset, end + self._offset, self.getpos()[0], conditional=self._conditional)
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        here = self._here()
        self.end_tags.append((tag, here + self._offset))
        closes = next((at for at in reversed(self._open) if self.elements[at].name == tag), None)
        if closes is None:
            return
        del self._open[self._open.index(closes) :]
        closed_at = self._source.index(">", here) + 1
        self.elements[closes] = replace(self.elements[closes], closed_at=closed_at + self._offset)

    def handle_comment(self, data: str) -> None:
        if not data.lstrip().lower().startswith("[if"):
            return
        inner = _Outliner(data, self._here() + len("<!--") + self._offset, conditional=True)
        self.elements.extend(inner.elements)


def _line_starts(source: str) -> list[int]:
    # The parser counts "\n" only.
    return [0, *(at + 1 for at, letter in enumerate(source) if letter == "\n")]


def outline(source: str) -> Sequence[Element]:
    """Return every element of `source` in document order, those inside conditional comments included."""
    return _Outliner(source, 0, conditional=False).elements


def last_end_tag(source: str, name: str) -> int | None:
    """Return the offset of the last end tag of that name, or None; one in a comment or a script does not count."""
    found = [at for tag, at in _Outliner(source, 0, conditional=False).end_tags if tag == name]
    return found[-1] if found else None


def edited(source: str, edits: Sequence[Edit]) -> str:
    """Return `source` with all edits made; edits must not overlap, and those at one offset apply in the order given."""
    pieces: list[str] = []
    at = 0
    for edit in sorted(edits, key=lambda each: (each.start, each.end)):
        if edit.start < at:
            raise ValueError(f"The edits at offset {edit.start} overlap.")
        pieces += [source[at : edit.start], edit.text]
        at = edit.end
    return "".join([*pieces, source[at:]])
