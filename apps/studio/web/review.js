/** Review: every sample of a finished dataset; keep or refuse, correct labels, carry it out. */
import { api, blob, button, chooseFolder, counted, el, errors, field, on, pathText, percent } from "./common.js";
import { MaskEditor, strokeOf } from "./editor.js";
import { Panes } from "./panes.js";

const PER_PAGE = 48;
const NAME = "defectrt-name", OUT = "defectrt-review-out";
const SORTS = { "": "name", visibility: "visibility", coverage: "coverage", strength: "strength", refined_area: "area" };

export async function page(state, signal, argument) {
  const review = new Review(state, signal);
  const out = argument || localStorage.getItem(OUT);
  if (out) await review.withDataset(() => review.open(out));
  return review.element;
}

class Review {
  constructor(state, signal) {
    this.state = state;
    this.signal = signal;
    this.samples = [];
    this.decided = new Map();
    this.past = [];
    this.cutOuts = new Map();
    this.number = 0;
    [this.datasetError, this.withDataset] = errors();
    [this.decideError, this.withDecisions] = errors();
    this.grid = el("div", { class: "grid", role: "group", "aria-label": "Samples" });
    this.told = el("p", { class: "soft", role: "status" });
    this.before = button("Previous", () => this.#turn(-1));
    this.after = button("Next", () => this.#turn(1));
    this.element = el("div", { class: "page" },
      el("div", { class: "column" }, this.#dataset(), this.filters = this.#filters(), this.decisions = this.#decisions()),
      el("div", { class: "column" }, this.head = el("div", { class: "row apart" }, this.told, el("div", { class: "row" }, this.before, this.after)), this.grid));
    on(this.grid, "keydown", (event) => this.#key(event));
    on(document, "keydown", (event) => {
      if ((event.ctrlKey || event.metaKey) && event.key === "z" && !event.target.closest?.("dialog, input")) { event.preventDefault(); this.undo(); }
    }, { signal });
    on(window, "beforeunload", (event) => { if (this.decided.size) event.preventDefault(); }, { signal });
    this.#hideAll(true);
  }

  #dataset() {
    this.path = el("div");
    return el("section", { class: "card first", "aria-label": "Dataset" }, el("h2", {}, "Dataset"), this.path,
      el("div", { class: "row" }, button("Choose a dataset", () => this.withDataset(async () => {
        const out = await chooseFolder("A finished dataset", this.out ?? `${this.state.folder}/datasets`);
        if (out) await this.open(out);
      }))), this.datasetError);
  }

  #filters() {
    const many = (entries) => entries.map(([value, text]) => el("option", { value }, text));
    this.type = el("select");
    this.which = el("select", {}, ...many([["", "all"], ["kept", "kept"], ["refused", "refused"], ["corrected", "with a corrected label"]]));
    const least = (name) => el("input", { type: "number", min: 0, step: "any", placeholder: "any", "aria-label": `${name}, at least` });
    this.least = { visibility: least("Visibility in %"), coverage: least("Coverage in %"), strength: least("Strength"), refined_area: least("Area in px") };
    this.sort = el("select", {}, ...many(Object.entries(SORTS)));
    this.order = el("select", { "aria-label": "Order" }, ...many([["1", "ascending"], ["-1", "descending"]]));
    const card = el("section", { class: "card", "aria-label": "Filters" }, el("h2", {}, "Show"),
      el("div", { class: "pair" }, field("Type", this.type), field("Samples", this.which),
        field("Visible from, %", this.least.visibility), field("Covers from, %", this.least.coverage),
        field("Strength from", this.least.strength), field("Area from, px", this.least.refined_area),
        field("Sort by", this.sort), field("Order", this.order)));
    on(card, "input", () => { this.number = 0; this.draw(); });
    return card;
  }

  #decisions() {
    this.by = el("input", { type: "text", maxlength: 200, autocomplete: "name", value: localStorage.getItem(NAME) ?? "" });
    this.pending = el("p", { class: "soft", role: "status" });
    this.undoButton = button("Undo", () => this.undo(), { title: "Ctrl Z" });
    this.carry = button("Carry out", () => this.withDecisions(() => this.#carryOut()), { class: "main" });
    return el("section", { class: "card", "aria-label": "Decisions" }, el("h2", {}, "Decisions"), field("Decided by", this.by),
      this.pending, el("div", { class: "row" }, this.carry, this.undoButton), this.decideError,
      el("p", { class: "soft" }, "Arrow keys move, R refuses, K keeps, E corrects the label, F shows before and after, Enter enlarges."));
  }

  #hideAll(hidden) {
    this.filters.hidden = this.decisions.hidden = this.head.hidden = hidden;
    if (hidden) this.grid.replaceChildren(el("p", { class: "empty" }, "Choose a dataset that was made, here or with defectrt synthesize."));
  }

  /** Show a dataset. */
  async open(out) {
    const found = await api("GET", "dataset", { query: { out } });
    this.out = found.out;
    localStorage.setItem(OUT, this.out);
    this.samples = found.samples;
    this.cutOuts.clear();
    this.path.replaceChildren(pathText(this.out));
    const types = [...new Set(this.samples.map((s) => s.defect_type))].sort();
    const chosen = this.type.value;
    this.type.replaceChildren(el("option", { value: "" }, "all"), ...types.map((name) => el("option", { value: name }, name)));
    this.type.value = types.includes(chosen) ? chosen : "";
    this.#hideAll(false);
    this.draw();
  }

  /** Whether a sample is in the dataset, by what is decided or else by what is. */
  #isKept(sample) {
    return this.decided.get(sample.image)?.keep ?? !sample.refused;
  }

  #isCorrected(sample) {
    const decided = this.decided.get(sample.image);
    return decided?.label ? true : !decided?.as_made && Boolean(sample.label_by);
  }

