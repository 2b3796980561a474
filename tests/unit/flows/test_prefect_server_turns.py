"""Writers of Prefect's embedded SQLite take turns: in order, one at a time, and never waiting for themselves."""

import asyncio
from pathlib import Path

import pytest

from flows import server
from flows.server import WriterQueue


async def test_one_writer_at_a_time_in_the_order_asked() -> None:
    queue, inside, order = WriterQueue(), 0, []

    async def write(name: str) -> None:
        nonlocal inside
        async with queue.turn():
            inside += 1
            assert inside == 1
            order.append(name)
            await asyncio.sleep(0.001)
            inside -= 1

    await asyncio.gather(*(write(name) for name in "abcde"))

    assert order == list("abcde")


async def test_a_writer_may_begin_again_within_its_turn() -> None:
    queue = WriterQueue()

    async with asyncio.timeout(1), queue.turn(), queue.turn():
        pass

    async with asyncio.timeout(1), queue.turn():
        pass


async def test_a_writer_that_raises_gives_its_turn_back() -> None:
    queue = WriterQueue()

    with pytest.raises(RuntimeError):
        async with queue.turn():
            raise RuntimeError("the statement failed")

    async with asyncio.timeout(1), queue.turn():
        pass


async def test_task_that_waited_too_long_goes_on_without_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that waits for another task's transaction would wait for ever."""
    monkeypatch.setattr(server, "QUEUE_TIMEOUT_SECONDS", 0.02)
    queue, done = WriterQueue(), []

    async def other() -> None:
        async with queue.turn():
            done.append("other")

    async with asyncio.timeout(2), queue.turn():
        await asyncio.create_task(other())
        done.append("first")

    assert done == ["other", "first"]
    async with asyncio.timeout(1), queue.turn():
        pass


@pytest.mark.filterwarnings("default")
async def test_transactions_of_prefects_sqlite_never_overlap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty transactions that read before they write: without turns most are refused as stale with `database is locked`."""
    import sqlalchemy as sa
    from prefect.server.database.configurations import AioSqliteConfiguration

    monkeypatch.setattr(AioSqliteConfiguration, "begin_transaction", AioSqliteConfiguration.begin_transaction)
    server.queue_writers()
    config = AioSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{tmp_path / 'prefect.db'}", echo=False, timeout=10)
    engine = await config.engine()
    async with engine.begin() as connection:
        await connection.execute(sa.text("CREATE TABLE counted (n INTEGER)"))
        await connection.execute(sa.text("INSERT INTO counted VALUES (0)"))
        await connection.commit()

    async def count_one() -> None:
        async with await config.session(engine) as session, config.begin_transaction(session):
            n = (await session.execute(sa.text("SELECT n FROM counted"))).scalar_one()
            await asyncio.sleep(0.001)
            await session.execute(sa.text("UPDATE counted SET n = :n"), {"n": n + 1})

    await asyncio.gather(*(count_one() for _ in range(50)))

    async with await config.session(engine) as session:
        assert (await session.execute(sa.text("SELECT n FROM counted"))).scalar_one() == 50
    await engine.dispose()
