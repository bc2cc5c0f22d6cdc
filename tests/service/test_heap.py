"""What is freed goes back to the system."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from service.models.heap import TrimWhenIdle, give_back


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_free_memory_is_given_back():
    # Blocks too small to be mapped by themselves, and one that keeps the heap from shrinking.
    # Written to: pages of zeros that nobody has touched take no memory.
    blocks = [bytes([n % 255 + 1]) * 100_000 for n in range(1000)]
    keeper = bytes(100_000)
    held = resident_bytes()
    blocks.clear()
    give_back()
    assert resident_bytes() < held - 50_000_000
    assert keeper


def test_what_a_crowd_took_is_given_back_once_it_has_gone():
    calls: list[int] = []
    trim = TrimWhenIdle(lambda: calls.append(1))
    much, little = 100 * 1024**2, 1024**2
    assert trim.second(much, 3) is None  # it is there
    assert trim.second(0, 1) is None  # one is left
    thread = trim.second(0, 0)
    assert thread is not None
    thread.join(60)
    assert calls == [1]
    assert [trim.second(0, 0) for _ in range(4)] == [None] * 4
    thread = trim.second(0, 0)  # what others have freed meanwhile
    assert thread is not None
    thread.join(60)
    assert [trim.second(0, 0) for _ in range(10)] == [None] * 10
    assert calls.pop() == 1
    thread = trim.second(0, 0, much)  # it came and went within the second
    assert thread is not None
    thread.join(60)
    assert calls == [1, 1]
    assert trim.second(little, 0) is None
