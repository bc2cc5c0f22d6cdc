"""Who of those that connect may ask for more than health: so many in all, a share of one address.

of one address    7/8 of all places at most (or --max-connections-per-address), so that one
                  that holds many connections, talking or not, leaves some to the others;
                  of IPv6 the 64 bits that stand for a network
no place left     of those with nothing to say for a second, and nothing to be told, the one
                  that is silent longest makes room: first of the address that has most
none that idles   the new one is one of the `Crowd`: health is answered on it
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import Protocol

_SILENT_S = 1.0
# To look for silent ones takes as long as there are connections, so it is not done for each.
_LOOK_EVERY_S = 0.1
_SHARE = 8  # one place in so many is for other addresses


class _Closed(Protocol):
    def close(self) -> object: ...


class Holder(Protocol):
    """What may have a place: a connection, or a stream of gRPC."""

    @property
    def transport(self) -> _Closed: ...

    def silent_s(self, now: float) -> float: ...


Group = dict[Holder, None]


class Places:
    """Used on the event loop only.

    Args:
        most: connections.
        most_of_one: of one address; None for 7/8 of them.
    """

    def __init__(self, most: int, most_of_one: int | None = None) -> None:
        self.taken = 0
        self._most = most
        self._share = most - most // _SHARE if most_of_one is None else most_of_one
        self._groups: dict[str, Group] = {}
        self._of: dict[Holder, str] = {}
        self._silent: dict[str, deque[Holder]] = {}
        self._looked_at = 0.0

    def enter(self, connection: Holder, address: str, now: float) -> bool:
        """Whether there is a place for it; `now` is of time.monotonic()."""
        name = network(address)
        group = self._groups.get(name, {})
        if len(group) >= self._share and not self._make_room(name, [group], now):
            return False
        if self.taken >= self._most:
            largest_first = sorted(self._groups.values(), key=len, reverse=True)
            if not self._make_room("", largest_first, now):
                return False
        self._groups.setdefault(name, {})[connection] = None
        self._of[connection] = name
        self.taken += 1
        return True

    def leave(self, connection: Holder) -> None:
        """It has gone, or makes room."""
        name = self._of.pop(connection, None)
        if name is None:
            return
        self.taken -= 1
        group = self._groups[name]
        del group[connection]
        if not group:
            del self._groups[name]

    def _make_room(self, whose: str, groups: Iterable[Group], now: float) -> bool:
        """Close the connection that is silent longest of the first group that has one."""
        if not self._silent.get(whose):
            if now - self._looked_at < _LOOK_EVERY_S:
                return False
            self._looked_at = now
            found: deque[Holder] = deque()
            for group in groups:
                silent = [other for other in group if other.silent_s(now) > _SILENT_S]
                found.extend(sorted(silent, key=lambda other: -other.silent_s(now)))
            self._silent = {whose: found}
        found = self._silent[whose]
        while found:
            other = found.popleft()
            if other in self._of and other.silent_s(now) > _SILENT_S:
                self.leave(other)
                other.transport.close()
                return True
        return False


def network(address: str) -> str:
    """What stands for all addresses that one client may have."""
    if ":" not in address:
        return address
    parsed = IPv6Address(address.partition("%")[0])
    return str(parsed.ipv4_mapped or parsed.packed[:8].hex())
