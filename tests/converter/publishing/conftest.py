from __future__ import annotations

import pytest

from converter.pipeline import FoldResult
from tests.converter.published import result


@pytest.fixture(scope="module")
def proven() -> FoldResult:
    return result()


@pytest.fixture(scope="module")
def another() -> FoldResult:
    return result(seed=1)
