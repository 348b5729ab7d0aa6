/** Learn: a handful of defective pictures, their masks, good ones, and an engine of one's own. */
import { api, button, chooseFolder, counted, dropPlace, el, errors, field, lazily, nameOfNow, on, pathText } from "./common.js";
import { curves } from "./curves.js";
import { Keeper, MaskEditor } from "./editor.js";
import { keepMask, opened, thumbnail } from "./pictures.js";
import { begin, taskList } from "./tasks.js";

const NAME = "defectrt-learn-name", GOOD = "defectrt-learn-good";

export async function page(state, signal) {
  const learn = new Learn(state, signal);
  await learn.withPictures(() => learn.open());
  return learn.element;
}

class Learn {
  constructor(state, signal) {
    this.state = state;
    this.signal = signal;
    this.good = localStorage.getItem(GOOD) ?? "";
    this.drawn = new Set();
    this.names = [];
    [this.pictureError, this.withPictures] = errors();
    [this.goodError, this.withGood] = errors();
    [this.learnError, this.withLearn] = errors();
    [this.drawError, this.withDrawing] = errors();
    this.editor = new MaskEditor(signal, () => this.keeper.soon());
    this.keeper = new Keeper(this.editor, (part) => this.#keep(part), (error) => { this.drawError.textContent = error.message; });
    this.element = el("div", { class: "page" },
      el("div", { class: "column" }, this.#engine(), this.#defective(), this.#goodOnes(), this.#start()),
      el("div", { class: "column" },
        this.hint = el("section", { class: "card empty next" }, el("p", {}, "Name the engine and the type of defect, add pictures that show it, and mark it in each.")),
        this.editor.element, this.drawError,
        taskList(["learn", "propose"], "Learning", signal, (task, place) => this.#more(task, place))));
    this.editor.element.classList.add("next");
    this.#enable();
  }

  #engine() {
    this.name = el("input", { type: "text", value: localStorage.getItem(NAME) ?? "my-part", list: "sets", spellcheck: "false" });
    this.type = el("input", { type: "text", value: "defect", spellcheck: "false" });
    const sets = el("datalist", { id: "sets" }, ...this.state.examples.map((name) => el("option", { value: name })));
    on(this.name, "change", () => this.withPictures(() => this.open()));
    return el("section", { class: "card first", "aria-label": "Engine" }, el("h2", {}, "Engine"),
      field("Its name", this.name), sets, field("Type of defect that you add", this.type));
  }

  #defective() {
    this.thumbs = el("div", { class: "thumbs", role: "group", "aria-label": "Defective pictures" });
    this.told = el("p", { class: "soft", role: "status" });
    this.removeButton = button("Take this one away", () => this.withPictures(async () => {
      await api("DELETE", "pictures", { query: { folder: this.folder, name: this.chosen } });
      await this.open();
    }));
    this.proposeButton = button("Propose masks", () => this.withPictures(() => begin("propose", { examples: this.set, good: this.good })));
    return el("section", { class: "card first", "aria-label": "Defective pictures" }, el("h2", {}, "Defective pictures"),
      dropPlace("Drop five or more pictures with a defect here", (files) => this.withPictures(() => this.#take(files)), this.signal),
      this.pictureError, this.thumbs, this.told, el("div", { class: "row" }, this.proposeButton, this.removeButton));
  }

  #goodOnes() {
    this.goodText = el("div");
    const input = el("input", { type: "file", multiple: true, hidden: true, accept: ".png,.jpg,.jpeg,.bmp,.tif,.tiff", "aria-label": "Good pictures" });
    on(input, "change", () => this.withGood(async () => {
      const place = `pictures/${nameOfNow("good")}`;
      for (const file of input.files) this.#setGood((await api("POST", "pictures", { query: { place, name: file.name }, body: file })).folder);
    }));
    return el("section", { class: "card", "aria-label": "Good pictures" }, el("h2", {}, "Good pictures"), this.goodText,
      el("div", { class: "row" }, button("Choose a folder", () => this.withGood(async () => {
        const path = await chooseFolder("Folder of good pictures", this.good || this.state.start);
        if (path) this.#setGood(path);
      })), button("Add pictures", () => input.click())), input, this.goodError);
  }

  #start() {
    this.steps = el("input", { type: "number", min: 1, placeholder: "chosen for you" });
    this.learnButton = button("Learn", () => this.withLearn(() => this.#learn()), { class: "main" });
    this.note = el("p", { class: "soft", role: "status" });
    return el("section", { class: "card", "aria-label": "Learning" }, el("h2", {}, "Learn"), field("Steps", this.steps), this.note,
      el("div", { class: "row" }, this.learnButton), this.learnError);
  }

  #setGood(path) {
    this.good = path;
    localStorage.setItem(GOOD, path);
    this.#enable();
  }

  #enable() {
    const marked = this.names.filter((name) => this.drawn.has(name)).length, all = this.names.length;
    this.goodText.replaceChildren(this.good ? pathText(this.good) : el("p", { class: "soft" }, "None yet; they say what a good surface looks like."));
    this.told.textContent = all ? `${marked} of ${counted(all, "picture")} marked. Draw on the defect, or have it proposed and correct it.` : "";
    this.proposeButton.disabled = !this.good || marked === all;
    this.removeButton.disabled = !all;
    this.learnButton.disabled = !all || !this.good || !this.state.learns;
    this.note.textContent = !this.state.learns ? "Learning needs more packages: pip install 'defectrt[export]'."
      : !all ? "Add defective pictures first." : !this.good ? "Choose good pictures first."
        : marked < all ? "Masks that are missing are proposed before it begins."
          : "Without learning, Make can put these very defects onto other pictures at once.";
  }

  async #take(files) {
    const type = this.type.value.trim(), faults = [];
    if (!type) throw new Error("Name the type of defect first.");
    for (const file of files) {
      try {
        await api("POST", "pictures", { query: { place: `examples/${this.name.value.trim()}/${type}`, name: file.name }, body: file });
      } catch (error) {
        faults.push(error.message);
      }
    }
    await this.open();
    this.pictureError.textContent = faults.join("\n");
  }

  /** Show what was added to a set before. */
  async open() {
    this.set = this.name.value.trim();
    localStorage.setItem(NAME, this.set);
    this.folder = `${this.state.folder}/examples/${this.set}`;
    const { examples } = await api("GET", "state");
    const found = examples.includes(this.set) ? await api("GET", "pictures", { query: { folder: this.folder } }) : { names: [], drawn: [] };
    this.names = found.names;
    this.drawn = new Set(found.drawn);
    this.buttons = new Map(found.names.map((name) => [name, this.#thumb(name)]));
    this.thumbs.replaceChildren(...this.buttons.values());
    this.editor.element.hidden = !(this.hint.hidden = found.names.length > 0);
    this.#enable();
    if (found.names.length) await this.#choose(found.names.includes(this.chosen) ? this.chosen : found.names[0]);
  }

  #thumb(name) {
    return thumbnail(this.folder, name, this.drawn.has(name), () => this.withPictures(() => this.#choose(name)), this.signal);
  }

  async #choose(name) {
    await this.keeper.pending;
    this.chosen = name;
    for (const [one, made] of this.buttons) made.setAttribute("aria-pressed", one === name);
    const picture = await opened(this.folder, name, this.signal);
    if (this.chosen === name) await this.editor.setPicture(...picture);
  }

  async #keep(part) {
    await keepMask(this.folder, this.chosen, part, this.drawn, this.buttons);
    this.#enable();
  }

  async #learn() {
    await this.keeper.pending;
    const steps = +this.steps.value ? { steps: +this.steps.value } : {};
    await begin("learn", { examples: this.set, good: this.good, name: this.set, ...steps });
  }

  /** What is special to a task: masks that were proposed, or curves and pictures of a training. */
  async #more(task, place) {
    const isOver = task.status !== "running" && task.status !== "waiting";
    if (task.kind === "propose") {
      if (isOver && place.dataset.seen !== task.status && task.title === this.set) await this.withPictures(() => this.open());
      place.dataset.seen = task.status;
      return;
    }
    if (task.status === "waiting") return;
    const now = await api("GET", `tasks/${task.id}/learning`).catch(() => null);
    if (!now) return;
    const picture = now.sheet ? "sheet" : now.preview ? "preview" : "";
    const key = `${picture}${now.preview}`;
    if (picture && place.dataset.picture !== key) {
      place.dataset.picture = key;
      const text = now.sheet ? "Real defects beside made ones" : "Original, mask and result after these steps";
      place.picture = el("figure", { class: "shown" }, lazily(el("img", { alt: text }), `tasks/${task.id}/${picture}`, {}, this.signal), el("figcaption", { class: "soft" }, text));
    }
    const lines = { ...now.curves, ...(now.held_out.length ? { "held back": now.held_out } : {}) };
    const use = task.status === "done" ? el("p", {}, el("a", { href: "#make" }, `Use it under Make, as ${task.title}`)) : null;
    place.replaceChildren(...[curves(lines, "step", "loss"), place.picture, use].filter(Boolean));
  }
}
