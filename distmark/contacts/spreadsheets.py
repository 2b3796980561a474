"""Spreadsheets: rows of an XLSX, XLS or ODS file, read in a process of its own with little memory and time.

The parser is native code, and a file of 2 kB can ask it for 500 GB: that ends the process. `python -m distmark.contacts.spreadsheets` is
that process: it reads the file from standard input, writes one JSON list (line number, cells) per row, and ends with an exit code.
"""

import io
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from datetime import date, datetime, time
from enum import IntEnum
from pathlib import Path
from threading import BoundedSemaphore, Timer
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

from distmark.errors import InvalidInput

MEMORY_BYTES = 2_000_000_000
WALL_SECONDS = 120
CPU_SECONDS = 60
LEAST_CPU_SECONDS = 10
BYTES_PER_CPU_SECOND = 400_000  # measured: 1.5 million; a loop in a small file is ended early
MOST_UNPACKED_BYTES = 400_000_000
MOST_PARTS = 10_000  # files within a workbook
MOST_CELLS = 20_000_000  # of the used area, filled or not
MOST_FILLED_CELLS = 3_000_000
MOST_CHARACTERS = 80_000_000
MOST_COLUMNS = 200
LONGEST_CELL = 3_000  # characters; a longer text is refused as a field anyway
AT_ONCE = 2

Row = tuple[int, list[Any]]

_free = BoundedSemaphore(AT_ONCE)


class ExitCode(IntEnum):
    """The result of reading a file, as the exit code of its process. A signal in its place means that a limit was reached."""

    read = 0
    locked = 3
    unreadable = 4
    too_large = 5
    too_wide = 6


def read_rows(data: bytes, filename: str) -> Generator[Row]:
    """Yield the rows of the first visible sheet that are not empty, each with its number from 1; dates and times are texts in ISO 8601.

    InvalidInput, perhaps after some rows, for a file that is locked, no spreadsheet, or too large.
    """
    if not _free.acquire(timeout=WALL_SECONDS):
        raise InvalidInput("Other files are being read at the moment; try again in a few minutes.")
    try:
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.seek(0)
            yield from _rows_of(file, len(data), filename)
    finally:
        _free.release()


def _rows_of(file: IO[bytes], size: int, filename: str) -> Iterator[Row]:
    root = str(Path(__file__).parents[2])
    seconds = min(CPU_SECONDS, LEAST_CPU_SECONDS + size // BYTES_PER_CPU_SECOND)
    # The settings and secrets in this process's environment are no business of a process that reads a stranger's file.
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", __name__, str(seconds)],
        stdin=file,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep), "PATH": os.defpath},
    )
    clock = Timer(WALL_SECONDS, process.kill)
    clock.daemon = True
    clock.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.endswith(b"\n"):  # a process that was ended may leave half a line
                number, cells = json.loads(line)
                yield number, cells
        code = process.wait()
    finally:
        clock.cancel()
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    if code != ExitCode.read:
        raise _refusal(code, filename)


def _refusal(code: int, name: str) -> InvalidInput:
    """Return the error for an exit code. A negative one is the signal by which a limit ended the process."""
    if code == ExitCode.locked:
        return InvalidInput(f"The file {name} is locked with a password; save it without one.")
    if code == ExitCode.too_wide:
        return InvalidInput(f"The file {name} has cells beyond column {MOST_COLUMNS}; delete the columns on the right that are not needed.")
    if code == ExitCode.too_large or code < 0:
        return InvalidInput(
            f"The file {name} needs too much room, perhaps for a forgotten cell far from the others; "
            "copy the lines into a new file, or split it."
        )
    return InvalidInput(f"The file {name} is not a spreadsheet that can be read; save it as XLSX or CSV.")


# --- the process ------------------------------------------------------------------------------------------------------------------------


def _main(seconds: int) -> ExitCode:
    from python_calamine import PasswordError

    _set_limits(seconds)
    try:
        return _print_rows(sys.stdin.buffer.read(), sys.stdout)
    except PasswordError:
        return ExitCode.locked
    except MemoryError:
        return ExitCode.too_large
    except BaseException:  # a panic of the native parser is no Exception
        return ExitCode.unreadable


def _set_limits(seconds: int) -> None:
    for limit, most in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(limit)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (least, least))


def _print_rows(data: bytes, out: IO[str]) -> ExitCode:
    from python_calamine import CalamineWorkbook, SheetVisibleEnum

    if _unpacks_too_large(data):
        return ExitCode.too_large
    book = CalamineWorkbook.from_filelike(io.BytesIO(data))
    visible = (at for at, sheet in enumerate(book.sheets_metadata) if sheet.visible == SheetVisibleEnum.Visible)
    sheet = book.get_sheet_by_index(next(visible, 0))
    if sheet.total_height * sheet.total_width > MOST_CELLS:
        return ExitCode.too_large
    filled = characters = 0
    # The columns of `iter_rows` begin at the first that is filled, which is the first of the headings.
    for number, row in enumerate(sheet.iter_rows(), start=1):
        cells = [_plain(cell) for cell in _trimmed(row)]
        if len(cells) > MOST_COLUMNS:
            return ExitCode.too_wide
        if not cells:
            continue
        filled += sum(cell != "" for cell in cells)
        line = json.dumps([number, cells], ensure_ascii=False)
        characters += len(line)
        if filled > MOST_FILLED_CELLS or characters > MOST_CHARACTERS:
            return ExitCode.too_large
        out.write(line + "\n")
    return ExitCode.read


def _unpacks_too_large(data: bytes) -> bool:
    if not data.startswith(b"PK"):
        return False  # .xls is not packed
    with suppress(BadZipFile), ZipFile(io.BytesIO(data)) as packed:
        parts = packed.infolist()
        return len(parts) > MOST_PARTS or sum(part.file_size for part in parts) > MOST_UNPACKED_BYTES
    return False


def _trimmed(row: Sequence[Any]) -> Sequence[Any]:
    """Return the row without the blank cells at its end."""
    end = len(row)
    while end and (row[end - 1] == "" or (isinstance(row[end - 1], str) and not row[end - 1].strip())):
        end -= 1
    return row[:end]


def _plain(cell: Any) -> str | int | float | bool:
    if isinstance(cell, str):
        return cell[:LONGEST_CELL]
    if isinstance(cell, datetime):
        return cell.date().isoformat() if cell.time() == time() else cell.isoformat()
    if isinstance(cell, date | time):
        return cell.isoformat()
    return cell if isinstance(cell, bool | int | float) else str(cell)


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    code = _main(int(sys.argv[1]))
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    os._exit(code)
