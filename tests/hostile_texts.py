"""Texts that nobody should log: scripts in every wrapping, what steers a screen; and a session full of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import cycle
from typing import Any

import httpx

from tests.browsing import log, respond

SCRIPT = "window.hacked=(window.hacked||0)+1"
WRAPPERS: list[Callable[[str], str]] = [
    lambda js: f"<script>{js}</script>",
    lambda js: f"<img src=x onerror={js}>",
    lambda js: f"\"><img src=x onerror='{js}'>",
    lambda js: f"'><svg onload={js}>",
    lambda js: f"</script><script>{js}</script>",
    lambda js: f"</textarea><script>{js}</script>",
    lambda js: f"</style><script>{js}</script>",
    lambda js: f"</template><script>{js}</script>",
    lambda js: f"<iframe srcdoc='<script>parent.{js}</script>'></iframe>",
    lambda js: f"<details open ontoggle={js}>x</details>",
    lambda js: f"<video><source onerror={js}></video>",
    lambda js: f"<body onload={js}>",
    lambda js: f"<input autofocus onfocus={js}>",
    lambda js: f"<a href='javascript:{js}'>x</a>",
    lambda js: f"<math><mtext><table><mglyph><style><img src=x onerror={js}>",
    lambda js: f"<object data='javascript:{js}'></object>",
    lambda js: f"<form action='javascript:{js}'><button>x</button></form>",
    lambda js: f"javascript:{js}",
    lambda js: f"${{{js}}}{{{{{js}}}}}",
    lambda js: f"<img src=1 alt='' onload=x onerror='{js}' >",
    lambda js: f"<div style='background:url(javascript:{js})' onmouseover={js}>x</div>",
    lambda js: f"<svg><animate onbegin={js} attributeName=x dur=1s></svg>",
]
MARKUPS: list[Callable[[str], str]] = [
    lambda text: text,
    lambda text: text.upper().replace(SCRIPT.upper(), SCRIPT),
    lambda text: text.replace("<", "\n<"),
    lambda text: text.replace(" ", "/"),
    lambda text: f"```\n{text}\n```",
    lambda text: f"<!--{text}-->{text}",
    lambda text: text.replace("<", "<\0"),
    lambda text: "\u202e" + text,
    lambda text: "a" * 400 + text,
    lambda text: text + "<" * 50,
    lambda text: text.replace("<", "&lt;").replace(">", "&gt;"),
    lambda text: text.replace("<", "\\u003c"),
    lambda text: f"[{text}](javascript:{SCRIPT})",
    lambda text: text.replace("=", "\t=\r\n"),
    lambda text: text.replace("<", "\ufeff<"),
]
PAYLOADS = [markup(wrap(SCRIPT)) for wrap in WRAPPERS for markup in MARKUPS]

SPOOFS = [
    "\x1b[2J\x1b[31mX\x1b[0m\x1b]0;T\x07",
    "passwd\b\b\b\b\b\bSPOOF",
    "safe \u202egnp.exe\u202c",
    "a real command\rb",
    "\x9b31mred\x9b0m",
    "\u2066abc\u2069 \u200e",
    "\x1bP1;2|payload\x1b\\after",
]


def tell_with(http: httpx.Client, session_id: str, payloads: list[str]) -> None:
    """Payloads in every field that a caller fills."""
    texts = cycle(payloads)

    def bad(*names: str) -> Any:
        return {name: next(texts) for name in names} | {next(texts): next(texts)}

    user = re.sub(r"[\x00-\x1f]", "", next(texts))[:250]
    initial = bad("input") | {"config": bad("model")}
    metadata = bad("title", "cwd", "sandboxId", "hostname", "model")
    beginning = {"userId": user, "tags": [next(texts), next(texts)], "initial": initial, "metadata": metadata}
    http.put(f"/api/sessions/{session_id}", json=beginning).raise_for_status()
    state = bad("phase", "currentStep") | {"list": [next(texts), bad("x")]}
    http.patch(f"/api/state/{session_id}", json=state).raise_for_status()
    goal = bad("description", "priority", "status", "details")
    http.post(f"/api/state/{session_id}/goals", json=goal).raise_for_status()
    agent = bad("type", "task", "status") | {"agentId": "w"}
    http.post(f"/api/state/{session_id}/agents", json=agent).raise_for_status()
    http.patch(f"/api/state/{session_id}/agents/w", json={"result": next(texts)}).raise_for_status()
    log(http, session_id, next(texts), type="prompt", prompt=next(texts))
    tools = {
        "Bash": bad("command", "description"),
        "Read": bad("file_path"),
        "Edit": bad("file_path", "old_string", "new_string"),
        "Write": bad("file_path", "content"),
        "Agent": bad("prompt", "subagent_type", "description"),
        "TodoWrite": {"todos": [bad("content", "status")]},
        "ExitPlanMode": bad("plan"),
        "AskUserQuestion": {"questions": [bad("question", "header") | {"options": [bad("label")]}]},
        next(texts): bad("x"),
    }
    for tool, tool_input in tools.items():
        use = next(texts)
        log(http, session_id, "", type="tool_call", tool=tool, toolUseId=use, input=tool_input)
        output = bad("stdout", "stderr") | {"file": bad("content"), "content": [bad("text")]}
        respond(http, session_id, type="tool_result", tool=tool, toolUseId=use, output=output, agentId="w")
        respond(http, session_id, type="tool_error", tool=tool, error=next(texts))
    for text in payloads:
        log(http, session_id, text, type=text.replace("\0", "")[:100] or "x", message=text)
        respond(http, session_id, type="assistant_message", message=text)
    log(http, session_id, "", type="permission_request", attention=bad("reason", "message"))
