// The page: which model, which kind of input, and the way from an input to its answer.

import { Problem, json, predict } from "./api.js";
import { showAnswer, showNothing, showProblem } from "./answer.js";
import { showCertificate } from "./certificate.js";
import { setUpCharts } from "./charts.js";
import { offerCopies, setUpCopies } from "./copy.js";
import { showCurves } from "./curves.js";
import { byId, element, show } from "./dom.js";
import { showEngines } from "./engines.js";
import { drawable, drawing } from "./draw.js";
import { example, numbers } from "./numbers.js";
import { picture, takesPictures } from "./picture.js";
import { showReport } from "./report.js";

const LOOK_EVERY_MS = 5000;

// Kinds of input: a name, whether the model takes it, and what makes its panel.
const KINDS = [
  ["Draw", drawable, drawing],
  ["Picture", takesPictures, picture],
  ["Numbers", () => true, numbers],
];

let model = null;

// One request at a time; of the inputs that come meanwhile only the last is sent.
let running = false, waiting = null;

async function submit(body) {
  waiting = { body, model };
  if (running) return;
  running = true;
  while (waiting) {
    const { body: now, model: asked } = waiting;
    waiting = null;
    if (asked !== model) continue; // another model was chosen
    if (now === null) showNothing();
    else await answer(asked, now);
  }
  running = false;
}

async function answer(asked, body) {
  offerCopies(asked, body);
  try {
    const result = await predict(asked.name, body);
    if (asked === model) showAnswer(asked, result);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    if (error.code === "unsupported_media_type" && body.instead) {
      const made = body.instead();
      await answer(asked, { type: "application/json", data: JSON.stringify(made), json: made });
    } else if (asked === model) showProblem(error.message, error.hint);
  }
}

function choose(kind, make) {
  for (const tab of byId("kinds").children) {
    const chosen = tab.textContent === kind;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
  }
  byId("panel").setAttribute("aria-labelledby", `kind-${kind}`);
  showNothing();
  byId("panel").replaceChildren(make(model, submit, showProblem));
}

function setUpTabs() {
  byId("kinds").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const tabs = [...byId("kinds").children];
    if (!step) return;
    const next = tabs[(tabs.indexOf(document.activeElement) + step + tabs.length) % tabs.length];
    next.focus();
    next.click();
  });
}

const described = (specs) => specs.map((spec) => `${spec.name}: ${spec.dtype} (${spec.shape.join(", ")})`).join("; ");

async function open(name) {
  const found = await json(`models/${encodeURIComponent(name)}`);
  if (byId("choice").value !== name) return; // another one was chosen before this answer came
  model = { name, ...found };
  byId("about").textContent = model.description || "";
  const facts = {
    version: model.version, runs: { CPUExecutionProvider: "on the CPU", CUDAExecutionProvider: "on a GPU (CUDA)", OpenVINOExecutionProvider: "on the CPU (OpenVINO)" }[model.provider] ?? model.provider,
    "self-test": model.self_test_errors ? "passed" : "none", input: described(model.inputs), output: described(model.outputs),
  };
  byId("facts").replaceChildren(...Object.entries(facts).map(([key, value]) => element("div", {}, element("dt", {}, key), element("dd", {}, typeof value === "number" ? show(value) : value))));
  const kinds = KINDS.filter(([, takes]) => takes(model));
  byId("kinds").replaceChildren(...kinds.map(([kind, , make]) =>
    element("button", { type: "button", role: "tab", id: `kind-${kind}`, "aria-controls": "panel", onclick: () => choose(kind, make) }, kind)));
  choose(kinds[0][0], kinds[0][2]);
  const shown = example(model);
  offerCopies(model, { type: "application/json", data: JSON.stringify(shown), json: shown });
  showCertificate(model);
  showEngines(model);
  showReport(model);
  showCurves(model);
}

// What waits for a model, and what is said when there is none.
function showWhetherServed(served, loading) {
  for (const part of document.querySelectorAll("main > :not(#model, #live, #training)")) part.hidden = !served;
  byId("chooser").hidden = !served;
  if (served) return;
  model = null;
  byId("training").hidden = true;
  showCertificate({});
  showEngines({});
  byId("facts").replaceChildren();
  if (loading) byId("about").textContent = "The models are being loaded.";
  else byId("about").replaceChildren("No model is served. Publish one:", element("pre", {}, "foldserve fold model.pt --publish models/mine"));
}

// Each version that was refused, of all models, with its reason.
function showRejected(models) {
  const rejected = models.flatMap((m) => m.rejected.map((r) => `${m.name}, version ${r.version}, is not served: ${r.reason}`));
  byId("rejected").hidden = rejected.length === 0;
  if (rejected.join() !== [...byId("rejected").children].map((item) => item.textContent).join()) byId("rejected").replaceChildren(...rejected.map((text) => element("li", {}, text)));
}

let known = "";

async function look() {
  const health = byId("health");
  try {
    const state = await json("health/ready", [503]);
    health.textContent = state.status === "ready" ? "ready" : `not ready: ${state.message ?? state.status ?? ""}`;
    const { models, loading } = await json("models");
    const serving = models.filter((m) => m.state === "serving");
    showRejected(models);
    const now = JSON.stringify([loading, serving.map((m) => [m.name, m.version])]);
    if (now === known) return;
    const select = byId("choice");
    const before = select.value;
    showWhetherServed(serving.length > 0, loading);
    select.replaceChildren(...serving.map((m) => element("option", { value: m.name }, `${m.name}, version ${m.version}`)));
    if (serving.length) {
      const chosen = serving.find((m) => m.name === before) ?? serving[0];
      select.value = chosen.name;
      // What somebody has drawn or typed stays while other models come and go.
      if (model?.name !== chosen.name || model.version !== chosen.version) await open(chosen.name);
    }
    known = now;
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    health.textContent = error.message;
    known = "";
  }
}

setUpTabs();
setUpCopies();
setUpCharts();
byId("choice").addEventListener("change", () => open(byId("choice").value).catch((error) => showProblem(error.message, error.hint)));
await look();
setInterval(() => { if (!document.hidden) look(); }, LOOK_EVERY_MS);
