"""The one thread that writes, on a real event loop and a real file: groups, failures, bounds, the end."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sessionstore.appliance import Store
from sessionstore.model.events import Draft, Event
from sessionstore.model.problems import Problem
from sessionstore.settings import Settings
from sessionstore.store import writer as writing
from sessionstore.store.appender import Appended, Appender
from sessionstore.store.disk import Disk
from sessionstore.store.folder import Ground
from sessionstore.store.maintenance import index_search
from sessionstore.store.schema import open_writer
from sessionstore.store.search import Narrowed
from sessionstore.store.writer import Append, Work, Writer
from tests.databases import Database, drafted

PATIENCE = 30.0
LITTLE_PATIENCE = 100
"""Milliseconds that SQLite waits for a lock in these tests, where nobody is going to let it go."""


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def timed() -> None:
        async with asyncio.timeout(PATIENCE):
            await test()

    asyncio.run(timed())


@asynccontextmanager
async def store_in(folder: Path, **settings: Any) -> AsyncIterator[Store]:
    store = Store(Settings(directory=folder, **settings))
    await store.start()
    try:
        yield store
    finally:
        await store.stop()


def word(session: str = "s", **data: Any) -> Draft:
    return drafted("action", session, {"type": "x"} | data)


def writes(draft: Draft) -> Work:
    return lambda appender: appender.append(draft)


async def answers(futures: list[asyncio.Future[Any]]) -> list[Any]:
    return await asyncio.gather(*futures, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 (what is waited for happens on another thread)
        await asyncio.sleep(0.01)


@contextmanager
def held(writer: Writer) -> Iterator[asyncio.Future[Any]]:
    """The writer is in a transaction, and stays there; the work that it does there ends with the block."""
    entered, released = threading.Event(), threading.Event()

    def wait(_: Appender) -> None:
        entered.set()
        released.wait(PATIENCE)

    holding = writer.submit(wait)
    writer.hand_over()
    entered.wait(PATIENCE)
    try:
        yield holding
    finally:
        released.set()


def stored(folder: Path) -> set[str]:
    """The events on disk, read by somebody else."""
    connection = sqlite3.connect(f"{(folder / 'sessions.db').as_uri()}?mode=ro", uri=True)
    try:
        return {event_id for (event_id,) in connection.execute("SELECT event_id FROM events WHERE type = 'action'")}
    finally:
        connection.close()


def failures(results: list[Any]) -> list[int]:
    assert all(isinstance(result, Appended | Problem) for result in results), results
    return [result.status for result in results if isinstance(result, Problem)]


def events_of(results: list[Any]) -> set[str]:
    return {result.event.event_id for result in results if isinstance(result, Appended)}


def is_idle(writer: Writer) -> bool:
    return (writer.waiting, writer.waiting_bytes) == (0, 0)


# -------------------------------------------------------------------- groups


def test_what_waits_together_is_committed_together(folder: Path) -> None:
    async def test() -> None:
        async with store_in(folder) as store:
            with held(store.writer):
                before = store.writer.commits
                futures = [store.writer.submit(writes(word(n=n)), size=10) for n in range(1000)]
                assert (store.writer.waiting, store.writer.waiting_bytes) == (1001, 10_000)
            results = await answers(futures)
            assert failures(results) == []
            assert store.writer.commits - before <= 10, "each has half of what waits, or more"
            assert [result.event.seq for result in results] == list(range(1, 1001))
            assert is_idle(store.writer)

    run(test)


def test_what_was_told_before_is_found_though_it_was_taken_to_be_new(folder: Path) -> None:
    async def test() -> None:
        async with store_in(folder) as store:

            def told(name: str) -> Draft:
                return drafted("action", "s", {"type": "x"}, event_id=name)

            first = await store.writer.append(told("again"))
            for new, doubts in (("ab", writing.DOUBTS), ("cd", writing.DOUBTS - 2)):
                with held(store.writer):
                    drafts = [told(name) for name in (new[0], "again", new[1])]
                    futures = [store.writer.submit(Append(draft), [draft]) for draft in drafts]
                results = await answers(futures)
                assert [result.duplicate for result in results] == [False, True, False]
                assert results[1].event == first.event
                assert store.writer.doubts == doubts, "the second time, nothing was taken to be new"
            assert len(stored(folder)) == 5

    run(test)


def test_one_bad_write_in_a_group_fails_alone(folder: Path) -> None:
    async def test() -> None:
        bad = [
            drafted("session_created", "s", {"initial": {}}, must_be_new=True),
            drafted("metadata_updated", "s", {"metrics": []}),
            drafted("state_updated", "s", {"phase": "\ud800"}),
            drafted("goal_updated", "s", {"goalId": "none"}, names_something=True),
        ]
        async with store_in(folder) as store:
            await store.writer.append(word())
            with held(store.writer):
                commits = store.writer.commits
                futures = []
                for draft in bad:
                    futures.append(store.writer.submit(writes(draft)))
                    futures.append(store.writer.submit(writes(word())))
            results = await answers(futures)
            assert failures(results) == [409, 422, 500, 404]
            assert [result.event.seq for result in results[1::2]] == [2, 3, 4, 5]
            assert store.writer.commits == commits + 2
            assert (store.writer.counts.failures, store.why_not_ready()) == (0, None)

    run(test)


def test_work_that_breaks_in_no_known_way_does_not_end_the_writer(folder: Path) -> None:
    """Nothing of its group is stored, and everyone is told."""

    def breaks(appender: Appender) -> None:
        appender.append(word())
        raise KeyError("never thought of")

    async def test() -> None:
        async with store_in(folder) as store:
            with held(store.writer) as holding:
                futures = [store.writer.submit(writes(word())), store.writer.submit(breaks)]
            await holding
            assert failures(await answers(futures)) == [500, 500]
            assert stored(folder) == set()
            assert is_idle(store.writer)
            results = await answers([store.writer.submit(writes(word()))])
            assert stored(folder) == events_of(results) != set()
            assert store.why_not_ready() is None

    run(test)


def test_what_is_committed_again_is_counted_once(folder: Path) -> None:
    """Where the database refuses one entry, its group is run again, each entry for itself."""

    async def test() -> None:
        async with store_in(folder) as store:
            await store.writer.append(drafted("action", "s", {"type": "x"}, event_id="e"))
            with closing(sqlite3.connect(folder / "sessions.db")) as database:
                database.execute(
                    "CREATE TRIGGER refuses BEFORE INSERT ON events WHEN NEW.kind = 'bad'"
                    " BEGIN SELECT RAISE(ABORT, 'no'); END"
                )
            group = [
                drafted("action", "s", {"type": "x"}, event_id="e"),
                drafted("metadata_updated", "s", {"metrics": []}),
                drafted("goal_updated", "s", {"goalId": "none"}, names_something=True),
                *(drafted("action", "s", {"type": kind}) for kind in ("x", "bad", "x", "bad")),
            ]
            with held(store.writer):
                futures = [store.writer.submit(writes(draft)) for draft in group]
            results = await answers(futures)
            assert failures(results) == [422, 404, 422, 422]
            assert store.writer.counts.tally == {"duplicate": 1, "422": 3, "404": 1}

    run(test)


def test_what_is_not_committed_is_not_counted(folder: Path) -> None:
    def breaks(appender: Appender) -> None:
        raise KeyError("never thought of")

    async def test() -> None:
        async with store_in(folder) as store:
            await store.writer.append(drafted("action", "s", {"type": "x"}, event_id="e"))
            with held(store.writer):
                again = writes(drafted("action", "s", {"type": "x"}, event_id="e"))
                futures = [store.writer.submit(again), store.writer.submit(breaks)]
            assert failures(await answers(futures)) == [500, 500]
            assert store.writer.counts.tally == {}

    run(test)


def test_a_caller_that_goes_away_does_not_take_its_write_along(folder: Path) -> None:
    async def test() -> None:
        async with store_in(folder) as store:
            with held(store.writer):
                callers = [asyncio.create_task(store.writer.append(word(n=n), 7)) for n in range(20)]
                await asyncio.sleep(0)
                for caller in callers[::2]:
                    caller.cancel()
                await asyncio.sleep(0)
            results = await asyncio.gather(*callers, return_exceptions=True)
            assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False] * 10
            await store.writer.append(word("after"))
            assert len(stored(folder)) == 21
            assert is_idle(store.writer)

    run(test)


# ---------------------------------------------------------------- publishing


def test_what_is_published_is_committed_and_in_the_order_of_cursors(folder: Path) -> None:
    """Another connection looks at the moment of publishing."""
    published: list[int] = []
    missing: list[int] = []

    folder.mkdir()

    async def test() -> None:
        path = folder / "sessions.db"

        def publish(events: list[Event]) -> None:
            other = sqlite3.connect(path)
            (head,) = other.execute("SELECT max(cursor) FROM events").fetchone()
            other.close()
            published.extend(event.cursor for event in events)
            missing.extend(event.cursor for event in events if event.cursor > head)

        disk, ground = Disk(path.parent), Ground(path.parent)
        writer = Writer(path, publish=publish, ids=(f"e{n}" for n in range(10_000)), disk=disk, ground=ground)
        await writer.start()
        answered: list[int] = []

        async def caller(number: int) -> None:
            for _ in range(20):
                appended = await writer.append(word(f"s{number}"))
                assert appended.event.cursor in published
                answered.append(appended.event.cursor)

        await asyncio.gather(*(caller(number) for number in range(10)))
        await writer.stop()
        assert len(answered) == 200

    run(test)
    assert missing == []
    assert published == list(range(1, 211))


def test_a_publisher_that_fails_leaves_nobody_waiting(folder: Path) -> None:
    folder.mkdir()

    async def test() -> None:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

        def publish(events: list[Event]) -> None:
            raise LookupError("nobody listens")

        ids, disk, ground = (f"e{n}" for n in range(100)), Disk(folder), Ground(folder)
        writer = Writer(folder / "sessions.db", publish=publish, ids=ids, disk=disk, ground=ground)
        await writer.start()
        assert (await writer.append(word())).event.cursor == 2
        assert is_idle(writer)
        await writer.stop()
        assert [type(context["exception"]) for context in told] == [LookupError]

    run(test)


# -------------------------------------------------------------------- bounds


@pytest.mark.parametrize(("bound", "value", "size"), [("MAX_WAITING", 5, 0), ("MAX_WAITING_BYTES", 40, 10)])
def test_too_much_waiting_is_503_until_it_is_less(
    folder: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int, size: int
) -> None:
    monkeypatch.setattr(writing, bound, value)

    async def test() -> None:
        async with store_in(folder) as store:
            futures: list[asyncio.Future[Any]] = []
            with held(store.writer):
                with pytest.raises(Problem) as refused:
                    while len(futures) < 20:
                        futures += [store.writer.submit(writes(word()), size=size)]
                assert (refused.value.status, refused.value.headers) == (503, {"retry-after": "1"})
                assert 4 <= len(futures) <= 5
            assert failures(await answers(futures)) == []
            await store.writer.append(word(), size)
            assert is_idle(store.writer)
            assert len(stored(folder)) == len(futures) + 1

    run(test)


# ------------------------------------------------------------------- the end


MANY = 3000
"""Events of a deleted session: too many to be removed in one turn of the writer."""


def many_words(session: str) -> Work:
    def write(appender: Appender) -> None:
        for _ in range(MANY):
            appender.append(word(session))

    return write


def test_an_id_that_was_just_deleted_is_used_again_while_others_write(folder: Path) -> None:
    async def test() -> None:
        async with store_in(folder) as store:
            await store.writer.submit(many_words("s"))
            order: list[str] = []

            def submit(name: str, draft: Draft) -> asyncio.Future[Any]:
                answer = store.writer.submit(writes(draft), [draft])
                answer.add_done_callback(lambda _: order.append(name))
                return answer

            with held(store.writer):
                deleted = submit("deleted", drafted("session_deleted", "s"))
                answered = [submit("created", drafted("session_created", "s", {"initial": {"anew": True}}))]
                answered += [submit(f"word {number}", word("s", number=number)) for number in range(3)]
                answered += [submit("other", word("other"))]
                commits = store.writer.commits
            await deleted
            results = await answers(answered)
            assert failures(results) == []
            assert order == ["deleted", "other", "created", "word 0", "word 1", "word 2"]
            assert store.writer.commits - commits > 1, "others write between the pieces"
            session = await store.reader.session("s", 10)
            assert '"anew":true' in session["initial"]
            assert [result.event.seq for result in results[1:4]] == [1, 2, 3]
            assert store.writer.held == []

    run(test)


def test_stopping_refuses_who_waits_for_a_deleted_id(folder: Path) -> None:
    async def test() -> None:
        async with store_in(folder) as store:
            await store.writer.submit(many_words("s"))
            with held(store.writer):
                store.writer.submit(writes(drafted("session_deleted", "s")))
                draft = drafted("session_created", "s", {"initial": {}})
                created = store.writer.submit(writes(draft), [draft])
                stopping = asyncio.create_task(store.writer.stop())
                await asyncio.sleep(0)
            await stopping
            assert failures(await answers([created])) == [503]

    run(test)


def test_stopping_finishes_what_was_taken_and_takes_no_more(folder: Path) -> None:
    async def test() -> None:
        store = Store(Settings(directory=folder))
        await store.start()
        with held(store.writer):
            futures = [store.writer.submit(writes(word())) for _ in range(700)]
            stopping = asyncio.create_task(store.stop())
            await until(lambda: store.draining)
            with pytest.raises(Problem, match="shutting down") as refused:
                store.writer.submit(writes(word()))
            assert refused.value.status == 503
        await stopping
        results = await answers(futures)
        assert failures(results) == []
        assert stored(folder) == events_of(results)
        assert not store.writer.thread.is_alive()

    run(test)
    assert not [file.name for file in folder.iterdir() if file.name.endswith("-wal") and file.stat().st_size]


def test_stopping_at_once_and_stopping_twice_are_no_errors(folder: Path) -> None:
    async def test() -> None:
        store = Store(Settings(directory=folder))
        await store.start()
        await store.stop()
        await store.stop()

    run(test)


# ------------------------------------------------------------ locks and disks


@contextmanager
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Writers that wait for locks as always, but not for five seconds."""

    def limited(path: Path, *, durability: str) -> sqlite3.Connection:
        connection = open_writer(path, durability=durability)
        connection.execute(f"PRAGMA busy_timeout = {LITTLE_PATIENCE}")
        return connection

    with monkeypatch.context() as patched:
        patched.setattr(writing, "open_writer", limited)
        yield


