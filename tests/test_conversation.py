"""What was said in a session: from the lines of a conversation, or put together of events, in each of its forms."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser

from sessionstore.adapters.conversation import message_of_line
from sessionstore.adapters.transcripts import MAX_VALUES, UsageLine, line_as
from sessionstore.model.conversation import Image
from sessionstore.web.conversation_text import picture
from tests.browsing import MISSING, is_missing, launched
from tests.hostile_texts import PAYLOADS, SCRIPT

numbers = count(1)
NDJSON = {"content-type": "application/x-ndjson"}
Lines = list[dict[str, Any]]


@pytest.fixture
def session(http: httpx.Client) -> Iterator[str]:
    """A session that no other test uses."""
    name = f"talk-{next(numbers)}"
    http.put(f"/api/sessions/{name}", json={"userId": "alice"}).raise_for_status()
    yield name


def keep(http: httpx.Client, session: str, lines: Lines | bytes, subpath: str = "", conversation: str = "") -> None:
    body = lines if isinstance(lines, bytes) else b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    answer = http.post(
        f"/api/transcripts/folder/{conversation or session}",
        params={"subpath": subpath} if subpath else {},
        content=body,
        headers=NDJSON | {"x-session-id": session},
    )
    assert answer.status_code == 200, answer.text


def got(http: httpx.Client, session: str, **query: Any) -> Any:
    answer = http.get(f"/api/sessions/{session}/conversation", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "user", "uuid": f"u{next(numbers)}", "message": {"role": "user", "content": content}} | more


def says(message_id: str, *blocks: Any, tokens: int = 0, **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 5, "output_tokens": tokens, "cache_read_input_tokens": 7}
    message = {"role": "assistant", "id": message_id, "model": "claude-x", "content": list(blocks), "usage": usage}
    return {
        "type": "assistant",
        "uuid": f"a{next(numbers)}",
        "requestId": f"req-{message_id}",
        "message": message,
    } | more


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def calls(name: str, tool_use_id: str, **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": tool_use_id, "name": name, "input": given}


def gives(tool_use_id: str, content: Any, structured: Any = None, **more: Any) -> dict[str, Any]:
    result = {"type": "tool_result", "tool_use_id": tool_use_id, "content": content} | more
    return user([result], toolUseResult=structured)


def test_a_transcript_is_messages_with_what_tools_gave_back(http: httpx.Client, session: str) -> None:
    keep(
        http,
        session,
        [
            {"type": "mode", "mode": "default"},
            user("Build it", timestamp="2026-01-01T00:00:00.000Z", promptId="p1"),
            says("m1", {"type": "thinking", "thinking": "hm", "signature": "x"}, tokens=1),
            says("m1", text("I look"), tokens=2),
            says("m1", calls("Bash", "t1", command="ls"), tokens=9),
            gives("t1", [text("a.py")]),
            says("m2", calls("Read", "t2", file_path="a.py")),
            gives("t2", "no such file", is_error=True),
            says("m3", text("Done")),
        ],
    )
    answer = got(http, session)
    assert (answer["from"], answer["more"], answer["isAnew"], answer["agents"]) == ("transcript", False, False, [])
    prompt, first, second, last = answer["items"]
    assert (prompt["role"], prompt["blocks"], prompt["promptId"]) == ("user", [text("Build it")], "p1")
    assert prompt["at"] == "2026-01-01T00:00:00.000Z"
    assert (first["role"], first["id"], first["model"]) == ("assistant", "m1", "claude-x")
    thinking, words, call = first["blocks"]
    assert (thinking, words) == ({"type": "thinking", "text": "hm"}, text("I look"))
    assert (call["tool"], call["input"], call["toolUseId"]) == ("Bash", {"command": "ls"}, "t1")
    assert call["result"]["blocks"] == [text("a.py")]
    assert first["usage"] == {"inputTokens": 5, "outputTokens": 9, "cacheReadTokens": 7}
    assert second["blocks"][0]["result"]["isError"] is True
    assert last["blocks"] == [text("Done")]


def test_a_message_has_what_its_request_cost(http: httpx.Client, session: str) -> None:
    keep(http, session, [says("m1", text("dear"), tokens=9), says("m2", text("unknown"), tokens=1)])
    report = {"requestKey": "req-m1", "source": "otlp_logs", "costUsd": 0.25, "model": "claude-x", "outputTokens": 9}
    line = {"type": "usage_reported", "sessionId": session, "data": report}
    http.post("/api/events", content=json.dumps(line), headers=NDJSON).raise_for_status()
    first, second = got(http, session)["items"]
    assert (first["usage"]["costUsd"], "costUsd" in second["usage"]) == (0.25, False)


def test_pages_are_the_whole_each_message_once(http: httpx.Client, session: str) -> None:
    lines: Lines = []
    for n in range(40):
        lines += [user(f"prompt {n}"), says(f"m{n}", text("yes")), says(f"m{n}", calls("Bash", f"t{n}"))]
        lines += [{"type": "attachment"}, gives(f"t{n}", f"out {n}")]
    keep(http, session, lines[:77])
    keep(http, session, lines[77:])
    whole = got(http, session)["items"]
    assert len(whole) == 80
    assert all(one["blocks"][1]["result"]["blocks"] for one in whole[1::2])
    found, page = [], got(http, session, limit=7)
    while page["items"]:
        assert len(page["items"]) <= 7
        found += page["items"]
        assert page["more"] is (len(found) < 80)
        page = got(http, session, limit=7, after=page["nextAfter"])
    assert found == whole


def test_what_comes_later_is_found_behind_the_last_page(http: httpx.Client, session: str) -> None:
    keep(http, session, [user("go"), says("m1", calls("Bash", "t1"))])
    before = got(http, session)
    assert "result" not in before["items"][1]["blocks"][0]
    again = got(http, session, after=before["nextAfter"])
    assert (again["items"], again["more"], again["nextAfter"]) == ([], False, before["nextAfter"])
    keep(http, session, [gives("t1", "late"), says("m2", text("so"))])
    late, last = got(http, session, after=before["nextAfter"])["items"]
    assert (late["role"], late["blocks"][0]["toolUseId"]) == ("results", "t1")
    assert last["blocks"] == [text("so")]


def test_sub_agents_stand_where_they_were_called(http: httpx.Client, session: str) -> None:
    keep(
        http,
        session,
        [
            says("m1", calls("Agent", "t1", description="look"), calls("Agent", "t2", description="see")),
            gives("t1", "found", {"agentId": "abc"}),
            says("m2", text("wait")),
        ],
    )
    inner = [user("look"), says("n1", calls("Task", "t9")), says("n2", text("found it"))]
    keep(http, session, inner, "subagents/agent-abc")
    keep(
        http, session, [{"type": "agent_metadata", "toolUseId": "t9"}, says("o1", text("deep"))], "subagents/agent-low"
    )
    keep(http, session, [says("q1", text("busy"))], "subagents/agent-run")
    meta = b'{\n "agentType": "Explore",\n "description": "see",\n "toolUseId": "t2"\n}'
    keep(http, session, meta, "subagents/agent-run.meta.json")
    answer = got(http, session)
    first, second = [block["agent"] for block in answer["items"][0]["blocks"]]
    assert (first["agentId"], [one["role"] for one in first["messages"]]) == ("abc", ["user", "assistant", "assistant"])
    assert first["messages"][1]["blocks"][0]["agent"]["messages"][0]["blocks"] == [text("deep")]
    assert second["messages"][0]["blocks"] == [text("busy")]
    assert (second["agentType"], second["task"]) == ("Explore", "see")
    assert {agent["agentId"] for agent in answer["agents"]} == {"abc", "low", "run"}
    own = got(http, session, agentId="abc", limit=1)
    assert own["more"] is True
    assert own["items"][0]["blocks"] == [text("look")]
    rest = got(http, session, agentId="abc", after=own["nextAfter"])
    assert [one["id"] for one in rest["items"]] == ["n1", "n2"]
    assert http.get(f"/api/sessions/{session}/conversation?agentId=none").status_code == 404


def test_a_compaction_is_marked(http: httpx.Client, session: str) -> None:
    boundary = {"type": "system", "subtype": "compact_boundary", "compactMetadata": {"trigger": "auto", "preTokens": 9}}
    keep(http, session, [user("a"), boundary, user("This session is continued", isCompactSummary=True)])
    _, mark, summary = got(http, session)["items"]
    assert (mark["role"], mark["compaction"]) == ("compaction", {"trigger": "auto", "preTokens": 9})
    assert (summary["isSummary"], summary["isMachineMade"]) == (True, True)


def test_several_conversations_of_a_session_follow_each_other(http: httpx.Client, session: str) -> None:
    keep(http, session, [user("first")], conversation=f"{session}-a")
    keep(http, session, [user("second")], conversation=f"{session}-b")
    one, mark, two = got(http, session)["items"]
    assert (one["blocks"], two["blocks"]) == ([text("first")], [text("second")])
    assert (mark["role"], mark["id"]) == ("conversation", f"{session}-b")
    found, page = [], got(http, session, limit=1)
    while page["items"]:
        found += page["items"]
        page = got(http, session, limit=1, after=page["nextAfter"])
    assert found == [one, mark, two]


def test_a_conversation_that_was_replaced_begins_anew(http: httpx.Client, session: str) -> None:
    keep(http, session, [user("old")])
    after = got(http, session)["nextAfter"]
    answer = http.post(
        f"/api/transcripts/folder/{session}",
        content=json.dumps(user("new")),
        headers=NDJSON | {"x-session-id": session, "x-source-offset": "0"},
    )
    assert answer.status_code == 200
    page = got(http, session, after=after)
    assert (page["isAnew"], [one["blocks"] for one in page["items"]]) == (True, [[text("new")]])


def backwards(http: httpx.Client, session: str, limit: int, **query: Any) -> list[Any]:
    """All of a conversation, read from its end."""
    page = got(http, session, limit=limit, before="end", **query)
    found: list[Any] = page["items"]
    while page["nextBefore"]:
        assert page["more"] is True
        page = got(http, session, limit=limit, before=page["nextBefore"], **query)
        found = page["items"] + found
    return found


@pytest.mark.parametrize("limit", [1, 3, 7, 1000])
def test_it_is_read_backwards_as_well(http: httpx.Client, session: str, limit: int) -> None:
    for conversation in "ab":
        lines: Lines = []
        for n in range(20):
            name = f"{conversation}{n}"
            lines += [user(f"prompt {name}" + "x" * (n % 3) * 90_000), says(name, text("yes"), calls("Bash", name))]
            lines += [{"type": "attachment", "x": "y" * 200_000}, gives(name, f"out {name}")]
        keep(http, session, lines, conversation=f"{session}-{conversation}")
    whole, page = [], got(http, session, limit=limit)
    while page["items"]:
        whole += page["items"]
        page = got(http, session, limit=limit, after=page["nextAfter"])
    assert [one["role"] for one in whole].count("conversation") == 1
    assert len(whole) == 81
    assert backwards(http, session, limit) == whole
    end = got(http, session, before="end", limit=2)
    assert got(http, session, after=end["nextAfter"])["items"] == []
    assert got(http, session, before="9-9-9")["isAnew"] is True


ODD = [
    b"",
    b"{",
    b"[]",
    b'{"type":"user"}',
    b'{"type":"user","message":"x"}',
    b'{"type":"user","message":{"content":5}}',
    b'{"type":"assistant","message":{"content":[null,5,[],{"type":7},{"type":"tool_use","id":{}}]}}',
    b'{"type":"assistant","message":{"id":9,"content":"x"}}',
    b'{"type":"user","message":{"content":[{"type":"tool_result"},{"type":"tool_result","content":[{"text":1}]}]}}',
    b'{"type":"system","subtype":"compact_boundary","compactMetadata":7}',
    b'{"type":"assistant","message":{"content":[{"type":"tool_use","name":"x","input":'
    + b"[" * 2000
    + b"]" * 2000
    + b"}]}}",
    b'{"type":"user","message":{"content":"half \\ud800 a pair"}}',
    b"\xff\xfe",
]


def test_lines_that_are_none_are_passed_over(http: httpx.Client, session: str) -> None:
    keep(http, session, b"\n".join([*ODD, json.dumps(user("sane")).encode()]) + b"\n")
    items = got(http, session)["items"]
    assert items[-1]["blocks"] == [text("sane")]
    assert items[-2]["blocks"] == [text("half \ufffd a pair")]


UNKNOWN = (
    {"isMeta": None, "isSidechain": "no"},
    {"timestamp": 5, "uuid": 7, "requestId": []},
    {"message": {"usage": {"input_tokens": 5, "output_tokens_details": [], "speed": {}}}},
    {"message": {"content": [{"type": "text", "text": "said"}], "number": float("inf")}},
    {"message": {"content": [{"type": "text", "text": "said"}], "half": "\ud800", "none": float("nan")}},
)


@pytest.mark.parametrize("members", UNKNOWN)
def test_what_no_version_has_had_takes_nothing_else_with_it(
    http: httpx.Client, session: str, members: dict[str, Any]
) -> None:
    """As Infinity, which is beyond any number, and which Python writes."""
    line = says("m", text("said"))
    line |= {name: line["message"] | value if name == "message" else value for name, value in members.items()}
    keep(http, session, json.dumps(line).encode() + b"\n")
    (item,) = got(http, session)["items"]
    assert item["blocks"] == [text("said")]
    assert item["usage"]["inputTokens"] == 5
    assert http.get(f"/api/sessions/{session}/usage").json()["total"]["inputTokens"] == 5


def test_long_texts_and_inputs_are_cut_and_say_so(http: httpx.Client, session: str) -> None:
    keep(http, session, [says("m", text("x" * 100_007), calls("Write", "t", content="y" * 100_009))])
    words, call = got(http, session)["items"][0]["blocks"]
    assert (len(words["text"]), words["leftOut"]) == (100_000, 7)
    assert (len(call["input"]["content"]), call["leftOut"]) == (100_000, 9)


def test_a_page_is_bounded_in_bytes(http: httpx.Client, session: str) -> None:
    keep(http, session, [says(f"m{n}", text("x" * 90_000)) for n in range(100)])
    page = got(http, session, limit=1000)
    assert page["more"] is True
    assert 40 < len(page["items"]) < 60
    rest = got(http, session, limit=1000, after=page["nextAfter"])
    assert [one["id"] for one in page["items"] + rest["items"]][:80] == [f"m{n}" for n in range(80)]


# --------------------------------------------------------------------------- events


def hook(http: httpx.Client, session: str, name: str, **payload: Any) -> None:
    payload |= {"hook_event_name": name, "session_id": session}
    http.post("/api/hooks/claude-code", json=payload).raise_for_status()


def test_without_a_transcript_it_is_put_together_of_events(http: httpx.Client, session: str) -> None:
    hook(http, session, "UserPromptSubmit", prompt="Build it", prompt_id="p1")
    bash = {"tool_name": "Bash", "tool_use_id": f"toolu_{session}_000001"}
    hook(http, session, "PreToolUse", tool_input={"command": "ls"}, **bash)
    hook(http, session, "PostToolUse", tool_response={"stdout": "a.py\n", "stderr": ""}, **bash)
    hook(http, session, "Stop", last_assistant_message="Done")
    hook(http, session, "UserPromptSubmit", prompt="<task-notification>x</task-notification>")
    answer = got(http, session)
    assert answer["from"] == "events"
    prompt, call, last, machine = answer["items"]
    assert (prompt["role"], prompt["blocks"], prompt["promptId"]) == ("user", [text("Build it")], "p1")
    assert call["blocks"][0]["result"]["blocks"] == [text("a.py")]
    assert (last["role"], last["blocks"]) == ("assistant", [text("Done")])
    assert machine["isMachineMade"] is True
    pages, page = [], got(http, session, limit=1)
    while page["items"]:
        pages += page["items"]
        page = got(http, session, limit=1, after=page["nextAfter"])
    assert pages == answer["items"]
    assert backwards(http, session, 1) == backwards(http, session, 3) == pages
    assert got(http, session, after="12-0-0")["isAnew"] is True


def test_a_sub_agent_of_events_stands_where_it_was_called(http: httpx.Client, session: str) -> None:
    call = {"tool_name": "Agent", "tool_use_id": f"toolu_{session}_000001"}
    hook(http, session, "PreToolUse", tool_input={"description": "look", "prompt": "look"}, **call)
    hook(http, session, "SubagentStart", agent_id="abc", agent_type="Explore")
    inner = {"tool_name": "Bash", "tool_use_id": f"toolu_{session}_000002", "agent_id": "abc"}
    hook(http, session, "PreToolUse", tool_input={"command": "ls"}, **inner)
    hook(http, session, "PostToolUse", tool_response={"stdout": "a.py"}, **inner)
    (message,) = got(http, session)["items"]
    agent = message["blocks"][0]["agent"]
    assert (agent["agentId"], agent["agentType"], agent["task"]) == ("abc", "Explore", "look")
    assert agent["messages"][0]["blocks"][0]["result"]["blocks"] == [text("a.py")]


def test_any_programs_words_are_shown(http: httpx.Client) -> None:
    name = f"talk-{next(numbers)}"
    body = {"sessionId": name, "userId": "bob", "initial": {"input": "Build a REST API"}}
    http.post("/api/sessions", json=body).raise_for_status()
    http.post(f"/api/actions/{name}", json={"type": "file_write", "path": "a.js"}).raise_for_status()
    http.post(f"/api/actions/{name}/responses", json={"type": "answer", "text": "Written"}).raise_for_status()
    prompt, action, answer = got(http, name)["items"]
    assert (prompt["role"], prompt["blocks"]) == ("user", [text("Build a REST API")])
    assert action["blocks"] == [{"type": "call", "tool": "file_write", "input": {"path": "a.js"}}]
    assert answer["blocks"] == [text("Written")]


def test_a_form_that_is_none_is_told_by_the_name_it_was_asked_by(http: httpx.Client, session: str) -> None:
    refused = http.get(f"/api/sessions/{session}/conversation?format=x")
    assert (refused.status_code, refused.json()["errors"][0]["path"]) == (422, "$.format")


def test_of_a_session_that_is_not_there_is_404(http: httpx.Client) -> None:
    assert http.get("/api/sessions/nobody/conversation").status_code == 404


# ---------------------------------------------------------------------------- forms


def written(http: httpx.Client, session: str, form: str, **query: Any) -> str:
    answer = http.get(f"/api/sessions/{session}/conversation", params={"format": form} | query)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_as_markdown_it_reads_from_top_to_bottom(http: httpx.Client, session: str) -> None:
    http.patch(f"/api/sessions/{session}/metadata", json={"title": "Build a thing"}).raise_for_status()
    keep(
        http,
        session,
        [
            user("Build it"),
            says("m1", {"type": "thinking", "thinking": "a\nb"}, calls("Bash", "t1", command="echo '```'"), tokens=9),
            gives("t1", "```\n\x1b[31mred\x1b[0m"),
            says("m2", calls("Agent", "t2", description="look", prompt="p")),
            gives("t2", "found", {"agentId": "abc"}),
            {"type": "system", "subtype": "compact_boundary", "compactMetadata": {"preTokens": 9000, "postTokens": 10}},
        ],
    )
    keep(http, session, [says("n1", text("inner\nwords"))], "subagents/agent-abc")
    keep(http, session, [says("o1", text("of no call"))], "subagents/agent-lone")
    found = written(http, session, "markdown")
    assert found.startswith("# Build a thing\n\n* Session: ")
    for piece in (
        "## alice\n\nBuild it\n\n",
        "> *Thinking*\n>\n> a\n> b\n\n",
        "**Bash**\n\n````\necho '```'\n````\n\n````\n```\nred\n````\n\n",
        "*12 tokens in, 9 out*",
        "> **Agent abc**\n> \n> ## Assistant · claude-x\n> \n> inner\n> words\n",
        "```\nfound\n```",
        "*Compacted: 9,000 to 10 tokens*",
        "> **Agent lone**\n",
    ):
        assert piece in found, piece
    assert found.count("inner") == found.count("of no call") == 1
    assert written(http, session, "markdown", agentId="abc").count("##") == 1


def test_as_lines_it_is_what_was_kept(http: httpx.Client, session: str) -> None:
    body = b'{"type":"x"}\n no json\n'
    keep(http, session, body)
    keep(http, session, b"inner\n", "subagents/agent-abc")
    assert written(http, session, "jsonl") == body.decode()
    assert written(http, session, "jsonl", agentId="abc") == "inner\n"


def test_as_lines_without_a_transcript_it_is_the_events(http: httpx.Client, session: str) -> None:
    for n in range(3):
        hook(http, session, "UserPromptSubmit", prompt=f"go {n}")
    lines = [json.loads(line) for line in written(http, session, "jsonl").splitlines()]
    assert [line["data"]["prompt"] for line in lines if line["type"] == "action"] == ["go 0", "go 1", "go 2"]


PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def image(media_type: str, data: str) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


OWN_PAYLOADS = [
    f"[x](javascript:{SCRIPT})",
    f"[x](JaVaScRiPt:{SCRIPT})",
    f"[x](&#106;avascript:{SCRIPT})",
    f"[x](java\tscript:{SCRIPT})",
    f"[x](<javascript:{SCRIPT}>)",
    f"[x][r]\n\n[r]: javascript:{SCRIPT}",
    f"<javascript:{SCRIPT}>",
    f"[x](vbscript:{SCRIPT}) [x](file:///etc/passwd) [x](data:text/html,<script>{SCRIPT}</script>) [x](/api/login)",
    f'[x](data:image/svg+xml;base64,PHN2Zz4= "\' onmouseover={SCRIPT}")',
    "![x](http://127.0.0.1:9/pixel.png) ![y](data:image/svg+xml,<svg onload=1>)",
    f'[x](http://good.example/"onmouseover={SCRIPT}/ "title\\" onclick={SCRIPT}")',
    f"```<script>{SCRIPT}</script>\n</code></pre><img src=x onerror={SCRIPT}>\n```",
    f"| a |\n|---|\n| <img src=x onerror={SCRIPT}> |",
    f"</section></body></html><script>{SCRIPT}</script>",
    f"<meta http-equiv=refresh content='0;url=javascript:{SCRIPT}'>",
    "<base href=//evil.example/><link rel=stylesheet href=x>",
    "safe&#8238;elas\u202eevil &#x2066;",
]


def hostile(payloads: list[str]) -> Lines:
    """Each in every place of a line where a program or a person puts text."""
    lines: Lines = []
    for n, bad in enumerate(payloads):
        call = {"type": "tool_use", "id": f"h{n}{bad}", "name": bad, "input": {bad: bad, "command": bad}}
        thought = {"type": "thinking", "thinking": bad}
        pictures = [image("image/png", bad), image(bad, PICTURE), image("image/svg+xml", PICTURE)]
        message = {"id": f"h{n}{bad}", "model": bad, "content": [thought, text(bad), call, {"type": bad}, *pictures]}
        lines += [
            user(bad, timestamp=bad),
            {"type": "assistant", "uuid": bad, "timestamp": bad, "agentId": bad, "message": message},
            gives(f"h{n}{bad}", [text(bad), *pictures], is_error=n % 2 == 0),
            {"type": "system", "subtype": "compact_boundary", "compactMetadata": {"trigger": bad}},
            {"type": "system", "subtype": "local_command", "content": bad},
        ]
    return lines


ALLOWED = "a, b, body, blockquote, br, code, dd, del, details, dl, dt, em, h1, h2, h3, h4, h5, h6, head, hr, html, img"
ALLOWED += (
    ", li, meta, ol, p, pre, s, section, span, strong, style, summary, table, tbody, td, th, thead, title, tr, ul"
)


def harm_in(browser: Browser, html: str | None, url: str = "about:blank") -> list[str]:
    """What a page does that it should not: what it asks for, runs, or has besides text."""
    page = browser.new_page()
    found: list[str] = []
    page.on("request", lambda request: found.append(request.url) if request.url not in (url, "about:blank") else None)
    if html is None:
        page.goto(url)
    else:
        page.set_content(html)
        found += ["it ran"] if page.evaluate("window.hacked || 0") else []
    found = [url for url in found if not url.startswith("data:image/png;base64,")]
    found += page.locator(f"*:not({ALLOWED})").evaluate_all("all => all.map(one => one.outerHTML)")
    found += page.locator("*").evaluate_all(
        """all => all.flatMap(one => [...one.attributes].map(it => `${it.name}=${it.value}`)).filter(it =>
             /^on|^style=|^srcdoc=/i.test(it) || /^(href|src)=(?!https?:|mailto:|data:image.png;)/.test(it))"""
    )
    page.close()
    return found


@pytest.mark.skipif(is_missing(), reason=MISSING)
def test_nothing_hostile_runs_or_leaves_its_place(http: httpx.Client, session: str) -> None:
    payloads = OWN_PAYLOADS + PAYLOADS[::2]
    http.patch(f"/api/sessions/{session}/metadata", json={"title": payloads[13]}).raise_for_status()
    keep(http, session, [*hostile(payloads), says("ok", text("[good](https://good.example/a?b=c) *em*"))])
    keep(http, session, hostile(payloads[:20]), "subagents/agent-abc")
    answer = http.get(f"/api/sessions/{session}/conversation?format=html")
    assert "sandbox" in answer.headers["content-security-policy"]
    html = answer.text
    assert not set("\u202e\u2066\0\x1b") & set(html)
    assert '<a href="https://good.example/a?b=c" rel="noopener noreferrer nofollow" target="_blank">good</a>' in html
    with launched() as browser:
        assert harm_in(browser, None, str(answer.url)) == []
        assert harm_in(browser, html.replace("Content-Security-Policy", "x")) == []  # even without its policy
        broken = f"<img src=x onerror={SCRIPT}><script>{SCRIPT}</script>"
        assert "it ran" in harm_in(browser, broken)


@pytest.mark.skipif(is_missing(), reason=MISSING)
def test_the_file_is_whole_and_fits_a_phone(http: httpx.Client, session: str) -> None:
    wide = "x" * 3000
    table = "|a|b|\n|-|-|\n|" + "y" * 500 + "|c|"
    keep(
        http,
        session,
        [
            user(wide),
            says("m1", text(f"# Head\n\n{table}\n\n```\n{wide}\n```"), calls("Bash", "t1", command="ls")),
            gives("t1", [text("boom"), image("image/png", PICTURE)], is_error=True),
        ],
    )
    with launched() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.set_content(written(http, session, "html"))
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("summary", has_text="Bash").inner_text() == "Bash ls failed: boom"
        page.locator("summary", has_text="Bash").click()
        assert page.locator("img").evaluate("one => one.naturalWidth") == 1
        assert page.locator("h1").count() == 2


def test_a_picture_that_is_none_is_found_out_at_once() -> None:
    """Four megabytes of spaces, and something behind them, took hours, in which nothing else went on."""
    for data, is_shown in (("A" * 100 + " " * (4 << 20), True), ("A" * 100 + " " * (4 << 20) + "!", False)):
        assert picture(Image(media_type="image/png", data=data)).startswith("<img") == is_shown
    assert "<img" in picture(Image(media_type="image/png", data="QUJD\nQQ== \n"))


def test_a_line_that_would_take_memory_many_times_over_is_passed_over() -> None:
    """32 MiB of empty lists are 16 million: a gigabyte, and seconds in which nothing else went on."""
    for lists, is_read in ((1_000, True), (MAX_VALUES, False)):
        content = b'"content": [%s1]' % (b"[]," * (lists // 2))
        assert (message_of_line(b'{"type": "assistant", "message": {%s}}' % content, "1") is not None) == is_read
        odd = b'{"uuid": 5, "requestId": "r", "message": {"id": "m", %s}}' % content
        assert (line_as(odd, UsageLine) is not None) == is_read
