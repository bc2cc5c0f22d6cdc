"""Messages of gRPC are read a few at a time, whoever sends them."""

from __future__ import annotations

import asyncio
import time

import pytest

from service.budget import Budget
from service.errors import BodyTimeout, InvalidBody, TooManyBytes
from service.protocols.grpc_reception import Reception
from service.protocols.grpc_streams import Streams


class Caller:
    """A call whose message comes when it is told to."""

    def __init__(self, peer: str = "ipv4:192.0.2.1:5") -> None:
        self._peer = peer
        self.message: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.asked = False

    def peer(self) -> str:
        return self._peer

    async def read(self) -> object:
        self.asked = True
        return await asyncio.shield(self.message)


OTHER = "ipv6:%5B2001:db8::1%5D:7"


def later(seconds: float = 60) -> float:
    return time.monotonic() + seconds


async def turn() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_of_one_address_never_all_are_read_and_the_others_come_in_their_order():
    async def main():
        reception = Reception(3, 60)
        callers = [Caller() for _ in range(4)] + [Caller(OTHER)]
        tasks = [asyncio.ensure_future(reception.read(each, later())) for each in callers]
        await turn()
        assert [each.asked for each in callers] == [True, True, False, False, True]
        callers[1].message.set_result(b"1")
        await turn()
        assert [each.asked for each in callers] == [True, True, True, False, True]
        callers[4].message.set_result(b"4")  # its place is for others than the first address
        await turn()
        assert not callers[3].asked
        for each, number in ((callers[0], b"0"), (callers[2], b"2"), (callers[3], b"3")):
            each.message.set_result(number)
        assert await asyncio.gather(*tasks) == [b"0", b"1", b"2", b"3", b"4"]
        assert not reception._taken
        assert not reception._waiting

    asyncio.run(main())


def test_who_does_not_send_gives_the_place_back():
    async def main():
        reception = Reception(1, 60)
        slow, next_one = Caller(), Caller(OTHER)
        reading = asyncio.ensure_future(reception.read(slow, later(0.05)))
        await turn()
        waiting = asyncio.ensure_future(reception.read(next_one, later()))
        with pytest.raises(BodyTimeout):
            await reading
        next_one.message.set_result(b"x")
        assert await waiting == b"x"
        slow.message.set_result(b"")

    asyncio.run(main())


def test_who_gets_no_place_in_time_is_told_to_come_back():
    async def main():
        reception = Reception(1, 60)
        first = Caller()
        reading = asyncio.ensure_future(reception.read(first, later()))
        await turn()
        with pytest.raises(TooManyBytes) as caught:
            await reception.read(Caller(), later(0.05))
        assert caught.value.retry_after_s == 1
        leaver = asyncio.ensure_future(reception.read(Caller(), later()))
        await turn()
        leaver.cancel()
        await turn()
        assert not reception._waiting
        first.message.set_result(b"x")
        assert await reading == b"x"
        assert not reception._taken

    asyncio.run(main())


def test_who_leaves_just_when_a_place_is_free_hands_it_on():
    async def main():
        reception = Reception(1, 60)
        callers = [Caller() for _ in range(3)]
        tasks = [asyncio.ensure_future(reception.read(each, later())) for each in callers]
        await turn()
        callers[0].message.set_result(b"0")
        while not any(future.done() for future in reception._waiting):
            await asyncio.sleep(0)
        tasks[1].cancel()
        callers[2].message.set_result(b"2")
        assert await tasks[2] == b"2"
        assert await tasks[0] == b"0"
        assert not reception._taken

    asyncio.run(main())


def test_a_call_without_a_message_is_told_so():
    async def main():
        caller = Caller()
        caller.message.set_result(object())  # the end of the stream
        with pytest.raises(InvalidBody):
            await Reception(1, 60).read(caller, later())

    asyncio.run(main())


def test_a_part_of_the_budget_is_set_aside():
    budget = Budget(1000)
    assert Reception.of(budget, 60, 1).places == 4
    assert budget.aside == 240
    assert not budget.full
    budget.take(760)
    assert budget.full
    small = Budget(1000)
    assert Reception.of(small, 10_000, 1).places == 1
    assert small.aside == 250


def test_of_streams_only_a_few_are_waited_for():
    async def main():
        streams, reception = Streams(10, 60), Reception(4, 60)
        callers = [Caller() for _ in range(4)]
        tasks = [asyncio.ensure_future(streams._next(each, reception)) for each in callers]
        await turn()
        assert [each.asked for each in callers] == [True, True, True, False]
        for each in callers:
            each.message.set_result(b"x")
        assert await asyncio.gather(*tasks) == [b"x"] * 4
        assert not reception._taken

    asyncio.run(main())
