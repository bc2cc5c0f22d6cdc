"""What a request wishes for itself: how long it would wait at most, and how urgent it is.

    timeout     microseconds from the end of its body to its answer; 0 for no wish
    priority    1 is served first, 2 is what a request without one has, larger ones come later

Source: Triton, extension_schedule_policy.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from service.errors import InvalidBody
from service.exchange import USUAL_PRIORITY

_LARGEST = 2**63


class Wish(NamedTuple):
    """`timeout_s`: seconds."""

    timeout_s: float = math.inf
    priority: int = USUAL_PRIORITY


NONE = Wish()


def of(parameters: Mapping[str, Any]) -> Wish:
    """The wish in the parameters of a request.

    Raises:
        InvalidBody: one of them is no whole number from 0 on.
    """
    if "timeout" not in parameters and "priority" not in parameters:
        return NONE
    timeout_us = _number(parameters, "timeout", "microseconds, 0 for no limit of its own")
    priority = _number(parameters, "priority", "1 is the most urgent, 0 none in particular")
    return Wish(timeout_us / 1e6 if timeout_us else math.inf, priority or USUAL_PRIORITY)


def _number(parameters: Mapping[str, Any], name: str, meaning: str) -> int:
    value = parameters.get(name)
    if value is None:  # as clients send what was not asked for
        return 0
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise InvalidBody(
            f"The parameter {name!r} of the request is not a whole number from 0 on.",
            hint=f"Send it as a number: {meaning}.",
        )
    return value
