"""Exact statistics of batch-norms over a data set, instead of moving averages."""

from typing import TYPE_CHECKING

from converter.system.lazy import names_of

if TYPE_CHECKING:
    from converter.statistics.drift import Drift
    from converter.statistics.moments import InstanceMoments, Moments
    from converter.statistics.recalibration import Recalibration, Score, recalibrate, score

__all__ = [
    "Drift",
    "InstanceMoments",
    "Moments",
    "Recalibration",
    "Score",
    "recalibrate",
    "score",
]

__getattr__ = names_of(
    __name__,
    {
        "converter.statistics.drift": ("Drift",),
        "converter.statistics.moments": ("InstanceMoments", "Moments"),
        "converter.statistics.recalibration": (
            "Recalibration", "Score", "recalibrate", "score",
        ),
    },
)  # fmt: skip
