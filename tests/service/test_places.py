"""Places for connections: a share of each address, and the silent make room."""

from __future__ import annotations

import pytest
from test_quick import Pipe
from uvicorn.server import ServerState

from service.connections.lifetime import ConnectionLimits, Lifetime
from service.connections.places import Places, network

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"


class One(Lifetime):
    """A connection that began to be silent at a time."""

    limits = ConnectionLimits(100, 4096, 60, 60, 60)

    def __init__(self, since: float | None = 0.0) -> None:
        super().__init__(ServerState())
        self.transport = Pipe()
        self.since = since

    @property
    def closed(self) -> bool:
        return self.transport.is_closing()


def busy() -> One:
    return One(None)


def test_one_address_leaves_places_to_others():
    places = Places(16)
    assert [places.enter(busy(), A, 0.0) for _ in range(15)] == [True] * 14 + [False]
    assert places.enter(busy(), B, 0.0)
    assert places.enter(busy(), C, 0.0)
    assert not places.enter(busy(), C, 0.0)
    assert places.taken == 16


def test_the_share_can_be_said():
    places = Places(16, 2)
    assert [places.enter(busy(), A, 0.0) for _ in range(3)] == [True, True, False]
    everything = Places(3)  # too few for shares
    assert [everything.enter(busy(), A, 0.0) for _ in range(4)] == [True] * 3 + [False]


def test_who_is_silent_longest_makes_room_for_one_of_the_same_address():
    places = Places(8)
    silent = [One(float(since)) for since in (5, 3, 4, 9)]
    for each in (*silent, busy(), busy(), busy()):
        assert places.enter(each, A, 9.0)
    assert places.enter(busy(), A, 9.5)
    assert [each.closed for each in silent] == [False, True, False, False]
    assert places.enter(busy(), A, 9.5)
    assert places.enter(busy(), A, 9.5)
    assert [each.closed for each in silent] == [True, True, True, False]
    assert not places.enter(busy(), A, 9.7)  # it has been silent for less than a second
    assert places.enter(busy(), A, 10.5)
    assert silent[3].closed
    assert places.taken == 7


def test_of_all_addresses_the_one_with_most_gives_way():
    places = Places(8)
    lone = One(0.0)
    assert places.enter(lone, B, 1.0)
    many = [One(float(since)) for since in range(1, 8)]
    for each in many:
        assert places.enter(each, A, 8.0)
    assert places.enter(busy(), C, 20.0)
    assert many[0].closed
    assert not lone.closed
    for each in many[1:]:
        each.since = None
        each.began = True
    assert places.enter(busy(), C, 21.0)  # nobody else is silent
    assert lone.closed


@pytest.mark.parametrize("attribute", ["began", "_owed", "_unread"])
def test_who_has_something_to_say_or_to_read_is_not_silent(attribute: str):
    places = Places(4)
    there = [One() for _ in range(4)]
    for each in there:
        setattr(each, attribute, 1)
        assert places.enter(each, A, 5.0)
    assert not places.enter(busy(), A, 50.0)
    assert not any(each.closed for each in there)


def test_who_was_to_make_room_and_speaks_meanwhile_stays():
    places = Places(4)
    there = [One(float(since)) for since in range(4)]
    for each in there:
        assert places.enter(each, A, 5.0)
    assert places.enter(busy(), A, 10.0)
    there[1].since = None
    assert places.enter(busy(), A, 10.01)
    assert [each.closed for each in there] == [True, False, True, False]


def test_a_place_is_given_back_once():
    places = Places(2)
    one, other = busy(), busy()
    assert places.enter(one, A, 0.0)
    assert places.enter(other, A, 0.0)
    places.leave(one)
    places.leave(one)
    assert places.taken == 1
    assert places.enter(one, B, 0.0)
    places.leave(one)
    places.leave(other)
    assert places.taken == 0
    assert not places._groups


def test_a_network_of_ipv6_is_one_client():
    assert network("2001:db8:1:2::1") == network("2001:db8:1:2:ffff::9%eth0")
    assert network("2001:db8:1:2::1") != network("2001:db8:1:3::1")
    assert network("::ffff:192.0.2.1") == network(A) == A
    assert network("::ffff:192.0.2.2") != network(A)
    assert network("") == ""
