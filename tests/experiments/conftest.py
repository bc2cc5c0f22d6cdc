"""The committed subset of MNIST."""

from __future__ import annotations

from tests.mnist_subset import data, one_thread, subset

__all__ = ["data", "one_thread", "subset"]
