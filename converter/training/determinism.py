"""The same options, the same bytes: one seed, repeatable algorithms, a fixed number of threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_SETTINGS: Any = torch.utils.deterministic


@contextmanager
def deterministic(seed: int, device: torch.device, threads: int) -> Iterator[None]:
    """Seed torch, ask it for repeatable algorithms, and put everything back afterwards.

    Args:
        seed: of torch's global generators: initial weights, dropout.
        device: "cuda" also fixes the workspace of cuBLAS.
        threads: of torch on the CPU; the order in which a step sums depends on it.
    """
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.get_num_threads(),
        _SETTINGS.fill_uninitialized_memory,
    )
    if device.type == "cuda":
        # cuBLAS sums in a fixed order only with a workspace of fixed size.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        # Every empty tensor would be filled first, for the sake of code that reads it unwritten.
        _SETTINGS.fill_uninitialized_memory = False
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])
            torch.set_num_threads(before[2])
            _SETTINGS.fill_uninitialized_memory = before[3]
