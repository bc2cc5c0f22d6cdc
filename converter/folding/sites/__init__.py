"""Where affines occur in a graph: each with its map, or with the reason why it has none."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from converter.folding.sites.batchnorm import batchnorm_site, note_untracked
from converter.folding.sites.chain import chain_from
from converter.folding.sites.site import Kind, Site
from converter.folding.view import View
from converter.graph.naming import unique

__all__ = ["Kind", "Site", "find_sites", "note_untracked"]


def find_sites(model: ir.Model) -> list[Site]:
    """All batch-norms and constant scales of the graph and its subgraphs, in their order."""
    view, taken, used = View(), set[str](), set[ir.Node]()
    opset = model.graph.opset_imports.get("", 0)
    found: list[Site] = []
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        if node in used or node.domain != "":
            continue
        if node.op_type == "BatchNormalization":
            site: Site | None = batchnorm_site(node, view, opset)
        else:
            site = chain_from(node, view)
        if site is not None:
            used.update(site.nodes)
            found.append(site)
    return [replace(site, name=unique(site.name, taken)) for site in found]
