"""A refusal is a value: a code for programs, a sentence for people, a hint where there is one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import onnx_ir as ir

from converter.folding.passed import Passed

Code = Literal[
    "training-mode",  # the batch-norm normalises with the statistics of the batch
    "batch-statistics",  # mean or variance is computed from the input
    "computed-parameters",  # gamma or beta is computed at run time
    "bad-statistics",  # not finite, or a negative variance
    "unsupported-form",  # an opset or attribute with other semantics
    "shared-value",  # other nodes read the value between
    "graph-output",  # the value between is a result of the model
    "graph-input",  # nothing stands before the batch-norm
    "subgraph",  # the value crosses the border of an If, Loop or Scan body
    "computed-weights",  # the weights of the linear op are not constants
    "overridable-weights",  # the weights are graph inputs that a caller may replace
    "wrong-axis",  # the op's channels lie on another axis
    "not-linear",  # no rule: the map does not commute with the op
    "unknown-shape",  # the shape that the rule needs is not known
    "padding",  # zero padding, which would have to be shifted too
    "sign",  # a negative scale, where only positive ones commute
    "not-per-channel",  # after the move the map would differ within a channel
    "dearer",  # the fold would make the graph more expensive
    "overflow",  # the folded weights do not fit into their type
    "skipped",  # the user asked to keep it
]


@dataclass(frozen=True)
class Refusal:
    """Why a batch-norm stays. `sentence` names the op that stands in the way.

    `behind` says what stands in the way forward, where both directions were tried. `steps` are the
    ops that the map could pass before this one; `node` is the op in the way, if it is one op.
    """

    code: Code
    sentence: str
    hint: str = ""
    behind: Refusal | None = None
    steps: tuple[Passed, ...] = ()
    node: ir.Node | None = field(default=None, repr=False, compare=False)

    def at(self, node: ir.Node) -> Refusal:
        """The same refusal with `node` as the op in the way, unless one is known already."""
        return self if self.node is not None else replace(self, node=node)

    def past(self, *steps: Passed) -> Refusal:
        """The same refusal, met after `steps`."""
        return replace(self, steps=steps + self.steps) if steps else self

    def __str__(self) -> str:
        also = "" if self.behind is None else f"Behind it, {self.behind}"
        return " ".join(part for part in (self.sentence, self.hint, also) if part)
