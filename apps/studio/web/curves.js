/** Curves over a common x as SVG, with a legend; nothing for none. */
import { el } from "./common.js";

const SPACE = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, BOTTOM] = [420, 180, 40, 34];
const COLOURS = ["#0b72d0", "#c77700", "#1b8a4b", "#a33bc2", "#c2343b", "#008c95", "#6b7785", "#7a5c00"];

function svg(tag, attributes, text = "") {
  const element = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

/** `lines` are lists of [x, y] by their names. */
export function curves(lines, across, upwards) {
  const named = Object.entries(lines).filter(([, points]) => points.length);
  if (!named.length) return null;
  const all = named.flatMap(([, points]) => points), right = WIDTH - 8;
  const [least, most, top] = [Math.min(...all.map(([x]) => x)), Math.max(...all.map(([x]) => x)), Math.max(...all.map(([, y]) => y)) || 1];
  const at = ([x, y]) => [LEFT + (right - LEFT) * (x - least) / Math.max(1, most - least), 10 + (HEIGHT - BOTTOM - 10) * (1 - y / top)];
  const last = named.map(([name, points]) => `${name} ${points.at(-1)[1].toPrecision(3)}`);
  const chart = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${upwards} at ${across} ${most}: ${last.join(", ")}` });
  chart.append(svg("path", { class: "axis", d: `M${LEFT} 10V${HEIGHT - BOTTOM}H${right}` }));
  for (const [x, y, text, anchor] of [[LEFT - 6, 16, top.toPrecision(2), "end"], [LEFT - 6, HEIGHT - BOTTOM, "0", "end"],
    [LEFT, HEIGHT - BOTTOM + 16, least, "start"], [right, HEIGHT - BOTTOM + 16, most, "end"], [(LEFT + right) / 2, HEIGHT - 6, across, "middle"]]) {
    chart.append(svg("text", { x, y, "text-anchor": anchor }, text));
  }
  const legend = el("p", { class: "legend" });
  named.forEach(([, points], i) => {
    const colour = COLOURS[i % COLOURS.length], mark = el("i");
    mark.style.background = colour;
    legend.append(el("span", {}, mark, last[i]));
    if (points.length === 1) chart.append(svg("circle", { cx: at(points[0])[0], cy: at(points[0])[1], r: 3, fill: colour }));
    chart.append(svg("polyline", { points: points.map((point) => at(point).join()).join(" "), stroke: colour, fill: "none", "stroke-width": 2 }));
  });
  return el("div", { class: "curves" }, chart, legend);
}
