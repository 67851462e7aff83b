"""Changes: what came of a session, as its calls of tools tell it: files with their net diffs, the last run of tests,
commits, pull requests.

What a file was before is known where a result says so: then its diff is the net one, from there to what it has come to
be. Where that is not known the diffs of its edits stand one after the other; an edit of which too little is known is
counted as unknown.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from difflib import Match, SequenceMatcher
from functools import cache
from itertools import groupby, starmap
from typing import Any

import msgspec

from sessionstore.model.folds import Document, decode
from sessionstore.model.problems import no_session
from sessionstore.store.reader import Reader

LOOKED_AT = 20_000
"""Of the newest actions."""
MOST_BYTES = 32 << 20
"""Of edits and their results: what is older is counted, and not read."""
MOST_SHELL_BYTES = 8 << 20
"""Of the newest commands, and of what they print."""
MOST_LINES = 20_000
"""Lines of diffs that are given, of all files together."""
MOST_PAIRS = 500_000
"""Pairs of equal lines that are looked at, of all files together: beyond them all of a file is out, and all is in."""
MOST_LOOKS = 5_000_000
"""Lines and pairs of them that comparing goes through, again for each that is found: beyond them all is other."""
MOST_TEXT, MOST_REPLACED = 4 << 20, 64 << 20
"""Characters of what a file has come to be, and of all that edits are applied to: beyond them that is not known."""

CALL = """c.cursor AS cursor, c.data ->> '$.toolUseId' AS use, c.data ->> '$.runId' AS run,
  c.data ->> '$.hook_event_name' IS NOT NULL AS is_hooked, r.cursor AS result,
  CASE WHEN r.cursor IS NULL THEN NULL WHEN v.is_rejected THEN 'rejected' WHEN v.is_failed THEN 'failed' ELSE 'ok' END
  AS state"""
CALLS = f"""
FROM events c LEFT JOIN events r
  ON r.session_id = c.session_id AND r.kind IN ('tool_call', 'tool_result', 'tool_error') AND r.kind <> 'tool_call'
 AND r.data ->> '$.toolUseId' = c.data ->> '$.toolUseId' AND r.data ->> '$.runId' IS c.data ->> '$.runId'
LEFT JOIN verdicts v ON v.cursor = r.cursor
WHERE c.session_id = :id AND c.type = 'action'
  AND c.cursor > (SELECT created_cursor FROM sessions WHERE session_id = :id)
  AND c.seq > (SELECT actions FROM sessions WHERE session_id = :id) - {LOOKED_AT}"""
EDITS = f"""
SELECT cursor, use, run, is_hooked, result, state, path, tool,
       iif(size <= {MOST_BYTES}, (SELECT e.data -> '$.input' FROM events e WHERE e.cursor = edits.cursor), NULL),
       iif(size <= {MOST_BYTES}, (SELECT e.data -> '$.output' FROM events e WHERE e.cursor = edits.result), NULL)
FROM (SELECT *, sum(own) OVER (ORDER BY cursor DESC, result) AS size
      FROM (SELECT {CALL}, coalesce(c.data ->> '$.input.file_path', c.data ->> '$.input.notebook_path',
                                    c.data ->> '$.path', c.data ->> '$.file_path') AS path,
                   c.data ->> '$.tool' AS tool, length(c.data) + coalesce(length(r.data), 0) AS own {CALLS}
              AND (c.kind IN ('file_write', 'file_edit') OR c.kind = 'tool_call'
                   AND c.data ->> '$.tool' IN ('Write', 'Edit', 'MultiEdit', 'NotebookEdit')))) edits
WHERE typeof(path) = 'text' ORDER BY cursor, result"""
OUTPUT = "coalesce(r.data ->> '$.output.stdout', r.data ->> '$.output', '')"
COMMANDS = f"""
SELECT one.cursor, use, run, is_hooked, result, state, at, took,
       substr(coalesce(c.data ->> '$.input.command', c.data ->> '$.command', ''), 1, 2000), substr({OUTPUT}, 1, 4000),
       substr({OUTPUT}, -4000), substr(coalesce(r.data ->> '$.error', ''), -4000)
