"""A watcher that has died is told of; one that lives ends with its context."""

from __future__ import annotations

import pytest

from benchmarks.serving.beside import Beside


class Counting(Beside):
    def __init__(self, fail: bool) -> None:
        super().__init__()
        self.ended = False
        self._fail = fail

    def _work(self) -> None:
        if self._fail:
            raise OSError("nothing to watch")
        self._over.wait(60)
        self.ended = True


def test_it_ends_with_the_context() -> None:
    with Counting(fail=False) as work:
        pass
    assert work.ended


def test_what_went_wrong_is_raised() -> None:
    with pytest.raises(OSError, match="nothing to watch"), Counting(fail=True):
        pass


def test_an_error_of_the_context_comes_first() -> None:
    with pytest.raises(KeyError, match="own"), Counting(fail=True):
        raise KeyError("own")
