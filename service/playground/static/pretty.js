// JSON as people read it: indented, but lists of plain values on lines of their own.

const WIDTH = 96;

export function pretty(value, indent = "") {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const short = JSON.stringify(value);
  if (short.length + indent.length <= WIDTH && !short.includes("{", 1)) return spaced(value);
  const deeper = `${indent}  `;
  if (!Array.isArray(value)) {
    const parts = Object.entries(value).map(([key, part]) => `${deeper}${JSON.stringify(key)}: ${pretty(part, deeper)}`);
    return parts.length ? `{\n${parts.join(",\n")}\n${indent}}` : "{}";
  }
  if (value.some((part) => part !== null && typeof part === "object")) {
    return `[\n${value.map((part) => deeper + pretty(part, deeper)).join(",\n")}\n${indent}]`;
  }
  const lines = [""];
  for (const part of value.map((item) => JSON.stringify(item))) {
    if (lines.at(-1) && lines.at(-1).length + part.length + 2 > WIDTH - deeper.length) lines.push("");
    lines[lines.length - 1] += lines.at(-1) ? `, ${part}` : part;
  }
  return `[\n${lines.map((line) => deeper + line).join(",\n")}\n${indent}]`;
}

function spaced(value) {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(spaced).join(", ")}]`;
  const parts = Object.entries(value).map(([key, part]) => `${JSON.stringify(key)}: ${spaced(part)}`);
  return parts.length ? `{ ${parts.join(", ")} }` : "{}";
}
