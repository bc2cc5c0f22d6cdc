"""What an epoch of `cnn` on the full MNIST takes, beside a minimal loop written by hand.

    python -m benchmarks.training_speed --data-dir FOLDER      # a few minutes; Ctrl-C at any time

Both train the same network from the same weights with AdamW on the same batches of 128, without
augmentation, and measure the test images at the end of the epoch. They take turns, so that what
else the machine does hits both; the ratio of each pair is what counts. Ours runs as the command
does: repeatable algorithms, a report after each step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from converter.errors import UserError
from converter.training import Dataset, FitOptions, Split, build, datasets, fit
from converter.training.determinism import deterministic

BATCH = 128
LR = 0.001
GOAL = 1.2


@dataclass(frozen=True)
class Speed:
    """Seconds of each epoch, ours and those of the loop by hand, and the final test accuracies."""

    images: int
    threads: int
    ours: list[float]
    by_hand: list[float]
    our_accuracy: float
    accuracy_by_hand: float

    @property
    def ratios(self) -> list[float]:
        """Ours divided by the neighbour's, pair by pair."""
        return [a / b for a, b in zip(self.ours, self.by_hand, strict=True)]


def by_hand(model: nn.Module, data: Dataset, epochs: int) -> float:
    """Everything that is needed, and nothing else. Returns the test accuracy."""
    x, y = data.train.images, data.train.labels
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    for _ in range(epochs):
        model.train()
        order = torch.randperm(len(x))
        for i in range(0, len(x) - BATCH + 1, BATCH):
            batch = order[i : i + BATCH]
            loss = functional.cross_entropy(model(x[batch].float() / 255), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    right = 0
    with torch.no_grad():
        for i in range(0, len(data.test), 1000):
            images = data.test.images[i : i + 1000].float() / 255
            right += int((model(images).argmax(1) == data.test.labels[i : i + 1000]).sum())
    return right / len(data.test)


def ours(model: nn.Module, data: Dataset, epochs: int) -> float:
    """The same by the library."""
    options = FitOptions(epochs=epochs, batch_size=BATCH, lr=LR, augment=False, schedule="constant")
    return fit(model, data, options).epochs[-1].validation_accuracy


def measure(data: Dataset, rounds: int, threads: int) -> Speed:
    """`rounds` pairs of epochs, after one of each that is not counted."""
    seconds: dict[str, list[float]] = {"ours": [], "by_hand": []}
    accuracy = {"ours": 0.0, "by_hand": 0.0}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for number in range(rounds + 1):
            turns = ["ours", "by_hand"] if number % 2 else ["by_hand", "ours"]
            for turn in turns:
                torch.manual_seed(number)
                model = build("cnn")
                started = time.perf_counter()
                if turn == "ours":
                    with deterministic(number, torch.device("cpu"), threads):
                        accuracy[turn] = ours(model, data, 1)
                else:
                    accuracy[turn] = by_hand(model, data, 1)
                if number:
                    seconds[turn].append(time.perf_counter() - started)
                    print(f"{turn}: {seconds[turn][-1]:.2f} s", file=sys.stderr)
    finally:
        torch.set_num_threads(before)
    return Speed(
        len(data.train), threads, seconds["ours"], seconds["by_hand"],
        accuracy["ours"], accuracy["by_hand"],
    )  # fmt: skip


def report(found: Speed) -> str:
    """A few lines for people."""
    ratios = found.ratios
    middle = statistics.median(ratios)
    return "\n".join(
        [
            f"an epoch of cnn, {found.images} images, {found.threads} threads, {len(ratios)} pairs",
            f"ours     {statistics.median(found.ours):7.2f} s (median), "
            f"test accuracy {found.our_accuracy:.2%}",
            f"by hand  {statistics.median(found.by_hand):7.2f} s (median), "
            f"test accuracy {found.accuracy_by_hand:.2%}",
            f"ratio    {middle:7.3f} (median of the pairs; {min(ratios):.3f} to {max(ratios):.3f})",
            f"goal     {GOAL:7.3f} {'reached' if middle <= GOAL else 'missed'}",
        ]
    )


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--data-dir", type=Path, help="the four files of MNIST; else downloaded")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of epochs (default: 5)")
    parser.add_argument("--threads", type=int, default=2, help="(default: 2)")
    parser.add_argument("--images", type=int, help="only the first so many (default: all)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args(words)
    try:
        data = datasets.load("mnist", args.data_dir)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    if args.images:
        first = Split(data.train.images[: args.images], data.train.labels[: args.images])
        data = Dataset(first, data.test, data.labels, data.description)
    found = measure(data, args.rounds, args.threads)
    print(report(found))
    if args.json:
        content = asdict(found) | {"ratios": found.ratios, "torch": str(torch.__version__)}
        args.json.write_text(json.dumps(content, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
