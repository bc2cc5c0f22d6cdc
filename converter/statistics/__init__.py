"""True statistics of batch-norms over a data set, in place of moving averages."""

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
