/* Analytics: what the canned queries answer, as figures and pictures. */
import { Refused, asked, query } from "./api.js";
import { at, clock, el, failure, link, moveAmong, svg, sync, timeText } from "./dom.js";
import * as Model from "./model.js";
import { count, few, lasting } from "./model.js";
import { go, route } from "./route.js";

/** What the page shows: the canned queries of Datasette, as anybody can ask them, so that each can be looked into. */
const PANELS = [
  { name: "activity", title: "Activity", isWide: true, draw: drawActivity },
  { name: "tools", title: "Tools", isWide: true, draw: figures("calls", { tool: ["Tool"], calls: ["Calls", count],
    failed: ["Failed", count], percent_failed: ["of all", (n) => `${n} %`], p50: ["Half within", lasting], p95: ["95 of 100 within", lasting] }) },
  { name: "status-mix", title: "Sessions by status", draw: figures("sessions", { status: ["Status"], sessions: ["Sessions", count],
    percent: ["Share", (n) => `${n} %`] }) },
  { name: "users", title: "Users", draw: figures("sessions", { user_id: ["User"], sessions: ["Sessions", count],
    going_on: ["Going on", count], failed: ["Failed", count], lost: ["Lost", count], tool_calls: ["Tool calls", count], hours: ["Hours", String] }) },
  { name: "models", title: "Models", draw: figures("sessions", { model: ["Model"], sessions: ["Sessions", count],
    failed: ["Failed", count], tool_calls: ["Tool calls", count], tokens_input: ["Tokens read", count],
    tokens_output: ["Tokens written", count] }) },
];
/** Where a name in a table leads. */
const LEADS = { __proto__: null,
  status: (status) => Model.hashOf({ view: "sessions", query: { status } }),
  user_id: (userId) => Model.hashOf({ view: "sessions", query: { userId } }),
  tool: (tool) => `datasette/sessions/tool-failures?${query({ tool })}` };

export const analytics = {
  shown: null, asking: null, last: -Infinity,
  name: () => "Analytics",
  move: (by) => moveAmong([...at("panels").querySelectorAll("a")], by),
  arrive() {
    const form = at("analytics-filter"), { range = "day", from = "", to = "" } = route.query;
    for (const [name, value] of Object.entries({ range, from, to })) if (document.activeElement !== form[name]) form[name].value = value;
    for (const name of ["from", "to"]) form[name].closest("label").hidden = range !== "days";
    if (this.shown === query(route.query)) return;
    this.shown = query(route.query);
    this.read();
  },
  /** What streams in changes little in a picture of hours. */
  async again() { if (performance.now() - this.last > 5000) await this.read(); },
  async read() {
    const asking = this.asking = {}, span = Model.spanOf(route.query, clock.now());
    this.last = performance.now();
    sync(at("panels"), PANELS, (panel) => panel.name, makePanel, () => {});
    for (const panel of PANELS) {       // one after the other: they are not to take the answers' time from each other
      const members = query({ ...span, ...(panel.name === "activity" ? {} : { step: "" }) });
      const place = at("panels").querySelector(`[data-key="${panel.name}"]`);
      place.querySelector("a").href = `datasette/sessions/${panel.name}?${members}`;
      const content = await rowsOfQuery(panel.name, members).then((rows) => rows.length ? panel.draw(rows, span)
        : el("p", "dim", "Nothing in that time."), (error) => failure(error.message, () => this.read()));
      if (this.asking !== asking) return;
      place.lastElementChild.replaceChildren(content);
    }
  },
};
function makePanel({ title, isWide }) {
  const content = el("div", "scroll-x", el("p", "dim", "Loading …"));
  content.tabIndex = 0;
  content.setAttribute("role", "region");
  content.setAttribute("aria-label", title);
  const how = link("", "SQL");
  how.setAttribute("aria-label", `SQL behind ${title}`);
  return el("section", isWide ? "panel wide" : "panel", el("header", "", el("h2", "", title), how), content);
}
/** What a canned query answers. It may have been stopped only because much else went on: then it is asked once more. */
async function rowsOfQuery(name, members, again = true) {
  try { return (await asked(`datasette/sessions/${name}.json?_shape=objects&${members}`)).rows; } catch (error) {
    if (!(error instanceof Refused && error.status === 400)) throw error;
    if (again) return rowsOfQuery(name, members, false);
    throw new Error("That took too long. Choose a shorter time, or one nearer to now.");
  }
}
function drawActivity(rows, span) {
  const events = Model.seriesOf(rows, span, clock.now(), "events"), sessions = Model.seriesOf(rows, span, clock.now(), "sessions");
  const most = Math.max(1, ...events.map((bar) => bar.number)), sum = (bars) => bars.reduce((all, bar) => all + bar.number, 0);
  const words = `${few(sum(events), "event")}, ${few(sum(sessions), "session")} begun; at most ${few(most, "event")} in ${lasting(span.step * 1000)}`;
  const chart = svg("svg", { viewBox: `0 0 ${events.length * 10} 100`, preserveAspectRatio: "none", role: "img",
    "aria-label": `Activity over time: ${words}` });
  events.forEach(({ at: when, number }, i) => {
    const size = number && Math.max(1.5, 98 * number / most);
    chart.append(svg("rect", { x: i * 10 + 1, width: 8, y: 100 - size, height: size },
      svg("title", {}, `${timeText(when)}: ${few(number, "event")}, ${few(sessions[i].number, "session")} begun`)));
  });
  return el("div", "", el("p", "dim", words), chart,
    el("p", "axis", el("span", "", timeText(events[0].at)), el("span", "", timeText(events.at(-1).at + span.step * 1000))));
}
/** Draws rows as a table, with a bar for the member `measure`. */
function figures(measure, columns) {
  return (rows) => {
    const most = Math.max(1, ...rows.map((row) => row[measure]));
    const head = Object.values(columns).map(([label, format]) => el("th", format ? "right" : "", label));
    const cells = (row) => Object.entries(columns).map(([name, [, format]]) => {
      const value = row[name];
      if (format) return el("td", "right", value === null ? "–" : format(value));
      return el("td", "", LEADS[name] ? link(LEADS[name](value), value) : value);
    });
    const bar = (row) => { const fill = el("i"); fill.style.width = `${100 * row[measure] / most}%`;
      return el("td", "bar-cell", el("span", "meter", fill)); };
    const spoken = el("th", "bar-cell", el("span", "unseen", `Share of ${measure}`));
    return el("table", "figures", el("thead", "", el("tr", "", head[0], spoken, ...head.slice(1))),
      el("tbody", "", ...rows.map((row) => { const [first, ...rest] = cells(row); return el("tr", "", first, bar(row), ...rest); })));
  };
}
at("analytics-filter").onsubmit = (event) => { event.preventDefault();
  go({ view: "analytics", query: Object.fromEntries(new FormData(event.target)) }); };
at("analytics-filter").range.onchange = (event) => {
  if (event.target.value !== "days") { go({ view: "analytics", query: { range: event.target.value } }); return; }
  const days = [6, 0].map((ago) => new Date(clock.now() - ago * 86_400_000).toISOString().slice(0, 10));
  go({ view: "analytics", query: { range: "days", from: days[0], to: days[1] } });
};
