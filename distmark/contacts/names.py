"""Whole names: one cell with a person's whole name becomes family and given name. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from distmark.text import tidy

_EAST_ASIAN = re.compile("[\u3005\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")

# What follows a comma without being a given name: forms of companies, generations and degrees.
_NOT_A_NAME = re.compile(r"(?:inc|ltd|llc|co|corp|k\.?k|gmbh|jr|sr|i{2,3}|ph\.?d|m\.?d|esq|mba|cpa)\.?(?:,.*)?", re.IGNORECASE)


def split_name(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return first and last name from a field with the full name, unless there is one with either.

    鈴木 花子 and Suzuki, Hanako have the family name first, Hanako Suzuki has it last.
    """
    if "full_name" not in values or "last_name" in values or "first_name" in values:
        return {}
    whole = tidy(str(values["full_name"]))
    before, comma, after = whole.partition("," if "," in whole else "、")
    if comma and _NOT_A_NAME.fullmatch(after.strip()):
        last, first = whole, ""
    elif comma and before.strip() and after.strip():
        last, first = before, after
    elif _EAST_ASIAN.search(whole):
        last, _, first = whole.partition(" ")
    else:
        first, _, last = whole.rpartition(" ")
    return {"first_name": first.strip(" ,"), "last_name": last.strip(" ,")}
