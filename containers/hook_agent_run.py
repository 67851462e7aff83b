"""Supervisor of one program as a session: `hook_agent.py run -- COMMAND …` passes on signals, its output and exit code.

One file, to be copied beside hook_agent.py, which finds it. Python 3.9 or newer and its standard library, nothing else.
As process 1 of a container it reaps orphans. It says how the program ended as far as that can be known, and with
`--control`, by hook_agent_control.py, signals it as people in the store order.

    Output        what the command writes
    Signals       what is passed on to it, until its end
    Certificate   how it ended: its signal, memory, restarts, what was not delivered, its last words
    Steering      stop, pause, release: which signal goes to which processes
"""

from __future__ import annotations

import collections
import contextlib
import os
import select
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import hook_agent
from hook_agent import SessionHookAgent, _beside, _now, _parser, _process, _suppress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Members = dict[str, Any]


class _Output:
    """What a command writes: passed on byte for byte, while its last lines are kept."""

    _LINE_BYTES = 4096
    _SECONDS = 1.0  # how long to wait for the end of what is written once the command is gone: its children may go on

    def __init__(self, lines: int) -> None:
        self._lines: collections.deque[bytes] = collections.deque(maxlen=lines)
        self._errors: collections.deque[bytes] = collections.deque(maxlen=lines)
        self._threads: list[threading.Thread] = []
        self._writing: list[int] = []

    def redirections(self) -> list[tuple[int, int, int]]:
        """What posix_spawn has to do so that the command writes here."""
        return [self._redirection(1), self._redirection(2)] if self._lines.maxlen else []

    def _redirection(self, to: int) -> tuple[int, int, int]:
        reading, writing = os.pipe()
        self._writing.append(writing)
        self._threads.append(threading.Thread(target=self._pass_on, args=(reading, to), daemon=True))
        self._threads[-1].start()
        return os.POSIX_SPAWN_DUP2, writing, to

    def command_has_it(self) -> None:
        """Only the command, and whom it lets, writes here from now on."""
        for writing in self._writing:
            os.close(writing)

    def _pass_on(self, reading: int, to: int) -> None:
        line = b""
        try:
            while piece := os.read(reading, 1 << 16):
                _write_all(to, piece)
                *whole, line = (line + piece).split(b"\n")
                self._keep(whole, to)
                line = line[: self._LINE_BYTES]
        except OSError:  # nobody reads it any more, and so the command gets SIGPIPE as it would without us
            pass
        finally:
            os.close(reading)
            if line:
                self._keep([line], to)

    def _keep(self, lines: list[bytes], to: int) -> None:
        cut = [line[: self._LINE_BYTES] for line in lines]
        self._lines.extend(cut)
        if to == 2:
            self._errors.extend(cut)

    def last_lines(self) -> tuple[str | None, str | None]:
        """The last lines of a command that has ended, and those of its errors; None if they are not kept."""
        deadline = time.monotonic() + self._SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        kept = (b"\n".join(lines).decode(errors="replace") for lines in (self._lines, self._errors))
        last, errors = kept if self._lines.maxlen else (None, None)
        return last, errors


def _write_all(to: int, data: bytes) -> None:
    while data:
        select.select([], [to], [])  # whoever shares it with us may have made it one that does not block
        with contextlib.suppress(BlockingIOError):
            data = data[os.write(to, data) :]


