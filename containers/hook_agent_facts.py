"""Resource detection (host, container, repository, branch, commit, CI), and what a transcript says of a conversation.

One file, to be copied beside hook_agent.py, which asks it once a session and when a turn ends: of the environment and
of small files. No process is started, no credentials are taken of an address. Python 3.9 or newer on Linux or another
Unix. Git's files: https://git-scm.com/docs/gitrepository-layout
"""

from __future__ import annotations

import posix

from hook_agent import _clean, _decoded, _in_one_line, _member, _redaction, _setting, _suppress, _text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Members = dict[str, Any]

_PLACE_LENGTH = 300
_SMALL_BYTES, _PACKED_BYTES = 64 << 10, 8 << 20
_GIT_DEPTH = 64  # folders above the one at work
_HEX, _ID_DIGITS = "0123456789abcdef", 64  # of the id of a container
_POD_NAMESPACE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
_NODES, _IMAGES = ("NODE_NAME", "K8S_NODE_NAME"), ("CONTAINER_IMAGE", "IMAGE_NAME")
_CI_RUNS = ("CI_JOB_URL", "BUILDKITE_BUILD_URL", "BUILD_URL")  # GitLab, Buildkite, Jenkins
_CI_BRANCHES = ("GITHUB_HEAD_REF", "GITHUB_REF_NAME", "CI_COMMIT_REF_NAME", "BUILDKITE_BRANCH", "BRANCH_NAME")
_CI_COMMITS = ("GITHUB_SHA", "CI_COMMIT_SHA", "BUILDKITE_COMMIT", "GIT_COMMIT")


def where_it_runs() -> dict[str, str]:
    """`host` `container` `image` `cwd` `repository` `branch` `commit` `ci`, as far as they are known. Never raises."""
    found, host = _ci(), posix.uname().nodename
    machine = {
        "host": _first_setting(_NODES) or host,
        "container": _own_container(host),
        "image": _first_setting(_IMAGES),
    }
    for more in (_checkout(), machine):
        found.update({name: text for name, text in more.items() if text})
    return {name: _in_one_line(text)[:_PLACE_LENGTH] for name, text in found.items() if text}


def _first_setting(names: Iterable[str]) -> str:
    return next(filter(None, map(_setting, names)), "")


def _file_text(path: str, most: int = _SMALL_BYTES) -> str:
    """The beginning of a file; empty where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(most).decode("utf-8", "replace").strip()
    except (OSError, ValueError):
        return ""


def _own_container(host: str) -> str:
    """Of a pod its name, of any other container its id; a host has none."""
    if _setting("KUBERNETES_SERVICE_HOST"):
        namespace = _setting("POD_NAMESPACE") or _file_text(_POD_NAMESPACE)
        return "/".join(filter(None, (namespace, _setting("POD_NAME") or host)))
    mounts = (line.split() for line in _file_text("/proc/self/mountinfo", _PACKED_BYTES).splitlines())
    own = [parts[3] for parts in mounts if len(parts) > 4 and parts[4] in ("/etc/hostname", "/etc/hosts")]
    paths = "/".join([_file_text("/proc/self/cgroup"), *own]).replace("-", "/").replace(".", "/").split()
    for part in "/".join(paths).split("/"):
        if len(part) == _ID_DIGITS and not part.strip(_HEX):
            return part
    return host if posix.access("/.dockerenv", 0) or posix.access("/run/.containerenv", 0) else ""


def _checkout() -> dict[str, str]:
    try:
        folder = posix.getcwd()
    except OSError:  # it is gone
        return {}
    git = _git_folder(folder)
    if not git:
        return {"cwd": folder}
    common = _resolved(git, _file_text(f"{git}/commondir") or ".")  # of a worktree: that of its repository
    _, is_ref, ref = _file_text(f"{git}/HEAD").rpartition("ref: ")
    commit = _commit(git, common, ref) if is_ref else ref
    branch = (
        ref[len("refs/heads/") :] if ref.startswith("refs/heads/") and ref != "refs/heads/.invalid" else ""
    )  # reftable
    return {"cwd": folder, "repository": _remote(f"{common}/config"), "branch": branch, "commit": commit}


def _git_folder(folder: str) -> str:
    """Of the checkout that a folder is in. In a worktree and in a submodule `.git` is a file that names it."""
    for _ in range(_GIT_DEPTH):
        git = f"{folder.rstrip('/')}/.git"
        if _file_text(f"{git}/HEAD"):
            return git
        _, is_named, named = _file_text(git).partition("gitdir: ")
        if is_named or folder in ("", "/"):
            return _resolved(folder, named) if named else ""
        folder = folder.rpartition("/")[0] or "/"
    return ""


def _resolved(folder: str, path: str) -> str:
    return path if path.startswith("/") else f"{folder}/{path}"


def _commit(git: str, common: str, ref: str) -> str:
    loose = _file_text(f"{git}/{ref}") or _file_text(f"{common}/{ref}")
    packed = _file_text(f"{common}/packed-refs", _PACKED_BYTES) + "\n"
    before, is_packed, _ = packed.partition(f" {ref}\n")
    return loose or (before.rpartition("\n")[2] if is_packed else "")


def _remote(config: str) -> str:
    """The address of `origin`, else of the first remote."""
    found: dict[str, str] = {}
    section = ""
    for line in map(str.strip, _file_text(config).splitlines()):
        name, _, value = line.partition("=")
        section = line if line.startswith("[") else section
        if section.startswith("[remote ") and name.strip().lower() == "url":
            found.setdefault(section, _without_credentials(value.strip().strip('"')))
    return found.get('[remote "origin"]') or next(iter(found.values()), "")


def _without_credentials(address: str) -> str:
    scheme, is_url, rest = address.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path.partition('?')[0]}" if is_url else address


def _ci() -> dict[str, str]:
    """The run, and what of the checkout its files do not say: in a run the head is often detached."""
    run = _first_setting(_CI_RUNS) if _setting("CI") or _setting("JENKINS_URL") else ""
    if _setting("GITHUB_ACTIONS"):
        server, repository, number = map(_setting, ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID"))
        run = f"{server}/{repository}/actions/runs/{number}"
    if not run:
        return {}
    return {
        "ci": _without_credentials(run),
        "branch": _first_setting(_CI_BRANCHES),
        "commit": _first_setting(_CI_COMMITS),
    }


# A transcript

_TRANSCRIPT_BYTES = 256 << 10  # of its end, and of its beginning
_ERROR_LENGTH = 1000
_SIBLINGS = 50  # the newest transcripts of a folder, among which is the one that a fork was made of


def facts_of(path: str, known: dict[str, str], is_fork: bool) -> dict[str, str]:
    """What is known of a conversation: `title` `claudeCodeVersion` `forkedFrom`, as far as its transcript says it."""
    found = {**known, **_said_in(path)}
    origin = _origin_of(path) if is_fork and "forkedFrom" not in found else ""
    return {**found, "forkedFrom": origin} if origin else found


def _said_in(path: str) -> dict[str, str]:
    """Claude Code's title of the conversation, its own version, and of what other conversation this is a fork."""
    found: dict[str, str] = {}
    for line in [*_transcript(path, is_end=False), *_transcript(path)]:
        if b'"type":"custom-title"' in line or b'"type":"ai-title"' in line:
            with _suppress(ValueError, AttributeError):
                title = _decoded(line)
                found["custom"] = _text(title.get("customTitle")) or found.get("custom", "")
                found["title"] = _text(title.get("aiTitle")) or found.get("title", "")
        _, _, origin = line.partition(b'"forkedFrom":{')
        found["forkedFrom"] = found.get("forkedFrom") or _member(origin, b'"sessionId":"')
        found["claudeCodeVersion"] = found.get("claudeCodeVersion") or _member(line, b'"version":"')
    found["title"] = found.pop("custom", "") or found.get("title", "")
    return {name: text[:_ERROR_LENGTH] for name, text in found.items() if text}


