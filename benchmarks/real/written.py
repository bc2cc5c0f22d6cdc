"""Architectures of trained files, written anew where the package's own does more than the network
does: reads its weights itself, wants a list for an input, or imports what is of no use here.

Each has the names of the weights in the file, and computes what the package's does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class VoiceEncoder(nn.Module):
    """resemblyzer's: mel spectrograms (N, frames, 40) to embeddings (N, 256) of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)
        # Of the loss that it was trained with; in the file, not in the embedding.
        self.similarity_weight = nn.Parameter(torch.tensor([10.0]))
        self.similarity_bias = nn.Parameter(torch.tensor([-5.0]))

    def forward(self, mels: torch.Tensor) -> torch.Tensor:
        _, (hidden, _) = self.lstm(mels)
        raw = functional.relu(self.linear(hidden[-1]))
        return raw / torch.linalg.vector_norm(raw, dim=1, keepdim=True)


class Pesto(nn.Module):
    """The network of pesto-pitch behind its transform: (N, 1, 251) to pitch activations.

    The encoder is the package's class; the confidence of a frame is told beside it.
    """

    def __init__(self) -> None:
        super().__init__()
        from pesto.model import ConfidenceClassifier, Resnet1d

        self.encoder = Resnet1d(
            n_chan_layers=[40, 30, 30, 10, 3],
            n_prefilt_layers=3,
            prefilt_kernel_size=39,
            residual=True,
            n_bins_in=219,
            output_dim=384,
        )
        self.confidence = ConfidenceClassifier()
        self.register_buffer("shift", torch.zeros(()))

    def forward(self, decibels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        energy = torch.exp(decibels * 0.2302585)[:, 0]  # ln(10) / 10
        return self.encoder(decibels[..., 16:-16]), self.confidence(energy)


class Attacut(nn.Module):
    """attacut's network on characters, with (`syllables`) or without those of syllables.

    One input, (N, 64) characters or (N, 2, 64) characters and syllables, and no list; logits
    (N, 64), which the package flattens.
    """

    def __init__(self, characters: int, syllables: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        char, syllable, filters, hidden = sizes
        self.syllables = syllables
        if syllables:
            self.ch_embeddings = nn.Embedding(characters, char, padding_idx=0)
            self.sy_embeddings = nn.Embedding(syllables, syllable, padding_idx=0)
        else:
            self.embeddings = nn.Embedding(characters, char, padding_idx=0)
        width = char + syllable
        for number, (size, dilation) in enumerate(((3, 1), (5, 3), (9, 2)), 1):
            pad = size // 2 * dilation
            block = nn.Module()
            block.conv = nn.Conv1d(width, filters, size, dilation=dilation, padding=pad)
            block.bn = nn.BatchNorm1d(filters) if syllables else nn.Identity()
            setattr(self, f"conv{number}", block)
        self.linear1, self.linear2 = nn.Linear(filters, hidden), nn.Linear(hidden, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.syllables:
            parts = (self.ch_embeddings(tokens[:, 0]), self.sy_embeddings(tokens[:, 1]))
            embedded = torch.cat(parts, dim=2).mT
        else:
            embedded = self.embeddings(tokens).mT
        blocks: list[Any] = [self.conv1, self.conv2, self.conv3]
        found = torch.stack([block.bn(block.conv(embedded)) for block in blocks])
        hidden = functional.relu(self.linear1(found.amax(dim=0).mT))
        return self.linear2(hidden)[..., 0]
