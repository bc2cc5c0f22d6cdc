"""What each reason for keeping a batch-norm means, so that a person can check it on the graph.

The codes are those of `converter.folding.refusal`.
"""

from __future__ import annotations

EXPLANATIONS = {
    "training-mode": "It normalises with each batch's own statistics: there is no fixed map.",
    "batch-statistics": "Its mean or variance is computed from the input, also in eval mode.",
    "computed-parameters": "Its gamma or beta is computed at run time.",
    "bad-statistics": "Its statistics are not finite, or its variance is negative.",
    "unsupported-form": "An opset or an attribute under which the node means something else.",
    "shared-value": (
        "Others read the value between it and the linear op as well. Folding would change what "
        "they see; look at the readers of its input."
    ),
    "graph-output": "The value between is a result of the model and must stay what it is.",
    "graph-input": "Nothing stands before it: its input is the model's.",
    "subgraph": "The value crosses the border of an If, Loop or Scan body.",
    "computed-weights": "The weights of the linear op are computed at run time.",
    "overridable-weights": "The weights are inputs of the graph, which a caller may replace.",
    "wrong-axis": "The op's channels lie on another axis than the batch-norm's.",
    "not-linear": (
        "The op between is not linear: f(a*x + b) is not a*f(x) + b. On the other side of the "
        "batch-norm it is the same, or what stands there cannot take it up."
    ),
    "unknown-shape": "The rule needs a size that the graph does not fix.",
    "padding": (
        "Behind it is a convolution with zero padding: at the border the shift b is missing "
        "(0 is padded, not b), so no constant bias can stand for it."
    ),
    "sign": (
        "An op that only positive scales pass (relu, max-pooling), and some channel's is "
        "negative. Here gammas have both signs; trained networks often have positive ones."
    ),
    "not-per-channel": "Past the op in the way the map differs inside a channel.",
    "dearer": "The fold is possible, but the graph would have more nodes or multiply-adds.",
    "overflow": "The folded weights do not fit into their type.",
}


def explain(code: str) -> str:
    return EXPLANATIONS.get(code, "")
