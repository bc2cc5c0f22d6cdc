"""Batch Renormalization: batch-norm that trains on what it will compute when it is served.

S. Ioffe, "Batch Renormalization: Towards Reducing Minibatch Dependence in Batch-Normalized
Models", 2017, arXiv 1702.03275, section 3 and Algorithm 1. For each channel, over the m values
that the batch has of it:

    μ_B = 1/m Σ x_i        σ_B = sqrt(ε + 1/m Σ (x_i − μ_B)²)
    r = stop_gradient(clip(σ_B / σ, 1/r_max, r_max))
    d = stop_gradient(clip((μ_B − μ) / σ, −d_max, d_max))
    x̂_i = (x_i − μ_B) / σ_B · r + d        y_i = γ x̂_i + β
    μ := μ + α (μ_B − μ)        σ := σ + α (σ_B − σ)

Where nothing is clipped, x̂ = (x − μ) / σ: the very numbers that inference computes (the paper's
section 3 starts from this identity). With r_max = 1 and d_max = 0 it is plain batch-norm.
Inference is y = γ (x − μ) / σ + β, the affine map of a batch-norm, so that it folds like one.

The layers are batch-norms of torch's with another `forward`: same parameters, same buffers, so
that the weights of either load into the other. σ is kept as `running_var` = σ² − ε.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Schedule:
    """How far r and d may be from plain batch-norm, by the number of training steps.

    r_max is 1 and d_max 0 until `start`; then they rise on straight lines, to `r_max` at the step
    `r_end`, and to `d_max` at `d_end`. The defaults are those of the paper's section 4.

    Raises:
        ValueError: r_max below 1, d_max below 0, or a line that ends before it starts.
    """

    r_max: float = 3.0
    d_max: float = 5.0
    start: int = 5_000
    r_end: int = 40_000
    d_end: int = 25_000

    def __post_init__(self) -> None:
        if not (self.r_max >= 1 and self.d_max >= 0):
            raise ValueError(f"r_max {self.r_max} must be 1 or more, d_max {self.d_max} 0 or more")
        if not 0 <= self.start <= min(self.r_end, self.d_end):
            raise ValueError(f"the limits must rise after step {self.start}, which is 0 or later")

    @classmethod
    def within(cls, steps: int) -> Schedule:
        """The paper's lines, pressed together so that the last of them ends at `steps`."""
        last = max(cls.r_end, cls.d_end)
        start, r_end, d_end = (
            round(step * steps / last) for step in (cls.start, cls.r_end, cls.d_end)
        )
        return cls(start=start, r_end=r_end, d_end=d_end)

    def at(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """(r_max, d_max) at a step, a whole number on any device; no copy to the CPU is made."""
        r = _ramp(step, self.start, self.r_end)
        d = _ramp(step, self.start, self.d_end)
        return 1 + (self.r_max - 1) * r, self.d_max * d


def _ramp(step: Tensor, start: int, end: int) -> Tensor:
    """0 before `start`, 1 from `end` on, straight between."""
    if end == start:
        return (step >= end).double()
    return ((step - start).double() / (end - start)).clamp(0, 1)


class _BatchRenorm(nn.modules.batchnorm._BatchNorm):
    """What the two layers share; they differ in the shapes that they take.

    Args:
        num_features: C, the size of axis 1.
        eps: ε above, inside the square root.
        momentum: α above, the weight of the newest batch (the paper's 0.01); None for the plain
            average over all batches so far.
        affine: learn γ and β, (C,) each.
        schedule: the limits of r and d. The step is the buffer `num_batches_tracked`, so that a
            training that resumes from a state_dict goes on where it was.

    Raises:
        ValueError: the input has another number of axes, or, in training, one value a channel.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.01,
        affine: bool = True,
        *,
        schedule: Schedule = Schedule(),
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, True, device=device, dtype=dtype)
        self.schedule = schedule

    def limits(self) -> tuple[float, float]:
        """(r_max, d_max) of the step that comes next."""
        r_max, d_max = self.schedule.at(self.num_batches_tracked)
        return float(r_max), float(d_max)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  torch's name
        """(N, C, ...) -> the same shape and dtype."""
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        if not self.training:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        r, d = self._corrections(input)
        # γ (z r + d) + β = (γ r) z + (γ d + β), where z is what batch-norm computes.
        scale = r if self.weight is None else self.weight * r
        shift = d if self.weight is None else self.weight * d
        if self.bias is not None:
            shift = shift + self.bias
        return functional.batch_norm(input, None, None, scale, shift, training=True, eps=self.eps)

    @torch.no_grad()
    def _corrections(self, input: Tensor) -> tuple[Tensor, Tensor]:  # noqa: A002
        """r and d of this batch, (C,) each; then the moving averages take the batch in."""
        x = input.detach().to(self.running_mean.dtype)
        axes = [axis for axis in range(x.ndim) if axis != 1]
        variance, batch_mean = torch.var_mean(x, axes, correction=0)
        batch_sigma = (variance + self.eps).sqrt()
        sigma = (self.running_var + self.eps).sqrt()
        r_max, d_max = self.schedule.at(self.num_batches_tracked)
        r = (batch_sigma / sigma).clamp(1 / r_max, r_max).to(sigma.dtype)
        d = ((batch_mean - self.running_mean) / sigma).clamp(-d_max, d_max).to(sigma.dtype)

        self.num_batches_tracked.add_(1)
        alpha = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.add_(alpha * (batch_mean - self.running_mean))
        sigma = sigma + alpha * (batch_sigma - sigma)
        self.running_var.copy_((sigma * sigma - self.eps).clamp(min=0))
        return r, d

    def extra_repr(self) -> str:
        told = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{told}, schedule={self.schedule}"


class BatchRenorm1d(_BatchRenorm, nn.BatchNorm1d):
    """Batch renormalization of (N, C) or (N, C, L), over N and L."""


class BatchRenorm2d(_BatchRenorm, nn.BatchNorm2d):
    """Batch renormalization of (N, C, H, W), over N, H and W."""
