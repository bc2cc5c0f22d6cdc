"""The rows of the image as a sequence: LSTM or GRU with sequence-wise batch-norm.

    h_t = cell(norm(W x_t), h_{t-1})

The norm is on the input-to-hidden projection alone, and its statistics are those of all steps of
all sequences of the batch. Source: Laurent et al. 2016 (arXiv 1510.01378), equations 8 and 9;
Amodei et al. 2015 (arXiv 1512.02595), section 3.2.

The projection of all steps is one matrix product. The recurrent layer behind it is torch's, its
own input-to-hidden matrix the identity, which is not trained.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from converter.architectures.blocks import dense_block, input_norm, named
from converter.architectures.parts import norm_layer
from converter.architectures.style import Style
from converter.architectures.task import Task

GATES = {"lstm": 4, "gru": 3}


def rnn_lstm(style: Style, task: Task, *, hidden: int, dense: int) -> nn.Module:
    """28 steps of 28 pixels through an LSTM; its last state through one hidden dense layer."""
    return _rnn("lstm", style, task, hidden, dense)


def rnn_gru(style: Style, task: Task, *, hidden: int, dense: int) -> nn.Module:
    """The same with a GRU."""
    return _rnn("gru", style, task, hidden, dense)


def _rnn(cell: str, style: Style, task: Task, hidden: int, dense: int) -> nn.Module:
    return named(
        input_norm(style, task),
        {
            "rows": Rows(),  # (N, 28, 28)
            "recurrent": Recurrent(cell, style, task.channels * task.width, hidden),  # (N, hidden)
        },
        dense_block(style, 1, hidden, dense),  # (N, dense)
        {"fc2": nn.Linear(dense, task.classes)},  # (N, 10)
    )


class Rows(nn.Module):
    """(N, C, H, W) -> (N, H, C*W): a step for each row."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return x.transpose(1, 2).flatten(2)


class Recurrent(nn.Module):
    """One recurrent layer; only its last state is given.

    With the norm after the activation, it is on that state.
    """

    def __init__(self, cell: str, style: Style, features: int, hidden: int) -> None:
        super().__init__()
        gates = GATES[cell] * hidden
        norm = norm_layer(style, gates if style.bn_position == "before" else hidden, rank=1)
        before = norm is not None and style.bn_position == "before"
        self.project = nn.Linear(features, gates, bias=not before)
        self.bn = norm if norm is not None and before else nn.Identity()
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        self.cell = kind(gates, hidden, bias=False, batch_first=True)
        weight = self.cell.weight_ih_l0
        assert isinstance(weight, nn.Parameter)
        with torch.no_grad():
            nn.init.eye_(weight)
        weight.requires_grad_(False)
        self.bn_state = norm if norm is not None and not before else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, F) -> (N, hidden)."""
        T = x.shape[1]
        z = self.bn(self.project(x.flatten(0, 1)))  # (N*T, gates)
        outputs, _ = self.cell(z.unflatten(0, (-1, T)))  # (N, T, hidden)
        state: Tensor = self.bn_state(outputs[:, -1])
        return state
