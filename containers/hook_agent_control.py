"""Remote control of an agent (human in the loop): answers to its hooks that a person gave in the session store.

One file, to be copied beside hook_agent.py, which finds it. Python 3.9 or newer and its standard library, nothing else.
An answer may allow, deny, change or answer what a person is asked for; an order may stop, pause or tell something. What
is ordered lies on disk, so that a hook need not ask the store; what was carried out as well, so that it is once.

    What is known   of a session: what is ordered, what was carried out and is to be reported
    The store       one call, `POST /api/sessions/ID/control`, and what of its answer can be believed
    Replies         what Claude Code is told: https://code.claude.com/docs/en/hooks
    The hook        logs, like the silent one, and replies where somebody has ordered or answered something
    Watching        whoever delivers from the spool asks for orders as long as the agent runs
"""

from __future__ import annotations

import posix
import time

from hook_agent import (
    Spool,
    _as_id,
    _clean,
    _decoded,
    _encoded,
    _ensure_sender,
    _in_one_line,
    _is_gone,
    _is_id,
    _is_of,
    _keep_or_send,
    _Link,
    _Lock,
    _member,
    _narrow,
    _now,
    _process,
    _service_url,
    _setting,
    _spool_limit,
    _standard_input,
    _suppress,
    _text,
    tells_something_new,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn

    Members = dict[str, Any]

WAIT_SECONDS = 300
_FRESH_SECONDS = 10.0  # how long it is believed that nothing is ordered
_ASK_SECONDS = 0.25  # a hook asks itself, where nobody has kept that up to date
_POLL_SECONDS, _SLACK_SECONDS = 20, 3  # the store answers in time, or it hangs
_WATCH_SECONDS = 8
_TICK_SECONDS = 0.1
_AWAY_SECONDS = 5.0  # a store that was there may just be starting anew
_UNKNOWN_SECONDS = 15.0  # and may yet have to hear of a session: or it is older than this file
_LEAST_SECONDS = 0.5  # between two questions, whatever the store answers
_STALE_ORDER_SECONDS = 3600  # a pause holds no longer without word from the store
_UNSEEN_SECONDS = 600.0  # that a session is watched without a hook, where the process is not known
_TEXT_LENGTH = 9_000  # Claude Code takes 10,000 characters
_ANSWER_BYTES = 1 << 20
_IDS_KEPT, _IDS_TOLD = 500, 100
_MOST_IN_A_ROW = 7  # that an end is put off by what is said: Claude Code itself ends it after 8
_MOST_WATCHED = 64
_ORDERS = ("stop", "pause", "release", "say")
_NOT_FOUND = 404
_CHOSEN = ("AskUserQuestion",)  # tools that want an answer
_APPROVED = ("ExitPlanMode",)  # tools that want their input again: to allow them alone is not enough


def wait_seconds() -> int:
    """How long a hook may wait for a person: SESSION_CONTROL_WAIT."""
    text = _setting("SESSION_CONTROL_WAIT")
    return min(int(text), 86_400) if text.isdigit() and int(text) else WAIT_SECONDS


def insecure(url: str) -> str:
    """Why answers must not come from there; empty if they may."""
    from urllib.parse import urlsplit

    try:
        found = urlsplit(url)
        host = found.hostname or ""
    except ValueError:
        return f"{url} is no address"
    if found.scheme == "https" or _setting("SESSION_CONTROL_INSECURE") == "1":
        return ""
    if host in ("localhost", "::1") or (host.startswith("127.") and not host.strip("0123456789.")):
        return ""
    return (
        f"{url} is plain HTTP to another machine: whoever is in between could have the agent run anything. "
        "Use https, or say SESSION_CONTROL_INSECURE=1"
    )


# ---------------------------------------------------------------------------------------------------------------------
# What is known
# ---------------------------------------------------------------------------------------------------------------------

# In the spool, for each session that is controlled:
#
#     orders/ID     what is ordered, as JSON; empty where nothing is. Its time: when the store last said so
#     control/ID    the process of the agent; what was carried out; of that, what the store is to be told


class Known:
    """What is ordered in a session, and what was carried out. Its methods raise OSError."""

    def __init__(self, spool: Spool, session: str) -> None:
        self.spool = spool
        self.session = session

    @property
    def path(self) -> str:
        return self.spool.path(f"orders/{self.session}")

    def is_fresh(self, most: float = float("inf")) -> bool:
        """Whether what is ordered was said just now, in so many bytes: 0, where nothing is. One look at a file."""
        try:
            found = posix.stat(self.path)
        except OSError:
            return False
        return found.st_size <= most and -1.0 < time.time() - found.st_mtime < _FRESH_SECONDS

    def items(self) -> list[Members]:
        """What is ordered and not over, in the order in which it was said."""
        known, now = self.spool._read_json(f"orders/{self.session}"), _now()
        items = [it for it in known.get("items", []) if not _text(it.get("expires")) or it["expires"] > now]
        if time.time() - known.get("heard", 0) > _STALE_ORDER_SECONDS:
            return [it for it in items if it.get("order") != "pause"]
        return items

    def hear(self, said: Iterable[Members]) -> None:
        """The store has said this, beside what it has said before."""
        with _Lock(self.spool, must_be_held=True):
            done = self._state().get("done", [])
            items = {it["id"]: it for it in self.items()}
            items.update({it["id"]: it for it in said if it["kind"] == "order" and it["id"] not in done})
            for release in [it for it in items.values() if it["order"] == "release"]:
                released = items.pop(release["id"]) and release.get("releases")
                items = {id: it for id, it in items.items() if it["order"] != "pause" or released not in (None, id)}
                self._note_done(release["id"])
            self._keep(list(items.values()))

    def _keep(self, items: list[Members]) -> None:
        import os

        name = f"orders/{self.session}"
        if items:
            self.spool._write(name, {"heard": time.time(), "items": items})
            return
        os.close(os.open(f"{self.path}.new", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
        os.replace(f"{self.path}.new", self.path)

    def look_later(self) -> None:
        """The store could not be asked: that, too, need not be tried with each call."""
        with _suppress(OSError):
            posix.utime(self.path)

    def drop(self, item_id: str) -> None:
        with _Lock(self.spool, must_be_held=True):
            items = self.items()
            left = [it for it in items if it["id"] != item_id]
            if left != items:
                self._keep(left)

    def _state(self) -> Members:
        return self.spool._read_json(f"control/{self.session}")

    def _change(self, **members: Any) -> None:
        self.spool._write(f"control/{self.session}", {**self._state(), **members})

    def process(self) -> str:
        """Whose hooks carry out what is ordered; empty where nobody's do yet."""
        return _text(self._state().get("process"))

    def enter(self, process: str) -> None:
        """Be watched from now on, in place of what the same process was in before."""
        import os

        for folder in ("orders", "control"):
            os.makedirs(self.spool.path(folder), 0o700, exist_ok=True)
        with _Lock(self.spool, must_be_held=True):
            if not posix.access(self.path, posix.F_OK):
                self._keep([])
                posix.utime(self.path, (0, 0))  # nobody has said so yet
            if process and self._state().get("process") != process:
                for other in sessions_in(self.spool):
                    if other != self.session and self.spool._read_json(f"control/{other}").get("process") == process:
                        _forget(self.spool, other)
            self._change(process=process)

    def begin(self, item_id: str, at: str = "", refused: str = "") -> bool:
        """Whether it is carried out now, which is for good; False: it was before."""
        with _Lock(self.spool, must_be_held=True):
            if item_id in self._state().get("done", []):
                return False
            self._note_done(item_id, at, refused)
            return True

    def _note_done(self, item_id: str, at: str = "", refused: str = "") -> None:
        state = self._state()
        untold = {**state.get("untold", {}), item_id: {"at": at, "refused": refused}}
        self._change(done=[*state.get("done", []), item_id][-_IDS_KEPT:], untold=untold)

    def report(self) -> Members:
        """What the store is to be told, as members of a call: all that was done at the same call of a tool."""
        untold = self._state().get("untold", {})
        at = next((it["at"] for it in untold.values()), "")
        alike = {id: it["refused"] for id, it in untold.items() if it["at"] == at}
        done = [id for id, reason in alike.items() if not reason][:_IDS_TOLD]
        refused = dict([(id, reason) for id, reason in alike.items() if reason][:_IDS_TOLD])
        return {name: it for name, it in (("done", done), ("refused", refused), ("at", at)) if it}

    def held(self) -> Members:
        """The pauses that hold something here: whoever says so is told of their release, if others were as well."""
        done = self._state().get("done", [])
        held = [it["id"] for it in self.items() if it["order"] == "pause" and it["id"] in done]
        return {"done": held} if held else {}

    def is_told(self, report: Members) -> None:
        ids = {*report.get("done", ()), *report.get("refused", ())}
        if ids:
            with _Lock(self.spool, must_be_held=True):
                untold = self._state().get("untold", {})
                self._change(untold={id: it for id, it in untold.items() if id not in ids})

    def continued(self, is_again: bool) -> bool:
        """Whether an end may be put off once more by what a person says."""
        with _Lock(self.spool, must_be_held=True):
            number = self._state().get("inARow", 0) + 1 if is_again else 1
            if number <= _MOST_IN_A_ROW:
                self._change(inARow=number)
            return number <= _MOST_IN_A_ROW

    def stopped(self, prompt: str, text: str) -> None:
        """Calls that run beside the one that was told to stop are of the same prompt: they are told, too."""
        with _Lock(self.spool, must_be_held=True):
            mark = {"id": "stopped", "kind": "order", "order": "stopped", "prompt": prompt, "text": text}
            self._keep([*(it for it in self.items() if it["order"] != "stopped"), mark])


def sessions_in(spool: Spool) -> list[str]:
    """Those that are controlled, and no file that is just being written."""
    try:
        names = [name for name in posix.listdir(spool.path("control")) if _is_id(name) and name[-4:] != ".new"]
        return sorted(names)[:_MOST_WATCHED]
    except OSError:
        return []


def _forget(spool: Spool, session: str) -> None:
    for folder in ("orders", "control"):
        with _suppress(OSError):
            posix.unlink(spool.path(f"{folder}/{session}"))


# ---------------------------------------------------------------------------------------------------------------------
# The store
# ---------------------------------------------------------------------------------------------------------------------


class Unknown(Exception):
    """The store does not know the session, yet or at all."""


def ask(
    link: _Link, session: str, body: Members, seconds: float, is_over: Callable[[], bool] = lambda: False
) -> list[Members] | None:
    """What there is to carry out; None: `is_over` said so first.

    Raises Unknown, ValueError for what no store says, and whatever a socket may raise.
    """
    connection, base = link._connected()
    connection.sock.settimeout(seconds)
    headers = {"Content-Type": "application/json"}
    if token := link.token():
        headers["Authorization"] = f"Bearer {token}"
    connection.request("POST", f"{base}/api/sessions/{session}/control", _encoded(body), headers)
    until = time.monotonic() + seconds
    while not _has_news(connection.sock.fileno(), min(_TICK_SECONDS, seconds), 1):
        if is_over():
            link.close()
            return None
        if time.monotonic() > until:
            raise TimeoutError("the store does not answer")
    response = connection.getresponse()
    status, text = response.status, response.read(_ANSWER_BYTES)
    if response.will_close or not response.isclosed():
        link.close()
    return _items_in(status, text)


def _items_in(status: int, text: bytes) -> list[Members]:
    if status == _NOT_FOUND:
        raise Unknown
    if status == 204:
        return []
    said = _decoded(text) if status == 200 else None
    items = said.get("items") if isinstance(said, dict) else None
    if not isinstance(items, list):
        raise ValueError(f"the store answered {status}")
    return [it for it in items if _is_item(it)]


def _has_news(descriptor: int, seconds: float, event: int) -> bool:
    """Whether there is something to read (1: POLLIN) until then, or, whatever is waited for, it is closed."""
    import select

    poll = select.poll()
    poll.register(descriptor, event)
    return bool(poll.poll(seconds * 1000))


def _is_item(it: object) -> bool:
    if not isinstance(it, dict) or not _is_id(it.get("id")):
        return False
    if it.get("kind") == "order":
        return it.get("order") in _ORDERS and (it.get("agentId") is None or _is_id(it["agentId"]))
    if it.get("kind") == "answer":
        return it.get("decision") in ("allow", "deny", "answer") and isinstance(it.get("input"), (dict, type(None)))
    return it.get("kind") == "closed"


def ask_soon(session: str, body: Members, seconds: float) -> list[Members] | None:
    """The same without waiting; None: the store is away, or has not answered by then, finding its address included."""
    import threading

    found: list[list[Members]] = []

    def run() -> None:
        with _suppress(Exception):  # no answer is all that there is to say
            try:
                found.append(ask(_Link(_service_url()), session, body, seconds) or [])
            except Unknown:  # nobody can have ordered anything
                found.append([])

    asking = threading.Thread(target=run, daemon=True)
    asking.start()
    asking.join(seconds)
    return found[0] if found else None


# ---------------------------------------------------------------------------------------------------------------------
# Replies
# ---------------------------------------------------------------------------------------------------------------------

# What people say is marked as such, and stated as a fact: an instruction out of a hook is shown to the person instead.


def _said(text: object) -> str:
    return _clean(_text(text))[:_TEXT_LENGTH]


def _by(item: Members) -> str:
    return _in_one_line(_text(item.get("by"))) or "somebody"


def _own(event: str, **members: Any) -> Members:
    return {"hookSpecificOutput": {"hookEventName": event, **members}}


def stopping(event: str, reason: str) -> Members:
    """`continue: false` alone would let the call that it answers run once more."""
    reply: Members = {"continue": False, "stopReason": reason}
    if event == "PreToolUse":
        return {**reply, **denying(event, reason)}
    if event == "PermissionRequest":
        return {**reply, **_own(event, decision={"behavior": "deny", "message": reason, "interrupt": True})}
    return reply


def denying(event: str, reason: str) -> Members:
    if event == "PermissionRequest":
        return _own(event, decision={"behavior": "deny", "message": reason})
    return _own(event, permissionDecision="deny", permissionDecisionReason=reason)


def telling(event: str, texts: Iterable[str]) -> Members:
    return _own(event, additionalContext="\n\n".join(texts)[:_TEXT_LENGTH])


def _done(word: str, item: Members, member: str = "text") -> str:
    said = _said(item.get(member))
    return f"{word} by {_by(item)}, through the session store" + (f": {said}" if said else "")


def _told(item: Members) -> str:
    return f"{_by(item)}, a person who follows this session, says: {_said(item.get('text'))}"


def permission(payload: Members, answer: Members) -> Members | None:
    """The reply to a permission request that a person has answered so; None: it is no answer to that."""
    tool, given = _text(payload.get("tool_name")), payload.get("tool_input")
    given = given if isinstance(given, dict) else {}
    if answer["decision"] == "deny":
        return denying("PermissionRequest", _done("Denied", answer, "message"))
    decision: Members = {"behavior": "allow"}
    if tool in _CHOSEN:
        answers = chosen(given, answer.get("answers"), _text(answer.get("message")))
        if not answers:
            return None
        decision["updatedInput"] = {**given, "answers": answers}
    elif answer.get("input") is not None or tool in _APPROVED:
        decision["updatedInput"] = given if answer.get("input") is None else answer["input"]
    return _own("PermissionRequest", decision=decision)


def chosen(given: Members, answers: object, message: str = "") -> dict[str, str]:
    """What was answered by question, in any of the ways in which it may be said; {} where not all are answered."""
    questions = given.get("questions")
    if not isinstance(questions, list):
        return {}
    asked = [_text(it.get("question")) for it in questions if isinstance(it, dict)]
    if isinstance(answers, dict):
        found = {question: answers.get(question) for question in asked}
    elif isinstance(answers, list) and len(asked) != 1:
        found = {question: answers[number] for number, question in enumerate(asked[: len(answers)])}
    else:
        found = dict.fromkeys(asked[:1], answers or message)
    texts = {
        question: ", ".join(map(_said, it)) if isinstance(it, list) else _said(it) for question, it in found.items()
    }
    return texts if len(texts) == len(asked) and all(texts.values()) else {}


# ---------------------------------------------------------------------------------------------------------------------
# The hook
# ---------------------------------------------------------------------------------------------------------------------


def hook(longest: int) -> NoReturn:
    """One payload from stdin into the spool, and a reply to Claude Code where a person has given one.

    It waits for `longest` seconds at most. Exits with 0, whatever happens; what fails is as if it were not there.
    """
    reply: Members | None = None
    payload = b""
    try:
        payload = _standard_input()
        if payload.strip():
            _narrow(payload)
            reply = _reply_to(payload, min(longest, wait_seconds()))
    except BaseException:  # whatever it is, who is watched is not to suffer from it
        reply = _without_store(payload)
    finally:
        if reply:
            text = _encoded(reply)
            while text:
                text = text[posix.write(1, text) :]
        posix._exit(0)


def _without_store(payload: bytes) -> Members | None:
    """What there is to say where nobody can be asked: nothing, or no."""
    if _setting("SESSION_CONTROL_FAIL") != "closed":
        return None
    reason = "The session store cannot be asked, and SESSION_CONTROL_FAIL=closed: nothing is allowed without it"
    for event in ("PreToolUse", "PermissionRequest"):
        if _is_of(f'"{event}"'.encode(), payload):
            return denying(event, reason)
    return None


def _reply_to(payload: bytes, seconds: float) -> Members | None:
    spool, record = Spool(_service_url(), limit=_spool_limit()), b""
    asks = _is_of(b'"PermissionRequest"', payload)
    if tells_something_new(payload):
        spool, record = _keep_or_send(payload, waits=asks)
    if not spool.folder:
        spool.settle()
    session = _setting("SESSION_ID") or _member(payload, b'"session_id":"')
    if session and not asks and Known(spool, _as_id(session, "session")).is_fresh(most=0):
        return None
    if insecure(_service_url()):
        return _without_store(payload)
    told = _decoded(payload)
    if not isinstance(told, dict):
        return None
    call = _Call(spool, told, seconds)
    return call.asked(_member(record, b'"eventId":"')) if asks else call.ordered()


class _Call:
    """One hook of Claude Code's that waits for what we say."""

    def __init__(self, spool: Spool, payload: Members, seconds: float) -> None:
        self.payload, self.event = payload, _text(payload.get("hook_event_name"))
        claude = _text(payload.get("session_id"))
        self.session = _as_id(_setting("SESSION_ID") or claude, "session")
        self.agent = payload["agent_id"] if _is_id(payload.get("agent_id")) else ""
        self.lane = f"claude-{claude[:8]}"  # as a program is called in a session that is about another
        self.at = _text(payload.get("tool_use_id"))
        self.spool = spool
        self.known = Known(spool, self.session)
        self.until = time.monotonic() + seconds
        process = _setting("CLAUDE_PID")
        self.known.enter(_process(int(process)) if process.isdigit() else "")

    def ordered(self) -> Members | None:
        is_asked = self._refresh()
        if self.event == "UserPromptSubmit":
            self.known.drop("stopped")
        if not is_asked and (reply := _without_store(_encoded({"hook_event_name": self.event}))):
            return reply
        while True:
            if stop := self._stopped():
                return stop
            items = [it for it in self.known.items() if self._concerns(it)]
            pause = next((it for it in items if it["order"] == "pause"), None)
            if pause is None or self.event != "PreToolUse":
                return self._say([it for it in items if it["order"] == "say"])
            self.known.begin(pause["id"], self.at)
            if time.monotonic() > self.until:
                again = "This call was not made; it may be made again later"
                return denying(self.event, f"{_done('Paused', pause)}. {again}")
            if _nobody_reads():
                return None
            time.sleep(_TICK_SECONDS)
            self._refresh()

    def _refresh(self) -> bool:
        """Whether what is on disk is what the store says. It is asked only where nobody else did."""
        if self.known.is_fresh():
            return True
        _ensure_sender(self.spool)
        body = {name: it for name, it in (("at", self.at), ("agentId", self.agent)) if it}
        said = ask_soon(self.session, body, _ASK_SECONDS)
        if said is not None:
            self.known.hear(said)
        elif _setting("SESSION_CONTROL_FAIL") != "closed":
            self.known.look_later()
        return said is not None

    def _concerns(self, item: Members) -> bool:
        whom = item.get("agentId")
        if item["order"] == "stopped":
            return bool(item["prompt"] == _text(self.payload.get("prompt_id")))
        if whom:
            return bool(whom in (self.agent, self.lane))
        return item["order"] in ("stop", "pause") or not self.agent

    def _stop(self, item: Members) -> Members:
        """A sub-agent that ends is not the session: that ends with a call of its own."""
        if item["order"] == "stopped":
            return stopping(self.event, item["text"])
        reason = _done("Stopped", item)
        if item.get("agentId") or not self.agent:
            self.known.begin(item["id"], self.at)
            self.known.drop(item["id"])
            if not item.get("agentId"):
                self.known.stopped(_text(self.payload.get("prompt_id")), reason)
        return stopping(self.event, reason)

    def _say(self, items: list[Members]) -> Members | None:
        is_end = self.event in ("Stop", "SubagentStop")
        if not items or (is_end and not self.known.continued(self.payload.get("stop_hook_active") is True)):
            return None
        said = [it for it in items if self.known.begin(it["id"], self.at)]
        for item in items:
            self.known.drop(item["id"])
        return telling(self.event, map(_told, said)) if said else None

    def asked(self, ask_id: str) -> Members | None:
        """Waits for the answer to what this hook asks, as long as nobody else gives one."""
        link, since, patience = _Link(_service_url()), time.monotonic(), 0.0
        while (left := self.until - time.monotonic()) > 0 and not _nobody_reads():
            begun, wait = time.monotonic(), min(_POLL_SECONDS, int(left) or 1)
            body = {"wait": wait, "ask": ask_id, **({"agentId": self.agent} if self.agent else {})}
            try:
                said = ask(link, self.session, body, min(wait + _SLACK_SECONDS, left + _LEAST_SECONDS), self._is_over)
                since, patience = time.monotonic(), _AWAY_SECONDS
            except Exception as error:  # away, hanging, or no store at all
                link.close()
                said = []
                if time.monotonic() - since > (_UNKNOWN_SECONDS if isinstance(error, Unknown) else patience):
                    break
            if said is None:
                return self._stopped()
            if said and ((reply := self._answer(ask_id, said)) or any(it["kind"] == "closed" for it in said)):
                return reply
            time.sleep(max(0.0, min(_LEAST_SECONDS - (time.monotonic() - begun), left)))
        return _without_store(_encoded({"hook_event_name": self.event}))

    def _answer(self, ask_id: str, said: list[Members]) -> Members | None:
        self.known.hear(said)
        for item in said:
            if item["kind"] != "answer" or item.get("askId") != ask_id:
                continue
            reply = permission(self.payload, item)
            refused = "" if reply else "it does not answer what is asked"
            if self.known.begin(item["id"], refused=refused) and reply:
                if item["decision"] == "allow" and _text(item.get("message")):  # the reply has no place for it
                    own = {"id": f"{item['id'][:100]}-said", "kind": "order", "order": "say", "by": item.get("by")}
                    self.known.hear([{**own, "text": item["message"], "agentId": self.agent or None}])
                return reply
        return self._stopped()

    def _is_over(self) -> bool:
        """Whether nobody waits for an answer any more: also because whoever watches has heard of a stop."""
        return _nobody_reads() or (not self.known.is_fresh(most=0) and self._stop_order() is not None)

    def _stopped(self) -> Members | None:
        stop = self._stop_order()
        return self._stop(stop) if stop else None

    def _stop_order(self) -> Members | None:
        items = (it for it in self.known.items() if it["order"] in ("stop", "stopped"))
        return next(filter(self._concerns, items), None)


def _nobody_reads() -> bool:
    """Whether whoever started this hook waits for it no longer: it is gone, or somebody else has answered."""
    return _has_news(1, 0, 0)


# ---------------------------------------------------------------------------------------------------------------------
# Watching
# ---------------------------------------------------------------------------------------------------------------------


class Watcher:
    """Asks the store for orders, for each session that is controlled, as long as its agent runs; a thread for each."""

    def __init__(self, spool: Spool, link: _Link) -> None:
        self._spool = spool
        self._link = link
        self._threads: dict[str, threading.Thread] = {}
        self._looked = 0.0
        self.is_over = False

    def look(self) -> bool:
        """Whether there is any."""
        if time.monotonic() - self._looked > _TICK_SECONDS:
            self._looked = time.monotonic()
            self._threads = {session: it for session, it in self._threads.items() if it.is_alive()}
            for session in sessions_in(self._spool):
                if session not in self._threads and not insecure(self._link.service_url):
                    self._begin(session)
        return bool(self._threads)

    def _begin(self, session: str) -> None:
        import threading

        it = threading.Thread(target=self._watch, args=(session,), name=f"hook_agent {session}", daemon=True)
        self._threads[session] = it
        it.start()

    def _watch(self, session: str) -> None:
        known = Known(self._spool, session)
        asking, telling = (_Link(self._link.service_url, self._link.own_token) for _ in range(2))
        while not self._is_left(session):
            self._ask(known, asking, telling)
        for link in (asking, telling):
            link.close()
        with _suppress(OSError), _Lock(self._spool, must_be_held=True):
            if not self.is_over and self._is_left(session) and not known.report():
                _forget(self._spool, session)

    def _ask(self, known: Known, link: _Link, telling: _Link) -> None:
        body = {"wait": _WATCH_SECONDS, **known.held()}
        wait = _WATCH_SECONDS + _SLACK_SECONDS
        try:
            is_over = lambda: self._tell(known, telling) or self._is_left(known.session)  # noqa: E731
            known.hear(ask(link, known.session, body, wait, is_over) or [])
        except Unknown:
            with _suppress(OSError):
                known.hear([])
            time.sleep(_LEAST_SECONDS)
        except Exception:  # the store is away, or the spool: both are tried again
            link.close()
            time.sleep(2 * _LEAST_SECONDS)

    def _tell(self, known: Known, link: _Link) -> bool:
        """What was carried out; False, so that the question goes on: an order may be on its way to it."""
        try:
            if report := known.report():
                known.hear(ask(link, known.session, report, _SLACK_SECONDS) or [])
                known.is_told(report)
        except Exception:  # as above
            link.close()
        return False

    def _is_left(self, session: str) -> bool:
        """Whether its agent is gone and nothing is to be told, or somebody else watches."""
        if self.is_over or not posix.access(self._spool.path(f"control/{session}"), posix.F_OK):
            return True
        state = self._spool._read_json(f"control/{session}")
        if process := _text(state.get("process")):
            return _is_gone(process) and not state.get("untold")
        try:
            seen = posix.stat(self._spool.path(f"control/{session}")).st_mtime
        except OSError:
            return True
        return time.time() - seen > _UNSEEN_SECONDS
