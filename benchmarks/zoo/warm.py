"""Imported once, by the process that the stages are forked from: what each of them would do first.

Importing torch, timm and the exporter takes several seconds, and the first export fills the
exporter's tables. It must run no parallel region: threads, and the locks that they hold, do not
survive a fork.
"""

from __future__ import annotations

import gc
import warnings
from pathlib import Path

import torch
from torch import nn

import benchmarks.zoo.judging
import converter.evaluation.runtime
import converter.pipeline
import converter.sources.onnx_
from benchmarks.zoo import exporters, networks
from converter.sources import InputShape, LoadOptions
from converter.sources.module import from_module

LOADED = (exporters, benchmarks.zoo.judging, converter)


def warm() -> None:
    """Fill the tables of torch and its exporter, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    networks.declare_torchvision_operators()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm  # noqa: F401
        import torchvision  # noqa: F401

        tiny = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        options = LoadOptions(input_shapes=(InputShape((3, 8, 8)),))
        from_module(tiny.eval(), path=Path("tiny"), kind="", options=options)
    torch.set_num_threads(threads)
    gc.collect()
    gc.freeze()  # a collection in a forked process would copy every page


warm()
