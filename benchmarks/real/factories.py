"""Networks of libraries that take an object where a command line has words: a configuration, a
list of layers, columns of a table.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn


def transformers(model: str, config: str, **values: Any) -> nn.Module:
    """A model of transformers from a configuration of its own, small; nothing is downloaded."""
    import transformers as library

    made = getattr(library, config)(**values)
    built: nn.Module = getattr(library, model)(made)
    return built


def nnunet(kind: str, dimensions: int) -> nn.Module:
    """A U-Net of dynamic_network_architectures with batch-norms, as nnU-Net plans one."""
    unets = importlib.import_module("dynamic_network_architectures.architectures.unet")
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
    norm = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dimensions]
    blocks = "n_conv_per_stage" if kind == "PlainConvUNet" else "n_blocks_per_stage"
    arguments = {
        "input_channels": 1, "n_stages": 3, "features_per_stage": [8, 16, 32], "conv_op": conv,
        "kernel_sizes": 3, "strides": [1, 2, 2], blocks: [2, 2, 2], "num_classes": 3,
        "n_conv_per_stage_decoder": [1, 1], "conv_bias": False, "norm_op": norm,
        "norm_op_kwargs": {}, "nonlin": nn.LeakyReLU, "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip
    built: nn.Module = getattr(unets, kind)(**arguments)
    return built


class DenseGraph(nn.Module):
    """Layers of torch_geometric for graphs of up to n nodes, with batch-norms between.

    x (N, n, features) and adjacency (N, n, n) to (N, classes).
    """

    def __init__(self, layer: str, features: int = 12, hidden: int = 16, classes: int = 3) -> None:
        super().__init__()
        from torch_geometric.nn import dense

        build = getattr(dense, layer)
        if layer == "DenseGINConv":
            inner = nn.Sequential(
                nn.Linear(features, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
                nn.Linear(hidden, hidden),
            )  # fmt: skip
            self.first: nn.Module = build(_Rows(inner))
        else:
            self.first = build(features, hidden)
        if layer == "DenseGINConv":
            self.second: nn.Module = build(_Rows(nn.Linear(hidden, hidden)))
        else:
            self.second = build(hidden, hidden)
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in range(2))
        self.out = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        for layer, norm in zip((self.first, self.second), self.norms, strict=True):
            x = layer(x, adjacency)
            x = torch.relu(norm(x.mT).mT)
        return self.out(x.mean(dim=1))


class _Rows(nn.Module):
    """A network of rows on (N, n, features)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def reset_parameters(self) -> None:
        """What the library calls."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


class TabNet(nn.Module):
    """pytorch-tabnet's network; its second output, a loss, is for training."""

    def __init__(self) -> None:
        super().__init__()
        from pytorch_tabnet.tab_network import TabNet as Network

        self.network = Network(
            10, 3, n_d=8, n_a=8, cat_idxs=[], cat_dims=[], cat_emb_dim=[],
            group_attention_matrix=torch.eye(10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.network(x)[0]
        return found


def doctr(part: str, model: str, **arguments: Any) -> nn.Module:
    """A network of docTR, as it is exported."""
    module = importlib.import_module(f"doctr.models.{part}")
    built: nn.Module = getattr(module, model)(pretrained=False, **arguments)
    return built


def crdnn() -> nn.Module:
    """SpeechBrain's CRDNN: (N, frames, 40) features to (N, frames', 128)."""
    from speechbrain.lobes.models.CRDNN import CRDNN

    built: nn.Module = CRDNN(
        input_size=40, cnn_blocks=2, cnn_channels=(8, 16), rnn_layers=1, rnn_neurons=32,
        dnn_blocks=2, dnn_neurons=32, time_pooling=True,
    )  # fmt: skip
    return built
