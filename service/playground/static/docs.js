// The page of GET /docs: what openapi.json says, and a form for each operation that sends it.

import { Problem, json } from "./api.js";
import { byId, element } from "./dom.js";
import { pretty } from "./pretty.js";
import { tryOut } from "./tryout.js";

const METHODS = ["get", "post", "put", "delete"];

// The little Markdown that descriptions have: paragraphs, `code` and **bold**.
function paragraphs(text = "") {
  return text.split(/\n{2,}/).filter(Boolean).map((part) => element("p", {}, ...part.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((piece) => {
    if (/^`.+`$/.test(piece)) return element("code", {}, piece.slice(1, -1));
    if (/^\*\*.+\*\*$/.test(piece)) return element("strong", {}, piece.slice(2, -2));
    return piece;
  })));
}

// "#/components/schemas/Error" replaced by what it names, to the depth at which it is readable.
function resolved(document, schema, depth = 4) {
  if (Array.isArray(schema)) return schema.map((part) => resolved(document, part, depth));
  if (schema === null || typeof schema !== "object") return schema;
  if (schema.$ref) {
    if (!depth) return schema;
    return resolved(document, schema.$ref.slice(2).split("/").reduce((at, key) => at[key], document), depth - 1);
  }
  return Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, resolved(document, value, depth)]));
}

function schemas(document, title, content) {
  return Object.entries(content ?? {}).filter(([, { schema }]) => schema && schema.format !== "binary").map(([type, { schema }]) =>
    element("details", {}, element("summary", {}, `${title}: ${type}`), element("pre", { tabindex: "0" }, pretty(resolved(document, schema)))));
}

function operation(document, path, method, described) {
  const answers = Object.entries(described.responses ?? {}).flatMap(([status, { content }]) =>
    schemas(document, status === "default" ? "Any error" : `Answer ${status}`, content));
  const made = element("details", { class: "operation", id: described.operationId },
    element("summary", {}, element("span", { class: `method ${method}` }, method.toUpperCase()), " ",
      element("code", {}, path), " ", element("span", { class: "hint" }, described.summary ?? "")));
  // Only what is opened is built: an example can have thousands of numbers.
  made.addEventListener("toggle", () => {
    if (made.children.length > 1) return;
    made.append(...paragraphs(described.description), tryOut(path, method, described),
      ...schemas(document, "Body", described.requestBody?.content), ...answers);
  });
  return made;
}

function page(document) {
  const groups = new Map();
  for (const [path, operations] of Object.entries(document.paths)) {
    for (const method of METHODS.filter((name) => operations[name])) {
      const tag = operations[method].tags?.[0] ?? "server";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operation(document, path, method, operations[method]));
    }
  }
  const first = groups.has("predict") ? [["predict", groups.get("predict")]] : [];
  return [...first, ...[...groups].filter(([tag]) => tag !== "predict")].map(([tag, made], i) =>
    element("section", { class: "wide", "aria-labelledby": `tag-${i}` }, element("h2", { id: `tag-${i}` }, tag.replace(/^./, (a) => a.toUpperCase())), ...made));
}

function follow() {
  const named = byId(decodeURIComponent(location.hash.slice(1)));
  if (named?.matches("details")) { named.open = true; named.scrollIntoView(); }
}

try {
  document.querySelector("main").append(...page(await json("openapi.json")));
  follow();
  addEventListener("hashchange", follow);
} catch (error) {
  if (!(error instanceof Problem)) throw error;
  byId("problem").textContent = `${error.message} ${error.hint}`;
  byId("problem").hidden = false;
}