  #fits(sample) {
    const from = (name, scale) => !this.least[name].value || scale * (sample[name] ?? 0) >= +this.least[name].value;
    const which = { "": true, kept: this.#isKept(sample), refused: !this.#isKept(sample), corrected: this.#isCorrected(sample) };
    return (!this.type.value || sample.defect_type === this.type.value) && which[this.which.value]
      && from("visibility", 100) && from("coverage", 100) && from("strength", 1) && from("refined_area", 1);
  }

  draw() {
    const key = this.sort.value, order = +this.order.value;
    this.found = this.samples.filter((sample) => this.#fits(sample));
    if (key) this.found.sort((a, b) => order * ((a[key] ?? -1) - (b[key] ?? -1)));
    else if (order < 0) this.found.reverse();
    const pages = Math.max(1, Math.ceil(this.found.length / PER_PAGE));
    this.number = Math.min(this.number, pages - 1);
    const here = this.found.slice(this.number * PER_PAGE, (this.number + 1) * PER_PAGE);
    this.seen?.disconnect();
    this.seen = new IntersectionObserver((entries) => entries.filter((e) => e.isIntersecting).forEach((e) => { this.seen.unobserve(e.target); e.target.fill(); }), { rootMargin: "400px" });
    this.cards = here.map((sample) => this.#card(sample));
    this.grid.replaceChildren(...this.cards);
    if (!here.length) this.grid.append(el("p", { class: "empty" }, "No sample fits."));
    this.cards[0]?.setAttribute("tabindex", "0");
    this.told.textContent = `${this.found.length} of ${counted(this.samples.length, "sample")}${pages > 1 ? `, page ${this.number + 1} of ${pages}` : ""}`;
    this.before.hidden = this.after.hidden = pages < 2;
    this.before.disabled = this.number === 0;
    this.after.disabled = this.number === pages - 1;
    this.#tell();
  }

  #turn(by) {
    this.number += by;
    this.draw();
  }

  #card(sample) {
    const image = el("img", { alt: "" });
    const state = el("span"), name = sample.image.split("/").pop().replace(/\.png$/, "");
    const title = `${sample.defect_type} ${name}`;
    const refuse = button("Refuse", () => this.decide(sample, { keep: !this.#isKept(sample) }));
    const card = el("article", { class: "sample", tabindex: "-1", role: "group" }, image,
      el("div", { class: "row apart" }, el("h3", {}, title), state),
      el("p", { class: "soft" }, `visible ${percent(sample.visibility)}, covers ${percent(sample.coverage)}${sample.strength == null ? "" : `, strength ${sample.strength.toFixed(2)}`}`),
      el("div", { class: "row" }, refuse, named("Label", () => this.edit(sample), `Correct the label of ${title}`), named("Enlarge", () => this.enlarge(sample), `Enlarge ${title}`)));
    Object.assign(card, {
      sample,
      show: () => {
        const kept = this.#isKept(sample), corrected = this.#isCorrected(sample);
        card.classList.toggle("refused", !kept);
        card.classList.toggle("decided", this.decided.has(sample.image));
        state.textContent = [kept ? "" : "refused", corrected ? "corrected" : ""].filter(Boolean).join(", ");
        state.title = sample.refused || (sample.label_by && `label by ${sample.label_by}`) || "";
        refuse.textContent = kept ? "Refuse" : "Keep";
        refuse.setAttribute("aria-label", `${kept ? "Refuse" : "Keep"} ${title}`);
        refuse.disabled = Boolean(this.decided.get(sample.image)?.label);
        card.setAttribute("aria-label", `${title}, ${kept ? "kept" : "refused"}`);
      },
      fill: async () => {
        try {
          const { images } = await this.#cutOut(sample);
          image.src = images.image;
          on(card, "mouseenter", () => { image.src = images.good; });
          on(card, "mouseleave", () => { image.src = images.image; });
          card.flicker = () => { image.src = image.src === images.good ? images.image : images.good; };
        } catch (error) {
          if (error.name !== "AbortError") image.replaceWith(el("p", { class: "error" }, error.message));
        }
      },
    });
    on(card, "focusin", () => { for (const one of this.cards) one.setAttribute("tabindex", one === card ? "0" : "-1"); });
    card.show();
    this.seen.observe(card);
    return card;
  }

  async #cutOut(sample) {
    if (!this.cutOuts.has(sample.image)) {
      this.cutOuts.set(sample.image, await api("GET", "sample", { query: { out: this.out, image: sample.image }, signal: this.signal }));
    }
    return this.cutOuts.get(sample.image);
  }

  #key(event) {
    const card = event.target.closest(".sample");
    if (!card || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = this.cards.indexOf(card);
    const columns = getComputedStyle(this.grid).gridTemplateColumns.split(" ").length;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    const key = event.key.toLowerCase();
    if (by) this.cards[at + by]?.focus();
    else if (key === "r" || key === "k") {
      this.decide(card.sample, { keep: key === "k" });
      this.cards[at + 1]?.focus();
    } else if (key === "e") this.edit(card.sample);
    else if (key === "f") card.flicker?.();
    else if (event.key === "Enter" && event.target === card) this.enlarge(card.sample);
    else return;
    event.preventDefault();
  }

  /** Decide on a sample; what is as it was before is no decision. */
  decide(sample, change) {
    const before = this.decided.get(sample.image);
    const next = { keep: !sample.refused, ...before, ...change };
    if (!next.keep) next.label = next.as_made = undefined;
    this.past.push([sample.image, before]);
    this.#set(sample.image, next.keep === !sample.refused && !next.label && !next.as_made ? undefined : next);
  }

  undo() {
    if (!this.past.length) return;
    this.#set(...this.past.pop());
  }

  #set(image, decision) {
    if (decision) this.decided.set(image, decision);
    else this.decided.delete(image);
    this.cards.find((card) => card.sample.image === image)?.show();
    this.#tell();
  }

  #tell() {
    const all = [...this.decided.values()];
    const words = [[all.filter((d) => !d.keep).length, "to refuse"], [all.filter((d) => d.keep && !d.label && !d.as_made).length, "to bring back"],
      [all.filter((d) => d.label || d.as_made).length, "to get another label"]].filter(([n]) => n).map(([n, what]) => `${n} ${what}`);
    this.pending.textContent = words.join(", ") || "Nothing decided yet.";
    this.carry.disabled = !all.length;
    this.undoButton.disabled = !this.past.length;
  }

