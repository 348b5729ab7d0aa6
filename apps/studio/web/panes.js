/** Good, result, label and difference side by side: zoomed and moved together. */
import { button, el, on } from "./common.js";

const NAMES = { good: "Original", result: "Result", label: "Label", difference: "Difference" };

export class Panes {
  constructor(signal, gain) {
    this.images = {};
    this.pictures = null;
    this.shows = { zoom: 1, x: 0, y: 0 };
    const figures = Object.entries(NAMES).map(([key, name]) => {
      const image = this.images[key] = el("img", { alt: name, draggable: "false" });
      const frame = el("div", { class: "frame" }, image);
      this.#listen(frame, signal);
      const text = key === "difference" ? `${name} ×${gain}` : name;
      return el("figure", {}, frame, el("figcaption", {}, text));
    });
    this.row = el("div", { class: "panes" }, ...figures);
    this.flickered = button("Before / after", () => this.flicker(), { "aria-pressed": "false", title: "F" });
    this.told = el("p", { class: "soft", role: "status" });
    this.element = el("section", { class: "card", "aria-label": "Result" },
      el("div", { class: "row apart" }, this.told, el("div", { class: "row" },
        this.flickered, button("Reset zoom", () => this.#set(1, 0, 0)))), this.row);
    on(document, "keydown", (event) => {
      const typing = event.target.closest?.("input:not([type=range],[type=checkbox],[type=radio]), select, textarea, dialog");
      if (event.key.toLowerCase() !== "f" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
      this.flicker();
    }, { signal });
    this.element.hidden = true;
  }

  /** Show a sample's pictures, by the names of the panes. */
  set(pictures, said) {
    this.pictures = pictures;
    this.before = false;
    this.told.textContent = said;
    this.element.hidden = false;
    this.#fill();
  }

  clear() {
    this.pictures = null;
    this.element.hidden = true;
  }

  flicker() {
    if (!this.pictures) return;
    this.before = !this.before;
    this.#fill();
    this.flickers?.(this.before);
  }

  #fill() {
    for (const key of Object.keys(NAMES)) this.images[key].src = this.pictures[key === "result" && this.before ? "good" : key];
    this.images.result.alt = this.before ? "Original, in the place of the result" : "Result";
    this.flickered.setAttribute("aria-pressed", this.before);
  }

  #listen(frame, signal) {
    on(frame, "wheel", (event) => {
      event.preventDefault();
      const box = frame.getBoundingClientRect();
      const at = [event.clientX - box.left, event.clientY - box.top].map((n) => 100 * n / box.width);
      const zoom = Math.min(16, Math.max(1, this.shows.zoom * Math.exp(-event.deltaY / 400))), share = zoom / this.shows.zoom;
      this.#set(zoom, at[0] - share * (at[0] - this.shows.x), at[1] - share * (at[1] - this.shows.y));
    }, { signal, passive: false });
    on(frame, "pointerdown", (event) => frame.setPointerCapture(event.pointerId), { signal });
    on(frame, "pointermove", (event) => {
      if (!event.buttons) return;
      const width = frame.getBoundingClientRect().width;
      this.#set(this.shows.zoom, this.shows.x + 100 * event.movementX / width, this.shows.y + 100 * event.movementY / width);
    }, { signal });
  }

  #set(zoom, x, y) {
    const least = 100 * (1 - zoom);
    this.shows = { zoom, x: Math.min(0, Math.max(least, x)), y: Math.min(0, Math.max(least, y)) };
    this.row.style.setProperty("--zoom", zoom);
    this.row.style.setProperty("--x", this.shows.x);
    this.row.style.setProperty("--y", this.shows.y);
  }
}
