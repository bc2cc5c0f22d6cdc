"""The networks that can be trained, each in a file of its own, and the table of their names."""

from typing import TYPE_CHECKING

from converter.system.lazy import names_of

if TYPE_CHECKING:
    from converter.architectures.parts import norm_layer
    from converter.architectures.rows import ARCHITECTURES, Architecture, Size
    from converter.architectures.style import Style
    from converter.architectures.table import CLASSES, build, complete, lookup
    from converter.architectures.task import Task

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
        "converter.architectures.parts": ("norm_layer",),
        "converter.architectures.rows": ("ARCHITECTURES", "Architecture", "Size"),
        "converter.architectures.style": ("Style",),
        "converter.architectures.table": ("CLASSES", "build", "complete", "lookup"),
        "converter.architectures.task": ("Task",),
    },
)
