"""What happens to batch-norms when one forgets to freeze them: docs/finetune.md.

    python -m benchmarks.finetune --data-dir FOLDER [--seeds 3]

A network learns the digits 0 to 4 from their images in batches of 128. It is then taught the
digits 5 to 9 from few images in small batches, with the statistics of its batch-norms frozen and
without, all of the network or only its head; and recalibrated afterwards on the few images. Each
is measured on test images of 5 to 9, and on what is left of the old task: the old head on the
changed network, on test images of 0 to 4.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from benchmarks import document
from converter import architectures
from converter.architectures import described
from converter.architectures.modules import weights_of
from converter.finetuning.finetune import Base, Transfer, Transferred, finetune, to_checkpoint
from converter.finetuning.subset import first, only_classes
from converter.pipeline import fold
from converter.sources import checkpoint, load
from converter.statistics import recalibrate
from converter.training import mnist
from converter.training.data import Dataset, Split, pixels
from converter.training.determinism import deterministic
from converter.training.evaluate import accuracy
from converter.training.loop import fit
from converter.training.options import FitOptions

OLD, NEW = ["0", "1", "2", "3", "4"], ["5", "6", "7", "8", "9"]
ARCHITECTURE = "cnn"
ARGUMENTS = {"width": 16, "hidden": 64, "classes": len(OLD)}
SAMPLES = 400  # images of the new task
TESTED = 2000  # test images of each task, drawn at random once
BATCHES = (2, 4, 16)
RATE = 0.0005  # the learning rate, times the batch size
THREADS = 1
HERE = Path(__file__).parents[1]
COMMAND = "python -m benchmarks.finetune"
WAYS = {
    "frozen statistics": Transfer(freeze_bn="stats"),
    "not frozen": Transfer(freeze_bn="none"),
    "only the head learns, frozen": Transfer(freeze_bn="stats", only_head=True),
    "only the head learns, not frozen": Transfer(freeze_bn="none", only_head=True),
}


@dataclass(frozen=True)
class Line:
    """One transfer.

    Attributes:
        way, batch_size, seed: which.
        accuracy: on the test images of 5 to 9.
        recalibrated: the same after recalibration on the training images of the new task.
        old: accuracy of the old head on the network as it is now, on the test images of 0 to 4.
        max_shift, low_ratio, high_ratio: of the statistics before the head, old against new.
        folded: batch-norms before and after `fold`, and whether it was proven; None where that
            was not tried, as one network of each way says it.
    """

    way: str
    batch_size: int
    seed: int
    accuracy: float
    recalibrated: float
    old: float
    max_shift: float
    low_ratio: float
    high_ratio: float
    folded: tuple[int, int, bool] | None


def train_base(data: Dataset, seed: int, epochs: int) -> nn.Module:
    with deterministic(seed, torch.device("cpu"), THREADS):
        module = architectures.build(ARCHITECTURE, **ARGUMENTS)
        fit(module, data, FitOptions(epochs=epochs, seed=seed, augment=False))
    return module.eval()


def transfer(
    base: nn.Module, old: Dataset, new: Dataset, way: str, size: int, seed: int, epochs: int
) -> Line:
    how = Transfer(
        freeze_bn=WAYS[way].freeze_bn,
        only_head=WAYS[way].only_head,
        hidden=0,  # a batch-norm of its own would have its own trouble with small batches
        epochs=epochs,
        batch_size=size,
        lr=RATE * size,
        seed=seed,
        augment=False,
        device="cpu",
        threads=THREADS,
    )
    few = first(new, SAMPLES, seed)
    start = Base(ARCHITECTURE, ARGUMENTS, (), weights_of(base))
    result = finetune(start, few, how)
    worst = max(result.moved, key=lambda row: row.max_shift)
    return Line(
        way,
        size,
        seed,
        result.test_accuracy,
        _recalibrated(few, result),
        _old_task(base, old, result),
        worst.max_shift,
        min(row.low_ratio for row in result.moved),
        max(row.high_ratio for row in result.moved),
        _folded(start, few, how, result) if (size, seed) == (BATCHES[0], 0) else None,
    )


def _recalibrated(few: Dataset, result: Transferred) -> float:
    """On a copy of the network; the images are those that it learned from."""
    module = described.build(ARCHITECTURE, ARGUMENTS, [result.head.to_plain()])
    module.load_state_dict(result.module.state_dict())
    module.eval()
    recalibrate(module, lambda: (pixels(x) for x in few.train.images.split(200)))
    return accuracy(module, few.test.images, few.test.labels)


def _old_task(base: nn.Module, old: Dataset, result: Transferred) -> float:
    """The new network up to its head, and the head of the old one."""
    module = architectures.build(ARCHITECTURE, **ARGUMENTS)
    state = dict(base.state_dict())
    head = f"{result.head.at}."
    new = result.module.state_dict()
    state |= {name: tensor for name, tensor in new.items() if not name.startswith(head)}
    module.load_state_dict(state)
    return accuracy(module.eval(), old.test.images, old.test.labels)


def _folded(base: Base, data: Dataset, how: Transfer, result: Transferred) -> tuple[int, int, bool]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        path.write_bytes(checkpoint.to_bytes(to_checkpoint(base, data, how, result)))
        found = fold(load(path))
    return found.before.batchnorms, found.after.batchnorms, found.proof.passed


def made(
    lines: list[Line], base: list[float], seeds: int, epochs: tuple[int, int], samples: int
) -> str:
    rows = []
    for size in sorted({line.batch_size for line in lines}):
        for way in WAYS:
            some = [x for x in lines if (x.way, x.batch_size) == (way, size)]
            if some:
                rows.append(
                    [size, way, _spread([x.accuracy for x in some]),
                     _spread([x.recalibrated for x in some]), _spread([x.old for x in some]),
                     f"{max(x.max_shift for x in some):.2f}",
                     f"{min(x.low_ratio for x in some):.2g} to "
                     f"{max(x.high_ratio for x in some):.2g}"]
                )  # fmt: skip
    counts = {line.folded for line in lines if line.folded}
    folded = "; ".join(
        f"{before} batch-norms became {after}, {'proven' if proven else 'NOT PROVEN'}"
        for before, after, proven in sorted(counts)
    )
    return "\n\n".join(
        [
            f"Measured with `{COMMAND}` on MNIST: `{ARCHITECTURE}` of width "
            f"{ARGUMENTS['width']}, {epochs[0]} epochs on {samples:,} images of "
            f"the digits 0 to 4 (test accuracy {_spread(base)}), then {epochs[1]} epochs on "
            f"{SAMPLES} images of 5 to 9, with a learning rate of {RATE:g} times the batch. "
            f"The new head is a single dense layer. Mean and standard deviation of {seeds} seeds, "
            f"on {TESTED:,} test images of each task.",
            document.table(
                ["batch", "way", "5 to 9", "recalibrated after", "0 to 4, old head",
                 "largest shift", "variance, old / new"],
                rows, "r rrrrr",
            ),
            f"A network of each way was folded: {folded}.",
        ]
    )  # fmt: skip


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.2%}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values) * 100:.2f}"


def _smaller_test(data: Dataset) -> Dataset:
    order = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))[:TESTED]
    return replace(data, test=Split(data.test.images[order], data.test.labels[order]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--base-epochs", type=int, default=2)
    parser.add_argument("--base-samples", type=int, default=8000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("--docs", type=Path, default=HERE / "docs" / "finetune.md")
    args = parser.parse_args()
    whole = mnist.load(args.data_dir)
    old, new = (_smaller_test(only_classes(whole, names)) for names in (OLD, NEW))
    started = time.perf_counter()
    lines, knows = [], []
    for seed in range(args.seeds):
        base = train_base(first(old, args.base_samples, seed), seed, args.base_epochs)
        knows.append(accuracy(base, old.test.images, old.test.labels))
        spent = time.perf_counter() - started
        print(f"seed {seed}: base {knows[-1]:.2%}, {spent:.0f} s", flush=True)
        for size in BATCHES:
            for way in WAYS:
                line = transfer(base, old, new, way, size, seed, args.epochs)
                lines.append(line)
                print(json.dumps(asdict(line)), flush=True)
        text = made(lines, knows, seed + 1, (args.base_epochs, args.epochs), args.base_samples)
        document.write(args.docs, COMMAND, text, "# Transfer learning with batch-norms")
    if args.json:
        args.json.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")


if __name__ == "__main__":
    main()
