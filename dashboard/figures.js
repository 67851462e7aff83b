/* Figures as tables with bars, and as a chart over time with axes. */
import { el, svg, timeText } from "./dom.js";
import { count } from "./model.js";

/** Draws rows as a table, with a bar for the member `measure`. A column is [its label, how a number is told, what it
    leads to or says of the row, what stands behind it]; without the second it is text. */
export function figures(measure, columns) {
  const heads = Object.values(columns).map(([label, format]) => el("th", format ? "right" : "", label));
  return (rows) => {
    const most = Math.max(1e-9, ...rows.map((row) => row[measure] ?? 0));
    const cellOf = (row) => ([name, [, format, shown, behind]]) => {
      const value = row[name] ?? null, isUnknown = value === null && format?.length < 2;
      return Object.assign(el("td", format ? "right" : "", format ? isUnknown ? "–" : format(value, row) : shown ? shown(value, row) : value ?? "unknown"), { title: behind?.(row) ?? "" });
    };
    const barOf = (row) => { const bar = el("i"); bar.style.width = `${100 * (row[measure] ?? 0) / most}%`; return el("td", "bar-cell", bar); };
    const line = ([first, ...rest], bar) => el("tr", "", first, bar, ...rest);
    return el("table", "figures", el("thead", "", line(heads, el("th", "bar-cell", el("span", "unseen", `Share of ${measure}`)))),
      el("tbody", "", ...rows.map((row) => line(Object.entries(columns).map(cellOf(row)), barOf(row)))));
  };
}

/** Bars over time, [{at, number, words}], against a line of those of the time before; `pick` is told the bar that is chosen. */
export function chart(bars, { label, step, before = [], pick }) {
  const most = topOf(Math.max(1, ...[...bars, ...before].map(({ number }) => number))), tip = el("p", "dim tip", label), wide = bars.length * 10, tallOf = (number) => 100 * number / most;
  const picture = svg("svg", { viewBox: `0 0 ${wide} 100`, preserveAspectRatio: "none", role: "img", "aria-label": label }, ...[25, 50, 75].map((y) => svg("line", { x1: 0, x2: wide, y1: y, y2: y })),
    ...bars.map(({ number }, i) => svg("rect", { x: i * 10 + 1, width: 8, y: 100 - tallOf(number), height: number && Math.max(1.5, tallOf(number)) })),
    before.some(({ number }) => number) ? svg("polyline", { class: "before", points: before.map(({ number }, i) => `${i * 10 + 5},${100 - tallOf(number)}`).join(" ") }) : "");
  const barAt = ({ clientX }) => { const { left, width } = picture.getBoundingClientRect(); return bars[Math.min(bars.length - 1, Math.max(0, Math.floor(bars.length * (clientX - left) / width)))]; };
  picture.onpointermove = (event) => { const bar = barAt(event); tip.textContent = `${timeText(bar.at)}: ${bar.words}`; };
  picture.onpointerleave = () => { tip.textContent = label; };
  picture.onclick = (event) => pick(barAt(event));
  const begin = bars[0].at, long = bars.at(-1).at + step * 1000 - begin, spans = (texts) => texts.map((text) => el("span", "", text));
  return el("div", "chart-of", tip, el("div", "scale", ...spans([most, most / 2, 0].map(count))), picture,
    el("p", "axis", ...spans([0, 1, 2, 3, 4].map((part) => timeText(begin + part * long / 4).replace(/:\d\d$/, "")))));
}
/** The next round number. */
function topOf(number) {
  const size = 10 ** Math.floor(Math.log10(number));
  return [1, 2, 4, 5, 10].find((by) => by * size >= number) * size;
}
