"""Train a small network with batch normalization on MNIST, to have something real to fold."""

from typing import TYPE_CHECKING

from converter.system.lazy import names_of

if TYPE_CHECKING:
    from converter.architectures.style import Style
    from converter.architectures.table import build
    from converter.sources.checkpoint import Checkpoint
    from converter.training.data import Dataset, Split
    from converter.training.loop import Diverged, fit
    from converter.training.options import FitOptions, TrainOptions
    from converter.training.progress import Epoch, History, Observer, Progress, Run, Step
    from converter.training.trainer import TrainResult, train

__all__ = [
    "Checkpoint",
    "Dataset",
    "Diverged",
    "Epoch",
    "FitOptions",
    "History",
    "Observer",
    "Progress",
    "Run",
    "Split",
    "Step",
    "Style",
    "TrainOptions",
    "TrainResult",
    "build",
    "fit",
    "train",
]

__getattr__ = names_of(
    __name__,
    {
        "converter.architectures.style": ("Style",),
        "converter.architectures.table": ("build",),
        "converter.sources.checkpoint": ("Checkpoint",),
        "converter.training.data": ("Dataset", "Split"),
        "converter.training.loop": ("Diverged", "fit"),
        "converter.training.options": ("FitOptions", "TrainOptions"),
        "converter.training.progress": (
            "Epoch", "History", "Observer", "Progress", "Run", "Step",
        ),
        "converter.training.trainer": ("TrainResult", "train"),
    },
)  # fmt: skip
