"""A data set of fewer classes: MNIST's 5 to 9 are a new task for a network trained on 0 to 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from converter.errors import UserError
from converter.training.data import Dataset, Split


def only_classes(data: Dataset, names: Sequence[str]) -> Dataset:
    """Keep the samples of these classes, which are renumbered in the order given.

    Raises:
        UserError: a name is unknown or given twice, there are fewer than two names, or a split has
            no sample of them.
    """
    for name in names:
        if name not in data.labels:
            raise UserError(
                f"{data.description} has no class {name!r}",
                "its classes: " + ", ".join(data.labels[:20]),
            )
    if len(set(names)) != len(names) or len(names) < 2:
        raise UserError(f"--classes {','.join(names)}", "give two or more different classes")
    old = torch.tensor([data.labels.index(name) for name in names])

    def keep(split: Split) -> Split:
        hits = split.labels.unsqueeze(1) == old  # (N, classes)
        chosen = hits.any(1)
        if not chosen.any():
            raise UserError(f"{data.description} has no samples of {', '.join(names)} to test on")
        return Split(split.images[chosen], hits[chosen].int().argmax(1))

    return replace(
        data,
        train=keep(data.train),
        test=keep(data.test),
        validation=None if data.validation is None else keep(data.validation),
        labels=list(names),
        description=f"{data.description}, classes {', '.join(names)}",
    )


def first(data: Dataset, count: int | None, seed: int) -> Dataset:
    """Keep `count` training samples, drawn at random by `seed`. Raises UserError."""
    if count is None:
        return data
    if not 2 <= count <= len(data.train):
        raise UserError(
            f"--samples is {count}", f"give 2 to {len(data.train)}, the training samples there are"
        )
    return replace(data, train=data.train.draw(count, seed))
