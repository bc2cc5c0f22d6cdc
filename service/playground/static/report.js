// The fold report of the version that is served, from what the converter wrote into model.json.

import { byId, element, show, table } from "./dom.js";

const NUMBERS = { batchnorms: "batch-norms", nodes: "nodes", parameters: "parameters", bytes: "bytes of the file" };

export function showReport(model) {
  const { batchnorms, proof, before, after, source, kind } = model.provenance ?? {};
  const parts = [];
  if (!batchnorms) {
    byId("report").replaceChildren(element("p", {}, "This version was not written by Foldserve's converter: there is nothing to tell."));
    return;
  }
  const kept = Object.entries(batchnorms.kept ?? {});
  const all = batchnorms.folded + kept.length;
  parts.push(element("p", {}, `${batchnorms.folded} of ${all} batch-norms of ${source} (${kind}) were folded.`));
  if (before && after) {
    parts.push(table("Before and after", ["", "before", "after"],
      Object.entries(NUMBERS).filter(([name]) => name in before).map(([name, text]) => [text, before[name], after[name]])));
  }
  if (proof) {
    parts.push(table("The proof: errors against float64, the largest of all outputs and inputs", ["graph", "error"], [
      ["as it was trained", proof.max_error_original], ["folded, as it is served", proof.max_error_folded],
    ]));
    if (proof.batch_invariance_difference !== null && proof.batch_invariance_difference !== undefined) {
      parts.push(element("p", { class: "hint" }, `A sample alone and in a batch differ by ${show(proof.batch_invariance_difference)}.`));
    }
  }
  const each = batchnorms.each ?? kept.map(([name, where]) => ({ name, where, folded: false }));
  if (each.length) parts.push(element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Each batch-norm" }, table("Each batch-norm", ["name", "", "where it went, or why it stays"], each.map((bn) => [bn.name, bn.folded ? "folded" : "kept", bn.where]))));
  const metrics = Object.entries(model.metrics ?? {});
  if (metrics.length) parts.push(table("What the training measured", ["", "value"], metrics.map(([name, value]) => [name.replaceAll("_", " "), value])));
  byId("report").replaceChildren(...parts);
}
