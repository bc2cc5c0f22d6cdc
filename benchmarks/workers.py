"""Processes that do one task after another, and may die over one.

A worker is a program that reads a number a line and answers with lines of JSON: any that say how
far it is, and one with "done". A task of a worker that ended, or said nothing for `SILENCE`
seconds, is answered with what it said last, and another worker takes its place. If three in a row
cannot even start, as when the program was changed meanwhile, that is the end.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from queue import Empty, Queue
from typing import Any

SILENCE = 300.0


class Worker:
    """One process."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, number: int) -> dict[str, Any]:
        """The answer to a task, or {"died": what it said last}.

        Raises:
            RuntimeError: no process can be started.
        """
        process = self._started()
        assert process.stdin is not None
        try:
            process.stdin.write(f"{number}\n".encode())
            process.stdin.flush()
        except OSError:
            self.end()
            return {"died": ""}
        last = ""
        while (line := self._line(process)) is not None:
            said: dict[str, Any] = json.loads(line)
            if "done" in said:
                return said
            last = str(said.get("at", ""))
        self.end()
        return {"died": last}

    def _started(self) -> subprocess.Popen[bytes]:
        for _ in range(3):
            if self._process is not None:
                return self._process
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, bufsize=0,
            )  # fmt: skip
            self._process = process
            if self._line(process) is None:
                self.end()
        if self._process is None:
            raise RuntimeError(f"{' '.join(self._command)} does not start")
        return self._process

    def _line(self, process: subprocess.Popen[bytes]) -> bytes | None:
        """The next line; None: it ended, or is silent."""
        assert process.stdout is not None
        found = b""
        while not found.endswith(b"\n"):
            if not select.select([process.stdout], [], [], SILENCE)[0]:
                return None
            part = process.stdout.read(1 << 16)
            if not part:
                return None
            found += part
        # It answers a line at a time, so there may be several: the last one is what counts.
        return found.splitlines()[-1]

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def answers(
    program: Sequence[str], tasks: int, workers: int, block: int = 1
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The answers to the tasks 0 to `tasks`, as they come; a worker takes `block` in a row.

    Raises:
        RuntimeError: no worker can be started.
    """
    waiting: Queue[range] = Queue()
    for number in range(0, tasks, block):
        waiting.put(range(number, min(number + block, tasks)))
    done: Queue[tuple[int, dict[str, Any]] | Exception] = Queue()
    stop = threading.Event()

    def work() -> None:
        worker = Worker([sys.executable, "-W", "ignore", *program])
        try:
            while not stop.is_set():
                for number in waiting.get_nowait():
                    done.put((number, worker.ask(number)))
        except Empty:
            pass
        except Exception as error:  # noqa: BLE001 - it is raised where answers are read
            done.put(error)
        finally:
            worker.end()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(tasks):
            found = done.get()
            if isinstance(found, Exception):
                raise found
            yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=1)
