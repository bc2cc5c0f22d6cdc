// A form that sends an operation: its parameters, a body with an example, and the answer.

import { Problem, fetchWithKey } from "./api.js";
import { element } from "./dom.js";
import { pretty } from "./pretty.js";

const LONGEST = 50_000; // characters of an answer that are shown
const TEXT = /json|text/;

let made = 0;

// A field with its label; `value` reads it.
function field(name, control, note = "") {
  const id = `field-${made++}`;
  control.id = id;
  return element("p", { class: "field" }, element("label", { for: id }, name), control, ...(note ? [element("span", { class: "hint" }, note)] : []));
}

function parameter({ name, in: where, schema = {}, required, description }) {
  const known = schema.examples ?? [];
  const control = element("input", { value: required ? known[0] ?? "1" : "", required, spellcheck: "false", autocomplete: "off" });
  const list = known.length > 1 ? element("datalist", { id: `known-${made}` }, ...known.map((value) => element("option", { value }))) : null;
  if (list) control.setAttribute("list", list.id);
  return { name, where, control, nodes: [field(name, control, description), ...(list ? [list] : [])] };
}

// The body's part of the form. `body()` gives {type, data}; `follow(name)` takes that model's example.
function bodyOf(requestBody) {
  const content = requestBody.content, types = Object.keys(content);
  const type = element("select", {}, ...types.map((name) => element("option", {}, name)));
  const text = element("textarea", { spellcheck: "false" });
  const file = element("input", { type: "file" });
  const examples = content["application/json"]?.examples ?? {};
  const texts = field("Body", text), files = field("File", file);
  const follow = (name) => { if (examples[name]) text.value = pretty(examples[name].value); };
  text.value = "{}";
  if (Object.keys(examples).length) follow(Object.keys(examples)[0]);
  const choose = () => { texts.hidden = !TEXT.test(type.value); files.hidden = !texts.hidden; };
  type.addEventListener("change", choose);
  choose();
  function body() {
    if (TEXT.test(type.value)) return { type: type.value, data: text.value };
    if (!file.files[0]) throw new Problem("No file was chosen.", "The body is a file.");
    if (type.value !== "multipart/form-data") return { type: type.value, data: file.files[0] };
    const form = new FormData();
    form.append("image", file.files[0]);
    return { type: null, data: form }; // the browser writes the boundary
  }
  return { nodes: [...(types.length > 1 ? [field("Content-Type", type)] : []), texts, files], body, follow };
}

async function answerOf(response, ms) {
  const type = response.headers.get("content-type") ?? "";
  const status = element("p", { role: "status" }, element("strong", {}, `${response.status} ${response.statusText}`), ` in ${ms.toFixed(1)} ms, ${type}`);
  const blob = await response.blob();
  if (!TEXT.test(type)) {
    const save = element("a", { href: URL.createObjectURL(blob), download: "answer" }, `Save the ${blob.size.toLocaleString("en")} bytes`);
    return [status, ...(blob.size ? [element("p", {}, save)] : [])];
  }
  let text = await blob.text();
  try {
    if (/json/.test(type)) text = pretty(JSON.parse(text));
  } catch { /* shown as it came */ }
  const more = text.length > LONGEST ? `\n… ${(text.length - LONGEST).toLocaleString("en")} more characters` : "";
  return [status, element("pre", { tabindex: "0", "aria-label": "Answer" }, text.slice(0, LONGEST) + more)];
}

export function tryOut(path, method, described) {
  const parameters = (described.parameters ?? []).map(parameter);
  const body = described.requestBody ? bodyOf(described.requestBody) : null;
  const answer = element("div", { class: "tried", "aria-live": "polite" });
  const model = parameters.find((p) => p.name === "name");
  if (model && body) {
    body.follow(model.control.value);
    model.control.addEventListener("change", () => body.follow(model.control.value));
  }
  async function send(event) {
    event.preventDefault();
    const headers = {};
    let to = path.slice(1);
    for (const { name, where, control } of parameters) {
      if (where === "path") to = to.replace(`{${name}}`, encodeURIComponent(control.value));
      else if (where === "header" && control.value) headers[name] = control.value;
    }
    try {
      const sent = body?.body();
      if (sent?.type) headers["Content-Type"] = sent.type;
      const began = performance.now();
      const response = await fetchWithKey(to, { method: method.toUpperCase(), headers, body: sent?.data });
      answer.replaceChildren(...await answerOf(response, performance.now() - began));
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      answer.replaceChildren(element("p", { class: "problem" }, element("strong", {}, error.message), ` ${error.hint}`));
    }
  }
  return element("form", { onsubmit: send, class: "try" }, ...parameters.flatMap((p) => p.nodes), ...(body?.nodes ?? []),
    element("p", {}, element("button", { class: "main" }, "Send")), answer);
}
