"""Train a network on MNIST and write its checkpoint: everything `train` the command does."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from converter.errors import UserError
from converter.training import architectures, checkpoint, download, files, mnist
from converter.training.determinism import deterministic
from converter.training.devices import pick_device
from converter.training.evaluate import loss_and_accuracy
from converter.training.fit_options import FitOptions
from converter.training.loop import fit
from converter.training.progress import Epoch, Progress

DEFAULT_OUTPUT = Path("models/mnist/checkpoint.pt")


@dataclass(frozen=True)
class TrainOptions:
    """What may be chosen. The defaults are those of the checkpoint that ships in `models/`.

    Attributes:
        arch, arch_args: see `architectures.ARCHITECTURES`.
        data_dir: where the four MNIST files are; None downloads them once, to the cache.
        output: the checkpoint to write; an existing one is replaced when the training is done.
        epochs, batch_size, lr: passes, images a step, and the peak of the learning rate.
        seed: of the initial weights, the order of the images and their augmentation.
        device: "cpu", "cuda", "cuda:1", or "auto" for CUDA where there is one.
        threads: of torch on the CPU. The order in which a step sums depends on it, and so do
            the trained weights; a fixed number makes them the same on more cores.
    """

    arch: str = "mnist_cnn"
    arch_args: dict[str, Any] = field(default_factory=dict)
    data_dir: Path | None = None
    output: Path = DEFAULT_OUTPUT
    epochs: int = 12
    batch_size: int = 128
    lr: float = 0.01
    seed: int = 0
    device: str = "auto"
    threads: int = 2

    def check(self) -> None:
        """Raises UserError for a value that no training can have."""
        architectures.complete(self.arch, self.arch_args)
        self.fit(torch.device("cpu")).check()
        if not 1 <= self.threads <= 1024:
            raise UserError(f"--threads is {self.threads}", "give an integer from 1 to 1024")

    def fit(self, device: torch.device) -> FitOptions:
        """What the loop needs of it."""
        return FitOptions(self.epochs, self.batch_size, self.lr, self.seed, device)


@dataclass(frozen=True)
class TrainResult:
    """What came of it.

    Attributes:
        output, bytes: the checkpoint and its size.
        parameters: how many numbers were learned.
        history: a line for every epoch; the last is the checkpoint's.
        test_accuracy: in [0, 1], of the weights that were written.
        test_loss: mean cross-entropy in nats, of the weights that were written.
        device: where it was trained.
        threads: that torch used on the CPU.
        seconds: reading, training and writing together.
        dataset: "MNIST" when the checksums say so.
    """

    output: Path
    bytes: int
    parameters: int
    history: list[Epoch]
    test_accuracy: float
    test_loss: float
    device: str
    threads: int
    seconds: float
    dataset: str

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values, for `--json`."""
        return {
            **asdict(self),
            "output": str(self.output),
        }


def train(options: TrainOptions, progress: Progress | None = None) -> TrainResult:
    """Get the data, train, and write the checkpoint. Nothing is written unless all went well.

    On one machine with one version of torch the same options give the same bytes. Another kind
    of processor (a GPU above all) or another version sums in another order: the network is then
    another one, about as good.

    Raises:
        UserError: for options, data or an output that cannot be, and for a loss that is not
            finite.
        KeyboardInterrupt: passed on; the output is as it was before.
    """
    started = time.perf_counter()
    progress = progress or Progress()
    options.check()
    files.require_writable(options.output)
    device = pick_device(options.device)
    arguments = architectures.complete(options.arch, options.arch_args)
    folder = options.data_dir or download.fetch(progress=progress)
    data = mnist.load(folder)

    with deterministic(options.seed, device, options.threads):
        module = architectures.build(options.arch, **arguments)
        history = fit(module, data, options.fit(device), [progress])
        test_loss, test_accuracy = loss_and_accuracy(module, data.test.images, data.test.labels)

    metrics = {
        "test_accuracy": test_accuracy,
        "test_loss": test_loss,
        "train_loss": history.epochs[-1].train_loss,
    }
    content = checkpoint.to_bytes(
        checkpoint.Checkpoint(
            architecture=options.arch,
            arguments=arguments,
            state_dict=checkpoint.weights_of(module),
            input_shape=list(architectures.lookup(options.arch).input_shape),
            labels=data.labels,
            preprocessing={} if data.preprocessing is None else data.preprocessing.model_dump(),
            metrics=metrics,
            description=f"{data.subject}, {architectures.lookup(options.arch).description}.",
            seed=options.seed,
            epochs=options.epochs,
            batch_size=options.batch_size,
            lr=options.lr,
            threads=options.threads,
            statistics=checkpoint.statistics_of(module),
            torch=str(torch.__version__),
            dataset=data.description,
            attribution=data.attribution,
        )
    )
    files.write(options.output, content)
    return TrainResult(
        output=options.output,
        bytes=len(content),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        history=history.epochs,
        test_accuracy=test_accuracy,
        test_loss=test_loss,
        device=str(device),
        threads=options.threads,
        seconds=time.perf_counter() - started,
        dataset=data.description,
    )
