"""`hook_agent.py install` puts the hooks into Claude Code's settings, and `uninstall` gives back what was there."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hook_agent
from tests.appliance import REPOSITORY
from tests.peers import eventually
from tests.test_hook_mapping import names

Json = dict[str, Any]

SAFE = names(
    """SessionStart Setup InstructionsLoaded UserPromptSubmit UserPromptExpansion PreToolUse PermissionRequest
    PermissionDenied PostToolUse PostToolUseFailure PostToolBatch Notification SubagentStart SubagentStop
    TaskCreated TaskCompleted Stop StopFailure TeammateIdle ConfigChange CwdChanged DirectoryAdded WorktreeRemove
    PreCompact PostCompact PostModelSwitch Elicitation ElicitationResult SessionEnd"""
)
WAITED_FOR = names("SessionStart Setup UserPromptSubmit Stop StopFailure SubagentStop SessionEnd")
BUDGET = "CLAUDE_CODE_SESSIONEND_HOOKS_TIMEOUT_MS"

FULL = """{
    "model": "opus",
    "hooks": {
        "Stop": [
            {
                "hooks": [{"type": "command", "command": "say  done"}]
            }
        ],
        "PreToolUse": [{"matcher": "Bash", "hooks": []}],
        "FutureHook": [{"hooks": [{"type": "from the future", "new": [1, 2.50, null]}]}]
    },
    "env": {"A": "\\u00e9\\ud83d\\ude00é"},
    "unknown": {"deep": [[], {}, [ ]]}   }
