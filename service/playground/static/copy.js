// "Copy as": the request that was just made, for people's own programs.

import { address, hasKey } from "./api.js";
import { byId, element } from "./dom.js";

const SHORT = 1500; // characters of JSON that are written into the code itself

const DTYPES = {
  string: "BYTES", float16: "FP16", float32: "FP32", float64: "FP64", bool: "BOOL", int8: "INT8", int16: "INT16",
  int32: "INT32", int64: "INT64", uint8: "UINT8", uint16: "UINT16", uint32: "UINT32", uint64: "UINT64",
};

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const url = (model) => address(`models/${encodeURIComponent(model.name)}/predict`);
const key = (before, text) => (hasKey() ? before + text : "");

function curl(model, body) {
  const head = key(" \\\n  ", '-H "X-API-Key: $FOLDSERVE_KEY"');
  if (!body.json) return `curl${head} \\\n  -H 'Content-Type: ${body.type}' --data-binary @${quoted(body.name ?? "picture")} \\\n  ${url(model)}`;
  return `curl${head} --json ${body.data.length <= SHORT ? quoted(body.data) : "@input.json"} \\\n  ${url(model)}`;
}

function python(model, body) {
  const headers = [`"Content-Type": "${body.type}"`, ...(hasKey() ? ['"X-API-Key": os.environ["FOLDSERVE_KEY"]'] : [])];
  const file = body.json ? "input.json" : body.name ?? "picture";
  return `import json
${key("", "import os\n")}from pathlib import Path
from urllib.request import Request, urlopen

request = Request(
    ${JSON.stringify(url(model))},
    data=Path(${JSON.stringify(file)}).read_bytes(),
    headers={${headers.join(", ")}},
)
with urlopen(request) as response:
    print(json.load(response))
`;
}

function triton(model, body) {
  const http = new URL(address(""));
  const prefix = http.pathname.replace(/\/$/, "");
  const tensor = (spec) => {
    const from = model.inputs.length === 1 ? 'given["inputs"]' : `given["inputs"][${JSON.stringify(spec.name)}]`;
    return `inputs.append(httpclient.InferInput(${JSON.stringify(spec.name)}, [], "${DTYPES[spec.dtype] ?? "FP32"}"))
tensor = np.asarray(${from}, "${spec.dtype === "string" ? "object" : spec.dtype}")
inputs[-1].set_shape(tensor.shape)
inputs[-1].set_data_from_numpy(tensor)`;
  };
  if (!body.json) return "# The Open Inference Protocol takes tensors, not pictures.";
  return `import json
${key("", "import os\n")}
import numpy as np
import tritonclient.http as httpclient  # pip install tritonclient[http]

given = json.load(open("input.json"))
inputs = []
${model.inputs.map(tensor).join("\n")}
client = httpclient.InferenceServerClient(${JSON.stringify(http.host + prefix)}${http.protocol === "https:" ? ", ssl=True" : ""})
result = client.infer(${JSON.stringify(model.name)}, inputs${key(", ", 'headers={"X-API-Key": os.environ["FOLDSERVE_KEY"]}')})
print(${model.outputs.map((spec) => `result.as_numpy(${JSON.stringify(spec.name)})`).join(", ")})
`;
}

const CLIENTS = { curl, Python: python, tritonclient: triton };
let last = null;

export function offerCopies(model, body) {
  last = [model, body];
  const save = byId("save");
  if (save.href) URL.revokeObjectURL(save.href);
  save.hidden = !body.json;
  if (body.json) save.href = URL.createObjectURL(new Blob([body.data], { type: "application/json" }));
  write();
}

function write() {
  if (last) byId("code").textContent = CLIENTS[byId("client").value](...last);
  byId("copied").textContent = "";
}

export function setUpCopies() {
  byId("client").append(...Object.keys(CLIENTS).map((name) => element("option", {}, name)));
  byId("client").addEventListener("change", write);
  byId("copy-button").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(byId("code").textContent);
      byId("copied").textContent = "Copied.";
    } catch { // only pages from https or localhost may write there
      getSelection().selectAllChildren(byId("code"));
      byId("copied").textContent = "Selected: press Ctrl+C.";
    }
  });
}
