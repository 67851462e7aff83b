"""`python -m tests.bench.million FOLDER`: a database like that of a year of agents, always the same to the byte.

A thousand sessions of a thousand events each, of which two dozen go on at any time: prompts and answers, tool calls of
which the outputs have 200 bytes to 20 kB, many small actions of about 120 bytes, now and then a goal, a sub-agent or a
state. The words are those of code, of logs and of people in several languages, few of them frequent and most rare.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import accumulate, count, islice
from pathlib import Path
from random import Random
from string import ascii_letters, digits

from sessionstore.model.events import Draft, Event, text_of_time
from sessionstore.model.folds import Document
from sessionstore.store.appender import Appender
from sessionstore.store.maintenance import index_search
from sessionstore.store.schema import open_writer
from sessionstore.store.write_ahead_log import checkpoint

EVENTS = 1_000_000
EVENTS_PER_SESSION = 1000
SESSIONS_AT_ONCE = 24
USERS = 40
SECONDS_PER_EVENT = 30.0
BEGIN = 1_767_225_600.0  # 2026-01-01T00:00:00Z
EVENTS_PER_COMMIT = 2000
INDEXED_PER_CALL = 5000
POOL_WORDS = 600_000

COMMON = (
    "the to of and in is that for it file error test return import function value not with from this on be as at class "
    "self data server session request response true false null none line path name type string list if else const let "
    "export async await new user id time run build failed passed warning debug info config module index node python "
    "src tests docs git commit branch merge diff update create delete read write open close start stop wait token key"
)
PARTS = (
    "get set load save user order item cache query index parse build render token state event agent batch queue retry "
    "session config route model view worker stream buffer cursor schema record handler policy client payload metric"
)
SYLLABLES = "ka lo mi ran tes vor del sen pra qui zu fen hal ort bre nid sol tam wex yar gul pho cre"
OTHER_LANGUAGES = (
    "Größe Straße ÖBB Fahrplan Verspätung Österreich prüfen größer müssen español configuración número año naïve "
    "déjà façade привет ошибка сервер данные файл 東京 設定 エラー 日本語 中文 错误 服务器 数据 한국어 오류"
)
TOOLS = ("Bash", "Read", "Edit", "Write", "Grep", "Glob", "WebFetch", "mcp__github__search_code")
FOLDERS = ("src", "tests", "lib", "app", "docs", "packages/core", "services/api", "internal/store")
BASE_62 = ascii_letters + digits
SUFFIXES = (".py", ".ts", ".js", ".go", ".rs", ".md", ".json", ".sql")

Happening = tuple[str, Document, str | None]
"""The type of an event, its data, and the agent that it happened inside of."""


class Author:
    """Makes up what is said, from a seed."""

    def __init__(self, seed: int = 1) -> None:
        self.random = Random(seed)
        words = self.vocabulary()
        weights = list(accumulate(1 / rank for rank in range(1, len(words) + 1)))
        self.pool = " ".join(self.random.choices(words, cum_weights=weights, k=POOL_WORDS))
        self.paths = [self.path() for _ in range(3000)]

    def vocabulary(self) -> list[str]:
        """The most frequent first."""
        identifiers = [self.identifier() for _ in range(4000)]
        coined = ["".join(self.random.choices(SYLLABLES.split(), k=self.random.randint(2, 4))) for _ in range(25_000)]
        rare = [*OTHER_LANGUAGES.split(), *identifiers, *coined]
        self.random.shuffle(rare)
        return list(dict.fromkeys([*COMMON.split(), *rare]))

    def identifier(self) -> str:
        first, *others = self.random.choices(PARTS.split(), k=self.random.randint(2, 4))
        if self.random.random() < 0.5:
            return "_".join([first, *others])
        return first + "".join(map(str.capitalize, others))

    def path(self) -> str:
        folder, suffix = self.random.choice(FOLDERS), self.random.choice(SUFFIXES)
        return f"{folder}/{self.random.choice(PARTS.split())}/{self.identifier()}{suffix}"

    def text(self, length: int) -> str:
        start = self.pool.index(" ", self.random.randrange(len(self.pool) - length - 100)) + 1
        return self.pool[start : start + length]

    def output(self) -> str:
        """200 B to 20 kB, most of them short, with a name in it that nothing else has."""
        length = int(200 * 100 ** (self.random.random() ** 2))
        return f"commit {self.random.getrandbits(40):010x}\n{self.text(length)}"

    def event_id(self, moment: float) -> str:
        """As clients make them: the time, and chance."""
        return f"{int(moment * 1000):012x}{self.random.getrandbits(80):020x}"

    # ---- what happens

    def sessions(self) -> Iterator[tuple[int, str, Document, str | None]]:
        """What happens in all sessions: the number of the session before each."""
        coming = ((number, self.session()) for number in count())
        going_on = list(islice(coming, SESSIONS_AT_ONCE))
        while True:
            at = self.random.randrange(SESSIONS_AT_ONCE)
            number, happenings = going_on[at]
            if happening := next(happenings, None):
                yield number, *happening
            else:
                going_on[at] = next(coming)

    def session(self) -> Iterator[Happening]:
        length = self.random.randint(1, 2 * EVENTS_PER_SESSION)
        yield from islice(self.work(), length)
        yield "session_finalized", {"outcome": self.text(100)}, None

    def work(self) -> Iterator[Happening]:
        prompt = self.text(300)
        yield "session_created", {"initial": {"input": prompt, "config": {"model": "large-4"}}, "tags": ["bench"]}, None
        yield "action", {"type": "prompt", "prompt": prompt}, None
        for goal in range(1, 4):
            yield "goal_added", {"id": f"goal-{goal}", "description": self.text(60)}, None
        while True:
            yield from self.turn()

    def turn(self) -> Iterator[Happening]:
        """A prompt, some dozens of tool calls and small actions, an answer."""
        random = self.random
        yield "action", {"type": "prompt", "prompt": self.text(random.randint(40, 800))}, None
        agent = f"agent-{random.getrandbits(32):08x}" if random.random() < 0.3 else None
        if agent:
            yield "agent_spawned", {"agentId": agent, "type": "explorer", "task": self.text(120)}, None
        for _ in range(random.randint(10, 50)):
            if random.random() < 0.3:
                yield from self.tool_call(agent)
            else:
                yield "action", self.small_action(), agent
        if agent:
            yield "agent_completed", {"agentId": agent, "result": self.text(300)}, None
        yield "state_updated", {"phase": "implementation", "currentStep": self.text(50)}, None
        if random.random() < 0.1:
            yield "goal_updated", {"goalId": f"goal-{random.randint(1, 3)}", "status": "completed"}, None
        yield "response", {"type": "assistant_message", "message": self.text(random.randint(100, 2000))}, None

    def tool_call(self, agent: str | None) -> Iterator[Happening]:
        random = self.random
        tool, call = random.choice(TOOLS), f"toolu_01{''.join(random.choices(BASE_62, k=22))}"
        given = {"file_path": random.choice(self.paths), "command": self.text(random.randint(20, 600))}
        yield "action", {"type": "tool_call", "toolUseId": call, "tool": tool, "input": given}, agent
        took = random.randint(5, 30_000)
        if random.random() < 0.05:
            error = f"Exit code 1\n{self.text(200)}"
            yield "response", {"type": "tool_error", "toolUseId": call, "tool": tool, "error": error}, agent
        else:
            result = {"type": "tool_result", "toolUseId": call, "tool": tool, "output": self.output()}
            yield "response", {**result, "durationMs": took}, agent

    def small_action(self) -> Document:
        random = self.random
        path, lines = random.choice(self.paths), random.randint(1, 2000)
        kind = random.choice(("file_write", "file_edit", "file_read", "bash_exec"))
        return {"type": kind, "path": path, "lines": lines, "text": self.text(24)}


def drafts(events: int = EVENTS) -> Iterator[Draft]:
    """So many, in the order in which they come in."""
    author = Author()
    sessions = author.sessions()
    for number, (session, event_type, data, agent) in enumerate(islice(sessions, events)):
        moment = BEGIN + number * SECONDS_PER_EVENT
        yield Draft(
            type=event_type,
            session_id=session_id(session),
            user_id=f"user-{session % USERS}",
            event_id=author.event_id(moment),
            agent_id=agent,
            timestamp=text_of_time(moment - 0.05),
            received_at=text_of_time(moment),
            data=data,
        )


def session_id(number: int) -> str:
    return f"bench-{number:05}-{number * 7919 % 65536:04x}"


def tiny_drafts(events: int) -> Iterator[Draft]:
    """Nothing but small actions, in a hundred sessions."""
    author = Author()
    for number in range(events):
        moment = BEGIN + number
        yield Draft(
            type="action",
            session_id=session_id(number % 100),
            user_id="user-1",
            event_id=author.event_id(moment),
            timestamp=text_of_time(moment - 0.05),
            received_at=text_of_time(moment),
            data=author.small_action(),
        )


def fill(path: Path, drafted: Iterable[Draft] | None = None) -> int:
    """Make the database; how many bytes of JSON went in, each event in its smallest form: its data and its eventId."""
    size = 0
    coming = iter(drafts() if drafted is None else drafted)
    with closing(open_writer(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        appender = Appender(connection, clock=lambda: text_of_time(BEGIN), ids=map(str, count(1)))
        while group := list(islice(coming, EVENTS_PER_COMMIT)):
            appender.begin()
            appender.note_event_ids(group, trusts=False)
            for draft in group:
                appender.append(draft)
            size += sum(map(json_bytes, appender.commit()))
        checkpoint(connection, "TRUNCATE")
    return size


def json_bytes(event: Event) -> int:
    return len(event.data.encode()) + len(f',"eventId":"{event.event_id}"')


def index(path: Path) -> None:
    """Bring its full-text index up to the newest event, as the server does, but without others to wait for."""
    with closing(open_writer(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        is_behind = True
        while is_behind:
            connection.execute("BEGIN IMMEDIATE")
            _, is_behind = index_search(connection, limit=INDEXED_PER_CALL)
            connection.execute("COMMIT")
        checkpoint(connection, "TRUNCATE")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.million", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to make sessions.db")
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--no-search", action="store_true", help="leave the full-text index to the server")
    options = parser.parse_args()
    path = options.folder / "sessions.db"
    if path.exists():
        parser.error(f"{path} is there already")
    options.folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    size = fill(path, drafts(options.events))
    print(f"{options.events:,} events, {size:,} bytes of JSON, in {time.monotonic() - begun:.0f} s")
    if not options.no_search:
        index(path)
    print(f"{path}: {path.stat().st_size:,} bytes, after {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
