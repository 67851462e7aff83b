"""Supervisor of one program as a session: `hook_agent.py run -- COMMAND …` passes on signals, its output and exit code.

One file, to be copied beside hook_agent.py, which finds it. Python 3.9 or newer and its standard library, nothing else.
As process 1 of a container it reaps orphans, and it says so where the kernel killed for want of memory.
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

from hook_agent import SessionHookAgent, _beside, _now, _parser, _suppress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class _Output:
    """What a command writes: passed on byte for byte, while its last lines are kept."""

    _LINE_BYTES = 4096
    _SECONDS = 1.0  # how long to wait for the end of what is written once the command is gone: its children may go on

    def __init__(self, lines: int) -> None:
        self._lines: collections.deque[bytes] = collections.deque(maxlen=lines)
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
                self._lines.extend(text[: self._LINE_BYTES] for text in whole)
                line = line[: self._LINE_BYTES]
        except OSError:  # nobody reads it any more, and so the command gets SIGPIPE as it would without us
            pass
        finally:
            os.close(reading)
            if line:
                self._lines.append(line)

    def last_lines(self) -> str | None:
        """The last lines of a command that has ended; None if they are not kept."""
        deadline = time.monotonic() + self._SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return b"\n".join(self._lines).decode(errors="replace") if self._lines.maxlen else None


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


def _wait_for(process: int) -> int:
    """Waits for the end of a process and passes signals on to it until then: its exit code, negative if by a signal.

    Reaps whatever else ends: as process 1 of a container there is nobody else to do it. Needs the signals blocked.
    """
    awaited = {*_passed_on(), signal.SIGCHLD}
    while True:
        number, is_typed = _next_signal(awaited)
        if number != signal.SIGCHLD:
            if not is_typed:
                os.kill(process, number)  # not yet reaped, so nobody else has its number
            continue
        ended = dict(_ended_processes())
        if process in ended:
            return os.waitstatus_to_exitcode(ended[process])


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
    command: list[str], session_id: str, output: _Output, mask: Iterable[int]
) -> tuple[int, str | None]:
    """Runs a command: the exit code as a shell gives it, and what went wrong."""
    try:
        code = _wait_for(_start(command, session_id, output, mask))
    except OSError as error:
        reason = f"{command[0]}: {error.strerror}"
        print(f"hook_agent.py run: {reason}", file=sys.stderr)
        return 127 if isinstance(error, FileNotFoundError) else 126, reason
    if code < 0:
        return 128 - code, f"killed by signal {-code}: {signal.strsignal(-code)}"
    return code, f"exit code {code}" if code else None


def run(arguments: list[str]) -> int:
    """run a program as a session of its own: run [--output-lines N] [--restore] -- COMMAND …"""
    parser = _parser("run", run)
    parser.add_argument("--output-lines", type=int, default=0, metavar="N", help="keep the last N lines that it writes")
    parser.add_argument("--restore", action="store_true", help="write the session's conversation back before")
    parser.add_argument("command", nargs="+", metavar="-- COMMAND …")
    options = parser.parse_args(arguments)
    if options.restore:
        os.environ.update(_beside("hook_agent_restore", "run --restore").prepared())
    return _run_as_session(options.command, options.output_lines)


def _run_as_session(command: list[str], output_lines: int) -> int:
    """The exit code of the command, whether or not the store is there."""
    # First of all, so that none is missed, and so that threads which begin later have them blocked as well.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*_passed_on(), signal.SIGCHLD})
    initial = {"source": "run", "command": command, "cwd": _folder(), "host": os.uname().nodename, "start": _now()}
    output = _Output(max(0, output_lines))
    with SessionHookAgent(initial=initial).sync as session:
        killed_before = _killed_for_memory()
        code, outcome = _run_to_its_end(command, session.session_id, output, mask)
        killed = _killed_for_memory() - killed_before
        for number in _passed_on():
            signal.signal(number, lambda *_: None)  # they are for the command, which is gone
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if killed > 0:
            told = f"the kernel killed {killed} of its processes for want of memory"
            outcome = f"{outcome}; {told}" if outcome else told
        end = {"status": "failed" if code else "success", "outcome": outcome, "exitCode": code}
        session.finalize({**end, "response": output.last_lines()})
    return code


def _killed_for_memory() -> int:
    """How many processes of this control group were killed for want of memory until now; 0 where nobody can tell."""
    for path in _memory_files():
        with _suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            counts = dict(line.split() for line in file)
            return int(counts["oom_kill"]) if "oom_kill" in counts else 0
    return 0


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
