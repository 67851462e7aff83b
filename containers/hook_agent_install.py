"""Installer of Claude Code's hooks: `hook_agent.py install` puts them into its settings, `uninstall` takes them out.

One file, to be copied beside hook_agent.py, which finds it. Python 3.9 or newer and its standard library, nothing else.
The settings are read, changed and written under Claude Code's own lock, with a second look before the rename.

    The hooks      which there are, and the command that each runs
    The settings   what is put into them, and taken out
    The file       read, changed, and put in place of the old one at one instant; what was there before is kept
    The commands   install and uninstall
"""

from __future__ import annotations

import hashlib
import json
import os
import py_compile
import re
import shlex
import stat
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import hook_agent
from hook_agent import _BATCH_MARKS, _names, _parser, _service_url, _suppress, _text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

    Members = dict[str, Any]

# ---------------------------------------------------------------------------------------------------------------------
# The hooks
# ---------------------------------------------------------------------------------------------------------------------

# Not among them: WorktreeCreate (a hook there replaces git's worktrees), FileChanged (wants names of files),
# PreModelSwitch (its timeout blocks) and MessageDisplay (what is shown waits for it).
_HOOKED = """
    SessionStart Setup InstructionsLoaded UserPromptSubmit UserPromptExpansion PreToolUse PermissionRequest
    PermissionDenied PostToolUse PostToolUseFailure PostToolBatch Notification SubagentStart SubagentStop TaskCreated
    TaskCompleted Stop StopFailure TeammateIdle ConfigChange CwdChanged DirectoryAdded WorktreeRemove PreCompact
    PostCompact PostModelSwitch Elicitation ElicitationResult SessionEnd
"""
# Claude Code waits for these alone: what begins, so that it comes first, and what ends, because at the end of `-p` it
# kills whatever still runs. While it waits for the last ones, those that have begun before come to their end.
_WAITED_FOR = _names("SessionStart Setup UserPromptSubmit Stop StopFailure SubagentStop SessionEnd")
_LOOKED_INTO = {"PostToolBatch": _BATCH_MARKS}  # by the shell: seldom does it tell something new
_HOOK_SECONDS = 5
_END_SECONDS = 10
_ASIDE_SECONDS = 60  # nobody waits
_END_BUDGET = "CLAUDE_CODE_SESSIONEND_HOOKS_TIMEOUT_MS"  # without it, older clients end all of SessionEnd after 1.5 s
_END_BUDGET_MS = "10500"  # a little more than the hook has, and a number that nobody else writes: so we know it again
_WRITTEN = "SESSION_INSTALLED"  # which of the variables stand there because they were given to `install`
_LOCKED_SECONDS = 15.0  # Claude Code holds its lock for milliseconds, and takes one of this age for left behind:
_STALE_SECONDS = 10.0
_LOCKED_POLL_SECONDS = 0.02
_LOOK_AGAIN_SECONDS = 0.02
_CHANGING_SECONDS = 8.0  # less than what makes a lock an old one
_TRIES_TO_READ = 5  # of what is no JSON, which may be half of what somebody is just writing
_MANAGED_SETTINGS = "/etc/claude-code/managed-settings.d/50-session-store.json"
_OUR_COMMAND = r"\bhook_agent(\.hook\(\)|\.control\(\d+\)|\.py['\"]? hook\b)"
# With `--control` Claude Code waits for these, and does what they reply: the first two of them wait for a person.
_CONTROLLED = ["PreToolUse", "PermissionRequest", "PostToolBatch", "UserPromptSubmit", "Stop", "SubagentStop"]
_WAITING = _CONTROLLED[:2]
_BEYOND_SECONDS = 15  # so that a hook says that nobody has answered, before it is ended


class _Refused(Exception):
    """The settings are left as they are. The message says why, and where."""


def _interpreter() -> str:
    """One that outlives a virtual environment."""
    return sys.executable if sys.prefix == sys.base_prefix else os.path.realpath(sys.executable)


def _control_command(seconds: int) -> str:
    """The same, with what it prints: a reply, which may take so many seconds."""
    return _hook_command(call=f"control({seconds})").replace(">/dev/null 2>&1", "2>/dev/null")


