/** Prove: whether made defects help a detector, and the certificate that says so. */
import { blob, button, chooseFolder, el, errors, field, on } from "./common.js";
import { begin, taskList } from "./tasks.js";

const BEFORE = "defectrt-prove";

export async function page(state, signal) {
  const before = JSON.parse(localStorage.getItem(BEFORE) ?? "{}");
  const [error, run] = errors();
  const folder = (key, name, start, note) => {
    const input = el("input", { type: "text", value: before[key] ?? "", spellcheck: "false" });
    const choose = button("Choose", () => run(async () => {
      const path = await chooseFolder(name, input.value || start);
      if (path) input.value = path;
    }), { "aria-label": `Choose: ${name}` });
    const row = el("div", { class: "row low" }, field(name, input), choose);
    return { key, input, row: el("div", { class: "column tight" }, row, note ? el("small", {}, note) : null) };
  };
  const folders = [
    folder("defects", "Real defects with masks", `${state.folder}/examples`, "a folder a type, or MVTec's layout"),
    folder("good", "Good pictures", state.start, "may be left out where the defects' folder has them"),
    folder("synthetic", "Made dataset", `${state.folder}/datasets`),
  ];
  const engine = el("select", {}, ...state.engines.map(({ name }) => el("option", { value: name }, name === "default" ? "the studio's own" : name)));
  const quick = el("input", { type: "checkbox", checked: true });
  const start = button("Prove", () => run(async () => {
    const given = Object.fromEntries(folders.map(({ key, input }) => [key, input.value.trim()]).filter(([, value]) => value));
    if (!given.defects || !given.synthetic) throw new Error("Choose real defects and a made dataset.");
    localStorage.setItem(BEFORE, JSON.stringify(given));
    await begin("prove", { ...given, engine: engine.value, quick: quick.checked });
  }), { class: "main", disabled: !state.learns });
  const frame = el("iframe", { title: "Certificate", sandbox: "", hidden: true });
  const certificate = el("section", { class: "card", "aria-label": "Certificate", hidden: true }, el("h2", {}, "Certificate"), frame);
  const show = (task) => run(async () => {
    const url = URL.createObjectURL(await blob(`tasks/${task.id}/report`, {}, signal));
    frame.src = url;
    frame.hidden = certificate.hidden = false;
    on(signal, "abort", () => URL.revokeObjectURL(url));
    certificate.scrollIntoView();
  });
  const more = (task, place) => {
    if (task.status === "done") place.replaceChildren(el("div", { class: "row" }, button("Show the certificate", () => show(task))));
  };
  const form = el("section", { class: "card", "aria-label": "What to prove" }, el("h2", {}, "Do made defects help a detector?"),
    ...folders.map(({ row }) => row), field("Engine that made them", engine),
    el("label", { class: "choice" }, quick, "Quick: one split, some eight minutes"),
    state.learns ? null : el("p", { class: "soft" }, "Proving needs more packages: pip install 'defectrt[train]'."),
    el("div", { class: "row" }, start), error);
  return el("div", { class: "page" }, el("div", { class: "column" }, form),
    el("div", { class: "column" }, el("section", { class: "card", "aria-label": "What it does" }, el("h2", {}, "What it does"),
      el("p", {}, "It trains the same small detector on real pictures alone, with cut-outs of their defects, and with made ones; tests all on real pictures that none has learned from; and says with intervals whether the made ones help.")),
    taskList(["prove"], "Proofs", signal, more), certificate));
}
