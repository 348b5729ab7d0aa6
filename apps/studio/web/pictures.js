/** Pictures with masks, as more than one page shows them: their thumbnails, opening one, keeping what was drawn. */
import { api, blob, button, el, lazily } from "./common.js";
import { strokeOf } from "./editor.js";

/** A button with a small picture; `choose` gets its name. */
export function thumbnail(folder, name, isDrawn, choose, signal) {
  const image = lazily(el("img", { alt: "" }), "picture", { folder, name, side: 96 }, signal);
  const made = button("", () => choose(name), { "aria-label": name, title: name });
  made.append(image);
  made.classList.toggle("drawn", isDrawn);
  return made;
}

/** A picture and the strokes of its mask, for the editor. */
export async function opened(folder, name, signal) {
  const query = { folder, name };
  const [picture, mask] = await Promise.all([blob("picture", query, signal), api("GET", "mask", { query })]);
  return [await createImageBitmap(picture), mask.png ? [await strokeOf(mask)] : []];
}

/** Keep what was drawn, or that nothing is; `drawn` are the names of pictures with a mask, `buttons` their thumbnails. */
export async function keepMask(folder, name, part, drawn, buttons) {
  await api("PUT", "mask", { body: { folder, name, ...(part ?? {}) } });
  if (part) drawn.add(name);
  else drawn.delete(name);
  buttons.get(name)?.classList.toggle("drawn", Boolean(part));
}