FROM (SELECT *, sum(own) OVER (ORDER BY cursor DESC, result) AS size
      FROM (SELECT {CALL}, c.timestamp AS at, coalesce(r.data ->> '$.durationMs',
                     CAST(round((julianday(r.timestamp) - julianday(c.timestamp)) * 86400000) AS INTEGER)) AS took,
                   min(length(c.data), 2000) + min(coalesce(length(r.data), 0), 12000) AS own {CALLS}
              AND (c.kind = 'bash_exec' OR c.kind = 'tool_call' AND c.data ->> '$.tool' = 'Bash'))) one
JOIN events c ON c.cursor = one.cursor LEFT JOIN events r ON r.cursor = one.result
WHERE size <= {MOST_SHELL_BYTES} ORDER BY one.cursor, result"""

TESTS = re.compile(
    r"(?:^|[\s;&|/])(?:pytest|tox|nox|jest|vitest|mocha|rspec|phpunit|ctest|(?:cargo|go|npm|pnpm|yarn|bun|deno|mix|dotnet"
    r"|gradle|\./gradlew|mvn|make|just|swift|node) (?:run )?(?:--)?(?:test|check)[\w:-]*)(?=[\s;&|]|$)"
)
VERDICT = re.compile(
    r"\d+ (?:passed|failed|tests?|passing|failing|errors?)\b|^(?:ok|fail)\b|test result", re.IGNORECASE
)
FOUND = {
    "commits": (
        re.compile(r"\A(?>.*?\bgit\b).*\bcommit\b", re.DOTALL),
        re.compile(r"^\[[^\]\n]{1,200} ([0-9a-f]{7,40})\] (.{0,200})", re.MULTILINE),
    ),
    "pullRequests": (
        re.compile(r"\b(?:gh|glab|git)\b"),
        re.compile(r"(https://\S{1,200}/(?:pull|merge_requests)/\d+)"),
    ),
}
"""Of each: which commands make them, and how their output names one."""

AROUND = 3
"""Lines about a change that have not changed."""
Hunk = dict[str, Any]
"""As Claude Code's structuredPatch has it: oldStart, oldLines, newStart, newLines, and lines that begin with a sign."""


async def changes_of(reader: Reader, session_id: str) -> bytes:
    """The answer of GET /api/sessions/ID/changes. Raises Problem 404."""
    about: dict[str, object] = {"id": session_id}
    async with reader.comparing.of():
        async with reader.snapshot() as connection:
            if not await connection.rows("SELECT 1 FROM sessions WHERE session_id = ?", (session_id,)):
                raise no_session(session_id)
            edits, commands = await connection.rows(EDITS, about), await connection.rows(COMMANDS, about)
        return await asyncio.get_running_loop().run_in_executor(worker(), told, edits, commands)


@cache
def worker() -> ThreadPoolExecutor:
    """One thread compares for all: what is long takes nobody's turn."""
    return ThreadPoolExecutor(1, "changes")


def told(edits: list[Any], commands: list[Any]) -> bytes:
    files: dict[str, EditedFile] = {}
    left = Left()
    for edit in starmap(Edit, one_by_one(edits)):
        files.setdefault(edit.path, EditedFile(edit.path, left)).take(edit)
    shell = [*starmap(ShellCall, one_by_one(commands))]
    shown = [file.document() for _, file in sorted(files.items()) if file.edits or file.failed]
    return msgspec.json.encode(
        {"files": shown, "tests": last_tests(shell), **{name: found(shell, name) for name in FOUND}}
    )


def one_by_one(rows: list[Any]) -> Iterator[Any]:
    """Each call that has ended, with its result, and those that cannot have one. Ids may restart: a result is of one
    call only; a call that is told again before its result is the same one."""
    ends: dict[Any, int] = {}
    used: set[int] = set()
    for cursor, same in groupby(rows, key=lambda row: row[0]):
        calls = [row for row in same if row[4] not in used]
        chosen = next((row for row in calls if row[4] is not None and row[4] > cursor), calls[0] if calls else None)
        if chosen is None or (chosen[1] and chosen[4] is None):
            continue
        name = chosen[1:3]
        if chosen[1] and (chosen[3] or ends.get(name, 0) > cursor) and name in ends:
            continue
        if chosen[4] is not None:
            ends[name] = chosen[4]
            used.add(chosen[4])
        yield chosen


# ---------------------------------------------------------------------------- files


