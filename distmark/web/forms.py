"""Posted forms: reading one, and reading texts, numbers and files from its fields."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from fastapi import Depends, Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from distmark.errors import InvalidInput
from distmark.web.ids import read_ids
from distmark.web.security import bounded

SMALL_FORM_BYTES = 64 * 1024
MOST_FILES = 200  # a journey with its templates in a few languages
MOST_IN_RANGES = 1000


async def _read_posted_form(request: Request) -> AsyncIterator[FormData]:
    form = await request.form(max_files=MOST_FILES, max_fields=5000, max_part_size=2 * 1024 * 1024)
    try:
        check_storable(form)
        yield form
    finally:
        await form.close()


async def _read_guest_form(request: Request) -> AsyncIterator[FormData]:
    """Yield the form of a request whose user is not known: only a small one, without files."""
    form = await _small(request).form(max_files=0, max_fields=20)
    try:
        check_storable(form)
        yield form
    finally:
        await form.close()


def _small(request: Request) -> Request:
    return Request(request.scope, bounded(request.receive, SMALL_FORM_BYTES))


async def _read_lenient_form(request: Request) -> AsyncIterator[FormData]:
    """Yield the form, or an empty one when the body is no form: a mail provider's one-click unsubscribe counts whatever its body."""
    try:
        form = await _small(request).form(max_files=0, max_fields=20)
        check_storable(form)
    except (HTTPException, InvalidInput):
        form = FormData()
    try:
        yield form
    finally:
        await form.close()


posted_form: Any = Depends(_read_posted_form)
guest_form: Any = Depends(_read_guest_form)
lenient_form: Any = Depends(_read_lenient_form)


def check_storable(form: FormData) -> None:
    """Raise InvalidInput when a field's name, text or file name holds a null character, which no database keeps."""
    for name, value in form.multi_items():
        if "\0" in name or "\0" in (value if isinstance(value, str) else value.filename or ""):
            raise InvalidInput("A field of the form holds a null character, which cannot be kept; remove it and send the form again.")


def text(form: FormData, name: str) -> str:
    """Return the text of a form field, trimmed; "" when the field is missing."""
    value = form.get(name, "")
    return value.strip() if isinstance(value, str) else ""


def texts(form: FormData, name: str) -> list[str]:
    """Return the texts sent under `name`, trimmed, without repeats and empty ones, in their order."""
    return list(dict.fromkeys(value.strip() for value in form.getlist(name) if isinstance(value, str) and value.strip()))


def numbers(form: FormData, name: str) -> list[int]:
    """Return the ids, or other whole numbers from 1 on, sent under `name`, without repeats, in their order; the rest is dropped."""
    return read_ids(value for value in form.getlist(name) if isinstance(value, str))


def whole_ranges(values: Sequence[str], most: int = MOST_IN_RANGES) -> list[int]:
    """Return the whole numbers in `values`, each a number or a range such as 12-40, without repeats; at most `most` of them."""
    found: dict[int, None] = {}
    for value in values:
        first, dash, last = value.partition("-")
        ends = read_ids([first, last] if dash else [first])
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
