"""Spreadsheets in a process of their own: what is read, and hostile files that are refused in words within seconds."""

import io
import resource
import struct
import time
import zipfile
from collections.abc import Callable

import pytest

from distmark.contacts import spreadsheets
from distmark.contacts.files import read_table
from distmark.errors import InvalidInput
from tests.workbooks import sparse_workbook, workbook

ROOM = "needs too much room"
WIDE = "cells beyond column 200"
HEADINGS = {1: {"A": "email"}}
SECONDS = 60  # about 6 on two idle cores


def _stray(cell: str, row: int, text: str = "x") -> bytes:
    return sparse_workbook({**HEADINGS, 2: {"A": "a@example.com"}, row: {cell: text}})


def _looping_xls() -> bytes:
    header = struct.pack("<HHHHH6sIIIIIIIIII", 0x3E, 3, 0xFFFE, 9, 6, b"\0" * 6, 0, 1, 0, 0, 4096, 0, 1, 0xFFFFFFFE, 0, 0)
    return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 16 + header + struct.pack("<I", 0) * 5109


def _repeated_text() -> bytes:
    rows = {n: {"A": ("shared", 1), "B": ("shared", 1)} for n in range(2, 60_000)}
    return sparse_workbook({1: {"A": ("shared", 0)}, **rows}, shared=("email", "a" * 30_000))


def _packed_zeros() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("xl/worksheets/sheet1.xml", "w") as part:
        for _ in range(410):
            part.write(b"\0" * 1_000_000)
    return made.getvalue()


@pytest.mark.parametrize(
    ("make", "name", "reason"),
    [
        (lambda: _stray("XFD", 1_048_576), "a.xlsx", ROOM),
        (lambda: _stray("XFD", 1_048_576, " "), "a.xlsx", ROOM),
        (lambda: _stray("ZZ", 60_000), "a.xlsx", ROOM),
        (lambda: _stray("ZZ", 9), "a.xlsx", WIDE),
        (_looping_xls, "a.xls", ROOM),
        (_repeated_text, "a.xlsx", ROOM),
        (_packed_zeros, "a.xlsx", ROOM),
        (lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\xff" * 5000, "a.xls", "not a spreadsheet"),
        (lambda: b"PK\x03\x04" + b"x" * 100, "a.ods", "not a spreadsheet"),
    ],
    ids=[
        "far corner",
        "far blank",
        "60,000 rows by ZZ",
        "column ZZ",
        "looping xls",
        "repeated text",
        "zip bomb",
        "broken xls",
        "broken ods",
    ],
)
def test_hostile_file_is_refused_in_words_without_memory_of_this_process(make: Callable[[], bytes], name: str, reason: str):
    data = make()
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()

    with pytest.raises(InvalidInput, match=reason):
        read_table(data, name)

    assert time.perf_counter() - begun < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_line_numbers_count_empty_rows_above_and_between():
    data = sparse_workbook({4: {"B": "email", "C": "city"}, 7: {"B": "a@example.com", "C": "津"}, 9: {"C": "x"}})

    headings, rows = read_table(data, "a.xlsx")

    assert headings == ["email", "city"]
    assert rows == [(7, ["a@example.com", "津"]), (9, ["", "x"])]


def test_far_blank_row_and_column_do_no_harm():
    headings, rows = read_table(sparse_workbook({**HEADINGS, 2: {"A": "a@example.com", "GZ": " "}, 50_000: {"A": " "}}), "a.xlsx")

    assert (headings, rows) == (["email"], [(2, ["a@example.com"])])


def test_types_of_cells_become_texts_and_numbers():
    _, rows = read_table(
        workbook([["a", "b", "c", "d"], [("date", 29312), ("date", 29312.5), ("bool", 1), ("error", "#N/A")], [1.5, 2]]), "a.xlsx"
    )

    assert rows == [(2, ["1980-04-01", "1980-04-01T12:00:00", True]), (3, [1.5, 2.0])]


def test_process_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(spreadsheets, "WALL_SECONDS", 0.001)

    with pytest.raises(InvalidInput, match=ROOM):
        read_table(workbook([["email"], ["a@example.com"]]), "a.xlsx")


def test_process_sees_no_settings_of_this_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DISTMARK_SECRET_KEY", "secret")
    seen: list[dict[str, str]] = []
    real = spreadsheets.subprocess.Popen

    def spy(*arguments, env, **options):
        seen.append(env)
        return real(*arguments, env=env, **options)

    monkeypatch.setattr(spreadsheets.subprocess, "Popen", spy)
    read_table(workbook([["email"], ["a@example.com"]]), "a.xlsx")

    assert [name for env in seen for name in env if name.startswith("DISTMARK")] == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"email\n" + b"," * 29_000_000, "29000001 columns"),
        (b"email" + b"," * 29_000_000, "29000001 columns"),
        (b"email\n" + b"a" * 29_000_000, "cannot be read from line 2"),
        (b'email\n"' + b"a\n" * 5_000_000, "more than 100,000 lines"),
        (b"email\n" + b"\n" * 29_000_000, "more than 100,000 lines"),
        (b"email\n" + b"a@example.com\n" * 100_001, "more than 100,000 lines"),
    ],
    ids=["commas", "commas as headings", "one cell", "open quotation mark", "empty lines", "lines"],
)
def test_text_file_of_nothing_is_refused_within_seconds(data: bytes, reason: str):
    begun = time.perf_counter()

    with pytest.raises(InvalidInput, match=reason):
        read_table(data, "a.csv")

    assert time.perf_counter() - begun < 20  # about 1 on an idle core
