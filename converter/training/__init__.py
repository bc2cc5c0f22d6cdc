"""Train a small network with batch normalization on MNIST, to have something real to fold."""

from converter.training.architectures import Style, build
from converter.training.checkpoint import Checkpoint
from converter.training.data import Dataset, Split
from converter.training.fit_options import FitOptions
from converter.training.loop import Diverged, fit
from converter.training.progress import Epoch, History, Observer, Progress, Run, Step
from converter.training.trainer import TrainOptions, TrainResult, train

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