def _origin_of(path: str) -> str:
    """The conversation that a fork was made of, which nothing names: that of whose lines it has copied most."""
    import os

    found: dict[str, int] = {}
    own = {_member(line, b'"uuid":"') for line in _transcript(path, is_end=False)} - {""}
    with _suppress(OSError, ValueError):
        others = [
            it for it in os.scandir(os.path.dirname(path)) if it.is_file(follow_symlinks=False) and it.path != path
        ]
        for other in sorted(others, key=lambda it: it.stat().st_mtime)[-_SIBLINGS:]:
            lines = _transcript(other.path, is_end=False)
            found[other.name[: -len(".jsonl")]] = sum(_member(line, b'"uuid":"') in own for line in lines)
    origin = max(found, key=lambda name: found[name], default="")
    return origin if found.get(origin) else ""


def _transcript(path: str, is_end: bool = True) -> list[bytes]:
    """The lines at the end of a transcript, or at its beginning; none of what is no plain file."""
    import os
    import stat

    if not path.endswith(".jsonl"):
        return []
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                return []
            file.seek(max(0, about.st_size - _TRANSCRIPT_BYTES) if is_end else 0)
            return file.read(_TRANSCRIPT_BYTES).split(b"\n")
    except (OSError, ValueError):
        return []


def last_api_error(path: str) -> str:
    """What a transcript says of the error that the conversation ended with; empty where it did not."""
    return next((_api_error(entry) for entry in map(_entry_in, reversed(_transcript(path))) if entry), "")


def _entry_in(line: bytes) -> Members | None:
    """What a line says of the conversation itself; None: it is of something else, or no whole line."""
    if b'"assistant"' not in line and b'"user"' not in line:
        return None
    try:
        entry = _decoded(line)
    except ValueError:
        return None
    is_said = isinstance(entry, dict) and entry.get("type") in ("user", "assistant") and not entry.get("isSidechain")
    return entry if is_said else None


def _api_error(entry: Members) -> str:
    if entry.get("isApiErrorMessage") is not True:
        return ""
    message = entry.get("message")
    said = message.get("content") if isinstance(message, dict) else ""
    parts = said if isinstance(said, list) else [said]
    texts = filter(None, (_text(part.get("text") if isinstance(part, dict) else part) for part in parts))
    text = _clean(("\n".join(texts) or _text(entry.get("error")) or "API Error")[:_ERROR_LENGTH])
    redaction = _redaction()
    return redaction.text(text) if redaction is not None else text
