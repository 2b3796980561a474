"""Asking about many rows at once, without a statement that is as long as the list."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from sqlalchemy import ARRAY, ColumnElement, Integer, String, any_, column, func, literal, select
from sqlmodel import Session

BATCH = 500  # values in one IN (...): well below what either database takes
_Item = TypeVar("_Item")


def batches(items: Iterable[_Item], size: int = BATCH) -> Iterator[list[_Item]]:
    """Return `items` in lists of at most `size`, in order."""
    whole = list(items)
    return (whole[start : start + size] for start in range(0, len(whole), size))


def among(session: Session, key: Any, ids: Iterable[int] | Iterable[str]) -> ColumnElement[bool]:
    """Return the condition that the column `key` is one of `ids` (all numbers or all texts), however many, as one value of the statement.

    As IN (...) in parts it took Postgres 20 s for 25,000 contacts that were just imported: it compared every row with every id, since its
    statistics still said that there were none.
    """
    wanted = list(ids)
    if len(wanted) == 1:
        only: ColumnElement[bool] = key == wanted[0]
        return only
    if session.get_bind().dialect.name == "sqlite":
        value: ColumnElement[Any] = column("value")
        listed = func.json_each(json.dumps(wanted)).table_valued(value)
        found: ColumnElement[bool] = key.in_(select(listed.c.value))
        return found
    # By the column's type, not the values': there may be none.
    of_text = isinstance(getattr(key.type, "impl", key.type), String)
    kind: ARRAY[Any] = ARRAY(String()) if of_text else ARRAY(Integer())
    found = key == any_(literal(wanted, kind))
    return found
