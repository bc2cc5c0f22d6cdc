// A picture, dropped, pasted or chosen, for models whose model.json says how to take one.

import { element } from "./dom.js";
import { sample } from "./pixels.js";

const SENT_AS_THEY_ARE = new Set(["image/png", "image/jpeg"]);

export const takesPictures = (model) => Boolean(model.preprocessing) && model.inputs.length === 1;

export function picture(model, changed, failed) {
  const how = model.preprocessing;
  const shown = element("img", { alt: "The picture to be sent", hidden: true });
  const file = element("input", { type: "file", accept: "image/*", id: "file" });
  const drop = element("div", { class: "drop" },
    element("p", {}, element("label", { for: "file" }, "Drop, paste or choose a picture "), file), shown,
    element("p", { class: "hint" }, `It becomes ${how.width} x ${how.height} pixels, ${how.channels === "L" ? "grey" : how.channels}.`));
  file.addEventListener("change", () => file.files[0] && take(file.files[0]));
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
  const pasted = (event) => {
    const item = [...event.clipboardData.files].find((f) => f.type.startsWith("image/"));
    if (item && drop.isConnected) take(item);
    if (!drop.isConnected) document.removeEventListener("paste", pasted);
  };
  document.addEventListener("paste", pasted);

  async function take(blob) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(blob);
    } catch {
      failed("This file is no picture that the browser can read.", "PNG and JPEG work everywhere.");
      return;
    }
    if (shown.src) URL.revokeObjectURL(shown.src);
    shown.src = URL.createObjectURL(blob);
    shown.hidden = false;
    const numbers = () => ({ inputs: [sample(bitmap, how)] });
    if (SENT_AS_THEY_ARE.has(blob.type)) {
      // The service may be without the packages for pictures: then the browser prepares the input.
      changed({ type: blob.type, data: blob, name: blob.name, instead: numbers });
    } else {
      const json = numbers();
      changed({ type: "application/json", data: JSON.stringify(json), json });
    }
  }
  return drop;
}
