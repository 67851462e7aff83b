"""What is written into the spool stays there, in order, until the store has it; what has to go is counted."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import hook_agent
from hook_agent import Spool, SpoolUnusable
from tests.agents import environment, line_of, run, start
from tests.repeats import examples

URL = "http://127.0.0.1:9"
WRITE = """
import sys, hook_agent
spool = hook_agent.Spool(*sys.argv[1:3])
print("ready", flush=True)
for number in range(int(sys.argv[4])):
    spool.append(b'{"sessionId":"%s","number":%d}\\n' % (sys.argv[3].encode(), number))
"""

HOLD = """
import fcntl, sys
with open(sys.argv[1]) as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


DAMAGED: tuple[object, ...] = (
    5,
    "x",
    [],
    [5],
    {"known": 5},
    {"known": [5]},
    {"known": [{"place": [0, 0], "state": 5}]},
    {"a": 5},
)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    settled = Spool(URL, str(tmp_path / "spool"))
    settled.settle()
    return settled


def again(spool: Spool) -> Spool:
    """The same spool, as another process knows it."""
    other = Spool(URL)
    other.folder = spool.folder
    return other


def first_segment(spool: Spool) -> Path:
    return Path(spool._segment(spool.segments()[0]))


def all_lines(spool: Spool) -> list[bytes]:
    """Everything that waits, taken as a sender does."""
    lines = []
    while batch := spool.read():
        lines += batch.lines
        spool.done(batch)
    return lines


def written(spool: Spool, count: int, session: str = "test", start: int = 0) -> list[bytes]:
    """So many lines, appended one by one, as they come back."""
    lines = [line_of(number, session) for number in range(start, start + count)]
    for line in lines:
        spool.append(line)
    return [line.rstrip(b"\n") for line in lines]


# ---------------------------------------------------------------------- in and out


def test_what_is_written_comes_back_in_order(spool: Spool) -> None:
    lines = written(spool, 1200)
    assert all_lines(spool) == lines


def test_a_spool_that_is_delivered_holds_no_events(spool: Spool) -> None:
    written(spool, 3)
    all_lines(spool)
    assert spool.segments() == []
    assert not os.path.exists(spool.path("position.json"))


def test_what_is_not_done_comes_again(spool: Spool) -> None:
    lines = written(spool, 700)
    first = spool.read()
    assert first is not None and first.lines == lines[: len(first.lines)]
    spool.done(first)
    for reader in (spool, spool, again(spool)):
        second = reader.read()
        assert second is not None
        assert second.lines == lines[len(first.lines) :]


def test_a_segment_that_has_grown_stays(spool: Spool) -> None:
    written(spool, 2)
    batch = spool.read()
    assert batch is not None
    later = written(spool, 1, start=2)
    spool.done(batch)
    assert all_lines(spool) == later


def test_segments_are_of_a_mebibyte(spool: Spool) -> None:
    lines = [line_of(number, text="x" * 300_000) for number in range(9)]
    for line in lines:
        spool.append(line)
    assert len(spool.segments()) == 3
    assert all(os.stat(spool._segment(number)).st_size <= 1 << 20 for number in spool.segments())
    assert all_lines(spool) == [line.rstrip(b"\n") for line in lines]


def test_a_record_larger_than_a_segment_passes(spool: Spool) -> None:
    lines = [line_of(0), line_of(1, text="x" * (5 << 20)), line_of(2)]
    for line in lines:
        spool.append(line)
    assert all_lines(spool) == [line.rstrip(b"\n") for line in lines]


def test_a_number_is_never_given_twice(spool: Spool) -> None:
    numbers = []
    for number in range(3):
        written(spool, 1, start=number)
        numbers += spool.segments()
        all_lines(spool)
    assert numbers == [1, 2, 3]


