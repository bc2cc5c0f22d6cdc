"""How long a client is told to wait: as long as the queue before it takes, from 1 to 60 seconds."""

from __future__ import annotations

import math

import pytest

from service.batching.room import Room
from service.errors import QueueFull, TooManySamples


def room(seconds_per_row: float, runners: int = 1) -> Room:
    made = Room(10, "m", runners)
    made.learn(4, 2, 4 * seconds_per_row * runners)
    return made


@pytest.mark.parametrize(
    ("seconds_per_row", "waiting", "told"),
    [(2.0, 8, 16), (0.3, 10, 3), (0.31, 10, 4), (0.001, 10, 1), (0.0, 10, 1), (30.0, 9, 60)],
)
def test_a_full_queue_says_when_to_come_back(seconds_per_row: float, waiting: int, told: int):
    with pytest.raises(QueueFull) as refused:
        room(seconds_per_row).check(10 - waiting + 1, waiting, math.inf)
    assert refused.value.retry_after_s == told
    assert (b"retry-after", str(told).encode()) in list(refused.value.headers())


def test_a_queue_that_is_too_slow_says_so_too():
    slow = room(2.0)
    slow.check(1, 3, 17)  # 8 s with its own row, of 17: in time, as far as is known
    with pytest.raises(QueueFull) as refused:
        slow.check(1, 3, 15)
    assert refused.value.retry_after_s == 6


def test_runners_share_the_rows():
    with pytest.raises(QueueFull) as refused:
        room(2.0, runners=4).check(3, 8, math.inf)
    assert refused.value.retry_after_s == 16  # seconds_per_row is that of all runners at work


def test_the_last_row_comes_in_and_one_more_does_not():
    free = room(0.0)
    free.check(2, 8, math.inf)
    with pytest.raises(QueueFull):
        free.check(3, 8, math.inf)
    free.check(10, 0, math.inf)
    with pytest.raises(TooManySamples):
        free.check(11, 0, math.inf)
