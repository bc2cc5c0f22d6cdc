// The page is built from text and elements only: nothing that a server says becomes markup.

export const byId = (id) => document.getElementById(id);

// element("li", { class: "best" }, "text", child, ...)
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// The same for a part of a picture: drawn("path", { d: "M0 0" }).
export function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// A table: rows of cells; the first cell of a row is its header. Numbers stand right.
export function table(caption, head, rows) {
  const cell = (value, i) =>
    i === 0
      ? element("th", { scope: "row" }, String(value))
      : element("td", { class: typeof value === "number" ? null : "text" }, typeof value === "number" ? show(value) : String(value));
  const numeric = head.map((_, i) => i > 0 && rows.some((row) => typeof row[i] === "number"));
  return element("table", {},
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...head.map((text, i) => element("th", { scope: "col", class: numeric[i] ? null : "text" }, text)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cell)))));
}

// A number as people read it.
export function show(value) {
  if (value === null || value === undefined) return "-";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}

export const percent = (p) => `${(100 * p).toFixed(p < 0.1 || p > 0.999 ? 2 : 1)} %`.replace(/\.0+ /, " ");
