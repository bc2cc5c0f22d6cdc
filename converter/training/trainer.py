"""Train a network on MNIST and write its checkpoint: everything `train` the command does."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from converter.errors import UserError
from converter.training import architectures, checkpoint, download, files, mnist
from converter.training.loop import Epoch, fit
from converter.training.progress import Progress

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
        if self.epochs < 1:
            raise UserError(f"--epochs is {self.epochs}", "give at least 1")
        if self.batch_size < 2:
            raise UserError(
                f"--batch-size is {self.batch_size}",
                "give at least 2: one sample has no variance for a batch-norm to learn",
            )
        if not 0 < self.lr < float("inf"):
            raise UserError(f"--lr is {self.lr}", "give a positive number, 0.01 is the default")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"--seed is {self.seed}", "give an integer from 0 to 2^63 - 1")
        if not 1 <= self.threads <= 1024:
            raise UserError(f"--threads is {self.threads}", "give an integer from 1 to 1024")


@dataclass(frozen=True)
class TrainResult:
    """What came of it.

    Attributes:
        output, bytes: the checkpoint and its size.
        parameters: how many numbers were learned.
        history: a line for every epoch; the last is the checkpoint's.
        device: where it was trained.
        threads: that torch used on the CPU.
        seconds: reading, training and writing together.
        dataset: "MNIST" when the checksums say so.
    """

    output: Path
    bytes: int
    parameters: int
    history: list[Epoch]
    device: str
    threads: int
    seconds: float
    dataset: str

    @property
    def test_accuracy(self) -> float:
        """In [0, 1], of the weights that were written."""
        return self.history[-1].test_accuracy

    @property
    def test_loss(self) -> float:
        """Mean cross-entropy in nats, of the weights that were written."""
        return self.history[-1].test_loss

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values, for `--json`."""
        return {
            **asdict(self),
            "output": str(self.output),
            "test_accuracy": self.test_accuracy,
            "test_loss": self.test_loss,
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

    with _deterministic(options.seed, device, options.threads):
        module = architectures.build(options.arch, **arguments)
        history = fit(
            module,
            data,
            epochs=options.epochs,
            batch_size=options.batch_size,
            lr=options.lr,
            seed=options.seed,
            device=device,
            progress=progress,
        )

    last = history[-1]
    subject = "Handwritten digits" if data.original else "Images of 28 by 28 pixels"
    content = checkpoint.to_bytes(
        checkpoint.Checkpoint(
            architecture=options.arch,
            arguments=arguments,
            state_dict=checkpoint.weights_of(module),
            input_shape=list(architectures.lookup(options.arch).input_shape),
            labels=mnist.LABELS,
            preprocessing=mnist.PREPROCESSING.model_dump(),
            metrics={
                "test_accuracy": last.test_accuracy,
                "test_loss": last.test_loss,
                "train_loss": last.train_loss,
            },
            description=f"{subject}, {architectures.lookup(options.arch).description}.",
            seed=options.seed,
            epochs=options.epochs,
            batch_size=options.batch_size,
            lr=options.lr,
            threads=options.threads,
            statistics=checkpoint.statistics_of(module),
            torch=str(torch.__version__),
            dataset=data.description,
            attribution=mnist.ATTRIBUTION if data.original else "",
        )
    )
    files.write(options.output, content)
    return TrainResult(
        output=options.output,
        bytes=len(content),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        history=history,
        device=str(device),
        threads=options.threads,
        seconds=time.perf_counter() - started,
        dataset=data.description,
    )


def pick_device(name: str) -> torch.device:
    """The device of this name; "auto" is CUDA where torch finds one. Raises UserError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"unknown device {name!r}", "give auto, cpu, cuda or cuda:N") from error
    if device.type not in {"cpu", "cuda"}:
        raise UserError(f"cannot train on {name!r}", "give auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "torch finds no CUDA device",
            f"torch {torch.__version__} was built "
            + (f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"),
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"there is no {name}, torch finds {torch.cuda.device_count()}")
    return device


@contextmanager
def _deterministic(seed: int, device: torch.device, threads: int) -> Iterator[None]:
    """Seed torch, ask it for repeatable algorithms, and put everything back afterwards."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_num_threads(),
    )
    if device.type == "cuda":
        # cuBLAS sums in a fixed order only with a workspace of fixed size.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # All that is drawn at random is drawn on the CPU: the weights here, the rest in `fit`.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            torch.set_num_threads(before[2])
