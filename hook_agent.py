"""What runs beside an agent and tells the session store what the agent does.

One file, to be copied into each container: Python 3.9 or newer on Linux or another Unix, the standard library only.
No call of it raises into the program that it serves, or waits for the store: what is written goes to a spool on disk
first, and from there to the store in order, each event once.

    Events                  what is said: ids, times, and JSON that the store can take
    Redaction               what is taken out of it: keys, tokens, passwords
    Spool                   the folder in which events wait, shared by all processes of the container
    Claude Code's hooks     what only this side knows of a payload, which the store maps
    The hook command        one payload from stdin into the spool, as quickly as Python starts
    Sender                  from the spool to the store
    Client                  SessionHookAgent, its plain twin `.sync`, and `hook_agent`, which reads the environment
    Commands                python hook_agent.py hook, test, flush, status, install, uninstall, run, restore

What only some need stands in files beside this one: hook_agent_install.py, _run.py, _restore.py, _langchain.py and
_control.py; _ship.py, _facts.py and _patterns.py, without which no transcripts are kept, it knows less of where it
runs and how it ends, and takes patterns of one's own for quick ones.
"""

from __future__ import annotations

import fcntl
import posix
import sys
import time

_BEGUN = time.time_ns()  # when a hook was: hooks that are not waited for overtake one another

# Every hook starts an interpreter: what it does not need is imported where it is used, and typing not at all.
# That goes for os as well, a tenth of the time that a hook takes: what is in posix is taken from there.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    import threading
    from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator
    from contextlib import AbstractContextManager
    from http.client import HTTPConnection
    from typing import Any, NoReturn, TypeGuard, TypeVar

    Members = dict[str, Any]
    Tally = dict[str, Members]
    Rejection = tuple[int, int, str]
    T = TypeVar("T")
    Waiting = Generator[None, None, T]


class _Os:
    """Stands for the module os until something of it is needed."""

    def __getattr__(self, name: str) -> Any:
        import os

        globals()["os"] = os
        return getattr(os, name)


if not TYPE_CHECKING:
    os = sys.modules.get("os") or _Os()


def _setting(name: str) -> str:
    """A variable of the environment; empty where it is not set."""
    if "os" in sys.modules:
        return os.environ.get(name, "")
    return posix.environ.get(name.encode(), b"").decode("utf-8", "surrogateescape")


# ---------------------------------------------------------------------------------------------------------------------
# Events
# ---------------------------------------------------------------------------------------------------------------------

# Serialization: ids, timestamps, and any value as JSON within the limits of the store, which cuts and says so, too.

_ID_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_ID_LENGTH = 128
_USER_LENGTH = 256
_EVENT_BYTES = (1 << 20) - 4096  # the store takes 1 MiB of data; the rest is for what stands around it
_DEPTH = 60  # the store takes 64 levels, of which the event itself is one
_PARTS = 600_000  # of one event: more would not fit; what has a part many times over is not to be unfolded for ever
_MARKS = 1_200_000  # of JSON: its brackets, commas and texts
MOST_TEXTS = 20_000  # of one event, ids beside its type not counted: what is beyond would take long to look through
_LARGEST = 1 << 63
_SHORTEST_CUT = 16
_SHOWN_LENGTH = 300
_CUT = "…"


def _is_id(value: object) -> TypeGuard[str]:
    """Whether the store takes this as an id; no regular expression, so that a hook need not compile one."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= _ID_LENGTH
        and value[0] not in "._-"
        and ".." not in value
        and _ID_ALPHABET.issuperset(value)
    )


def _as_id(value: object, otherwise: str) -> str:
    """The id that is nearest to what was given."""
    if _is_id(value):
        return value
    text = "".join(character if character in _ID_ALPHABET else "-" for character in _text_of(value))
    while ".." in text:
        text = text.replace("..", ".")
    return text.lstrip("._-")[:_ID_LENGTH] or otherwise


def _as_user(value: object) -> str | None:
    """The name without control characters; None if nothing is left of it."""
    text = "" if value is None else _clean(_text_of(value))
    return "".join(it for it in text if it >= " " and not "\x7f" <= it <= "\x9f")[:_USER_LENGTH] or None


def _event_id() -> str:
    """Unlike any other, and in the order of the clock."""
    return f"{time.time_ns() // 1_000_000:012x}{posix.urandom(10).hex()}"


def _now(nanoseconds: int | None = None) -> str:
    moment = (time.time_ns() if nanoseconds is None else nanoseconds) // 1_000_000
    year, month, day, hour, minute, second = time.gmtime(moment // 1000)[:6]
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{moment % 1000:03}Z"


# JSON that the store can take


def _clean(text: str) -> str:
    """Text that is UTF-8: halves of a surrogate pair are joined, and one without the other becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text if type(text) is str else str.__str__(text)


def _in_one_line(text: str) -> str:
    """What somebody else said, for people: nothing that could steer their terminal or turn its text, nor too long."""
    return " ".join("".join(it if it.isprintable() else " " for it in _clean(text)).split())[:_SHOWN_LENGTH]


def _text_of(value: object) -> str:
    try:
        return str(value)
    except Exception:  # a __str__ of the program's own may do anything
        return f"<{type(value).__name__}>"


class _Plain:
    """Turns what a program gives into what JSON can hold; one is used for one event."""

    def __init__(self) -> None:
        self.parts = 0
        self.around: set[int] = set()  # the containers that one is in: none of them can be in it again

    def value(self, value: Any, depth: int = 0) -> Any:
        self.parts += 1
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return _clean(value)
        try:
            return self.number(value) if isinstance(value, (int, float)) else self.container(value, depth)
        except Exception:  # a class of the program's own may do anything
            return f"<{type(value).__name__}>"

    def number(self, value: float) -> Any:
        if isinstance(value, int):
            return int(value) if -_LARGEST <= value < _LARGEST else _text_of(int(value))
        return float(value) if value - value == 0 else None  # neither infinite nor NaN

    def container(self, value: Any, depth: int) -> Any:
        if isinstance(value, (bytes, bytearray)):
            return bytes(value).decode(errors="replace")
        if not isinstance(value, (dict, list, tuple, set, frozenset)):
            return _clean(_text_of(value))
        left = _PARTS - self.parts
        if depth >= _DEPTH or left <= 0 or id(value) in self.around:
            return _CUT
        self.around.add(id(value))
        try:
            if isinstance(value, dict):
                return {self.name(name): self.value(part, depth + 1) for name, part in list(value.items())[:left]}
            return [self.value(part, depth + 1) for part in list(value)[:left]]
        finally:
            self.around.remove(id(value))

    def name(self, name: object) -> str:
        return _clean(name if isinstance(name, str) else _text_of(name))


def _encoded(value: object) -> bytes:
    import json

    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class _TooMuch(ValueError):
    """JSON that is too deep, or has too many parts, to be looked into here."""


def _decoded(text: bytes) -> Any:
    """Raises ValueError for what is not JSON, and _TooMuch. What is not UTF-8 is replaced."""
    import json

    said = text.decode("utf-8-sig", errors="replace")
    if len(said) > _MARKS and sum(map(said.count, ",[{")) > _MARKS:
        raise _TooMuch("it has too many parts")
    try:
        return json.loads(said, strict=False)
    except json.JSONDecodeError:
        raise
    except (RecursionError, ValueError) as error:  # the second: a number of thousands of digits
        raise _TooMuch(str(error)) from None


def _line(event: Members) -> bytes:
    """The event, without secrets, as one line of a batch; its longest texts are cut until it fits."""
    line = _encoded(event)
    if may_have_many_texts(line):
        event = {**event, "data": with_few_texts(event["data"])}
        line = _encoded(event)
    redaction = _redaction()
    if redaction is not None and redaction.concerns(line.decode()):
        event = {**event, "data": redaction.data(event["data"])}
        line = _encoded(event)
    return line if len(line) <= _EVENT_BYTES else _encoded(_fit(event))


def _shorter(line: bytes) -> bytes:
    """A line that the store finds too large, cut; empty where it cannot be."""
    with _suppress(Exception):  # whatever it is, it must not hold up what is behind it
        return _encoded(_fit(_Plain().value(_decoded(line)))) if len(line) > _EVENT_BYTES else b""
    return b""


def _fit(event: Members) -> Members:
    return event if len(_encoded(event)) <= _EVENT_BYTES else {**event, "data": _fitted(event, _EVENT_BYTES)}


def _fitted(event: Members, most: int) -> Members:
    """The data of an event that has more than so many bytes as a line: its longest texts are cut until it fits."""
    data: Members = event["data"]
    whole = _encoded(data)
    truncated = data.get("truncated")
    if not isinstance(truncated, dict) or "bytes" not in truncated:  # else it was cut before
        truncated = {"bytes": len(whole), "sha256": _sha256(whole)}
    longest = most
    while longest > _SHORTEST_CUT:
        longest //= 2
        cut = {**_cut(data, longest), "truncated": truncated}
        if len(_encoded({**event, "data": cut})) <= most:
            return cut
    room = max(0, most - len(_encoded({**event, "data": {"text": "", "truncated": truncated}}))) // 4
    return {**_few(data, room), "text": whole[:room].decode(errors="ignore"), "truncated": truncated}


def _few(data: Members, room: int) -> Members:
    """The type, and what else is plain and has room."""
    few: Members = {}
    for name, value in [("type", data.get("type")), *list(data.items())[:100]]:
        member = {name: _cut(value, 1000)}
        size = len(_encoded(member))
        if value is not None and not isinstance(value, (dict, list)) and size <= room:
            room -= size
            few.update(member)
    return few


