"""What has to be true of the containers besides: who may what in them, and that one of one's own joins them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests.appliance import REPOSITORY

from .checks import START_SECONDS, Check, Scene, must
from .composed import IMAGES, PROJECT, SERVICES, STORE, TAG, Composed
from .worlds import eventually

OWN = """FROM python:3.12-slim
COPY hook_agent.py containers/hook_agent_run.py /opt/
ENV SESSION_SERVICE_URL=http://session-storage:9000 SESSION_TOKEN_FILE=/run/session-store/token
CMD ["python", "/opt/hook_agent.py", "run", "--output-lines", "5", "--", "echo", "hello"]
"""
"""The Dockerfile that docs/agents.md shows."""
OWN_SECONDS = 120.0
IN_THE_IMAGE = {
    *(
        "app.py",
        "hook_agent.py",
        "healthcheck.py",
        "dashboard.html",
        "dashboard",
        "containers",
        "sessionstore",
        "export",
        "lake",
    ),
    *(path.name for path in REPOSITORY.glob("*.sql")),
}


def containers_of(scene: Scene) -> Composed:
    assert isinstance(scene.world, Composed)
    return scene.world


def nobody_has_more_than_is_needed(scene: Scene) -> str:
    world = containers_of(scene)
    for service in (STORE, SERVICES["customer"], SERVICES["email"]):
        must(world.inside(service, "id", "-u").strip() != "0", f"{service} is run by root")
    for service in (SERVICES["customer"], SERVICES["email"]):
        must(world.inside(service, "ls", "/run/session-store") == "token\n", f"{service} sees more than its token")
        must(fails(world, service, "ls /var/claude-sessions"), f"{service} sees the folder of the store")
        must(fails(world, service, "echo x >/run/session-store/token"), f"{service} can change the token")
    must(fails(world, STORE, "touch /app/x"), "the store can change its own program")
    must(world.inside(STORE, "sh", "-c", "touch /tmp/x && echo can") == "can\n", "nothing can be written at all")
    return "no root, one token each, a program that nobody can change"


def fails(world: Composed, service: str, script: str) -> bool:
    return world.asked("exec", "-T", service, "sh", "-c", script).returncode != 0


def the_image_has_what_it_needs_and_no_more(scene: Scene) -> str:
    world = containers_of(scene)
    there = world.inside(STORE, "sh", "-c", "cd /app && ls -A -I __pycache__").split()
    must(set(there) == IN_THE_IMAGE, f"in /app there are {there}")
    for tool in ("gcc", "cc", "make"):
        must(fails(world, STORE, f"command -v {tool}"), f"there is a {tool} in the image")
    users = [world.docker("image", "inspect", "-f", "{{.Config.User}}", f"{image}:{TAG}") for image in IMAGES]
    must(all(user not in ("", "0", "root") for user in users), f"the images are for {users}")
    return "the program alone, no compiler, no root"


def a_container_of_ones_own_is_a_session(scene: Scene) -> str:
    world = containers_of(scene)
    image = f"{PROJECT}-own"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Dockerfile").write_text(OWN)
        (Path(folder) / "containers").mkdir()
        for file in ("hook_agent.py", "containers/hook_agent_run.py"):
            shutil.copy(REPOSITORY / file, Path(folder) / file)
        world.docker("build", "--quiet", "--tag", image, folder, within=OWN_SECONDS)
    try:
        network, token = f"{PROJECT}_sessions", f"{PROJECT}_agent-token:/run/session-store:ro"
        said = world.docker("run", "--rm", "--network", network, "-v", token, "-e", "SESSION_ID=own-1", image)
        must(said == "hello", f"it says {said}")
    finally:
        world.docker("image", "rm", "--force", image)
    eventually(lambda: scene.store.get("/api/sessions", q="own-1")["items"], START_SECONDS, "its session is there")
    final = scene.store.get("/api/sessions/own-1")["final"]
    must((final["status"], final["finalResponse"]) == ("success", "hello"), f"it ended with {final}")
    return "and says hello"


CONTAINMENT = (
    Check("nobody has more than is needed", nobody_has_more_than_is_needed),
    Check("the image has what it needs, and no more", the_image_has_what_it_needs_and_no_more),
    Check("a container of one's own is a session", a_container_of_ones_own_is_a_session),
)
