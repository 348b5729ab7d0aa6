/** Commands that run in the background: how far they are, what they said, and their end. */
import { api, button, el, errors } from "./common.js";

const SECOND = 1000;
const TITLES = { make: "", propose: "Masks of ", learn: "Engine ", prove: "Proof of " };
const WORDS = { make: "Making", propose: "Proposing masks for", learn: "Learning", prove: "Proving" };
const isOver = (task) => task.status !== "waiting" && task.status !== "running";
const listeners = new Set();
let watching = false;

/** Look at all tasks again and again; the header says what runs. */
export function watch(header) {
  if (watching) return;
  watching = true;
  let wait = SECOND;
  const look = async () => {
    try {
      const tasks = await api("GET", "tasks");
      const open = tasks.filter((task) => !isOver(task));
      const runs = open.find((task) => task.status === "running");
      header.textContent = runs ? `${WORDS[runs.kind]} ${runs.title}${share(runs)}` : "";
      for (const listener of listeners) listener(tasks);
      wait = open.length ? SECOND : 3 * SECOND;
    } catch (error) {
      header.textContent = error.status === 401 ? "" : "The studio does not answer";
    }
    timer = setTimeout(look, wait);
  };
  let timer = 0;
  soon = () => { clearTimeout(timer); look(); };
  look();
}
let soon = () => {};

const share = (task) => task.total ? `, ${Math.floor(100 * task.done / task.total)} %` : "";

function clock(seconds) {
  const minutes = Math.floor(seconds / 60);
  return minutes ? `${minutes} min ${Math.round(seconds % 60)} s` : `${Math.round(seconds)} s`;
}

/** Time that is left: the command's own word, or by what it took so far. */
function left(task) {
  const own = task.figures.match(/\bleft (\d[\d:]*)/);
  if (own) return `, ${own[1]} left`;
  if (!task.done || task.done >= task.total) return "";
  return `, about ${clock(task.seconds * (task.total - task.done) / task.done)} left`;
}

function told(task) {
  if (task.status === "waiting") return "waits for its turn";
  if (task.status !== "running") return `${task.status}, ${clock(task.seconds)}`;
  return `${task.stage || "starts"} ${task.total ? `${task.done} of ${task.total}` : ""}${left(task)}`;
}

/** The last line of what a command said that is an error. */
function wrong(task) {
  const found = task.said.split(/^error: /m).pop();
  return task.status === "failed" ? found.trim() : "";
}

/** The list of one kind of task; `more` gives each what is special to its kind. */
export function taskList(kinds, title, signal, more = () => []) {
  const list = el("div", { class: "column" });
  const element = el("section", { class: "card", "aria-label": title, hidden: true }, el("h2", {}, title), list);
  const cards = new Map();
  const listener = (tasks) => {
    const own = tasks.filter((task) => kinds.includes(task.kind)).slice(0, 8);
    element.hidden = !own.length;
    for (const task of own) {
      if (!cards.has(task.id)) cards.set(task.id, card(task, more));
      cards.get(task.id).update(task);
    }
    const wanted = own.map((task) => cards.get(task.id).element);
    if (wanted.some((one, i) => list.children[i] !== one)) list.replaceChildren(...wanted);
  };
  listeners.add(listener);
  signal.addEventListener("abort", () => listeners.delete(listener));
  soon();
  return element;
}

function card(task, more) {
  const [error, run] = errors();
  const status = el("p", { class: "soft" }), bar = el("progress", { max: 1, "aria-label": `${task.title}: progress` });
  const fault = el("p", { class: "error" }), said = el("pre", { tabindex: "0", "aria-label": "What the command said" }), extra = el("div", { class: "column" });
  const stop = button("Stop", () => run(async () => { await api("DELETE", `tasks/${task.id}`); soon(); }), { "aria-label": `Stop ${task.title}` });
  const element = el("article", { class: "task" }, el("div", { class: "row apart" }, el("h3", {}, `${TITLES[task.kind]}${task.title}`), stop),
    status, bar, fault, extra, error,
    el("details", {}, el("summary", {}, "Command and what it said"), el("code", {}, task.command), said));
  let last = "";
  const update = (now) => {
    const key = JSON.stringify(now);
    if (key === last) return;
    last = key;
    status.textContent = told(now);
    status.className = { done: "done", failed: "failed" }[now.status] ?? "soft";
    bar.hidden = stop.hidden = isOver(now);
    if (now.total) bar.value = now.done / now.total;
    fault.textContent = wrong(now);
    said.textContent = now.said;
    said.hidden = !now.said;
    more(now, extra);
  };
  return { element, update };
}

/** Begin a command; its list shows it at once. */
export async function begin(kind, body) {
  const task = await api("POST", kind, { body });
  soon();
  return task;
}
