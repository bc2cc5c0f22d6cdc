"""Answers that are kept for requests that come again (--response-cache-bytes; none by default).

    key     the version as it was loaded, sha256 of (sha256 of what else decides the answer, body)
    value   the whole answer, in the bytes in which it was given

What else decides it, the reader of the head says: the protocol, Content-Type, Accept, shapes in
headers, the output in the query. Outputs, parameters and an id are in the body. Each load of a
version has a number of its own, so that no answer outlives its version, and those of versions that
are served no more are dropped. Kept are answers only, never errors, and none of a model that draws
random numbers. When there is no room, what was not asked for the longest goes first.

Nothing is looked up before a request's key was checked and its model has room for it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from service.models.model import ServedModel
from service.models.registry import Registry

if TYPE_CHECKING:
    from service.http import Body
    from service.protocols.call import Reply

# Of an entry besides its bytes: the key, the tuples and their places in the table.
_ENTRY_BYTES = 512

Key = tuple[int, bytes]
# Told of an answer: the model's name and version, whether it was there, and the seconds that the
# cache took.
Told = Callable[[str, int, bool, float], object]


class Kept(NamedTuple):
    """An answer, and how many rows were asked for."""

    reply: Reply
    rows: int


class ResponseCache:
    """`held`: bytes of all that is kept. `hits`: answers that were there, `misses`: those that had
    to be made; by the name of the model. Used from any thread.

    Args:
        limit: bytes of all entries together; an answer that is larger is not kept.
    """

    def __init__(self, limit: int, registry: Registry, told: Told = lambda *_: None) -> None:
        self.limit = limit
        self.held = 0
        self.hits: dict[str, int] = {}
        self.misses: dict[str, int] = {}
        self._told = told
        self._registry = registry
        self._changes = registry.changes
        self._entries: OrderedDict[Key, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key, model: ServedModel) -> Kept | None:
        """What is kept under a key; it counts as asked for just now."""
        began = time.perf_counter()
        with self._lock:
            kept = self._entries.get(key)
            if kept is not None:
                self._entries.move_to_end(key)
                self._count(self.hits, model, began)
        return kept

    def put(self, key: Key, model: ServedModel, reply: Reply, rows: int) -> None:
        """Keep an answer that was not there, in the place of those not asked for the longest."""
        if reply.status != 200:
            return
        began = time.perf_counter()
        kept = Kept(reply._replace(body=bytes(reply.body)), rows)
        size = _size(kept)
        with self._lock:
            if self._changes != self._registry.changes:
                self._drop_what_is_not_served()
            if size <= self.limit:
                before = self._entries.pop(key, None)
                self.held += size - (_size(before) if before is not None else 0)
                self._entries[key] = kept
                while self.held > self.limit:
                    _, oldest = self._entries.popitem(last=False)
                    self.held -= _size(oldest)
            self._count(self.misses, model, began)

    def _count(self, counts: dict[str, int], model: ServedModel, began: float) -> None:
        counts[model.name] = counts.get(model.name, 0) + 1
        took_s = time.perf_counter() - began
        self._told(model.name, model.version, counts is self.hits, took_s)

    def _drop_what_is_not_served(self) -> None:
        self._changes = self._registry.changes
        served = {model.serial for model in self._registry.every_version()}
        for key in [key for key in self._entries if key[0] not in served]:
            self.held -= _size(self._entries.pop(key))


class Recall:
    """How answers to requests with one head are found.

    Args:
        facts: what of the head decides the answer, of types whose repr() says all of them.
    """

    def __init__(self, cache: ResponseCache, *facts: object) -> None:
        self.cache = cache
        self._begin = hashlib.sha256(hashlib.sha256(repr(facts).encode()).digest())

    def key(self, model: ServedModel, body: Body) -> Key | None:
        """The key of a request; None if its model may answer otherwise the next time."""
        if not model.repeatable:
            return None
        digest = self._begin.copy()
        digest.update(body)
        return model.serial, digest.digest()


def _size(kept: Kept) -> int:
    reply = kept.reply
    headers = sum([len(name) + len(value) for name, value in reply.headers])
    return len(reply.body) + headers + _ENTRY_BYTES