def _passed_on() -> set[int]:
    """The signals that are meant for the command."""
    return {getattr(signal, f"SIG{name}") for name in ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH")}


def _next_signal(awaited: set[int]) -> tuple[int, bool]:
    """A signal, and whether it came from the keyboard or the window: the terminal has sent it to the command as well.

    Where the system does not say from whom it came (macOS), those signals are the terminal's, if there is one.
    """
    of_terminal = (signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH)
    if not hasattr(signal, "sigwaitinfo"):
        number = signal.sigwait(awaited)
        return number, number in of_terminal and os.isatty(0)
    info = signal.sigwaitinfo(awaited)
    from_kernel = 128  # SI_KERNEL
    return info.si_signo, info.si_code == from_kernel and info.si_signo in of_terminal


def _wait_for(process: int, steering: _Steering | None = None) -> int:
    """Waits for the end of a process and passes signals on to it until then: its exit code, negative if by a signal.

    Reaps whatever else ends: as process 1 of a container there is nobody else to do it. Needs the signals blocked.
    """
    awaited = {*_passed_on(), signal.SIGCHLD}
    while True:
        number, is_typed = _next_signal(awaited)
        if number != signal.SIGCHLD:
            if not is_typed:
                _pass_on(number, process)
            continue
        with steering.lock if steering else contextlib.nullcontext():
            ended = dict(_ended_processes())
            if process not in ended:
                continue
            if steering:
                steering.is_over = True
        return os.waitstatus_to_exitcode(ended[process])


def _pass_on(number: int, process: int) -> None:
    """To a process that is not yet reaped, so that nobody else has its number; another user's may not be signalled."""
    try:
        os.kill(process, number)
    except PermissionError:
        name = signal.Signals(number).name
        print(f"hook_agent.py run: {name} could not be passed on: the command is another user's", file=sys.stderr)


def _ended_processes() -> Iterator[tuple[int, int]]:
    """The number and the wait status of each child that has ended."""
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended
    except ChildProcessError:
        return


def _start(command: list[str], session_id: str, output: _Output, mask: Iterable[int]) -> int:
    """Starts a command with the signal mask and handlers that we were started with. Raises OSError."""
    try:
        return os.posix_spawnp(
            command[0],
            command,
            {**os.environ, "SESSION_ID": session_id},
            file_actions=output.redirections(),
            setsigmask=mask,
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python itself ignores these two
        )
    finally:
        output.command_has_it()


def _run_to_its_end(
    command: list[str], session: Any, output: _Output, mask: Iterable[int], is_controlled: bool
) -> tuple[int, str | None, _Steering | None]:
    """Runs a command: its exit code, negative if by a signal, what went wrong, and who steered it."""
    try:
        process = _start(command, session.session_id, output, mask)
    except (OSError, ValueError) as error:  # the second: an empty name
        reason = f"{command[0]}: {error.strerror if isinstance(error, OSError) else error}"
        print(f"hook_agent.py run: {reason}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126, reason, None
    steering = _Steering(session, process) if is_controlled else None
    code = _wait_for(process, steering)
    if code < 0:
        return code, f"killed by signal {-code}: {signal.strsignal(-code)}", steering
    return code, f"exit code {code}" if code else None, steering


def run(arguments: list[str]) -> int:
    """run a program as a session of its own: run [--output-lines N] [--control] [--restore] -- COMMAND …"""
    parser = _parser("run", run)
    parser.add_argument("--output-lines", type=int, default=0, metavar="N", help="keep the last N lines that it writes")
    parser.add_argument("--control", action="store_true", help="stop, pause and continue it as ordered in the store")
    parser.add_argument("--restore", action="store_true", help="write the session's conversation back before")
    parser.add_argument("command", nargs="+", metavar="-- COMMAND …")
    options = parser.parse_args(arguments)
    listed = (os.environ.get("SESSION_SERVICE_URL") or hook_agent._service_url()).split(",")
    if options.control and (trouble := next(filter(None, map(_control().insecure, listed)), "")):
        print(f"hook_agent.py run: {trouble}", file=sys.stderr)
        return 2
    if options.restore:
        os.environ.update(_beside("hook_agent_restore", "run --restore").prepared())
    return _run_as_session(options.command, options.output_lines, options.control)


def _run_as_session(command: list[str], output_lines: int, is_controlled: bool) -> int:
    """The exit code of the command as a shell gives it, whether or not the store is there."""
    # First of all, so that none is missed, and so that threads which begin later have them blocked as well.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*_passed_on(), signal.SIGCHLD})
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who started us may ignore it: then no end is ever told, nor kept
    initial = {"source": "run", "command": command, "cwd": _folder(), "host": os.uname().nodename, "start": _now()}
    output = _Output(max(0, output_lines))
    with SessionHookAgent(initial=initial).sync as session:
        certificate = _Certificate(session)
        code, outcome, steering = _run_to_its_end(command, session, output, mask, is_controlled)
        exit_code = code if code >= 0 else 128 - code
        for number in _passed_on():
            signal.signal(number, lambda *_: None)  # they are for the command, which is gone
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        last_lines, last_words = output.last_lines()
        said = certificate.members(code, steering, last_words)
        if said["memory"]["killed"]:
            told = f"the kernel killed {said['memory']['killed']} of its processes for want of memory"
            outcome = f"{outcome}; {told}" if outcome else told
        if steering:
            steering.tell()
        status = "cancelled" if said["ordered"] else "failed" if code else "success"
        end = {"status": status, "outcome": outcome, "exitCode": exit_code, "certificate": said}
        session.finalize({**end, "response": last_lines})
    return exit_code


# Certificate

_COUNTED_BYTES = 1 << 20  # of what waits in the spool: counting more would take long


class _Certificate:
    """How a program ended, as far as it can be known. What stands there as null is not."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._killed = _memory()["killed"]
        self._restarts = self._count_start()

    def _count_start(self) -> int | None:
        """How often this session was begun here before; None where there is no word of it, and it was not made anew."""
        if not os.environ.get("SESSION_ID"):
            return 0
        spool, name = self._session._outlet.spool, f"runs/{self._session.session_id}"
        with _suppress(OSError), hook_agent._Lock(spool, must_be_held=True):
            os.makedirs(spool.path("runs"), 0o700, exist_ok=True)
            known = spool._read_json(name, {"starts": 0}).get("starts", 0)
            spool._write(name, {"starts": known + 1})
            return known or None
        return None

    def members(self, code: int, steering: _Steering | None, last_words: str | None) -> Members:
        """Of an end with this exit code, which is negative where it was a signal."""
        memory = _memory()
        before, after = self._killed, memory["killed"]
        memory["killed"] = None if before is None or after is None else max(0, after - before)
        ordered = steering.ordered if steering else None
        memory["wasCommand"] = _was_command(code, memory["killed"], ordered)
        return {
            "signal": signal.Signals(-code).name if code < 0 else None,
            "memory": memory,
            "restarts": self._restarts,
            "undelivered": self._undelivered(),
            "ordered": ordered,
            "lastWords": last_words,
        }

    def _undelivered(self) -> Members | None:
        """What lies in the spool of this session and of others, before the end that is told."""
        spool = self._session._outlet.spool
        if not spool.folder:
            return None
        try:
            sizes = [os.stat(spool._segment(number)).st_size - spool._offset(number) for number in spool.segments()]
            few = sum(sizes) <= _COUNTED_BYTES
            return {"bytes": sum(sizes), "events": hook_agent._total(spool.waiting()) if few else None}
        except OSError:
            return None


def _was_command(code: int, killed: int | None, ordered: Members | None) -> bool | None:
    """Whether it was the command itself that the kernel killed for memory, and not a process that it had started."""
    if killed == 0 or code != -signal.SIGKILL or (ordered and ordered["signal"] == "SIGKILL"):
        return False
    return True if killed == 1 else None


def _memory() -> Members:
    """Of this control group: how many were `killed` for want of memory until now, and `limit` and `peak` in bytes.

    Each is None where nobody can tell; the limit is "none" where there is none.
    """
    for path in _memory_files():
        with _suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            counts = dict(line.split() for line in file)
            folder, is_first = os.path.dirname(path), path.endswith("oom_control")
            limit = _number_in(f"{folder}/memory.{'limit_in_bytes' if is_first else 'max'}")
            peak = _number_in(f"{folder}/memory.{'max_usage_in_bytes' if is_first else 'peak'}")
            killed = int(counts["oom_kill"]) if "oom_kill" in counts else None
            return {"killed": killed, "limit": "none" if limit and limit >= _NO_LIMIT else limit, "peak": peak}
    return {"killed": None, "limit": None, "peak": None}


_NO_LIMIT = 1 << 62  # the first version of control groups says a number of that order


def _number_in(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            text = file.read().strip()
        return _NO_LIMIT if text == "max" else int(text)
    except (OSError, ValueError):
        return None


def _memory_files() -> Iterator[str]:
    """Of either version of control groups. Inside a container its own group may stand at the root."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            groups = [line.rstrip("\n").split(":", 2) for line in file]
    except (OSError, ValueError):
        return
    for number, controllers, group in groups:
        if "memory" in controllers.split(","):
            yield from (f"/sys/fs/cgroup/memory{place}/memory.oom_control" for place in (group.rstrip("/"), ""))
        if number == "0":
            for mount in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
                yield from (f"{mount}{place}/memory.events" for place in (group.rstrip("/"), ""))


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # it is gone: no reason for the command not to run
        return None


# Steering

_TELL_SECONDS = 1.0
_GRACE_SECONDS = 10.0  # between being asked to end and being killed


def _control() -> Any:
    return hook_agent._beside("hook_agent_control", "run --control")


class _Steering:
    """Signals the command as people order it. Where an agent in it has hooks that do so, it is left to them."""

    def __init__(self, session: Any, process: int) -> None:
        self.lock = threading.Lock()  # held by who reaps: what is not yet reaped has its number for itself
        self.is_over = False
        self.ordered: Members | None = None
        self._session, self._command = session, process
        self._paused: list[int] = []
        self._kill_at: float | None = None
        self._known = _control().Known(session._outlet.spool, session.session_id)
        threading.Thread(target=self._run, name="hook_agent run", daemon=True).start()

    def _run(self) -> None:
        own = _process(os.getpid())
        while not self.is_over:
            with _suppress(OSError):
                if not self._known.spool.folder:
                    self._known.spool.settle()
                by = self._known.process()
                if not by:
                    self._known.enter(own)
                if by == own:
                    self._carry_out(self._known.items())
            if self._kill_at and time.monotonic() > self._kill_at:
                self._kill_at = None
                self._signal(signal.SIGKILL, [self._command], self.ordered or {})
            time.sleep(0.1)

    def _carry_out(self, items: list[Members]) -> None:
        if self._paused and not any(it["order"] == "pause" for it in items):
            self._signal(signal.SIGCONT, self._paused[::-1], {})
            self._paused = []
        for item in items:
            order = item["order"]
            refused = "" if order in ("stop", "pause") else "it is a program, to which nothing can be said"
            if item.get("agentId"):
                refused = "it is a program, which has no agents that could be told apart"
            if self._known.begin(item["id"], refused=refused) and not refused:
                self._stop(item) if order == "stop" else self._pause(item)
            if order != "pause" or refused:
                self._known.drop(item["id"])

    def tell(self) -> None:
        """Give the word of what was carried out a moment, while there is somebody who brings it."""
        until = time.monotonic() + _TELL_SECONDS
        with _suppress(OSError):
            while self._known.report() and self._session._outlet.seems_reachable() and time.monotonic() < until:
                time.sleep(0.01)

    def _stop(self, item: Members) -> None:
        self._signal(signal.SIGTERM, [self._command], item)
        self._signal(signal.SIGCONT, self._paused[::-1], item)  # what is stopped does not hear it
        self._paused, self._kill_at = [], time.monotonic() + _GRACE_SECONDS

    def _pause(self, item: Members) -> None:
        self._paused = [self._command, *_below(self._command)]
        self._signal(signal.SIGSTOP, self._paused, item)

    def _signal(self, number: signal.Signals, processes: list[int], item: Members) -> None:
        """Says what it has done, and on whose word."""
        with self.lock:
            if self.is_over or not processes:
                return
            sent = 0
            for process in processes:
                with _suppress(OSError):  # it has ended meanwhile, or is another user's
                    os.kill(process, number)
                    sent += 1
            why = {"orderId": item.get("id", item.get("orderId")), "by": item.get("by")}
            if sent and number in (signal.SIGTERM, signal.SIGKILL):
                self.ordered = {"signal": number.name, **why}
        self._session.log_action(type="signal_sent", signal=number.name, processes=sent, **why)


def _below(process: int) -> list[int]:
    """The processes that it has started, and those that these have, as far as they can be seen."""
    parents: dict[int, int] = {}
    with _suppress(OSError):
        for name in filter(str.isdigit, os.listdir("/proc")):
            with _suppress(OSError, IndexError, ValueError), open(f"/proc/{name}/stat", "rb") as file:
                parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    found = [process]
    for above in found:
        found += [child for child, parent in parents.items() if parent == above]
    return found[1:]