def _cut(value: Any, longest: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= longest else value[:longest] + _CUT
    if isinstance(value, dict):
        return {name: _cut(part, longest) for name, part in value.items()}
    return [_cut(part, longest) for part in value] if isinstance(value, list) else value


def may_have_many_texts(text: bytes) -> bool:
    """Whether it is worth counting those of an event with this JSON text, or with one that is a part of it."""
    return len(text) > 3 * MOST_TEXTS and text.count(b'"') > 2 * MOST_TEXTS


def number_of_texts(data: Members) -> int:
    number, level = 0, [[value for name, value in data.items() if not names_something(name)]]
    while level:
        for part in level.pop():
            if isinstance(part, str):
                number += 1
            elif isinstance(part, (dict, list)):
                level.append(list(part.values()) if isinstance(part, dict) else part)
    return number


def with_few_texts(data: Members) -> Members:
    """The data, with its first 20,000 texts; where it had more, `truncated` says how many, and how large it was."""
    number = number_of_texts(data)
    if number <= MOST_TEXTS:
        return data
    few = _Few(MOST_TEXTS)
    kept = {}
    for name, value in sorted(data.items(), key=lambda member: isinstance(member[1], (dict, list))):  # plain ones first
        if names_something(name):
            kept[name] = value
        elif few.left > 0:
            kept[name] = few.value(value)
    kept = {name: kept[name] for name in data if name in kept}
    return {**kept, "truncated": {"bytes": len(_encoded(data)), "texts": number}}


class _Few:
    """Copies what it is given, as long as some of so many texts are left."""

    def __init__(self, most: int) -> None:
        self.left = most

    def value(self, value: Any) -> Any:
        self.left -= isinstance(value, str)
        if isinstance(value, dict):
            return {name: self.value(part) for name, part in value.items() if self.left > 0}
        return [self.value(part) for part in value if self.left > 0] if isinstance(value, list) else value


def _payload(text: bytes) -> Any:
    """What a hook was told, as far as it can be taken. Raises ValueError for what is not JSON."""
    value = _Plain().value(_decoded(text))
    return with_few_texts(value) if isinstance(value, dict) and may_have_many_texts(text) else value


def _sha256(text: bytes) -> str:
    import hashlib

    return hashlib.sha256(text).hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# Redaction
# ---------------------------------------------------------------------------------------------------------------------

# A table of regular expressions with literal prefilters; `Redaction` applies it, and own patterns, to texts.
#
# Secrets are taken out of what is said before it is written anywhere: `[redacted:NAME]` stands in their place. The
# store takes this table from here and does the same.
#
# A pattern takes no longer than its text warrants, however that is made: it begins with letters of its own, and what
# repeats in it is bounded or cannot begin again inside what it has passed. What its first parentheses hold is kept.
# Its hints are what a text that it matches has in it, in this or in lower case, and what it begins with (but for what
# may stand before the word of a secret): `^x` is x that no letter or digit precedes, `x=` is x that something is
# assigned to, `x*y` is x and soon after it y.


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _begin(text: str, before: str = "A-Za-z0-9_") -> str:
    r"""A pattern for `text` at the beginning of a word; in quoted JSON a word may be preceded by \n, \r or \t."""
    return rf"{text}(?:(?<![{before}]{text})|(?<=\\[nrt]{text}))"


_PEM_ESCAPED = r"(?:[ \t\r\n]|\\[rn])"
_PEM_HEADERS = rf"(?:[A-Za-z]{{3,9}}(?:-[A-Za-z]{{4}})?: [^\r\n\\]{{0,80}}{_PEM_ESCAPED}{{1,8}}){{0,3}}"
_PASSWORD_WORD = "(?ai:pass(?:word|wd|phrase))"
_SECRET_WORD = (
    "(?<![A-Za-z])(?ai:(?:(?:access|auth|refresh|session|bearer|api)[_-]?)?token|(?:client[_-]?)?secret|"
    "(?:api|secret|(?:secret[_-]?)?access|private)[_-]?key)"
)
_LOUD_WORD = "(?<![a-z])(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|(?:API|SECRET|ACCESS|PRIVATE)_?KEY)"
_ASSIGNED = r"""\\{0,3}["']?[ \t]{0,4}(?:=>|:=|[:=])[ \t]{0,4}\\{0,3}["']?"""
_UNQUOTED = "A-Za-z0-9_/+~!@#%^*-"
_QUOTED = "A-Za-z0-9_/+~!@#%^*.:;,?&=$-"


def _with(characters: str) -> str:
    return f"(?=[{_QUOTED}]{{0,100}}[{characters}])"


def _value(shortest: int, having: str = "") -> str:
    """Of an assignment in a text: words and marks as far as quotes go; without quotes, nothing that looks like code.

    What repeats is kept in parentheses, the second and the third: nothing shorter is tried where that will not do.
    """
    return (
        rf"""(?:(?<=["'])(?=([{_QUOTED}]{{{shortest},}})){having}\2(?=\\{{0,3}}["'])|"""
        rf"(?=([{_UNQUOTED}]{{{shortest},}})){having}\3={{0,2}}(?!\.?[=(\[{{${_UNQUOTED}]))"
    )


_BLANK = r"(?:[ \t\r\n]|\\[nrt]){1,8}"
_LABEL = "[A-Za-z0-9-]{1,63}"
_HOST = rf"(?:localhost|{_LABEL}(?:\.{_LABEL}){{1,8}})"
_NO_PLACEHOLDER = r"(?![$%*<{\[])"
_BASE64_AUTH = rf"{_with('0-9=')}{_with('A-Z')}(?:[A-Za-z0-9+/]{{4}}){{3,2000}}(?:[A-Za-z0-9+/]{{2,3}}={{1,2}})?"
_PASSWORD_HINTS = ("password=", "passwd=", "passphrase=")
_SECRET_HINTS = (
    "secret=", "token=", "apikey=", "api_key=", "api-key=", "secretkey=", "secret_key=", "secret-key=", "accesskey=",
    "access_key=", "access-key=", "privatekey=", "private_key=", "private-key=",
)  # fmt: skip
SECRETS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("private-key", ("-----BEGIN *PRIVATE KEY",), "-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
     rf"{_PEM_ESCAPED}{{0,8}}{_PEM_HEADERS}"
     r"[A-Za-z0-9+/=]{32}[A-Za-z0-9+/= \t\r\n\\]*(?:-----END [A-Z0-9 ]{0,50}-----)?"),
    ("aws", ("^AKIA", "^ASIA"), _begin("A[KS]IA") + "[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("github", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), _begin("gh[oprsu]_") + r"[A-Za-z0-9_]{20,}"
     r"(?:\.[A-Za-z0-9_-]{10,}){0,2}"),
    ("github", ("github_pat_",), _begin("github_pat_") + "[A-Za-z0-9_]{20,}"),
    ("gitlab", ("glpat-", "gldt-", "glrt-", "glcbt-", "glptt-"), _begin("gl") + "(?:pat|dt|rt|cbt|ptt)-"
     r"[A-Za-z0-9_-]{20,}(?:\.[0-9a-z]{2}\.[0-9a-z]{9})?"),
    ("anthropic", ("^sk-ant-",), _begin("sk-ant-") + "[A-Za-z0-9_-]{16,}"),
    ("openai", ("^sk-",), _begin("sk-") + "(?:(?:proj|svcacct|admin|or-v1)-[A-Za-z0-9_-]{20,}|"
     "(?=[A-Za-z0-9_]{0,60}[0-9])[A-Za-z0-9_]{20}[A-Za-z0-9_-]*)"),
    ("slack", ("^xox",), _begin("xox[abeoprs]-") + "[A-Za-z0-9-]{10,}"),
    ("slack", ("^xapp-",), _begin("xapp-") + "[A-Za-z0-9-]{10,}"),
    ("slack", ("hooks.slack.com/services/",), r"(hooks\.slack\.com/services/)[A-Za-z0-9/_+-]{20,}"),
    ("google", ("AIza",), _begin("AIza") + "[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    ("google", ("GOCSPX-",), _begin("GOCSPX-") + "[A-Za-z0-9_-]{20,}"),
    ("stripe", ("sk_live_", "rk_live_", "sk_test_", "rk_test_"), _begin("[rs]k_(?:live|test)_") + "[A-Za-z0-9]{16,}"),
    ("webhook", ("whsec_",), _begin("whsec_") + "[A-Za-z0-9+/]{24,}={0,2}"),
    ("npm", ("^npm_",), _begin("npm_") + "[A-Za-z0-9]{36,}"),
    ("pypi", ("^pypi-AgE",), _begin("pypi-AgE") + "[A-Za-z0-9_-]{30,}"),
    ("huggingface", ("^hf_",), _begin("hf_") + "[A-Za-z0-9]{30,}"),
    ("session-store", ("^sst_",), _begin("sst_") + "[A-Za-z0-9_-]{32,}"),
    ("session-store", ("session_store",), rf"(session_store(?:{_ASSIGNED}|[ \t]))[0-9a-f]{{64}}(?![0-9A-Za-z])"),
    ("sendgrid", ("SG.",), _begin("SG") + r"\.[A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_-]{40,}"),
    ("digitalocean", ("dop_v1_", "doo_v1_", "dor_v1_"), _begin("do[opr]_v1_") + "[a-f0-9]{64}"),
    ("vault", ("^hvs.", "^hvb.", "^hvr."), _begin("hv[bsr]") + r"\.[A-Za-z0-9_-]{24,}"),
    ("shopify", ("shpat_", "shpca_", "shppa_", "shpss_"), _begin("shp(?:at|ca|pa|ss)_") + "[A-Fa-f0-9]{32}"),
    ("age", ("AGE-SECRET-KEY-1",), "AGE-SECRET-KEY-1[A-Z0-9]{50,}"),
    ("sentry", ("sntrys_", "sntryu_"), _begin("sntry[su]_") + "[A-Za-z0-9+/_-]{40,}(?:==?_[A-Za-z0-9+/_-]{20,})?"),
    ("telegram", (":AA",), "((?<=[0-9]{8}):)AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])"),
    ("discord", ("/api/webhooks/",), "(/api/webhooks/[0-9]{15,22}/)[A-Za-z0-9_-]{60,}"),
    ("azure", ("accountkey=", "sharedaccesskey="), "((?:Account|SharedAccess)Key=)[A-Za-z0-9+/]{40,}={0,2}"),
    ("kubeconfig", ("client-key-data=",), rf"(client-key-data{_ASSIGNED})[A-Za-z0-9+/]{{40,}}={{0,2}}"),
    ("docker", ("auth=",), rf"""((?<=["'])auth\\{{0,3}}["'][ \t]{{0,4}}:[ \t]{{0,4}}\\{{0,3}}["']){_BASE64_AUTH}"""
     r"""(?=\\{0,3}["'])"""),
    ("netrc", ("machine *password",), f"({_begin('machine')}{_BLANK}{_HOST}{_BLANK}login{_BLANK}"
     rf"""[^ \t\r\n"'\\]{{1,100}}{_BLANK}password{_BLANK}){_NO_PLACEHOLDER}[^ \t\r\n"'\\]{{1,200}}"""),
    ("curl", ("curl *-u", "curl *--user"), rf"({_begin('curl')}(?: (?!-u|--user)[^ \r\n|;&]{{0,100}}){{0,12}}"
     rf""" (?:-u ?|--user[ =])["']?[^ :"'\[\r\n\\]{{1,100}}:){_NO_PLACEHOLDER}[^ "'\r\n\\]{{1,200}}"""),
    ("jwt", ("^eyJ",), _begin("eyJ", "A-Za-z0-9_-") + r"[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{10,}"),
    ("authorization", ("authorization=",), f"((?ai:authorization){_ASSIGNED}(?ai:bearer|basic|token) {{1,4}})"
     "[A-Za-z0-9._~+/-]{6,}={0,2}"),
    ("bearer", ("bearer ",), "((?ai:bearer) {1,4})(?=[A-Za-z0-9._~+/-]{0,100}[0-9])"
     "[A-Za-z0-9._~+/-]{16,}={0,2}"),
    ("url", ("://*@",), rf"""(://[^/@:\[ "'<>\t\r\n\\]{{0,100}}:){_NO_PLACEHOLDER}[^/@ "'<>\t\r\n\\]{{1,200}}(?=@)"""),
    ("password", _PASSWORD_HINTS, f"({_PASSWORD_WORD}{_ASSIGNED}){_value(6, _with('0-9'))}"),
    ("secret", _SECRET_HINTS, f"({_SECRET_WORD}{_ASSIGNED}){_value(12, _with('0-9') + _with('A-Za-z'))}"),
    ("secret", (*_PASSWORD_HINTS, *_SECRET_HINTS), rf"""({_LOUD_WORD}=\\{{0,3}}["']?){_value(6)}"""),
)  # fmt: skip

# Members whose name says that they hold one, whatever it looks like: their text, without _ and - in the name.
_PASSWORD_NAMES = _names("password passwd passphrase")
_SECRET_NAMES = _names(
    """secret clientsecret apikey xapikey apitoken accesstoken refreshtoken authtoken sessiontoken bearertoken secretkey
    accesskey secretaccesskey privatekey"""
)
_AUTHORIZATION_NAMES = _names("authorization proxyauthorization")
_LOUD_ENDS = ("_PASSWORD", "_PASSWD", "_PASSPHRASE", "_SECRET", "_TOKEN", "_API_KEY", "_SECRET_KEY", "_ACCESS_KEY")
_PLACEHOLDERS = ("$", "<", "{", "%", "*", "[")  # what such a text begins with
_SHORTEST_SECRET = 6
_SHORTEST_TOKEN = 12  # of a member `token`, which has a digit besides: a model's tokens are words
_SHORTEST_FOUND = 6  # in a text, whatever the name of its member: `://:x@`
_COOKIE_LENGTH = 64
_IDS_END = ("Id", "_id")
_IDS = ("id", "parentSession", "subsession", "timestamp", "type", "hook_event_name")
_CUSTOM = "custom"
_HINT_SPAN = 4_000  # of the two parts of a hint, in JSON text; between those of a URL stand at most 304 characters
_URL_SPAN = 400
_ASSIGNED_SPAN = 17  # of a word and its `=` in JSON text, where a quote, a tab or a backslash is two letters
_PIECE = 1 << 15  # of a long text: while `re` searches, no other thread of the program runs
_OVERLAP = 1 << 13  # what matches an own pattern is no longer, or it begins and ends within one piece
_BESIDE = 200  # how far what a pattern looks at goes beyond what it matches
_BEFORE_SECRETS = ("access", "auth", "refresh", "session", "bearer", "api", "client", "secret", "private")


def _secret_by_name(name: str, text: str) -> str:
    """What is redacted of the text of a member with this name; empty: nothing."""
    if not text or text.startswith(_PLACEHOLDERS):
        return ""
    name = name.rpartition(".")[2]
    plain = name.replace("_", "").replace("-", "").lower()
    if plain in _PASSWORD_NAMES:
        return "password"
    if plain in _AUTHORIZATION_NAMES:
        return "authorization"
    if plain == "token":
        return "secret" if len(text) >= _SHORTEST_TOKEN and any(map(str.isdigit, text)) and _is_word(text) else ""
    if plain == "auth":
        return "docker" if len(text) >= _SHORTEST_TOKEN and _table().auth.fullmatch(text) else ""
    if plain == "sessionstore":
        return "session-store" if len(text) == _COOKIE_LENGTH and _is_word(text) else ""
    is_loud = name.endswith(_LOUD_ENDS) and name == name.upper()
    is_long = len(text) >= _SHORTEST_SECRET
    return "secret" if is_long and (is_loud or plain in _SECRET_NAMES) and _is_word(text) else ""


def _is_word(text: str) -> bool:
    return len(text.split(None, 1)) == 1


def names_something(name: str) -> bool:
    """Whether a member of this name, beside the type of an event, is what the store finds things by."""
    return name in _IDS or name.endswith(_IDS_END)


def _is_hinted(text: str, hint: str) -> bool:
    if hint[0] == "^":
        return _begins_word(text, hint[1:])
    if hint[-1] == "=":
        return _is_assigned(text, hint[:-1])
    first, _, last = hint.partition("*")
    at, span = text.find(first), _URL_SPAN if first == "://" else _HINT_SPAN
    while last and at >= 0:
        end = text.find(last, at)
        if end <= at + span:
            return end >= 0
        at = text.find(first, max(at + 1, end - span))
    return at >= 0


def _begins_word(text: str, word: str) -> bool:
    at = text.find(word)
    while at > 0 and text[at - 1].isalnum() and text[at - 1].isascii() and not _is_escape(text[max(0, at - 6) : at]):
        at = text.find(word, at + 1)
    return at >= 0


def _is_escape(before: str) -> bool:
    """Whether the end of JSON text is a character that it does not have as it is: `\\n`, `\\u001b`."""
    return before[-2:-1] == "\\" or (len(before) == 6 and before.startswith("\\u"))


def _is_assigned(text: str, word: str) -> bool:
    at = text.find(word)
    while at >= 0 and text[at + len(word) : at + len(word) + _ASSIGNED_SPAN].lstrip("\"'\\ \tt")[:1] not in (":", "="):
        at = text.find(word, at + 1)
    return at >= 0


class Redaction:
    """Takes secrets out of data: those of the formats above, and whatever else matches `own`, pairs of a name and a
    regular expression. The same data, redacted once more, stays as it is. Raises ValueError for a bad expression."""

    def __init__(self, own: Iterable[tuple[str, str]] = ()) -> None:
        self._own = [(f"[redacted:{name}]", _checked_pattern(pattern)) for name, pattern in own]
        self.has_own = bool(self._own)
        self._shortest = 0 if self._own else _SHORTEST_FOUND

    def concerns(self, text: str) -> bool:
        """Whether JSON text, as it is written, may hold any: cheap, and right where the answer is no."""
        if self.has_own or ("\\u00" in text and any(f"\\u00{digit}" in text for digit in "234567")):  # a letter so
            return True
        lower = text.lower()
        if "re" in sys.modules and not has_reason(lower):  # a hook looks without it, which takes less than to import it
            return False
        hints = (hint for _, hints, _ in SECRETS for hint in hints)
        return any(_is_hinted(lower if hint == hint.lower() else text, hint) for hint in hints)

    def data(self, data: Members) -> Members:
        """The data of an event, without secrets in its texts. Names of members stay, and so do the ids beside them."""
        return {name: value if names_something(name) else self._value(value, name) for name, value in data.items()}

    def _value(self, value: Any, name: str) -> Any:
        if isinstance(value, str):
            return self.member(name, value)
        if isinstance(value, dict):
            return {name: self._value(part, name) for name, part in value.items()}
        return [self._value(part, "") for part in value] if isinstance(value, list) else value

    def member(self, name: str, text: str) -> str:
        """The text of a member without secrets."""
        redacted = text if len(text) < self._shortest else self.text(text)
        secret = _secret_by_name(name, redacted) if name else ""
        if not secret or redacted != text:
            return redacted
        scheme, _, rest = text.partition(" ")
        keeps_scheme = secret == "authorization" and rest and scheme.isalpha()
        return f"{scheme} [redacted:{secret}]" if keeps_scheme else f"[redacted:{secret}]"

    def text(self, text: str) -> str:
        """The text without secrets."""
        lower = _lower(text)
        if words := self.words_in(lower):
            text = _table().without_secrets(text, lower, words)
        for marker, regex in self._own:
            text = _without_own(text, regex, marker)
        return text

    def words_in(self, lower: str) -> Iterable[str]:
        """What secrets begin with of that which is in a text, in lower case."""
        return [word for word in _table().words if word in lower] if has_reason(lower) else ()


# Most texts hold none, and are let through by one look at them; in those that may, each row of the table is tried where
# one of its hints is, and nowhere else. No step of that takes long: while `re` is at work, no other thread runs.


def _lower(text: str) -> str:
    """In lower case, and each letter where it was."""
    return text.replace("\u0130", "i").lower()


def has_reason(lower: str) -> bool:
    """Whether a text, in lower case, has any of the hints in it, whatever is around them."""
    return any(_found_in_pieces(_table().reason, lower))


def _found_in_pieces(regex: Any, text: str) -> Iterator[Any]:
    """What it finds in a piece after the other, which overlap: what is found in both, twice."""
    for at in range(0, len(text), _PIECE):
        yield from regex.finditer(text, at, at + _PIECE + _BESIDE)


_tables: list[_Table] = []


def _table() -> _Table:
    if not _tables:
        _tables.append(_Table())
    return _tables[0]


class _Table:
    """SECRETS at work."""

    def __init__(self) -> None:
        import re

        self.rows: dict[int, _Row] = {}
        self.words: dict[str, list[int]] = {}  # and which rows begin with them
        for index, (_, hints, _) in enumerate(SECRETS):
            for word in _words(hints):
                self.words.setdefault(word, []).append(index)
        self.reason = re.compile(_search_for({hint for _, hints, _ in SECRETS for hint in hints}))
        self.auth = re.compile(_BASE64_AUTH)

    def without_secrets(self, text: str, lower: str, words: Iterable[str]) -> str:
        for index in sorted({index for word in words for index in self.words[word]}):
            if index not in self.rows:
                self.rows[index] = _Row(*SECRETS[index])
            redacted = self.rows[index].replaced(text, lower)
            if redacted is not text:
                text, lower = redacted, _lower(redacted)
        return text


def _words(hints: tuple[str, ...]) -> set[str]:
    """What a match begins with, in lower case."""
    return {_word_of(hint) for hint in hints}


def _word_of(hint: str) -> str:
    return hint.partition("*")[0].strip("^=").lower()


class _Row:
    def __init__(self, name: str, hints: tuple[str, ...], pattern: str) -> None:
        import re

        words = _words(hints)
        self._marker = f"[redacted:{name}]"
        self._pattern = re.compile(pattern)
        self._begin = re.compile(_beginning(words | set(_BEFORE_SECRETS if "token" in words else ())))

    def replaced(self, text: str, lower: str) -> str:
        """As the pattern's `sub` does it, which would hold the interpreter for as long as a long text takes."""
        done, parts = 0, []
        match, has_kept = self._pattern.match, self._pattern.groups > 0
        for beginning in _found_in_pieces(self._begin, lower):
            at = beginning.start()
            if at >= done and (found := match(text, at)):
                parts += [text[done:at], found[1] if has_kept else "", self._marker]
                done = found.end()
        return "".join([*parts, text[done:]]) if parts else text


def _beginning(words: set[str]) -> str:
    """A pattern for the first letter of any of the words, also where they overlap."""
    rests: dict[str, list[str]] = {}
    for word in sorted(words):
        rests.setdefault(_escaped(word[0]), []).append(_escaped(word[1:]))
    return "|".join(f"{first}(?={'|'.join(rest)})" for first, rest in rests.items())


_RARE = "@_-zqxjkvbwyfgmpucld:rhsnioate./ 0123456789"  # characters that stand in JSON text, about the rarest first


def _search_for(hints: set[str]) -> str:
    """A pattern for any of them in lower case. `re` skips to a letter that it knows: so each begins with its rarest."""
    stops: dict[str, list[str]] = {}
    for hint in sorted(hints):
        text = (hint.partition("*")[2] or hint).strip("^=").lower()
        at = min(range(len(text)), key=lambda index: _RARE.find(text[index]))
        around = f"(?<={_escaped(text[: at + 1])}){_escaped(text[at + 1 :])}"
        stops.setdefault(_escaped(text[at]), []).append(around)
    return "|".join(f"{letter}(?:{'|'.join(around)})" for letter, around in stops.items())


def _escaped(text: str) -> str:
    return "".join(character if character.isalnum() else f"\\{character}" for character in text)


def _without_own(text: str, regex: Any, marker: str) -> str:
    """As `sub` does it, a piece of the text at a time."""
    done, at, parts = 0, 0, []
    while at < len(text):
        end = at + _PIECE
        found = regex.search(text, at, end)
        if found and found.end() > end - _BESIDE and end < len(text):
            found, at = regex.match(text, found.start()), found.start() + 1
        elif not found:
            at += _PIECE - _OVERLAP if end < len(text) else _PIECE
        if found:
            parts += [text[done : found.start()], marker]
            done = at = found.end() + (found.end() == found.start())
    return "".join([*parts, text[done:]]) if parts else text


def _checked_pattern(pattern: str) -> Any:
    """Raises ValueError where it is not one, or would match what is redacted already, or nothing at all."""
    import re

    try:
        regex = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    if regex.search("") or regex.search(f"[redacted:{_CUSTOM}]"):
        raise ValueError(f"{pattern!r} matches what holds no secret, such as an empty text")
    return regex


def own_patterns(setting: str, *, is_hasty: bool = False) -> tuple[tuple[str, str], ...] | None:
    """What `on` (none), `off` (None) or the path of a file with further patterns stands for. Raises ValueError.

    That some pattern would take long is not found out by one who `is_hasty`, or has no hook_agent_patterns.py.

    Each line of the file is a regular expression, before which may stand a name: `acme: ACME-[0-9a-f]{32}`. Empty
    lines and those that begin with # say nothing.
    """
    if setting in ("", "on"):
        return ()
    if setting == "off":
        return None
    try:
        with open(setting, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"must be on, off, or a file of patterns that can be read ({error})") from None
    own = []
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            try:
                own.append(_named_pattern(line.strip()))
                if not is_hasty and (checks := _beside_or_none("hook_agent_patterns")):
                    checks.refuse_slow(own[-1][1])
            except ValueError as error:
                raise ValueError(f"line {number} of {setting}: {error}") from None
    return tuple(own)


def _named_pattern(line: str) -> tuple[str, str]:
    name, colon, pattern = line.partition(": ")
    is_named = colon and 0 < len(name) <= 32 and name.isascii() and name.replace("-", "").isalnum()
    named = (name, pattern.strip()) if is_named else (_CUSTOM, line)
    _checked_pattern(named[1])
    return named


_chosen: list[Redaction | None] = []


def _redaction(is_silent: bool = False) -> Redaction | None:
    """As SESSION_REDACT says. Where it cannot be used that is said once, and what is redacted anyway is."""
    if not _chosen:
        setting = _setting("SESSION_REDACT")
        try:
            own = own_patterns(setting, is_hasty=is_silent)
            _chosen.append(None if own is None else Redaction(own))
        except ValueError as error:
            _chosen.append(Redaction())
            if not is_silent:
                _tell(f"SESSION_REDACT={setting}: {error}")
    return _chosen[0]


def _tell(text: str) -> None:
    """Past Python's buffers: the interpreter aborts if it ends while another thread is in those of stderr."""
    line, is_ours = f"hook_agent: {text}\n", sys.stderr is sys.__stderr__
    with _suppress(Exception):
        os.write(sys.stderr.fileno(), line.encode()) if is_ours else sys.stderr.write(line)


# ---------------------------------------------------------------------------------------------------------------------
# Spool
# ---------------------------------------------------------------------------------------------------------------------

# Durable queue: a segmented, append-only log on disk, shared between processes by flock, with a dead-letter queue.
# Above its high-water mark the oldest segments are dropped, and counted.
#
# One line is one event, or a hook's payload as it came. All processes append to the newest segment, so that the order
# of the lines is the order in which things were said. A line outlives every process as soon as it is written; only what
# has to wait for the store is fsynced, too, by whoever waits.
#
#     00000007.ndjson     a segment; numbers only rise
#     position.json       how much of the first segment has been delivered
#     lock                flock: whoever changes the folder holds it, for microseconds. Its content is the last number
#     sender.lock         flock: whoever delivers holds it for as long as he lives. Content: his process id, how it goes
#     told.json           what was known there of what hooks have told, and at the place before
#     programs/ID         flock, shared: each program that is to end that session holds it
#     dropped.json        how much had to go for the bound, by session; reporting.json while the store is being told
#     dead/               what the store refused for good, and why

_SPOOL_BYTES = 64 << 20
_SEGMENT_BYTES = 1 << 20
_DEAD_BYTES = 4 << 20  # of each of two files
_LETTERS = ("dead/letters-before.ndjson", "dead/letters.ndjson")
_LOCK_SECONDS = 1.0
_LOCK_POLL_SECONDS = 0.0002
_BATCH_BYTES = 512 << 10
_SMALL_BATCH_BYTES = 16 << 10  # of a store, or a way to it, that is slow
_BATCH_EVENTS = 500
_SERVICE_URL = "http://localhost:9000"
_OPEN = posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_CLOEXEC


class SpoolUnusable(OSError):
    """There is no folder that a spool could be in."""


class _Batch:
    """Whole lines from the beginning of what waits, and the offsets at which they begin and end."""

    def __init__(self, segment: int, start: int, lines: list[bytes], end: int) -> None:
        self.segment, self.start, self.lines, self.end = segment, start, lines, end


class Spool:
    """The folder in which events for one store wait until that store has them."""

    def __init__(self, service_url: str, folder: str | None = None, limit: int = _SPOOL_BYTES) -> None:
        self.folder, self.limit = "", limit
        self.segment_bytes = min(_SEGMENT_BYTES, limit // 8)
        self.service_url, self._chosen = service_url, folder
        self._position: Members = {}
        self._held: _Lock | None = None

    # Where it is

    def settle(self) -> None:
        """Find the first folder that can be written to, and locked in. Raises SpoolUnusable."""
        name = _folder_name(self.service_url)
        for parent in (self._chosen_folder, _temporary_folder):
            try:
                folder = f"{parent()}/{name}"
                _check_lockable(folder)
            except OSError:
                continue
            self.folder = folder
            return
        raise SpoolUnusable(
            f"Neither {self._chosen_folder()} nor a folder for temporary files can be written to: set SESSION_SPOOL_DIR"
        )

    def _chosen_folder(self) -> str:
        return self._chosen or _default_folder()

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def _segment(self, number: int) -> str:
        return f"{self.folder}/{number:08}.ndjson"

    def _names(self) -> list[str]:
        try:
            found = posix.scandir(self.folder) if self.folder else ()
            return [it.name for it in found if it.is_file(follow_symlinks=False)]
        except FileNotFoundError:
            return []

    def segments(self) -> list[int]:
        """Their numbers, rising, but for those of another user. Other agents may keep files of their own here."""
        numbers = [int(name[:-7]) for name in self._names() if name.endswith(".ndjson") and name[:-7].isdecimal()]
        return sorted(it for it in numbers if posix.access(self._segment(it), posix.R_OK | posix.W_OK))

    # Appending

    def append(self, lines: bytes) -> tuple[int, int]:
        """Add whole lines: the segment and the offset at which they end. Raises OSError, and then none was added."""
        if self._held is not None:
            return self._append(lines, self._held)
        with _Lock(self) as lock:
            return self._append(lines, lock)

    def _append(self, lines: bytes, lock: _Lock) -> tuple[int, int]:
        number, descriptor = self._newest(len(lines), lock)
        try:
            length = posix.fstat(descriptor).st_size
            if length and posix.pread(descriptor, 1, length - 1) != b"\n":  # a writer was killed in its last line
                lines = b"\n" + lines
            if posix.write(descriptor, lines) != len(lines):
                posix.ftruncate(descriptor, length)
                raise OSError("the disk is full")
        finally:
            posix.close(descriptor)
        return number, length + len(lines)

    def _newest(self, size: int, lock: _Lock) -> tuple[int, int]:
        """The segment to append to: its number, and itself, opened."""
        numbers = self.segments()
        if lock.is_held:
            if numbers and posix.stat(self._segment(numbers[-1])).st_size + size <= self.segment_bytes:
                return numbers[-1], posix.open(self._segment(numbers[-1]), _OPEN | posix.O_APPEND, 0o600)
            self._make_room(numbers, size)
        number = max([lock.number, *numbers]) + 1
        while not lock.is_held and os.path.exists(self._segment(number)):  # others may be doing the same
            number += 1
        lock.number = number  # before: what cannot be made, as something else has its name, is passed over by the next
        return number, posix.open(self._segment(number), _OPEN | posix.O_APPEND | posix.O_EXCL, 0o600)

    # The bound

    def _make_room(self, numbers: list[int], size: int) -> None:
        """Remove the oldest segments until there is room for a new one; what goes is noted first."""
        sizes = [os.stat(self._segment(number)).st_size for number in numbers]
        room = self.limit - max(self.segment_bytes, size)
        while numbers and sum(sizes) > room:
            number, _ = numbers.pop(0), sizes.pop(0)
            with open(self._segment(number), "rb") as segment:
                segment.seek(self._offset(number))
                self._note_dropped(_tally(segment))
            self._forget(number)

    def note_dropped(self, tally: Tally) -> None:
        with _Lock(self, must_be_held=True):
            self._note_dropped(tally)

    def _note_dropped(self, tally: Tally) -> None:
        noted = self._read_json("dropped.json", _NOTED) or {"id": _event_id(), "sessions": {}}
        _add(noted["sessions"], tally)
        self._write("dropped.json", noted)

    def note_not_dropped(self, tally: Tally) -> None:
        """Take back what was delivered while its segment was being dropped."""
        with _Lock(self, must_be_held=True):
            noted = self._read_json("dropped.json", _NOTED)
            for session in tally.keys() & noted.get("sessions", {}).keys():
                noted["sessions"][session]["count"] -= tally[session]["count"]
            if noted:
                self._write("dropped.json", noted)

    def dropped(self) -> Members:
        """What the store is to be told, the same until `told_dropped`: {"id", "sessions": {ID: {"count", …}}}."""
        names = self._names()
        if "reporting.json" not in names:
            if "dropped.json" not in names:
                return {}
            with _Lock(self, must_be_held=True):
                os.rename(self.path("dropped.json"), self.path("reporting.json"))
        return self._read_json("reporting.json", _NOTED) or {"sessions": {}}

    def dropped_so_far(self) -> Tally:
        """What had to go and the store has not been told of."""
        tally: Tally = {}
        for name in ("reporting.json", "dropped.json"):
            _add(tally, self._read_json(name, _NOTED).get("sessions", {}))
        return tally

    def told_dropped(self) -> None:
        os.unlink(self.path("reporting.json"))

    # Delivering

    def read(self, most: int = _BATCH_BYTES) -> _Batch | None:
        """What is next, about so many bytes, without removing it; None: nothing waits."""
        while numbers := self.segments():
            batch = self._read(numbers[0], most)
            if batch.lines:
                return batch
            self.done(batch)
        return None

    def _read(self, number: int, most: int) -> _Batch:
        """Under the lock, so that a last line without its end is one that no writer is going to end."""
        start = self._offset(number)
        data = b""  # also if it was dropped since it was listed
        with _Lock(self, must_be_held=True), _suppress(FileNotFoundError), open(self._segment(number), "rb") as segment:
            segment.seek(start)
            data = segment.read(most)
            if b"\n" not in data:
                data += segment.readline()
        whole = data.rfind(b"\n") + 1 or len(data)
        lines: list[bytes] = []
        end = start
        for line in data[:whole].split(b"\n")[:_BATCH_EVENTS]:
            end = min(end + len(line) + 1, start + whole)
            if line.strip():
                lines.append(line)
        return _Batch(number, start, lines, end)

    def done(self, batch: _Batch) -> None:
        """The store has the batch. A segment of which it has all goes, unless it has grown."""
        with _Lock(self, must_be_held=True):
            size = -1
            with _suppress(FileNotFoundError):
                size = os.stat(self._segment(batch.segment)).st_size
            if size > batch.end:
                self._note_position(batch)
            elif size >= 0:
                self._forget(batch.segment)
        if size < 0 and batch.lines:
            self.note_not_dropped(_tally(batch.lines))

    def _forget(self, number: int) -> None:
        """First the position: one that is missing costs a second delivery, one that is wrong would cost events."""
        if os.path.exists(self.path("position.json")):
            os.unlink(self.path("position.json"))
        os.unlink(self._segment(number))

    def _note_position(self, batch: _Batch) -> None:
        """In memory as well: on a full disk nothing is freed unless delivery goes on."""
        self._position = {"segment": batch.segment, "offset": batch.end}
        with _suppress(OSError):
            self._write("position.json", self._position)

    def _offset(self, number: int) -> int:
        """How much of it is delivered: none, by a position between whose writing and now a crash has cut it."""
        positions = (self._position, self._read_json("position.json", {"segment": 0, "offset": 0}))
        offset = max(position["offset"] if position.get("segment") == number else 0 for position in positions)
        with _suppress(FileNotFoundError), open(self._segment(number), "rb") as segment:
            return offset if offset > 0 and b"\n" in os.pread(segment.fileno(), 2, offset - 1) else 0
        return offset

    def waiting(self) -> Tally:
        """What waits, by session."""
        tally: Tally = {}
        for number in self.segments():
            with open(self._segment(number), "rb") as segment:
                segment.seek(self._offset(number))
                _add(tally, _tally(segment))
        return tally

    def has_delivered(self, mark: tuple[int, int]) -> bool:
        """Whether everything up to there is gone from here: delivered, refused for good, or dropped."""
        first = next(iter(self.segments()), None)
        return first is None or (first, self._offset(first)) >= mark

    # What is known from before: it belongs to a place, so that who reads lines again begins with what was known before

    def told_before(self, batch: _Batch) -> Members:
        place = [batch.segment, batch.start]
        known = self._read_json("told.json").get("known")
        likely = (one for one in known if _is_like(one, _TOLD)) if isinstance(known, list) else ()
        return next((one["state"] for one in likely if one["place"] <= place), {})

    def note_told(self, batch: _Batch, state: Members) -> None:
        """Before the batch is done: what is known at its end, and at its beginning, where a kill may leave us."""
        before = {"place": [batch.segment, batch.start], "state": self.told_before(batch)}
        now = {"place": [batch.segment, batch.end], "state": state}
        with _suppress(OSError), _Lock(self, must_be_held=True):
            self._write("told.json", {"known": [now, before]})

    # Who delivers

    def who_delivers(self) -> int | None:
        """The process; None: nobody does."""
        lock = _sender_lock(self)
        if lock is None:
            return int(self._signature()[0])
        os.close(lock)
        return None

    def word(self) -> str:
        """What whoever delivers says of the store: `there`, `away`, `refuses` (the token), or `fails` itself."""
        return self._signature()[1]

    def trouble(self) -> str:
        """Why the store did not take it at the last try; empty if it did."""
        return self._signature()[2]

    def _signature(self) -> tuple[str, str, str]:
        try:
            with open(self.path("sender.lock"), encoding="utf-8", errors="replace") as file:
                process, word, *trouble = file.read().split(None, 2)
        except (OSError, ValueError):  # not there, or just being written
            return "0", "there", ""
        return process, word, "".join(trouble).rstrip()

    def sync(self) -> None:
        """What has to wait is to outlive a crash of the machine as well, if that can be done."""
        for number in self.segments()[-1:]:
            with _suppress(OSError), open(self._segment(number), "rb") as segment:
                os.fsync(segment.fileno())

    # Programs that work on one session at the same time: it ends with the last

    def join(self, session: str) -> int:
        """Count as a program of the session until the descriptor is closed, at the latest by a kill. Raises OSError."""
        with _Lock(self, must_be_held=True):
            os.makedirs(self.path("programs"), 0o700, exist_ok=True)
            descriptor = posix.open(self.path(f"programs/{session}"), _OPEN, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            return descriptor

    def leave(self, session: str, descriptor: int | None, tell: Callable[[bool], Members]) -> Members:
        """Have an end told: `tell` learns whether it is the last one's. No other is told at the same time."""
        try:
            lock = _Lock(self, must_be_held=True).__enter__()
        except OSError:  # without a folder nobody knows of others
            return tell(True)
        try:
            self._held = lock
            is_last = not self._has_program(session, descriptor)
            if is_last:
                with _suppress(OSError):
                    os.unlink(self.path(f"programs/{session}"))
            return tell(is_last)
        finally:
            self._held = None
            lock.__exit__(None, None, None)

    def has_program(self, session: str) -> bool:
        with _suppress(OSError), _Lock(self, must_be_held=True):
            return self._has_program(session)
        return False

    def _has_program(self, session: str, own: int | None = None) -> bool:
        """Whether there is one, apart from the own, which is over with this. Under the lock."""
        with _suppress(OSError):
            if own is None:
                own = posix.open(self.path(f"programs/{session}"), posix.O_RDWR | posix.O_CLOEXEC)
            try:
                return not _try_lock(own)
            finally:
                posix.close(own)
        return False

    # Dead letters

    def bury(self, record: bytes, status: int | None, reason: str) -> None:
        """Keep what the store refused for good, with the reason; the oldest go."""
        text = record[:_EVENT_BYTES].decode(errors="replace")
        letter = _encoded({"at": _now(), "status": status, "reason": _clean(reason), "record": text}) + b"\n"
        os.makedirs(self.path("dead"), 0o700, exist_ok=True)
        before, name = map(self.path, _LETTERS)
        with _Lock(self, must_be_held=True):
            if os.path.exists(name) and os.stat(name).st_size + len(letter) > _DEAD_BYTES:
                os.replace(name, before)
            with os.fdopen(os.open(name, _OPEN | os.O_APPEND, 0o600), "ab") as file:
                file.write(letter)

    def letters(self) -> int:
        """How many dead letters there are."""
        return sum(len(self._letters_in(name)) for name in _LETTERS)

    def _letters_in(self, name: str) -> list[bytes]:
        with _suppress(OSError), open(self.path(name), "rb") as file:
            return file.read().splitlines()
        return []

    def raise_dead(self) -> None:
        """Put the dead letters behind what waits: those that are refused again will be dead again."""
        with _Lock(self, must_be_held=True) as lock:
            for name in _LETTERS:
                records = [_record_of(letter) for letter in self._letters_in(name)]
                if lines := b"".join(record + b"\n" for record in records if record):
                    self._append(lines, lock)
                with _suppress(OSError):
                    os.unlink(self.path(name))

    # Small files

    def _read_json(self, name: str, like: Members | None = None) -> Members:
        """{} for one that is not there, that a crash of the machine has damaged, or that is not `like` what is ours."""
        with _suppress(OSError, ValueError), open(self.path(name), "rb") as file:
            return value if _is_like(value := _decoded(file.read()), like or {}) else {}
        return {}

    def _write(self, name: str, value: Members) -> None:
        """Whole or not at all; only under the lock."""
        with os.fdopen(os.open(self.path(f"{name}.new"), _OPEN | os.O_TRUNC, 0o600), "wb") as file:
            file.write(_encoded(value))
        os.replace(self.path(f"{name}.new"), self.path(name))


def _suppress(*errors: type[BaseException]) -> AbstractContextManager[None]:
    from contextlib import suppress

    return suppress(*errors)


_TOLD = {"place": (0, 0), "state": {}}
_NOTED = {"id": "", "sessions": {"": {"count": 0, "from": "", "to": ""}}}


def _is_like(value: Any, like: Any) -> bool:
    """Whether JSON is made like an example, in which "" is any name, and a tuple a list of so many."""
    if isinstance(like, tuple):
        return isinstance(value, list) and len(value) == len(like) and all(map(_is_like, value, like))
    if not isinstance(like, dict) or not isinstance(value, dict):
        return type(value) is type(like)
    named = {**dict.fromkeys(value, like[""])} if "" in like else like
    return all(_is_like(value.get(name), part) for name, part in named.items())


def _check_lockable(folder: str) -> None:
    """Make the folder if need be. Raises OSError."""
    path = f"{folder}/lock"
    try:
        descriptor = posix.open(path, _OPEN, 0o600)
    except FileNotFoundError:
        os.makedirs(folder, 0o700, exist_ok=True)
        descriptor = posix.open(path, _OPEN, 0o600)
    try:
        _try_lock(descriptor)
    finally:
        posix.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Lock:
    """The spool's lock, which nobody holds for long.

    An agent is not to wait for one who was stopped while he held it: after a second `is_held` is False, and a writer
    then begins a segment of its own. With `must_be_held` BlockingIOError is raised instead.
    """

    def __init__(self, spool: Spool, must_be_held: bool = False) -> None:
        self._spool, self._must_be_held, self.is_held = spool, must_be_held, False

    def __enter__(self) -> _Lock:
        self._descriptor = self._opened()
        deadline = 0.0
        self.is_held = _try_lock(self._descriptor)
        while not self.is_held:
            deadline = deadline or time.monotonic() + _LOCK_SECONDS
            if time.monotonic() > deadline:
                break
            time.sleep(_LOCK_POLL_SECONDS)
            self.is_held = _try_lock(self._descriptor)
        if self._must_be_held and not self.is_held:
            posix.close(self._descriptor)
            raise BlockingIOError(f"{self._spool.folder} is locked")
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_held:  # not left to close(): a process forked meanwhile has the descriptor as well
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        posix.close(self._descriptor)

    def _opened(self) -> int:
        for _ in range(2):
            if self._spool.folder:
                try:
                    return posix.open(self._spool.path("lock"), _OPEN, 0o600)
                except FileNotFoundError:  # somebody has removed the folder
                    pass
            self._spool.settle()
        raise SpoolUnusable(f"{self._spool.folder} is removed again and again")

    @property
    def number(self) -> int:
        """The highest number that a segment was ever given."""
        text = posix.pread(self._descriptor, 8, 0)
        return int(text) if text.isdigit() else 0

    @number.setter
    def number(self, number: int) -> None:
        posix.pwrite(self._descriptor, b"%08d" % number, 0)


def _sender_lock(spool: Spool) -> int | None:
    """Become the one who delivers, if nobody is."""
    descriptor = posix.open(spool.path("sender.lock"), _OPEN, 0o600)
    if _try_lock(descriptor):
        return descriptor
    posix.close(descriptor)
    return None


def _sign(lock: int, word: str) -> None:
    """Leave word of who delivers, and how it goes; on a full disk there is none."""
    with _suppress(OSError):
        posix.ftruncate(lock, 0)
        posix.pwrite(lock, f"{os.getpid()} {word}\n".encode(), 0)


def _folder_name(service_url: str) -> str:
    """One spool for each store, so that nothing is delivered to the wrong one."""
    name = service_url.rstrip("/")
    letters = (character if character.isalnum() and character.isascii() else "-" for character in name)
    return "".join(letters)[:100] or "-"


def _default_folder() -> str:
    if chosen := _setting("SESSION_SPOOL_DIR"):
        return chosen if chosen.startswith("/") else os.path.abspath(chosen)
    state = _setting("XDG_STATE_HOME") or f"{_setting('HOME') or os.path.expanduser('~')}/.local/state"
    return f"{state}/session-store/spool"


def _temporary_folder() -> str:
    """For where there is no other. Raises OSError if somebody else has made it, or something else in its place."""
    import stat

    folder = os.path.join(_setting("TMPDIR") or "/tmp", f"session-store-{os.getuid()}")
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise SpoolUnusable(f"{folder} is not this user's own folder") from None
    return os.path.join(folder, "spool")


def _spool_limit() -> int:
    text = _setting("SESSION_SPOOL_BYTES")
    return int(text) if text.isdigit() and int(text) else _SPOOL_BYTES


def _record_of(letter: bytes) -> bytes:
    """What was refused, as it was in the spool; empty where a kill has left only half of the letter."""
    try:
        return _clean(_decoded(letter)["record"]).encode()
    except (ValueError, LookupError, TypeError):
        return b""


def _tally(lines: Iterable[bytes]) -> Tally:
    """How many events there are by session, and the times of the first and the last, read off without decoding."""
    tally: Tally = {}
    for line in lines:
        session = _session_of(line)
        if not session:
            continue
        moment = _member(line, b'"timestamp":"')
        known = tally.setdefault(session, {"count": 0, "from": moment, "to": moment})
        known["count"] += 1
        known["to"] = moment
    return tally


def _session_of(line: bytes) -> str:
    """Empty where neither the line nor the hook's payload in it says so; that could not have been delivered."""
    if line.startswith(b'{"sessionId":"'):
        return _member(line, b'"sessionId":"')
    return _member(line, b'"session_id":"') or _member(line, b'"session_id": "')


def _add(tally: Tally, later: Tally) -> None:
    for session, more in later.items():
        known = tally.setdefault(session, {**more, "count": 0})
        known["count"] += more["count"]
        known["to"] = more["to"]


def _member(line: bytes, name: bytes) -> str:
    at = line.find(name)
    if at < 0:
        return ""
    start = at + len(name)
    return line[start : line.find(b'"', start)].decode(errors="replace")


# ---------------------------------------------------------------------------------------------------------------------
# Claude Code's hooks
# ---------------------------------------------------------------------------------------------------------------------

# A payload goes to the store as it is, which maps it; beside it stands what only this side knows: `HookNarrator`
# deduplicates, and attributes each to a program of the session.

_BATCH_MARKS = b"tool_use_error>|user doesn|interrupted by|rejected|ermission|approval|Auto mode".split(b"|")


def tells_something_new(payload: bytes) -> bool:
    """Whether a hook's payload can say what no other hook says: all of PostToolBatch but a few is told by others.

    For the hook command, which decodes nothing: true where it is not sure.
    """
    return not _is_of(b'"PostToolBatch"', payload) or any(mark in payload for mark in _BATCH_MARKS)


def _is_of(hook: bytes, payload: bytes) -> bool:
    _, _, rest = payload.partition(b'"hook_event_name"')
    return rest.lstrip(b" \t\r\n:").startswith(hook)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


_SAME_MILLISECONDS = 2000  # in which several hooks tell of one happening
_SESSIONS_KNOWN = 200
_PROGRAMS_KNOWN = 100
_DIGEST_LENGTH = 16  # hex digits: enough to tell apart the payloads of one session
# Claude Code waits for all who are told of one of these, before another comes.
_IN_TURN = _names("SessionStart UserPromptSubmit Stop StopFailure SessionEnd")
_HOOK_LINE = b'{"type":"hook",'
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


_NEW: Members = {"main": "", "process": "", "isOver": True, "before": [], "lanes": [], "isToldOf": False}
_STATE = {"recent": {"": (0, "", "", "")}, "sessions": {"": _NEW}}


class HookNarrator:
    """Turns the records of hooks, in the order in which they were written, into the lines of a batch.

    It tells once what several hooks tell at once, makes a lane of another program of Claude Code that works in the
    session beside the one that goes on, and says why a session ended. What it knows is `state`, plain JSON, which
    belongs to a place in the records: who reads records again has to begin with the state of before them, and a copy
    of it is to be kept with the place.
    """

    def __init__(self, state: Members | None = None) -> None:
        self.state: Members = state if state and _is_like(state, _STATE) else {"recent": {}, "sessions": {}}
        self.heard: list[tuple[Members, Members, str]] = []  # of each hook what stood around it, it, and whose it is

    def line(self, record: bytes) -> bytes | None:
        """None of what was told already; a record that is an event already stays as it is.

        Raises ValueError if a hook's payload is no JSON.
        """
        head, named, payload = record.partition(b',"hook":')
        if not named or b',"data":' in head or not record.endswith(b"}"):
            return record
        known, text = _decoded(head + b"}"), payload[:-1].strip()
        try:
            body = _decoded(text)
        except _TooMuch:
            body = None
        session = _as_id(known["sessionId"], "session") if known["sessionId"] else None
        line = {"eventId": known["eventId"], "timestamp": known["timestamp"]}
        line.update({"sessionId": session} if session else {})
        line.update({"userId": user} if (user := _as_user(known.get("userId"))) else {})
        if isinstance(body, dict) and _text(body.get("hook_event_name")) and _is_id(session or body.get("session_id")):
            self.heard.append((known, body, session or body["session_id"]))
            if known.get("waits"):
                line["waits"] = True  # it is an ask of its own, however alike another is
            elif self._is_told(known, body, text):
                return None
            line.update(self._known(known, body, session))
        data = _redacted_by(_redaction(), text[len(_BYTE_ORDER_MARK) :] if text.startswith(_BYTE_ORDER_MARK) else text)
        return b'%s%s,"data":%s}' % (_HOOK_LINE, _encoded(line)[1:-1], data)

    # Once

    def _is_told(self, known: Members, payload: Members, text: bytes) -> bool:
        """Whether another record says the same, word for word, and is not two seconds older."""
        moment, recent = _milliseconds(known["timestamp"]), self.state["recent"]
        hook, call = payload["hook_event_name"], _text(payload.get("tool_use_id"))
        if hook in _IN_TURN:
            call = _text(payload.get("session_id"))
        for name, (at, _, its_hook, its_call) in list(recent.items()):
            is_over = call and its_call == call and its_hook != hook  # the next of this is another call, or turn
            if is_over or abs(moment - at) > _SAME_MILLISECONDS:
                del recent[name]
        digest = _sha256(_encoded(known["sessionId"]) + text)[:_DIGEST_LENGTH]
        return bool(recent.setdefault(digest, [moment, known["eventId"], hook, call])[1] != known["eventId"])

    # Whose it is

    def _session(self, session: str) -> Members:
        sessions = self.state["sessions"]
        if len(sessions) >= _SESSIONS_KNOWN and session not in sessions:
            sessions.pop(next(iter(sessions)))
        it: Members = sessions.setdefault(session, {**_NEW})
        return it

    def _lane(self, it: Members, payload: Members, process: str) -> str | None:
        """None: the program that the session is about; "": one that was that before; else the agent that it is."""
        claude = _text(payload.get("session_id"))
        hook, starts = payload["hook_event_name"], payload["hook_event_name"] == "SessionStart"
        if claude != it["main"] and self._takes_over(it, claude, payload, process):
            it["before"] = [*it["before"], *filter(None, [it["main"]])][-_PROGRAMS_KNOWN:]
            it["lanes"] = [lane for lane in it["lanes"] if lane != claude]
            it.update(main=claude, process=process, isOver=False)
        if claude == it["main"]:
            if starts or _pid(process) != _pid(it["process"]):
                it["process"] = process if starts else ""  # a parent that changes is a shell, and says nothing
            it["isOver"] = hook == "SessionEnd" or (it["isOver"] and hook not in ("SessionStart", "UserPromptSubmit"))
            return None
        if not claude or (claude in it["before"] and claude not in it["lanes"]):
            return "" if claude else None
        if claude not in it["lanes"]:
            it["lanes"] = [*it["lanes"], claude][-_PROGRAMS_KNOWN:]
        return _as_id(f"claude-{claude[:8]}", "claude")

    def _takes_over(self, it: Members, claude: str, payload: Members, process: str) -> bool:
        """Whether a program, or a conversation of the same, goes on in the place of the one that did."""
        starts, source = payload["hook_event_name"] == "SessionStart", payload.get("source")
        if not claude or (not starts and claude in [*it["lanes"], *it["before"]]):
            return False
        if it["isOver"] or (starts and source == "clear"):
            return True
        goes_on = starts and source in ("resume", "fork", "compact") and _pid(process) == _pid(it["process"]) != ""
        return goes_on or _is_gone(it["process"])

    # What the payload does not say

    def _known(self, known: Members, payload: Members, session: str | None) -> Members:
        hook, about = payload["hook_event_name"], self._session(session or payload["session_id"])
        lane = self._lane(about, payload, _process(known.get("ppid"))) if session else None
        told: Members = {"isReplaced": True} if lane == "" else {"agentId": lane} if lane else {}
        if hook == "SessionStart":
            told.update(_origin(known.get("parentSession"), known.get("tags")))
            told.update({"where": known["where"]} if known.get("where") else {})
            about["isFork"] = payload.get("source") == "fork"
        if lane or _is_id(payload.get("agent_id")):
            return told
        if hook in ("UserPromptSubmit", "StopFailure"):
            about["isToldOf"] = hook == "StopFailure"
        if hook in ("Stop", "StopFailure", "SessionEnd") and (further := _beside_or_none("hook_agent_facts")):
            before, is_fork = about.get("facts", {}), about.pop("isFork", False) and not session
            about["facts"] = further.facts_of(_text(payload.get("transcript_path")), before, is_fork)
            told.update({"metadata": about["facts"]} if about["facts"] != before else {})
            if hook == "SessionEnd" and not about["isToldOf"]:
                error = further.last_api_error(_text(payload.get("transcript_path")))
                told.update({"error": error} if error else {})
        if hook == "SessionEnd" and known.get("isWithin"):
            told["isWithin"] = True
        return told


def _milliseconds(timestamp: str) -> int:
    """Of a time as `_now` writes it."""
    import calendar

    try:
        return calendar.timegm(time.strptime(timestamp[:19], "%Y-%m-%dT%H:%M:%S")) * 1000 + int(timestamp[20:23])
    except ValueError:
        return 0


def _process(pid: object) -> str:
    """A process by its number and, where that can be known, when it began: numbers are given again."""
    return f"{pid}:{_began(pid)}" if isinstance(pid, int) and pid > 1 else ""


def _began(pid: int) -> str:
    with _suppress(OSError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[19].decode()
    return ""


def _pid(process: str) -> str:
    return process.partition(":")[0]


def _is_gone(process: str) -> bool:
    pid, _, began = process.partition(":")
    if not pid:
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return bool(began) and _began(int(pid)) not in ("", began)


# ---------------------------------------------------------------------------------------------------------------------
# The hook command
# ---------------------------------------------------------------------------------------------------------------------

# Fire and forget: raw payload from stdin into the queue, and a detached sender started where none is at work.

_PAYLOAD_BYTES = 16 << 20
_END_BYTES = 64 << 10
_READ_BYTES = 1 << 20
_AT_ONCE_SECONDS = 2.0
_OWN_SECONDS = 0.5  # for own patterns that nobody may have tried yet
# A script that is `__main__` is compiled anew each time it starts, a module that it imports is not. Its folder comes
# last in the path: what else lies there must not take the place of the standard library.
_AS_MODULE = "import sys; sys.path.append({folder!r}); import {name}; {name}.{call}"


def hook() -> NoReturn:
    """One payload of a Claude Code hook from stdin into the spool. Prints nothing and exits with 0, whatever happens.

    It decodes nothing: the sender does that.
    """
    try:
        payload = _standard_input()
        if payload.strip() and tells_something_new(payload):
            _narrow(payload)
            _keep_or_send(payload)
    finally:
        posix._exit(0)  # also with an exception under way, which is then not shown


def control(longest: int) -> None:
    """The same, with a reply where a person has given one: by hook_agent_control.py, which may wait so many seconds."""
    try:
        further = _beside("hook_agent_control", "control")
    except ImportError:
        hook()
    further.hook(longest)


def _keep_or_send(payload: bytes, waits: bool = False) -> tuple[Spool, bytes]:
    """Where it was kept, and as what. `waits`: the hook waits for what a person says to it."""
    spool = Spool(_service_url(), limit=_spool_limit())
    session = _setting("SESSION_ID")
    is_within = b'"SessionEnd"' in payload and bool(session) and spool.has_program(_as_id(session, "session"))
    record = _hook_record(payload, is_within, waits)
    try:
        spool.append(record)
    except OSError:  # there is no folder, or no room in it
        _send_at_once(record)
    else:
        _ensure_sender(spool)
    return spool, record


def _send_at_once(record: bytes) -> None:
    """What cannot be kept is sent from memory: once, and for a moment, which includes finding the address."""
    import threading

    link = _Link(_service_url())

    def send() -> None:
        with _suppress(Exception):  # there is nobody to tell
            link.ask("POST", "/api/events", HookNarrator().line(record.rstrip(b"\n")), _AT_ONCE_SECONDS)

    sending = threading.Thread(target=send, daemon=True)
    sending.start()
    sending.join(_AT_ONCE_SECONDS)


def where_it_runs() -> dict[str, str]:
    """`host` and `cwd`, and what else the file beside this one finds. Never raises."""
    try:
        return dict(_beside("hook_agent_facts", "this").where_it_runs())
    except Exception:  # whatever it is, who is watched is not to suffer from it
        return {"host": posix.uname().nodename, "cwd": _setting("PWD") or "/"}


def _service_url(session: str | None = None, folder: str | None = None) -> str:
    """Of several that are listed that of the session, by hook_agent_fleet.py; else the first."""
    first, *others = (_setting("SESSION_SERVICE_URL") or _SERVICE_URL).split(",")
    fleet = _beside_or_none("hook_agent_fleet") if others and session else None
    return fleet.address_of(session, folder) if fleet else first.strip()


def _narrow(payload: bytes) -> None:
    if "," in _setting("SESSION_SERVICE_URL") and (fleet := _beside_or_none("hook_agent_fleet")):
        fleet.narrow(payload)


def _standard_input() -> bytes:
    """All of it, so that nobody is left writing. What is beyond 16 MiB is cut out before the end, with a mark: one long
    text is then a shorter one, and what stands behind it is still said."""
    parts, size, end = [], 0, b""
    while part := posix.read(0, _READ_BYTES):
        if size < _PAYLOAD_BYTES:
            parts.append(part)
        else:
            end = (end + part)[-_END_BYTES:]
        size += len(part)
    start = b"".join(parts)
    if size == len(start) + len(end):
        return start + end
    at = start.rfind(b"\\", len(start) - len(b"\\u0000"))
    whole = start if at < 0 else start[:at].rstrip(b"\\")  # without half of an escape
    return b"%s%s%s" % (whole, _CUT.encode(), end.lstrip(b'\\"')[1:])


def _hook_record(payload: bytes, is_within: bool = False, waits: bool = False) -> bytes:
    """The payload as it came, but for secrets, last in a line with what it does not say itself.

    `is_within`: a program that has begun the session, and is to end it, goes on.
    """
    known = {
        "sessionId": _setting("SESSION_ID"),
        "userId": _setting("SESSION_USER_ID"),
        "parentSession": _setting("SESSION_PARENT_ID"),
        "tags": _setting("SESSION_TAGS"),
        "transcripts": _setting("SESSION_TRANSCRIPTS"),
        "redact": _setting("SESSION_REDACT"),
        "eventId": _event_id(),
        "timestamp": _now(_BEGUN),
    }
    told = [f'"{name}":{_quoted(text)}' for name, text in known.items() if text or name == "sessionId"]
    process = _setting("CLAUDE_PID")
    if _is_of(b'"SessionStart"', payload):
        place = ",".join(f'"{name}":{_quoted(text)}' for name, text in where_it_runs().items())
        told.append(f'"where":{{{place}}}')
    flags = ['"isWithin":true'] * is_within + ['"waits":true'] * waits
    head = ",".join([*told, f'"ppid":{process if process.isdecimal() else posix.getppid()}', *flags])
    return b'{%s,"hook":%s}\n' % (head.encode(), _redacted(payload).translate(_ONE_LINE))


def _redacted(payload: bytes) -> bytes:
    """Without secrets, and in time, whatever own patterns are."""
    redaction = _redaction(is_silent=True)
    if redaction is None or not redaction.has_own:
        return _redacted_by(redaction, payload)
    try:
        return _in_time(_OWN_SECONDS, _redacted_by, redaction, payload)
    except TimeoutError:  # the sender refuses such patterns, and the command `status` says why
        return _redacted_by(Redaction(), payload)


def _in_time(seconds: float, work: Callable[..., bytes], *arguments: Any) -> bytes:
    """What it returns. Raises TimeoutError, also out of a regular expression."""
    import signal

    def end(*_: object) -> NoReturn:
        raise TimeoutError

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return work(*arguments)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _redacted_by(redaction: Redaction | None, payload: bytes) -> bytes:
    """Decoded only where there may be a secret in it. One that is not JSON is redacted as the text that it is."""
    text = payload.decode("latin-1")
    if redaction is None or not redaction.concerns(text):
        return payload
    try:
        value = _payload(payload)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        return redaction.text(text).encode("latin-1")
    redacted = redaction.data(value)
    return payload if redacted == value else _encoded(redacted)


_ONE_LINE = bytes.maketrans(b"\r\n", b"  ")


def _quoted(text: str) -> str:
    if not text:
        return "null"
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return _encoded(_clean(text)).decode()


def _origin(parent: object, tags: object) -> Members:
    """Where a session comes from, as far as it is known: the session that started it, and its tags."""
    origin: Members = {}
    if parent:
        origin["parentSession"] = _as_id(parent, "session")
    if tags:
        parts = tags.split(",") if isinstance(tags, str) else tags if isinstance(tags, (list, tuple, set)) else [tags]
        origin["tags"] = [_clean(_text_of(part)).strip()[:256] for part in parts if _text_of(part).strip()]
    return origin


# The detached sender


def _ensure_sender(spool: Spool) -> None:
    """See to it that somebody delivers: if nobody holds the sender's lock, start one and let him have it."""
    lock = _sender_lock(spool)
    if lock is None:
        return
    try:
        _spawn_sender(spool, lock)
    finally:
        posix.close(lock)


def _spawn_sender(spool: Spool, lock: int, **known: str) -> None:
    """Start a sender of its own session, with nothing of ours but the lock, which is taken for as long as it lives.

    `known` is put into its environment.
    """
    folder, name = os.path.split(os.path.abspath(__file__))
    code = _AS_MODULE.format(folder=folder, name=os.path.splitext(name)[0], call="send_detached()")
    given = 3 if lock != 3 else 4  # another than the original, so that it is one that is inherited
    arguments = [sys.executable, "-I", "-S", "-c", code, str(given), spool.folder]
    environment = {**os.environ, "SESSION_SERVICE_URL": spool.service_url, **known}
    if token_file := environment.get("SESSION_TOKEN_FILE"):
        environment["SESSION_TOKEN_FILE"] = os.path.abspath(token_file)
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_DUP2, 0, 2),
        (os.POSIX_SPAWN_DUP2, lock, given),
    ]
    try:
        os.posix_spawn(sys.executable, arguments, environment, file_actions=files, setsid=True)
    except NotImplementedError:  # this libc cannot
        os.posix_spawn(sys.executable, arguments, environment, file_actions=files, setpgroup=0)


# ---------------------------------------------------------------------------------------------------------------------
# Sender
# ---------------------------------------------------------------------------------------------------------------------

# At-least-once delivery in batches, exactly once by idempotency keys; exponential backoff with jitter; poison messages
# are found by bisection and become dead letters.

_CONNECT_SECONDS = 1.0
_ANSWER_SECONDS = 10.0
_SLOW_BYTES = 32 << 10  # in each further second: so much of a body may be on its way
_ANSWER_BYTES = 64 << 20
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 30.0
_LONGEST_RETRY_AFTER_SECONDS = 300.0
_REFUSED_PAUSE_SECONDS = 60.0
_FIRST_LOOK_SECONDS = 0.02
_LOOK_SECONDS = 0.25
_FAULT_PAUSE_SECONDS = 1.0
_IDLE_SECONDS = 30.0
_NDJSON = "application/x-ndjson"
_KEPT = "What is written is kept until it is let in."
_RENEW = "renew the store first. What is written is kept until then."
_PROBLEM = "application/problem+json"
_TOO_LARGE = 413
_BAD_REQUEST = (400, _TOO_LARGE, 422)  # what is wrong is in the batch, and need not be in all of it
_MOVED = 421  # the session is at `movedTo` now
_TRANSIENT = (408, 425, 429)  # what the store says of a line that it may take later, as it may after any 5xx


class _Answer:
    def __init__(self, status: int, body: bytes, retry_after: str | None = None, media_type: str = "") -> None:
        self.status, self.body = status, body
        self.retry_after = float(retry_after) if retry_after and retry_after.isdigit() else 0.0
        self.headers: Any = {}
        self._media_type = media_type.partition(";")[0].strip().lower()

    def said(self) -> str:
        """What it says of the matter."""
        detail = self.document().get("detail")
        return _in_one_line(detail if isinstance(detail, str) else self.body[:200].decode(errors="replace"))

    def document(self) -> Members:
        """{} where it is not a JSON object."""
        with _suppress(ValueError):
            return value if isinstance(value := _decoded(self.body), dict) else {}
        return {}

    def is_refusal(self) -> bool:
        """Whether it is the store that says so: whatever stands before it may answer 400, too, and know nothing."""
        return self._media_type == _PROBLEM and self.document().get("status") == self.status in _BAD_REQUEST

    def accounts_for(self, lines: int) -> bool:
        """Whether the store has these lines of a batch, but for those that it rejected."""
        if self.status != 200:
            return False
        told = self.document()
        listed = told.get("rejected")
        if not isinstance(listed, list) or not all(_is_rejection(one, lines) for one in listed):
            return False
        total = told.get("rejectedTotal", len(listed))
        counts = [told.get("accepted"), told.get("duplicates"), total]
        is_whole = all(type(count) is int for count in counts) and sum(counts) == lines
        return is_whole and (total == len(listed) or (total > len(listed) and lines > 1))

    def rejections(self) -> list[Rejection] | None:
        """By index, status and reason; None: not all are listed."""
        told = self.document()
        why = [
            _text_of(one.get("movedTo") if one["status"] == _MOVED else one.get("detail")) for one in told["rejected"]
        ]
        listed = [(one["line"] - 1, one["status"], reason) for one, reason in zip(told["rejected"], why)]
        return listed if len(listed) == told.get("rejectedTotal", len(listed)) else None


def _is_rejection(one: object, lines: int) -> bool:
    if not isinstance(one, dict):
        return False
    line, status = one.get("line"), one.get("status")
    return type(line) is int and 0 < line <= lines and type(status) is int


class _Unreachable(Exception):
    """The store did not take it, now; whether it has it all the same is not known. `token`: the one that it refuses."""

    def __init__(self, reason: str, pause: float = 0.0, token: str | None = None) -> None:
        super().__init__(reason)
        self.pause, self.token = pause, token


class _Link:
    """One connection to the store, opened when it is needed. No proxy, no redirect."""

    def __init__(self, service_url: str, own_token: str | None = None) -> None:
        self.service_url, self.own_token = service_url, own_token
        self._connection: HTTPConnection | None = None

    def token(self) -> str:
        """As it is now: a file may get a new one at any time."""
        return self._token_and_trouble()[0]

    def token_trouble(self) -> str:
        """Why there is none, though a file is named; empty if there is one, or none is wanted."""
        return self._token_and_trouble()[1]

    def _token_and_trouble(self) -> tuple[str, str]:
        token, path = self.own_token, _setting("SESSION_TOKEN_FILE")
        if token is None:
            token = _setting("SESSION_TOKEN")
        if token or self.own_token is not None or not path:
            return token, ""
        try:
            with open(path, encoding="utf-8") as file:
                token = file.read().strip()
            return token, "" if token else f"The token file {path} is empty."
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        return "", f"The token file {path} cannot be read by uid {os.geteuid()}: {reason}{_owner_of(path)}."

    def known(self) -> dict[str, str]:
        """What an environment has to have for a link like this one."""
        token = {} if self.own_token is None else {"SESSION_TOKEN": self.own_token}
        return {"SESSION_SERVICE_URL": self.service_url, **token}

    def ask(
        self, method: str, path: str, body: bytes | None = None, seconds: float = _ANSWER_SECONDS, **more: str
    ) -> _Answer:
        """Raises _Unreachable. A connection that the store has closed meanwhile is opened again."""
        is_fresh = self._connection is None
        try:
            return self._asked(method, path, body, seconds, {name.replace("_", "-"): more[name] for name in more})
        except Exception as error:  # of sockets, of HTTP, of an address or a token that is none
            self.close()
            if is_fresh or isinstance(error, TimeoutError):
                raise _Unreachable(f"{self.service_url}: {error or type(error).__name__}") from error
        return self.ask(method, path, body, seconds, **more)

    def _asked(self, method: str, path: str, body: bytes | None, seconds: float, headers: dict[str, str]) -> _Answer:
        import threading

        connection, base = self._connected()
        connection.sock.settimeout(seconds := seconds + len(body or b"") / _SLOW_BYTES)
        headers = {**headers, "Content-Type": _NDJSON} if body is not None else {**headers}
        if token := self.token():
            headers["Authorization"] = f"Bearer {token}"
        watch = threading.Timer(6 * seconds, connection.sock.shutdown, (2,))  # a peer may drip bytes for ever
        watch.daemon = True
        watch.start()
        try:
            connection.request(method, base + path, body, headers)
            response = connection.getresponse()
            known = (response.headers.get("Retry-After"), response.headers.get("Content-Type") or "")
            answer = _Answer(response.status, response.read(_ANSWER_BYTES), *known)
        finally:
            watch.cancel()
        answer.headers = response.headers
        if response.will_close or not response.isclosed():
            self.close()
        return answer

    def _connected(self) -> tuple[HTTPConnection, str]:
        from http.client import HTTPConnection, HTTPSConnection
        from urllib.parse import urlsplit

        url = urlsplit(self.service_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("not an http or https URL")
        if self._connection is None:
            kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
            self._connection = kind(url.hostname, url.port, timeout=_CONNECT_SECONDS)
            self._connection.connect()
        return self._connection, url.path.rstrip("/")

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _owner_of(path: str) -> str:
    """Of a file that is there, and what to do if another user should read it."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    mine = f"chown {os.geteuid()} {path}"
    return f"; it belongs to uid {found.st_uid}, mode {found.st_mode & 0o7777:04o} ({mine}, or let its group read it)"


class Sender:
    """Delivers what waits in a spool, batch by batch. There is at most one for a spool: who has its lock."""

    def __init__(self, spool: Spool, link: _Link, say: Callable[[str], None] = lambda text: None) -> None:
        self.spool, self.link = spool, link
        self.lock: int | None = None
        self.failures, self._most = 0, _BATCH_BYTES
        self._say = say
        self._word = "there"
        self._refused: str | None = None
        self._told: Members | None = None  # what the narrator knew at the place up to which all is delivered
        self._watcher: Any = None
        self._shipper: Any = None

    def take_charge(self) -> int | None:
        """The lock, if it is this one that delivers. Raises OSError."""
        if self.lock is None:
            self.lock = _sender_lock(self.spool)
            if self.lock is not None:
                self._told, self._shipper = None, None  # another may have delivered since
                _sign(self.lock, self._word)
        return self.lock

    def resign(self) -> None:
        if self._watcher is not None:
            self._watcher.is_over, self._watcher = True, None
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def step(self) -> float | None:
        """Deliver one batch. How many seconds to wait before the next, or None: nothing waits."""
        self.watches_orders()
        pause = self._tried(self._step)
        return pause if pause or not (shipper := self.shipper()) or not shipper.step() else 0.0

    def shipper(self, is_wanted: bool = False) -> Any:
        """What ships transcripts; None where there are none, or its file is missing."""
        is_wanted = is_wanted or (bool(self.spool.folder) and os.path.exists(self.spool.path("transcripts.json")))
        if self._shipper is None and is_wanted and (ship := _beside_or_none("hook_agent_ship")):
            self._shipper = ship.Shipper(self.spool, self.link, self._say)
        return self._shipper

    def has_shipped(self, since: float) -> bool:
        """Whether the store has all of the transcripts as they were then."""
        return not (shipper := self.shipper()) or bool(shipper.whole_at >= since)

    def watches_orders(self) -> bool:
        """See to it that orders are known here; whether any agent may be given some."""
        if self._watcher is None and self.spool.folder and posix.access(self.spool.path("control"), posix.F_OK):
            further = _beside_or_none("hook_agent_control")
            self._watcher = further.Watcher(self.spool, self.link) if further else None
        return self._watcher is not None and bool(self._watcher.look())

    def send(self, lines: list[bytes]) -> float | None:
        """The same for lines that are in no spool: 0 if they are delivered."""
        return self._tried(lambda: self._send(lines))

    def _tried(self, work: Callable[[], bool]) -> float | None:
        try:
            has_worked = work()
        except _Unreachable as trouble:
            self._most = max(_SMALL_BATCH_BYTES, self._most // 2)
            return self._pause(trouble)
        except Exception as error:  # the spool cannot be read or written now, or something that nobody foresaw
            self.failures += 1
            self._say_word("fails", f"{type(error).__name__}: {error}")
            return _FAULT_PAUSE_SECONDS
        if not has_worked:
            return None
        self.failures, self._refused, self._most = 0, None, min(_BATCH_BYTES, self._most * 2)
        self._say_word("there")
        return 0.0

    def rest(self, seconds: float, wait: Callable[[float], object]) -> None:
        """Until then, or what `wait` waits for has come, or the token that was refused is another."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and self._refused in (None, self.link.token()):
            if wait(min(left, _LOOK_SECONDS)):
                return

    def _say_word(self, word: str, trouble: str = "") -> None:
        told = f"{word} {_in_one_line(trouble)}".rstrip()
        if told != self._word and self.lock is not None:
            _sign(self.lock, told)
        self._word = told

    def _pause(self, trouble: _Unreachable) -> float:
        self.failures += 1
        self.spool.sync()
        if trouble.token is not None:
            self._say_word("refuses", str(trouble))
            if self._refused is None:
                self._say(str(trouble))
            self._refused = trouble.token
            return _REFUSED_PAUSE_SECONDS
        self._say_word("away", str(trouble))
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** min(self.failures, 10))
        chance = int.from_bytes(os.urandom(4), "big") / (1 << 32)  # not of `random`, whose state is the program's own
        return max(chance * longest, min(trouble.pause, _LONGEST_RETRY_AFTER_SECONDS))

    # Batches

    def _step(self) -> bool:
        """Whether there was anything to say."""
        batch = self.spool.read(self._most)
        if batch is not None:
            self._deliver(batch)
        return self._tell_dropped() or batch is not None

    def _send(self, lines: list[bytes]) -> bool:
        for index, status, reason in self._post(lines):
            if self.spool.folder:
                self.spool.bury(lines[index], status, reason)
            else:
                self._say(f"{self.link.service_url} refused an event, which nothing here can keep: {status} {reason}")
        return True

    def _deliver(self, batch: _Batch) -> None:
        sent: list[tuple[bytes, bytes]] = []
        refused: list[tuple[bytes, int | None, str]] = []
        if self._told is None:
            self._told = self.spool.told_before(batch)
        narrator = HookNarrator(_decoded(_encoded(self._told)))
        for record in batch.lines:
            try:
                sent.extend([(record, line)] if (line := narrator.line(record)) else [])
            except Exception as error:  # noqa: PERF203 - whatever it is, it must not hold up what is behind it
                refused.append((record, None, f"{type(error).__name__}: {error}"))
        for index, status, reason in self._post([line for _, line in sent]) if sent else ():
            record, line = sent[index]
            fleet = _beside_or_none("hook_agent_fleet") if status == _MOVED else None
            if not (fleet and fleet.hand_on(self.spool, record, reason)):
                refused.append((_shorter(line) or record, status, reason))
        for letter in refused:
            self.spool.bury(*letter)
        if narrator.heard and (shipper := self.shipper(is_wanted=True)):
            shipper.hear(narrator.heard)
        if narrator.state != self._told:
            self.spool.note_told(batch, narrator.state)
        self.spool.done(batch)
        self._told = narrator.state

    def _post(self, lines: list[bytes]) -> list[Rejection]:
        """The store has the lines, but for those that are returned: refused for good. Raises _Unreachable."""
        answer = self._answer(lines)
        if answer.status == _TOO_LARGE and len(lines) == 1 and (shorter := _shorter(lines[0])):
            return self._post([shorter])
        if answer.status != 200 and len(lines) == 1:
            return [(0, answer.status, answer.body[:1000].decode(errors="replace"))]
        rejected = answer.rejections() if answer.status == 200 else None
        if rejected is None:
            middle = (len(lines) + 1) // 2
            first = self._post(lines[:middle])
            return first + [(middle + index, status, why) for index, status, why in self._post(lines[middle:])]
        for index, status, reason in rejected:
            if status in _TRANSIENT or status >= 500:
                raise _Unreachable(f"{self.link.service_url} cannot take an event now, {status}: {reason}")
            if reason.startswith("type:") and lines[index].startswith(_HOOK_LINE):
                raise _Unreachable(
                    f"{self.link.service_url} is older than this file, and takes no hooks as they are: {_RENEW}"
                )
        return rejected

    def _answer(self, lines: list[bytes]) -> _Answer:
        """200 and what was rejected, or that the batch is bad, or too large for a whole one. Raises _Unreachable."""
        token = self.link.token()
        answer = self.link.ask("POST", "/api/events", b"\n".join(lines))
        is_to_be_divided = answer.status == _TOO_LARGE and len(lines) > 1
        if answer.accounts_for(len(lines)) or answer.is_refusal() or is_to_be_divided:
            return answer
        reason = f"{self.link.service_url} answered {answer.status}: {answer.said()}"
        if answer.status in (401, 403):
            raise _Unreachable(" ".join(filter(None, (reason, self.link.token_trouble(), _KEPT))), token=token)
        raise _Unreachable(reason, answer.retry_after)

    def _tell_dropped(self) -> bool:
        """Report what had to go for the bound, once the store is there to hear it."""
        dropped = self.spool.dropped()
        if not dropped:
            return False
        lines = [
            _line(_dropped_event(session, f"dropped-{dropped['id']}", known))
            for session, known in dropped["sessions"].items()
            if known["count"] > 0
        ]
        for index, status, reason in self._post(lines) if lines else ():
            self.spool.bury(lines[index], status, reason)
        self.spool.told_dropped()
        return True


def _dropped_event(session: str, event_id: str, known: Members) -> Members:
    return {
        "sessionId": _as_id(session, "session"),
        "eventId": event_id,
        "timestamp": known["to"] or _now(),
        "type": "action",
        "data": {"type": "events_dropped", **known},
    }


def send_detached() -> None:
    """What `_spawn_sender` starts: delivers until nothing has come for a while. It has nowhere to print to."""
    lock, folder = int(sys.argv[1]), sys.argv[2]
    os.closerange(3, lock)
    os.closerange(lock + 1, 1024)
    os.chdir("/")
    spool = Spool(_service_url(), limit=_spool_limit())
    spool.folder = folder
    sender = Sender(spool, _Link(_service_url()))
    sender.lock = lock
    _sign(lock, "there")
    while sender.lock is not None:
        _send_until_idle(sender)
        sender.resign()
        if spool.segments():  # somebody appended before that, saw the lock taken and relies on us
            sender.take_charge()
    sender.link.close()


def _send_until_idle(sender: Sender) -> None:
    """Returns when nothing has come for half a minute and no agent is at work, or the folder is gone."""
    idle_since, look = time.monotonic(), _FIRST_LOOK_SECONDS
    while os.path.isdir(sender.spool.folder):
        if time.monotonic() > idle_since + _IDLE_SECONDS and (not sender.shipper() or sender.shipper().may_leave()):
            return
        pause = sender.step()
        if pause is None:
            idle_since = time.monotonic() if sender.watches_orders() else idle_since
            time.sleep(look)
            look = min(look * 1.5, _LOOK_SECONDS)
            continue
        sender.rest(pause, time.sleep)
        idle_since, look = time.monotonic(), _FIRST_LOOK_SECONDS


# ---------------------------------------------------------------------------------------------------------------------
# Client
# ---------------------------------------------------------------------------------------------------------------------

# The library: calls append to the queue and return; a daemon thread delivers. A ring buffer in memory is the fallback.

_CLOSE_SECONDS = 2.0
_FLUSH_SECONDS = 10.0
_TEST_SECONDS = 5.0
_FLUSH_POLL_SECONDS = 0.005
_MEMORY_BYTES = 8 << 20  # for what the spool does not take
_RANDOM_BYTES = 4


class _Outlet:
    """What one process has for one spool: a place for what the spool does not take, and a thread that delivers."""

    def __init__(self, spool: Spool, link: _Link) -> None:
        self.spool, self.has_said = spool, False
        self.begin(link)

    def begin(self, link: _Link) -> None:
        """Also for a forked child, whose parent delivers what it had in memory."""
        import threading

        self.lock = threading.RLock()
        self.sender = Sender(self.spool, link, self._say)
        self.memory: list[bytes] = []
        self.memory_bytes = 0
        self.lost: Tally = {}
        self.work, self.hurry = threading.Event(), threading.Event()
        self.thread: threading.Thread | None = None
        self.mark, self.is_exiting = (0, 0), False
        self.programs: dict[str, int] = {}  # by session: what says that this process is to end it

    def _say(self, text: str) -> None:
        """Once for each process, if it has somewhere to say it."""
        if not self.has_said:
            self.has_said = True
            _tell(text)

    # Beginning and ending

    def join(self, session: str) -> None:
        with self.lock, _suppress(OSError):
            if session not in self.programs:
                self.programs[session] = self.spool.join(session)

    def leave(self, session: str, tell: Callable[[bool], Members]) -> Members:
        with self.lock:
            return self.spool.leave(session, self.programs.pop(session, None), tell)

    # Writing

    def write(self, line: bytes) -> None:
        """To the spool, after what the spool did not take before; to memory if it does not take it now."""
        with self.lock:
            self.memory.append(line)
            self.memory_bytes += len(line)
            self.empty_memory()
            self._bound_memory()
        self._start()
        self.work.set()

    def empty_memory(self) -> None:
        with self.lock:
            try:
                while self.memory:
                    self._spool_first()
                if self.lost:
                    self.spool.note_dropped(self.lost)
                    self.lost = {}
            except OSError:  # a full disk, no folder: it is tried again with the next event, and by the thread
                pass

    def _spool_first(self) -> None:
        """Taken out before it is written: a signal's handler may write something in between."""
        line = self.memory.pop(0)
        try:
            self.mark = self.spool.append(line)
        except BaseException:
            self.memory.insert(0, line)
            raise
        self.memory_bytes -= len(line)

    def _bound_memory(self) -> None:
        while self.memory_bytes > _MEMORY_BYTES:
            line = self.memory.pop(0)
            self.memory_bytes -= len(line)
            _add(self.lost, _tally([line]))

    # Delivering

    def _start(self) -> None:
        """See to it that somebody delivers: a thread, or at the end of the process a detached sender."""
        if not self.is_exiting and (self.thread is None or not self.thread.is_alive()):
            self._start_thread()
        if self.is_exiting:
            self._hand_over()

    def _start_thread(self) -> None:
        import atexit
        import threading

        with self.lock:
            if self.thread is None:
                atexit.register(self._exit)
            self.thread = threading.Thread(target=self._run, name="hook_agent", daemon=True)
            try:
                self.thread.start()
            except RuntimeError:  # the interpreter is leaving
                self.is_exiting = True

    def _run(self) -> None:
        while not self.is_exiting:
            pause = self._step()
            if pause is None:
                self.work.wait(_LOOK_SECONDS)  # not for ever: other processes write to the spool, too
                self.work.clear()
                continue
            self.sender.rest(pause, self.hurry.wait)
            self.hurry.clear()

    def _step(self) -> float | None:
        """As `Sender.step`, but never raises; None also where somebody else delivers."""
        self.empty_memory()
        try:
            is_in_charge = self.sender.take_charge() is not None
            if self.memory and not self.spool.segments():
                return self._deliver_memory()
        except OSError:  # there is no spool
            return self._deliver_memory()
        if not is_in_charge and self.spool.word() == "refuses":
            link = self.sender.link
            self._say(" ".join(filter(None, (f"{link.service_url} refuses the token.", link.token_trouble(), _KEPT))))
        return self.sender.step() if is_in_charge else None

    def _deliver_memory(self) -> float | None:
        """What the spool does not take, where there is nothing in it that has to go first."""
        with self.lock:
            lines = self.memory[:_BATCH_EVENTS]
        if not lines:
            return None
        pause = self.sender.send([line.rstrip(b"\n") for line in lines])
        if not pause:
            with self.lock:
                sent = set(map(id, lines))
                self.memory = [line for line in self.memory if id(line) not in sent]
                self.memory_bytes = sum(map(len, self.memory))
        return pause

    def has_delivered(self, since: float = 0.0) -> bool:
        """With `since`: transcripts, too, as they were then."""
        try:
            is_empty = not self.memory and self.spool.has_delivered(self.mark)
        except Exception:  # of a disk, or something that nobody foresaw
            return False
        return is_empty and (not since or self.sender.lock is None or self.sender.has_shipped(since))

    def seems_reachable(self) -> bool:
        """As far as is known: whoever delivers leaves word of it."""
        return self.sender.failures == 0 and (self.sender.lock is not None or self.spool.word() == "there")

    # Leaving

    def _exit(self) -> None:
        """At the end of the process: a moment for what is left, and then somebody else has to deliver it."""
        deadline = time.monotonic() + _CLOSE_SECONDS
        self.work.set()
        while not self.has_delivered() and self.seems_reachable() and time.monotonic() < deadline:
            time.sleep(_FLUSH_POLL_SECONDS)
        self.is_exiting = True
        self.empty_memory()
        self._hand_over()

    def _hand_over(self) -> None:
        """To a detached sender, with the lock, if anything waits."""
        with _suppress(OSError):  # otherwise the next one that writes will see to it
            if not (waits := bool(self.spool.segments()) or self.sender.shipper() is not None):
                self.sender.resign()
            lock = self.sender.take_charge() if waits else None
            if lock is not None:
                _spawn_sender(self.spool, lock, **self.sender.link.known())
                self.sender.resign()


_outlets: dict[str, _Outlet] = {}
_left_to_parent: list[Sender] = []  # not to be torn down here: a thread of the parent may have been at work in it


def _outlet_for(service_url: str, folder: str | None, token: str | None) -> _Outlet:
    """One for each spool in this process."""
    key = f"{folder or ''} {service_url}"
    if key not in _outlets:
        if not _outlets:
            os.register_at_fork(after_in_child=_begin_outlets)
        _outlets.setdefault(key, _Outlet(Spool(service_url, folder, _spool_limit()), _Link(service_url, token)))
    return _outlets[key]


def _begin_outlets() -> None:
    for outlet in _outlets.values():
        for program in outlet.programs.values():  # it is the parent that is to end them
            os.close(program)
        outlet.sender.resign()  # in this process: it leaves the lock with the parent
        _left_to_parent.append(outlet.sender)
        outlet.begin(_Link(outlet.sender.link.service_url, outlet.sender.link.own_token))


# What calls are given


def _members(given: object, more: Members, name: str) -> Members:
    """What a call was given, in any of the ways: a dict, keyword arguments, or one value, which is its `name`."""
    if given is None:
        return dict(more)
    if isinstance(given, dict):
        with _suppress(Exception):  # a dict of the program's own may do anything
            return {**given, **more}
    return {name: given, **more}


_DOCUMENTS = ("state_updated", "metadata_updated")  # all their members are the caller's own


def _end_by(kind: type[BaseException] | None, error: BaseException | None) -> Members:
    """How a session ends that was left in this way."""
    import asyncio

    if kind is None or (isinstance(error, SystemExit) and not error.code):
        return {"status": "success"}
    status = "cancelled" if issubclass(kind, (KeyboardInterrupt, asyncio.CancelledError)) else "failed"
    said = _text_of(error) if error is not None else ""
    return {"status": status, "outcome": f"{kind.__name__}: {said}" if said else kind.__name__}


class SyncSessionHookAgent:
    """Tells the store of one session. Every call writes to the spool and returns; none raises for the store's sake.

    What is None is taken from the environment when the first call is made. Members can be given as a dict, as keyword
    arguments, or both.
    """

    def __init__(
        self,
        session_id: str | None = None,
        service_url: str | None = None,
        user_id: str | None = None,
        *,
        token: str | None = None,
        parent_session: str | None = None,
        tags: Iterable[str] | None = None,
        initial: Members | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._given = (session_id, service_url, user_id)
        self._token, self._parent_session = token, parent_session
        self._tags, self._initial = tags, initial
        self._spool_dir = None if spool_dir is None else os.path.abspath(os.fspath(spool_dir))
        self._who: tuple[str, str, str | None] | None = None
        self._is_entered = self._is_finalized = False

    def _known(self) -> tuple[str, str, str | None]:
        """Session, store and user; from the first call on they stay what they are."""
        if self._who is None:
            session, url, user = self._given
            name = _as_id(session or _setting("SESSION_ID") or f"session-{_event_id()}", "session")
            url = url or _service_url(name, self._spool_dir)
            self._who = (name, url, _as_user(user or _setting("SESSION_USER_ID")))
        return self._who

    @property
    def session_id(self) -> str:
        return self._known()[0]

    @property
    def service_url(self) -> str:
        return self._known()[1]

    @property
    def user_id(self) -> str:
        return self._known()[2] or "unknown"

    @property
    def _outlet(self) -> _Outlet:
        if (fleet := sys.modules.get("hook_agent_fleet")) and not self._given[1]:
            fleet.choose_again(self)
        return _outlet_for(self.service_url, self._spool_dir, self._token)

    # Events

    def _record(
        self, event_type: str, data: Members, *, agent_id: str | None = None, timestamp: str | None = None
    ) -> Members:
        """Write one event, of a session that is entered by then, and return it. Never raises."""
        try:
            outlet = self._outlet
            with outlet.lock:
                if not self._is_entered and event_type != "session_created":
                    self._enter()
                event = self._event(event_type, data, agent_id, timestamp)
                outlet.write(_line(event) + b"\n")
            return event
        except Exception as error:  # the program is not to suffer from what it is watched by
            return {"eventId": None, "type": event_type, "data": {}, "error": _text_of(error)}

    def _event(self, event_type: str, data: Members, agent_id: str | None, timestamp: str | None) -> Members:
        session, _, user = self._known()
        plain: Members = _Plain().value(data)
        event_id = None
        if event_type not in _DOCUMENTS:
            event_id = plain.pop("eventId", None)
            timestamp = timestamp or _text(plain.get("timestamp"))
        event = {
            "sessionId": session,
            "eventId": event_id if _is_id(event_id) else _event_id(),
            "timestamp": timestamp or _now(),
            "type": event_type,
        }
        if user is not None:
            event["userId"] = user
        if _is_id(agent_id):
            event["agentId"] = agent_id
        return {**event, "data": plain}

    def _told(self, event_type: str, data: Members, **answer: Any) -> Members:
        event = self._record(event_type, data)
        return {**answer, "success": event["eventId"] is not None, "eventId": event["eventId"]}

    def _enter(self) -> Members:
        self._is_entered, self._is_finalized = True, False
        parent = self._parent_session or _setting("SESSION_PARENT_ID")
        tags = self._tags or _setting("SESSION_TAGS")
        began = {"initial": self._initial or {}, **_origin(parent, tags), "metadata": {"where": where_it_runs()}}
        return self._told("session_created", began)

    def log_action(self, action: Any = None, /, **members: Any) -> Members:
        """Something that the agent does or asks for: {"type": …, …}."""
        return self._told("action", _members(action, members, "type"))

    def log_response(self, response: Any = None, /, **members: Any) -> Members:
        """What came back: {"type": …, …}."""
        return self._told("response", _members(response, members, "type"))

    def update_state(self, change: Any = None, /, **members: Any) -> Members:
        """Merge into the session's state: {"phase": …, "currentStep": …, …}."""
        return self._told("state_updated", _members(change, members, "phase"))

    def update_metadata(self, change: Any = None, /, **members: Any) -> Members:
        """Set members of the session's metadata; a dotted name goes into an object, "+N" adds."""
        return self._told("metadata_updated", _members(change, members, "note"))

    def add_goal(self, goal: Any = None, /, **members: Any) -> Members:
        """{"description": …, "priority"?, "id"?}; the answer has its `id`, and all of it as `goal` as well."""
        given = _members(goal, members, "description")
        goal = {"status": "pending", "priority": "medium", **given, "id": _own_id(given.get("id"), "goal")}
        goal = _Plain().value(goal)
        return {**goal, "goal": goal, **self._told("goal_added", goal)}

    def update_goal(self, goal_id: Any = None, change: Any = None, /, **members: Any) -> Members:
        """{"status": …}: `completed` is what ends it."""
        goal_id = _as_id(goal_id.get("id") if isinstance(goal_id, dict) else goal_id, "goal")
        return self._told("goal_updated", {**_members(change, members, "status"), "goalId": goal_id}, id=goal_id)

    def spawn_agent(self, agent: Any = None, /, **members: Any) -> Members:
        """{"type": …, "task"?, "agentId"?}; the answer has its `agentId`."""
        given = _members(agent, members, "type")
        agent = _Plain().value({**given, "agentId": _own_id(given.get("agentId"), "agent")})
        return {**agent, **self._told("agent_spawned", agent)}

    def update_agent(self, agent_id: Any = None, change: Any = None, /, **members: Any) -> Members:
        """{"status"?, "task"?, …}."""
        agent_id = _as_id(agent_id.get("agentId") if isinstance(agent_id, dict) else agent_id, "agent")
        change = {**_members(change, members, "status"), "agentId": agent_id}
        return self._told("agent_updated", change, agentId=agent_id)

    def complete_agent(self, agent_id: Any = None, result: Any = None, /, **members: Any) -> Members:
        """{"result"?, "status"?: `completed`, `failed` or `cancelled`}; anything but a dict is the result."""
        agent_id = _as_id(agent_id.get("agentId") if isinstance(agent_id, dict) else agent_id, "agent")
        end = {"status": "completed", **_members(result, members, "result"), "agentId": agent_id}
        return self._told("agent_completed", end, agentId=agent_id)

    def finalize(self, end: Any = None, /, **members: Any) -> Members:
        """{"status"?: `success`, `failed` or `cancelled`, "outcome"?, "response"?, "exitCode"?}.

        Where other programs are at work on the session, it is the last that ends it: this one tells that it has ended.
        """
        data = {"status": "success", **_members(end, members, "status")}
        self._is_finalized = True
        try:
            return self._outlet.leave(self.session_id, lambda is_last: self._tell_end(data, is_last))
        except Exception:  # as for `_record`
            return self._tell_end(data, True)

    def _tell_end(self, data: Members, is_last: bool) -> Members:
        if is_last:
            return self._told("session_finalized", data)
        return self._told("action", {**data, "type": "program_ended"})

    finalize_session = finalize

    # The store

    def test_connection(self) -> bool:
        """Whether the store is there, and well. Takes five seconds at the most."""
        return _waited(self._testing())

    def resume(self) -> Members | None:
        """All that is needed to go on where the session stopped; None: it is not there, or the store is not."""
        return _waited(self._resuming())

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that this process has written is delivered. False: it was not within `timeout` seconds."""
        return _waited(self._flushing(timeout))

    def close(self) -> None:
        """Give what is left a moment, if the store is there. The agent may be used again."""
        _waited(self._closing())

    # What takes time, as generators that yield while there is something to wait for: each client waits in its own way

    def _testing(self) -> Waiting[bool]:
        status, _ = yield from self._asking("/health")
        return status == 200

    def _resuming(self) -> Waiting[Members | None]:
        status, document = yield from self._asking(f"/api/sessions/{self.session_id}/resume")
        return document if status == 200 else None

    def _asking(self, path: str) -> Waiting[tuple[int, Members]]:
        """Status 0: no answer within five seconds, which include finding the address."""
        import threading

        answers: list[tuple[int, Members]] = []

        def ask() -> None:
            with _suppress(Exception):  # no answer is all that there is to say
                link = _Link(self.service_url, self._token)
                answer = link.ask("GET", path, seconds=_TEST_SECONDS)
                answers.append((answer.status, answer.document()))
                link.close()

        asking = threading.Thread(target=ask, name="hook_agent test", daemon=True)
        asking.start()
        yield from _until(lambda: not asking.is_alive(), _TEST_SECONDS)
        return answers[0] if answers else (0, {})

    def _flushing(self, timeout: float | None) -> Waiting[bool]:
        self._outlet.hurry.set()
        self._outlet.work.set()
        yield from _until(self._outlet.has_delivered, _FLUSH_SECONDS if timeout is None else timeout)
        return self._outlet.has_delivered()

    def _closing(self) -> Waiting[None]:
        outlet, now = self._outlet, time.monotonic()
        yield from _until(lambda: outlet.has_delivered(now) or not outlet.seems_reachable(), _CLOSE_SECONDS)

    def __enter__(self) -> SyncSessionHookAgent:
        self._begin()
        return self

    def _begin(self) -> None:
        """As the program that is to end the session."""
        with _suppress(Exception):
            self._outlet.join(self.session_id)
        self._enter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._leave(kind, error)
        self.close()

    def langchain_handler(self, agent_id: str | None = None, control: bool = False) -> Any:
        """A callback handler for LangChain and LangGraph, for any number of runs; where `agent_id` is given, those work
        for that agent. With `control` it has `invoke(graph, …)`, `ainvoke` and `run_control()`, which heed what people
        in the store order and answer. ImportError, if there is no LangChain, or hook_agent_langchain.py is missing."""
        return _beside("hook_agent_langchain", "langchain_handler()").handler_for(self, agent_id, control)

    def _leave(self, kind: type[BaseException] | None, error: BaseException | None) -> None:
        if not self._is_finalized and (kind or not getattr(vars(self).get("_graphs"), "waiting", None)):  # for a person
            self.finalize(_end_by(kind, error))


def _beside(name: str, wanted: str) -> Any:
    """The module in a file beside this one; in a checkout it lies with the containers. Raises ImportError.

    Loaded as this one was: importlib.util would take a hook half the time again.
    """
    sys.modules.setdefault("hook_agent", sys.modules[__name__])
    folder = __file__.rpartition("/")[0] or "."
    for path in (f"{folder}/{name}.py", f"{folder}/containers/{name}.py"):
        if name not in sys.modules and posix.access(path, posix.R_OK):
            sys.modules[name] = module = type(sys)(name)
            module.__file__ = path
            try:
                type(globals()["__loader__"])(name, path).exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise
    if name not in sys.modules:
        folder, url = os.path.abspath(folder), f"{_service_url()}/{name}.py"
        raise ImportError(f"{wanted} needs another file: copy containers/{name}.py, or {url}, to {folder}")
    return sys.modules[name]


def _beside_or_none(name: str) -> Any:
    """The same, for what can be done without."""
    with _suppress(ImportError):
        return _beside(name, "this")
    return None


def _own_id(given: object, noun: str) -> str:
    """The id that the caller wants, as far as it can be one, or a new one."""
    new = f"{noun}-{os.urandom(_RANDOM_BYTES).hex()}"
    return new if given is None else _as_id(given, new)


def _until(is_over: Callable[[], bool], seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while not is_over() and time.monotonic() < deadline:
        yield


def _waited(waiting: Waiting[T]) -> T:
    while True:
        try:
            next(waiting)
        except StopIteration as end:
            result: T = end.value
            return result
        time.sleep(_FLUSH_POLL_SECONDS)


async def _awaited(waiting: Waiting[T]) -> T:
    import asyncio

    while True:
        try:
            next(waiting)
        except StopIteration as end:
            result: T = end.value
            return result
        await asyncio.sleep(_FLUSH_POLL_SECONDS)


def _as_coroutine(call: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """The same call, which writes to the spool and returns, for those who await it."""

    async def awaited(self: SessionHookAgent, *given: Any, **members: Any) -> Any:
        return call(self.sync, *given, **members)

    awaited.__name__, awaited.__doc__ = call.__name__, call.__doc__
    return awaited


class SessionHookAgent:
    """The same calls as coroutines; `sync` has them as plain functions, for where no event loop runs."""

    log_action = _as_coroutine(SyncSessionHookAgent.log_action)
    log_response = _as_coroutine(SyncSessionHookAgent.log_response)
    update_state = _as_coroutine(SyncSessionHookAgent.update_state)
    update_metadata = _as_coroutine(SyncSessionHookAgent.update_metadata)
    add_goal = _as_coroutine(SyncSessionHookAgent.add_goal)
    update_goal = _as_coroutine(SyncSessionHookAgent.update_goal)
    spawn_agent = _as_coroutine(SyncSessionHookAgent.spawn_agent)
    update_agent = _as_coroutine(SyncSessionHookAgent.update_agent)
    complete_agent = _as_coroutine(SyncSessionHookAgent.complete_agent)
    finalize = finalize_session = _as_coroutine(SyncSessionHookAgent.finalize)

    def __init__(
        self,
        session_id: str | None = None,
        service_url: str | None = None,
        user_id: str | None = None,
        **options: Any,
    ) -> None:
        self.sync = SyncSessionHookAgent(session_id, service_url, user_id, **options)
        self._record = self.sync._record
        self.langchain_handler = self.sync.langchain_handler

    session_id = property(lambda self: self.sync.session_id)
    service_url = property(lambda self: self.sync.service_url)
    user_id = property(lambda self: self.sync.user_id)

    async def test_connection(self) -> bool:
        return await _awaited(self.sync._testing())

    async def resume(self) -> Members | None:
        return await _awaited(self.sync._resuming())

    async def flush(self, timeout: float | None = None) -> bool:
        return await _awaited(self.sync._flushing(timeout))

    async def close(self) -> None:
        await _awaited(self.sync._closing())

    async def __aenter__(self) -> SessionHookAgent:
        self.sync._begin()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self.sync._leave(kind, error)
        await self.close()


hook_agent = SessionHookAgent()


# ---------------------------------------------------------------------------------------------------------------------
# Commands
# ---------------------------------------------------------------------------------------------------------------------

# Command line. What only some need is a further file: hook_agent_install.py, hook_agent_run.py.


def _own_spool() -> Spool:
    spool = Spool(_service_url(), limit=_spool_limit())
    spool.settle()
    _redaction()  # whoever asks how it goes is told of a setting that cannot be used
    return spool


def _test(arguments: list[str]) -> int:
    """whether the store can be reached, and takes what is sent with this token"""
    _parser("test", _test).parse_args(arguments)
    link = _Link(_service_url())
    try:
        answer = link.ask("POST", "/api/events", b"", _TEST_SECONDS)
    except _Unreachable as trouble:
        print(f"No answer from {trouble}", file=sys.stderr)
        return 1
    finally:
        link.close()
        if trouble_with_token := link.token_trouble():
            print(trouble_with_token, file=sys.stderr)
    if not answer.accounts_for(0):
        print(f"{link.service_url} answers {answer.status}: {answer.said()}", file=sys.stderr)
        return 1
    print(f"{link.service_url} is there and takes what is sent.")
    _tell_missing("hook_agent_facts", "to tell repository and branch")
    _tell_missing("hook_agent_ship", "to keep transcripts")
    if _setting("SESSION_REDACT") not in ("", "on", "off"):
        _tell_missing("hook_agent_patterns", "to refuse slow patterns")
    return 0


def _tell_missing(name: str, wanted: str) -> None:
    try:
        _beside(name, wanted)
    except ImportError as missing:
        print(missing)


def _flush(arguments: list[str]) -> int:
    """deliver what waits, and wait until it is delivered"""
    parser = _parser("flush", _flush)
    parser.add_argument("--timeout", type=float, default=_FLUSH_SECONDS, metavar="SECONDS")
    parser.add_argument("--dead", action="store_true", help="try what was refused for good again as well")
    options = parser.parse_args(arguments)
    spool = _own_spool()
    sender = Sender(spool, _Link(_service_url()), lambda text: print(text, file=sys.stderr))
    begun = time.monotonic()
    deadline = begun + options.timeout
    if _is_delivered(sender, deadline) and options.dead:  # a full spool would give up what waits for what is dead
        spool.raise_dead()
        _is_delivered(sender, deadline)
    if not (is_whole := sender.has_shipped(begun)):
        print("Not all of the transcripts is in the store yet.")
    sender.resign()
    sender.link.close()
    return _tell_status(spool) or int(not is_whole)


def _is_delivered(sender: Sender, deadline: float) -> bool:
    """Deliver what waits, until then at the latest; whether nothing does any more."""
    begun = time.monotonic()
    while (sender.spool.segments() or not sender.has_shipped(begun)) and time.monotonic() < deadline:
        is_shipped = not sender.take_charge() and (shipper := sender.shipper()) and shipper.step()  # so may two at once
        pause = sender.step() if sender.lock else 0.0 if is_shipped else _FLUSH_POLL_SECONDS
        time.sleep(max(0.0, min(pause or 0.0, deadline - time.monotonic(), _LOOK_SECONDS)))
    return not sender.spool.segments()


def _status(arguments: list[str]) -> int:
    """what waits, what was refused or had to go, and who delivers; 1 if anything waits"""
    _parser("status", _status).parse_args(arguments)
    return _tell_status(_own_spool())


def _tell_status(spool: Spool) -> int:
    waiting, dropped = spool.waiting(), spool.dropped_so_far()
    events = _total(waiting)
    print(f"{events} events of {len(waiting)} sessions wait in {spool.folder} for {_service_url()}.")
    if dropped:
        print(f"{_total(dropped)} events had to go for the bound of {spool.limit} bytes; the store is yet to be told.")
    if letters := spool.letters():
        print(f"{letters} were refused for good: see {spool.path('dead')}; `flush --dead` tries them again.")
    word, who = spool.word(), spool.who_delivers()
    if who:
        how = {"there": ".", "fails": f", but fails by itself: {spool.trouble()}."}
        print(f"Process {who} delivers" + how.get(word, ", but the store does not take it now."))
    if trouble := _Link(_service_url()).token_trouble():
        print(trouble)
    if events and word not in ("there", "fails"):
        print(f"The last try failed: {spool.trouble()}")
    for path, told in spool._read_json("transcripts.json", {"": {}}).items():
        if told.get("refused"):
            print(f"{path} is not kept: {told['refused']}")
    return 1 if events else 0


def _total(tally: Tally) -> int:
    return sum(known["count"] for known in tally.values())


def _parser(name: str, command: Callable[[list[str]], int]) -> Any:
    import argparse

    return argparse.ArgumentParser(prog=f"hook_agent.py {name}", description=command.__doc__)


def _hook(arguments: list[str]) -> int:
    """one payload of a Claude Code hook from stdin into the spool; prints nothing and exits with 0, always"""
    hook()


def _further(name: str, file: str, doc: str) -> Callable[[list[str]], int]:
    """A command that another file has."""

    def command(arguments: list[str]) -> int:
        return int(getattr(_beside(file, name), name)(arguments))

    command.__doc__ = doc
    return command


_RESTORE = "write a session's conversation back, for claude --resume: restore [--session ID] [--config-dir DIR]"
_INSTALL = "put the hooks into Claude Code's settings, and keep what is there; safe to repeat"
_UNINSTALL = "take the hooks out of Claude Code's settings again"
_RUN = "run a program as a session of its own: run [--output-lines N] [--control] [--restore] -- COMMAND …"
COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "hook": _hook,
    "test": _test,
    "flush": _flush,
    "status": _status,
    "install": _further("install", "hook_agent_install", _INSTALL),
    "uninstall": _further("uninstall", "hook_agent_install", _UNINSTALL),
    "run": _further("run", "hook_agent_run", _RUN),
    "restore": _further("restore", "hook_agent_restore", _RESTORE),
}


def main(arguments: list[str] | None = None) -> int:
    """0; 1 if it was not as it should be; 2 if used wrongly."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in COMMANDS:
        command, several = COMMANDS[arguments[0]], "," in _setting("SESSION_SERVICE_URL")
        try:
            if several and command in (_test, _flush, _status):
                return int(_beside("hook_agent_fleet", "a list of stores").each(command, arguments[1:]))
            return command(arguments[1:])
        except (ImportError, OSError) as error:  # of a file beside this one, of the spool
            print(f"hook_agent.py: {error}", file=sys.stderr)
            return 1
    wants_help = bool(arguments) and arguments[0] in ("-h", "--help")
    lines = [f"  {name:10} {command.__doc__}" for name, command in COMMANDS.items()]
    text = "\n".join(["usage: python hook_agent.py COMMAND …", "", *lines, "", "COMMAND --help says more."])
    print(text, file=sys.stdout if wants_help else sys.stderr)
    return 0 if wants_help else 2


if __name__ == "__main__":
    sys.exit(main())
