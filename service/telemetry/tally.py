"""What each version that is served has done: requests, rows, batches, and the time that they took.

The numbers of Triton's statistics, counted where the metrics are. A tally lives as long as the
version that it is about: the observer of that version's batches holds it. Several workers add
theirs up as they were a second ago at most.

    success, fail    of a request, from the end of its head to the end of its answer
    queue            from the check of its tensors to the run of its batch
    compute_input, compute_infer, compute_output    bytes to tensors, the run, tensors to bytes
    cache_hit, cache_miss    of the cache, for an answer that was there or had to be made
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any
from weakref import WeakValueDictionary

import orjson

from service.batching.limits import Ran
from service.exchange import Exchange
from service.telemetry.pages import SharedPages

SPANS = (
    "success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit",
    "cache_miss",
)  # fmt: skip
FILES = ".json"
# Sizes of batches that are told one by one; the others only count as batches.
_MOST_SIZES = 256

Span = list[float]  # how often, and seconds in all
Numbers = dict[str, Any]  # see `Tally.numbers`


class Tally:
    """One version. Requests are counted on the event loop, each batch in its own thread."""

    def __init__(self) -> None:
        self._last_ms = 0
        self._rows = 0
        self._spans: dict[str, Span] = {name: [0, 0.0] for name in SPANS}
        self._batches: dict[int, dict[int, Span]] = {}  # by thread, by rows; 0 for other sizes

    def add(
        self,
        requests: Sequence[Exchange],
        took_s: float,
        run: int,
        stages: Sequence[float],
        *,
        success: bool,
    ) -> None:
        """Requests that have ended alike.

        Args:
            requests: what they were.
            took_s: seconds of them all, from begin to end.
            run: how many of them were run.
            stages: seconds of these, as in `metrics.STAGES`.
            success: whether they were answered with what they had asked for.
        """
        self._count("success" if success else "fail", len(requests), took_s)
        if not success:
            return
        self._last_ms = time.time_ns() // 1_000_000
        self._rows += sum([each.rows for each in requests])
        if run:
            decode, queue, batch_wait, compute, encode = stages
            self._count("queue", run, queue + batch_wait)
            self._count("compute_input", run, decode)
            self._count("compute_infer", run, compute)
            self._count("compute_output", run, encode)

    def looked_up(self, found: bool, took_s: float) -> None:
        """An answer was there, or had to be made; told by one thread at a time."""
        self._count("cache_hit" if found else "cache_miss", 1, took_s)

    def _count(self, name: str, count: int, took_s: float) -> None:
        span = self._spans[name]
        span[0] += count
        span[1] += took_s

    def ran(self, ran: Ran) -> None:
        """A batch has been run, in this thread."""
        sizes = self._batches.setdefault(threading.get_ident(), {})
        size = ran.rows if ran.rows in sizes or len(sizes) < _MOST_SIZES else 0
        span = sizes.setdefault(size, [0, 0.0])
        span[0] += 1
        span[1] += ran.seconds

    def numbers(self) -> Numbers:
        """All of it, in plain JSON types that `merged` can add up."""
        batches: dict[str, Span] = {}
        for sizes in list(self._batches.values()):
            for size, span in list(sizes.items()):
                _add(batches, str(size), span)
        return {
            "last_ms": self._last_ms, "rows": self._rows, "spans": self._spans, "batches": batches,
        }  # fmt: skip


class Tallies:
    """Of all versions that are served.

    Args:
        shared: where the other workers' are, if there are several.
    """

    def __init__(self, shared: SharedPages | None = None) -> None:
        self._shared = shared
        self._of: WeakValueDictionary[tuple[str, int], Tally] = WeakValueDictionary()

    def begin(self, model: str, version: int) -> Tally:
        """The tally of a version that was loaded just now; it lasts as long as it is held."""
        self._of[model, version] = tally = Tally()
        return tally

    def add(
        self,
        model: str,
        version: int,
        requests: Sequence[Exchange],
        took_s: float,
        run: int,
        stages: Sequence[float],
    ) -> None:
        """Requests of one version that have ended alike; see `Tally.add`."""
        tally = self._of.get((model, version))
        if tally is not None:
            tally.add(requests, took_s, run, stages, success=requests[0].status == 200)

    def looked_up(self, model: str, version: int, found: bool, took_s: float) -> None:
        """An answer was there among those that are kept, or had to be made."""
        tally = self._of.get((model, version))
        if tally is not None:
            tally.looked_up(found, took_s)

    def refused(self, model: str, version: int) -> None:
        """A request was refused before there was a record of it."""
        tally = self._of.get((model, version))
        if tally is not None:
            tally.add([Exchange("")], 0.0, 0, (), success=False)

    def numbers(self, model: str, version: int) -> Numbers:
        """Of one version, in all workers; all 0 for one that is not there."""
        own = self._of.get((model, version)) or Tally()
        others = self._shared.others(FILES) if self._shared else []
        key = _key(model, version)
        return merged([own.numbers(), *(orjson.loads(text).get(key, {}) for text in others)])

    def share(self) -> None:
        """Let the other workers add this one's; to be called once a second."""
        if self._shared is not None:
            mine = {_key(*which): tally.numbers() for which, tally in list(self._of.items())}
            self._shared.publish(orjson.dumps(mine).decode(), FILES)


def merged(all_of_them: Iterable[Numbers]) -> Numbers:
    """The sum of several `Tally.numbers`, {} among them counting as none."""
    total = Tally().numbers()
    for numbers in all_of_them:
        total["last_ms"] = max(total["last_ms"], numbers.get("last_ms", 0))
        total["rows"] += numbers.get("rows", 0)
        for part in ("spans", "batches"):
            for name, span in numbers.get(part, {}).items():
                _add(total[part], name, span)
    return total


def _add(to: dict[str, Span], name: str, span: Span) -> None:
    known = to.setdefault(name, [0, 0.0])
    known[0] += span[0]
    known[1] += span[1]


def _key(model: str, version: int) -> str:
    return f"{model}/{version}"
