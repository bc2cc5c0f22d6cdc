// How the training went: the curves of model.json as SVG, and the same numbers as a table.

import { byId, drawn, element, show, table } from "./dom.js";

const WIDTH = 380, HEIGHT = 210, LEFT = 52, RIGHT = 12, TOP = 10, BOTTOM = 28;
const TICKS = 5;

// What belongs into one picture; a curve of another name gets one of its own.
const GROUPS = [
  ["Loss", ["train_loss", "validation_loss"]],
  ["Accuracy", ["train_accuracy", "validation_accuracy"]],
];

const readable = (name) => name.replaceAll("_", " ");

function grouped(curves) {
  const known = new Set(GROUPS.flatMap(([, names]) => names));
  return [
    ...GROUPS.map(([title, names]) => [title, curves.filter((c) => names.includes(c.name))]),
    ...curves.filter((c) => !known.has(c.name)).map((c) => [readable(c.name).replace(/^./, (a) => a.toUpperCase()), [c]]),
  ].filter(([, found]) => found.length);
}

// Round numbers from low to high: 1, 2 or 5 times a power of ten apart.
export function ticks(low, high, most = TICKS) {
  if (!(high > low)) return [low];
  const raw = (high - low) / most, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= raw);
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

// The scale of an axis: a number's place, and where its ticks are. Losses fall by orders of
// magnitude, so what is positive and spans more than two of them gets a logarithmic axis.
function axis(values, begin, end, { mayBeLog = false } = {}) {
  const low = Math.min(...values), high = Math.max(...values);
  const log = mayBeLog && low > 0 && high / low > 100;
  const to = log ? Math.log10 : (v) => v;
  const from = to(low), span = to(high) - from || 1;
  const at = (v) => begin + ((to(v) - from) / span) * (end - begin);
  const marks = log ? ticks(from, to(high)).filter(Number.isInteger).map((p) => 10 ** p) : ticks(low, high);
  return { at, marks: marks.length ? marks : [low, high], log };
}

function plot(title, curves) {
  const x = axis([0, ...curves.flatMap((c) => c.steps)], LEFT, WIDTH - RIGHT - 12);
  const y = axis(curves.flatMap((c) => c.values), HEIGHT - BOTTOM, TOP, { mayBeLog: title === "Loss" });
  const grid = [
    ...y.marks.flatMap((v) => [
      drawn("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y.at(v), y2: y.at(v) }),
      drawn("text", { x: LEFT - 6, y: y.at(v) + 4, "text-anchor": "end" }, show(v)),
    ]),
    ...x.marks.map((v) => drawn("text", { x: x.at(v), y: HEIGHT - 8, "text-anchor": "middle" }, show(v))),
  ];
  const lines = curves.map((c, i) => {
    const points = c.steps.map((step, k) => [x.at(step), y.at(c.values[k])]);
    if (points.length === 1) return drawn("circle", { class: `curve curve-${i}`, cx: points[0][0], cy: points[0][1], r: 3 });
    return drawn("path", { class: `curve curve-${i}`, d: `M${points.map((p) => p.map((v) => v.toFixed(1)).join(" ")).join("L")}` });
  });
  const told = curves.map((c) => `${readable(c.name)} from ${show(c.values[0])} at step ${show(c.steps[0])} to ${show(c.values.at(-1))} at step ${show(c.steps.at(-1))}`);
  return drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title} by step: ${told.join("; ")}.` }, ...grid, ...lines);
}

function numbersOf(title, curves) {
  const rows = new Map();
  curves.forEach((c, i) => c.steps.forEach((step, k) => {
    if (!rows.has(step)) rows.set(step, Array(curves.length).fill("-"));
    rows.get(step)[i] = c.values[k];
  }));
  const sorted = [...rows].sort(([a], [b]) => a - b).map(([step, values]) => [show(step), ...values]);
  return element("details", {}, element("summary", {}, `${title} as a table`),
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${title} by step` },
      table(`${title} by step`, ["step", ...curves.map((c) => readable(c.name))], sorted)));
}

function figure([title, curves]) {
  const legend = curves.map((c, i) => element("span", { class: "legend" },
    drawn("svg", { viewBox: "0 0 24 8", "aria-hidden": "true" }, drawn("path", { class: `curve curve-${i}`, d: "M0 4L24 4" })),
    ` ${readable(c.name)}: ${show(c.values.at(-1))} at the end`));
  return element("figure", { class: "curves" },
    element("figcaption", {}, element("strong", {}, title), " by step", element("br"), ...legend), plot(title, curves), numbersOf(title, curves));
}

export function showCurves(model) {
  const groups = grouped(model.curves ?? []);
  byId("training").hidden = groups.length === 0;
  byId("curves").replaceChildren(...groups.map(figure));
}
