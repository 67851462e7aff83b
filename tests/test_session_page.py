"""A session's page in a real browser: its conversation, what it changed and used, its timeline; and analytics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.appliance import Appliance

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mNk+M9Qz0AEYBxVSF+FAAhKDveksOjmAAAAAElFTkSuQmCC"
ANSWER = """# What I found
The query has **no** index. See [the docs](https://example.org/docs) and `app/db.py`.

1. Read it
   - nested
2. Change it

| tool | calls |
|:-----|------:|
| Bash | 12 |

> quoted

```python
def f(x):  # a comment
    return "text"
```

[click](javascript:alert(1)) [here](data:text/html,x) [bank](https://evil.example/login) ![pic](https://x.example/a.png)"""
OUTPUT = "\x1b[32m3 passed\x1b[0m\n" + "\n".join(f"line {number}" for number in range(99))
FAILED = "Exit code 2\nE  AssertionError\n1 failed, 2 passed"
BEGUN = datetime.now(UTC) - timedelta(minutes=30)
SESSION = "5a5a5a5a-0000-4000-8000-000000000001"
PROMPT, PLAIN = "Make the checkout **faster**", "Make the checkout faster"


def at(minute: float) -> str:
    return (BEGUN + timedelta(minutes=minute)).isoformat(timespec="milliseconds")


class Transcript:
    """Lines as Claude Code writes them."""

    def __init__(self, session: str = SESSION, **common: Any) -> None:
        self.session, self.common, self.lines = session, common, list[dict[str, Any]]()

    def line(self, minute: float, kind: str, **members: Any) -> None:
        known = {"uuid": f"u{len(self.lines)}", "sessionId": self.session, "timestamp": at(minute), "type": kind}
        self.lines.append(known | self.common | members)

    def says(self, minute: float, *blocks: dict[str, Any], model: str = "claude-sonnet-4-5") -> None:
        name = f"m{len(self.lines)}{self.common.get('agentId', '')}"
        usage = {"input_tokens": 1000, "output_tokens": 50, "cache_read_input_tokens": 9000}
        message = {"id": name, "role": "assistant", "model": model, "content": list(blocks), "usage": usage}
        self.line(minute, "assistant", requestId=f"r-{name}", promptId="p1", message=message)

    def user(self, minute: float, content: Any, **members: Any) -> None:
        self.line(minute, "user", message={"role": "user", "content": content}, promptId="p1", **members)

    def gives(self, minute: float, use: str, content: Any, is_error: bool = False, **members: Any) -> None:
        result = {"type": "tool_result", "tool_use_id": use, "content": content, "is_error": is_error}
        self.user(minute, [result], **members)

    def send(self, http: httpx.Client, **query: str) -> None:
        headers = {"content-type": "application/x-ndjson", "X-Session-Id": self.session, "X-Source": "file"}
        path = f"/api/transcripts/-srv-shop/{self.session}"
        body = "\n".join(map(json.dumps, self.lines))
        http.post(path, params=query, content=body, headers=headers).raise_for_status()


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def use(name: str, tool: str, **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": name, "name": tool, "input": given}


def hook(http: httpx.Client, minute: float, event: str, **members: Any) -> None:
    payload = {"hook_event_name": event, "session_id": SESSION, "cwd": "/srv/shop", **members}
    http.post("/api/hooks/claude-code", json=payload, headers={"X-Timestamp": at(minute)}).raise_for_status()


def call(http: httpx.Client, minute: float, name: str, tool: str, given: Any, output: Any, **more: Any) -> None:
    said = {"tool_name": tool, "tool_use_id": name, "tool_input": given, **more}
    hook(http, minute, "PreToolUse", **said)
    failed = isinstance(output, Exception)
    outcome = {"error": str(output)} if failed else {"tool_response": output}
    hook(http, minute + 0.5, "PostToolUseFailure" if failed else "PostToolUse", **said, **outcome)


@pytest.fixture(scope="module")
def told(http: httpx.Client) -> str:
    """A session of Claude Code's with everything in it, told by hooks and by its transcript."""
    hook(http, 0, "SessionStart", source="startup", model="claude-sonnet-4-5")
    hook(http, 0.1, "UserPromptSubmit", prompt=PROMPT, prompt_id="p1")
    call(http, 1, "u1", "Bash", {"command": "python -m profile"}, {"stdout": OUTPUT, "stderr": ""})
    call(http, 3, "u2", "Agent", {"subagent_type": "Explore", "description": "Find callers"}, {"agentId": "a1"})
    hook(http, 3.1, "SubagentStart", agent_id="a1", agent_type="Explore")
    call(http, 3.2, "u3", "Grep", {"pattern": "total"}, {"content": "a.py:1"}, agent_id="a1", agent_type="Explore")
    hook(http, 3.4, "SubagentStop", agent_id="a1", agent_type="Explore", last_assistant_message="Two callers")
    original = "".join(f"line {number}\n" for number in range(30))
    for name, old, new in (("u4", "line 12\n", "an index\nanother\n"), ("u5", "another\n", "")):
        given = {"file_path": "/srv/shop/app/db.py", "old_string": old, "new_string": new}
        call(http, 6, name, "Edit", given, {"originalFile": original})
        original = original.replace(old, new)
    created = {"file_path": "/srv/shop/db/42.sql", "content": "CREATE INDEX i ON o(u);\n"}
    call(http, 8, "u6", "Write", created, {"type": "create"})
    call(
        http, 9, "u7", "Bash", {"command": "make test"}, Exception("Exit code 2\nE  AssertionError\n1 failed, 2 passed")
    )
    call(http, 11, "u8", "Bash", {"command": "git commit -am x"}, {"stdout": "[fast 4f2a9bc] Index orders\n 1 file"})
    hook(http, 12, "Stop", last_assistant_message=ANSWER)
    http.post(f"/api/state/{SESSION}/goals", json={"description": "Show the numbers"}).raise_for_status()

    main = Transcript()
    main.user(0.1, PROMPT)
    main.says(0.5, {"type": "thinking", "thinking": "First I profile", "signature": "s"}, text("I profile it."),
              use("u1", "Bash", command="python -m profile"))  # fmt: skip
    main.gives(1.5, "u1", OUTPUT)
    main.says(3, use("u2", "Agent", subagent_type="Explore", description="Find callers", prompt="Find them"))
    main.gives(3.5, "u2", [text("Two callers")], toolUseResult={"agentId": "a1", "status": "completed"})
    main.line(4, "system", subtype="compact_boundary", compactMetadata={"trigger": "auto", "preTokens": 182000})
    main.says(9, use("u7", "Bash", command="make test"))
    main.gives(9.5, "u7", FAILED, is_error=True)
    main.user(10, "<task-notification>\n<summary>The tests have run</summary>\n</task-notification>")
    main.says(11, use("u8", "Read", file_path="/srv/shop/shot.png"))
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    main.gives(11.5, "u8", [image])
    main.says(12, text(ANSWER), model="a-model-that-nobody-knows")
    main.send(http)
    agent = Transcript(agentId="a1", isSidechain=True)
    agent.user(3.1, "Find them")
    agent.says(3.2, text("Two callers: `cart.py`"))
    agent.send(http, subpath="subagents/agent-a1")
    return SESSION


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """A page that must not complain of anything."""
    size: Any = {"width": 1280, "height": 800}
    with browser.new_context(viewport=size, color_scheme="dark", reduced_motion="reduce") as context:
        page = context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        yield page
        assert complaints == []


def opened(page: Page, appliance: Appliance, path: str) -> Page:
    page.goto(f"{appliance.url}/#/{path}")
    expect(page.locator("#connection")).to_have_text("Live")
    return page


def settled(page: Page) -> None:
    page.wait_for_load_state("networkidle")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


# ------------------------------------------------------------------ conversation


def test_a_session_opens_on_what_it_is_about(page: Page, appliance: Appliance, told: str) -> None:
    opened(page, appliance, f"session/{told}")
    expect(page.locator(".tabs [aria-current]")).to_have_text("Conversation")
    expect(page.locator(".gist")).to_have_text(
        re.compile("Asked.*Make the checkout faster.*Says.*What I found", re.DOTALL)
    )
    facts = page.locator("#session .facts-line")
    expect(facts.locator("div", has_text="Cost")).to_contain_text(re.compile(r"\$0\.\d+ \+ 1 unpriced · \d"))
    expect(facts.locator("div", has_text="Plan")).to_contain_text("0/1")
    expect(facts.locator("div", has_text="Files")).to_contain_text("2 files+2 \u22121")


def test_a_conversation_is_read_like_a_page(page: Page, appliance: Appliance, told: str) -> None:
    opened(page, appliance, f"session/{told}/conversation")
    said = page.locator(".talk")
    expect(said.locator(".message[data-role=user] b")).to_have_text("faster")
    expect(said.locator(".divider")).to_have_text("Compacted (auto): 182,000 tokens")
    expect(said.locator(".notice .chip")).to_have_text("System notice")
    expect(said).not_to_contain_text("task-notification")
    said.locator(".thinking summary").click()
    expect(said.locator(".thinking .inside")).to_have_text("First I profile")

    answer = said.locator(".message").last
    expect(answer.locator("h3")).to_have_text("What I found")
    expect(answer.locator("ol > li ul li")).to_have_text("nested")
    expect(answer.locator("td.right")).to_have_text("12")
    expect(answer.locator("blockquote")).to_have_text("quoted")
    expect(answer.locator("pre .k")).to_have_text(["def", "return"])
    expect(answer.locator("a")).to_have_text(["the docs", "bank", "pic"])
    expect(answer).to_contain_text("bank (evil.example/login)")
    expect(answer).to_contain_text("click (javascript:alert(1)) here (data:text/html,x)")
    assert answer.locator("a").nth(1).get_attribute("rel") == "noopener noreferrer"

    failed = said.locator(".call", has_text="make test")
    expect(failed).to_have_attribute("data-state", "error")
    expect(failed.locator(".why")).to_have_text("Exit code 2: E AssertionError")
    agent = said.locator(".call", has_text="Find callers")
    agent.locator("summary").first.click()
    expect(agent.locator(".nested .message").last).to_contain_text("Two callers: cart.py")
    shot = said.locator(".call", has_text="shot.png")
    shot.locator("summary").click()
    expect(shot.locator("img")).to_have_js_property("naturalWidth", 10)


def test_long_output_is_folded_and_coloured(page: Page, appliance: Appliance, told: str) -> None:
    opened(page, appliance, f"session/{told}/conversation")
    called = page.locator(".call", has_text="python -m profile")
    called.locator("summary").click()
    schemes: list[tuple[Any, str]] = [("light", "rgb(18, 112, 61)"), ("dark", "rgb(95, 208, 145)")]
    for scheme, green in schemes:
        page.emulate_media(color_scheme=scheme)
        expect(called.get_by_text("3 passed")).to_have_css("color", green)
    expect(called).not_to_contain_text("[32m")
    expect(called).to_contain_text("line 38")
    expect(called).not_to_contain_text("line 39")
    called.get_by_role("button", name="Show all 100 lines").click()
    expect(called).to_contain_text("line 98")


def test_the_conversation_follows_and_is_chosen_from(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    opened(page, appliance, f"session/{session_id}")
    http.post(f"/api/actions/{session_id}", json={"type": "prompt", "prompt": "Begin"}).raise_for_status()
    page.reload()
    messages = page.locator(".message")
    expect(messages).to_have_count(1)
    tool = {"type": "tool_call", "tool": "Bash", "toolUseId": "b", "input": {"command": "make"}}
    http.post(f"/api/actions/{session_id}", json=tool)
    expect(page.locator(".call .took")).to_have_text("running")
    result = {"type": "tool_error", "tool": "Bash", "toolUseId": "b", "error": "no rule", "durationMs": 1500}
    http.post(f"/api/actions/{session_id}/responses", json=result)
    expect(page.locator(".call .took")).to_have_text("1.5 s")
    expect(page.locator(".call .why")).to_have_text("no rule")
    http.post(f"/api/actions/{session_id}/responses", json={"type": "assistant_message", "message": "**Done**"})
    expect(messages.last.locator("b")).to_have_text("Done")
    page.get_by_label("Show").select_option("talk")
    expect(page.locator(".call")).to_have_count(0)
    expect(messages).to_have_count(2)
    page.get_by_label("Show").select_option("errors")
    expect(messages).to_have_count(1)
    page.get_by_label("Show").select_option("")
    page.locator("#main").press("j")
    expect(messages.first).to_be_focused()


def test_the_map_leads_there_and_chooses_a_time(page: Page, appliance: Appliance, told: str) -> None:
    opened(page, appliance, f"session/{told}/conversation")
    expect(page.locator(".message").last).to_be_visible()
    chart = page.get_by_role("img", name="Map of the session")
    box = chart.bounding_box()
    assert box
    chart.click(position={"x": 20, "y": 8})
    expect(page.locator(".message").first).to_be_focused()
    page.mouse.move(box["x"] + 5, box["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + 8)
    page.mouse.up()
    expect(page.locator("#session [role=status]")).to_have_text(re.compile(r"^[1-9]\d* of \d+ messages"))
    page.locator(".tabs").get_by_role("link", name="Log").click()
    expect(page).to_have_url(re.compile("/log\\?span="))
    expect(page.locator(".entry", has_text="python -m profile")).to_be_visible()
    expect(page.locator(".entry", has_text="git commit")).to_have_count(0)
    page.get_by_role("button", name="\u00d7").click()
    expect(page.locator(".entry", has_text="git commit")).to_be_visible()


# ----------------------------------------------------------- changes, usage, and so on


def test_the_log_leaves_bookkeeping_out_and_calls_agents_by_their_tasks(
    page: Page, appliance: Appliance, told: str
) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    try:
        opened(page, appliance, f"session/{told}/log")
        expect(page.locator(".tabs [aria-current]")).to_be_in_viewport()
    finally:
        page.set_viewport_size({"width": 1280, "height": 800})
    agents = page.locator(".entry[data-kind=agent]:not(:has-text('Agent')) .title")
    expect(agents).to_have_text(["Find callers begins", "Find callers completed"])
    usage = page.locator(".entry", has_text="Usage")
    expect(usage).to_have_count(0)
    page.get_by_label("Bookkeeping").check()
    expect(usage.first).to_contain_text(re.compile(r"claude-sonnet-4-5 · 10,050 tokens · \$0\.01"))
    expect(page.locator(".log, .tab")).not_to_contain_text("requestKey")


def test_changes_are_files_with_their_net_diffs(page: Page, appliance: Appliance, told: str) -> None:
    opened(page, appliance, f"session/{told}/changes")
    box = page.get_by_label("Changes")
    expect(box.locator("h2")).to_have_text("2 files +2 \u22121")
    expect(box.locator(".folder h3")).to_have_text(["/srv/shop/app", "/srv/shop/db"])
    expect(box.locator(".folder summary").nth(0)).to_have_text("db.py+1 \u221212 edits")
    expect(box.locator(".folder summary").nth(1)).to_contain_text("new")
    box.locator(".folder summary").nth(0).click()
    expect(box.locator(".lines .add:not(.sign)")).to_have_text("an index")
    expect(box.locator(".lines .del:not(.sign)")).to_have_text("line 12")
    facts = box.locator(".about > div")
    expect(facts.nth(0)).to_contain_text(re.compile("failed.*make test.*1 failed, 2 passed"))
    expect(facts.nth(1)).to_contain_text("4f2a9bc Index orders")
    expect(facts.nth(2)).to_contain_text("unknown")


def test_usage_is_told_with_its_arithmetic(page: Page, appliance: Appliance, told: str) -> None:
    opened(page, appliance, f"session/{told}/usage")
    rows = page.locator(".usage section", has_text="By model").locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text(re.compile(r"claude-sonnet-4-5.*\$0\.\d+"))
    assert (rows.first.locator("td").last.get_attribute("title") or "").startswith(
        "5,000 input + 45,000 read from the cache + 250 output = 50,250 tokens\n$0."
    )
    expect(rows.last).to_contain_text("unpriced")
    expect(page.locator(".usage section", has_text="By agent")).to_contain_text("Find callers")
    expect(page.locator(".usage section", has_text="By prompt").get_by_role("link")).to_have_text(PLAIN)


def test_a_lane_is_folded_and_a_time_is_pulled_out(page: Page, appliance: Appliance, told: str) -> None:
    opened(page, appliance, f"session/{told}/timeline")
    chart = page.locator(".chart")
    expect(page.locator("rect.mark").first).to_be_visible()
    page.locator("rect.mark").first.hover()
    expect(page.locator("#session [data-slot=said]")).to_contain_text("python -m profile")
    tall = chart.bounding_box()
    lane = page.locator(".lane-names").get_by_role("button", name="Find callers")
    lane.click()
    expect(lane).to_have_attribute("aria-expanded", "false")
    now = chart.bounding_box()
    assert tall and now and now["height"] < tall["height"]
    page.mouse.move(now["x"] + 100, now["y"] + 8)
    page.mouse.down()
    page.mouse.move(now["x"] + 300, now["y"] + 8, steps=3)
    page.mouse.up()
    expect(page).to_have_url(re.compile("span=.*zoom=[3-9]|zoom=[3-9].*span="))


def test_the_state_opens_on_what_changed_without_what_is_empty(page: Page, appliance: Appliance, told: str) -> None:
    opened(page, appliance, f"session/{told}/state")
    expect(page.locator(".changes")).to_contain_text("Show the numbers")
    expect(page.locator(".tree")).to_contain_text("/srv/shop")
    expect(page.locator(".tree")).not_to_contain_text("[0]")
    expect(page.get_by_text("Empty: ")).to_contain_text("workspace.filesCreated")


def test_the_steps_of_a_graph_are_beside_its_state(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    http.put(f"/api/sessions/{session_id}", json={"userId": "alice"}).raise_for_status()
    typed: dict[str, Any] = {"type": "x", "data": ""}
    step: dict[str, Any] = {"versions": {}, "checkpoint": typed, "metadata": typed, "about": {"source": "loop"}}
    write: dict[str, Any] = {"checkpoint": "1", "task": "t", "number": 0, "channel": "plan", "value": typed}
    asks: dict[str, Any] = write | {"checkpoint": "2", "number": -3, "channel": "__interrupt__"}

    def keep(*lines: dict[str, Any]) -> None:
        body = "".join(json.dumps(line) + "\n" for line in lines)
        headers = {"content-type": "application/x-ndjson", "x-session-id": session_id}
        http.post(f"/api/checkpoints/{session_id}%2Fgraph", content=body, headers=headers).raise_for_status()

    asked = re.compile(r"/api/checkpoints\?")
    page.route(asked, lambda route: route.abort(), times=1)  # the server is away, and then there is no graph yet
    with page.expect_response(asked):
        opened(page, appliance, f"session/{session_id}/state")
    keep({"checkpoint": step | {"id": "1"}}, {"write": write}, {"checkpoint": step | {"id": "2"}}, {"write": asks})
    expect(page.get_by_role("heading", name=f"Graph {session_id}/graph")).to_be_visible()
    expect(page.get_by_text("wrote plan")).to_be_visible()
    expect(page.get_by_text("waits for a person")).to_have_count(1)
    keep({"checkpoint": step | {"id": "3", "about": {"step": 7}}})  # no event tells of it
    expect(page.get_by_text("step 7")).to_be_visible()
    expect(page.get_by_text("waits for a person")).to_have_count(0)


def test_the_line_that_resumes_it_is_copied(page: Page, appliance: Appliance, told: str) -> None:
    opened(page, appliance, f"session/{told}")
    page.evaluate("navigator.clipboard.writeText = async (words) => { window.copied = words; }")
    page.locator(".menu summary").click()
    page.get_by_role("button", name="Copy the line that resumes it").click()
    expect(page.locator("#notes")).to_contain_text("Copied.")
    assert page.evaluate("copied") == f"cd /srv/shop && claude --resume {SESSION}"


# --------------------------------------------------------------------- analytics


def test_failures_that_are_alike_are_one_row(page: Page, appliance: Appliance, http: httpx.Client) -> None:
    for number, user in enumerate(("alice", "bob", "alice")):
        for minute in range(2):
            error = f"Exit code 2\nmake: *** [Makefile:{number}{minute}: test] Error 2"
            members = {"type": "tool_error", "tool": "Deploy", "error": error}
            headers = {"X-User-Id": user}
            http.post(f"/api/actions/alike-{number}/responses", json=members, headers=headers).raise_for_status()
    opened(page, appliance, "analytics")
    row = page.get_by_role("region", name="Failures").locator("tbody tr", has_text="Deploy")
    expect(row).to_have_count(1, timeout=20_000)
    expect(row).to_contain_text(re.compile(r"Exit code 2: make: .*Error 2"))
    assert row.locator("td").nth(2).inner_text() == "6" and row.locator("td").nth(3).inner_text() == "3"
    expect(row).to_contain_text(re.compile("alice, bob|bob, alice"))
    row.get_by_role("link").click()
    expect(page.locator(".detail .body")).to_contain_text("Makefile:21")


def test_money_is_told_by_what_one_asks_and_a_bar_leads_into_its_time(
    page: Page, appliance: Appliance, told: str
) -> None:
    opened(page, appliance, "analytics")
    money = page.get_by_role("region", name="Tokens and cost")
    expect(money.locator("tbody tr")).to_contain_text(["shop"], timeout=20_000)
    expect(money).to_contain_text("none in the time before")
    money.get_by_label("Tokens and cost by").select_option("model")
    expect(money.locator("tbody")).to_contain_text("a-model-that-nobody-knows")
    picture = page.get_by_role("img", name="Activity over time")
    box = picture.bounding_box()
    assert box
    picture.click(position={"x": box["width"] - 2, "y": 10})
    expect(page).to_have_url(re.compile("range=from&from="))
    expect(page.get_by_role("img", name="Activity over time")).to_be_visible()


# -------------------------------------------------------------------------- safe

SCRIPT = "window.hacked=1"
HOSTILE = [
    f"<script>{SCRIPT}</script>",
    f"<img src=x onerror={SCRIPT}>",
    f"[a](javascript:{SCRIPT})",
    f"[a](JaVaScRiPt:{SCRIPT})",
    f"[a](data:text/html,<script>{SCRIPT}</script>)",
    f'[a](https://x.example/" onmouseover="{SCRIPT})',
    f"![a](data:image/svg+xml,<svg onload={SCRIPT}>)",
    f"[![a](x)](vbscript:{SCRIPT})",
    f"<svg onload={SCRIPT}><animate onbegin={SCRIPT} attributeName=x></svg>",
    f"```<script>\n{SCRIPT}\n```",
    f"`<img src=x onerror={SCRIPT}>`",
    f"| <b onclick={SCRIPT}>a |\n|---|\n| </td></table><script>{SCRIPT}</script> |",
    f"> <iframe srcdoc='<script>parent.{SCRIPT}</script>'>",
    f"# <style>*{{display:none}}</style>\n- <base href=//evil><form action=javascript:{SCRIPT}>",
    f"\x1b]8;;javascript:{SCRIPT}\x07click\x1b]8;;\x07 \x1b[31;1mred\x1b[38;2;300;-1;x;0mrgb\x1b[48;5;999mground",
    "\u202egnp.exe [\u2066a\u2069](https://x.example/\u202e) \x9b31mred",
    "position:fixed;top:0;left:0;width:100vw;height:100vh",
    "W" * 3000,
    "| a |\n|---|\n| " + "W" * 2000 + " |",
    "```\n" + "W" * 2000 + "\n```",
    "".join(">" * n + " x\n" for n in range(60)),
    "".join(" " * n + "- x\n" for n in range(60)),
]
SLOW = ["*" * 50_000, "[" * 50_000, "`" * 50_000, "[a](" * 20_000, "_a " * 30_000, "| " * 30_000 + "\n" + "|-" * 30_000,
        "> " * 30_000, "- " * 30_000, "**a" * 20_000, "\x1b[31m" * 30_000, "http://a" * 9000, "#" * 50_000]  # fmt: skip
ALLOWED = {"DIV", "P", "B", "EM", "DEL", "CODE", "PRE", "A", "UL", "OL", "LI", "H3", "H4", "H5", "H6", "HR", "SPAN",
           "BLOCKQUOTE", "TABLE", "THEAD", "TBODY", "TR", "TH", "TD", "BUTTON"}  # fmt: skip
OPEN_ALL = """async () => {
  for (const chunk of document.querySelectorAll(".talk section")) {
    chunk.scrollIntoView();
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  }
  for (const each of document.querySelectorAll(".talk details")) each.open = true;
}"""
TOO_WIDE = """() => {
  const box = document.querySelector(".talk"), { left, right } = box.getBoundingClientRect();
  const own = [...box.querySelectorAll(".message, .md, summary, pre")].map((each) => each.getBoundingClientRect());
  const out = own.filter((each) => each.width && (each.left < left - 1 || each.right > right + 1));
  return [box.scrollWidth - box.clientWidth, ...out.map((each) => each.width)];
}"""
TIMES = """async (texts) => {
  const { markdown, terminal } = await import("./dashboard/rich.js");
  return texts.map((text) => {
    const begun = performance.now();
    markdown(text, (code) => code);
    terminal(text);
    return performance.now() - begun;
  });
}"""
STEERS = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"


def test_nothing_that_was_said_runs_or_leaves_its_place(
    page: Page, appliance: Appliance, http: httpx.Client, session_id: str
) -> None:
    said = Transcript(f"{session_id}-hostile")
    for number, words in enumerate(HOSTILE):
        said.user(number, words)
        said.says(number, {"type": "thinking", "thinking": words}, text(words), use(f"u{number}", words, command=words),
                  use(f"b{number}", "Bash", command=words, description=words))  # fmt: skip
        said.gives(number, f"u{number}", words)
        said.gives(number, f"b{number}", words, is_error=True)
    http.post(f"/api/actions/{said.session}", json={"type": "note"}).raise_for_status()
    said.send(http)
    opened(page, appliance, f"session/{said.session}")
    expect(page.locator("#session [role=status]")).to_have_text(f"{2 * len(HOSTILE)} messages")
    page.evaluate(OPEN_ALL)
    settled(page)
    expect(page.locator(".message")).to_have_count(2 * len(HOSTILE))
    assert page.evaluate("window.hacked") is None
    tags = page.evaluate("[...new Set([...document.querySelectorAll('.talk .md *')].map((each) => each.tagName))]")
    assert set(tags) <= ALLOWED and {"A", "TABLE", "BLOCKQUOTE"} <= set(tags)
    links = page.evaluate("[...document.querySelectorAll('.talk .md a')].map((each) => each.href)")
    assert links and all(link.startswith("https://x.example/") for link in links)
    shown = page.evaluate(
        """document.querySelector(".talk").textContent
          + [...document.querySelectorAll(".talk [title]")].map((each) => each.title)"""
    )
    assert re.findall(STEERS, shown) == []
    for width, height in ((390, 844), (1920, 1080), (1280, 800)):
        page.set_viewport_size({"width": width, "height": height})
        settled(page)
        assert page.evaluate(TOO_WIDE) == [0], width
    page.evaluate("document.querySelector('.talk .md').style.marginLeft = '-99px'")
    assert len(page.evaluate(TOO_WIDE)) > 1, "what leaves its place would be found"


def test_a_text_takes_no_longer_than_it_is_long(page: Page, appliance: Appliance) -> None:
    opened(page, appliance, "")
    took = page.evaluate(TIMES, SLOW)
    assert max(took) < 2000, took


# ------------------------------------------------------------------------ shares


def test_a_link_to_one_session_is_made_followed_and_taken_back(
    browser: Browser, page: Page, appliance: Appliance, http: httpx.Client, told: str
) -> None:
    opened(page, appliance, f"session/{told}")
    page.locator(".menu summary").click()
    page.get_by_role("button", name="Share a link").click()
    dialog = page.get_by_role("dialog", name="Share this session")
    dialog.get_by_role("button", name="Make a link").click()
    expect(dialog.locator("li")).to_have_count(1)
    address = dialog.locator(".mono").inner_text().split()[0]
    assert address.startswith(f"{appliance.url}/#/session/{told}?share=sst_share_")
    with browser.new_context() as context:
        other = context.new_page()
        other.goto(address)
        expect(other.locator(".message").first).to_contain_text("Make the checkout faster")
        expect(other.locator("#connection")).to_have_text("A session that was shared with you")
        expect(other.get_by_role("link", name="Usage")).to_have_count(0)
        expect(other.get_by_role("button", name="Rename")).to_be_hidden()
        other.get_by_role("link", name="Changes").click()
        expect(other.get_by_label("Changes").locator("h2")).to_contain_text("2 files")
        other.reload()
        expect(other.get_by_label("Changes").locator("h2")).to_contain_text("2 files")
        call(http, 20, "late", "Write", {"file_path": "/srv/late.md", "content": "late"}, {"type": "create"})
        expect(other.get_by_label("Changes").locator("h2")).to_contain_text("3 files", timeout=10_000)
        again = "import('/dashboard/live.js').then(({ live }) => live.read())"
        other.route("**/*", lambda route: route.abort())
        other.evaluate(again)
        expect(other.locator("#stale")).to_contain_text("may be old")
        other.unroute_all()
        other.evaluate(again)
        expect(other.locator("#stale")).to_be_hidden()
        expect(other.locator("#connection")).to_have_text("A session that was shared with you")
        dialog.get_by_role("button", name="Take back").click()
        expect(dialog.locator("li")).to_have_count(0)
        other.evaluate(again)
        expect(other.locator("#login")).to_contain_text("The link has ended, or was taken back.")
        other.reload()
        expect(other.locator("#login")).to_contain_text("The link has ended, or was taken back.")
        expect(other.locator(".message")).to_have_count(0)
    dialog.get_by_role("button", name="Close").click()
