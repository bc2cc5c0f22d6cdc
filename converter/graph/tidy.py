"""What a written model says about itself: where it came from, and nothing of the machine.

torch's exporter leaves stack traces with file paths in every node; a published file must not
carry them, and the same model must give the same bytes wherever it was folded.
"""

from __future__ import annotations

import onnx_ir as ir

from converter.folding import Plan

_NOISE = ("pkg.torch.", "pkg.onnxscript.", "pkg.onnx_ir.")


def tidy(model: ir.Model, plan: Plan) -> None:
    """Remove the exporters' notes from a folded model and add ours, in place."""
    for graph in (model.graph, *model.graph.subgraphs()):
        _clean(graph.metadata_props)
        for node in graph:
            _clean(node.metadata_props)
            node.doc_string = None
        outputs = (value for node in graph for value in node.outputs)
        for value in (*graph.inputs, *graph.initializers.values(), *outputs):
            _clean(value.metadata_props)
            value.doc_string = None
        graph.doc_string = None
    _clean(model.metadata_props)
    model.producer_name, model.producer_version = "foldserve", None
    model.metadata_props["foldserve.batchnorms_folded"] = str(len(plan.folded))
    model.metadata_props["foldserve.batchnorms_kept"] = str(len(plan.kept))


def _clean(properties: dict[str, str]) -> None:
    for key in [key for key in properties if key.startswith(_NOISE)]:
        del properties[key]
