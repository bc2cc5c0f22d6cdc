"""The ways to compute the statistics of a population. See `collect.py`."""

from typing import Literal

Mode = Literal["layerwise", "onepass"]
