// The inputs as JSON in an editor, beginning with an example of the right form.

import { element } from "./dom.js";
import { nested } from "./pixels.js";

const EDITABLE = 4096; // numbers; a longer text makes editors slow
const FREE = 4; // what an axis that may vary, other than the batch, gets in the example

const sizes = (spec) => spec.shape.map((dim, axis) => (typeof dim === "number" ? dim : axis === 0 ? 1 : FREE));
const count = (spec) => sizes(spec).reduce((a, b) => a * b, 1);

function value(spec, i, random) {
  if (spec.dtype === "bool") return i % 2 === 0;
  if (spec.dtype === "string") return String(i);
  if (/int/.test(spec.dtype)) return i % 2;
  return random ? Number((Math.random() * 2 - 1).toPrecision(4)) : Number(Math.sin(i).toFixed(2));
}

// {"inputs": ...}: the tensor itself for one input, by name for several.
export function example(model, random = false) {
  const tensor = (spec) => nested(Array.from({ length: count(spec) }, (_, i) => value(spec, i, random)), sizes(spec));
  if (model.inputs.length === 1) return { inputs: tensor(model.inputs[0]) };
  return { inputs: Object.fromEntries(model.inputs.map((spec) => [spec.name, tensor(spec)])) };
}

export function numbers(model, changed, failed) {
  const total = model.inputs.reduce((sum, spec) => sum + count(spec), 0);
  const random = element("button", { type: "button", id: "random" }, "Random numbers");
  const send = (json) => changed({ type: "application/json", data: JSON.stringify(json), json });
  if (total > EDITABLE) {
    random.addEventListener("click", () => send(example(model, true)));
    return element("div", {},
      element("p", { class: "hint" }, `One sample has ${total.toLocaleString("en")} numbers, too many to edit here.`),
      element("p", {}, random));
  }
  const text = element("textarea", { id: "editor", spellcheck: "false", "aria-label": "Inputs as JSON" });
  const put = (json) => { text.value = JSON.stringify(json); };
  put(example(model));
  function submit() {
    let json;
    try {
      json = JSON.parse(text.value);
    } catch (error) {
      failed(`This is no JSON: ${error.message}`, 'It looks like {"inputs": [[...]]}.');
      return;
    }
    send(json);
  }
  random.addEventListener("click", () => { put(example(model, true)); submit(); });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit();
  });
  return element("div", {}, text,
    element("p", { class: "row" },
      element("button", { type: "button", class: "main", id: "send", onclick: submit }, "Predict"), random,
      element("span", { class: "hint" }, "Ctrl+Enter sends it.")));
}
