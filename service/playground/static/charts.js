// Small live charts from GET /metrics: the differences of its counters between two looks.

import { Problem, ask } from "./api.js";
import { byId, drawn, element, show } from "./dom.js";

const EVERY_MS = 2000;
const POINTS = 60;

// "name{a="b"} 1" lines -> [name, labels text, number]
export function parse(text) {
  return [...text.matchAll(/^([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)$/gm)].map(([, name, labels, value]) => [name, labels ?? "", Number(value)]);
}

const sum = (page, name) => page.filter(([n]) => n === name).reduce((total, [, , v]) => total + v, 0);

// The q-quantile of what a histogram counted between two looks, by linear interpolation in its
// bucket, as Prometheus does it.
export function quantile(q, before, after, name) {
  const counts = new Map();
  const add = (page, sign) => page.filter(([n]) => n === `${name}_bucket`).forEach(([, labels, v]) => {
    const le = Number(/le="([^"]+)"/.exec(labels)[1].replace("+Inf", "Infinity"));
    counts.set(le, (counts.get(le) ?? 0) + sign * v);
  });
  add(after, 1);
  add(before, -1);
  const edges = [...counts].sort(([a], [b]) => a - b);
  const total = edges.at(-1)?.[1] ?? 0;
  if (total <= 0) return null;
  let low = 0, below = 0;
  for (const [edge, cumulative] of edges) {
    if (cumulative >= q * total) return edge === Infinity ? low : low + ((edge - low) * (q * total - below)) / (cumulative - below);
    [low, below] = [edge, cumulative];
  }
  return low;
}

const per = (top, bottom) => (a, b) => {
  const n = sum(b, bottom) - sum(a, bottom);
  return n > 0 ? (sum(b, top) - sum(a, top)) / n : null;
};

const CHARTS = [
  ["requests a second", (a, b, s) => (sum(b, "foldserve_requests_total") - sum(a, "foldserve_requests_total")) / s],
  ["99 % answered within, ms", (a, b) => { const v = quantile(0.99, a, b, "foldserve_request_seconds"); return v === null ? null : 1000 * v; }],
  ["rows in a batch, mean", per("foldserve_batch_rows_sum", "foldserve_batch_rows_count")],
];

function chart(title) {
  const path = drawn("path");
  const svg = drawn("svg", { viewBox: `0 0 ${POINTS - 1} 100`, preserveAspectRatio: "none", "aria-hidden": "true" }, path);
  const now = element("span", { class: "tick" });
  const values = [];
  return {
    figure: element("figure", {}, svg, element("figcaption", {}, `${title}: `, now)),
    add(value) {
      values.push(value);
      if (values.length > POINTS) values.shift();
      const top = Math.max(...values.filter((v) => v !== null), 1e-9);
      const begin = POINTS - values.length;
      let down = false;
      path.setAttribute("d", values.map((v, i) => {
        if (v === null) { down = false; return ""; }
        const part = `${down ? "L" : "M"}${begin + i} ${98 - (94 * v) / top}`;
        down = true;
        return part;
      }).join(""));
      now.textContent = value === null ? "-" : show(value);
    },
  };
}

export function setUpCharts() {
  const charts = CHARTS.map(([title, measure]) => ({ ...chart(title), measure }));
  byId("charts").append(...charts.map((c) => c.figure));
  let before = null, timer = null;
  async function look() {
    try {
      const page = parse(await (await ask("metrics")).text());
      const at = performance.now();
      if (before) for (const c of charts) c.add(c.measure(before.page, page, (at - before.at) / 1000));
      before = { page, at };
      byId("live-problem").hidden = true;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      before = null;
      byId("live-problem").textContent = error.code === "not_found" ? "This server keeps its metrics to itself (--metrics off)." : error.message;
      byId("live-problem").hidden = false;
    }
  }
  function follow() {
    const wanted = byId("live").open && !document.hidden;
    if (wanted && timer === null) { look(); timer = setInterval(look, EVERY_MS); }
    if (!wanted && timer !== null) { clearInterval(timer); timer = null; before = null; }
  }
  byId("live").addEventListener("toggle", follow);
  document.addEventListener("visibilitychange", follow);
}
