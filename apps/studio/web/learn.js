import { el } from "./common.js";
export const page = async () => el("div", { class: "page wide" }, el("p", { class: "empty" }, "Not here yet."));
