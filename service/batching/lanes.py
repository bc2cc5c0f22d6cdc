"""The queue of a model: one lane for each shape, first come first served between them.

Only requests of one lane can be joined into a batch. The next batch always begins with the
request that has waited longest, whatever its lane, and takes those behind it in the same lane
for as long as they fit. So a flooded lane cannot starve another: its items only fill batches that
begin with an item of the same lane.

Urgent requests have lanes of their own: the most urgent one that waits begins the next batch, and
those that are less so fill it up.

Not thread-safe: the owner of the lanes holds a lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import accumulate

from service.batching.item import Item, Lane

_Key = tuple[int, Lane]  # priority, and what can be joined


class Lanes:
    """Items that wait, in the order of arrival; `rows` of them in all."""

    def __init__(self) -> None:
        self.rows = 0
        # An ordered dict drops any item, and finds the first, in constant time.
        self._lanes: dict[_Key, OrderedDict[Item, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def __iter__(self) -> Iterator[Item]:
        for lane in self._lanes.values():
            yield from lane

    def put(self, item: Item) -> None:
        key = item.priority, item.lane
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = OrderedDict()
        lane[item] = None
        self.rows += item.rows

    def drop(self, item: Item) -> bool:
        """Take an item out unserved; False if it was not there."""
        key = item.priority, item.lane
        lane = self._lanes.get(key)
        if lane is None or item not in lane:
            return False
        del lane[item]
        self.rows -= item.rows
        if not lane:
            del self._lanes[key]
        return True

    def oldest(self) -> Item | None:
        """The item that has waited longest."""
        heads = self._heads()
        return min(heads, key=_since) if len(heads) > 1 else heads[0] if heads else None

    def first(self) -> Item | None:
        """The item that has waited longest of the most urgent ones."""
        heads = self._heads()
        return min(heads, key=_order) if len(heads) > 1 else heads[0] if heads else None

    def _heads(self) -> list[Item]:
        return [next(iter(lane)) for lane in self._lanes.values()]

    def has_with(self, item: Item, rows: int) -> bool:
        """Whether so many rows wait that can run with an item."""
        waiting = (each.rows for lane in self._joinable(item) for each in lane)
        return any(found >= rows for found in accumulate(waiting))

    def take(self, limit_rows: int, now: float) -> tuple[list[Item], list[Item]]:
        """The next batch, and the items met on the way whose deadline has passed.

        Args:
            limit_rows: no second item is added beyond it; an item with more rows than that
                makes a batch by itself.
            now: on the clock of the deadlines.
        """
        batch: list[Item] = []
        expired: list[Item] = []
        rows = 0
        while not batch and (head := self.first()) is not None:
            full = False
            for position, lane in enumerate(self._joinable(head)):
                if position and not batch:  # all of its own lane were late
                    break
                while lane and not full:
                    item = next(iter(lane))
                    if now >= item.deadline:
                        expired.append(item)
                    elif batch and rows + item.rows > limit_rows:
                        full = True
                        break
                    else:
                        batch.append(item)
                        rows += item.rows
                        full = rows >= limit_rows
                    self.drop(item)
                    item.taken = True
        return batch, expired

    def _joinable(self, head: Item) -> list[OrderedDict[Item, None]]:
        """The lanes whose items can run with `head`, its own first and the least urgent last."""
        if len(self._lanes) == 1:
            return [*self._lanes.values()]
        keys = sorted(priority for priority, lane in self._lanes if lane == head.lane)
        return [self._lanes[priority, head.lane] for priority in keys]

    def clear(self) -> list[Item]:
        """Take everything out."""
        items = list(self)
        self._lanes.clear()
        self.rows = 0
        return items


def _since(item: Item) -> float:
    return item.since


def _order(item: Item) -> tuple[int, float]:
    return item.priority, item.since
