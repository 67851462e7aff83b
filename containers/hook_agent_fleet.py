"""Several stores in SESSION_SERVICE_URL: which of them has a session, by rendezvous hashing; and sessions that move.

One file, to be copied beside hook_agent.py, which asks it only where that setting has a comma, or a store says that a
session is elsewhere now. A session keeps the store that it began with, whatever becomes of the list: the file
`chosen/ID` in the spool's folder says which. It waits for that (64 MiB) rather than have its history in two places, but
where SESSION_FAILOVER_AFTER says after how many seconds it goes on elsewhere. Python 3.9 or newer.
"""

from __future__ import annotations

import os
import time

from hook_agent import (
    Spool,
    _as_id,
    _default_folder,
    _folder_name,
    _is_id,
    _member,
    _milliseconds,
    _payload,
    _sender_lock,
    _session_of,
    _setting,
    _sha256,
    _spawn_sender,
    _spool_limit,
    _suppress,
    _temporary_folder,
    _text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hook_agent import SyncSessionHookAgent

_LISTED = (
    "SESSION_SERVICE_URLS"  # of our own processes: the list, where SESSION_SERVICE_URL has the one that was chosen
)
_MOST_CHOICES = 4096  # files; beyond, the oldest go: what they say mostly follows from the hash as well
_LOOK_SECONDS = 1.0


def addresses(text: str | None = None) -> list[str]:
    """Those that are listed, each once."""
    said = _setting("SESSION_SERVICE_URL") if text is None else text
    listed = said if "," in said or text is not None else _setting(_LISTED) or said
    return list(dict.fromkeys(url for part in listed.split(",") if (url := part.strip().rstrip("/"))))


def ranked(session: str, urls: list[str]) -> list[str]:
    """The stores in the order in which a session takes them: by highest random weight, the same in hook_agent.mjs. Of
    those that are left where one is taken off the list, or added, the order stays as it was."""
    return sorted(urls, key=lambda url: _sha256(f"{url}\n{session}".encode()), reverse=True)


# ---------------------------------------------------------------------------------------------------------------------
# Choosing
# ---------------------------------------------------------------------------------------------------------------------


def each(command: Callable[[list[str]], int], arguments: list[str]) -> int:
    """A command that is about a store, for each that is listed; the worst of what they return."""
    urls, codes = addresses(), []
    for url in urls:
        os.environ.update({_LISTED: ",".join(urls), "SESSION_SERVICE_URL": url})
        codes.append(command(arguments))
    return max(codes)


def narrow(payload: bytes) -> None:
    """This process, and whom it starts, have the store of the hook's session alone."""
    session = _setting("SESSION_ID") or _session_in(payload)
    url = address_of(_as_id(session, "session") if session else "")
    os.environ["SESSION_SERVICE_URL"] = url


def _session_in(payload: bytes) -> str:
    """Of a hook's payload, which mostly begins with it; decoded only where it does not."""
    if payload[:64].lstrip()[1:].lstrip().startswith(b'"session_id"'):
        return _member(payload, b'"session_id":"') or _member(payload, b'"session_id": "')
    with _suppress(ValueError):
        value = _payload(payload)
        return _text(value.get("session_id")) if isinstance(value, dict) else ""
    return ""


def address_of(session: str, folder: str | None = None) -> str:
    """The store of a session; the choice is kept. `folder`: of the spools, else as the environment says."""
    urls = addresses()
    os.environ[_LISTED] = ",".join(urls)
    if not _is_id(session):
        return urls[0]
    known = chosen(session, folder)
    url = known if known in urls else ranked(session, urls)[0]
    if (seconds := _patience()) and is_away(url, seconds, folder):
        url = next((other for other in _after(url, session, urls) if not is_away(other, seconds, folder)), url)
    if url != known:
        keep_choice(session, url, folder)
        for other in urls:
            if other != url:
                deliver(other, folder)
    return url


def _after(url: str, session: str, urls: list[str]) -> list[str]:
    """All others, in the order in which the session takes them."""
    return [other for other in ranked(session, urls) if other != url]


def _folders(folder: str | None) -> Iterator[str]:
    yield folder or _default_folder()
    with _suppress(OSError):
        yield _temporary_folder()


def chosen(session: str, folder: str | None = None) -> str:
    """What was chosen before; empty: nothing."""
    for place in _folders(folder):
        with _suppress(OSError, ValueError), open(f"{place}/chosen/{session}", encoding="utf-8") as file:
            return file.read().strip()
    return ""


def keep_choice(session: str, url: str, folder: str | None = None) -> None:
    """Where nothing can be written, the hash alone decides."""
    for place in _folders(folder):
        with _suppress(OSError):
            os.makedirs(f"{place}/chosen", mode=0o700, exist_ok=True)
            _forget_oldest(f"{place}/chosen")
            part = f"{place}/chosen/.{session}.{os.getpid()}"
            with open(part, "w", encoding="utf-8") as file:
                file.write(url)
            os.replace(part, f"{place}/chosen/{session}")
            return


def _forget_oldest(place: str) -> None:
    names = os.listdir(place)
    if len(names) > _MOST_CHOICES:
        oldest = sorted(names, key=lambda name: os.stat(f"{place}/{name}").st_mtime)
        for name in oldest[: _MOST_CHOICES // 4]:
            os.unlink(f"{place}/{name}")


def deliver(url: str, folder: str | None = None) -> None:
    """See to it that what waits for another store than ours is not left there: by a sender of its own."""
    for place in _folders(folder):
        spool = Spool(url, folder, _spool_limit())
        spool.folder = f"{place}/{_folder_name(url)}"
        with _suppress(OSError):
            if not spool.segments() or (lock := _sender_lock(spool)) is None:
                continue
            try:
                _spawn_sender(spool, lock, SESSION_SERVICE_URL=url)
            finally:
                os.close(lock)


# ---------------------------------------------------------------------------------------------------------------------
# Failover
# ---------------------------------------------------------------------------------------------------------------------

_looked: dict[str, float] = {}


def _patience() -> float:
    """Seconds after which a session goes on elsewhere; 0: never."""
    try:
        return max(0.0, float(_setting("SESSION_FAILOVER_AFTER")))
    except ValueError:  # not set, or off
        return 0.0


def is_away(url: str, seconds: float, folder: str | None = None) -> bool:
    """Whether a store did not take what was tried last, and what waits for it has waited for so long."""
    for place in _folders(folder):
        spool = Spool(url, folder)
        spool.folder = f"{place}/{_folder_name(url)}"
        with _suppress(OSError, ValueError):
            if spool.word() == "away" and (batch := spool.read()):
                said = _member(batch.lines[0], b'"timestamp":"')
                return bool(said) and time.time() - _milliseconds(said) / 1000 > seconds
    return False


def choose_again(agent: SyncSessionHookAgent) -> None:
    """Now and then, for a program that goes on for long: where its store is away, it enters its session elsewhere."""
    session, url, user = agent._known()
    if not (seconds := _patience()) or time.monotonic() - _looked.get(session, 0.0) < min(seconds, _LOOK_SECONDS):
        return
    _looked[session] = time.monotonic()
    if (other := address_of(session, agent._spool_dir)) != url:
        agent._who, agent._is_entered = (session, other, user), False


# ---------------------------------------------------------------------------------------------------------------------
# Sessions that move
# ---------------------------------------------------------------------------------------------------------------------


def hand_on(spool: Spool, record: bytes, url: str) -> bool:
    """What a store did not take, since its session is at `url` now, waits for that. False: it cannot be kept there.

    It is delivered there only if that store is listed: an agent goes, with its token, where its own setting says, and
    not where some store does.
    """
    session, root = _session_of(record), os.path.dirname(spool.folder)
    other = Spool(url, root, spool.limit)
    try:
        other.settle()
        other.append(record.rstrip(b"\n") + b"\n")
    except OSError:
        return False
    if _is_id(session):
        keep_choice(session, url.rstrip("/"), root)
    if url.rstrip("/") in addresses():
        deliver(url.rstrip("/"), root)
    return True
