"""What the tests share: a running appliance, and clients that speak to it as its users do."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from inspect import signature
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import hypothesis
import pytest

import tests.appliance
from tests.agents import remove_spools
from tests.appliance import Appliance
from tests.peers import SECONDS
from tests.repeats import examples
from tests.warm import ForkServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

    from tests.lakes import Place, Storage

hypothesis.settings.register_profile("store", deadline=None, max_examples=examples(50))
hypothesis.settings.load_profile("store")

numbers = count(1)
DESELECTED = pytest.StashKey[int]()

os.environ.setdefault("SSL_CERT_DIR", tempfile.gettempdir())
"""Where there are no certificates: to read all those of httpx takes each of its clients longer than a request."""

for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(ignored) == signal.SIG_IGN:
        signal.signal(ignored, lambda *_: None)
"""Where pytest is started with `nohup` or `&` it ignores them still, but what it starts does not."""

usual: httpx.Timeout = signature(httpx.request).parameters["timeout"].default
usual.connect = usual.read = usual.write = usual.pool = SECONDS
"""Who does not say how long waits longer than httpx's five seconds, which a busy machine may take."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Of the workers of pytest-xdist each compiles a share of all files, before each imports all of them."""
    if worker := getattr(session.config, "workerinput", None):
        files = sorted(Path(__file__).parent.glob("test_*.py"))
        for file in files[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
            with suppress(Exception, pytest.skip.Exception):  # pytest says what is wrong with it
                import_module(f"tests.{file.stem}")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Small files come last, so that workers end at one time. How many tests are left out is said also where others
    run them, which pytest-xdist forgets."""
    items.sort(key=lambda item: (-item.path.stat().st_size, item.path))
    collected = len(items)
    yield
    if hasattr(config, "workeroutput"):
        config.workeroutput["deselected"] = collected - len(items)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    config: pytest.Config = node.config
    config.stash[DESELECTED] = getattr(node, "workeroutput", {}).get("deselected", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if left_out := config.stash.get(DESELECTED, 0):
        terminalreporter.write_line(f"{left_out} deselected: {config.option.markexpr}")


@pytest.fixture(scope="session", autouse=True)
def fork_server() -> Iterator[None]:
    """What servers and commands of this process of pytest are forked from, where the machine can do that."""
    if not hasattr(os, "pidfd_open"):
        yield
        return
    server = ForkServer()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tests.appliance, "fork_server", server)
        yield
    server.close()


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start programs from nothing, as people do."""
    monkeypatch.setattr(tests.appliance, "fork_server", None)


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """A real server process with default settings, one for each test file."""
    with Appliance(tmp_path_factory.mktemp("sessions")) as running:
        yield running


@pytest.fixture(scope="module")
def http(appliance: Appliance) -> Iterator[httpx.Client]:
    """A client of that server."""
    with httpx.Client(base_url=appliance.url) as client:
        yield client


@pytest.fixture
def session_id() -> str:
    """A session id that no other test uses."""
    return f"test-{next(numbers)}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sessions"


@pytest.fixture
def no_sender_is_left(tmp_path: Path) -> Iterator[None]:
    """What a test leaves undelivered is not to be delivered for ever."""
    yield
    remove_spools(tmp_path)


@pytest.fixture(scope="session")
def storage() -> Iterator[Storage]:
    """An S3 server, one for each process of pytest that asks for it."""
    from tests.lakes import storage  # only what has a lake needs one

    with storage() as running:
        yield running


@pytest.fixture
def bucket(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty place on it, which this process and all that it starts can reach."""
    place = storage.place()
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    return place


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place for a lake, of each kind."""
    from tests.lakes import Place

    if request.param == "file":
        return Place((tmp_path / "lake").as_uri(), {})
    found: Place = request.getfixturevalue("bucket")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from tests.browsing import MISSING, is_missing, launched  # only what looks at pages needs a browser

    if is_missing():
        pytest.skip(f"the dashboard is not tested: {MISSING}")
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """What the pages of a file share, so that what draws them is warm; each finds it without anything of another's."""
    from tests.browsing import DESK, keep_warm

    with browser.new_context(viewport=DESK, color_scheme="dark", reduced_motion="reduce") as context:  # type: ignore[arg-type]
        keep_warm(context)
        yield context


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A page that must not complain of anything."""
    from tests.browsing import forget, uncomplaining

    with uncomplaining(context.new_page()) as page:
        yield page
    forget(context)
