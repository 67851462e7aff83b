"""`page`: how quick the dashboard is in a real Chromium: a long session, many sessions, and a steady stream of events;
and how large it is.

A task is what the browser calls a long task: 50 ms and more in which nobody is listened to. One that was never seen
counts as 50 ms.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
from playwright.sync_api import Browser, Page

from tests.appliance import REPOSITORY, Appliance
from tests.bench.figures import Figure, Target, Unsound
from tests.bench.load import one_by_one, open_loop, own_process
from tests.browsing import MISSING, chromium, launched
from tests.wire import http_request

ENTRIES, SESSIONS = 100_000, 1000
MESSAGES = 5000
BATCH = 1000
EVENTS_PER_SECOND, SECONDS, WARM_SECONDS = 300, 60, 15
CONNECTIONS = 8
SHORTEST_TASK_MS = 50.0
TEXT = "the quick brown fox jumps over the lazy dog " * 12
MARKDOWN = f"""## What I found

{TEXT} with `code`, **weight** and [a link](https://example.org/a).

1. first
2. second

| tool | calls |
|------|------:|
| Bash | 12 |

```python
def f(x):  # a comment
    return "text"
```"""
WATCH = """
window.tasks = [];
new PerformanceObserver((list) => window.tasks.push(...list.getEntries().map((task) => task.duration)))
  .observe({ type: "longtask", buffered: true });
"""
SHOWN = """([where, begun]) => new Promise((done) => {
  const look = () => document.querySelector(where) ? requestAnimationFrame(() => done(performance.now() - begun))
                                                   : requestAnimationFrame(look);
  look();
})"""
CURSOR = "import('/dashboard/live.js').then(({ state }) => state.cursor)"
SCROLL = """() => new Promise((done) => {
  const scroller = document.querySelector("#session .scroller");
  let left = 300;
  const step = () => { scroller.scrollTop -= 400; if (--left) requestAnimationFrame(step); else done(); };
  step();
})"""

LEAF = """() => new Promise((done) => {
  const scroller = document.querySelector(".talk");
  let left = 300;
  const step = () => {
    scroller.scrollTop = (300 - left) / 300 * scroller.scrollHeight;
    if (left--) requestAnimationFrame(step); else done();
  };
  step();
})"""


def measure(rounds: int) -> list[Figure]:
    if chromium() is None:
        raise Unsound(MISSING)
    with tempfile.TemporaryDirectory() as folder, Appliance(Path(folder)) as appliance, launched() as browser:
        with httpx.Client(base_url=appliance.url, timeout=60) as http:
            converse(http)
            fill(http, long_session())
            fill(http, many_sessions())
        with own_process() as poster:
            poster.submit(one_by_one, appliance.port, REQUESTS).result()
            read = [reading(browser, appliance) for _ in range(rounds)]
            opened = [opening(browser, appliance) for _ in range(rounds)]
            painted = [painting(browser, appliance) for _ in range(rounds)]
            streams = [
                stream(browser, appliance, poster, *of) for of in (("", SPREAD), ("session/live-0/log", REQUESTS))
            ]
    return [*figures(opened, painted, streams), *figures_of_reading(read), figure_of_bytes()]


def figures(
    opened: list[tuple[float, float]], painted: list[float], streams: list[tuple[float, float]]
) -> list[Figure]:
    open_ms, scroll_ms = zip(*opened, strict=True)
    rate = f"{EVENTS_PER_SECOND} events a second for {SECONDS} s"
    home, session = streams
    return [
        Figure("page", f"opening a session of {ENTRIES:,} entries", "ms", open_ms, Target(1000, at_most=True)),
        Figure("page", "longest task while scrolling back through it", "ms", scroll_ms, Target(100, at_most=True)),
        Figure(
            "page", f"home with {SESSIONS:,} live sessions, until painted", "ms", painted, Target(500, at_most=True)
        ),
        Figure("page", f"longest task at home, {rate}", "ms", [home[0]], Target(50, at_most=True)),
        Figure("page", f"growth of memory meanwhile, {rate}", "MB", [home[1]], Target(5, at_most=True)),
        Figure("page", f"longest task in a session's log, {rate}", "ms", [session[0]], Target(200, at_most=True)),
        Figure("page", f"growth of memory meanwhile, {rate}", "MB", [session[1]], Target(30, at_most=True)),
    ]


def figures_of_reading(read: list[tuple[float, float]]) -> list[Figure]:
    open_ms, scroll_ms = zip(*read, strict=True)
    return [
        Figure("page", f"opening a conversation of {MESSAGES:,} messages", "ms", open_ms, Target(500, at_most=True)),
        Figure("page", "longest task while scrolling all through it", "ms", scroll_ms, Target(100, at_most=True)),
    ]


def figure_of_bytes() -> Figure:
    files = [REPOSITORY / "dashboard.html", *(REPOSITORY / "dashboard").rglob("*.*")]
    kilobytes = sum(path.stat().st_size for path in files if path.stem != "fleet") / 1000
    return Figure("page", "the page's whole code", "kB", [kilobytes], Target(250, at_most=True))


# ------------------------------------------------------------------ what is there


def converse(http: httpx.Client) -> None:
    """A conversation as Claude Code writes it down: answers in Markdown, and calls of tools with their results."""
    http.post("/api/actions/talk", json={"type": "note"}).raise_for_status()
    headers = {"content-type": "application/x-ndjson", "X-Session-Id": "talk", "X-Source": "file"}
    lines = [*map(msgspec.json.encode, said_in_turn())]
    http.post("/api/transcripts/-srv/talk", content=b"\n".join(lines), headers=headers).raise_for_status()


def said_in_turn() -> Iterator[dict[str, Any]]:
    for number in range(MESSAGES):
        line = {"sessionId": "talk", "uuid": f"u{number}", "timestamp": f"2026-01-01T00:{number // 100:02}:00.000Z"}
        if number % 10 == 0:
            yield line | {"type": "user", "message": {"role": "user", "content": f"Task {number}: {TEXT}"}}
            continue
        use = {"type": "tool_use", "id": f"t{number}", "name": "Bash", "input": {"command": f"make step-{number}"}}
        blocks = [{"type": "text", "text": MARKDOWN}, use] if number % 3 == 0 else [use]
        message = {"id": f"m{number}", "role": "assistant", "model": "claude-sonnet-4-5", "content": blocks}
        yield line | {"type": "assistant", "message": message}
        result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": TEXT}
        yield line | {"uuid": f"r{number}", "type": "user", "message": {"role": "user", "content": [result]}}


def long_session() -> Iterator[dict[str, Any]]:
    """A call of a tool and its result, again and again."""
    for number in range(ENTRIES // 2):
        use = {"toolUseId": f"use-{number}", "tool": "Bash", "input": {"command": f"make step-{number}"}}
        yield event("action", "long", type="tool_call", **use)
        yield event("response", "long", type="tool_result", **use, output={"stdout": TEXT}, durationMs=number % 900)


def many_sessions() -> Iterator[dict[str, Any]]:
    for number in range(SESSIONS):
        yield event("action", f"many-{number}", type="prompt", prompt=f"Task {number}: {TEXT}")


def event(kind: str, session: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, "sessionId": session, "data": data}


def fill(http: httpx.Client, events: Iterator[dict[str, Any]]) -> None:
    lines: list[bytes] = []
    for each in events:
        lines.append(msgspec.json.encode(each))
        if len(lines) == BATCH:
            headers = {"content-type": "application/x-ndjson"}
            http.post("/api/events", content=b"\n".join(lines), headers=headers).raise_for_status()
            lines.clear()


NOTE = msgspec.json.encode({"type": "note", "text": TEXT})
REQUESTS = [http_request("POST", f"/api/actions/live-{n}", NOTE) for n in (0, 0, 0, 1)]
"""Three of four go to the session that is looked at."""
SPREAD = [http_request("POST", f"/api/actions/many-{n}", NOTE) for n in range(0, SESSIONS, 10)]


# ----------------------------------------------------------------- what is measured


@contextmanager
def watched(browser: Browser, appliance: Appliance) -> Iterator[Page]:
    """A page that counts its long tasks."""
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        page = context.new_page()
        page.add_init_script(WATCH)
        page.goto(f"{appliance.url}/#/sessions")
        page.wait_for_selector("#connection[data-is=live]")
        yield page


def longest_task(page: Page, act: Callable[[], object]) -> float:
    page.evaluate("window.tasks = []")
    act()
    page.evaluate("new Promise((done) => setTimeout(done, 200))")  # the observer tells of a task a little later
    tasks: list[float] = page.evaluate("window.tasks")
    return max([SHORTEST_TASK_MS, *tasks])


def opening(browser: Browser, appliance: Appliance) -> tuple[float, float]:
    """Milliseconds until the newest entry is there, and the longest task while scrolling through thousands."""
    with watched(browser, appliance) as page:
        begun = page.evaluate("location.hash = '#/session/long/log', performance.now()")
        took: float = page.evaluate(SHOWN, [".entry", begun])
        scrolled = longest_task(page, lambda: page.evaluate(SCROLL))
        rows = page.locator("[data-slot=said]").inner_text()
        if not rows.split()[0].replace(",", "").isdigit() or int(rows.split()[0].replace(",", "")) < 1000:
            raise Unsound(f"scrolling back loaded only {rows}")
        return took, scrolled


def reading(browser: Browser, appliance: Appliance) -> tuple[float, float]:
    """Milliseconds until the first messages are there, and the longest task while scrolling through all."""
    with watched(browser, appliance) as page:
        begun = page.evaluate("location.hash = '#/session/talk', performance.now()")
        took: float = page.evaluate(SHOWN, [".message a", begun])
        page.get_by_text(f"{MESSAGES:,} messages").wait_for()
        return took, longest_task(page, lambda: page.evaluate(LEAF))


def painting(browser: Browser, appliance: Appliance) -> float:
    """Milliseconds from the navigation until the first cards are painted."""
    with browser.new_context(viewport={"width": 1440, "height": 900}) as context:
        page = context.new_page()
        page.goto(appliance.url, wait_until="commit")
        return float(page.evaluate(SHOWN, [".live", 0]))


def stream(
    browser: Browser, appliance: Appliance, poster: Executor, path: str, requests: list[bytes]
) -> tuple[float, float]:
    """The longest task, and how many MB of memory came to be in use, while events stream in."""
    with watched(browser, appliance) as page:
        page.goto(f"{appliance.url}/#/{path}")

        def run(seconds: float) -> None:
            all_of_them = requests * int(EVENTS_PER_SECOND * seconds / len(requests))
            posted = poster.submit(open_loop, appliance.port, all_of_them, EVENTS_PER_SECOND, CONNECTIONS).result()
            wait_for(page, max(each.cursor for each in posted))

        run(WARM_SECONDS)
        before = memory(page)
        longest = longest_task(page, lambda: run(SECONDS))
        return longest, (memory(page) - before) / 1e6


def wait_for(page: Page, cursor: int) -> None:
    deadline = time.monotonic() + 10
    while page.evaluate(CURSOR) < cursor:
        if time.monotonic() > deadline:
            raise Unsound("the page did not follow the events")
        time.sleep(0.05)


def memory(page: Page) -> float:
    return float(page.evaluate("gc(), gc(), performance.memory.usedJSHeapSize"))
