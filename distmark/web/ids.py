"""Ids in addresses, queries and forms: one type and one reader, bounded by the largest key of both databases."""

from collections.abc import Iterable
from typing import Annotated

from annotated_types import Ge, Le

from distmark.errors import NotFound

LARGEST_ID = 2**31 - 1
LONGEST_SHOWN = 40  # characters of a text that is no number, when an error shows it
Id = Annotated[int, Ge(1), Le(LARGEST_ID)]  # of a parameter of a route: any other text is answered as an address that does not exist


def read_whole(value: str) -> int | None:
    """Return the whole number from 0 to `LARGEST_ID` that the text is, in plain digits; None for any other text."""
    if not (value.isascii() and value.isdecimal() and len(value) <= len(str(LARGEST_ID))):
        return None
    return int(value) if int(value) <= LARGEST_ID else None


def read_id(value: str) -> int | None:
    """Return the id that the text is, in plain digits; None for any other text."""
    return read_whole(value) or None


def read_ids(values: Iterable[str]) -> list[int]:
    """Return the ids among the `values`, without repeats, in their order; other texts are dropped."""
    return list(dict.fromkeys(found for value in values if (found := read_id(value)) is not None))


def chosen_id(value: str) -> int | None:
    """Return the id that was chosen in a form or query, None when nothing was; NotFound for a text that is no id."""
    if not value:
        return None
    found = read_id(value)
    if found is None:
        raise NotFound("There is nothing with this number.")
    return found
