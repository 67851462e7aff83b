/* Figures as tables with bars, and as a chart over time with axes. */
import { el, svg, timeText } from "./dom.js";
import { count } from "./model.js";

/** Draws rows as a table, with a bar for the member `measure`. A column is [its label, how a number is told, what it
    leads to or says of the row, what stands behind it]; without the second it is text. */
export function figures(measure, columns) {
  return (rows) => {
    const most = Math.max(1e-9, ...rows.map((row) => row[measure] ?? 0));
    const head = Object.values(columns).map(([label, format]) => el("th", format ? "right" : "", label));
    const cells = (row) => Object.entries(columns).map(([name, [, format, shown, behind]]) => {
      const value = row[name], cell = el("td", format ? "right" : "", format ? ((value === null || value === undefined) && format.length < 2 ? "–" : format(value, row)) : shown ? shown(value, row) : value ?? "unknown");
      if (behind) cell.title = behind(row);
      return cell;
    });
    const bar = (row) => { const fill = el("i"); fill.style.width = `${100 * (row[measure] ?? 0) / most}%`; return el("td", "bar-cell", fill); };
    return el("table", "figures", el("thead", "", el("tr", "", head[0], el("th", "bar-cell", el("span", "unseen", `Share of ${measure}`)), ...head.slice(1))),
      el("tbody", "", ...rows.map((row) => { const [first, ...rest] = cells(row); return el("tr", "", first, bar(row), ...rest); })));
  };
}

/** Bars over time, [{at, number, words}], against a line of those of the time before; `pick` is told the bar that is chosen. */
export function chart(bars, { label, step, before = [], format = count, pick }) {
  const most = topOf(Math.max(1, ...bars.map((bar) => bar.number), ...before.map((bar) => bar.number))), tip = el("p", "dim tip", label), wide = bars.length * 10;
  const picture = svg("svg", { viewBox: `0 0 ${wide} 100`, preserveAspectRatio: "none", role: "img", "aria-label": label });
  for (const part of [25, 50, 75]) picture.append(svg("line", { class: "grid", x1: 0, x2: wide, y1: part, y2: part }));
  bars.forEach(({ number }, i) => picture.append(svg("rect", { x: i * 10 + 1, width: 8, y: 100 - 100 * number / most, height: number && Math.max(1.5, 100 * number / most) })));
  if (before.some(({ number }) => number)) picture.append(svg("polyline", { class: "before", points: before.map(({ number }, i) => `${i * 10 + 5},${100 - 100 * number / most}`).join(" ") }));
  const barAt = (event) => { const box = picture.getBoundingClientRect(); return bars[Math.min(bars.length - 1, Math.max(0, Math.floor(bars.length * (event.clientX - box.left) / box.width)))]; };
  picture.onpointermove = (event) => { const bar = barAt(event); tip.textContent = `${timeText(bar.at)}: ${bar.words ?? format(bar.number)}`; };
  picture.onpointerleave = () => { tip.textContent = label; };
  picture.onclick = (event) => pick?.(barAt(event));
  const ends = [0, 1, 2, 3, 4].map((part) => timeText(bars[0].at + part * (bars.at(-1).at + step * 1000 - bars[0].at) / 4).replace(/:\d\d$/, ""));
  return el("div", "chart-of", tip, el("div", "scale", ...[most, most / 2, 0].map((number) => el("span", "", format(number)))), picture, el("p", "axis", ...ends.map((words) => el("span", "", words))));
}
function topOf(number) {
  const size = 10 ** Math.floor(Math.log10(number));
  return [1, 2, 4, 5, 10].find((by) => by * size >= number) * size;
}
