// A pad to draw a digit on, with a pointer or with the keyboard.

import { element } from "./dom.js";
import { PLAIN, digit, nested, normalized } from "./pixels.js";

const SIDE = 280;
const STROKE = 22;
const STEP = 8;

// Models whose one input holds 28 x 28 numbers of one channel.
export function drawable(model) {
  const [input, ...more] = model.inputs;
  const how = model.preprocessing;
  if (more.length || !/float/.test(input.dtype) || (how && how.channels !== "L")) return false;
  const sizes = input.shape.slice(1);
  return ["1,28,28", "28,28,1", "28,28", "784"].includes(String(sizes));
}

export function drawing(model, changed) {
  const pad = element("canvas", {
    class: "pad", width: SIDE, height: SIDE, tabindex: "0", role: "application",
    "aria-label": "Drawing pad. Arrow keys move the pen, holding Shift draws, Delete clears.",
  });
  const seen = element("canvas", { class: "small", width: 28, height: 28, role: "img", "aria-label": "What the model sees" });
  const context = pad.getContext("2d", { willReadFrequently: true });
  context.lineWidth = STROKE;
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = "#fff";
  let pen = null, key = { x: SIDE / 2, y: SIDE / 2 };

  function line(from, to) {
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x, to.y);
    context.stroke();
  }
  const at = (event) => {
    const box = pad.getBoundingClientRect();
    return { x: ((event.clientX - box.left) * SIDE) / box.width, y: ((event.clientY - box.top) * SIDE) / box.height };
  };
  pad.addEventListener("pointerdown", (event) => {
    pad.setPointerCapture(event.pointerId);
    pen = at(event);
    line(pen, pen);
    tell();
  });
  pad.addEventListener("pointermove", (event) => {
    if (!pen) return;
    for (const part of event.getCoalescedEvents?.() ?? [event]) {
      const next = at(part);
      line(pen, next);
      pen = next;
    }
    tell();
  });
  for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => { pen = null; });
  const moves = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };
  pad.addEventListener("keydown", (event) => {
    if (event.key === "Delete" || event.key === "Backspace") clear();
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    const next = { x: Math.min(SIDE, Math.max(0, key.x + move[0])), y: Math.min(SIDE, Math.max(0, key.y + move[1])) };
    if (event.shiftKey) { line(key, next); tell(); }
    key = next;
  });

  function tell() {
    const pixels = digit(pad);
    const picture = seen.getContext("2d").createImageData(28, 28);
    (pixels ?? new Array(784).fill(0)).forEach((v, i) => picture.data.set([v, v, v, 255], 4 * i));
    seen.getContext("2d").putImageData(picture, 0, 0);
    if (pixels === null) return changed(null);
    const numbers = normalized(pixels, model.preprocessing ?? PLAIN).map((v) => Number(v.toPrecision(6)));
    const inputs = [nested(numbers, model.inputs[0].shape.slice(1))];
    changed({ type: "application/json", data: JSON.stringify({ inputs }), json: { inputs } });
  }
  function clear() {
    context.clearRect(0, 0, SIDE, SIDE);
    key = { x: SIDE / 2, y: SIDE / 2 };
    tell();
  }
  return element("div", {},
    element("p", { class: "hint" }, "Draw a digit; the answer follows the pen."),
    element("div", { class: "row" }, pad,
      element("figure", {}, seen, element("figcaption", {}, "what the model sees"))),
    element("p", {}, element("button", { type: "button", onclick: clear, id: "clear" }, "Clear")));
}
