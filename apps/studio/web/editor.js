/**
 * A picture of any size on which a mask is drawn: brush, eraser and box, zoom, undo.
 *
 * What was drawn is kept as strokes in the picture's own px, so no second canvas of its size is
 * needed, undo is exact, and the mask that leaves is sharp whatever the zoom was.
 */
import { button, el, later, on } from "./common.js";

const COLOUR = "#ff6a1a";
const SMALL = 2048;
const HELP = "Arrow keys move the cursor, Space paints, B brush, E eraser, X box, [ and ] size, + and − zoom, 0 whole picture, Ctrl Z undo";

export class MaskEditor {
  /** `changed` is called after every stroke; listeners end with `signal`. */
  constructor(signal, changed = () => {}) {
    this.changed = changed;
    this.strokes = [];
    this.undone = [];
    this.tool = "brush";
    this.size = 20;
    this.width = this.height = 0;
    this.view = { scale: 1, x: 0, y: 0 };
    this.cursor = null;
    this.overlay = null;
    this.showsOverlay = true;
    this.pointers = new Map();
    this.canvas = el("canvas", { tabindex: "0", role: "application", "aria-label": `Picture with its mask. ${HELP}` });
    this.layer = document.createElement("canvas");
    this.foot = el("div", { class: "foot" }, this.zoomed = el("span"), this.told = el("span", { role: "status" }));
    this.element = el("section", { class: "card editor", "aria-label": "Picture and mask" }, this.#tools(), this.canvas, this.foot);
    this.#listen(signal);
    const resized = new ResizeObserver(() => this.#resize());
    resized.observe(this.canvas);
    on(signal, "abort", () => resized.disconnect());
  }

  /** Show a picture; `strokes` are what was drawn on it before. */
  async setPicture(bitmap, strokes = []) {
    this.bitmap = bitmap;
    [this.width, this.height] = [bitmap.width, bitmap.height];
    const shrink = SMALL / Math.max(this.width, this.height);
    this.small = shrink < 1 ? await createImageBitmap(bitmap, {
      resizeWidth: Math.round(this.width * shrink), resizeHeight: Math.round(this.height * shrink), resizeQuality: "medium",
    }) : null;
    this.strokes = strokes;
    this.undone = [];
    this.overlay = this.cursor = null;
    this.#setSize(Math.max(3, Math.round(Math.max(this.width, this.height) / 80)));
    this.fit();
    this.#tell();
  }

  /** A result's cut-out, drawn over the picture where it lies: {x, y, width, height, image}. */
  setOverlay(overlay) {
    this.overlay = overlay;
    this.draw();
  }

  get isEmpty() {
    return this.#bounds() === null;
  }

  undo() { this.#move(this.strokes, this.undone); }
  redo() { this.#move(this.undone, this.strokes); }
  clear() { if (!this.isEmpty) this.#add({ tool: "clear" }); }

  /** What was drawn: {x, y, png} with the PNG in base64, or null. */
  async part() {
    const box = this.#bounds();
    if (!box) return null;
    const canvas = new OffscreenCanvas(box.width, box.height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.translate(-box.x, -box.y);
    this.#paint(context);
    const image = context.getImageData(0, 0, box.width, box.height);
    let set = 0;
    for (let i = 3; i < image.data.length; i += 4) {
      const inside = image.data[i] > 127;
      image.data[i - 3] = image.data[i - 2] = image.data[i - 1] = image.data[i] = inside ? 255 : 0;
      set += inside;
    }
    if (!set) return null;
    context.putImageData(image, 0, 0);
    const bytes = new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer());
    let text = "";
    for (let i = 0; i < bytes.length; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return { x: box.x, y: box.y, png: btoa(text) };
  }

  /** The whole picture in view. */
  fit() {
    const { width, height } = this.canvas;
    const scale = Math.min(width / this.width, height / this.height) || 1;
    this.view = { scale, x: (width - scale * this.width) / 2, y: (height - scale * this.height) / 2 };
    this.draw();
  }

  /** A part of the picture in view. */
  look(x, y, width, height) {
    const scale = Math.min(this.canvas.width / width, this.canvas.height / height);
    this.view = { scale, x: this.canvas.width / 2 - scale * (x + width / 2), y: this.canvas.height / 2 - scale * (y + height / 2) };
    this.draw();
  }

  draw() {
    if (!this.drawing) this.drawing = requestAnimationFrame(() => { this.drawing = 0; this.#draw(); });
  }

  #tools() {
    const choose = (tool, text, key) => {
      const made = button(text, () => this.#choose(tool), { "aria-pressed": tool === this.tool, title: `${text} (${key})` });
      made.dataset.tool = tool;
      return made;
    };
    this.slider = el("input", { type: "range", min: 0, max: 100, value: 30, "aria-label": "Brush size" });
    this.sized = el("output");
    on(this.slider, "input", () => this.#setSize(Math.round(10 ** (this.slider.value * this.#decades() / 100))));
    return this.bar = el("div", { class: "tools", role: "toolbar", "aria-label": "Drawing" },
      choose("brush", "Brush", "B"), choose("erase", "Eraser", "E"), choose("box", "Box", "X"),
      el("label", {}, this.slider, this.sized),
      this.undoButton = button("Undo", () => this.undo(), { title: "Ctrl Z" }),
      this.redoButton = button("Redo", () => this.redo(), { title: "Ctrl Shift Z" }),
      this.clearButton = button("Clear", () => this.clear()),
      el("span", { class: "space" }),
      button("−", () => this.#zoom(1 / 1.5), { "aria-label": "Zoom out" }),
      button("+", () => this.#zoom(1.5), { "aria-label": "Zoom in" }),
      button("Fit", () => this.fit(), { title: "Whole picture (0)" }));
  }

  #decades() {
    return Math.log10(Math.max(10, Math.max(this.width, this.height) / 4));
  }

  #setSize(size) {
    this.size = Math.max(1, size);
    this.slider.value = 100 * Math.log10(this.size) / this.#decades();
    this.sized.textContent = `${this.size} px`;
    this.draw();
  }

  #choose(tool) {
    this.tool = tool;
    for (const one of this.bar.querySelectorAll("[data-tool]")) one.setAttribute("aria-pressed", one.dataset.tool === tool);
  }

  #listen(signal) {
    const canvas = this.canvas, given = { signal };
    on(canvas, "pointerdown", (event) => this.#down(event), given);
    on(canvas, "pointermove", (event) => this.#moved(event), given);
    for (const type of ["pointerup", "pointercancel"]) on(canvas, type, (event) => this.#up(event), given);
    on(canvas, "pointerleave", () => { this.cursor = null; this.draw(); }, given);
    on(canvas, "contextmenu", (event) => event.preventDefault(), given);
    on(canvas, "wheel", (event) => {
      event.preventDefault();
      this.#zoom(Math.exp(-event.deltaY / 400), this.#at(event));
    }, { signal, passive: false });
    on(canvas, "keydown", (event) => this.#key(event), given);
  }

  /** Where a pointer is, in px of the canvas. */
  #at(event) {
    const box = this.canvas.getBoundingClientRect(), ratio = this.canvas.width / box.width;
    return { x: (event.clientX - box.left) * ratio, y: (event.clientY - box.top) * ratio };
  }

  #inPicture({ x, y }) {
    return { x: (x - this.view.x) / this.view.scale, y: (y - this.view.y) / this.view.scale };
  }

  #down(event) {
    if (!this.bitmap) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.focus({ preventScroll: true });
    this.pointers.set(event.pointerId, this.#at(event));
    if (this.pointers.size > 1 || event.button > 0) { this.stroke = null; this.draw(); return; }
    this.#begin(this.#inPicture(this.#at(event)));
  }

  #moved(event) {
    if (!this.bitmap) return;
    const now = this.#at(event), before = this.pointers.get(event.pointerId);
    this.cursor = this.#inPicture(now);
    if (before && (this.pointers.size > 1 || !this.stroke)) this.#drag(event.pointerId, before, now);
    else if (this.stroke) {
      const all = event.getCoalescedEvents?.() ?? [];
      for (const one of all.length ? all : [event]) this.#extend(this.#inPicture(this.#at(one)));
    }
    if (before) this.pointers.set(event.pointerId, now);
    this.draw();
  }

  #drag(id, before, now) {
    const other = [...this.pointers].find(([one]) => one !== id)?.[1];
    if (other) {
      const span = (a) => Math.hypot(a.x - other.x, a.y - other.y) || 1;
      this.#zoom(span(now) / span(before), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
    }
    const share = other ? 2 : 1;
    this.view.x += (now.x - before.x) / share;
    this.view.y += (now.y - before.y) / share;
  }

  #up(event) {
    this.pointers.delete(event.pointerId);
    if (this.stroke && event.type === "pointerup") this.#finish();
    this.stroke = null;
  }

  #begin({ x, y }) {
    this.stroke = this.tool === "box" ? { tool: "box", x, y, width: 0, height: 0 } : { tool: this.tool, size: this.size, points: [[x, y]] };
    this.draw();
  }

  #extend({ x, y }) {
    if (this.stroke.tool === "box") Object.assign(this.stroke, { width: x - this.stroke.x, height: y - this.stroke.y });
    else this.stroke.points.push([x, y]);
  }

  #finish() {
    const stroke = this.stroke;
    this.stroke = null;
    if (stroke.tool === "box" && Math.min(Math.abs(stroke.width), Math.abs(stroke.height)) < 1) this.draw();
    else this.#add(stroke);
  }

  #add(stroke) {
    this.strokes.push(stroke);
    this.undone = [];
    this.#hasChanged();
  }

  #move(from, to) {
    if (!from.length) return;
    to.push(from.pop());
    this.#hasChanged();
  }

  #hasChanged() {
    this.draw();
    this.#tell();
    this.changed();
  }

