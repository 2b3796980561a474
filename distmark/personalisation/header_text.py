"""Text of header lines: on one line, without control characters. Everything else that people write, joined emoji too, is left."""

import re

# Line breaks of every kind and the control characters C0 and C1: with these a value could begin a header of its own.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_HALVES = re.compile(r"[\ud800-\udfff]")


def one_line(text: str) -> str:
    """Return the text with each run of line breaks and control characters as one blank, and without halves of characters."""
    return _HALVES.sub("", _CONTROLS.sub(" ", text)).strip()


def has_controls(text: str) -> bool:
    """Return whether the text holds a line break or a control character."""
    return _CONTROLS.search(text) is not None
