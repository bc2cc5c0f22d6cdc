// From pictures to tensors: what a model.json's `preprocessing` says, done in the browser.

// x = (pixel * scale - mean) / std for one channel of 0..255 numbers.
function scaled(pixels, how, channel) {
  const of = (list) => list[list.length === 1 ? 0 : channel];
  const { scale } = how, mean = of(how.mean), std = of(how.std);
  return Array.from(pixels, (pixel) => (pixel * scale - mean) / std);
}

export const PLAIN = { scale: 1 / 255, mean: [0], std: [1], channels: "L", layout: "CHW" };

// Flat numbers in the nested lists of that shape.
export function nested(flat, shape) {
  if (shape.length === 0) return flat[0];
  if (shape.length === 1) return flat;
  const [rows, ...rest] = shape;
  const size = flat.length / rows;
  return Array.from({ length: rows }, (_, i) => nested(flat.slice(i * size, (i + 1) * size), rest));
}

// White strokes on a canvas -> 28 x 28 numbers of 0..255, as the digits of MNIST were made: the
// ink is scaled to a box of 20 x 20 and its centre of mass is put into the middle
// (LeCun, Cortes, Burges: the MNIST database, "how the images were made"). Null without ink.
export function digit(canvas) {
  const { width, height } = canvas;
  const ink = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  let left = width, right = -1, top = height, bottom = -1;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (ink[4 * (y * width + x) + 3] < 32) continue;
      left = Math.min(left, x); right = Math.max(right, x);
      top = Math.min(top, y); bottom = Math.max(bottom, y);
    }
  }
  if (right < 0) return null;
  const w = right - left + 1, h = bottom - top + 1, factor = 20 / Math.max(w, h);
  // Once into the corner to find the centre of mass, then again with it in the middle.
  const box = [left, top, w, h], size = [w * factor, h * factor];
  const first = draw(canvas, box, 4, 4, size);
  let sum = 0, sx = 0, sy = 0;
  first.forEach((value, i) => { sum += value; sx += value * (i % 28); sy += value * Math.floor(i / 28); });
  const inside = (offset, length) => Math.min(28 - length, Math.max(0, offset));
  return draw(canvas, box, inside(17.5 - sx / sum, size[0]), inside(17.5 - sy / sum, size[1]), size);
}

function draw(source, [x, y, w, h], left, top, [width, height]) {
  const small = new OffscreenCanvas(28, 28);
  const context = small.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(source, x, y, w, h, left, top, width, height);
  const data = context.getImageData(0, 0, 28, 28).data;
  return Array.from({ length: 784 }, (_, i) => data[4 * i + 3]);
}

export const normalized = (pixels, how) => scaled(pixels, how, 0);

// A decoded picture -> the nested lists of one sample.
export function sample(picture, how) {
  const { height: H, width: W } = how;
  const canvas = new OffscreenCanvas(W, H);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#000";
  context.fillRect(0, 0, W, H);
  const w = picture.width, h = picture.height;
  if (how.resize === "crop") {
    const factor = how.resize_shorter ? how.resize_shorter / Math.min(w, h) : Math.max(W / w, H / h);
    context.drawImage(picture, (W - w * factor) / 2, (H - h * factor) / 2, w * factor, h * factor);
  } else {
    context.drawImage(picture, 0, 0, W, H);
  }
  const data = context.getImageData(0, 0, W, H).data;
  const plane = (c) => Array.from({ length: W * H }, (_, i) => data[4 * i + c]);
  const [r, g, b] = [0, 1, 2].map(plane);
  // ITU-R 601-2, as Pillow's convert("L") has it.
  const grey = () => r.map((v, i) => Math.round((299 * v + 587 * g[i] + 114 * b[i]) / 1000));
  const planes = { L: () => [grey()], RGB: () => [r, g, b], BGR: () => [b, g, r] }[how.channels]();
  const channels = planes.map((pixels, c) => scaled(pixels, how, c));
  if (how.layout === "CHW") return channels.map((flat) => nested(flat, [H, W]));
  return nested(channels[0].flatMap((_, i) => channels.map((flat) => flat[i])), [H, W, channels.length]);
}
