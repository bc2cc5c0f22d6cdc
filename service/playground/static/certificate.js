// What is known of the version for every input: the sentence, and under it what it means.

import { byId, element, show, table } from "./dom.js";

const CERTIFIED = [
  "In exact arithmetic, for every input, the graph that is served computes what the original computes with each of its weights moved by no more than the roundings below, and each value that enters a non-linear op or is an output by no more than that, relative to the magnitudes that were added up.",
  "This says nothing of how a processor rounds on the way, of numbers too large for their type, or of whether the original was right.",
];
const NOT_CERTIFIED = [
  "This does not mean that the two differ. The checker met something that it cannot follow, or a number that it did not expect; the errors that were measured are further down, under the proof.",
];
const HOW = "It was found when the version was published, by a checker that shares no code with the folding. This server shows it and does not repeat it; it does compare the hashes of the files.";

function rows({ certified, figures, batchnorms, where }) {
  const found = [];
  if (batchnorms) found.push(["batch-norms folded", batchnorms.folded], ["batch-norms that stay", batchnorms.kept]);
  if (certified && figures) {
    found.push(["weights compared, each use once", figures.weights], ["largest move, in roundings of its type", figures.largest_move], ["allowed", figures.roundings]);
    const sizes = figures.sizes.map((tried) => Object.entries(tried).map(([axis, size]) => `${axis} = ${size}`).join(", ")).filter(Boolean);
    if (sizes.length) found.push(["sizes tried for open axes", sizes.join("; ")]);
  }
  if (!certified && where) {
    found.push(["at the value", where.value], ["computed by", where.op]);
    const known = (value) => value !== null && value !== undefined;
    if (known(where.channel)) found.push(["in channel", where.channel]);
    // With all digits of a float32: the two may be near to each other.
    for (const name of ["expected", "found"]) if (known(where[name])) found.push([name, String(Number(where[name].toPrecision(9)))]);
  }
  return found;
}

// sha256 by what it is of; empty where the version does not say.
function hashes({ original, folded, checker }) {
  const of = (name, graph) => graph ? [[`${name} graph`, graph.graph], ...Object.entries(graph.files)] : [];
  return [...of("original", original), ...of("folded", folded), ...(checker ? [["the checker", checker]] : [])];
}

export function showCertificate({ certificate }) {
  const place = byId("certificate");
  place.hidden = !certificate;
  place.open = false;
  if (!certificate) return place.replaceChildren();
  const sums = hashes(certificate);
  // The verdict says what it rests on instead.
  const said = [certificate.sentence, ...(certificate.certified ? [] : [certificate.verdict])];
  place.replaceChildren(
    element("summary", { class: certificate.certified ? "certified" : null }, said.join(" ")),
    ...(certificate.certified ? CERTIFIED : NOT_CERTIFIED).map((text) => element("p", {}, text)),
    table("What was checked", ["", "value"], rows(certificate).map(([name, value]) => [name, typeof value === "number" ? show(value) : value])),
    ...(sums.length ? [element("div", { class: "sums" }, table("SHA-256 of what it is about", ["", "SHA-256"], sums))] : []),
    element("p", { class: "hint" }, HOW),
  );
}
