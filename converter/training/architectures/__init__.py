"""The networks that can be trained, each in a file of its own, and the table of their names."""

from typing import TYPE_CHECKING

from converter.system.lazy import names_of

if TYPE_CHECKING:
    from converter.training.architectures.parts import norm_layer
    from converter.training.architectures.rows import ARCHITECTURES, Architecture, Size
    from converter.training.architectures.style import Style
    from converter.training.architectures.table import CLASSES, build, complete, lookup
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

__getattr__ = names_of(
    __name__,
    {
        "converter.training.architectures.parts": ("norm_layer",),
        "converter.training.architectures.rows": ("ARCHITECTURES", "Architecture", "Size"),
        "converter.training.architectures.style": ("Style",),
        "converter.training.architectures.table": ("CLASSES", "build", "complete", "lookup"),
        "converter.training.architectures.task": ("Task",),
    },
)
