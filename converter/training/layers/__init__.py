"""Normalization layers that torch does not have."""

from converter.training.layers.renorm import BatchRenorm1d, BatchRenorm2d, BatchRenorm3d, Schedule

__all__ = ["BatchRenorm1d", "BatchRenorm2d", "BatchRenorm3d", "Schedule"]
