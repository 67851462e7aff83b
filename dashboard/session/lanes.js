/* Drawing the lanes of the timeline. */
import { button, el, hours, svg, sync, timeText } from "../dom.js";
import * as Model from "../model.js";
import { few, lasting, upTo } from "../model.js";
import { route } from "../route.js";

const LINE = 20, TOP = 26;
const tallOf = (lane) => lane.isClosed ? 14 : lane.lines * LINE + 10;
/** Draws what is in sight, the names beside it, and gives the session the scale by which it was drawn. */
export function drawLanes(session, names, chart, { width, fold, focus, closed, toggle }) {
  const lanes = session.lanes.map((lane) => ({ ...lane, isClosed: closed.has(lane.id) })), sight = [chart.scrollLeft - 300, chart.scrollLeft + chart.clientWidth + 300];
  const scale = session.scale = Model.scaleOf(lanes.flatMap((lane) => lane.marks), { width, fold });
  const tall = TOP + lanes.reduce((sum, lane) => sum + tallOf(lane), 0), parts = [...backdrop(scale, tall, ...sight)];
  let y = TOP;
  for (const lane of lanes) {
    parts.push(...laneOf(lane, scale, y, ...sight), ...marksOf(lane, scale, y + 5, ...sight, focus));
    y += tallOf(lane);
  }
  drawNames(names, lanes, toggle);
  const hadFocus = chart.contains(document.activeElement) && document.activeElement !== chart;
  chart.replaceChildren(svg("svg", { width: Math.max(scale.width, 1), height: tall, role: "group",
    "aria-label": `${few(session.rows.length, "row")} on ${few(lanes.length, "lane")}` }, ...parts));
  if (hadFocus) chart.focus();
}
function drawNames(place, lanes, toggle) {
  sync(place, [{ id: "axis", isAxis: true }, ...lanes], (lane) => lane.id, () => el("li", ""), (row, lane) => {
    row.className = lane.isAxis ? "axis faint" : "";
    row.style.height = lane.isAxis ? `${TOP}px` : `${tallOf(lane)}px`;
    row.style.paddingLeft = lane.isAxis ? "" : `${0.75 + 0.7 * lane.depth}rem`;
    const words = lane.isAxis ? "" : lane.name;
    if (row.textContent !== words) row.replaceChildren(button(words, () => toggle(lane.id), "plain cut"));
    if (words) row.firstElementChild.setAttribute("aria-expanded", !lane.isClosed);
    row.title = lane.isAxis ? "" : lane.id;
  });
}
function* laneOf(lane, scale, y, left, right) {
  const bottom = y + tallOf(lane) - 0.5, about = { y: y + 2, height: tallOf(lane) - 5, rx: 4 };
  yield svg("line", { class: "grid", x1: 0, x2: scale.width, y1: bottom, y2: bottom });
  for (const [run, { from, to }] of lane.spans.entries()) {
    if (scale.x(to) < left || scale.x(from) > right) continue;
    const words = `${lane.name}${lane.spans.length > 1 ? `, run ${run + 1} of ${lane.spans.length}` : ""}: ${lasting(to - from)}`;
    yield svg("rect", { class: "span", x: scale.x(from), width: Math.max(3, scale.x(to) - scale.x(from)), ...about }, svg("title", {}, words));
  }
}
function* backdrop(scale, tall, left, right) {
  for (const piece of scale.pieces) {
    if (piece.x + piece.size < left || piece.x > right) continue;
    if (piece.folded) {
      const x = piece.x + piece.size / 2, y = (TOP + tall) / 2, words = `${lasting(piece.to - piece.from)} idle`;
      yield svg("rect", { class: "fold", x: piece.x + 4, y: TOP, width: piece.size - 8, height: tall - TOP, rx: 4 }, svg("title", {}, words));
      if (words.length * 6 < tall - TOP) yield svg("text", { class: "fold-text", x, y, transform: `rotate(-90 ${x} ${y})`, "dominant-baseline": "middle" }, words);
      continue;
    }
    const begin = Math.ceil(piece.from / scale.step) * scale.step;
    let last = -Infinity;
    for (let time = begin; time <= piece.to; time += scale.step) {
      const x = scale.x(time);
      if (x < left || x > right || x - last < 60) continue;
      last = x;
      yield svg("line", { class: "grid", x1: x, x2: x, y1: TOP - 5, y2: tall });
      if (x + 50 < piece.x + piece.size) yield svg("text", { x: x + 3, y: 16 }, scale.step < 1000 ? `${hours.format(time)}.${String(time % 1000).padStart(3, "0")}`
        : hours.format(time));
    }
    if (last === -Infinity && piece.x >= left && piece.size > 50) yield svg("text", { x: piece.x + 3, y: 16 }, hours.format(piece.from));
  }
}
/** The marks of a lane that are in sight; of those that fall on one another only the first, but what failed is always there. */
function* marksOf(lane, scale, top, left, right, focus) {
  const taken = new Map(), labels = [];
  for (const mark of lane.marks) {
    const x = scale.x(mark.from), until = scale.x(mark.to);
    if (until < left || x > right) continue;
    const isChosen = mark.cursor === Number(route.query.entry) || mark.cursor === focus;
    const isBar = mark.to > mark.from;
    const spot = `${mark.line} ${Math.round(x / 2)} ${isBar}`;
    if (!isChosen && mark.state !== "error" && taken.has(spot) && until - x < 3) continue;
    taken.set(spot, true);
    const y = top + (lane.isClosed ? 0 : mark.line * LINE);
    const about = { class: "mark", "data-cursor": mark.cursor, "data-kind": mark.kind, "data-state": mark.state ?? "",
      ...(isChosen ? { "data-chosen": "" } : {}) };
    const tip = svg("title", {}, `${mark.label}\n${timeText(mark.from)}${isBar ? `, ${lasting(mark.to - mark.from)}` : ""}`);
    if (lane.isClosed) { yield svg("rect", { ...about, x, y, width: Math.max(3, until - x), height: 5 }, tip); continue; }
    if (!isBar) { yield svg("circle", { ...about, cx: x, cy: y + LINE / 2 - 1, r: 5 }, tip); continue; }
    const wide = Math.max(4, until - x);
    yield svg("rect", { ...about, x, y: y + 1, width: wide, height: LINE - 4, rx: 3 }, tip);
    if (wide > 46) labels.push(svg("text", { class: "inside", x: x + 6, y: y + 13 },
      upTo(wide > 130 ? mark.label : mark.title, Math.floor((wide - 10) / 6.4))));
  }
  yield* labels;      // over the dots, not under them
}
