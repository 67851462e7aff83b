/* Drawing the lanes of the timeline. */
import { button, el, hours, svg, sync, timeText } from "../dom.js";
import { few, lasting, upTo } from "../model.js";
import { scaleOf } from "../model/timeline.js";
import { route } from "../route.js";
import { lanesIn } from "./minimap.js";

const LINE = 20, TOP = 26;      // px
const tallOf = (lane) => lane.isClosed ? 14 : lane.lines * LINE + 10;
const titled = (words) => svg("title", {}, words);
/** Draws what is in sight, the names beside it, and gives the session the scale by which it was drawn. */
export function drawLanes(session, names, chart, { width, fold, focus, closed, toggle }) {
  const lanes = lanesIn(session).map((lane) => ({ ...lane, isClosed: closed.has(lane.id) })), sight = [chart.scrollLeft - 300, chart.scrollLeft + chart.clientWidth + 300];
  const scale = session.scale = scaleOf(lanes.flatMap((lane) => lane.marks), { width, fold });
  const tall = TOP + lanes.reduce((sum, lane) => sum + tallOf(lane), 0), parts = [...backdrop(scale, tall, ...sight)];
  let y = TOP;
  for (const lane of lanes) {
    parts.push(...laneOf(lane, scale, y, ...sight), ...marksOf(lane, scale, y + 5, ...sight, focus));
    y += tallOf(lane);
  }
  drawNames(names, lanes, toggle);
  const hadFocus = chart.contains(document.activeElement) && document.activeElement !== chart;
  chart.replaceChildren(svg("svg", { width: Math.max(scale.width, 1), height: tall, role: "group", "aria-label": `${few(session.rows.length, "row")} on ${few(lanes.length, "lane")}` }, ...parts));
  if (hadFocus) chart.focus();
}
function drawNames(place, lanes, toggle) {
  sync(place, [{ id: "axis", name: "" }, ...lanes], (lane) => lane.id, () => el("li"), (row, lane) => {
    const isAxis = !lane.name;
    Object.assign(row.style, { height: `${isAxis ? TOP : tallOf(lane)}px`, paddingLeft: isAxis ? "" : `${0.75 + 0.7 * lane.depth}rem` });
    if (isAxis) return;
    if (row.textContent !== lane.name) row.replaceChildren(button(lane.name, () => toggle(lane.id), "plain cut"));
    row.firstElementChild.ariaExpanded = !lane.isClosed;
    row.title = lane.id;
  });
}
/** A lane's ground line, and the runs of its agent. */
function* laneOf({ name, spans, ...lane }, scale, y, left, right) {
  const bottom = y + tallOf(lane) - 0.5, about = { y: y + 2, height: tallOf(lane) - 5, rx: 4, class: "span" };
  yield svg("line", { class: "grid", x1: 0, x2: scale.width, y1: bottom, y2: bottom });
  for (const [run, { from, to }] of spans.entries()) {
    const x = scale.x(from), until = scale.x(to);
    if (until >= left && x <= right) yield svg("rect", { ...about, x, width: Math.max(3, until - x) }, titled(`${name}${spans.length > 1 ? `, run ${run + 1} of ${spans.length}` : ""}: ${lasting(to - from)}`));
  }
}
function* backdrop({ pieces, step, x: at }, tall, left, right) {
  for (const { x: begin, size, folded, from, to } of pieces) {
    if (begin + size < left || begin > right) continue;
    if (folded) {
      const x = begin + size / 2, y = (TOP + tall) / 2, words = `${lasting(to - from)} idle`;
      yield svg("rect", { class: "fold", x: begin + 4, y: TOP, width: size - 8, height: tall - TOP, rx: 4 }, titled(words));
      if (words.length * 6 < tall - TOP) yield svg("text", { class: "fold-text", x, y, transform: `rotate(-90 ${x} ${y})`, "dominant-baseline": "middle" }, words);
      continue;
    }
    let last = -Infinity;
    for (let time = Math.ceil(from / step) * step; time <= to; time += step) {
      const x = at(time);
      if (x < left || x > right || x - last < 60) continue;
      last = x;
      yield svg("line", { class: "grid", x1: x, x2: x, y1: TOP - 5, y2: tall });
      if (x + 50 < begin + size) yield svg("text", { x: x + 3, y: 16 }, step < 1000 ? `${hours.format(time)}.${String(time % 1000).padStart(3, "0")}` : hours.format(time));
    }
    if (last === -Infinity && begin >= left && size > 50) yield svg("text", { x: begin + 3, y: 16 }, hours.format(from));
  }
}
/** The marks of a lane that are in sight; of those that fall on one another only the first, but what failed is always there. */
function* marksOf(lane, scale, top, left, right, focus) {
  const taken = new Set(), labels = [];
  for (const { cursor, kind, state, from, to, line, label, title } of lane.marks) {
    const x = scale.x(from), until = scale.x(to), isBar = to > from, spot = `${line} ${Math.round(x / 2)} ${isBar}`, isChosen = cursor === Number(route.query.entry) || cursor === focus;
    if (until < left || x > right || (!isChosen && state !== "error" && taken.has(spot) && until - x < 3)) continue;
    taken.add(spot);
    const y = top + (lane.isClosed ? 0 : line * LINE), wide = Math.max(4, until - x), about = { class: "mark", "data-cursor": cursor, "data-kind": kind, "data-state": state ?? "", ...(isChosen ? { "data-chosen": "" } : {}) };
    const tip = titled(`${label}\n${timeText(from)}${isBar ? `, ${lasting(to - from)}` : ""}`);
    if (lane.isClosed) yield svg("rect", { ...about, x, y, width: wide, height: 5 }, tip);
    else if (!isBar) yield svg("circle", { ...about, cx: x, cy: y + LINE / 2 - 1, r: 5 }, tip);
    else yield svg("rect", { ...about, x, y: y + 1, width: wide, height: LINE - 4, rx: 3 }, tip);
    if (isBar && !lane.isClosed && wide > 46) labels.push(svg("text", { class: "inside", x: x + 6, y: y + 13 }, upTo(wide > 130 ? label : title, Math.floor((wide - 10) / 6.4))));
  }
  yield* labels;      // over the dots, not under them
}
