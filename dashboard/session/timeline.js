/* The timeline: what went on when, in lanes; below it what went wrong, what took longest, and the time by tool. */
import { clock, el, fill, icon, make, slot, svg, template, timeText } from "../dom.js";
import * as Model from "../model.js";
import { count, few, lasting, oneLine } from "../model.js";
import { route, schedule, turn } from "../route.js";
import { MANY, agentsIn } from "./who.js";
import { Detail } from "./detail.js";
import { drawLanes } from "./lanes.js";
import { whyOf } from "./log.js";

const STEPS = { __proto__: null, ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
const CALM = 400;               // milliseconds between two drawings of what streams in

export default class TimelineTab {
  constructor(session, place) {
    Object.assign(this, { session, place, drawn: "", drawnAt: 0, seen: null, later: null, focus: null, closed: new Set() });
    place.replaceChildren(template("t-timeline"));
    this.chart = this.on("chart");
    this.detail = new Detail(session, this.on("split"));
    this.summary = el("div", "summary-lists");
    this.on("split").classList.add("rows");
    this.on("split").append(this.summary);
    this.listen();
    this.sight = new ResizeObserver(() => schedule());
    this.sight.observe(this.chart);
    this.tick = setInterval(() => { if (this.isRunning()) { session.lanes = null; schedule(); } }, 1000);
  }
  on(name) { return slot(this.place, name); }
  listen() {
    const { session, chart } = this;
    this.on("in").onclick = () => this.zoomBy(1.6);
    this.on("out").onclick = () => this.zoomBy(1 / 1.6);
    this.on("fit").onclick = () => { turn({ span: "" }); this.zoomTo(1); };
    this.on("fold").onchange = (event) => turn({ fold: event.target.checked ? "" : "no" });
    this.on("earlier").onclick = () => session.older();
    chart.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      this.zoomBy(event.deltaY < 0 ? 1.25 : 0.8);
    }, { passive: false });
    chart.addEventListener("scroll", () => this.drawAnew(), { passive: true });
    chart.addEventListener("click", (event) => { const { cursor } = event.target.dataset; if (cursor) turn({ entry: cursor }, {}); });
    chart.addEventListener("keydown", (event) => this.press(event));
    chart.addEventListener("pointermove", ({ target }) => { if (target.dataset.cursor) this.on("said").textContent = target.querySelector("title").textContent.replace("\n", "  "); });
    this.brush();
  }
  /** A pull over what is empty chooses a time, and that comes to be all that is in sight. */
  brush() {
    const { chart, session } = this, x = ({ clientX }) => clientX - chart.getBoundingClientRect().left + chart.scrollLeft;
    let from = null, rect = null;
    chart.addEventListener("pointerdown", (event) => { if (!event.target.dataset.cursor && event.pointerType === "mouse") from = x(event); });
    chart.addEventListener("pointermove", (event) => {
      if (from === null || (!rect && Math.abs(x(event) - from) < 6)) return;
      if (!rect) { rect = svg("rect", { class: "brush", y: 0, height: "100%" }); chart.firstElementChild.append(rect); chart.setPointerCapture(event.pointerId); }
      rect.setAttribute("x", Math.min(from, x(event)));
      rect.setAttribute("width", Math.abs(x(event) - from));
    });
    chart.addEventListener("pointerup", (event) => {
      if (rect) {
        const ends = [from, x(event)].sort((a, b) => a - b), [begin, end] = ends.map((each) => session.scale.time(each));
        turn({ span: `${Math.round(begin)}-${Math.round(end)}`, zoom: String(Math.round(10 * Math.min(400, this.zoom * chart.clientWidth / Math.max(8, ends[1] - ends[0]))) / 10) });
        this.draw();
        chart.scrollLeft = session.scale.x(begin);
      }
      from = rect = null;
    });
  }
  leave() { clearInterval(this.tick); clearTimeout(this.later); this.sight.disconnect(); }

  isRunning() { return this.session.rows.some((row) => row.state === "running"); }
  lanes() {
    const { session } = this;
    return session.lanes ??= Model.lanesOf(session.rows.filter((row) => !row.minor), agentsIn(session), clock.now());
  }
  drawAnew() { this.drawn = ""; schedule(); }

  get zoom() { return Math.min(400, Math.max(1, Number(route.query.zoom) || 1)); }
  zoomBy(factor) { this.zoomTo(this.zoom * factor); }
  zoomTo(to) {
    const { chart } = this, middle = (chart.scrollLeft + chart.clientWidth / 2) / chart.scrollWidth;
    turn({ zoom: to <= 1 ? "" : String(Math.round(to * 10) / 10) });
    chart.scrollLeft = middle * chart.scrollWidth - chart.clientWidth / 2;
  }

  press(event) {
    if (event.key === "Enter" && this.focus) turn({ entry: this.focus }, {});
    else if (event.key in STEPS && this.go(STEPS[event.key])) event.preventDefault();
    else if (event.key === "+") this.zoomBy(1.6);
    else if (event.key === "-") this.zoomBy(1 / 1.6);
  }
  /** The keyboard goes so many marks on, in the order of time; whether there is one. */
  go(by) {
    const { chart, session } = this;
    const marks = this.lanes().flatMap((lane) => lane.marks).sort((a, b) => a.from - b.from || a.cursor - b.cursor);
    if (!marks.length) return false;
    const from = marks.findIndex((mark) => mark.cursor === this.focus);
    const mark = marks[Math.min(marks.length - 1, Math.max(0, from + by))];
    this.focus = mark.cursor;
    const x = session.scale?.x(mark.from) ?? 0;
    if (x < chart.scrollLeft + 20 || x > chart.scrollLeft + chart.clientWidth - 20) chart.scrollLeft = x - chart.clientWidth / 2;
    this.on("said").textContent = `${timeText(mark.from)}  ${mark.label}`;
    this.drawAnew();
    return true;
  }
  move(by) { this.chart.focus(); this.go(by); }

  draw() {
    const { session } = this, { log } = session, isBusy = session.loading || session.paging;
    this.lanes();
    this.on("fold").checked = route.query.fold !== "no";
    this.on("earlier").hidden = log.begins || log.events.length < MANY;
    if (!this.focus) this.on("said").textContent = isBusy ? "Loading …" : log.begins ? "" : `the newest ${count(log.events.length)} events`;
    if (!log.begins && !isBusy && log.events.length && log.events.length < MANY) session.older();
    this.drawChart();
    this.detail.draw();
    this.summary.hidden = this.detail.element !== null || !session.rows.length;
  }
  /** The lanes, where something of them is other than it was; what streams in is drawn now and then. */
  drawChart() {
    const { session, chart } = this, { events } = session.log, newest = events.at(-1)?.cursor, fold = route.query.fold !== "no";
    const key = [events.length, newest, chart.clientWidth, this.zoom, fold, this.focus, route.query.entry,
      this.isRunning() ? Math.floor(clock.now() / 1000) : "", ...this.closed].join();
    if (key === this.drawn) return;
    if (newest !== this.seen && performance.now() - this.drawnAt < CALM) {
      this.later ??= setTimeout(() => { this.later = null; schedule(); }, CALM);
      return;
    }
    Object.assign(this, { drawn: key, drawnAt: performance.now(), seen: newest });
    drawLanes(session, this.on("names"), chart, { width: Math.max(200, chart.clientWidth) * this.zoom, fold, focus: this.focus, closed: this.closed,
      toggle: (id) => { if (!this.closed.delete(id)) this.closed.add(id); schedule(); } });
    this.summary.replaceChildren(...summaryLists(session));
  }
}

