"""--workers N: a supervisor and N server processes on one port.

    fork      before anything heavy is imported; the first alone, the rest once it serves
    port      each worker listens on a socket of its own with SO_REUSEPORT, and the kernel deals
              the connections out; the supervisor only keeps the port, it accepts nothing. But
              for the first, a worker listens only once its models are loaded
    signals   SIGTERM, SIGINT and SIGHUP are handed on; the workers drain as a single server does
    crash     another is started after 0.1 s; after 0.2 s, 0.4 s, ... 30 s if it did not last
    no start  a worker that ends before it has ever served ends everything, with its exit code
    hang      a worker whose event loop does not turn for --worker-timeout-ms is killed and
              replaced; not while it loads its first models, and not because everything has
              stood still, as on a machine that is suspended
    told      in the log, and by foldserve_workers_replaced_total on the page that all workers show
    orphans   a worker whose supervisor has gone stops as on SIGTERM

A worker is a whole server: it has models, queues and counters of its own, and an Nth of the CPUs.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from service import listen
from service.listen import CannotStart
from service.settings import Settings
from service.telemetry.pages import SharedPages
from service.telemetry.replaced import Replaced
from service.worker import ALIVE, LEAVING, SERVING, Worker

logger = logging.getLogger("foldserve.workers")

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 30.0
_SETTLED_S = 10.0  # a worker that ran so long has not crashed at its start
_POLL_S = 1.0
# Beyond the time that a drain may take; workers that still run are killed then.
_LATE_S = 10.0
_HANDED_ON = ("SIGTERM", "SIGINT", "SIGHUP")
_ENDING = (signal.SIGTERM, signal.SIGINT)


@dataclass(slots=True)
class _Process:
    """A worker as the supervisor sees it; `pid` is 0 while it waits to be started again."""

    index: int
    pid: int = 0
    started: float = 0.0
    pipe: int = -1  # from which its messages are read
    heard: float | None = None  # when it last said that it lives; None before and after
    silent: bool = False  # it was killed as it did not say so any more
    crashes: int = 0
    due: float = field(default=0.0)


def supervise(settings: Settings, run: Callable[[Worker], int]) -> int:
    """Run until a signal; the exit code is returned.

    Args:
        settings: with `workers` above 1.
        run: the whole of a worker, called in a new process; its exit code.

    Raises:
        CannotStart: no port, or no fork on this system.
    """
    if not hasattr(os, "fork") or not hasattr(socket, "SO_REUSEPORT"):
        raise CannotStart("--workers needs a POSIX system with SO_REUSEPORT. Use --workers 1.")
    port, keeper = listen.reserve(settings.host, settings.port)
    try:
        shared = tempfile.TemporaryDirectory(prefix="foldserve-")
    except OSError as error:
        keeper.close()
        raise CannotStart(
            f"--workers needs a folder for temporary files: {error.strerror}. Set TMPDIR to one."
        ) from None
    with keeper, shared as pages:
        return _Supervisor(settings, port, run, Path(pages)).run()


class _Supervisor:
    def __init__(
        self, settings: Settings, port: int, run: Callable[[Worker], int], pages: Path
    ) -> None:
        self._longest_silence_s = settings.worker_timeout_ms / 1000 or math.inf
        self._grace_s = (settings.drain_delay_ms + settings.drain_timeout_ms) / 1000 + _LATE_S
        self._end_by = math.inf
        self._run = run
        self._pages = pages
        self._replaced = Replaced(SharedPages(pages, settings.workers), settings.workers)
        self._port = port
        self._processes = [_Process(index) for index in range(settings.workers)]
        self._ever_served = False
        self._ending = False
        self._code = 0
        self._lifeline, self._held = os.pipe()
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._waker, False)

    def run(self) -> int:
        signal.set_wakeup_fd(self._waker)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # wakes the select below
        for name in _HANDED_ON:
            signal.signal(getattr(signal, name), self._hand_on)
        self._start(self._processes[0])
        looked = time.monotonic()
        while True:
            self._reap()
            if self._ending and not any(p.pid for p in self._processes):
                return self._code
            now = time.monotonic()
            if now - looked > 2 * _POLL_S:
                # This process itself did not run, and has not read what the workers said meanwhile.
                self._forgive(now - looked)
            looked = now
            self._kill_what_hangs(now)
            due = [p for p in self._processes if not p.pid and not self._ending]
            for process in due:
                if now >= process.due and (self._ever_served or process.index == 0):
                    self._start(process)
            self._sleep(min([_POLL_S, *(max(0.0, p.due - now) for p in due if p.due > now)]))

    def _sleep(self, seconds: float) -> None:
        waiting = {p.pipe: p for p in self._processes if p.pipe >= 0}
        readable, _, _ = select.select([self._woken, *waiting], [], [], seconds)
        with suppress(BlockingIOError):
            while os.read(self._woken, 512):
                pass
        for fd in readable:
            if fd in waiting:
                self._read(waiting[fd])

    def _read(self, process: _Process) -> None:
        """Take what a worker has said, or that it says no more."""
        said = os.read(process.pipe, 4096)
        self._ever_served |= SERVING in said
        if not said:
            os.close(process.pipe)
            process.pipe = -1
        if not said or LEAVING in said:
            process.heard = None
        elif ALIVE in said:
            process.heard = time.monotonic()

    def _forgive(self, seconds: float) -> None:
        for process in self._processes:
            if process.heard is not None:
                process.heard += seconds

    def _kill_what_hangs(self, now: float) -> None:
        """By SIGKILL: a stopped process gets no other signal, and a blocked loop handles none."""
        for process in self._processes:
            if not process.pid:
                continue
            silent_s = 0.0 if process.heard is None else now - process.heard
            if silent_s > self._longest_silence_s:
                why = f"its event loop has not turned for {silent_s:.0f} s"
            elif now > self._end_by:
                why = "it does not end"
            else:
                continue
            logger.error("worker %d (pid %d) is killed: %s", process.index, process.pid, why)
            process.heard, process.silent = None, True
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)

    def _hand_on(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if number in _ENDING:
            self._ending = True
            self._end_by = min(self._end_by, time.monotonic() + self._grace_s)
            number = signal.SIGTERM
        for process in self._processes:
            if process.pid:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, number)

    def _start(self, process: _Process) -> None:
        pipe, writer = os.pipe()
        os.set_blocking(writer, False)  # a supervisor that does not read must not block a worker
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal that comes before the pid is noted would not be handed on to the new process.
        signal.pthread_sigmask(signal.SIG_BLOCK, _signals())
        pid = os.fork()
        if pid == 0:
            self._become(process.index, writer)
        process.pid, process.started, process.pipe = pid, time.monotonic(), pipe
        process.heard, process.silent = None, False
        os.close(writer)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _signals())

    def _become(self, index: int, writer: int) -> None:
        """The new process: forget the supervisor, run the worker, exit."""
        code = 1
        try:
            # Out of the terminal's group: Ctrl-C comes once, through the supervisor.
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for name in (*_HANDED_ON, "SIGCHLD"):
                signal.signal(getattr(signal, name), signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _signals())
            for fd in (self._held, self._woken, self._waker):
                os.close(fd)
            threading.Thread(target=_follow, args=(self._lifeline,), daemon=True).start()

            def say(message: bytes) -> None:
                with suppress(OSError):
                    os.write(writer, message)

            first = not self._ever_served
            count = len(self._processes)
            code = self._run(Worker(count, index, self._port, first, self._pages, say))
        except BaseException:  # noqa: BLE001  nothing may return into the supervisor's code
            traceback.print_exc()
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        for process in self._processes:
            if not process.pid:
                continue
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            if not pid:
                continue
            code = os.waitstatus_to_exitcode(status)
            self._ended(process, code)

    def _ended(self, process: _Process, code: int) -> None:
        pid, process.pid = process.pid, 0
        while process.pipe >= 0:
            self._read(process)
        if self._ending:
            if code != -signal.SIGTERM:  # before it could handle the signal: that is no failure
                self._code = self._code or _exit_code(code)
            return
        if not self._ever_served:
            self._code = _exit_code(code) or 1
            self._hand_on(signal.SIGTERM, None)
            return
        SharedPages(self._pages, process.index).withdraw()
        self._replaced.count(process.index, "silent" if process.silent else "ended")
        lived = time.monotonic() - process.started
        process.crashes = 0 if lived > _SETTLED_S else min(process.crashes + 1, 20)
        delay = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2**process.crashes)
        process.due = time.monotonic() + delay
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        logger.error(
            "worker %d (pid %d) ended with %s; another is started in %.1f s",
            process.index, pid, how, delay,
        )  # fmt: skip


def _exit_code(code: int) -> int:
    """As a shell gives it for a process that a signal ended."""
    return code if code >= 0 else 128 - code


def _signals() -> list[signal.Signals]:
    return [getattr(signal, name) for name in (*_HANDED_ON, "SIGCHLD")]


def _follow(lifeline: int) -> None:
    """End when the supervisor has: nothing is ever written to the lifeline, it only closes."""
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)
