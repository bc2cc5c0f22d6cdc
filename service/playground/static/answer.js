// The answer as people read it: labelled bars, or the numbers; and where the time went.

import { byId, element, percent, show, table } from "./dom.js";

const ALL_UP_TO = 12; // labels; of more, only the likeliest are shown
const FIRST = 24; // numbers of an output without labels
const ROWS = 4; // of a classifier's answer

const ACTIVATIONS = {
  softmax(row) {
    const top = Math.max(...row), powers = row.map((v) => Math.exp(v - top));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map((v) => v / sum);
  },
  exp: (row) => row.map(Math.exp),
  none: (row) => row,
};

export function showAnswer(model, { answer, stages, total }) {
  hideProblem();
  const how = model.classification;
  const rows = how ? answer.outputs[how.output] : [];
  const usable = rows.length > 0 && rows.flat().every((v) => typeof v === "number");
  byId("outputs").replaceChildren(...(usable ? rowsOf(how, rows) : Object.entries(answer.outputs).map(tensor)));
  for (const warning of answer.warnings ?? []) byId("outputs").append(element("p", { class: "problem" }, warning));
  const best = (answer.predictions ?? []).slice(0, ROWS).map((row) => `${row.label}, ${percent(row.probability)}`);
  const verdict = best.length > 1 ? best.map((text, i) => `row ${i + 1}: ${text}`).join("; ") : best[0];
  byId("verdict").textContent = verdict ?? `Version ${answer.model.version} answered.`;
  showTimes(stages, total);
}

// Bars for each row; of many rows only the first are shown.
function rowsOf(how, rows) {
  if (rows.length === 1) return [bars(how, rows[0])];
  const shown = rows.slice(0, ROWS).flatMap((row, i) => [element("h3", {}, `Row ${i + 1} of ${rows.length.toLocaleString("en")}`), bars(how, row)]);
  return rows.length > ROWS ? [...shown, element("p", { class: "hint" }, `… ${(rows.length - ROWS).toLocaleString("en")} more rows`)] : shown;
}

function bars(how, row) {
  const chances = ACTIVATIONS[how.activation](row).map((p, i) => ({ p, label: how.labels[i], i }));
  const best = chances.reduce((a, b) => (b.p > a.p ? b : a));
  const shown = chances.length <= ALL_UP_TO ? chances : [...chances].sort((a, b) => b.p - a.p).slice(0, ALL_UP_TO);
  return element("ul", { class: "bars", "aria-label": "Probabilities" }, ...shown.map((chance) => {
    const bar = element("span");
    bar.style.width = `${100 * Math.max(0, Math.min(1, chance.p))}%`;
    return element("li", { class: chance === best ? "best" : null },
      element("span", {}, chance.label), element("span", { class: "track", "aria-hidden": "true" }, bar),
      element("span", { class: "number" }, percent(chance.p)));
  }));
}

function shapeOf(value) {
  return Array.isArray(value) ? [value.length, ...(value.length ? shapeOf(value[0]) : [])] : [];
}

function tensor([name, value]) {
  const flat = [value].flat(Infinity);
  const more = flat.length > FIRST ? ` … ${(flat.length - FIRST).toLocaleString("en")} more` : "";
  return element("div", {}, element("h3", {}, `${name} (${shapeOf(value).join(" x ") || "a number"})`),
    element("p", { class: "values" }, lines(value, flat.slice(0, FIRST).map((v) => (typeof v === "number" ? show(v) : String(v)))) + more));
}

// Two axes are a row a line; of others the numbers simply follow each other.
function lines(value, texts) {
  const wide = shapeOf(value).length === 2 ? value[0].length : texts.length;
  const made = [];
  for (let i = 0; i < texts.length; i += wide) made.push(texts.slice(i, i + wide).join("  "));
  return made.join("\n");
}

function showTimes(stages, total) {
  const inside = stages.reduce((sum, [, ms]) => sum + ms, 0);
  const rows = [...stages, ["on the way", Math.max(0, total - inside)]];
  byId("times").replaceChildren(table("Where the time went", ["", "milliseconds"],
    rows.map(([name, ms]) => [name.replace("_", " "), Number(ms.toFixed(3))])));
  byId("times").hidden = false;
}

export function showProblem(message, hint = "") {
  byId("problem").replaceChildren(element("strong", {}, message), ...(hint ? [element("br"), hint] : []));
  byId("problem").hidden = false;
  byId("verdict").textContent = "No answer.";
  clear();
}

export function showNothing() {
  hideProblem();
  byId("verdict").textContent = "Nothing was asked yet.";
  clear();
}

function clear() {
  byId("outputs").replaceChildren();
  byId("times").hidden = true;
}

function hideProblem() {
  byId("problem").hidden = true;
}
