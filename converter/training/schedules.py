"""The optimizers and the learning rates of the steps: two small tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import torch
from torch import nn

from converter.training.options import Optimizer, Schedule

WARM_UP = 0.2  # of all steps


def warm_up_cosine(step: int, steps: int, peak: float) -> float:
    """Linear from 0 to `peak`, then half a cosine back to 0; taken at the middle of the step."""
    t = (step + 0.5) / steps
    if t < WARM_UP:
        return peak * t / WARM_UP
    return peak * 0.5 * (1 + math.cos(math.pi * (t - WARM_UP) / (1 - WARM_UP)))


def constant(step: int, steps: int, peak: float) -> float:  # noqa: ARG001
    """The same rate for every step."""
    return peak


SCHEDULES: Mapping[Schedule, Callable[[int, int, float], float]] = MappingProxyType(
    {"cosine": warm_up_cosine, "constant": constant}
)

Parameters = Iterable[nn.Parameter]

# All at their own defaults but for what is said: a decay of 0.01 for AdamW.
OPTIMIZERS: Mapping[Optimizer, Callable[[Parameters, float], torch.optim.Optimizer]] = (
    MappingProxyType(
        {
            "adamw": lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01),
            "adam": lambda parameters, lr: torch.optim.Adam(parameters, lr=lr),
            "sgd": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
            "momentum": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
        }
    )
)