def test_processes_write_at_once(tmp_path: Path) -> None:
    env = environment(tmp_path, URL)
    names = [f"writer-{number}" for number in range(3)]
    programs = [start(WRITE, env, URL, str(tmp_path / "shared"), name, "400") for name in names]
    for program in programs:
        _, errors = program.communicate(timeout=60)
        assert (program.returncode, errors) == (0, b"")
    shared = Spool(URL, str(tmp_path / "shared"))
    shared.settle()
    events = [json.loads(line) for line in all_lines(shared)]
    for name in names:
        assert [event["number"] for event in events if event["sessionId"] == name] == list(range(400))


def test_another_agents_files_are_left_alone(spool: Spool) -> None:
    other = Path(spool.path("node-1-2-3.ndjson"))
    other.write_bytes(line_of(0))
    lines = written(spool, 1)
    assert all_lines(spool) == lines
    assert other.read_bytes() == line_of(0)


# ------------------------------------------------------------------------- damage


def test_a_torn_last_line_is_a_line_of_its_own(spool: Spool) -> None:
    before = written(spool, 1)
    with first_segment(spool).open("ab") as segment:
        segment.write(b'{"sessionId":"test","even')
    after = written(spool, 1, start=1)
    assert all_lines(spool) == [*before, b'{"sessionId":"test","even', *after]


def test_a_torn_line_at_the_end_is_read(spool: Spool) -> None:
    first_segment_path = Path(spool._segment(1))
    first_segment_path.write_bytes(b'{"sessionId":"te')
    assert all_lines(spool) == [b'{"sessionId":"te']
    assert spool.segments() == []


PLACES = ("1", '"5"', "null", "1e99", "-3", "3", "999999999", "true", "[5]")


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b'{"segment":99,"offset":5}', b"[1]", b'{"segment":1}', b"\xff\xfe"),
        *(f'{{"segment":1,"offset":{offset}}}'.encode() for offset in PLACES),
    ],
)
def test_a_position_that_is_lost_costs_a_second_delivery_only(spool: Spool, content: bytes) -> None:
    lines = written(spool, 700)
    batch = spool.read()
    assert batch is not None
    spool.done(batch)
    Path(spool.path("position.json")).write_bytes(content)
    assert all_lines(again(spool)) == lines


def test_a_segment_that_a_crash_has_cut_is_read_from_its_beginning(spool: Spool) -> None:
    """Its last lines were not on the disk yet, and what was known of them was; what came then stands in their place."""
    written(spool, 700)
    batch = spool.read()
    assert batch is not None
    spool.done(batch)
    os.truncate(spool._segment(1), 100)
    after = written(again(spool), 700, start=700)
    assert all_lines(again(spool))[1:] == after


@pytest.mark.parametrize("noted", [*DAMAGED, {"sessions": 5}, {"id": "a", "sessions": {"a": {"count": "1"}}}])
def test_what_is_noted_in_another_form_is_not_known(spool: Spool, noted: object) -> None:
    """Be it of a version to come, or nobody's: a bound, a report and a program must not fail by it, now or ever."""
    for name in ("dropped.json", "reporting.json", "told.json", "transcripts.json"):
        Path(spool.path(name)).write_text(json.dumps(noted))
    tally = hook_agent._tally([line_of(1)])
    spool.note_dropped(tally)
    assert spool.dropped_so_far() == tally
    assert spool.dropped() == {"sessions": {}}
    spool.told_dropped()
    assert spool.dropped()["sessions"] == tally
    written(spool, 1)
    batch = spool.read()
    assert batch is not None and spool.told_before(batch) == {}
    assert hook_agent._tell_status(spool) == 1


