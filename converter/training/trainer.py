"""Train a network and write its checkpoint: everything `train` the command does."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from converter import architectures
from converter.architectures.modules import weights_of
from converter.publishing import curves
from converter.sources import checkpoint
from converter.training import datasets, files, snapshot, steps_csv
from converter.training.augment import can_move
from converter.training.data import Dataset, hold_out
from converter.training.determinism import deterministic
from converter.training.devices import pick_device
from converter.training.evaluate import loss_and_accuracy
from converter.training.loop import fit
from converter.training.options import FitOptions, TrainOptions
from converter.training.progress import Epoch, Progress


@dataclass(frozen=True)
class TrainResult:
    """What came of it.

    Attributes:
        output, bytes: the checkpoint and its size.
        parameters: how many numbers were learned.
        history: a line for every epoch; the last is the checkpoint's, unless it stopped early.
        stopped_early: whether the checkpoint is that of an earlier epoch, the best one.
        test_accuracy: in [0, 1], of the weights that were written.
        test_loss: mean cross-entropy in nats, of the weights that were written.
        device: where it was trained.
        threads: that torch used on the CPU.
        seconds: reading, training and writing together.
        dataset: "MNIST" when the checksums say so.
        augmented: whether the training images were moved.
    """

    output: Path
    bytes: int
    parameters: int
    history: list[Epoch]
    stopped_early: bool
    test_accuracy: float
    test_loss: float
    device: str
    threads: int
    seconds: float
    dataset: str
    augmented: bool

    def to_json(self) -> dict[str, Any]:
        """The same as plain JSON values, for `--json`."""
        return {
            **asdict(self),
            "output": str(self.output),
        }


def unfinished(output: Path) -> Path:
    """Where the state of a training lies until its checkpoint is written."""
    return output.with_name(f"{output.name}.unfinished")


def train(options: TrainOptions, progress: Progress | None = None) -> TrainResult:
    """Get the data, train, and write the checkpoint and its curves. Nothing is written unless all
    went well.

    But for the file `unfinished`: after each epoch it holds what the next one depends on, so that
    a killed training can be resumed, and it is removed at the end.

    On one machine with one version of torch the same options give the same bytes, resumed or
    not. Another kind of processor (a GPU above all) or another version sums in another order: the
    network is then another one, about as good.

    Raises:
        UserError: for options, data or an output that cannot be, and for a loss that is not
            finite.
        KeyboardInterrupt: passed on; the output is as it was before.
    """
    started = time.perf_counter()
    progress = progress or Progress()
    options.check()
    drawn = curves.beside(options.output)
    for path in (options.output, options.csv, drawn):
        if path is not None:
            files.require_writable(path)
    device = pick_device(options.device)
    whole = datasets.load(
        options.dataset, options.data_dir, image_size=options.image_size, progress=progress
    )
    data = hold_out(whole, options.validation, options.seed)
    arguments = architectures.complete(
        options.arch,
        options.network() | {"input_shape": data.task.input_shape, "classes": data.task.classes},
    )
    asked = _asked(options, arguments, device, data)
    kept = unfinished(options.output)
    resume = _resume(options, kept, asked, progress)

    with deterministic(options.seed, device, options.threads):
        module = architectures.build(options.arch, **arguments)
        history = fit(
            module,
            data,
            replace(options, device=str(device)),
            [progress],
            resume=resume,
            save=lambda state: snapshot.write(kept, state.asked(asked)),
        )
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
            state_dict=weights_of(module),
            input_shape=list(data.task.input_shape),
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
            training=options.unusual(),
        )
    )
    if options.csv is not None:
        files.write(options.csv, steps_csv.to_bytes(history))
    files.write(drawn, curves.to_bytes(curves.of(history.curves()), content))
    files.write(options.output, content)
    with contextlib.suppress(OSError):
        kept.unlink(missing_ok=True)
    return TrainResult(
        output=options.output,
        bytes=len(content),
        parameters=sum(p.numel() for p in module.parameters() if p.requires_grad),
        history=history.epochs,
        stopped_early=history.stopped_early,
        test_accuracy=test_accuracy,
        test_loss=test_loss,
        device=str(device),
        threads=options.threads,
        seconds=time.perf_counter() - started,
        dataset=data.description,
        augmented=options.augment and can_move(data.train.images),
    )


def _asked(
    options: TrainOptions, arguments: dict[str, Any], device: torch.device, data: Dataset
) -> dict[str, Any]:
    """Everything that decides about the weights, as plain values."""
    loop = {f.name: getattr(options, f.name) for f in fields(FitOptions) if f.name != "device"}
    return loop | {
        "arch": options.arch,
        "arguments": arguments,
        "data": datasets.digest(data),
        "device": device.type,
        "threads": options.threads,
        "torch": str(torch.__version__),
    }


def _resume(
    options: TrainOptions, kept: Path, asked: dict[str, Any], progress: Progress
) -> snapshot.Snapshot | None:
    if not options.resume:
        if kept.is_file():
            progress.say(f"{kept} is replaced; --resume would have gone on with that training")
        return None
    if not kept.is_file():
        progress.say(f"there is no {kept}, so the training starts at its beginning")
        return None
    found = snapshot.read(kept)
    snapshot.require_same(found, asked)
    progress.say(f"resuming after epoch {found.done}")
    return found