def _hook_command(marks: Iterable[bytes] = (), *, is_aside: bool = False, call: str = "hook()") -> str:
    """The shell command of a hook: silent and 0 whatever happens, also when the interpreter or hook_agent.py is gone.

    A module is compiled once and a script each time, so hook_agent.py is imported. Its folder comes last in the path:
    what else lies there must not take the place of the standard library. With `marks`, the shell passes over payloads
    that have none of them, which costs a fifth of Python's start. Where nobody waits for the hook, the shell takes
    the payload at once and ends, and what it leaves behind goes on: at the end of `-p` Claude Code kills the hooks
    that it knows of.
    """
    folder = json.dumps(os.path.dirname(os.path.abspath(hook_agent.__file__)), ensure_ascii=False)
    code = f"import sys; sys.path.append({folder}); import hook_agent; hook_agent.{call}"
    command = f"{shlex.quote(_interpreter())} -I -S -c {shlex.quote(code)}"
    if not is_aside:
        return f"{command} >/dev/null 2>&1 || :"
    command = f'printf %s "$p" | {command}'
    if has_mark := "|".join(f"*{shlex.quote(mark.decode())}*" for mark in marks):
        command = f"case ${{p#*hook_event_name}} in {has_mark}) {command};; esac"
    return f"exec 3<&0; {{ p=$(cat <&3); {command}; }} >/dev/null 2>&1 & :"  # for of a job 0 is /dev/null


# ---------------------------------------------------------------------------------------------------------------------
# The settings
# ---------------------------------------------------------------------------------------------------------------------


def _is_ours(hook: object) -> bool:
    return isinstance(hook, dict) and bool(re.search(_OUR_COMMAND, _text(hook.get("command"))))


def _our_hooks(wait_seconds: int = 0) -> dict[str, Members]:
    """With control, if somebody may be waited for so long."""
    hooks: dict[str, Members] = {}
    for event in _HOOKED.split():
        if event in _WAITED_FOR:
            hooks[event] = {"type": "command", "command": _hook_command(), "timeout": _HOOK_SECONDS}
        else:
            aside = _hook_command(_LOOKED_INTO.get(event, ()), is_aside=True)
            hooks[event] = {"type": "command", "command": aside, "timeout": _ASIDE_SECONDS, "async": True}
    hooks["SessionEnd"]["timeout"] = _END_SECONDS
    for event in _CONTROLLED if wait_seconds else ():
        timeout = wait_seconds + _BEYOND_SECONDS if event in _WAITING else _HOOK_SECONDS
        hooks[event] = {"type": "command", "command": _control_command(wait_seconds), "timeout": timeout}
    return hooks


def _with_hooks(settings: Members, wait_seconds: int = 0, variables: dict[str, str] | None = None) -> None:
    """Put our hooks in, in place of older ones, and where they deliver. Raises _Refused."""
    hooks = _container(settings, "hooks", {})
    for event, hook in _our_hooks(wait_seconds).items():
        groups = _container(hooks, event, [])
        older = [(there, index) for there in _hooks_in(groups) for index, it in enumerate(there) if _is_ours(it)]
        for there, index in older:
            there[index] = hook
        if not older:
            groups.append({"hooks": [hook]})
    env = _container(settings, "env", {})
    env.setdefault(_END_BUDGET, _END_BUDGET_MS)
    if variables:
        env.update(variables)
        env[_WRITTEN] = " ".join(sorted({*_text(env.get(_WRITTEN)).split(), *variables}))


def _without_hooks(settings: Members) -> None:
    """Take them out again, with the containers that were made for them."""
    hooks, env = settings.get("hooks"), settings.get("env")
    for event, groups in list(hooks.items()) if isinstance(hooks, dict) else ():
        for there in _hooks_in(groups):
            if any(map(_is_ours, there)):
                there[:] = [hook for hook in there if not _is_ours(hook)]
                groups[:] = [group for group in groups if group != {"hooks": []}]
                _tidy(hooks, event)
                _tidy(settings, "hooks")
    if isinstance(env, dict):
        ours = [_END_BUDGET] if env.get(_END_BUDGET) == _END_BUDGET_MS else []
        for name in (*ours, *_text(env.pop(_WRITTEN, "")).split()):
            env.pop(name, None)
            _tidy(settings, "env")


def _container(parent: Members, name: str, new: Any) -> Any:
    """The member, which is made if need be. Raises _Refused where it is of another kind."""
    found = parent.setdefault(name, new)
    if type(found) is not type(new):
        raise _Refused(f'"{name}" should be {"an object" if new == {} else "an array"}')
    return found