def test_somebody_elses_lock_makes_writes_wait(folder: Path) -> None:
    async def test() -> None:
        async with store_in(folder) as store:
            await store.writer.append(word())
            other = sqlite3.connect(folder / "sessions.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            waiting = store.writer.submit(writes(word()))
            assert await store.reader.head() == 2, "readers wait for nobody"
            assert not waiting.done()
            other.execute("COMMIT")
            other.close()
            assert (await waiting).event.cursor == 3

    run(test)


def test_a_lock_that_is_kept_is_503_and_nothing_is_lost(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with store_in(folder) as store:
            first = await answers([store.writer.submit(writes(word())) for _ in range(10)])
            other = sqlite3.connect(folder / "sessions.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            refused = await answers([store.writer.submit(writes(word())) for _ in range(10)])
            assert failures(refused) == [503] * 10
            assert "locked" in (store.why_not_ready() or "")
            assert await store.reader.head() == 11
            other.execute("COMMIT")
            other.close()
            await until(lambda: store.why_not_ready() is None)
            last = await answers([store.writer.submit(writes(word())) for _ in range(10)])
            assert stored(folder) == events_of(first + last)
            assert is_idle(store.writer)

    with impatient(monkeypatch):
        run(test)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("may not mount: test_a_full_database_is_a_pause_and_no_accident shows the same without")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


async def fill(store: Store) -> tuple[list[Any], int]:
    """Write until writes fail: the answers, and how many failed."""
    results: list[Any] = []
    while not (failed := failures(results)):
        results += await answers([store.writer.submit(writes(word(text="x" * 20_000))) for _ in range(8)])
    assert set(failed) == {503}
    return results, len(failed)


async def is_read_and_not_ready(store: Store, acknowledged: set[str]) -> None:
    assert "full" in (store.why_not_ready() or "")
    page = await store.reader.entries(
        "s", "action", limit=10_000, after=None, before=None, order="asc", kinds=(), agent_id=None
    )
    assert len(page.documents) == len(acknowledged)
    assert is_idle(store.writer)


def test_a_full_database_is_a_pause_and_no_accident(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound on its pages holds for each connection that writes, until it is lifted."""
    bound = [400]

    def limited(path: Path, *, durability: str) -> sqlite3.Connection:
        connection = open_writer(path, durability=durability)
        connection.execute(f"PRAGMA max_page_count = {bound[0]}")
        return connection

    monkeypatch.setattr(writing, "open_writer", limited)

    async def test() -> None:
        async with store_in(folder) as store:
            acknowledged = events_of((await fill(store))[0])
            await is_read_and_not_ready(store, acknowledged)
            bound[0] = 1_000_000
            await until(lambda: store.why_not_ready() is None)
            acknowledged |= events_of(await answers([store.writer.submit(writes(word(text="x" * 20_000)))]))
            assert stored(folder) == acknowledged

    run(test)


def test_a_full_disk_is_a_pause_and_no_accident(small_disk: Path) -> None:
    folder = small_disk / "sessions"

    async def test() -> None:
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(1 << 20))
        async with store_in(folder, tree=False) as store:  # which would take what room there is
            acknowledged = events_of((await fill(store))[0])
            await is_read_and_not_ready(store, acknowledged)
            ballast.unlink()
            await until(lambda: store.why_not_ready() is None)
            appended = await store.writer.append(word(text="x"))
            acknowledged.add(appended.event.event_id)
            assert stored(folder) == acknowledged
        connection = sqlite3.connect(folder / "sessions.db")
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()

    run(test)


def test_a_database_that_cannot_be_opened_again_is_tried_until_it_can(folder: Path, tmp_path: Path) -> None:
    """A commit fails, and so does every new connection: the writer goes on trying, and so do its callers."""

    def breaks(_: Appender) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async def test() -> None:
        async with store_in(folder) as store:
            first = await answers([store.writer.submit(writes(word()))])
            real, store.writer.path = store.writer.path, tmp_path / "nowhere" / "sessions.db"
            assert failures(await answers([store.writer.submit(breaks)])) == [503]
            assert failures(await answers([store.writer.submit(writes(word()))])) == [503]
            failed = store.writer.counts.failures
            await until(lambda: store.writer.counts.failures > failed)
            assert store.writer.thread.is_alive()
            assert "unable to open" in (store.why_not_ready() or "")
            store.writer.path = real
            await until(lambda: store.why_not_ready() is None)
            last = await answers([store.writer.submit(writes(word()))])
            assert stored(folder) == events_of(first + last)
            assert len(stored(folder)) == 2

    run(test)


def test_stopping_in_the_middle_of_trouble_ends(folder: Path, tmp_path: Path) -> None:
    def breaks(_: Appender) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    async def test() -> None:
        store = Store(Settings(directory=folder))
        await store.start()
        store.writer.path = tmp_path / "nowhere" / "sessions.db"
        assert failures(await answers([store.writer.submit(breaks)])) == [503]
        await store.stop()
        assert not store.writer.thread.is_alive()

    run(test)


# -------------------------------------------------------------------- chores


def test_a_chore_that_fails_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faults = iter([ValueError("never thought of"), sqlite3.OperationalError("disk I/O error")])

    def fails_twice(connection: sqlite3.Connection, *, limit: int, size: int) -> tuple[int, bool]:
        for fault in faults:
            raise fault
        return index_search(connection, limit=limit, size=size)

    monkeypatch.setattr(writing, "index_search", fails_twice)

    async def test() -> None:
        async with store_in(folder) as store:
            appended = await store.writer.append(word())
            await until(lambda: store.writer.counts.failures == 2)
            await until(lambda: store.writer.searched == appended.event.cursor)
            assert store.why_not_ready() is None

    run(test)


def test_search_catches_up_behind_the_writing_and_on_demand(folder: Path) -> None:
    async def test() -> None:
        async with store_in(folder) as store:
            await answers([store.writer.submit(writes(word(text="needle"))) for _ in range(300)])
            await store.writer.catch_up_search()
            assert store.writer.search_lag == 0
            assert (await store.reader.search("needle", Narrowed(), limit=1000)).total == 300
            appended = await store.writer.append(word(text="another"))
            await until(lambda: store.writer.searched == appended.event.cursor)

    run(test)


@pytest.mark.parametrize("is_kept_up", [True, False], ids=["kept up", "not kept up"])
def test_search_is_never_further_behind_than_a_few_groups(
    folder: Path, monkeypatch: pytest.MonkeyPatch, is_kept_up: bool
) -> None:
    """However much comes: whoever writes waits for it."""
    if not is_kept_up:
        monkeypatch.setattr(Writer, "keep_up", lambda writer: False)
    batch, connections, rounds = 50, 8, 5

    def many(appender: Appender) -> None:
        for _ in range(batch):
            appender.append(word(text="needle"))

    async def test() -> None:
        async with store_in(folder) as store:
            behind = []
            for _ in range(rounds):
                await answers([store.writer.submit(many) for _ in range(connections)])
                behind.append(store.writer.search_lag)
            assert (max(behind) < batch * connections + writing.INDEX_AT_ONCE + writing.INDEX_FROM) is is_kept_up, (
                behind
            )

    run(test)


def test_what_comes_into_the_index_with_writes_that_are_committed_again_is_not_lost(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(writing, "PUT_OFF", PATIENCE)
    monkeypatch.setattr(writing, "INDEX_FROM", 1)

    async def test() -> None:
        async with store_in(folder) as store:
            await store.writer.append(word())
            store.writer.appender.connection.execute(
                "CREATE TEMP TRIGGER refuses BEFORE INSERT ON events WHEN NEW.kind = 'bad'"
                " BEGIN SELECT RAISE(ABORT, 'no'); END"
            )
            store.writer.appender.connection.set_trace_callback(lambda statement: said.append(statement[:18]))
            drafts = [*(word(text="needle") for _ in range(writing.MAX_GROUP)), word(type="bad")]
            with held(store.writer):
                futures = [store.writer.submit(writes(draft)) for draft in drafts]
            assert failures(await answers(futures)) == [422]
            await until(lambda: store.writer.search_lag == 0)
            assert (await store.reader.search("needle", Narrowed(), limit=1)).total == writing.MAX_GROUP

    run(test)
    undone = said[: said.index("ROLLBACK")]
    assert "INSERT INTO search" in undone[len(undone) - undone[::-1].index("BEGIN IMMEDIATE") :]


def test_nobody_waits_for_the_index_of_long_ago(folder: Path) -> None:
    """What a store of an older version owes is made up for beside the writing, a little with every write."""
    folder.mkdir()
    database = Database(folder / "sessions.db")
    with database.transaction() as appender:
        for _ in range(20 * writing.INDEX_AT_ONCE):
            appender.append(word())
    database.close()

    async def test() -> None:
        async with store_in(folder) as store:
            behind = store.writer.search_lag
            await store.writer.append(word())
            assert store.writer.search_lag > behind // 2
            await until(lambda: store.writer.search_lag == 0)

    run(test)


def test_a_silent_session_is_lost_and_published(folder: Path) -> None:
    async def test() -> None:
        async with store_in(folder, lost_after=0.2) as store:
            appended = await store.writer.append(word())
            piece = await store.broadcaster.after(appended.event.cursor)
            assert piece is not None
            assert [(item.type, item.session_id) for item in piece.items] == [("session_lost", "s")]
            assert store.writer.cursor == appended.event.cursor + 1

    run(test)
