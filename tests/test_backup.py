"""Copies of the live database: whole, checked, described, and thinned out."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import sqlite_utils

from export.backup import (
    BackupFailed,
    BackupManifest,
    back_up,
    manifest_of,
    name_for,
    read_manifest,
    superfluous,
    thin_out,
    time_of,
)
from sessionstore.appliance import Store
from sessionstore.settings import Settings
from sessionstore.store.disk import Disk
from sessionstore.upkeep import backups as copying
from sessionstore.upkeep.backups import Backups
from tests.appliance import Appliance
from tests.commands import export, is_done, is_refused
from tests.databases import Database, drafted
from tests.disks import small_disk
from tests.peers import eventually
from tests.test_writer import run, store_in


def log_action(appliance: Appliance) -> int:
    answer = httpx.post(f"{appliance.url}/api/actions/s", json={"type": "x", "text": "y" * 5000})
    return int(answer.json()["cursor"])


def health(appliance: Appliance) -> dict[str, object]:
    found: dict[str, object] = httpx.get(f"{appliance.url}/health").json()["backup"]
    return found


def is_true_of(manifest: BackupManifest, copy: Path) -> bool:
    """Whether a manifest says what a copy is."""
    with closing(sqlite3.connect(f"{copy.as_uri()}?mode=ro", uri=True)) as connection:
        tables = sqlite_utils.Database(connection, recursive_triggers=False).tables
        assert {table.name: table.count for table in tables if not table.name.startswith("search")} == manifest.counts
        assert connection.execute("SELECT max(cursor) FROM events").fetchone() == (manifest.cursor,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("PRAGMA user_version").fetchone() == (manifest.schema_version,)
    content = copy.read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (manifest.bytes, manifest.sha256)
    return True


class Writing:
    """Actions logged one after the other on a thread, from entering to leaving."""

    def __init__(self, appliance: Appliance) -> None:
        self.appliance = appliance
        self.cursors: list[int] = []
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.done.is_set():
            self.cursors.append(log_action(self.appliance))

    def __enter__(self) -> Writing:
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.thread.join()


# ------------------------------------------------------------------- one copy


def test_a_copy_made_while_the_server_writes_is_whole_and_has_all_that_was_acknowledged(
    folder: Path, tmp_path: Path
) -> None:
    with Appliance(folder) as appliance, Writing(appliance) as writing:
        for number in range(3):
            eventually(lambda number=number: len(writing.cursors) > 20 * number)  # type: ignore[misc]
            acknowledged = writing.cursors[-1]
            copy = tmp_path / f"{number}.db"
            assert is_done(export(folder, "backup", copy))
            manifest = read_manifest(manifest_of(copy))
            assert manifest.cursor >= acknowledged
            assert is_true_of(manifest, copy)
    assert sorted(path.name for path in tmp_path.glob("*.db*")) == [
        f"{number}.db{ending}" for number in range(3) for ending in ("", ".json")
    ]


def test_a_server_starts_with_a_copy_as_it_is(folder: Path, tmp_path: Path) -> None:
    with Appliance(folder) as appliance:
        cursor = log_action(appliance)
        assert is_done(export(folder, "backup", tmp_path / "copy.db"))
    (tmp_path / "new").mkdir()
    (tmp_path / "copy.db").rename(tmp_path / "new" / "sessions.db")
    with Appliance(tmp_path / "new") as appliance:
        assert log_action(appliance) == cursor + 1


def test_a_stopped_store_is_copied_too_and_nothing_is_left_beside_it(folder: Path, tmp_path: Path) -> None:
    with Appliance(folder) as appliance:
        log_action(appliance)
    before = sorted(path.name for path in folder.iterdir())
    assert is_done(export(folder, "backup", tmp_path / "copy.db"))
    assert sorted(path.name for path in folder.iterdir()) == before


def test_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    with closing(Database(tmp_path / "sessions.db")) as database:
        database.append(drafted("action", "s", {"type": "x"}))
    copy = tmp_path / "copy.db"
    copy.write_bytes(b"precious")
    assert is_refused(export(tmp_path, "backup", copy), str(copy), "nothing is overwritten")
    assert copy.read_bytes() == b"precious" and not manifest_of(copy).exists()


def test_where_no_copy_can_be_written_the_place_is_named(tmp_path: Path) -> None:
    Database(tmp_path / "sessions.db").close()
    target = tmp_path / "no" / "copy.db"
    assert is_refused(export(tmp_path, "backup", target), f"{target}.part: No such file or directory")


def test_a_damaged_database_gives_no_copy(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    with closing(Database(path)) as database:
        for number in range(40):
            database.append(drafted("action", "s", {"type": "x", "text": f"{number}" * 2000}))
    assert is_done(export(tmp_path, "backup", tmp_path / "sound.db"))
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(8192))
    assert is_refused(export(tmp_path, "backup", tmp_path / "copy.db"), "damaged")
    assert [path.name for path in tmp_path.glob("copy*")] == []


def test_a_copy_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    with closing(Database(tmp_path / "sessions.db")) as database:
        database.append(drafted("action", "s", {"type": "x"}))

        def give_up(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            back_up(tmp_path / "sessions.db", tmp_path / "copy.db", give_up)
        database.append(drafted("action", "s", {"type": "x"}))
    assert [path.name for path in tmp_path.glob("copy*")] == []


def test_progress_is_told_and_ends_with_all(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with closing(Database(tmp_path / "sessions.db")) as database:
        for number in range(400):
            database.append(drafted("action", "s", {"type": "x", "text": f"{number}" * 2000}))
        back_up(tmp_path / "sessions.db", tmp_path / "copy.db", lambda done, total: told.append((done, total)))
    assert len(told) > 1 and told == sorted(told) and told[-1][0] == told[-1][1]


@pytest.mark.parametrize(
    "arguments",
    [("backup",), ("backup", "a", "b"), ("backup", "--nothing", "a"), ("backup", ""), ("restore", "")],
    ids=lambda given: " ".join(given),
)
def test_wrong_use_is_exit_code_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    ended = export(tmp_path, *arguments)
    assert ended.returncode == 2 and "Usage:" in ended.stderr


def test_without_a_database_there_is_nothing_to_copy(tmp_path: Path) -> None:
    assert is_refused(export(tmp_path, "backup", tmp_path / "copy.db"), str(tmp_path / "sessions.db"))
    assert list(tmp_path.iterdir()) == []


NO_MANIFESTS = {
    "empty": b"",
    "half": b"{",
    "lacking": b'{"cursor": 1}',
    "not UTF-8": b"\xff",
    "deep": b"[" * 9999,
    "endless": b" " * (17 << 20) + b"{",
    "of no time": b'{"madeAt": "then", "cursor": 1, "counts": {}, "bytes": 1, "sha256": "", "sqliteVersion": "3",'
    b' "schemaVersion": 1}',
}


@pytest.mark.parametrize("name", NO_MANIFESTS)
def test_what_is_no_manifest_is_said_to_be_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.json").write_bytes(NO_MANIFESTS[name])
    with pytest.raises(BackupFailed, match=r"x\.json is no manifest"):
        read_manifest(tmp_path / "x.json")


# -------------------------------------------------------------- by the server


def test_the_server_makes_copies_by_itself_and_says_so(folder: Path, tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    with Appliance(folder, {"SESSIONS_BACKUP_DIR": str(backups), "SESSIONS_BACKUP_EVERY": "1"}) as appliance:
        cursor = log_action(appliance)
        eventually(lambda: health(appliance)["cursor"] == cursor)
        assert health(appliance)["status"] == "ok" and health(appliance)["error"] is None
        metrics = httpx.get(f"{appliance.url}/metrics").text
        for name in ("last_success_timestamp_seconds", "duration_seconds", "bytes"):
            assert f"\nsessionstore_backup_{name} " in metrics
        log_action(appliance)
        eventually(lambda: health(appliance)["cursor"] == cursor + 1)
    newest = max(backups.glob("*.db"))
    assert time_of(newest.name) is not None
    assert is_true_of(read_manifest(manifest_of(newest)), newest)
    assert not list(backups.glob("*.part*"))


def test_without_a_folder_for_them_there_are_no_backups(folder: Path) -> None:
    with Appliance(folder) as appliance:
        assert health(appliance) == {"status": "off", "last": None, "cursor": None, "error": None}
        assert "sessionstore_backup" not in httpx.get(f"{appliance.url}/metrics").text


def test_a_backup_that_fails_is_said_and_tried_again_and_holds_nobody_up(folder: Path, tmp_path: Path) -> None:
    obstacle = tmp_path / "obstacle"
    obstacle.symlink_to("x" * 300)  # what is below it cannot even be looked at, as on a disk that is away
    environment = {"SESSIONS_BACKUP_DIR": str(obstacle / "backups"), "SESSIONS_BACKUP_EVERY": "1"}
    with Appliance(folder, environment) as appliance:
        eventually(lambda: health(appliance)["status"] == "failed")
        assert "obstacle" in str(health(appliance)["error"])
        assert log_action(appliance) == 2
        assert httpx.get(f"{appliance.url}/ready").status_code == 200
        obstacle.unlink()
        obstacle.write_text("a file where a folder should be")
        eventually(lambda: "Not a directory" in str(health(appliance)["error"]))
        obstacle.unlink()
        eventually(lambda: health(appliance)["status"] == "ok")
        assert health(appliance)["error"] is None


def test_a_server_that_starts_again_knows_the_newest_copy_and_makes_the_next_in_its_time(
    folder: Path, tmp_path: Path
) -> None:
    environment = {"SESSIONS_BACKUP_DIR": str(tmp_path / "backups"), "SESSIONS_BACKUP_EVERY": "1h"}
    with Appliance(folder, environment) as appliance:
        eventually(lambda: health(appliance)["status"] == "ok")
        last = health(appliance)["last"]
        appliance.stop()
        (tmp_path / "backups" / "sessions-20200101T000000Z.db.part").write_bytes(b"what a kill left")
        appliance.start()
        assert health(appliance)["last"] == last
        assert len(list((tmp_path / "backups").glob("*.db"))) == 1


# ----------------------------------------------------------------- thinning out

NOON = datetime(2026, 2, 13, 12, 0, 7, tzinfo=UTC)


def names(*moments: datetime) -> list[str]:
    return [name for moment in moments for name in (name_for(moment), f"{name_for(moment)}.json")]


def kept_of(all_names: list[str]) -> list[datetime]:
    """The moments of the copies that stay, newest first."""
    stay = set(all_names) - set(superfluous(all_names))
    moments = [time_of(name) for name in stay if name.endswith(".db")]
    return sorted((moment for moment in moments if moment), reverse=True)


def test_of_a_year_of_quarter_hours_there_stay_24_hours_14_days_and_8_weeks() -> None:
    quarters = [NOON - timedelta(minutes=15 * number) for number in range(4 * 24 * 365)]
    kept = kept_of(names(*quarters))
    assert kept[0] == NOON
    assert kept[1:24] == [NOON.replace(minute=45) - timedelta(hours=number) for number in range(1, 24)]
    assert len({moment.date() for moment in kept[:38]}) >= 14
    assert len({moment.isocalendar()[:2] for moment in kept}) == 8
    assert 24 + 12 + 6 - 2 <= len(kept) <= 24 + 13 + 8


def test_what_stays_stays_when_nothing_is_added() -> None:
    quarters = names(*(NOON - timedelta(minutes=15 * number) for number in range(4 * 24 * 90)))
    stay = sorted(set(quarters) - set(superfluous(quarters)))
    assert superfluous(stay) == []


def test_a_copy_goes_before_its_manifest_and_never_without_it() -> None:
    every_minute = names(*(NOON - timedelta(minutes=number) for number in range(30)))
    gone = superfluous(reversed(every_minute))
    assert gone and len(gone) % 2 == 0
    assert [f"{copy}.json" for copy in gone[::2]] == gone[1::2]


@pytest.mark.parametrize("others", [[], ["sessions.db", "copy.db", "sessions-20269999T999999Z.db", "x.json", "notes"]])
def test_what_is_not_named_so_never_goes(others: list[str]) -> None:
    every_minute = names(*(NOON - timedelta(minutes=number) for number in range(30)))
    assert superfluous(every_minute + others) == superfluous(every_minute) != []


@pytest.mark.parametrize("days", [-3650, 3650])
def test_a_clock_that_jumps_leaves_the_copies_of_before(days: int) -> None:
    hours = [NOON - timedelta(hours=number) for number in range(20)]
    later = [NOON + timedelta(days=days, minutes=number) for number in range(3)]
    assert set(hours) <= set(kept_of(names(*hours, *later)))


def test_thinning_out_spares_the_copy_just_made_though_its_name_is_the_oldest(tmp_path: Path) -> None:
    made = tmp_path / name_for(NOON - timedelta(days=3650))
    for name in names(*(NOON - timedelta(minutes=30 * number) for number in range(4000))):
        (tmp_path / name).touch()
    made.touch()
    assert made.name in superfluous(path.name for path in tmp_path.iterdir())
    thin_out(tmp_path, made)
    assert made.exists() and 24 < len(list(tmp_path.glob("*.db"))) < 60
    thin_out(tmp_path, tmp_path / name_for(NOON))
    assert not made.exists()


def test_few_copies_all_stay() -> None:
    assert superfluous([]) == []
    assert superfluous(names(NOON)) == []
    assert superfluous(names(*(NOON - timedelta(days=number) for number in range(14)))) == []


# ------------------------------------------------------------------ what it may cost


async def written(store: Store, size: int) -> None:
    for _ in range(size // 100_000):
        await store.writer.append(drafted("action", "s", {"type": "x", "text": "x" * 100_000}))


def backups_of(folder: Path, to: Path) -> Backups:
    return Backups(Settings(directory=folder, backup_directory=to), Disk(folder))


@pytest.mark.parametrize(("size", "haste"), [(1 << 20, False), (65 << 20, True)])
def test_a_copy_makes_haste_when_the_log_has_grown(folder: Path, size: int, haste: bool) -> None:
    folder.mkdir()
    with open(folder / "sessions.db-wal", "wb") as log:
        log.truncate(size)
    assert backups_of(folder, folder).go_on(1, 2) is haste


def test_a_copy_for_which_the_log_grows_too_large_is_given_up_and_said(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        async with store_in(folder, tree=False) as store:
            await written(store, 4_000_000)
            backups = backups_of(folder, tmp_path / "backups")
            with monkeypatch.context() as patched:
                patched.setattr(copying, "MAX_LOG_BYTES", 1)
                patched.setattr(copying, "LOG_SHARE", 1 << 40)
                await asyncio.to_thread(backups.make)
            assert "is tried again" in (backups.error or "") and backups.failures == 1
            assert list((tmp_path / "backups").iterdir()) == []
            await asyncio.to_thread(backups.make)
            assert backups.status == "ok"

    run(test)


def test_a_copy_that_has_no_room_is_not_begun(folder: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with store_in(folder, tree=False) as store:
            await written(store, 4_000_000)
            with small_disk(tmp_path / "backups", 1 << 20) as to:
                backups = backups_of(folder, to)
                assert backups.needed() > 2 << 20
                await asyncio.to_thread(backups.make)
                assert "There is no room in " in (backups.error or "")
                assert list(to.iterdir()) == []

    run(test)


def test_where_there_is_no_room_for_one_more_copy_fewer_are_kept(folder: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with store_in(folder, tree=False) as store:
            await written(store, 4_000_000)
            with small_disk(tmp_path / "backups", 16 << 20) as to:
                backups = backups_of(folder, to)
                assert backups.needed() > 2 << 20
                for hour in range(10, 18):
                    (to / f"sessions-20260101T{hour}0000Z.db").write_bytes(b"x" * (2 << 20))
                await asyncio.to_thread(backups.make)
                assert backups.error is None
                old = sorted(path.name for path in to.glob("sessions-20260101T*.db"))
                assert 0 < len(old) < 7 and old[-1] == "sessions-20260101T170000Z.db"

    run(test)