  async #carryOut() {
    const by = this.by.value.trim();
    if (!by) {
      this.by.focus();
      throw new Error("Whose decisions are these? Give a name.");
    }
    localStorage.setItem(NAME, by);
    const decisions = [...this.decided].map(([image, decision]) => ({ image, ...decision }));
    this.carry.disabled = true;
    try {
      const done = await api("POST", "review", { body: { out: this.out, by, decisions } });
      this.past = decisions.map(({ image, keep, label, as_made }) => [image, as_made ? null : label ? { keep, as_made: true } : { keep: !keep }])
        .filter(([, decision]) => decision);
      this.decided.clear();
      await this.open(this.out);
      this.pending.textContent = `Done: ${done.refused} refused, ${done.restored} brought back, ${done.relabelled} with another label.`;
    } finally {
      this.carry.disabled = !this.decided.size;
    }
  }

  async enlarge(sample) {
    await this.withDecisions(async () => {
      const { images, box, size } = await this.#cutOut(sample);
      const ends = new AbortController(), panes = new Panes(ends.signal, this.state.gain);
      panes.set({ good: images.good, result: images.image, label: images.label, difference: images.difference },
        `${box[2]} × ${box[3]} px at (${box[0]}, ${box[1]}) of ${size[0]} × ${size[1]}; made from ${sample.source}`);
      const dialog = el("dialog", { class: "large", "aria-label": `${sample.defect_type} ${sample.image}` }, panes.element);
      const end = () => { ends.abort(); dialog.remove(); };
      dialog.append(el("div", { class: "row" }, button("Close", () => dialog.close(), { class: "main" })));
      on(dialog, "close", end);
      on(dialog, "keydown", (event) => { if (event.key.toLowerCase() === "f") panes.flicker(); });
      document.body.append(dialog);
      dialog.showModal();
    });
  }

  /** Correct the label of a sample in the mask editor. */
  async edit(sample) {
    await this.withDecisions(async () => {
      if (!this.#isKept(sample)) throw new Error("It is refused; keep it before you correct its label.");
      const folder = sample.refused ? `${this.out}/refused` : this.out;
      const [picture, drawn] = await Promise.all([blob("picture", { folder, name: sample.image }, this.signal),
        this.decided.get(sample.image)?.label ?? api("GET", "label", { query: { out: this.out, image: sample.image } })]);
      const ends = new AbortController(), editor = new MaskEditor(ends.signal);
      const [error, run] = errors();
      const dialog = el("dialog", { class: "large", "aria-label": `Label of ${sample.defect_type} ${sample.image}` }, editor.element, error);
      const use = () => run(async () => {
        const label = await editor.part();
        if (!label) throw new Error("A label cannot be empty; refuse the sample instead.");
        this.decide(sample, { keep: true, label, as_made: false });
        dialog.close();
      });
      dialog.append(el("div", { class: "row" }, button("Use this label", use, { class: "main" }),
        sample.label_by ? button("As it was made", () => { this.decide(sample, { label: undefined, as_made: true }); dialog.close(); }) : null,
        button("Cancel", () => dialog.close())));
      on(dialog, "close", () => { ends.abort(); dialog.remove(); });
      document.body.append(dialog);
      dialog.showModal();
      await new Promise(requestAnimationFrame);
      await editor.setPicture(await createImageBitmap(picture), [await strokeOf(drawn)]);
      const box = (await this.#cutOut(sample)).box;
      editor.look(...box);
    });
  }
}

const named = (text, act, label) => button(text, act, { "aria-label": label });
