"""The networks that can be trained, each in a file of its own, and the table of their names."""

from converter.training.architectures.style import Style, norm_layer
from converter.training.architectures.table import (
    ARCHITECTURES,
    CLASSES,
    Architecture,
    Size,
    build,
    complete,
    lookup,
)
from converter.training.architectures.task import Task

__all__ = [
    "ARCHITECTURES",
    "CLASSES",
    "Architecture",
    "Size",
    "Style",
    "Task",
    "build",
    "complete",
    "lookup",
    "norm_layer",
]
