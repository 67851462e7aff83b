/* The timeline: what went on when, in lanes; below it what went wrong, what took longest, and the time by tool. */
import { clock, el, fill, icon, iconOf, make, say, slot, svg, timeText } from "../dom.js";
import * as Model from "../model.js";
import { count, few, lasting, oneLine } from "../model.js";
import { summaryOf } from "../model/timeline.js";
import { hashWith, route, schedule, turn } from "../route.js";
import { MANY, Tab } from "./who.js";
import { Detail } from "./detail.js";
import { drawLanes } from "./lanes.js";
import { whyOf } from "./log.js";
import { lanesIn } from "./minimap.js";

const STEPS = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
const CALM = 400;               // milliseconds between two drawings of what streams in
const MOST = 400, STEP = 1.6;   // times that it is drawn larger, at most and by one step
const rounded = (zoom) => String(Math.round(10 * zoom) / 10);

export default class TimelineTab extends Tab {
  drawnAt = 0;
  focus = null;
  closed = new Set();
  constructor(session, place) {
    super(session, place, "timeline");
    const split = this.on("split"), chart = this.chart = this.on("chart");
    Object.assign(this, { detail: new Detail(session, split), summary: el("div", "summary-lists"), sight: new ResizeObserver(schedule),
      tick: setInterval(() => { if (this.isRunning()) { session.lanes = null; schedule(); } }, 1000) });
    split.append(this.summary);
    this.sight.observe(chart);
    this.on("in").onclick = () => this.zoomBy(STEP);
    this.on("out").onclick = () => this.zoomBy(1 / STEP);
    this.on("fit").onclick = () => { turn({ span: "" }); this.zoomTo(1); };
    this.on("fold").onchange = (event) => turn({ fold: event.target.checked ? "" : "no" });
    this.on("earlier").onclick = () => session.older();
    chart.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.zoomBy(event.deltaY < 0 ? 1.25 : 0.8);
    }, { passive: false });
    chart.addEventListener("scroll", () => this.drawAnew(), { passive: true });
    chart.onclick = (event) => { const { cursor } = event.target.dataset; if (cursor) turn({ entry: cursor }, {}); };
    chart.onkeydown = (event) => this.press(event);
    this.brush();
  }
  /** A pull over what is empty chooses a time, and that comes to be all that is in sight. */
  brush() {
    const { chart, session } = this, x = ({ clientX }) => clientX - chart.getBoundingClientRect().left + chart.scrollLeft;
    let from = null, rect = null;
    chart.onpointerdown = (event) => { if (!event.target.dataset.cursor && event.pointerType === "mouse") from = x(event); };
    chart.onpointermove = (event) => {
      const { target, pointerId } = event, wide = Math.abs(x(event) - from);
      if (target.dataset.cursor) say(this.on("said"), target.querySelector("title").textContent.replace("\n", "  "));
      if (from === null || (!rect && wide < 6)) return;
      if (!rect) { rect = svg("rect", { class: "brush", y: 0, height: "100%" }); chart.firstElementChild.append(rect); chart.setPointerCapture(pointerId); }
      rect.setAttribute("x", Math.min(from, x(event)));
      rect.setAttribute("width", wide);
    };
    chart.onpointerup = (event) => {
      if (rect) {
        const ends = [from, x(event)].sort((a, b) => a - b), [begin, end] = ends.map((each) => Math.round(session.scale.time(each)));
        turn({ span: `${begin}-${end}`, zoom: rounded(Math.min(MOST, this.zoom * chart.clientWidth / Math.max(8, ends[1] - ends[0]))) });
        this.draw();
        chart.scrollLeft = session.scale.x(begin);
      }
      from = rect = null;
    };
  }
  leave() { clearInterval(this.tick); clearTimeout(this.later); this.sight.disconnect(); }

  isRunning() { return this.session.rows.some((row) => row.state === "running"); }
  drawAnew() { this.drawn = ""; schedule(); }
  get zoom() { return Math.min(MOST, Math.max(1, Number(route.query.zoom) || 1)); }
  zoomBy(factor) { this.zoomTo(this.zoom * factor); }
  /** What is in the middle stays there. */
  zoomTo(to) {
    const { chart } = this, middle = (chart.scrollLeft + chart.clientWidth / 2) / chart.scrollWidth;
    turn({ zoom: to <= 1 ? "" : rounded(to) });
    chart.scrollLeft = middle * chart.scrollWidth - chart.clientWidth / 2;
  }
  press(event) {
    const { key } = event;
    if (key === "Enter" && this.focus) turn({ entry: this.focus }, {});
    else if (key in STEPS && this.go(STEPS[key])) event.preventDefault();
    else if (["+", "-"].includes(key)) this.zoomBy(key === "+" ? STEP : 1 / STEP);
  }
  /** The keyboard goes so many marks on, in the order of time; whether there is one. */
  go(by) {
    const { chart, session } = this, marks = lanesIn(session).flatMap((lane) => lane.marks).sort((a, b) => a.from - b.from || a.cursor - b.cursor);
    if (!marks.length) return false;
    const mark = marks[Math.min(marks.length - 1, Math.max(0, marks.findIndex((each) => each.cursor === this.focus) + by))], x = session.scale?.x(mark.from) ?? 0;
    this.focus = mark.cursor;
    if (x < chart.scrollLeft + 20 || x > chart.scrollLeft + chart.clientWidth - 20) chart.scrollLeft = x - chart.clientWidth / 2;
    say(this.on("said"), `${timeText(mark.from)}  ${mark.label}`);
    this.drawAnew();
    return true;
  }
  move(by) { this.chart.focus(); this.go(by); }

  draw() {
    const { session } = this, { log } = session, isBusy = session.loading || session.paging, isShort = log.events.length < MANY;
    this.on("fold").checked = route.query.fold !== "no";
    this.on("earlier").hidden = log.begins || isShort;
    if (!this.focus) say(this.on("said"), isBusy ? "Loading …" : log.begins ? "" : `the newest ${count(log.events.length)} events`);
    if (!log.begins && !isBusy && log.events.length && isShort) session.older();
    this.drawChart();
    this.detail.draw();
    this.summary.hidden = this.detail.element !== null || !session.rows.length;
  }
  /** The lanes, where something of them is other than it was; what streams in is drawn now and then. */
  drawChart() {
    const { session, chart, zoom, focus, closed } = this, { events } = session.log, newest = events.at(-1)?.cursor, fold = route.query.fold !== "no";
    const key = [events.length, newest, chart.clientWidth, zoom, fold, focus, route.query.entry, this.isRunning() ? Math.floor(clock.now() / 1000) : "", ...closed].join();
    if (key === this.drawn && session.lanes) return;
    if (newest !== this.seen && performance.now() - this.drawnAt < CALM) {
      this.later ??= setTimeout(() => { this.later = null; schedule(); }, CALM);
      return;
    }
    Object.assign(this, { drawn: key, drawnAt: performance.now(), seen: newest });
    drawLanes(session, this.on("names"), chart, { width: Math.max(200, chart.clientWidth) * zoom, fold, focus, closed, toggle: (id) => { if (!closed.delete(id)) closed.add(id); schedule(); } });
    this.summary.replaceChildren(...summaryLists(session));
  }
}

