"""Files of contacts: a CSV, text or spreadsheet file becomes headings and numbered lines of cells. Knows no contact and no database."""

import csv
import io
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

from distmark.contacts.encodings import decoded
from distmark.contacts.spreadsheets import LONGEST_CELL, MOST_COLUMNS, read_rows
from distmark.errors import InvalidInput
from distmark.text import tidy

MOST_BYTES = 30_000_000
MOST_LINES = 100_000  # that are not empty, without the headings
MOST_EMPTY_LINES = 1_000_000
MOST_CELLS = 2_000_000  # of a text file, filled or not
MOST_DELIMITERS = 20_000  # on one line of a text file: a text may hold some, too
SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".ods")
DELIMITERS = (",", "\t", ";", "|")

Cells = Sequence[Any]
Table = tuple[list[str], list[tuple[int, Cells]]]  # headings; line number and cells of every line that is not empty


def read_table(data: bytes, filename: str) -> Table:
    """Return the headings and the lines that are not empty, each with its number; InvalidInput when the file cannot be read."""
    if len(data) > MOST_BYTES:
        raise InvalidInput(f"The file {filename} has {len(data):,} bytes; at most {MOST_BYTES:,} are taken at once, so split it.")
    is_spreadsheet = filename.lower().endswith(SPREADSHEETS)
    whole: Generator[tuple[int, Cells]] = read_rows(data, filename) if is_spreadsheet else _text_rows(data, filename)
    with closing(whole):
        rows = list(_filled(whole, filename))
    if not rows:
        raise InvalidInput(f"The file {filename} is empty; its first line must name the columns, such as 姓, 名, メールアドレス.")
    headings = [tidy(str(cell if cell is not None else "")[:LONGEST_CELL]) for cell in rows[0][1]]
    if len(headings) > MOST_COLUMNS:
        raise InvalidInput(f"The file {filename} has {len(headings)} columns; at most {MOST_COLUMNS} are taken.")
    if is_spreadsheet:  # its cells stand under their headings, and columns without one are notes
        headings += [""] * (max(len(cells) for _, cells in rows) - len(headings))
    return headings, rows[1:]


def _filled(rows: Iterable[tuple[int, Cells]], filename: str) -> Iterator[tuple[int, Cells]]:
    """Yield the rows that hold anything; InvalidInput as soon as there are too many lines or cells."""
    lines = cells_count = 0
    for number, cells in rows:
        if not any(cell not in ("", None) and str(cell).strip() for cell in cells):
            continue
        lines += 1
        if lines > MOST_LINES + 1:
            raise InvalidInput(f"The file {filename} has more than {MOST_LINES:,} lines; split it.")
        cells_count += len(cells)
        if cells_count > MOST_CELLS and cells_count > lines * MOST_COLUMNS:
            raise InvalidInput(f"The file {filename} has more than {MOST_CELLS:,} cells; split it, or delete columns that are not needed.")
        yield number, cells


# --- text files -------------------------------------------------------------------------------------------------------------------------


def _text_rows(data: bytes, filename: str) -> Generator[tuple[int, Cells]]:
    content = decoded(data, filename)
    if content.count("\n") + content.count("\r") > 2 * (MOST_LINES + MOST_EMPTY_LINES):
        raise InvalidInput(f"The file {filename} has more than {MOST_LINES:,} lines; split it.")
    delimiter, skipped = _delimiter(content)
    reader = csv.reader(_bounded(content, delimiter, filename), delimiter=delimiter, strict=True)
    number = 1
    try:
        for cells in reader:
            if number > skipped:
                yield number, cells
            number = reader.line_num + 1  # a quoted cell may hold line breaks: the next line starts after them
    except csv.Error as error:
        raise InvalidInput(f"The file {filename} cannot be read from line {number}: {error}; check the quotation marks there.") from error


def _bounded(content: str, delimiter: str, filename: str) -> Iterator[str]:
    for line in io.StringIO(content, newline=""):
        if line.count(delimiter) > MOST_DELIMITERS:
            raise InvalidInput(f"The file {filename} has {line.count(delimiter) + 1} columns; at most {MOST_COLUMNS} are taken.")
        yield line


_DECLARED = re.compile(r'"?sep=(.)"?[,;\t|]*\s*', re.IGNORECASE)
_QUOTED = re.compile(r'"[^"]*"')


def _delimiter(content: str) -> tuple[str, int]:
    """Return the separator of the cells, and the number of lines at the top that only name it (`sep=;`, as Excel writes)."""
    first, _, rest = content[: MOST_DELIMITERS * 4].partition("\n")
    if declared := _DECLARED.fullmatch(first.rstrip("\r")):
        return declared[1], 1
    lines = (line for line in (first, *rest.split("\n")) if line.strip())
    headings = _QUOTED.sub("", next(lines, ""))
    return max(DELIMITERS, key=headings.count), 0
