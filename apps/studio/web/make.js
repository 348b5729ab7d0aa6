/** Make: good pictures in, defects where they are drawn or placed, a dataset out. */
import { api, button, chooseFolder, counted, dropPlace, el, errors, field, later, nameOfNow, on, pathText, percent } from "./common.js";
import { Keeper, MaskEditor } from "./editor.js";
import { Panes } from "./panes.js";
import { keepMask, opened, thumbnail } from "./pictures.js";
import { begin, taskList } from "./tasks.js";

const SLOW = 12000;
const FOLDER = "defectrt-make-folder";

export async function page(state, signal) {
  const made = new Make(state, signal);
  const before = localStorage.getItem(FOLDER);
  if (before) await made.open(before).catch(() => localStorage.removeItem(FOLDER));
  return made.element;
}

class Make {
  constructor(state, signal) {
    this.state = state;
    this.signal = signal;
    this.drawn = new Set();
    [this.pictureError, this.withPictures] = errors();
    [this.previewError, this.withPreview] = errors();
    [this.makeError, this.withMake] = errors();
    this.editor = new MaskEditor(signal, () => this.#strokeEnded());
    this.keeper = new Keeper(this.editor, (part) => this.#keep(part), (error) => { this.previewError.textContent = error.message; });
    this.panes = new Panes(signal, state.gain);
    this.panes.flickers = (before) => { this.editor.showsOverlay = !before; this.editor.draw(); };
    this.soon = later(() => this.preview(), 300);
    this.element = el("div", { class: "page" },
      el("div", { class: "column" }, this.#pictures(), this.#defect(), this.#where(), this.#make()),
      el("div", { class: "column" },
        this.hint = el("section", { class: "card empty next" }, el("p", {}, "Add a few pictures of good parts to begin. A sample of what will be made is shown at once.")),
        this.editor.element, this.row = this.#previewRow(), this.panes.element,
        taskList(["make"], "Datasets", signal, doneActions)));
    for (const one of [this.editor.element, this.row, this.panes.element]) one.classList.add("next");
    this.editor.element.hidden = this.row.hidden = true;
    this.#showEngine();
    this.#enable();
  }

  #pictures() {
    this.thumbs = el("div", { class: "thumbs", role: "group", "aria-label": "Pictures" });
    this.chosen = el("div", { role: "status" });
    return el("section", { class: "card first", "aria-label": "Good pictures" }, el("h2", {}, "Good pictures"),
      dropPlace("Drop pictures of good parts here", (files) => this.withPictures(() => this.#take(files)), this.signal,
        button("Choose a folder", () => this.withPictures(async () => {
          const path = await chooseFolder("Folder of good pictures", this.folder ?? this.state.start);
          if (path) await this.open(path);
        }))), this.pictureError, this.chosen, this.thumbs);
  }

  #defect() {
    const likes = Object.entries(this.state.likes).map(([like, types]) => ({ like, defect_types: types, steps: 0, fewest_steps: 0 }));
    this.sources = [...this.state.engines.map((engine) => ({ engine: engine.name, ...engine })), ...likes];
    const text = ({ engine, like }) => like ? `real defects of ${like}, moved` : engine === "default" ? "the studio's own" : engine;
    this.engine = el("select", {}, ...this.sources.map((source, i) => el("option", { value: i }, text(source))));
    this.types = el("fieldset");
    const number = (attributes) => el("input", { type: "number", ...attributes });
    this.low = number({ min: 0.05, max: 10, step: 0.05, placeholder: "usual", "aria-label": "Least strength" });
    this.high = number({ min: 0.05, max: 10, step: 0.05, placeholder: "usual", "aria-label": "Greatest strength" });
    this.short = number({ min: 1, max: 4096, placeholder: "usual", "aria-label": "Smallest size in px" });
    this.long = number({ min: 1, max: 4096, placeholder: "usual", "aria-label": "Largest size in px" });
    this.seed = number({ min: 0, step: 1, value: 0 });
    const card = el("section", { class: "card", "aria-label": "Defect" }, el("h2", {}, "Defect"),
      field("Engine", this.engine), this.types,
      el("fieldset", {}, el("legend", {}, "Strength: 0.1 hardly visible, 1 black"), el("div", { class: "pair" }, this.low, this.high)),
      this.sizes = el("fieldset", {}, el("legend", {}, "Size, longest side in px"), el("div", { class: "pair" }, this.short, this.long)),
      el("div", { class: "row low" }, field("Seed", this.seed), button("Another seed", () => { this.seed.value = +this.seed.value + 1; this.preview(); })));
    on(this.engine, "change", () => { this.#showEngine(); this.#showWhere(); });
    on(card, "input", () => this.soon());
    return card;
  }

  #where() {
    const choice = (value, text) => el("label", { class: "choice" }, el("input", { type: "radio", name: "where", value, checked: value === "placed" }), text);
    this.within = el("select", { "aria-label": "Region" }, el("option", { value: "" }, "where the engine's examples lie"),
      el("option", { value: "anywhere" }, "anywhere"), el("option", { value: "foreground" }, "on the part, not its background"));
    this.whereNote = el("p", { class: "soft", role: "status" });
    this.where = el("section", { class: "card", "aria-label": "Where" }, el("h2", {}, "Where"),
      el("fieldset", {}, choice("placed", "Let it be placed"), this.within, choice("drawn", "Where I draw a mask")), this.whereNote);
    on(this.where, "change", () => { this.#showWhere(); this.soon(); });
    return this.where;
  }

  #make() {
    this.count = el("input", { type: "number", min: 1, max: 100000, value: 1 });
    this.formats = ["coco", "yolo"].map((name) => [name, el("input", { type: "checkbox" })]);
    this.out = el("input", { type: "text", placeholder: "a new folder", spellcheck: "false" });
    this.makeButton = button("Make the dataset", () => this.withMake(() => this.#begin()), { class: "main" });
    this.total = el("p", { class: "soft", role: "status" });
    on(this.count, "input", () => this.#enable());
    return el("section", { class: "card", "aria-label": "Dataset" }, el("h2", {}, "Dataset"),
      field("Samples of each picture", this.count),
      el("fieldset", {}, el("legend", {}, "Formats beside MVTec's"), el("div", { class: "row" },
        ...this.formats.map(([name, box]) => el("label", { class: "choice" }, box, name.toUpperCase())))),
      field("Folder to write", this.out), this.total, el("div", { class: "row" }, this.makeButton), this.makeError);
  }

  #previewRow() {
    this.previewButton = button("Show a sample", () => this.preview());
    this.previewState = el("p", { class: "soft", role: "status" });
    return el("div", { class: "row" }, this.previewButton, this.previewState, this.previewError);
  }

  get isDrawn() {
    return this.where.querySelector("[value=drawn]").checked && !this.source.like;
  }

  /** An engine, or a set of real defects. */
  get source() {
    return this.sources[this.engine.value];
  }

  /** What is asked for of the folder, a preview or a job. */
  get wanted() {
    const { engine, like } = this.source;
    return { folder: this.folder, drawn: this.isDrawn, ...(like ? { like } : { engine }) };
  }

  #showEngine() {
    const boxes = this.source.defect_types.map((name) => el("label", { class: "choice" }, el("input", { type: "checkbox", value: name }), name));
    this.types.replaceChildren(el("legend", {}, "Types; none chosen: all in turn"), el("div", { class: "pair" }, ...boxes));
  }

  #showWhere() {
    this.within.disabled = this.isDrawn;
    this.sizes.hidden = this.isDrawn || Boolean(this.source.like);
    this.where.querySelector("[value=drawn]").disabled = Boolean(this.source.like);
    const drawn = this.drawn.size, total = this.there ?? 0;
    this.whereNote.textContent = !this.isDrawn ? ""
      : !drawn ? "Draw a mask on a picture, with the brush or a box."
        : drawn < total ? `${drawn} of ${total} pictures have a mask; the others are left out.` : "All pictures have a mask.";
    this.#enable();
  }

  #enable() {
    const pictures = this.isDrawn ? this.drawn.size : this.there ?? 0;
    this.makeButton.disabled = !pictures;
    this.previewButton.disabled = !this.name || (this.isDrawn && !this.drawn.has(this.name));
    this.total.textContent = pictures ? counted(pictures * this.count.value, "sample") : "";
  }

  async #take(files) {
    const own = `${this.state.folder}/pictures/`;
    const place = this.folder?.startsWith(own) ? `pictures/${this.folder.slice(own.length)}` : `pictures/${nameOfNow("dropped")}`;
    const faults = [];
    let folder = null;
    for (const [i, file] of files.entries()) {
      this.chosen.textContent = `Taking in ${i + 1} of ${files.length} …`;
      try {
        ({ folder } = await api("POST", "pictures", { query: { place, name: file.name }, body: file }));
      } catch (error) {
        faults.push(error.message);
      }
    }
    if (folder || this.folder) await this.open(folder ?? this.folder);
    else this.chosen.textContent = "";
    this.pictureError.textContent = faults.join("\n");
  }

  /** Show the pictures of a folder. */
  async open(folder) {
    const found = await api("GET", "pictures", { query: { folder } });
    if (!found.total) throw new Error(`${folder}: no PNG, JPEG, TIFF or BMP in it`);
    this.folder = found.folder;
    this.there = found.total;
    this.hint.hidden = true;
    this.editor.element.hidden = this.row.hidden = false;
    this.drawn = new Set(found.drawn);
    localStorage.setItem(FOLDER, this.folder);
    this.chosen.replaceChildren(pathText(this.folder), el("p", { class: "soft" }, counted(found.total, "picture")));
    this.buttons = new Map(found.names.map((name) => [name, this.#thumb(name)]));
    this.thumbs.replaceChildren(...this.buttons.values());
    this.#showWhere();
    await this.#choose(found.names.includes(this.name) ? this.name : found.names[0]);
  }

  #thumb(name) {
    return thumbnail(this.folder, name, this.drawn.has(name), () => this.withPictures(() => this.#choose(name)), this.signal);
  }

  async #choose(name) {
    await this.keeper.pending;
    this.name = name;
    for (const [one, made] of this.buttons) made.setAttribute("aria-pressed", one === name);
    this.panes.clear();
    const picture = await opened(this.folder, name, this.signal);
    if (this.name !== name) return;
    await this.editor.setPicture(...picture);
    this.#enable();
    this.preview();
  }

  #strokeEnded() {
    this.editor.setOverlay(null);
    this.where.querySelector("[value=drawn]").checked = true;
    this.keeper.soon();
  }

  /** What was drawn goes to the studio, then a preview is of use. */
  async #keep(part) {
    await keepMask(this.folder, this.name, part, this.drawn, this.buttons);
    this.#showWhere();
    this.preview();
  }

  #options() {
    const pair = (low, high, name) => {
      const [a, b] = [low.value || high.value, high.value || low.value];
      return a ? { [name]: `${a},${b}` } : {};
    };
    const count = +this.count.value > 1 ? { count: +this.count.value } : {};
    const types = [...this.types.querySelectorAll(":checked")].map((box) => box.value);
    const size = this.source.like ? {} : pair(this.short, this.long, "size");
    const placed = this.isDrawn ? {} : { ...size, ...(this.within.value ? { within: this.within.value } : {}) };
    return {
      ...(types.length ? { defect: types.join(",") } : {}), ...pair(this.low, this.high, "strength"),
      ...(+this.seed.value ? { seed: +this.seed.value } : {}), ...count, ...placed,
    };
  }

  /** A sample with few steps at once, then the one that a dataset would hold. */
  preview() {
    this.asking?.abort();
    if (this.previewButton.disabled) return;
    this.asking = new AbortController();
    const { signal } = this.asking, source = this.source, ask = { ...this.wanted, name: this.name };
    on(this.signal, "abort", () => this.asking.abort(), { once: true });
    this.withPreview(async () => {
      const ways = source.fewest_steps < source.steps ? [source.fewest_steps, null] : [null];
      let quick = "";
      const slow = setTimeout(() => {
        this.previewState.textContent += " A large defect is painted in many parts, one after another.";
      }, SLOW);
      on(signal, "abort", () => clearTimeout(slow));
      for (const steps of ways) {
        const started = performance.now();
        this.previewState.textContent = steps ? "Making a quick sample …" : `${quick}Making it as the dataset will have it …`;
        const options = { ...this.#options(), ...(steps ? { steps } : {}) };
        try {
          const sample = await api("POST", "preview", { body: { ...ask, options }, signal });
          if (sample.fault && steps) {
            quick = "The quick sample shows no defect. ";
            continue;
          }
          await this.#showSample(sample, signal);
        } catch (error) {
          clearTimeout(slow);
          if (error.name !== "AbortError") this.previewState.textContent = "";
          throw error;
        }
        const how = `${source.like ? "" : `${steps ?? source.steps} steps, `}${((performance.now() - started) / 1000).toFixed(1)} s`;
        quick = `Quick sample, ${how}. `;
        if (!steps) clearTimeout(slow);
        this.previewState.textContent = steps ? quick : `As the dataset will have it, ${how}`;
      }
    });
  }

  async #showSample(sample, signal) {
    if (sample.fault) throw new Error(`No defect came of it: ${sample.fault}. Try another seed.`);
    const image = new Image();
    image.src = sample.pictures.result;
    await image.decode();
    if (signal.aborted) return;
    const [x, y, width, height] = sample.box;
    this.editor.showsOverlay = true;
    this.editor.setOverlay({ x, y, width, height, image });
    const { visibility, coverage, strength } = sample.figures;
    this.panes.set(sample.pictures, `${sample.defect}: visible ${percent(visibility)}, covers ${percent(coverage)}, strength ${strength?.toFixed(2) ?? "–"}`);
  }

  async #begin() {
    const format = ["mvtec", ...this.formats.filter(([, box]) => box.checked).map(([name]) => name)];
    const options = { ...this.#options(), ...(format.length > 1 ? { format: format.join(",") } : {}) };
    await this.keeper.pending;
    const body = { ...this.wanted, options };
    if (this.out.value.trim()) body.out = this.out.value.trim();
    await begin("make", body);
  }
}

function doneActions(task, place) {
  if (task.status !== "done" && task.status !== "partly done") return;
  const link = el("a", { href: `#review/${encodeURIComponent(task.out)}` }, "Review it");
  place.replaceChildren(pathText(task.out), el("div", { class: "row" }, link));
}
