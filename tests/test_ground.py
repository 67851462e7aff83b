"""What the store lies on: a folder that goes away under it, that others can read, or that cannot carry a database."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from sessionstore.store.folder import UNKNOWN, UNSAFE, Mount, mount_of
from tests.appliance import REPOSITORY, Appliance, ServerError
from tests.commands import export, is_done
from tests.disks import small_disk
from tests.peers import eventually
from tests.repeats import marked
from tests.stalls import Clock

STOPPED_SECONDS = 2.0

# --------------------------------------------------------- a folder that goes away


def write(server: Appliance) -> httpx.Response:
    return httpx.post(f"{server.url}/api/actions/s", json={"type": "x"})


def health(server: Appliance) -> dict[str, str]:
    checks: dict[str, str] = httpx.get(f"{server.url}/health").json()["checks"]
    return checks


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def replace_by_an_empty_one(folder: Path) -> None:
    folder.rename(folder.with_name("away"))
    folder.mkdir()


def replace_by_a_copy(folder: Path) -> None:
    folder.rename(folder.with_name("away"))
    shutil.copytree(folder.with_name("away"), folder)


def replace_the_database(folder: Path) -> None:
    shutil.copy(folder / "sessions.db", folder / "other.db")
    (folder / "other.db").replace(folder / "sessions.db")


def remove_the_log(folder: Path) -> None:
    (folder / "sessions.db-wal").unlink()


def remove_the_index_of_the_log(folder: Path) -> None:
    (folder / "sessions.db-shm").unlink()


def remove_the_lock(folder: Path) -> None:
    (folder / ".lock").unlink()


def replace_by_a_link(folder: Path) -> None:
    replace_by_an_empty_one(folder)
    folder.rmdir()
    (folder.with_name("empty")).mkdir()
    folder.symlink_to(folder.with_name("empty"))


LOSSES = (
    remove,
    replace_by_an_empty_one,
    replace_by_a_copy,
    replace_the_database,
    remove_the_log,
    remove_the_lock,
    remove_the_index_of_the_log,
    replace_by_a_link,
)


@pytest.mark.parametrize("lose", marked(LOSSES, long=LOSSES[1:3] + LOSSES[6:]), ids=lambda lose: lose.__name__)
def test_writes_stop_when_what_is_written_to_has_gone(folder: Path, lose: Callable[[Path], None]) -> None:
    with Appliance(folder) as server:
        assert write(server).status_code == 200
        lose(folder)
        clock = Clock(server)
        lost_at = clock.now()
        eventually(lambda: write(server).status_code == 503)
        assert clock.now() < lost_at + STOPPED_SECONDS
        refused, ready = write(server), httpx.get(f"{server.url}/ready")
        assert str(folder) in refused.json()["detail"] and 1 <= int(refused.headers["retry-after"]) <= 5
        assert ready.status_code == 503 and ready.json()["detail"] == refused.json()["detail"]
        assert health(server)["folder"] == "fail"
        assert httpx.delete(f"{server.url}/api/sessions/s").status_code == 503, "nor what makes room"
        assert httpx.get(f"{server.url}/api/sessions/s").status_code == 200, "what is open is still read"
        time.sleep(1)
        told = [line for line in server.output.splitlines() if str(folder) in line and line.startswith("20")]
        assert len(told) <= 3, told
        assert server.said("while the server runs")
        server.stop()
    assert "Traceback" not in server.output


@pytest.mark.long
def test_nothing_is_refused_while_nothing_has_gone(folder: Path) -> None:
    with Appliance(folder) as server:
        for _ in range(20):
            assert write(server).status_code == 200
            time.sleep(0.1)
        assert health(server)["folder"] == "pass"
        assert export(folder, "backup", folder.with_name("copy.db")).returncode == 0, "another process opens and leaves"
        time.sleep(1)
        assert write(server).status_code == 200


def test_a_folder_that_comes_back_as_it_was_is_written_to_again(folder: Path) -> None:
    with Appliance(folder) as server:
        write(server)
        folder.rename(folder.with_name("away"))
        eventually(lambda: write(server).status_code == 503)
        folder.with_name("away").rename(folder)
        eventually(lambda: write(server).status_code == 200)
        assert health(server)["folder"] == "pass" and server.said("writes are taken again")
        eventually(lambda: httpx.get(f"{server.url}/health").json()["tree"]["lag"] == 0)
        server.stop()
        assert is_done(export(folder, "verify"))


def test_a_disk_that_is_unmounted_stops_writing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64 << 20) as disk, Appliance(disk) as server:
        write(server)
        subprocess.run(["umount", "-l", disk], check=True)
        eventually(lambda: write(server).status_code == 503)
        subprocess.run(["mount", "-t", "tmpfs", "none", disk], check=True)
        eventually(lambda: "replaced" in write(server).json()["detail"] or "gone" in write(server).json()["detail"])
        server.stop()


def test_a_second_server_on_a_replaced_folder_is_not_beside_one_that_goes_on(folder: Path) -> None:
    with Appliance(folder) as first:
        write(first)
        replace_by_an_empty_one(folder)
        with Appliance(folder) as second:
            eventually(lambda: write(first).status_code == 503)
            assert write(second).status_code == 200
            first.stop()
            assert write(second).status_code == 200
            second.stop()
            second.start(until="/ready")
            items = httpx.get(f"{second.url}/api/actions/s").json()
            assert len(items) == 2, "the end of the first took nothing of the second's log"


def test_an_empty_folder_where_a_backup_knows_of_more_is_a_loss_and_is_said(folder: Path, tmp_path: Path) -> None:
    env = {"SESSIONS_BACKUP_DIR": str(tmp_path / "backups"), "SESSIONS_BACKUP_EVERY": "1s"}
    with Appliance(folder, env) as server:
        cursor = write(server).json()["cursor"]
        eventually(lambda: httpx.get(f"{server.url}/health").json()["backup"]["cursor"] == cursor)
        server.stop()
        shutil.rmtree(folder)
        server.start()
        ready = httpx.get(f"{server.url}/ready")
        assert ready.status_code == 503 and f"has seen {cursor}" in ready.json()["detail"]
        assert write(server).status_code == 503
        server.stop()
        assert is_done(export(folder, "restore", max((tmp_path / "backups").glob("*.db")), "--force", **env))
        server.start(until="/ready")
        assert httpx.get(f"{server.url}/api/sessions/s").status_code == 200


# ---------------------------------------------------------------- other users


def modes(folder: Path) -> dict[str, int]:
    paths = [folder, *folder.rglob("*")]
    return {str(path): stat.S_IMODE(path.lstat().st_mode) for path in paths if not path.is_symlink()}


def lived(folder: Path, tmp_path: Path, **more: str) -> None:
    """A server with all that it writes, for a moment."""
    env = {"SESSIONS_BACKUP_DIR": str(tmp_path / "backups"), **more}
    with Appliance(folder, env) as server:
        write(server)
        httpx.post(f"{server.url}/api/actions/gone", json={"type": "x"})
        httpx.delete(f"{server.url}/api/sessions/gone")
        httpx.post(f"{server.url}/api/sessions/s/finalize")
        eventually(lambda: httpx.get(f"{server.url}/health").json()["backup"]["status"] == "ok")
        eventually(lambda: httpx.get(f"{server.url}/health").json()["tree"]["lag"] == 0)
        server.stop()
    umask = {name: value for name, value in more.items() if name == "SESSIONS_UMASK"}
    assert is_done(export(folder, "archive", "--before", "2999-01-01", "--to", tmp_path / "archives", **umask))


@pytest.fixture
def open_handed() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize(("umask", "allowed"), [("", 0o700), ("027", 0o750), ("022", 0o755)])
def test_other_users_may_only_what_is_left_to_them(
    folder: Path, tmp_path: Path, open_handed: None, umask: str, allowed: int
) -> None:
    lived(folder, tmp_path, **({"SESSIONS_UMASK": umask} if umask else {}))
    found = modes(folder) | modes(tmp_path / "backups") | modes(tmp_path / "archives")
    assert len(found) > 20
    assert {path: mode for path, mode in found.items() if mode & ~allowed} == {}
    assert stat.S_IMODE((folder / "sessions.db").stat().st_mode) == allowed & 0o666


def test_what_an_earlier_version_left_open_is_closed_at_the_start_and_said_once(
    folder: Path, tmp_path: Path, open_handed: None
) -> None:
    lived(folder, tmp_path, SESSIONS_UMASK="022")
    env = {"SESSIONS_BACKUP_DIR": str(tmp_path / "backups")}
    with Appliance(folder, env) as server:
        assert server.said("Other users")
        (told,) = [line for line in server.output.splitlines() if "Other users" in line]
        assert str(folder) in told and "SESSIONS_UMASK" in told
        at_the_top = [folder, *folder.iterdir(), *(tmp_path / "backups").iterdir()]
        assert [path for path in at_the_top if not path.is_symlink() and path.stat().st_mode & 0o077] == []
        server.stop()
        server.start()
        assert server.output.count("Other users") == 1


def test_a_folder_that_is_not_the_stores_alone_is_not_closed(folder: Path, open_handed: None) -> None:
    folder.mkdir(mode=0o755)
    (folder / "of somebody").write_text("x")
    with Appliance(folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755
        assert stat.S_IMODE((folder / "of somebody").stat().st_mode) == 0o644
        assert stat.S_IMODE((folder / "sessions.db").stat().st_mode) == 0o600


# ------------------------------------------------------------------ file systems

MOUNTINFO = r"""
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:30 / /srv rw - nfs4 host:/srv rw
31 30 8:2 / /srv/local rw - xfs /dev/sdb rw
32 21 0:32 / /mnt/with\040space rw - virtiofs share rw
33 21 0:33 / /over rw - 9p old rw
34 21 0:34 / /over rw - tmpfs new rw
35 21 0:35 / /srv/local2 rw master:1 - fuse.sshfs x rw
"""


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/var/x", Mount("/", "ext4")),
        ("/srv", Mount("/srv", "nfs4")),
        ("/srvother", Mount("/", "ext4")),
        ("/srv/local/a/b", Mount("/srv/local", "xfs")),
        ("/srv/local2/a", Mount("/srv/local2", "fuse.sshfs")),
        ("/mnt/with space/x", Mount("/mnt/with space", "virtiofs")),
        ("/over/x", Mount("/over", "tmpfs")),
    ],
)
def test_a_folder_lies_on_the_longest_mount_point_above_it(path: str, mount: Mount) -> None:
    assert mount_of(Path(path), MOUNTINFO) == mount


def test_what_is_shared_is_unsafe_and_what_is_local_is_not() -> None:
    shared = "nfs nfs4 cifs smb3 smbfs 9p virtiofs fuse.sshfs fuse.s3fs vboxsf prl_fs drvfs fakeowner ceph fuse.rclone"
    local = "ext4 xfs btrfs zfs tmpfs overlay f2fs fuseblk fuse.fuse-overlayfs ext3 apfs ramfs"
    assert [kind for kind in shared.split() if not UNSAFE.fullmatch(kind)] == []
    assert [kind for kind in local.split() if UNSAFE.fullmatch(kind) or UNKNOWN.fullmatch(kind)] == []
    assert UNKNOWN.fullmatch("fuse.something") and UNKNOWN.fullmatch("fuse")


@contextmanager
def mounted_as(kind: str, folder: Path, **env: str) -> Iterator[Appliance]:
    """A server to which a folder seems to be of this kind."""
    if os.geteuid() or shutil.which("unshare") is None:
        pytest.skip("needs root and mount namespaces")
    fake = folder.with_name("mountinfo")
    fake.write_text(f"{Path('/proc/self/mountinfo').read_text()}9999 1 0:77 / {folder} rw - {kind} share rw\n")
    script = f'mount --make-rprivate /; mount --bind {fake} /proc/$$/mountinfo; exec "$@"'
    with Appliance(folder, env, under=["unshare", "-m", "sh", "-c", script, "sh"]) as server:
        yield server


@pytest.mark.parametrize("kind", marked(["nfs4", "fuse.sshfs"], long=["fuse.sshfs"]))
def test_a_shared_file_system_is_refused_unless_it_is_wanted(folder: Path, kind: str) -> None:
    with pytest.raises(ServerError) as refused, mounted_as(kind, folder):
        pass
    assert kind in str(refused.value) and "SESSIONS_ALLOW_UNSAFE_FS=1" in str(refused.value)
    assert "Traceback" not in str(refused.value) and not folder.exists()
    with mounted_as(kind, folder, SESSIONS_ALLOW_UNSAFE_FS="1") as server:
        assert server.said(kind) and health(server)["folder"] == "warn"
        assert write(server).status_code == 200


def test_an_unknown_file_system_is_a_warning(folder: Path) -> None:
    with mounted_as("fuse.something", folder) as server:
        assert server.said("fuse.something") and health(server)["folder"] == "warn"
    with mounted_as("ext4", folder) as server:
        assert health(server)["folder"] == "pass"


# ------------------------------------------------------------------------ rights


def started_as(uid: int, folder: Path) -> str:
    """What a server says that ends at once, as a user without rights of root; this checkout may be root's alone."""
    if os.geteuid() or shutil.which("setpriv") is None:
        pytest.skip("needs root")
    without = "-dac_override,-dac_read_search,-fowner,-chown"
    line = ["setpriv", f"--bounding-set={without}", "--inh-caps=-all", f"--reuid={uid}", sys.executable, "app.py"]
    env = {**os.environ, "SESSIONS_DIR": str(folder), "PORT": "0"}
    ended = subprocess.run(line, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended
    return ended.stderr


def test_a_folder_of_another_user_is_refused_with_both_users_and_the_remedy(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, 1234, 1234)
    for folder in (theirs, theirs / "deeper"):
        said = started_as(0, folder)
        assert f"{theirs} belongs to uid 1234" in said and "this is uid 0" in said, said
        assert f"chown -R 0 {folder}" in said and "SESSIONS_DIR" in said


def test_a_database_of_another_user_is_refused_likewise(folder: Path) -> None:
    with Appliance(folder):
        pass
    os.chown(folder / "sessions.db", 1234, 1234)
    said = started_as(0, folder)
    assert f"{folder / 'sessions.db'} belongs to uid 1234 (mode 600)" in said, said


def test_a_file_system_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        said = started_as(0, disk)
        assert "Read-only" in said and "uid" not in said