  #tell() {
    this.undoButton.disabled = !this.strokes.length;
    this.redoButton.disabled = !this.undone.length;
    this.clearButton.disabled = this.isEmpty;
    const box = this.#bounds();
    this.told.textContent = box ? `Mask within ${box.width} × ${box.height} px` : "No mask drawn";
  }

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const held = event.ctrlKey || event.metaKey;
    if (held && event.key.toLowerCase() === "z") event.shiftKey ? this.redo() : this.undo();
    else if (held && event.key.toLowerCase() === "y") this.redo();
    else if (held || event.altKey || !this.bitmap) return;
    else if (moves) this.#step(moves, event.shiftKey ? 5 : 1);
    else if (event.key === " ") this.#press();
    else if (event.key === "Escape" && this.stroke) { this.stroke = null; this.draw(); }
    else if ("bex".includes(event.key)) this.#choose({ b: "brush", e: "erase", x: "box" }[event.key]);
    else if (event.key === "[") this.#setSize(Math.min(this.size - 1, Math.round(this.size / 1.25)));
    else if (event.key === "]") this.#setSize(Math.max(this.size + 1, Math.round(this.size * 1.25)));
    else if (event.key === "+" || event.key === "=") this.#zoom(1.5);
    else if (event.key === "-") this.#zoom(1 / 1.5);
    else if (event.key === "0") this.fit();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #step([x, y], times) {
    const middle = this.#inPicture({ x: this.canvas.width / 2, y: this.canvas.height / 2 });
    const from = this.cursor ?? middle, by = times * Math.max(1, this.size / 2);
    this.cursor = { x: Math.min(this.width, Math.max(0, from.x + x * by)), y: Math.min(this.height, Math.max(0, from.y + y * by)) };
    if (this.stroke) this.#extend(this.cursor);
    this.draw();
  }

  /** Space: a dab of the brush, or the first and then the second corner of a box. */
  #press() {
    this.cursor ??= this.#inPicture({ x: this.canvas.width / 2, y: this.canvas.height / 2 });
    if (!this.stroke) this.#begin(this.cursor);
    else this.#extend(this.cursor);
    if (this.stroke.tool !== "box" || this.stroke.width) this.#finish();
  }

  #zoom(by, at = { x: this.canvas.width / 2, y: this.canvas.height / 2 }) {
    const least = 0.5 * Math.min(this.canvas.width / this.width, this.canvas.height / this.height);
    const scale = Math.min(40, Math.max(least, this.view.scale * by)), share = scale / this.view.scale;
    this.view = { scale, x: at.x - share * (at.x - this.view.x), y: at.y - share * (at.y - this.view.y) };
    this.draw();
  }

  #resize() {
    const ratio = devicePixelRatio || 1, was = this.canvas.width;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight].map((n) => Math.round(n * ratio));
    if (!width || !height || (width === was && height === this.canvas.height)) return;
    this.layer.width = this.canvas.width = width;
    this.layer.height = this.canvas.height = height;
    if (this.bitmap) this.fit();
  }

  #draw() {
    const context = this.canvas.getContext("2d"), { scale, x, y } = this.view;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.bitmap) return;
    context.setTransform(scale, 0, 0, scale, x, y);
    context.imageSmoothingEnabled = scale < 2;
    const small = this.small && scale * this.width < this.small.width;
    context.drawImage(small ? this.small : this.bitmap, 0, 0, this.width, this.height);
    const over = this.overlay;
    if (over && this.showsOverlay) context.drawImage(over.image, over.x, over.y, over.width, over.height);
    this.#drawMask(context, over && this.showsOverlay ? 0 : 0.5);
    this.#drawCursor(context);
    this.zoomed.textContent = `${this.width} × ${this.height} px, at ${Math.round(100 * scale / (devicePixelRatio || 1))} %`;
  }

  #drawMask(context, opacity) {
    const all = this.stroke ? [...this.strokes, this.stroke] : this.strokes;
    const strength = this.stroke ? 0.5 : opacity;
    if (!all.length || !strength) return;
    const layer = this.layer.getContext("2d"), { scale, x, y } = this.view;
    layer.setTransform(1, 0, 0, 1, 0, 0);
    layer.clearRect(0, 0, this.layer.width, this.layer.height);
    layer.setTransform(scale, 0, 0, scale, x, y);
    this.#paint(layer, all);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.globalAlpha = strength;
    context.drawImage(this.layer, 0, 0);
    context.globalAlpha = 1;
    context.setTransform(scale, 0, 0, scale, x, y);
  }

  #drawCursor(context) {
    if (!this.cursor) return;
    const thin = 1 / this.view.scale, { x, y } = this.cursor;
    for (const [colour, width] of [["#000", 3 * thin], ["#fff", thin]]) {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      if (this.tool === "box") {
        const arm = 9 * thin;
        context.moveTo(x - arm, y); context.lineTo(x + arm, y);
        context.moveTo(x, y - arm); context.lineTo(x, y + arm);
      } else context.arc(x, y, this.size / 2, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  #paint(context, strokes = this.strokes) {
    context.fillStyle = context.strokeStyle = COLOUR;
    context.lineCap = context.lineJoin = "round";
    const live = strokes.slice(strokes.findLastIndex((stroke) => stroke.tool === "clear") + 1);
    for (const stroke of live) {
      context.globalCompositeOperation = stroke.tool === "erase" ? "destination-out" : "source-over";
      if (stroke.tool === "box") context.fillRect(stroke.x, stroke.y, stroke.width, stroke.height);
      else if (stroke.tool === "part") context.drawImage(stroke.image, stroke.x, stroke.y);
      else {
        context.lineWidth = stroke.size;
        context.beginPath();
        const [[x, y], ...rest] = stroke.points;
        context.moveTo(x, y);
        context.lineTo(x + 1e-3, y);
        for (const [a, b] of rest) context.lineTo(a, b);
        context.stroke();
      }
    }
    context.globalCompositeOperation = "source-over";
  }

  /** A box around all that was drawn, in whole px of the picture; null for nothing. */
  #bounds() {
    const live = this.strokes.slice(this.strokes.findLastIndex((stroke) => stroke.tool === "clear") + 1);
    const corners = live.filter((stroke) => stroke.tool !== "erase").flatMap((stroke) => {
      if (stroke.points) return stroke.points.flatMap(([x, y]) => [-1, 1].map((s) => [x + s * stroke.size / 2, y + s * stroke.size / 2]));
      const [width, height] = stroke.image ? [stroke.image.width, stroke.image.height] : [stroke.width, stroke.height];
      return [[stroke.x, stroke.y], [stroke.x + width, stroke.y + height]];
    });
    if (!corners.length) return null;
    let [left, top, right, bottom] = [this.width, this.height, 0, 0];
    for (const [x, y] of corners) {
      [left, right] = [Math.min(left, x), Math.max(right, x)];
      [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
    }
    [left, top] = [Math.max(0, Math.floor(left)), Math.max(0, Math.floor(top))];
    [right, bottom] = [Math.min(this.width, Math.ceil(right)), Math.min(this.height, Math.ceil(bottom))];
    return right > left && bottom > top ? { x: left, y: top, width: right - left, height: bottom - top } : null;
  }
}

/** A mask of the studio's, {x, y, png}, as a stroke. */
export async function strokeOf({ x, y, png }) {
  const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
  const mask = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const canvas = new OffscreenCanvas(mask.width, mask.height), context = canvas.getContext("2d");
  context.drawImage(mask, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = COLOUR;
  context.fillRect(0, 0, mask.width, mask.height);
  return { tool: "part", x, y, image: canvas };
}

/** Keeps what is drawn in an editor with the studio, a moment after the last stroke. */
export class Keeper {
  /** `keep` is given what `MaskEditor.part` gives, and says where it goes. */
  constructor(editor, keep, failed) {
    this.pending = Promise.resolve();
    this.soon = later(() => this.now(), 250);
    this.now = () => {
      const part = editor.part();
      this.pending = this.pending.then(async () => keep(await part)).catch(failed);
      return this.pending;
    };
  }
}