def _hooks_in(groups: object) -> list[list[Any]]:
    """The hooks of each group of an event."""
    hooks = [it.get("hooks") for it in groups if isinstance(it, dict)] if isinstance(groups, list) else []
    return [it for it in hooks if isinstance(it, list)]


def _tidy(parent: Any, name: str) -> None:
    if not parent.get(name):
        parent.pop(name, None)


# ---------------------------------------------------------------------------------------------------------------------
# The file
# ---------------------------------------------------------------------------------------------------------------------


def _settings_file(project: str | None = None, managed: bool = False) -> str:
    """The file of the user's own settings, of a project's or of the machine's, as Claude Code names it."""
    if managed:
        return _MANAGED_SETTINGS
    if project is None:
        folder = os.environ.get("CLAUDE_CONFIG_DIR") or os.path.join(os.path.expanduser("~"), ".claude")
    elif os.path.isdir(project):
        folder = os.path.join(project, ".claude")
    else:
        raise _Refused(f"there is no folder {project}")
    return os.path.abspath(os.path.join(folder, "settings.json"))


def _text_in(path: str) -> str | None:
    """None: there is no such file. Raises _Refused, also of a pipe, which would be waited for, or of /dev/null."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise _Refused("it is no regular file")
        with open(path, encoding="utf-8-sig", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise _Refused(f"it is not JSON: {error}") from None


def _settings_in(text: str | None) -> Members:
    """Nothing is none, as it is to Claude Code. Raises _Refused where they are no JSON object."""
    try:
        settings = json.loads(text) if text and text.strip() else {}
    except json.JSONDecodeError as error:
        raise _Refused(f"line {error.lineno} column {error.colno} is not JSON: {error.msg}") from None
    except (RecursionError, ValueError) as error:  # the second: a number of thousands of digits
        raise _Refused(f"it is not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise _Refused("the settings should be an object")
    return settings


class _SettingsLock:
    """Claude Code's own lock of a file of settings: a folder beside it. One that is old is left from a crash."""

    def __init__(self, path: str) -> None:
        self._folder = f"{path}.lock"

    def __enter__(self) -> None:
        deadline = time.monotonic() + _LOCKED_SECONDS
        while not self._is_made():
            if time.monotonic() > deadline:
                raise _Refused(f"somebody else is changing these settings: {self._folder} is there")
            time.sleep(_LOCKED_POLL_SECONDS)

    def _is_made(self) -> bool:
        try:
            os.mkdir(self._folder)
        except FileExistsError:
            with _suppress(OSError):
                if time.time() - os.stat(self._folder).st_mtime > _STALE_SECONDS:
                    os.rmdir(self._folder)
            return False
        return True

    def __exit__(self, *_: object) -> None:
        with _suppress(OSError):
            os.rmdir(self._folder)


def _change_file(path: str, change: Callable[[Members], None]) -> bool:
    """Whether that changed anything. Where nothing is to be changed, nothing is touched."""
    try:
        if not _changed(path, change):
            return False
        os.makedirs(os.path.dirname(os.path.realpath(path)), exist_ok=True)
        with _SettingsLock(path):
            return _change_until_it_stays(path, change)
    except _Refused as reason:
        raise _Refused(f"{path}: {reason}") from None


def _change_until_it_stays(path: str, change: Callable[[Members], None]) -> bool:
    """Whoever does not heed the lock may write at any moment: so it is looked again before the change and after it."""
    has_changed, until = False, time.monotonic() + _CHANGING_SECONDS
    while time.monotonic() < until:
        changed = _changed(path, change)
        if not changed:
            return has_changed
        old, new = changed
        kept = _Before(path, old)
        if change is _without_hooks and kept.before is not None:
            new = kept.before
        if _put_settings(path, old, new):
            has_changed = True
            kept.keep(new, is_over=change is _without_hooks)
        time.sleep(_LOOK_AGAIN_SECONDS)
    raise _Refused("it is changed by somebody else again and again")


def _changed(
    path: str, change: Callable[[Members], None], tries: int = _TRIES_TO_READ
) -> tuple[str | None, str | None] | None:
    """The text as it is and as it is to be, None where no file is; None: there is nothing to change."""
    text = _text_in(path)
    try:
        settings, before = _settings_in(text), _settings_in(text)
    except _Refused:
        if not tries:
            raise
        time.sleep(_LOOK_AGAIN_SECONDS)
        return _changed(path, change, tries - 1)
    change(settings)
    if settings == before:
        return None
    is_file = bool(settings) or os.path.islink(path)
    return text, f"{json.dumps(settings, indent=2, ensure_ascii=False)}\n" if is_file else None


