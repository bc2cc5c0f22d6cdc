"""Imported once, by the process that the stages are forked from: what each would do first."""

from __future__ import annotations

import gc

import torch

import benchmarks.real.compare
import converter.commands.fold
import converter.evaluation.runtime
from benchmarks.real import networks
from patterns.networks import declare_torchvision_operators

# torchvision comes without its compiled operators, which nothing here runs.
declare_torchvision_operators()
LOADED = (torch, networks, benchmarks.real.compare, converter)
gc.collect()
gc.freeze()  # a collection in a forked process would copy every page
