/** The studio: which page is shown, and what keeps watch over running commands. */
import { api, el, hasToken, keepToken, on } from "./common.js";
import { watch } from "./tasks.js";

const pages = {
  make: () => import("./make.js"),
  learn: () => import("./learn.js"),
  review: () => import("./review.js"),
  prove: () => import("./prove.js"),
};
const main = document.getElementById("page");
let leave = null;

async function show() {
  const [name, argument] = location.hash.slice(1).split("/");
  const known = pages[name] ? name : "make";
  for (const link of document.querySelectorAll(".top nav a")) {
    if (link.hash === `#${known}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  leave?.abort();
  leave = new AbortController();
  const { signal } = leave;
  document.title = `${known[0].toUpperCase()}${known.slice(1)} · defectrt studio`;
  try {
    const [module, state] = await Promise.all([pages[known](), api("GET", "state")]);
    if (signal.aborted) return;
    const made = await module.page(state, signal, decodeURIComponent(argument ?? ""));
    if (signal.aborted) return;
    main.replaceChildren(made);
    scrollTo(0, 0);
  } catch (error) {
    if (!signal.aborted) main.replaceChildren(error.status === 401 ? askForToken() : failure(error));
  }
}

function failure(error) {
  const again = el("button", { type: "button" }, "Try again");
  on(again, "click", show);
  return el("div", { class: "page wide" }, el("section", { class: "card" },
    el("p", { class: "error", role: "alert" }, error.message), el("div", { class: "row" }, again)));
}

function askForToken() {
  const field = el("input", { type: "text", id: "token", autocomplete: "off", spellcheck: "false" });
  const form = el("form", { class: "card" }, el("h2", {}, "Whose studio is this?"),
    el("p", {}, "Open the link that the terminal shows, or give its token here."),
    el("label", { class: "field" }, "Token", field),
    el("div", { class: "row" }, el("button", { class: "main" }, "Open")));
  on(form, "submit", (event) => {
    event.preventDefault();
    keepToken(field.value.trim());
    start();
  });
  return el("div", { class: "page wide" }, form);
}

function start() {
  if (!hasToken()) main.replaceChildren(askForToken());
  else {
    show();
    watch(document.getElementById("busy"));
  }
}

if (location.hash.startsWith("#token=")) {
  keepToken(location.hash.slice("#token=".length));
  history.replaceState(null, "", "#make");
}
on(window, "hashchange", () => show().then(() => main.focus({ preventScroll: true })));
start();