class CallOfTool(msgspec.Struct):
    cursor: int
    use: str | None
    run: str | None
    is_hooked: int
    result: int | None
    state: str | None


class Edit(CallOfTool):
    path: str
    tool: str | None
    given: str | None
    output: str | None


class EditedFile:
    """What came of a file: `before` and `now` are None where they are not known."""

    def __init__(self, path: str, left: Left) -> None:
        self.path = path
        self.left = left
        self.before: str | None = None
        self.now: str | None = None
        self.edits = self.failed = self.unknown = 0
        self.is_new = False
        self.parts: list[tuple[str, str] | list[Hunk]] = []

    def take(self, edit: Edit) -> None:
        if edit.state in ("failed", "rejected"):
            self.failed += edit.state == "failed"
            return
        self.edits += 1
        if edit.given is None:
            self.unknown, self.now = self.unknown + 1, None
            return
        given, output = (decode(text) if text else {} for text in (edit.given, edit.output))
        given, output = (each if isinstance(each, dict) else {} for each in (given, output))
        is_new = output.get("type") == "create"
        was = output["originalFile"] if isinstance(output.get("originalFile"), str) else "" if is_new else self.now
        self.is_new = self.is_new or is_new
        if self.edits == 1:
            self.before = was
        self.change(edit.tool, given, was)
        self.parts += [patch] if (patch := patch_of(output)) else self.told_of(edit.tool, given, was)

    def change(self, tool: str | None, given: Document, was: str | None) -> None:
        if tool == "Write":
            self.now = text_of(given.get("content"))
            return
        self.now = was
        for old, new, is_all in replacements(given):
            self.now = None if self.now is None or new is None else self.left.replaced(self.now, old, new, is_all)
            if self.now is None:
                return

    def told_of(self, tool: str | None, given: Document, was: str | None) -> list[tuple[str, str] | list[Hunk]]:
        """The diffs of an edit, as far as it says itself what it changed."""
        if tool == "Write":
            return [(was or "", text_of(given.get("content")))]
        told = [(old, new) for old, new, _ in replacements(given)]
        self.unknown += any(new is None for _, new in told)
        return [(old, new) for old, new in told if new is not None]

    def document(self) -> Document:
        left = self.left
        is_net = not self.unknown and self.before is not None and self.now is not None
        parts = [(self.before or "", self.now or "")] if is_net else self.parts
        hunks = [hunk for part in parts for hunk in (part if isinstance(part, list) else hunks_of(*part, left))]
        signs = Counter(line[:1] for hunk in hunks for line in hunk["lines"])
        shown = [hunk for hunk in hunks if left.takes(hunk)]
        counts = {"edits": self.edits, "failed": self.failed, "unknown": self.unknown}
        known = {"isNew": self.is_new, "isNet": is_net, "added": signs["+"], "removed": signs["-"]}
        return {"path": self.path, **counts, **known, "hunks": shown, "leftOut": len(hunks) - len(shown)}


def text_of(value: object) -> str:
    return value if isinstance(value, str) else ""


def replacements(given: Document) -> Iterator[tuple[str, str | None, bool]]:
    """What an edit puts in the place of what; None where it does not say."""
    listed = given.get("edits")
    for each in listed if isinstance(listed, list) else [given]:
        one = each if isinstance(each, dict) else {}
        new = one.get("new_string")
        yield text_of(one.get("old_string")), new if isinstance(new, str) else None, one.get("replace_all") is True


class PatchHunk(msgspec.Struct, rename="camel"):
    old_start: int
    old_lines: int
    new_start: int
    new_lines: int
    lines: list[str]


def patch_of(output: Document) -> list[Hunk]:
    """The hunks of a result that tells them; none where it does not, or they are none."""
    try:
        hunks = msgspec.convert(output.get("structuredPatch"), list[PatchHunk])
    except msgspec.ValidationError:
        return []
    return [msgspec.to_builtins(hunk) for hunk in hunks]


# ---------------------------------------------------------------------------- diffs


