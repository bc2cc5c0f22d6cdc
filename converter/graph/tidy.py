"""What a written model says about itself: where it came from, and nothing about the machine."""

from __future__ import annotations

import onnx_ir as ir

_NOISE = ("pkg.torch.", "pkg.onnxscript.", "pkg.onnx_ir.")
_PRODUCER = "foldserve"
_FOLDED, _KEPT = "foldserve.batchnorms_folded", "foldserve.batchnorms_kept"


class TidyPass(ir.passes.InPlacePass):
    """Remove the exporters' notes from a folded model and add ours.

    torch's exporter leaves stack traces with file paths in every node; a published file must not
    carry them, and the same model must give the same bytes wherever it was folded. What is
    computed does not change, so it is legal for every model:

    1. Metadata of torch, onnxscript and onnx_ir is removed from the model, its graphs, nodes and
       values; that of others stays.
    2. Documentation strings are removed.
    3. The producer is this project, with how many batch-norms were folded and kept.

    Args:
        folded, kept: these two numbers.
    """

    def __init__(self, *, folded: int, kept: int) -> None:
        self._notes = {_FOLDED: str(folded), _KEPT: str(kept)}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for graph in (model.graph, *model.graph.subgraphs()):
            results = (value for node in graph for value in node.outputs)
            for part in (graph, *graph, *graph.inputs, *graph.initializers.values(), *results):
                modified |= _clean(part.metadata_props) | (part.doc_string is not None)
                part.doc_string = None
        modified |= _clean(model.metadata_props)
        says = (model.producer_name, model.producer_version, dict(model.metadata_props))
        model.producer_name, model.producer_version = _PRODUCER, None
        model.metadata_props.update(self._notes)
        now = (model.producer_name, model.producer_version, dict(model.metadata_props))
        return ir.passes.PassResult(model, modified or says != now)


def _clean(properties: dict[str, str]) -> bool:
    """Remove our exporters' entries; returns whether there were any."""
    noise = [key for key in properties if key.startswith(_NOISE)]
    for key in noise:
        del properties[key]
    return bool(noise)