function summaryLists(session) {
  const { wrong, unended, longest, tools } = Model.summaryOf(session.rows);
  return [
    listOf(`Went wrong${wrong.length ? ` (${count(wrong.length)})` : ""}`, [...wrong.slice(0, 12).map((row) => toEntry(row, "", whyOf(row))),
      ...unended.slice(0, 12).map((row) => toEntry(row, "no result"))], "Nothing did."),
    listOf("Took longest", longest.slice(0, 12).map((row) => toEntry(row, lasting(row.took))), "No call has ended yet."),
    listOf("Time by tool", tools.slice(0, 12).map(toTool), "No tool was used."),
  ];
}
const listOf = (heading, items, none) => el("section", "panel", el("h2", "", heading),
  items.length ? el("ol", "", ...items) : el("p", "dim", none));
function toEntry(row, words, why = "") {
  const item = make("t-entry");
  item.dataset.kind = row.kind;
  item.dataset.state = row.state ?? "";
  icon(item, row.icon);
  item.firstElementChild.href = Model.hashOf({ ...route, query: { ...route.query, entry: row.key } });
  item.firstElementChild.title = Model.forPeople(`${row.title}${row.text ? `: ${oneLine(row.text)}` : ""}`);
  slot(item, "text").classList.add("cut");
  return fill(item, { title: row.title, text: oneLine(row.text) || " ", why, who: "", took: words, time: timeText(row.time) });
}
function toTool(tool) {
  const item = el("li", "",
    el("span", "item", svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#i-${tool.icon}` })),
    el("b", "grow cut", tool.title), ...(tool.failed ? [el("span", "bad", `${count(tool.failed)} failed`)] : []),
    el("span", "dim", few(tool.calls, "call")), el("span", "took right", lasting(tool.took))));
  item.dataset.kind = tool.kind;
  return item;
}