function summaryLists({ rows }) {
  const { wrong, unended, longest, tools } = summaryOf(rows);
  const listOf = (heading, none, ...items) => el("section", "panel", el("h2", "", heading), items.length ? el("ol", "", ...items) : el("p", "dim", none)), most = (items) => items.slice(0, 12);
  return [listOf(`Went wrong${wrong.length ? ` (${count(wrong.length)})` : ""}`, "Nothing did.", ...most(wrong).map((row) => toEntry(row, "", whyOf(row))), ...most(unended).map((row) => toEntry(row, "no result"))),
    listOf("Took longest", "No call has ended yet.", ...most(longest).map((row) => toEntry(row, lasting(row.took)))), listOf("Time by tool", "No tool was used.", ...most(tools).map(toTool))];
}
function toEntry(row, took, why = "") {
  const item = make("t-entry"), text = oneLine(row.text);
  Object.assign(item.dataset, { kind: row.kind, state: row.state ?? "" });
  icon(item, row.icon);
  Object.assign(item.firstElementChild, { href: hashWith({ entry: row.key }), title: Model.forPeople(`${row.title}${text ? `: ${text}` : ""}`) });
  slot(item, "text").classList.add("cut");
  return fill(item, { title: row.title, text: text || " ", why, who: "", took, time: timeText(row.time) });
}
function toTool({ title, icon, kind, calls, failed, took }) {
  const item = el("li", "", el("span", "item", iconOf(icon), el("b", "grow cut", title), failed ? el("span", "bad", `${count(failed)} failed`) : "", el("span", "dim", few(calls, "call")), el("span", "took right", lasting(took))));
  item.dataset.kind = kind;
  return item;
}
