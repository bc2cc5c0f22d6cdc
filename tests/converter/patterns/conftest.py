"""Small tensors: one thread is faster than a pool of them."""

from __future__ import annotations

from tests.mnist_subset import one_thread

__all__ = ["one_thread"]
