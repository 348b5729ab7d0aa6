/** What all pages use: elements, requests with the token, pictures, folders. */

const TOKEN = "defectrt-token";

export const keepToken = (token) => localStorage.setItem(TOKEN, token);
export const hasToken = () => Boolean(localStorage.getItem(TOKEN));
export const on = (target, type, act, options) => target.addEventListener(type, act, options);
export const percent = (x) => x == null ? "–" : `${(100 * x).toFixed(1)} %`;

/** An element with attributes and children; strings become text, never markup. */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("aria-")) element.setAttribute(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export function button(text, act, attributes = {}) {
  const made = el("button", { type: "button", ...attributes }, text);
  on(made, "click", act);
  return made;
}

export const field = (name, input, note) =>
  el("label", { class: "field" }, name, input, note && el("small", {}, note));

async function asked(method, path, query, body, signal) {
  const address = `/v1/studio/${path}?${new URLSearchParams(query ?? {})}`;
  const headers = { Authorization: `Bearer ${localStorage.getItem(TOKEN)}` };
  const isData = body instanceof Blob;
  if (body && !isData) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(address, { method, headers, signal, body: body && !isData ? JSON.stringify(body) : body });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The studio does not answer. Is its terminal still open?");
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  const failed = new Error(told.error?.message ?? `The studio answered ${answer.status}.`);
  failed.status = answer.status;
  throw failed;
}

/** JSON from the studio. Throws an `Error` with a sentence for people. */
export async function api(method, path, { query, body, signal } = {}) {
  return (await asked(method, path, query, body, signal)).json();
}

/** Bytes from the studio, as a Blob. */
export async function blob(path, query, signal) {
  return (await asked("GET", path, query, null, signal)).blob();
}

/** Give an image a picture of the studio's once it comes into view. */
export function lazily(image, path, query, signal) {
  const seen = new IntersectionObserver(async ([entry]) => {
    if (!entry.isIntersecting) return;
    seen.disconnect();
    try {
      const url = URL.createObjectURL(await blob(path, query, signal));
      on(image, "load", () => URL.revokeObjectURL(url), { once: true });
      image.src = url;
    } catch (error) {
      if (error.name !== "AbortError") image.alt = `${image.alt}: ${error.message}`;
    }
  });
  seen.observe(image);
  on(signal, "abort", () => seen.disconnect());
  return image;
}

/** A place for an error beside what it is of; returns it and what runs an action so. */
export function errors() {
  const place = el("p", { class: "error", role: "alert" });
  const run = async (act) => {
    place.textContent = "";
    try {
      return await act();
    } catch (error) {
      if (error.name !== "AbortError") place.textContent = error.message;
    }
  };
  return [place, run];
}

/** A dialog in which a folder of this machine is chosen; its path, or null. */
export function chooseFolder(title, start) {
  return new Promise((resolve) => {
    const [error, run] = errors();
    const path = el("input", { type: "text", spellcheck: "false", "aria-label": "Path of the folder" });
    const list = el("ul", { class: "folders", "aria-label": "Folders in it" });
    const dialog = el("dialog", { "aria-label": title });
    let here = start, latest = start;
    const open = (to) => run(async () => {
      latest = path.value = to;
      const found = await api("GET", "listing", { query: { path: to } });
      if (latest !== to) return;
      here = found.path;
      if (path.value === to) path.value = here; // or else something was typed meanwhile
      const row = (name, target) => el("li", {}, button(name, () => open(target)));
      const inside = (name) => `${found.path.replace(/[/\\]$/, "")}/${name}`;
      list.replaceChildren(row("↑ The folder above", found.parent), ...found.folders.map((name) => row(name, inside(name))));
    });
    const end = (value) => { dialog.close(); dialog.remove(); resolve(value); };
    const form = el("form", { class: "row" }, path, el("button", {}, "Go"));
    path.style.flex = "1";
    on(form, "submit", (event) => { event.preventDefault(); open(path.value); });
    on(dialog, "cancel", () => end(null));
    dialog.append(el("h2", {}, title), form, error, list, el("div", { class: "row" },
      button("Use this folder", () => run(async () => {
        if (path.value !== here) await api("GET", "listing", { query: { path: path.value } });
        end(path.value);
      }), { class: "main" }), button("Cancel", () => end(null))));
    document.body.append(dialog);
    dialog.showModal();
    open(start);
  });
}

/** Where pictures are dropped or picked; `take` gets their files. */
export function dropPlace(text, take, signal, ...others) {
  const input = el("input", { type: "file", multiple: true, hidden: true, accept: ".png,.jpg,.jpeg,.bmp,.tif,.tiff", "aria-label": "Pictures" });
  on(input, "change", () => { take([...input.files]); input.value = ""; });
  const place = el("div", { class: "drop" }, el("p", { class: "soft" }, text),
    el("div", { class: "row" }, button("Add pictures", () => input.click()), ...others), input);
  const page = document.body;
  on(page, "dragover", (event) => { event.preventDefault(); page.classList.add("dragging"); }, { signal });
  on(page, "dragleave", (event) => { if (!event.relatedTarget) page.classList.remove("dragging"); }, { signal });
  on(page, "drop", (event) => {
    event.preventDefault();
    page.classList.remove("dragging");
    take([...event.dataTransfer.files]);
  }, { signal });
  return place;
}

/** A folder's path, its end in view. */
export const pathText = (path) => el("p", { class: "path soft", title: path }, el("bdi", {}, path));

/** A number of things: "1 sample", "4 samples". */
export const counted = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

/** A name for what is made now. */
export function nameOfNow(prefix) {
  const now = new Date(), two = (n) => String(n).padStart(2, "0");
  return `${prefix}-${two(now.getMonth() + 1)}${two(now.getDate())}-${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`;
}

/** Calls `act` once nothing has asked for it for so many milliseconds. */
export function later(act, wait) {
  let timer = 0;
  return () => { clearTimeout(timer); timer = setTimeout(act, wait); };
}
