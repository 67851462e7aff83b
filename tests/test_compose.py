"""What compose.yaml and the Dockerfiles say, where no engine is needed to know it; `make e2e` runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sessionstore.settings import agents
from tests.appliance import REPOSITORY

Json = dict[str, Any]

SERVICES: dict[str, Json] = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["services"]
STORE = "session-storage"
LAKE = SERVICES["lake"]
AGENTS = {name: service for name, service in SERVICES.items() if name not in (STORE, "lake")}
DOCKERFILES = sorted(REPOSITORY.glob("Dockerfile")) + sorted(REPOSITORY.glob("containers/*/Dockerfile"))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_bounds_and_no_rights_that_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert service["mem_limit"] and service["cpus"] and service["pids_limit"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["networks"][0] == "sessions"


def test_only_who_has_a_key_or_is_published_has_a_way_out() -> None:
    networks = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["networks"]
    assert [name for name, network in networks.items() if not network.get("internal")] == ["outside"]
    ways = {name: service["networks"][1:] for name, service in AGENTS.items()}
    assert ways.pop("scripted-model") == []
    assert set(map(tuple, ways.values())) == {("${ANTHROPIC_API_KEY:+out}side",)}


def test_nobody_writes_to_a_root_but_who_works_there() -> None:
    written = {name for name, service in SERVICES.items() if not service.get("read_only")}
    assert written == {"fly-achensee-claude"}


def test_no_agent_is_the_user_that_the_store_is() -> None:
    users = {path.parent.name: re.findall(r"--uid (\d+)|^USER (\w+)$", path.read_text(), re.M) for path in DOCKERFILES}
    ids = {name: {uid for uid, _ in found if uid} for name, found in users.items()}
    store = ids.pop(REPOSITORY.name)
    assert store == {"10001"} and all(store.isdisjoint(others) for others in ids.values())


def test_the_image_is_run_with_what_compose_gives_it() -> None:
    said = (REPOSITORY / "Dockerfile").read_text().partition("docker run")[2].partition("\n#\n")[0]
    for option in ("--read-only", "--cap-drop ALL", "--security-opt no-new-privileges", "--memory", "--pids-limit"):
        assert option in said


def test_only_the_store_is_published_and_only_to_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(published) == [STORE, "lake"]
    assert published[STORE] == ["127.0.0.1:${STORE_PORT:-9000}:9000", "127.0.0.1:${DASHBOARD_PORT:-3000}:9000"]


def test_the_second_port_is_the_only_other_origin_that_is_trusted() -> None:
    port = "${DASHBOARD_PORT:-3000}"
    origins = f"http://localhost:{port},http://127.0.0.1:{port}"
    assert SERVICES[STORE]["environment"]["SESSIONS_ALLOWED_ORIGINS"] == origins


def test_agents_are_asked_for_and_wait_for_a_healthy_store() -> None:
    for service in AGENTS.values():
        assert service["profiles"] == ["demo"]
        assert service["depends_on"][STORE] == {"condition": "service_healthy"}
    assert "profiles" not in SERVICES[STORE]


def test_a_store_with_a_lake_is_the_store_with_what_that_needs() -> None:
    other = {name: value for name, value in LAKE.items() if SERVICES[STORE].get(name) != value}
    assert other == {
        "profiles": ["lake"],
        "build": {"context": ".", "args": {"EXTRAS": "lake ask"}},
        "image": "session-store:${IMAGE_TAG:-latest}-lake",
        "env_file": "lake.env",
        "mem_limit": "2g",
    }
    example = (REPOSITORY / "docs" / "lake.env.example").read_text()
    named = re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE)
    assert {"SESSIONS_LAKE", "SESSIONS_SHARD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"} < {*named}


def test_agents_read_their_token_and_nothing_else_of_the_store() -> None:
    """Each its own, which has the sessions of its user and no others."""
    shared = {volume.split(":")[0] for volume in SERVICES[STORE]["volumes"]}
    bound = dict(agents(SERVICES[STORE]["environment"]["SESSIONS_AGENT_TOKENS"]))
    assert Path(SERVICES[STORE]["environment"]["SESSIONS_AGENT_TOKEN_FILE"]) == Path("/run/session-store/token")
    for name, service in AGENTS.items():
        mounts = service.get("volumes", ())
        of_the_store = [mount for mount in mounts if isinstance(mount, dict) or mount.split(":")[0] in shared]
        if name == "scripted-model":
            assert of_the_store == []
        else:
            (mount,) = of_the_store
            assert (mount["source"], mount["target"], mount["read_only"]) == ("agent-token", "/run/session-store", True)
            assert bound.pop(mount["volume"]["subpath"]) == service["environment"]["SESSION_USER_ID"]
            assert service["environment"]["SESSION_TOKEN_FILE"] == "/run/session-store/token"
    assert bound == {}


def copied_by(dockerfile: Path) -> set[str]:
    """What a Dockerfile takes out of the repository."""
    lines = dockerfile.read_text().replace("\\\n", " ").splitlines()
    words = [line.split()[1:-1] for line in lines if line.startswith("COPY ") and "--from=" not in line]
    return {word for group in words for word in group if not word.startswith("--")}


def let_in() -> set[str]:
    return set(re.findall(r"^!(\S+)$", (REPOSITORY / ".dockerignore").read_text(), re.MULTILINE))


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.parent.name)
def test_what_an_image_is_made_of_is_there_and_let_into_its_build(dockerfile: Path) -> None:
    copied = copied_by(dockerfile)
    assert copied
    for path in copied:
        assert (REPOSITORY / path).exists(), path
        assert path.split("/")[0] in let_in(), path


def test_all_that_is_let_into_a_build_is_needed_by_one() -> None:
    needed = {path.split("/")[0] for dockerfile in DOCKERFILES for path in copied_by(dockerfile)}
    assert let_in() == needed


def test_the_image_of_the_store_has_all_that_the_program_reads() -> None:
    read = {path.name for kind in ("*.py", "*.sql", "*.html") for path in REPOSITORY.glob(kind)} - {"setup.py"}
    assert read | {"sessionstore", "export"} <= copied_by(REPOSITORY / "Dockerfile")


def test_without_an_engine_the_check_in_containers_says_so() -> None:
    env = {**os.environ, "PATH": "/nowhere"}
    line = [sys.executable, "-m", "tests.e2e", "compose"]
    ended = subprocess.run(line, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "no Docker engine" in ended.stdout
    assert "make e2e-local" in ended.stdout