class Left:
    """What may still be compared and given in this answer."""

    def __init__(self) -> None:
        self.lines, self.pairs = MOST_LINES, MOST_PAIRS
        self.looks, self.characters = MOST_LOOKS, MOST_REPLACED

    def takes(self, hunk: Hunk) -> bool:
        self.lines -= len(hunk["lines"])
        return self.lines >= 0

    def compares(self, before: list[str], after: list[str]) -> bool:
        """Whether two texts are compared line by line, which takes as long as there are pairs of equal lines."""
        others = Counter(after)
        pairs = sum(others[line] for line in before if not is_blank(line))
        is_near = pairs <= self.pairs
        self.pairs -= pairs if is_near else 0
        return is_near

    def replaced(self, text: str, old: str, new: str, is_all: bool) -> str | None:
        """None where it is not there, or what comes of it would be too much."""
        self.characters -= len(text)
        times = text.count(old) if old and self.characters > 0 else 0
        size = len(text) + (times if is_all else 1) * (len(new) - len(old))
        self.characters -= size
        if not times or size > MOST_TEXT or self.characters < 0:
            return None
        return text.replace(old, new, -1 if is_all else 1)


class LineComparison(SequenceMatcher[str]):
    """One that ends: where no line is found next to an equal one, each that is found is looked for in all others."""

    def __init__(self, before: list[str], after: list[str], left: Left) -> None:
        self.left, self.before = left, before
        self.times = Counter(line for line in after if not is_blank(line))
        super().__init__(is_blank, before, after, autojunk=False)

    def find_longest_match(self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None) -> Match:
        lines = self.before[alo:ahi]
        self.left.looks -= len(lines) + sum(self.times[line] for line in lines)
        if self.left.looks < 0:
            return Match(alo, blo, 0)
        return super().find_longest_match(alo, ahi, blo, bhi)


def is_blank(line: str) -> bool:
    return not line.strip()


def hunks_of(old: str, new: str, left: Left) -> Iterator[Hunk]:
    """What is other in one text than in another, with a few lines around it."""
    before, after = (text.removesuffix("\n").split("\n") if text else [] for text in (old, new))
    pairs = min(len(before), len(after))
    head = next((at for at in range(pairs) if before[at] != after[at]), pairs)
    tail = next((at for at in range(pairs - head) if before[-1 - at] != after[-1 - at]), pairs - head)
    start, end = max(0, head - AROUND), max(0, tail - AROUND)
    before, after = before[start : len(before) - end], after[start : len(after) - end]
    if left.compares(before, after):
        groups = LineComparison(before, after, left).get_grouped_opcodes(AROUND)
        yield from (hunk_of(before, after, group, start) for group in groups)
    else:
        yield hunk_of(before, after, [("replace", 0, len(before), 0, len(after))], start)


def hunk_of(before: list[str], after: list[str], group: list[tuple[str, int, int, int, int]], start: int) -> Hunk:
    lines: list[str] = []
    for tag, old, old_end, new, new_end in group:
        if tag == "equal":
            lines += [f" {line}" for line in before[old:old_end]]
        else:
            lines += [f"-{line}" for line in before[old:old_end]] + [f"+{line}" for line in after[new:new_end]]
    old, new = group[0][1], group[0][3]
    lengths = {"oldLines": group[-1][2] - old, "newLines": group[-1][4] - new}
    return {"oldStart": start + old + 1, "newStart": start + new + 1, **lengths, "lines": lines}


# ------------------------------------------------------------------------- commands


class ShellCall(CallOfTool):
    at: str
    took: int | None
    command: str
    begin: str
    end: str
    error: str


VERDICTS = {"ok": "passed", "failed": "failed"}


def last_tests(shell: list[ShellCall]) -> Document | None:
    """The last run of tests, how it went, and the line in which it says so."""
    run = next((each for each in reversed(shell) if TESTS.search(each.command)), None)
    if run is None:
        return None
    said = (line.strip("= ") for line in reversed(f"{run.end}\n{run.error}".splitlines()) if VERDICT.search(line))
    known = {"cursor": run.cursor, "command": run.command, "timestamp": run.at, "durationMs": run.took}
    return known | {"status": VERDICTS.get(run.state or "", "unknown"), "verdict": next(said, "")[:500]}


def found(shell: list[ShellCall], name: str) -> list[Document]:
    """Commits or pull requests that commands which went well have told of."""
    is_one, pattern = FOUND[name]
    ran = [each for each in shell if each.state == "ok" and is_one.search(each.command)]
    told = ((each.cursor, " ".join(match.groups())) for each in ran for match in pattern.finditer(each.begin))
    return [{"cursor": cursor, "text": text} for cursor, text in told]
