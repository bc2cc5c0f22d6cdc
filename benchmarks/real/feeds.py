"""Inputs such as the models are made for, where normal numbers and zeros and ones are not.

Each takes numpy's generator and returns arrays by input names.
"""

from __future__ import annotations

import numpy as np

Feeds = dict[str, np.ndarray]


def _sound(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """A chord with some noise, at most 1."""
    *rows, length = shape
    time = np.arange(length) / 16000.0
    pitch = rng.uniform(90.0, 400.0, (*rows, 1))
    tones = sum(np.sin(2 * np.pi * pitch * n * time) / n for n in (1, 2, 3))
    noise = 0.05 * rng.standard_normal(shape)
    return (0.3 * tones + noise).astype(np.float32)


def silero_state(rng: np.random.Generator) -> Feeds:
    return {
        "input": _sound(rng, 2, 576),
        "state": 0.1 * rng.standard_normal((2, 2, 128)).astype(np.float32),
        "sr": np.array(16000, np.int64),
    }


def silero_half(rng: np.random.Generator) -> Feeds:
    feeds = silero_state(rng)
    del feeds["sr"]
    return feeds


def magika_bytes(rng: np.random.Generator) -> Feeds:
    """The bytes of files, 256 where there is none."""
    found = rng.integers(0, 256, (3, 2048))
    found[1, 700:] = 256
    found[2] = rng.integers(32, 127, 2048)
    return {"bytes": found.astype(np.int32)}


def swift_audio(rng: np.random.Generator) -> Feeds:
    return {
        "audio": _sound(rng, 1, 8000),
        "fmin": np.array(46.875, np.float32),
        "fmax": np.array(2093.75, np.float32),
    }


def iclabel(rng: np.random.Generator) -> Feeds:
    """The model averages four views of each sample: the batch is a multiple of four."""
    shapes = {"topo": (4, 1, 32, 32), "psds": (4, 1, 1, 100), "autocorr": (4, 1, 1, 100)}
    return {k: rng.standard_normal(v).astype(np.float32) for k, v in shapes.items()}


def iclabel_torch(rng: np.random.Generator) -> Feeds:
    """The same by the names that its forward() has."""
    feeds = iclabel(rng)
    return {"images": feeds.pop("topo"), **feeds}


def waveforms(rng: np.random.Generator) -> Feeds:
    """Two of different lengths."""
    return {
        "waveforms": _sound(rng, 2, 8000),
        "waveforms_lens": np.array([8000, 6000], np.int64),
    }


def tashkeel(rng: np.random.Generator) -> Feeds:
    return {
        "char_inputs": rng.integers(1, 40, (2, 24)),
        "diac_inputs": rng.integers(0, 2, (2, 24)),
        "input_lengths": np.array([24, 24], np.int64),
    }


def nakdimon(rng: np.random.Generator) -> Feeds:
    return {"input_1": rng.integers(1, 30, (2, 40)).astype(np.float32)}


def tokens(rng: np.random.Generator) -> Feeds:
    return {
        "token_ids": rng.integers(1, 1000, (2, 12)),
        "length": np.array([12, 12], np.int64),
    }


def page(rng: np.random.Generator) -> Feeds:
    """Two pages with lines of dark strokes, normalised as ImageNet's pictures are."""
    found = np.ones((2, 96, 96))
    for sheet in found:
        for line in range(12, 84, 24):
            for place in range(8, 84, 5):
                tall = int(rng.integers(4, 11))
                sheet[line : line + tall, place : place + int(rng.integers(1, 4))] = 0.1
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pictures = (found[:, None] - mean[:, None, None]) / std[:, None, None]
    return {"x": pictures.astype(np.float32)}
