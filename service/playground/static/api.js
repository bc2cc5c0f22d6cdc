// Talking to the service. Addresses are relative to this file, so a path prefix does not matter.

const BASE = new URL("..", import.meta.url);
const KEY = "foldserve-key";

export const address = (path) => new URL(path, BASE).href;
export const hasKey = () => sessionStorage.getItem(KEY) !== null;

// An error of the service, with its hint; or one on the way to it.
export class Problem extends Error {
  constructor(message, hint = "", code = "") {
    super(message);
    Object.assign(this, { hint, code });
  }
}

let asking = null;

// Ask for a key, once however many requests are waiting for it. True if one was given.
function askForKey() {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("key-dialog");
    const field = document.getElementById("key");
    field.value = "";
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "use" && field.value !== "";
      if (given) sessionStorage.setItem(KEY, field.value);
      field.value = "";
      asking = null;
      resolve(given);
    }, { once: true });
    dialog.returnValue = "";
    dialog.showModal();
  });
  return asking;
}

async function fetchOnce(path, options) {
  const headers = new Headers(options.headers);
  const key = sessionStorage.getItem(KEY);
  if (key !== null) headers.set("X-API-Key", key);
  try {
    return await fetch(address(path), { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("The server does not answer.", "Is it still running? This page tries again.", "offline");
  }
}

// The response, whatever its status; asks for a key while one is missing.
export async function fetchWithKey(path, options = {}) {
  let response = await fetchOnce(path, options);
  while (response.status === 401) {
    sessionStorage.removeItem(KEY);
    if (!(await askForKey())) break;
    response = await fetchOnce(path, options);
  }
  return response;
}

// The response; throws a Problem for anything but 2xx, unless its status is in `accept`.
export async function ask(path, options = {}, accept = []) {
  const response = await fetchWithKey(path, options);
  if (response.ok || accept.includes(response.status)) return response;
  let body = {};
  try {
    body = await response.json();
  } catch {
    // not ours: a proxy's page, perhaps
  }
  throw new Problem(body.message ?? `The server answered ${response.status}.`, body.hint, body.code ?? String(response.status));
}

export const json = async (path, accept) => (await ask(path, {}, accept)).json();

// "decode;dur=0.12, queue;dur=0.01" as [["decode", 0.12], ["queue", 0.01]], in milliseconds.
export function serverTiming(response) {
  const text = response.headers.get("server-timing") ?? "";
  return [...text.matchAll(/([\w-]+);dur=([\d.]+)/g)].map(([, name, ms]) => [name, Number(ms)]);
}

// POST to the model's predict route. `body`: {type, data}. Gives {answer, stages, total}.
export async function predict(model, body, signal) {
  const began = performance.now();
  const response = await ask(`models/${encodeURIComponent(model)}/predict`, {
    method: "POST",
    headers: { "Content-Type": body.type, "X-Server-Timing": "1" },
    body: body.data,
    signal,
  });
  const answer = await response.json();
  return { answer, stages: serverTiming(response), total: performance.now() - began };
}
