"""Imports of large files beside other writers: short units of work, dry runs that only read, two imports at once."""

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime

import pytest
from sqlmodel import Session, col, func, select

from distmark.contacts import imports
from distmark.contacts.table import Consent, Contact
from distmark.db import Database
from distmark.errors import InvalidInput, NotFound
from distmark.partners.model import Viewer
from distmark.partners.table import Partner
from distmark.sql import id_of
from tests.factories import make_partner, make_viewer


def _viewer(db: Database) -> Viewer:
    with db.writing() as session:
        return make_viewer(session, partner=make_partner(session))


def _file(lines: int, name: str = "a") -> bytes:
    return "email,姓,市,同意\n".encode() + b"".join(f"{name}{n}@example.com,鈴木,名古屋市,はい\n".encode() for n in range(lines))


def _count(db: Database, table: type[Contact] | type[Consent]) -> int:
    with db.reading() as session:
        return session.exec(select(func.count(col(table.id)))).one()


def test_large_file_is_written_in_many_units_of_work(db: Database, now: datetime):
    viewer = _viewer(db)
    seen: list[tuple[int, int]] = []
    visible: list[int] = []

    def progress(done: int, of: int) -> None:
        seen.append((done, of))
        visible.append(_count(db, Contact))

    report = imports.import_file(db, viewer, viewer.partner_id or 0, _file(600), "a.csv", now, progress=progress)

    steps = [after - before for before, after in itertools.pairwise([0, *visible])]
    assert (report.created, visible[-1]) == (600, 600)
    assert all(0 < step <= imports.BATCH for step in steps)
    assert seen == [(count, 600) for count in visible]
    assert (_count(db, Contact), _count(db, Consent)) == (600, 600)


def test_dry_run_of_a_file_writes_nothing_and_reports_the_same(db: Database, now: datetime, monkeypatch: pytest.MonkeyPatch):
    viewer = _viewer(db)

    @contextmanager
    def never(self: Database) -> Iterator[Session]:
        pytest.fail("a dry run began to write")
        yield

    with monkeypatch.context() as patched:
        patched.setattr(Database, "writing", never)
        planned = imports.import_file(db, viewer, viewer.partner_id or 0, _file(300), "a.csv", now, dry_run=True)
    done = imports.import_file(db, viewer, viewer.partner_id or 0, _file(300), "a.csv", now)

    assert planned == done


def test_dry_run_goes_on_while_another_writes(db: Database, now: datetime):
    viewer = _viewer(db)
    with db.writing() as session:
        session.get_one(Partner, viewer.partner_id).office = "別室"
        session.flush()

        report = imports.import_file(db, viewer, viewer.partner_id or 0, _file(10), "a.csv", now, dry_run=True)

    assert report.created == 10


def test_writer_beside_an_import_waits_for_a_part_of_it_only(db: Database, now: datetime):
    viewer, other = _viewer(db), _viewer(db)
    waits: list[float] = []
    ended = threading.Event()

    def click() -> None:
        while not ended.is_set():
            begun = time.perf_counter()
            with db.writing() as session:
                session.get_one(Partner, other.partner_id).office = str(begun)
            waits.append(time.perf_counter() - begun)
            ended.wait(0.01)

    clicking = threading.Thread(target=click)
    clicking.start()
    try:
        imports.import_file(db, viewer, viewer.partner_id or 0, _file(3000), "a.csv", now)
    finally:
        ended.set()
        clicking.join()

    assert len(waits) > 10  # beside one long transaction it would come to write once or twice


def test_two_imports_into_one_book_at_once_make_each_contact_once(db: Database, now: datetime):
    viewer = _viewer(db)
    data = _file(700)

    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: imports.import_file(db, viewer, viewer.partner_id or 0, data, "a.csv", now), range(2)))

    assert sum(report.created for report in reports) == _count(db, Contact) == 700
    assert sum(report.unchanged for report in reports) == 700


@pytest.mark.parametrize(("seconds", "next_size"), [(0.04, 200), (0.01, 200), (0.08, 100), (0.16, 50), (8.0, 10)])
def test_next_unit_of_work_is_smaller_after_a_slow_one(seconds: float, next_size: int):
    assert imports._next_size(100, seconds) == next_size  # 100 lines * 0.08 s / seconds, between 10 and twice as many
    assert imports._next_size(imports.BATCH, 0.001) == imports.BATCH


def test_writer_beside_two_imports_at_once_waits_for_a_part_only(db: Database, now: datetime):
    viewers, other = [_viewer(db), _viewer(db)], _viewer(db)
    waits: list[float] = []
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(imports.import_file, db, viewer, viewer.partner_id or 0, _file(1000), "a.csv", now) for viewer in viewers]
        while not all(each.done() for each in running):
            before = time.perf_counter()
            with db.writing() as session:
                session.get_one(Partner, other.partner_id).office = str(before)
            waits.append(time.perf_counter() - before)
            time.sleep(0.01)

    assert [each.result().created for each in running] == [1000, 1000]
    assert len(waits) > 10


def test_file_that_cannot_be_read_begins_no_unit_of_work(db: Database, now: datetime, monkeypatch: pytest.MonkeyPatch):
    viewer = _viewer(db)
    monkeypatch.setattr(Database, "writing", lambda self: pytest.fail("it began to write"))

    with pytest.raises(InvalidInput):
        imports.import_file(db, viewer, viewer.partner_id or 0, b"a,b\n1,2\n", "a.csv", now)


def test_file_for_another_book_is_not_even_read(db: Database, now: datetime, monkeypatch: pytest.MonkeyPatch):
    viewer, other = _viewer(db), _viewer(db)
    monkeypatch.setattr(imports, "read_table", lambda *arguments: pytest.fail("it was read"))

    with pytest.raises(NotFound):
        imports.import_file(db, viewer, other.partner_id or 0, _file(1), "a.csv", now)


def test_import_that_was_interrupted_is_completed_by_importing_again(db: Database, now: datetime):
    viewer = _viewer(db)

    class Interrupted(Exception):
        pass

    def interrupt(done: int, of: int) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        imports.import_file(db, viewer, viewer.partner_id or 0, _file(600), "a.csv", now, progress=interrupt)
    report = imports.import_file(db, viewer, viewer.partner_id or 0, _file(600), "a.csv", now)

    assert report.created + report.unchanged == 600
    assert report.unchanged == imports.FIRST_LINES
    with db.reading() as session:
        assert {row.partner_id for row in session.exec(select(Contact))} == {id_of(session.get_one(Partner, viewer.partner_id))}