class _Before:
    """The text of the settings before our hooks came, to the byte: kept with the spool until they go. Where somebody
    else has changed the file since, or nothing could be kept, the settings alone are given back, written by json."""

    def __init__(self, path: str, text: str | None) -> None:
        name = hashlib.sha256(os.path.realpath(path).encode("utf-8", "surrogateescape")).hexdigest()
        self._file = f"{hook_agent._default_folder()}/settings/{name[:32]}.json"
        self._now = _whole(path, text)
        self.before = self._read()

    def _read(self) -> str | None:
        """None: nothing was kept that these settings came from."""
        with _suppress(OSError, ValueError, AttributeError, _Refused), open(self._file, encoding="utf-8") as file:
            kept = json.load(file)
            before = _text(kept.get("before"))
            if self._now is not None and kept.get("sha256") == _digest(self._now) and _is_without_hooks(before):
                return before
        return None

    def keep(self, new: str | None, *, is_over: bool) -> None:
        """`new`: as they are now."""
        before = self._now if self.before is None else self.before
        with _suppress(OSError):
            if is_over or before is None or new is None:
                os.unlink(self._file)
                return
            os.makedirs(os.path.dirname(self._file), 0o700, exist_ok=True)
            with open(os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                json.dump({"sha256": _digest(new), "before": before}, file)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _whole(path: str, text: str | None) -> str | None:
    """This text of the file with its byte-order mark, if it has one. None: the file has another by now."""
    with _suppress(OSError, UnicodeDecodeError), open(path, encoding="utf-8", newline="") as file:
        whole = file.read()
        return whole if whole in (text, f"\ufeff{text}") else None
    return None


def _is_without_hooks(text: str) -> bool:
    settings, before = (_settings_in(text.lstrip("\ufeff")) for _ in range(2))
    _without_hooks(settings)
    return settings == before


def _put_settings(path: str, old: str | None, new: str | None) -> bool:
    """Put the new text in place of the old at one instant, with its mode and owner; False: it is not there any more."""
    place = os.path.realpath(path)
    unfinished = f"{place}.{os.getpid()}.tmp"
    try:
        with open(unfinished, "x", encoding="utf-8") as file:
            file.write(new or "")
            file.flush()
            os.fsync(file.fileno())
            _take_after(path, file.fileno())
        if _text_in(path) != old:
            return False
        if new is not None:
            os.replace(unfinished, place)
        else:
            os.unlink(place)
        return True
    finally:
        with _suppress(FileNotFoundError):
            os.unlink(unfinished)


def _take_after(path: str, descriptor: int) -> None:
    try:
        old = os.stat(path)
    except FileNotFoundError:
        return
    if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, old.st_mode & 0o7777)


def _open_to_others(path: str) -> str:
    """The file or the folder above it that others than root and this user can write; empty if there is none."""
    while True:
        found = os.stat(path)
        is_sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX  # others may add, not replace
        by_group = found.st_mode & stat.S_IWGRP and found.st_gid != 0
        if found.st_uid not in (0, os.geteuid()) or ((by_group or found.st_mode & stat.S_IWOTH) and not is_sticky):
            return path
        if path == "/":
            return ""
        path = os.path.dirname(path)


def _check_closed(path: str) -> None:
    """Whoever can write what each user's Claude Code is to run can run anything as each of them. Raises _Refused."""
    for needed in (os.path.abspath(hook_agent.__file__), _interpreter(), path):
        while not os.path.exists(needed):
            needed = os.path.dirname(needed)
        if found := _open_to_others(os.path.realpath(needed)):
            raise _Refused(
                f"{found} can be written by others than root, who could then run anything as anybody who starts "
                "Claude Code here. Let it be root's alone (chown root, chmod go-w), or put this file elsewhere"
            )


def _compile() -> str:
    """Compiles what hooks load, so that also the first one finds it compiled; why that could not be, else empty."""
    control = sys.modules.get("hook_agent_control")
    for source in (os.path.abspath(it.__file__ or "") for it in (hook_agent, control) if it):
        folder, name = os.path.split(source)
        compiled = f"{name[: -len('.py')]}.{sys.implementation.cache_tag}.pyc"
        try:
            py_compile.compile(source, os.path.join(folder, "__pycache__", compiled), doraise=True)
        except OSError as error:
            return str(error)
    return ""