def test_a_segment_that_only_another_user_can_read_holds_nobody_up(tmp_path: Path) -> None:
    """As root leaves it, who looks into a container: the others go around it, and it stays where it is."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root that may read everything needs setpriv to be like others")
    env = environment(tmp_path, URL)
    spool = Spool(URL, env["SESSION_SPOOL_DIR"])
    theirs = written(spool, 1)
    segment = Path(spool._segment(1))
    segment.chmod(0)
    code = "import hook_agent; spool = hook_agent._own_spool(); spool.append(b'ours\\n'); print(spool.read().lines)"
    rights = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    ran = subprocess.run([*rights, sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout == "[b'ours']\n"
    segment.chmod(0o600)
    assert all_lines(spool) == [*theirs, b"ours"]


def test_a_folder_that_is_removed_is_made_again(spool: Spool) -> None:
    written(spool, 1)
    shutil.rmtree(spool.folder)
    lines = written(spool, 1, start=1)
    assert all_lines(spool) == lines


def test_an_empty_segment_of_a_killed_writer_is_passed_over(spool: Spool) -> None:
    Path(spool._segment(1)).touch()
    assert spool.read() is None
    assert all_lines(spool) == []
    assert written(spool, 1) == all_lines(spool)


def test_a_full_disk_leaves_what_is_there_as_it_is(tmp_path: Path) -> None:
    limited = """
import resource, sys, hook_agent
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
spool = hook_agent.Spool(*sys.argv[1:3])
number = 0
try:
    while True:
        spool.append(b'{"number":%d}\\n' % number)
        number += 1
except OSError as error:
    print(number, type(error).__name__)
"""
    env = environment(tmp_path, URL)
    number, error = run(limited, env, URL, str(tmp_path / "full")).split()
    spool = Spool(URL, str(tmp_path / "full"))
    spool.settle()
    assert error == "OSError"
    assert int(number) > 50
    assert [json.loads(line)["number"] for line in all_lines(spool)] == list(range(int(number)))


def test_on_a_full_disk_delivery_goes_on(tmp_path: Path) -> None:
    """Else nothing would ever be freed: what cannot be noted in the folder is known to the sender itself."""
    limited = """
import resource, sys, hook_agent
spool = hook_agent.Spool(*sys.argv[1:3])
for number in range(1100):
    spool.append(b'{"number":%d}\\n' % number)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
while batch := spool.read():
    print(len(batch.lines))
    spool.done(batch)
