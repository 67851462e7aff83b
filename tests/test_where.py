"""Where an agent runs, as hook_agent.py finds it in real checkouts, of the environment and of files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.appliance import REPOSITORY

ASK = "import json, hook_agent; print(json.dumps(hook_agent.where_it_runs()))"
SECRET = "s3cret-of-the-remote"
CI = ("CI", "GITHUB_", "GITLAB_", "BUILDKITE", "JENKINS", "KUBERNETES_")
IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always")


def where(folder: Path, **environment: str) -> dict[str, str]:
    """What it says of a folder, in a process of its own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(CI)}
    environment = inherited | {"PYTHONPATH": str(REPOSITORY)} | environment
    done = subprocess.run([sys.executable, "-c", ASK], cwd=folder, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    said: dict[str, str] = json.loads(done.stdout)
    return said


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *IDENTITY, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one commit, a remote that has a password, a worktree and a submodule."""
    folder = tmp_path_factory.mktemp("git") / "shop"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    git(folder, "remote", "add", "backup", "/srv/backup.git")
    git(folder, "remote", "add", "origin", f"https://user:{SECRET}@example.org/team/shop.git?key={SECRET}")
    git(folder, "commit", "-q", "--allow-empty", "-m", "First")
    git(folder, "worktree", "add", "-q", "-b", "fix/cart", str(folder.parent / "cart"))
    library = folder.parent / "library"
    git(folder.parent, "clone", "-q", str(folder), "library")
    git(folder, "submodule", "--quiet", "add", str(library), "vendor")
    (folder / "src").mkdir()
    return folder


def of_git(said: dict[str, str]) -> tuple[Any, ...]:
    assert SECRET not in json.dumps(said)
    return said.get("repository"), said.get("branch"), said.get("commit")


def test_a_checkout_says_its_repository_branch_and_commit(checkout: Path) -> None:
    said = where(checkout / "src")
    commit = git(checkout, "rev-parse", "HEAD")
    assert of_git(said) == ("https://example.org/team/shop.git", "main", commit)
    assert said["cwd"] == str(checkout / "src")
    assert said["host"] == os.uname().nodename


def test_a_worktree_has_a_branch_of_its_own(checkout: Path) -> None:
    worktree = checkout.parent / "cart"
    git(worktree, "commit", "-q", "--allow-empty", "-m", "Mend the cart")
    wanted = ("https://example.org/team/shop.git", "fix/cart", git(worktree, "rev-parse", "HEAD"))
    assert of_git(where(worktree)) == wanted
    for branch in ("fix/cart", "zoo"):  # in the middle, and last in the file
        git(worktree, "checkout", "-q", "-B", branch)
        git(checkout, "pack-refs", "--all")
        assert not (checkout / f".git/refs/heads/{branch}").exists()
        assert of_git(where(worktree)) == (wanted[0], branch, wanted[2])


def test_a_submodule_is_a_repository_of_its_own(checkout: Path) -> None:
    vendor = checkout / "vendor"
    assert (vendor / ".git").is_file()
    assert of_git(where(vendor)) == (str(checkout.parent / "library"), "main", git(vendor, "rev-parse", "HEAD"))


def test_a_detached_head_is_on_no_branch(checkout: Path) -> None:
    library = checkout.parent / "library"
    git(library, "checkout", "-q", "--detach")
    assert of_git(where(library)) == (str(checkout), None, git(library, "rev-parse", "HEAD"))


def test_a_repository_without_a_commit_has_a_branch(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "trunk")
    assert of_git(where(tmp_path)) == (None, "trunk", None)


@pytest.mark.parametrize("text", ["", "gitdir: ", "gitdir: /nowhere\n", "gitdir: \0\n", "\xff\xfe" * 1000])
def test_what_is_no_checkout_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / ".git").write_text(text)
    said = where(tmp_path)
    assert of_git(said) == (None, None, None)
    assert said["cwd"] == str(tmp_path)


@pytest.mark.parametrize(
    ("environment", "run"),
    [
        (
            {"GITHUB_ACTIONS": "true", "GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "team/shop",
             "GITHUB_RUN_ID": "7"},
            "https://github.com/team/shop/actions/runs/7",
        ),
        ({"CI": "true", "CI_JOB_URL": f"https://u:{SECRET}@gitlab.example.org/j/1?t={SECRET}"}, "https://gitlab.example.org/j/1"),
        ({"CI": "true", "BUILDKITE_BUILD_URL": "https://buildkite.com/b/2"}, "https://buildkite.com/b/2"),
        ({"JENKINS_URL": "http://ci/", "BUILD_URL": "http://ci/job/3/"}, "http://ci/job/3/"),
        ({"BUILD_URL": "http://elsewhere/"}, None),
    ],
    ids=["github", "gitlab", "buildkite", "jenkins", "none"],
)  # fmt: skip
def test_a_run_of_continuous_integration_is_named(tmp_path: Path, environment: dict[str, str], run: str | None) -> None:
    said = where(tmp_path, **environment)
    assert said.get("ci") == run
    assert SECRET not in json.dumps(said)


def test_in_a_run_the_environment_knows_the_branch(checkout: Path) -> None:
    run = {"CI": "true", "CI_JOB_URL": "http://ci/1", "CI_COMMIT_REF_NAME": "topic", "CI_COMMIT_SHA": "0" * 40}
    library = checkout.parent / "library"
    git(library, "checkout", "-q", "--detach")
    said = where(library, **run)
    assert (said["branch"], said["commit"]) == ("topic", git(library, "rev-parse", "HEAD"))
    assert where(checkout, **run)["branch"] == "main"


def test_a_pod_is_named_by_its_namespace(tmp_path: Path) -> None:
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "POD_NAMESPACE": "agents", "POD_NAME": "agent-7", "NODE_NAME": "n1"}
    said = where(tmp_path, **pod, CONTAINER_IMAGE="shop:1.2")
    assert (said["container"], said["host"], said["image"]) == ("agents/agent-7", "n1", "shop:1.2")
