// The engines that were measured for a model, and why each of them serves or does not.

import { byId, element, table } from "./dom.js";

export function showEngines({ engines = [] }) {
  const place = byId("engines");
  place.hidden = engines.length === 0;
  if (place.hidden) return;
  const chosen = engines.find((each) => each.chosen);
  const known = (number) => number ?? "-";
  place.replaceChildren(
    element("summary", {}, `Run by ${chosen.engine}: ${chosen.why}`),
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "The engines" }, table(
      "What was measured of each engine when the model was loaded",
      ["engine", "computes in", "one row, ms", "a row in batches, ms", "error, relative to the largest output", ""],
      engines.map((each) => [each.engine, each.precision, known(each.lone_ms), known(each.row_ms), known(each.error), each.chosen ? `serves: ${each.why}` : each.why]))),
  );
}
