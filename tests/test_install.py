"""`hook_agent.py install` puts the hooks into Claude Code's settings, and `uninstall` gives back what was there."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
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
from tests.repeats import marked
from tests.test_hook_mapping import names

Json = dict[str, Any]

installer: Any = hook_agent._beside("hook_agent_install", "install")

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
}


class Place:
    """A copy of hook_agent.py in a folder of its own, and a home whose settings it changes."""

    def __init__(self, folder: Path) -> None:
        self.home, self.agent = folder / "home", folder / "agent" / "hook_agent.py"
        self.settings = self.home / ".claude" / "settings.json"
        self.home.mkdir()
        self.agent.parent.mkdir()
        for file in ("hook_agent.py", "containers/hook_agent_install.py"):
            shutil.copy(REPOSITORY / file, self.agent.parent)

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(self.agent), *arguments]
        return self.run_command(command, {} if env is None else env)

    def run_command(
        self, command: list[str], env: Mapping[str, str], given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        variables = {"HOME": str(self.home), "PATH": os.environ["PATH"], **env}
        return subprocess.run(
            command, env=variables, cwd=self.home, input=given, capture_output=True, text=True, timeout=120
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


ODD = ["it's", "$HOME `id`", "new\nline"]
LESS_ODD = ['say "x"', "a b", "back\\slash", "naïve 😀"]


@pytest.mark.parametrize("name", marked(ODD + LESS_ODD, long=LESS_ODD))
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
    assert (place.agent.parent / "__pycache__" / f"hook_agent.{sys.implementation.cache_tag}.pyc").exists()


def test_a_folder_that_takes_no_compiled_file_is_no_error(place: Place) -> None:
    (place.agent.parent / "__pycache__").write_text("in the way")
    assert "compile" in place.does("install")
    assert ours(settings_of(place.settings))


# ------------------------------------------------------------------- what was there


def left_of(text: str) -> Json:
    """The settings without containers that have nothing in them, which mean nothing to Claude Code."""
    settings: Json = json.loads(text.lstrip("\ufeff"))
    hooks = {event: groups for event, groups in settings.pop("hooks", {}).items() if groups}
    env = settings.pop("env", {})
    return settings | ({"hooks": hooks} if hooks else {}) | ({"env": env} if env else {})


LIKE_OTHERS = [
    "one line",
    "no space at all",
    "nothing in it, with line breaks",
    "nothing in it, with a space",
    "no hooks in hooks, with line breaks",
    "an event without hooks",
]


@pytest.mark.parametrize("name", marked(SETTINGS, long=LIKE_OTHERS))
def test_a_second_install_changes_nothing_and_uninstall_gives_back_what_was_there(place: Place, name: str) -> None:
    text = SETTINGS[name]
    place.write(text)
    assert "29" in place.does("install")
    once = place.settings.read_bytes(), place.settings.stat().st_ino
    assert once[0] != text.encode()
    assert "already" in place.does("install")
    assert (place.settings.read_bytes(), place.settings.stat().st_ino) == once
    place.does("uninstall")
    assert place.settings.read_bytes() == text.encode()
    assert not [path for path in place.home.rglob("*") if path.is_file() and path != place.settings]


def test_what_others_change_meanwhile_is_kept_by_uninstall(place: Place) -> None:
    """Then only what the settings mean is given back, as json writes it."""
    place.write(FULL)
    place.does("install")
    changed = settings_of(place.settings) | {"model": "sonnet"}
    place.write(json.dumps(changed))
    place.does("uninstall")
    assert left_of(place.settings.read_text()) == left_of(FULL) | {"model": "sonnet"}


def test_every_install_until_uninstall_knows_what_was_there(place: Place) -> None:
    place.write(FULL)
    for arguments in ((), ("--user", "alice"), ("--url", "http://store:9000")):
        place.does("install", *arguments)
    kept = [path for path in place.home.rglob("*.json") if path != place.settings]
    assert [path.stat().st_mode & 0o777 for path in kept] == [0o600]
    place.does("uninstall")
    assert place.settings.read_bytes() == FULL.encode()


@pytest.mark.parametrize("damage", marked(["", "{", "[]", '{"sha256": 5}', "\0"], long=["{", "[]", "\0"]))
def test_what_was_kept_and_is_damaged_counts_for_nothing(place: Place, damage: str) -> None:
    place.write(FULL)
    place.does("install")
    for path in place.home.rglob("*.json"):
        if path != place.settings:
            path.write_text(damage)
    place.does("uninstall")
    assert left_of(place.settings.read_text()) == left_of(FULL)


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
    assert after["unknown"] == before["unknown"]
    assert '"A": "é😀é"' in text


def test_a_budget_that_is_there_stays(place: Place) -> None:
    place.write(f'{{"env": {{"{BUDGET}": "60000"}}}}')
    place.does("install")
    assert settings_of(place.settings)["env"] == {BUDGET: "60000"}


def test_where_it_delivers_may_be_written_beside_the_hooks(place: Place) -> None:
    before = '{"env": {"OTHER": "1", "SESSION_TAGS": "mine"}}'
    place.write(before)
    (place.home / "token").write_text("a-token")
    said = place.does("install", "--url", "http://store:9000", "--user", "alice", "--token-file", "token")
    assert "here http://store:9000" in said
    place.does("install", "--user", "bob")
    env = settings_of(place.settings)["env"]
    assert (env["SESSION_SERVICE_URL"], env["SESSION_USER_ID"]) == ("http://store:9000", "bob")
    assert Path(env["SESSION_TOKEN_FILE"]) == place.home / "token"
    place.does("uninstall")
    assert settings_of(place.settings) == json.loads(before)


@pytest.mark.parametrize("arguments", [["--url", "store:9000"], ["--url", "http:///"], ["--token-file", "nowhere"]])
def test_nothing_is_written_of_a_store_that_cannot_be(place: Place, arguments: list[str]) -> None:
    done = place.run("install", *arguments)
    assert (done.returncode, place.names()) == (1, set())
    assert arguments[1] in done.stderr


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
    assert settings_of(old.settings) == json.loads(FULL)


# As the version before wrote them, whose own `install` edited the text of the settings in place.
COMMAND_BEFORE = (
    "/usr/bin/python3 -I -S -c 'import sys; sys.path.append(\"/opt\"); import hook_agent; hook_agent.hook()'"
)
ASIDE_BEFORE = f'exec 3<&0; {{ p=$(cat <&3); printf %s "$p" | {COMMAND_BEFORE}; }} >/dev/null 2>&1 & :'
EARLIER: list[Json] = [
    {"type": "command", "command": f"{COMMAND_BEFORE} >/dev/null 2>&1 || :", "timeout": 5},
    {"type": "command", "command": ASIDE_BEFORE, "timeout": 60, "async": True},
]


@pytest.mark.parametrize("hook", EARLIER, ids=["waited for", "aside"])
def test_what_an_earlier_version_installed_is_renewed_and_removed(place: Place, hook: Json) -> None:
    theirs = {"hooks": [{"type": "command", "command": "say done"}]}
    groups = [theirs, {"hooks": [hook]}]
    before = {"model": "opus", "hooks": dict.fromkeys(SAFE, groups), "env": {BUDGET: "10500"}}
    place.write(json.dumps(before))
    place.does("install")
    settings = settings_of(place.settings)
    assert {event: len(hooks) for event, hooks in ours(settings).items()} == dict.fromkeys(SAFE, 1)
    assert all(str(place.agent.parent) in hooks[0]["command"] for hooks in ours(settings).values())
    assert sum("async" in hooks[0] for hooks in ours(settings).values()) == len(SAFE) - len(WAITED_FOR)
    assert "already" in place.does("install")
    for text in (json.dumps(before), place.settings.read_text()):
        place.write(text)
        place.does("uninstall")
        assert settings_of(place.settings) == {"model": "opus", "hooks": {event: [theirs] for event in SAFE}}


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


names_of_members = st.sampled_from(["a", "hooks", "env", "Stop", "SessionEnd", "PreToolUse", 'q"\\', "é"])
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names_of_members, inner, max_size=3)),
    max_leaves=12,
)


@given(values)
def test_any_settings_are_refused_or_keep_what_they_have(value: Any) -> None:
    settings = {"x": value, "hooks": value}
    text = json.dumps(settings)
    try:
        installer._with_hooks(installed := json.loads(text))
    except installer._Refused:
        assert not isinstance(value, dict) or any(not isinstance(groups, list) for groups in value.values())
        return
    assert installed["x"] == value
    installer._with_hooks(again := json.loads(json.dumps(installed)))
    assert again == installed
    assert {len(ours({"hooks": {e: installed["hooks"][e][-1:]}})[e]) for e in SAFE} == {1}
    installer._without_hooks(installed)
    assert left_of(json.dumps(installed)) == left_of(text)


# ------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{\n  // mine\n  "model": "opus"\n}', "line 2 column 3"),
        ('{\n  "model": "opus",\n}', "line"),
        ('{"hooks": ', "line 1 column 11"),
        (f'{{"a": {"9" * 5000}}}', "not JSON"),
        ("[]", "an object"),
        ('{\n  "hooks": []}', '"hooks" should be an object'),
        ('{"hooks": {\n  "Stop": {}}}', '"Stop" should be an array'),
        ('{"env": "A=1"}', '"env" should be an object'),
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


@pytest.mark.parametrize("text", ["", " \n", "\ufeff"], ids=range(3))
def test_a_file_with_nothing_in_it_has_no_settings_and_is_there_again(place: Place, text: str) -> None:
    place.write(text)
    assert "29" in place.does("install")
    place.does("uninstall")
    assert place.settings.read_bytes() == text.encode()


def test_what_is_no_file_is_left_alone(place: Place) -> None:
    place.settings.parent.mkdir()
    os.mkfifo(place.settings)
    (place.home / "project/.claude").mkdir(parents=True)
    (place.home / "project/.claude/settings.json").symlink_to("/dev/null")
    for where in ([], ["--project", "project"]):
        refused = place.run("install", *where)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "no regular file" in refused.stderr
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


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
    assert place.names() == {"deep", "deep/config"}


def test_a_project_has_settings_of_its_own(place: Place) -> None:
    project = place.home / "project"
    assert place.run("install", "--project", str(project)).returncode == 1
    project.mkdir()
    place.does("install", "--project", "project")
    assert place.names() == {"project", "project/.claude", "project/.claude/settings.json"}
    place.does("uninstall", "--project", "project")
    assert place.names() == {"project", "project/.claude"}


def test_managed_settings_are_a_file_of_ours_alone(place: Place) -> None:
    there = place.home / "etc" / "claude-code" / "managed-settings.d" / "50-session-store.json"
    elsewhere = f"import hook_agent_install; hook_agent_install._MANAGED_SETTINGS = {str(there)!r}"
    code = f"import hook_agent, sys; {elsewhere}; sys.exit(hook_agent.main(sys.argv[1:]))"
    for command in ("install", "uninstall"):
        env = {"PYTHONPATH": str(place.agent.parent)}
        done = place.run_command([sys.executable, "-c", code, command, "--managed"], env)
        assert (done.returncode, done.stderr) == (0, "")
        assert there.exists() == (command == "install")
    assert installer._MANAGED_SETTINGS == "/etc/claude-code/managed-settings.d/50-session-store.json"


def test_a_new_file_goes_again(place: Place) -> None:
    place.does("install")
    assert place.names() == {".claude", ".claude/settings.json"}
    assert "already" in place.does("install")
    assert "gone" in place.does("uninstall")
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


@pytest.mark.parametrize("kind", ["locks", "does not lock"])
def test_nothing_that_others_write_meanwhile_is_lost(place: Place, kind: str) -> None:
    """One that does not lock may lose ours, which are put in again; it pauses for longer than a change takes."""
    place.write('{"model": "opus"}')
    writer = Writer(place.settings, kind, 0.0 if kind == "locks" else 0.05)
    writer.start()
    while len(writer.written) < 10:
        has_changed = [installer._change_file(str(place.settings), installer._with_hooks)]
        if kind == "locks":
            assert len(ours(settings_of(place.settings))) == len(SAFE)
        has_changed.append(installer._change_file(str(place.settings), installer._without_hooks))
        assert has_changed == [True, True] or kind != "locks"
    writer.is_done.set()
    writer.join()
    installer._change_file(str(place.settings), installer._without_hooks)  # which the other may have put back
    assert list(settings_of(place.settings)) == ["model", *writer.written]
    assert sorted(path.name for path in place.settings.parent.iterdir()) == ["settings.json"]


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_what_is_written_while_the_change_is_prepared_stays(
    place: Place, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: Json = {"model": "opus"}
    if verb == "uninstall":
        installer._with_hooks(settings)
    place.write(json.dumps(settings))
    real = installer._take_after
    wrote: list[int] = []

    def prepare(*arguments: Any) -> None:
        real(*arguments)
        if not wrote:
            wrote.append(place.settings.write_text(place.settings.read_text().replace("opus", "sonnet")))

    monkeypatch.setattr(installer, "_take_after", prepare)
    change = installer._with_hooks if verb == "install" else installer._without_hooks
    assert installer._change_file(str(place.settings), change)
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
    monkeypatch.setattr(installer, "_LOCKED_SECONDS", 0.1)
    lock = Path(f"{place.settings}.lock")
    lock.mkdir()
    with pytest.raises(installer._Refused, match=r"settings\.json\.lock is there"):
        installer._change_file(str(place.settings), installer._with_hooks)
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
    elsewhere = f"import hook_agent_install; hook_agent_install._MANAGED_SETTINGS = {str(there)!r}"
    code = f"import hook_agent, sys; {elsewhere}; sys.exit(hook_agent.main(['install', '--managed']))"
    done = place.run_command([sys.executable, "-c", code], {"PYTHONPATH": str(folder)})
    assert done.returncode == 1
    assert f"{path} can be written by others than root" in done.stderr
    assert not there.exists()