print(spool.segments())
"""
    output = run(limited, environment(tmp_path, URL), URL, str(tmp_path / "full"))
    assert output.split() == ["500", "500", "100", "[]"]


def test_a_writer_that_was_stopped_in_the_lock_holds_nobody_up(spool: Spool) -> None:
    before = written(spool, 1)
    command = [sys.executable, "-c", HOLD, spool.path("lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        during = written(spool, 1, start=1)
        with pytest.raises(BlockingIOError):
            spool.read()
    assert all_lines(spool) == before + during


# ---------------------------------------------------------------------- the bound


def small(tmp_path: Path, limit: int = 8000) -> Spool:
    spool = Spool(URL, str(tmp_path / "small"), limit)
    spool.settle()
    return spool


def bytes_in(spool: Spool) -> int:
    return sum(os.stat(spool._segment(number)).st_size for number in spool.segments())


def test_at_the_bound_the_oldest_go_and_are_counted(tmp_path: Path) -> None:
    spool = small(tmp_path)
    lines = []
    for number in range(500):
        lines += written(spool, 1, f"session-{number % 3}", start=number)
        assert bytes_in(spool) <= spool.limit
    noted = spool.dropped()["sessions"]
    left = all_lines(spool)
    gone = lines[: -len(left)]
    assert lines == gone + left
    assert {name: known["count"] for name, known in noted.items()} == {
        name: sum(name.encode() in line for line in gone) for name in ("session-0", "session-1", "session-2")
    }
    times = [json.loads(line)["timestamp"] for line in gone if b"session-0" in line]
    assert (noted["session-0"]["from"], noted["session-0"]["to"]) == (times[0], times[-1])


def test_what_was_delivered_is_not_counted_when_it_goes(tmp_path: Path) -> None:
    spool = Spool(URL, str(tmp_path / "small"), 800_000)
    spool.settle()
    written(spool, 600)
    batch = spool.read()
    assert batch is not None
    spool.done(batch)
    total = 600
    while len(spool.segments()) and spool.segments()[0] == batch.segment:
        written(spool, 1, start=total)
        total += 1
    assert spool.dropped()["sessions"]["test"]["count"] + len(batch.lines) + len(all_lines(spool)) == total


def test_what_is_delivered_while_it_goes_is_not_counted(tmp_path: Path) -> None:
    spool = small(tmp_path)
    written(spool, 5)
    batch = spool.read()
    assert batch is not None
    total = 5
    while spool.segments()[0] == batch.segment:
        written(spool, 1, start=total)
        total += 1
    spool.done(batch)
    noted = spool.dropped()["sessions"]["test"]["count"]
    assert noted + len(batch.lines) + len(all_lines(spool)) == total


def test_what_was_noted_stays_the_same_until_it_is_told(tmp_path: Path) -> None:
    spool = small(tmp_path)
    written(spool, 200)
    first = spool.dropped()
    written(spool, 200)
    assert spool.dropped() == first
    spool.told_dropped()
    assert spool.dropped()["id"] != first["id"]


@pytest.mark.parametrize(
    ("line", "session"),
    [
        (line_of(1, "named"), "named"),
        (b'{"sessionId":null,"eventId":"e","timestamp":"t","hook":{"session_id":"claude"}}', "claude"),
        (b'{"sessionId":null,"eventId":"e","timestamp":"t","hook":{"session_id": "claude"}}', "claude"),
        (b'{"sessionId":"own","eventId":"e","timestamp":"t","hook":{"session_id":"claude"}}', "own"),
    ],
)
def test_a_line_says_whose_it_is_without_being_decoded(line: bytes, session: str) -> None:
    assert list(hook_agent._tally([line])) == [session]


# ------------------------------------------------------------------- where it is


def test_nobody_else_can_read_it(spool: Spool) -> None:
    written(spool, 1)
    spool.bury(b"{}", 422, "reason")
    assert stat.S_IMODE(os.stat(spool.folder).st_mode) == 0o700
    files = [path for path in Path(spool.folder).rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert len(files) == 3


def test_each_store_has_a_spool_of_its_own(tmp_path: Path) -> None:
    folders = set()
    for url in ("http://a:9000", "http://a:9001", "http://b:9000", "http://a:9000/"):
        spool = Spool(url, str(tmp_path))
        spool.settle()
        folders.add(spool.folder)
    assert len(folders) == 3


def test_the_folder_is_chosen_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("SESSION_SPOOL_DIR", raising=False)
    assert hook_agent._default_folder() == str(tmp_path / "home/.local/state/session-store/spool")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert hook_agent._default_folder() == str(tmp_path / "state/session-store/spool")
    monkeypatch.setenv("SESSION_SPOOL_DIR", str(tmp_path / "chosen"))
    assert hook_agent._default_folder() == str(tmp_path / "chosen")


def test_where_the_folder_cannot_be_made_a_temporary_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    spool = Spool(URL, str(tmp_path / "file"))
    assert written(spool, 1) == all_lines(spool)
    assert spool.folder.startswith(str(tmp_path / f"session-store-{os.getuid()}/spool/"))


@pytest.mark.parametrize("trap", ["symlink", "open to others", "file"])
def test_a_temporary_folder_that_is_not_ours_alone_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    ours = tmp_path / f"session-store-{os.getuid()}"
    if trap == "symlink":
        ours.symlink_to(tmp_path / "elsewhere")
    elif trap == "file":
        ours.touch()
    else:
        ours.mkdir()
        ours.chmod(0o777)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(SpoolUnusable):
        Spool(URL, str(tmp_path / "file")).append(line_of(0))
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_is_no_file_in_place_of_a_segment_is_neither_followed_nor_read(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(line_of(9))
    spool.settle()
    Path(spool._segment(1)).symlink_to(tmp_path / "target")
    os.mkfifo(spool._segment(2))  # whoever reads it waits for a writer, with the lock
    Path(spool._segment(3)).mkdir()
    Path(spool.path("4.ndjson")).touch()  # nobody's: ours have eight digits
    for _ in range(3):
        with pytest.raises(FileExistsError):  # the hook that finds it sends from memory
            spool.append(line_of(0))
    theirs = written(spool, 1)
    assert all_lines(spool) == theirs
    assert (tmp_path / "target").read_bytes() == line_of(9)


def test_dead_letters_are_bounded(spool: Spool) -> None:
    for number in range(30):
        spool.bury(line_of(number, text="x" * 500_000), 422, "too much")
    files = list(Path(spool.path("dead")).iterdir())
    assert sum(path.stat().st_size for path in files) <= 8 << 20
    newest = Path(spool.path("dead/letters.ndjson")).read_text().splitlines()[-1]
    assert json.loads(json.loads(newest)["record"])["data"]["number"] == 29


# ------------------------------------------------------------- in any order at all


class Delivery(RuleBasedStateMachine):
    """Writers, a sender that is killed at any time, and a store: nothing is lost, nothing is out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="spool-"))
        self.spool = self.opened()
        self.produced: list[bytes] = []
        self.stored: list[bytes] = []

    def opened(self) -> Spool:
        spool = Spool(URL, str(self.folder), 4000)
        spool.settle()
        return spool

    @rule(count=st.integers(1, 8), size=st.sampled_from([1, 1, 50, 700]))
    def append(self, count: int, size: int) -> None:
        for _ in range(count):
            line = line_of(len(self.produced), text="x" * size)
            self.spool.append(line)
            self.produced.append(line.rstrip(b"\n"))

    @rule()
    def deliver(self) -> None:
        if batch := self.spool.read():
            self.store(batch.lines)
            self.spool.done(batch)

    @rule()
    def lose_the_reply(self) -> None:
        """Or kill the sender between the commit and its note of it: the next one knows nothing of either."""
        if batch := self.spool.read():
            self.store(batch.lines)
        self.spool = self.opened()

    @rule(count=st.integers(1, 30))
    def deliver_while_others_append(self, count: int) -> None:
        if batch := self.spool.read():
            self.store(batch.lines)
            self.append(count, 50)
            self.spool.done(batch)

    @rule()
    def lose_the_position(self) -> None:
        Path(self.spool.path("position.json")).unlink(missing_ok=True)

    @rule()
    def tear_the_last_line(self) -> None:
        if numbers := self.spool.segments():
            with open(self.spool._segment(numbers[-1]), "ab") as segment:
                segment.write(b'{"torn')

    def store(self, lines: list[bytes]) -> None:
        known = set(self.stored)
        self.stored += [line for line in lines if line not in known and not line.startswith(b'{"torn')]

    @invariant()
    def nothing_is_out_of_order(self) -> None:
        assert self.stored == [line for line in self.produced if line in set(self.stored)]

    @invariant()
    def the_bound_holds(self) -> None:
        assert bytes_in(self.spool) <= 4000 + len(b'{"torn') * 1000

    def teardown(self) -> None:
        while batch := self.spool.read():
            self.store(batch.lines)
            self.spool.done(batch)
        noted = self.spool._read_json("dropped.json").get("sessions", {}).get("test", {"count": 0})
        missing = len(self.produced) - len(self.stored)
        # What a lost reply had brought to the store already may be counted once more, but nothing goes uncounted.
        assert missing <= noted["count"] <= len(self.produced)
        shutil.rmtree(self.folder)


TestDelivery = Delivery.TestCase
TestDelivery.settings = hypothesis.settings(max_examples=examples(40), stateful_step_count=30, deadline=None)