# ---------------------------------------------------------------------------------------------------------------------
# The commands
# ---------------------------------------------------------------------------------------------------------------------


def install(arguments: list[str]) -> int:
    """put the hooks into Claude Code's settings, and keep what is there; safe to repeat"""
    return _change_settings("install", install, arguments)


def uninstall(arguments: list[str]) -> int:
    """take the hooks out of Claude Code's settings again"""
    return _change_settings("uninstall", uninstall, arguments)


def _change_settings(name: str, command: Callable[[list[str]], int], arguments: list[str]) -> int:
    """1: the settings could not be changed, and are as they were."""
    parser = _parser(name, command)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--project", metavar="DIR", help="the settings of the project in this folder")
    where.add_argument("--managed", action="store_true", help=f"the settings of this machine: {_MANAGED_SETTINGS}")
    is_install = name == "install"
    user = "your own settings, as if nothing is said"
    if is_install:
        parser.add_argument(
            "--user", nargs="?", const="", metavar="NAME", help=f"{user}; NAME: whose sessions it makes"
        )
        parser.add_argument("--url", help="the store, written into the settings' env")
        parser.add_argument("--token-file", metavar="FILE", help="the file that has the token, likewise")
        parser.add_argument("--control", action="store_true", help="and do what people answer and order in the store")
    else:
        parser.add_argument("--user", action="store_const", const="", help=user)
    options = parser.parse_args(arguments)
    if options.user == "" and (options.project or options.managed):
        parser.error("--user without a name means your own settings: say one of --user, --project and --managed")
    try:
        variables = _variables(options) if is_install else {}
        path = _settings_file(options.project, options.managed)
        if options.managed and is_install:
            _check_closed(path)
        wait_seconds = _checked_wait() if is_install and options.control else 0
        with_hooks = partial(_with_hooks, wait_seconds=wait_seconds, variables=variables)
        changed = _change_file(path, with_hooks if is_install else _without_hooks)
    except (_Refused, OSError, UnicodeEncodeError) as trouble:
        print(f"Nothing was changed: {trouble}", file=sys.stderr)
        return 1
    (_tell_install if is_install else _tell_uninstall)(path, changed)
    return 0


def _variables(options: argparse.Namespace) -> dict[str, str]:
    """What hooks find in their environment from now on, and this process too. Raises _Refused."""
    file = os.path.abspath(options.token_file) if options.token_file else None
    if file and not os.path.isfile(file):
        raise _Refused(f"there is no token file {file}")
    if options.url and not all(re.fullmatch(r"https?://[^/\s]\S*", url.strip()) for url in options.url.split(",")):
        raise _Refused(f"{options.url} is no address of a store, such as http://store:9000")
    said = {"SESSION_SERVICE_URL": options.url, "SESSION_USER_ID": options.user, "SESSION_TOKEN_FILE": file}
    variables = {name: value for name, value in said.items() if value}
    os.environ.update(variables)
    return variables


def _listed() -> str:
    """The address of the store, or of several."""
    return hook_agent._setting("SESSION_SERVICE_URL") or _service_url()


def _checked_wait() -> int:
    """How long somebody is waited for. Raises _Refused where answers would come from anybody, and ImportError."""
    further = hook_agent._beside("hook_agent_control", "install --control")
    for url in _listed().split(","):
        if trouble := further.insecure(url.strip()):
            raise _Refused(trouble)
    return int(further.wait_seconds())


def _tell_install(path: str, changed: bool) -> None:
    trouble = _compile()
    if changed:
        print(f"{len(_HOOKED.split())} hooks are in {path} now; all else there is as it was. Each of them runs\n")
        print(f"    {_hook_command()}\n")
    else:
        print(f"The hooks are in {path} already.")
    if trouble:
        print(f"This file could not be compiled beforehand, which makes each hook a little slower: {trouble}")
    print(
        "From its next start on, what Claude Code does goes to the store that its environment names:\n"
        f"SESSION_SERVICE_URL (here {_listed()}), SESSION_TOKEN or SESSION_TOKEN_FILE, SESSION_USER_ID.\n"
        "Say `test` in place of `install` to learn whether that store can be reached from here."
    )


def _tell_uninstall(path: str, changed: bool) -> None:
    if not changed:
        print(f"Nothing to do: there are no hooks of ours in {path}.")
    elif os.path.exists(path):
        print(f"The hooks are no longer in {path}; all else there is as it was.")
    else:
        print(f"{path} is gone: there were only our hooks in it.")