"""
SETTINGS = {
    "a full file": FULL,
    "tabs": FULL.replace("    ", "\t"),
    "Windows line ends": FULL.replace("\n", "\r\n"),
    "one line": json.dumps(json.loads(FULL)),
    "no space at all": json.dumps(json.loads(FULL), separators=(",", ":")),
    "a byte order mark": "\ufeff" + FULL,
    "nothing in it": "{}",
    "nothing in it, with line breaks": "{\n}\n",
    "nothing in it, with a space": " { } ",
    "no hooks in hooks": '{\n  "hooks": {}\n}\n',
    "no hooks in hooks, with line breaks": '{\n  "hooks": {\n\n  },\n  "env": {\n  }\n}',
    "an event without hooks": '{"hooks": {"Stop": [], "SessionEnd": [\n]}}\n',
    "our own word": f'{{"env": {{"{BUDGET}": "10000"}}}}',
    "a name twice": '{"hooks": {}, "hooks": {"Stop": [ ]}, "env": {}, "env": {"A": "1"}}',
    "commas first": '{ "a": 1\n, "b": {"c": 2\n, "d": 3}\n, "hooks": {"Stop": [1\n, 2]}\n}',
}


class Place:
    """A copy of hook_agent.py in a folder of its own, and a home whose settings it changes."""

    def __init__(self, folder: Path) -> None:
        self.home, self.agent = folder / "home", folder / "agent" / "hook_agent.py"
        self.settings = self.home / ".claude" / "settings.json"
        self.home.mkdir()
        self.agent.parent.mkdir()
        shutil.copy(REPOSITORY / "hook_agent.py", self.agent)

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(self.agent), *arguments]
        return self.run_command(command, {} if env is None else env)

    def run_command(
        self, command: list[str], env: Mapping[str, str], given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        variables = {"HOME": str(self.home), "PATH": os.environ["PATH"], **env}
        return subprocess.run(
            command, env=variables, cwd=self.home, input=given, capture_output=True, text=True, timeout=30
        )

    def does(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        done = self.run(*arguments, env=env)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def write(self, text: str) -> None:
        self.settings.parent.mkdir(exist_ok=True)
        self.settings.write_bytes(text.encode())

    def names(self) -> set[str]:
        return {str(path.relative_to(self.home)) for path in self.home.rglob("*")}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def settings_of(path: Path) -> Json:
    settings: Json = json.loads(path.read_text(encoding="utf-8-sig"))
    return settings


def ours(settings: Json) -> dict[str, list[Json]]:
    """Our hooks in the settings, by event."""
    return {
        event: [hook for group in groups for hook in group["hooks"] if "hook_agent" in hook.get("command", "")]
        for event, groups in settings["hooks"].items()
    }


# ------------------------------------------------------------------- what is written


def test_every_safe_event_gets_the_hook_and_no_other_event(place: Place) -> None:
    place.does("install")
    settings = settings_of(place.settings)
    assert list(settings) == ["hooks", "env"]
    assert list(settings["hooks"]) == SAFE
    for event, (hook,) in ours(settings).items():
        seconds = 10 if event == "SessionEnd" else 5 if event in WAITED_FOR else 60
        assert (hook["type"], hook["timeout"]) == ("command", seconds)
        assert set(hook) - {"async"} == {"type", "command", "timeout"}
        assert hook.get("async", False) is (event not in WAITED_FOR)
    assert int(settings["env"][BUDGET]) >= 10_000


def test_nothing_of_the_environment_is_written(place: Place) -> None:
    place.does("install", env={"SESSION_TOKEN": "secret-1", "SESSION_ID": "secret-2", "SESSION_SPOOL_DIR": "secret-3"})
    assert "secret" not in place.settings.read_text()


def test_the_command_spools_what_it_is_given_and_is_silent_also_when_the_file_is_gone(place: Place) -> None:
    place.does("install")
    ((hook,), *_) = ours(settings_of(place.settings)).values()
    spool = place.home / "spool"
    env = {"SESSION_SPOOL_DIR": str(spool), "SESSION_SERVICE_URL": "http://127.0.0.1:9"}
    for _ in range(2):
        done = place.run_command(["/bin/sh", "-c", hook["command"]], env, '{"hook_event_name": "Stop"}')
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        shutil.rmtree(place.agent.parent, ignore_errors=True)
    spooled = [path.read_text() for path in spool.rglob("*.ndjson")]
    shutil.rmtree(spool)  # with which whoever delivers from it leaves
    assert [text.count("hook_event_name") for text in spooled] == [1]


def test_the_command_names_an_interpreter_that_outlives_a_virtual_environment(place: Place) -> None:
    place.does("install")
    ((hook,), *_) = ours(settings_of(place.settings)).values()
    interpreter = shlex.split(hook["command"])[0]
    assert os.path.isabs(interpreter)
    assert not os.path.realpath(interpreter).startswith(sys.prefix) or sys.prefix == sys.base_prefix


@pytest.mark.parametrize("name", ["it's", 'say "x"', "a b", "$HOME `id`", "back\\slash", "naïve 😀", "new\nline"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    place = Place(folder)
    place.does("install")
    ((hook,), *_) = ours(settings_of(place.settings)).values()
    command = (
        hook["command"].replace("hook_agent.hook()", 'print("found", hook_agent.__file__)').split(" >/dev/null")[0]
    )
    done = place.run_command(["/bin/sh", "-c", command], {"LANG": "C.UTF-8"})
    assert done.stdout == f"found {place.agent}\n", done


def test_the_first_hook_finds_the_file_compiled(place: Place) -> None:
    place.does("install")
    assert [path.name for path in (place.agent.parent / "__pycache__").iterdir()] == [
        f"hook_agent.{sys.implementation.cache_tag}.pyc"
    ]


def test_a_folder_that_takes_no_compiled_file_is_no_error(place: Place) -> None:
    (place.agent.parent / "__pycache__").write_text("in the way")
    assert "compile" in place.does("install")
    assert ours(settings_of(place.settings))


# ------------------------------------------------------------------- what was there


@pytest.mark.parametrize("text", SETTINGS.values(), ids=SETTINGS)
def test_a_second_install_changes_nothing_and_uninstall_gives_back_each_byte(place: Place, text: str) -> None:
    place.write(text)
    assert "29" in place.does("install")
    once = place.settings.read_bytes(), place.settings.stat().st_ino
    assert once[0] != text.encode()
    assert "already" in place.does("install")
    assert (place.settings.read_bytes(), place.settings.stat().st_ino) == once
    place.does("uninstall")
    assert place.settings.read_bytes() == text.encode()


def test_all_that_was_there_is_still_there_in_its_order(place: Place) -> None:
    place.write(FULL)
    place.does("install")
    text = place.settings.read_text()
    before, after = json.loads(FULL), json.loads(text)
    assert list(after) == list(before)
    assert list(after["hooks"])[:3] == list(before["hooks"])
    for event, groups in before["hooks"].items():
        assert after["hooks"][event][: len(groups)] == groups
    assert {event: len(hooks) for event, hooks in ours(after).items()} == dict.fromkeys(SAFE, 1) | {"FutureHook": 0}
    assert after["env"] == before["env"] | {BUDGET: after["env"][BUDGET]}
    assert '"new": [1, 2.50, null]' in text
    assert '"unknown": {"deep": [[], {}, [ ]]}   }\n' in text


def test_what_is_added_is_indented_as_the_rest(place: Place) -> None:
    place.write(SETTINGS["tabs"])
    place.does("install")
    lines = place.settings.read_text().splitlines()
    assert any(line.startswith('\t\t"SessionStart": [') for line in lines)
    assert any(line.startswith('\t\t\t{"hooks": [{"type": "command"') for line in lines)


def test_a_budget_that_is_there_stays(place: Place) -> None:
    place.write(f'{{"env": {{"{BUDGET}": "60000"}}}}')
    place.does("install")
    assert settings_of(place.settings)["env"] == {BUDGET: "60000"}


def test_a_new_place_takes_the_place_of_the_old(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old, new = Place(tmp_path / "old"), Place(tmp_path / "new")
    new.settings = old.settings
    old.write(FULL)
    old.does("install")
    new.does("install", "--user", env={"HOME": str(old.home)})
    text = old.settings.read_text()
    assert text.count(str(new.agent.parent)) == len(SAFE)
    assert str(old.agent.parent) not in text
    new.does("uninstall", env={"HOME": str(old.home)})
    assert old.settings.read_text() == FULL


def older(text: str) -> str:
    """The settings as an earlier version of `install` left them: each hook waited for, and by one command."""
    settings = hook_agent._installed(text)
    settings = settings.replace('"timeout": 60, "async": true', '"timeout": 5')
    for marks in ((), hook_agent._BATCH_MARKS):
        aside = hook_agent._hook_command(marks, is_aside=True)
        settings = settings.replace(json.dumps(aside), json.dumps(hook_agent._hook_command()))
    return settings


@pytest.mark.parametrize("text", SETTINGS.values(), ids=SETTINGS)
def test_what_an_earlier_version_installed_is_renewed_in_its_place(place: Place, text: str) -> None:
    before = older(text)
    assert '"async"' not in before
    assert before != hook_agent._installed(text)
    place.write(before)
    place.does("install")
    after = place.settings.read_text()
    assert after.count("hook_agent.hook()") == before.count("hook_agent.hook()") == len(SAFE)
    assert after.count('"async": true') == len(SAFE) - len(WAITED_FOR)
    assert not place.does("install").startswith("29")
    place.does("uninstall")
    assert place.settings.read_bytes() == text.encode()


@pytest.mark.parametrize(
    "refusal",
    [
        "",
        "<tool_use_error>String to replace not found</tool_use_error>",
        "The user doesn't want to proceed",
        "Permission to use Bash has been denied",
    ],
)
def test_of_batches_only_what_no_other_hook_has_said_is_kept(place: Place, refusal: str) -> None:
    place.does("install")
    (hook,) = ours(settings_of(place.settings))["PostToolBatch"]
    result = {"tool_name": "Edit", "tool_use_id": "t", "tool_response": refusal + "\\ % \n 'é' \u0000" + "x" * 300_000}
    common = {"session_id": "x", "permission_mode": "default", "hook_event_name": "PostToolBatch"}
    payload = json.dumps({**common, "tool_calls": [result]})
    spool = place.home / "spool"
    env = {"SESSION_SPOOL_DIR": str(spool), "SESSION_SERVICE_URL": "http://127.0.0.1:9"}
    done = place.run_command(["/bin/sh", "-c", hook["command"] + "; wait"], env, payload)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    spooled = spooled_in(spool)
    assert spooled.endswith(payload.encode() + b"}\n") if refusal else not spooled
    shutil.rmtree(spool, ignore_errors=True)


def spooled_in(spool: Path) -> bytes:
    return b"".join(path.read_bytes() for path in spool.rglob("*.ndjson"))


def test_a_hook_that_nobody_waits_for_has_its_payload_when_the_shell_ends_and_outlives_it(place: Place) -> None:
    """For at the end of `-p` Claude Code kills the shells that it knows of, and reads and writes no pipe any more."""
    place.does("install")
    (hook,) = ours(settings_of(place.settings))["PostToolUse"]
    slow = hook["command"].replace("printf %s", "sleep 1; printf %s")
    assert slow != hook["command"]
    payload = json.dumps({"session_id": "x", "hook_event_name": "PostToolUse", "tool_response": "x" * 600_000})
    spool = place.home / "spool"
    env = {"SESSION_SPOOL_DIR": str(spool), "SESSION_SERVICE_URL": "http://127.0.0.1:9"}
    done = place.run_command(["/bin/sh", "-c", slow], env, payload)
    assert (done.returncode, done.stdout, done.stderr, spooled_in(spool)) == (0, "", "", b"")
    eventually(lambda: spooled_in(spool).endswith(payload.encode() + b"}\n"))
    shutil.rmtree(spool)


def test_a_hook_that_was_written_by_hand_is_not_doubled(place: Place) -> None:
    by_hand = {"hooks": {"Stop": [{"hooks": [{"type": "command", "command": "python3 /opt/hook_agent.py hook"}]}]}}
    place.write(json.dumps(by_hand))
    place.does("install")
    assert [len(hooks) for hooks in ours(settings_of(place.settings)).values()] == [1] * len(SAFE)


def test_what_was_put_in_is_found_after_the_file_was_formatted_anew(place: Place) -> None:
    place.write(FULL)
    place.does("install")
    place.write(json.dumps(settings_of(place.settings), indent=3))
    assert "already" in place.does("install")
    place.does("uninstall")
    assert settings_of(place.settings) == json.loads(FULL)


def test_what_was_added_to_our_file_later_stays(place: Place) -> None:
    place.does("install")
    place.write(json.dumps(settings_of(place.settings) | {"model": "opus"}))
    place.does("uninstall")
    assert settings_of(place.settings) == {"model": "opus"}


def test_there_is_nothing_to_uninstall_where_nothing_is_installed(place: Place) -> None:
    assert "nothing" in place.does("uninstall").lower()
    assert place.names() == set()
    place.write(FULL)
    assert "nothing" in place.does("uninstall").lower()
    assert place.settings.read_bytes() == FULL.encode()


space = st.text(" \n\t\r", max_size=3)
member_names = st.sampled_from(["a", "hooks", "env", "Stop", "SessionEnd", "PreToolUse", 'q"\\', "é"])
plain = st.sampled_from(["1", "-2.50e3", "null", "true", '"x"', '"\\u00e9 \\" }]"', '""'])


def containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def text(open_: str, elements: list[tuple[str, str, str]], close: str, empty: str) -> str:
        return open_ + (",".join(a + element + b for a, element, b in elements) or empty) + close

    element = st.tuples(space, inner, space)
    member = st.tuples(
        space, st.builds(lambda n, s, v: f"{json.dumps(n)}{s}:{s}{v}", member_names, space, inner), space
    )
    return st.one_of(
        st.builds(text, st.just("["), st.lists(element, max_size=3), st.just("]"), space),
        st.builds(text, st.just("{"), st.lists(member, max_size=3), st.just("}"), space),
    )


@given(st.recursive(plain, containers, max_leaves=12), space, space)
def test_any_json_is_refused_or_comes_back_to_the_byte(value: str, before: str, after: str) -> None:
    text = f'{before}{{"x":{value},"hooks":{value}}}{after}'
    try:
        installed = hook_agent._installed(text)
    except hook_agent._Refused:
        assert not isinstance(json.loads(value), dict) or any(
            not isinstance(groups, list) for groups in json.loads(value).values()
        )
        return
    assert json.loads(installed)["x"] == json.loads(value)
    assert hook_agent._installed(installed) == installed
    assert {len(ours({"hooks": {e: json.loads(installed)["hooks"][e][-1:]}})[e]) for e in SAFE} == {1}
    assert hook_agent._uninstalled(installed) == text


# ------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{\n  // mine\n  "model": "opus"\n}', "line 2 column 3"),
        ('{\n  "model": "opus",\n}', "line"),
        ('{"hooks": ', "line 1 column 11"),
        ("", "line 1 column 1"),
        ("[]", "line 1 column 1"),
        ('{\n  "hooks": []}', "line 2"),
        ('{"hooks": {\n  "Stop": {}}}', "line 2"),
        ('{"env": "A=1"}', "line 1"),
        ("[" * 100_000, "settings.json"),
    ],
    ids=range(9),
)
def test_settings_that_cannot_be_understood_are_left_alone(place: Place, text: str, where: str) -> None:
    place.write(text)
    refused = place.run("install")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert str(place.settings) in refused.stderr
    assert where in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert place.settings.read_bytes() == text.encode()


@pytest.mark.parametrize("text", ["{", '{"hooks": 7}'])
def test_a_refusal_names_the_file_once(place: Place, text: str) -> None:
    place.write(text)
    assert place.run("install").stderr.count(str(place.settings)) == 1


def test_settings_that_are_not_utf_8_are_left_alone(place: Place) -> None:
    place.write("")
    place.settings.write_bytes(b'{"a": "\xff"}')
    assert place.run("install").returncode == place.run("uninstall").returncode == 1
    assert place.settings.read_bytes() == b'{"a": "\xff"}'


def test_a_full_disk_leaves_the_settings_as_they_were(place: Place) -> None:
    place.write(FULL)
    command = f"ulimit -f 1; exec {shlex.join([sys.executable, str(place.agent), 'install'])}"
    done = place.run_command(["/bin/sh", "-c", command], {})
    assert done.returncode == 1
    assert "too large" in done.stderr.lower()
    assert place.settings.read_bytes() == FULL.encode()
    assert place.names() == {".claude", ".claude/settings.json"}


@pytest.mark.parametrize("arguments", [["--nowhere"], ["--user", "--managed"], ["--project"], ["extra"]])
def test_a_wrong_word_changes_nothing(place: Place, arguments: list[str]) -> None:
    assert place.run("install", *arguments).returncode == 2
    assert place.names() == set()


# ------------------------------------------------------------------- which file


def test_the_folder_of_the_settings_may_be_another(place: Place) -> None:
    place.does("install", env={"CLAUDE_CONFIG_DIR": str(place.home / "deep" / "config")})
    assert (place.home / "deep" / "config" / "settings.json").exists()
    place.does("uninstall", env={"CLAUDE_CONFIG_DIR": str(place.home / "deep" / "config")})
    assert place.names() == set()


def test_a_project_has_settings_of_its_own(place: Place) -> None:
    project = place.home / "project"
    assert place.run("install", "--project", str(project)).returncode == 1
    project.mkdir()
    place.does("install", "--project", "project")
    assert place.names() == {"project", "project/.claude", "project/.claude/settings.json"}
    place.does("uninstall", "--project", "project")
    assert place.names() == {"project"}


def test_managed_settings_are_a_file_of_ours_alone(place: Place) -> None:
    there = place.home / "etc" / "claude-code" / "managed-settings.d" / "50-session-store.json"
    elsewhere = f"hook_agent._MANAGED_SETTINGS = {str(there)!r}"
    code = f"import hook_agent, sys; {elsewhere}; sys.exit(hook_agent.main(sys.argv[1:]))"
    for command in ("install", "uninstall"):
        env = {"PYTHONPATH": str(place.agent.parent)}
        done = place.run_command([sys.executable, "-c", code, command, "--managed"], env)
        assert (done.returncode, done.stderr) == (0, "")
        assert there.exists() == (command == "install")
    assert place.names() == set()
    assert hook_agent._MANAGED_SETTINGS == "/etc/claude-code/managed-settings.d/50-session-store.json"


def test_a_new_file_and_its_folders_go_again(place: Place) -> None:
    place.does("install")
    assert place.names() == {".claude", ".claude/settings.json"}
    assert "already" in place.does("install")
    assert "gone" in place.does("uninstall")
    assert place.names() == set()


def test_a_folder_that_was_there_is_not_taken_away(place: Place) -> None:
    place.settings.parent.mkdir()
    place.does("install")
    place.does("uninstall")
    assert place.names() == {".claude"}


def test_a_link_is_followed_and_mode_and_owner_are_kept(place: Place) -> None:
    target = place.home / "dotfiles.json"
    place.write("{}")
    place.settings.rename(target)
    place.settings.symlink_to(target)
    target.chmod(0o640)
    owner = (1234, 1234) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    os.chown(target, *owner)
    place.does("install")
    assert place.settings.is_symlink()
    assert ours(settings_of(target))
    state = target.stat()
    assert (state.st_mode & 0o7777, state.st_uid, state.st_gid) == (0o640, *owner)
    place.does("uninstall")
    assert (place.settings.is_symlink(), target.read_text()) == (True, "{}")


# ------------------------------------------------------------------- others who write at the same time


class Writer(threading.Thread):
    """Reads, changes and writes the settings again and again, as Claude Code does, a key each time."""

    def __init__(self, path: Path, kind: str, pause: float) -> None:
        super().__init__()
        self.path, self.kind, self.pause = path, kind, pause
        self.lock = Path(f"{path}.lock")
        self.written: list[str] = []
        self.is_done = threading.Event()

    def run(self) -> None:
        while not self.is_done.wait(self.pause):
            self.write(f"key-{len(self.written)}")

    def write(self, key: str) -> None:
        if self.kind == "locks":
            eventually(self.is_locked)
        settings = json.loads(self.path.read_text()) | {key: True}
        text = json.dumps(settings, indent=2)
        if self.kind == "writes in place":
            self.path.write_text(text)
        else:
            other = self.path.with_suffix(".theirs")
            other.write_text(text)
            other.replace(self.path)
        self.written.append(key)
        if self.kind == "locks":
            self.lock.rmdir()

    def is_locked(self) -> bool:
        try:
            self.lock.mkdir()
        except FileExistsError:
            return False
        return True


@pytest.mark.parametrize("kind", ["locks", "does not lock", "writes in place"])
def test_nothing_that_others_write_meanwhile_is_lost(place: Place, kind: str) -> None:
    """One that does not lock may lose ours, which are put in again; it pauses for longer than a change takes."""
    place.write("{}")
    writer = Writer(place.settings, kind, 0.0 if kind == "locks" else 0.05)
    writer.start()
    while len(writer.written) < 10:
        has_changed = [hook_agent._install_into(str(place.settings))]
        if kind == "locks":
            assert len(ours(settings_of(place.settings))) == len(SAFE)
        has_changed.append(hook_agent._uninstall_from(str(place.settings)))
        assert has_changed == [True, True] or kind != "locks"
    writer.is_done.set()
    writer.join()
    hook_agent._uninstall_from(str(place.settings))  # one that does not lock may have put back what it had read
    assert list(settings_of(place.settings)) == writer.written
    assert sorted(path.name for path in place.settings.parent.iterdir()) == ["settings.json"]


@pytest.mark.parametrize("can_exchange", [True, False])
@pytest.mark.parametrize("verb", ["install", "uninstall"])
@pytest.mark.parametrize("is_in_place", [True, False])
@pytest.mark.parametrize("moment", ["while it is prepared", "at the last look", "just after"])
def test_whatever_the_moment_of_the_other_write_it_stays(
    place: Place, moment: str, is_in_place: bool, verb: str, can_exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '{\n  "model": "opus"\n}\n'
    place.write(text if verb == "install" else hook_agent._installed(text))
    opened = place.settings.open("r+")
    wrote: list[str] = []

    def write_theirs() -> None:
        if wrote:
            return
        theirs = place.settings.read_text() if not is_in_place or moment != "just after" else opened.read()
        wrote.append(theirs.replace("opus", "sonnet"))
        if is_in_place:
            opened.seek(0)
            opened.write(wrote[0])
            opened.truncate()
            opened.flush()
        else:
            place.settings.with_suffix(".theirs").write_text(wrote[0])
            place.settings.with_suffix(".theirs").replace(place.settings)

    real = {name: getattr(hook_agent, name) for name in ("_write_settings", "_text_in", "_exchange")}
    looks: list[str] = []

    def prepare(*arguments: Any) -> None:
        real["_write_settings"](*arguments)
        if moment == "while it is prepared":
            write_theirs()

    def look(path: str) -> str:
        looks.append(path)
        found: str = real["_text_in"](path)
        if moment == "at the last look" or (moment == "just after" and len(looks) == 2):
            write_theirs()
        return found

    monkeypatch.setattr(hook_agent, "_write_settings", prepare)
    monkeypatch.setattr(hook_agent, "_text_in", look)
    if not can_exchange:
        monkeypatch.setattr(hook_agent, "_exchange", lambda: lambda one, other: False)
    change = hook_agent._install_into if verb == "install" else hook_agent._uninstall_from
    assert change(str(place.settings))
    opened.close()
    settings = settings_of(place.settings)
    assert settings["model"] == "sonnet"
    assert len(ours(settings)) == len(SAFE) if verb == "install" else "hooks" not in settings


def test_where_nothing_is_to_be_changed_nothing_is_touched(place: Place) -> None:
    """The settings may be mounted so that nobody can write there."""
    place.does("install")
    before = place.settings.stat()
    lock = Path(f"{place.settings}.lock")
    lock.mkdir()
    assert "already" in place.does("install")
    place.write('{"model": "opus"}')
    assert "Nothing to do" in place.does("uninstall")
    assert lock.exists()
    assert before.st_ino == place.settings.stat().st_ino


def test_a_lock_that_is_held_is_waited_for_and_one_that_was_left_is_not(place: Place) -> None:
    place.write("{}")
    lock = Path(f"{place.settings}.lock")
    lock.mkdir()
    threading.Timer(0.3, lock.rmdir).start()
    begun = time.monotonic()
    place.does("install")
    assert time.monotonic() - begun > 0.3
    lock.mkdir()
    os.utime(lock, (1, 1))
    place.does("uninstall")
    assert not lock.exists()


def test_a_lock_that_is_never_given_back_is_said(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write("{}")
    monkeypatch.setattr(hook_agent, "_LOCKED_SECONDS", 0.1)
    lock = Path(f"{place.settings}.lock")
    lock.mkdir()
    with pytest.raises(hook_agent._Refused, match=r"settings\.json\.lock is there"):
        hook_agent._install_into(str(place.settings))
    assert (place.settings.read_text(), lock.exists()) == ("{}", True)


# ------------------------------------------------------------------- who may write what everybody runs


@pytest.mark.parametrize("trouble", ["file", "folder", "group", "owner", "above"])
def test_managed_settings_do_not_name_what_others_can_write(place: Place, trouble: str) -> None:
    there = place.home / "etc" / "50.json"
    folder = place.agent.parent
    there.parent.mkdir()
    mine = (os.geteuid(), os.getegid())
    path, mode, owner = {
        "file": (place.agent, 0o666, mine),
        "folder": (folder, 0o777, mine),
        "group": (folder, 0o775, (0, 1234)),
        "owner": (place.agent, 0o644, (1234, 0)),
        "above": (there.parent, 0o777, mine),
    }[trouble]
    if os.geteuid() and trouble in ("group", "owner"):
        pytest.skip("needs root")
    os.chown(path, *owner)
    path.chmod(mode)
    elsewhere = f"hook_agent._MANAGED_SETTINGS = {str(there)!r}"
    code = f"import hook_agent, sys; {elsewhere}; sys.exit(hook_agent.main(['install', '--managed']))"
    done = place.run_command([sys.executable, "-c", code], {"PYTHONPATH": str(folder)})
    assert done.returncode == 1
    assert f"{path} can be written by others than root" in done.stderr
    assert not there.exists()
