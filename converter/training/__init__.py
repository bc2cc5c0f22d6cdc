"""Train a small network with batch normalization on MNIST, to have something real to fold."""

from converter.training.checkpoint import Checkpoint
from converter.training.loop import Epoch
from converter.training.progress import Progress
from converter.training.trainer import TrainOptions, TrainResult, train

__all__ = ["Checkpoint", "Epoch", "Progress", "TrainOptions", "TrainResult", "train"]
