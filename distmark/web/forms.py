"""Posted forms: reading one, and reading texts, numbers and files from its fields."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from fastapi import Depends, Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

MOST_FILES = 200  # a journey with its templates in a few languages
MOST_IN_RANGES = 1000
LONGEST_NUMBER = 18  # digits: what both databases take as a key


async def _read_posted_form(request: Request) -> AsyncIterator[FormData]:
    form = await request.form(max_files=MOST_FILES, max_fields=5000, max_part_size=2 * 1024 * 1024)
    try:
        yield form
    finally:
        await form.close()


async def _read_lenient_form(request: Request) -> AsyncIterator[FormData]:
    """Yield the form, or an empty one when the body is no form: a mail provider's one-click unsubscribe counts whatever its body."""
    try:
        form = await request.form(max_files=0, max_fields=20)
    except HTTPException:
        form = FormData()
    try:
        yield form
    finally:
        await form.close()


posted_form: Any = Depends(_read_posted_form)
lenient_form: Any = Depends(_read_lenient_form)


def text(form: FormData, name: str) -> str:
    """Return the text of a form field, trimmed; "" when the field is missing."""
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""


def numbers(form: FormData, name: str) -> list[int]:
    """Return the whole numbers sent under `name`, without repeats, in their order; other values are dropped."""
    return whole_numbers([value for value in form.getlist(name) if isinstance(value, str)])


def whole_numbers(values: Sequence[str]) -> list[int]:
    """Return the `values` that are whole numbers small enough for a key, without repeats, in their order; the others are dropped."""
    return list(dict.fromkeys(int(value) for value in values if value.isascii() and value.isdigit() and len(value) < LONGEST_NUMBER))


def whole_ranges(values: Sequence[str], most: int = MOST_IN_RANGES) -> list[int]:
    """Return the whole numbers in `values`, each a number or a range such as 12-40, without repeats; at most `most` of them."""
    found: dict[int, None] = {}
    for value in values:
        first, dash, last = value.partition("-")
        ends = whole_numbers([first, last] if dash else [first])
        if ends and len(ends) == (2 if dash and first != last else 1):
            found |= dict.fromkeys(range(ends[0], min(ends[-1], ends[0] + most) + 1))
    return list(found)[:most]


def ranges(numbers: Iterable[int]) -> list[str]:
    """Return the numbers as `whole_ranges` reads them, in order: neighbours as one range, so that many fit into an address."""
    found: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return [str(first) if first == last else f"{first}-{last}" for first, last in found]


def upload(form: FormData, name: str) -> tuple[str, bytes]:
    """Return the name and content of an uploaded file; ("", b"") when no file was chosen."""
    value = form.get(name)
    if not isinstance(value, UploadFile) or not value.filename:
        return "", b""
    return value.filename, value.file.read()
