/* Analytics: what the canned queries and the ledger answer, as figures and pictures. */
import { Refused, asked, query } from "./api.js";
import { at, clock, el, failure, link, moveAmong, since, sync, timeText } from "./dom.js";
import { chart, figures } from "./figures.js";
import * as Model from "./model.js";
import { count, few, lasting, text } from "./model.js";
import { go, route, turn } from "./route.js";

const sessionsWith = (name) => (value) => value ? link(Model.hashOf({ view: "sessions", query: { [name]: value } }), value) : "unknown";
const minutes = (n) => lasting(60_000 * n);
const MEASURES = { requests: ["Requests", count], inputTokens: ["Input", count], cacheReadTokens: ["From cache", count], outputTokens: ["Output", count],
  totalTokens: ["Tokens", count], costUsd: ["Cost", (_, row) => Model.price(row)] };
const BY = { project: "project", user: "userId", model: "", tag: "tag", day: "", session: "" };
/** What the page shows: the canned queries of Datasette, as anybody can ask them, so that each can be looked into. */
const PANELS = [
  { name: "activity", title: "Activity", isWide: true, draw: drawActivity, hasBefore: true },
  { name: "failure-groups", title: "Failures", isWide: true, draw: drawFailures },
  { name: "usage", title: "Tokens and cost", isWide: true, draw: drawUsage },
  { name: "tools", title: "Tools", isWide: true, draw: figures("calls", { tool: ["Tool", null, (tool) => link(`datasette/sessions/tool-failures?${query({ tool })}`, tool)], calls: ["Calls", count],
    failed: ["Failed", count], percent_failed: ["of all", (n) => `${n} %`], p50: ["p50", lasting], p95: ["p95", lasting] }) },
  { name: "held-up", title: "Held up by people", isWide: true, draw: drawHeldUp },
  { name: "status-mix", title: "Sessions by status", draw: figures("sessions", { status: ["Status", null, sessionsWith("status")], sessions: ["Sessions", count],
    percent: ["Share", (n) => `${n} %`] }) },
  { name: "users", title: "Users", draw: figures("sessions", { user_id: ["User", null, sessionsWith("userId")], sessions: ["Sessions", count],
    going_on: ["Going on", count], failed: ["Failed", count], lost: ["Lost", count], tool_calls: ["Tool calls", count], hours: ["Hours", String] }) },
  { name: "models", title: "Models", draw: figures("sessions", { model: ["Model"], sessions: ["Sessions", count],
    failed: ["Failed", count], tool_calls: ["Tool calls", count], tokens_input: ["Input tokens", count],
    tokens_output: ["Output tokens", count] }) },
];

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
  async again() { if (performance.now() - this.last > 5000) await this.read(); },
  async read() {
    const asking = this.asking = {}, span = Model.spanOf(route.query, clock.now()), before = Model.spanBefore(span, clock.now());
    this.last = performance.now();
    sync(at("panels"), PANELS, (panel) => panel.name, makePanel, () => {});
    for (const panel of PANELS) {       // one after the other: they are not to take the answers' time from each other
      const members = query({ ...span, ...(panel.name === "activity" ? {} : { step: "" }) });
      const place = at("panels").querySelector(`[data-key="${panel.name}"]`);
      place.querySelector("a").href = panel.name === "usage" ? `datasette/sessions/costs-by-${["user", "model", "day"].find((by) => by === route.query.by) ?? "project"}` : `datasette/sessions/${panel.name}?${members}`;
      const content = await this.answer(panel, members, span, before).catch((error) => failure(error.message, () => this.read()));
      if (this.asking !== asking) return;
      place.lastElementChild.replaceChildren(content);
    }
  },
  async answer({ name, draw, hasBefore }, members, span, before) {
    if (name === "usage") return draw(...await Promise.all([span, ...(before ? [before] : [])].map(usageIn)));
    const rows = await rowsOfQuery(name, members);
    return rows.length ? draw(rows, span, hasBefore && before ? await rowsOfQuery(name, query({ ...before })) : [], before) : el("p", "dim", "Nothing in that time.");
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
async function rowsOfQuery(name, members, again = true) {
  try { return (await asked(`datasette/sessions/${name}.json?_shape=objects&${members}`)).rows; } catch (error) {
    if (!(error instanceof Refused && error.status === 400)) throw error;
    if (again) return rowsOfQuery(name, members, false);
    throw new Error("That took too long. Choose a shorter time, or one nearer to now.");
  }
}
const sum = (rows, name) => rows.reduce((all, row) => all + (row[name] ?? 0), 0);
function against(now, before) {
  const by = before ? Math.round(100 * (now - before) / before) : null;
  return by === null ? "none in the time before" : by ? `${Math.abs(by)} % ${by > 0 ? "more" : "less"} than in the time before` : "as many as in the time before";
}
function drawActivity(rows, span, rowsBefore, before) {
  const [events, sessions] = ["events", "sessions"].map((name) => Model.seriesOf(rows, span, clock.now(), name));
  const old = before ? Model.seriesOf(rowsBefore, before, clock.now(), "events").slice(-events.length) : [], all = sum(events, "number");
  const label = `Activity over time: ${few(all, "event")}, ${few(sum(sessions, "number"), "session")} begun${before ? `; ${against(all, sum(old, "number"))}` : ""}`;
  return chart(events.map((bar, i) => ({ ...bar, words: `${few(bar.number, "event")}, ${few(sessions[i].number, "session")} begun` })), { label, step: span.step, before: old,
    pick: ({ at: from }) => { if (span.step > 60) go({ view: "analytics", query: { range: "from", from: new Date(from).toISOString(), to: new Date(from + 1000 * span.step).toISOString() } }); } });
}

/** Failures whose first lines differ in numbers, ids and quoted names only, put together; the most often first. */
function alike(rows) {
  const same = ({ kind, line }) => `${kind} ${text(line).replace(/0x[0-9a-f]+|[0-9a-f]{8,}|\d+/gi, "#").replace(/(["'`])[^"'`]{1,200}\1/g, "'…'").replace(/(?:\/[\w.#-]+){2,}/g, "/…")}`;
  const names = (own, name) => [...new Set(own.flatMap((row) => text(row[name]).split(",")))];
  return [...Map.groupBy(rows, same).values()].map((own) => {
    const newest = own.reduce((a, b) => a.cursor > b.cursor ? a : b);
    return { ...newest, times: own.reduce((all, row) => all + row.times, 0), sessions: names(own, "session_ids").length, users: names(own, "users"),
      first: own.map((row) => row.first).sort()[0] };
  }).sort((a, b) => b.times - a.times || b.cursor - a.cursor);
}

function drawFailures(rows) {
  const groups = alike(rows), table = figures("times", { line: ["Failure", null, (line, row) => el("div", "", el("b", "", row.kind), el("span", "bad", ` ${line || "without a word"}`))], times: ["Times", count],
    sessions: ["Sessions", count], users: ["Users", (users) => users.slice(0, 3).join(", ") + (users.length > 3 ? ` and ${users.length - 3} more` : "")], first: ["Since", timeText], last: ["Last",
    (last, row) => link(Model.hashOf({ view: "session", id: row.session_id, tab: "log", query: { entry: row.cursor } }), `${since(last)} ago`.replace("now ago", "now"))] })(groups.slice(0, 50));
  return el("div", "", el("p", "dim", `${few(sum(groups, "times"), "failure")} of ${few(groups.length, "kind")}, in ${few(new Set(rows.flatMap((row) => row.session_ids.split(","))).size, "session")}`), table);
}

async function usageIn({ from, to }) {
  const by = BY[route.query.by] === undefined ? "project" : route.query.by;
  return { by, items: (await asked(`api/query/usage?${query({ by, since: from, until: to })}`)).items };
}
function drawUsage({ by, items }, before) {
  const choice = el("select", "", ...Object.keys(BY).map((name) => new Option(`by ${name}`, name, false, name === by)));
  choice.setAttribute("aria-label", "Tokens and cost by");
  choice.onchange = () => turn({ by: choice.value });
  const [usd, tokens] = ["costUsd", "totalTokens"].map((name) => sum(items, name)), unpriced = sum(items, "unpricedRequests");
  const total = `${Model.price({ costUsd: items.some((item) => item.costUsd !== null) ? usd : null, unpricedRequests: unpriced, requests: sum(items, "requests") })}, ${few(tokens, "token")}${
    before ? `; ${against(usd || tokens, sum(before.items, usd ? "costUsd" : "totalTokens"))}` : ""}`;
  const shown = by === "session" ? (id) => link(Model.hashOf({ view: "session", id, tab: "usage" }), Model.shortId(id)) : BY[by] ? sessionsWith(BY[by]) : undefined;
  const rows = by === "day" ? [...items].sort((a, b) => b.day < a.day ? -1 : 1) : items;
  return el("div", "", el("p", "row", choice, el("span", "dim", items.length ? by === "tag" ? "a session may have several" : total : "Nothing in that time.")),
    ...(items.length ? [figures(usd ? "costUsd" : "totalTokens", { [by]: [Model.words(by), null, shown], ...MEASURES })(rows)] : []));
}

function drawHeldUp(rows) {
  const by = (name) => [...Map.groupBy(rows, (row) => row[name])].map(([key, own]) => ({ key: String(key), waits: sum(own, "waits"), minutes: sum(own, "minutes"), longest: Math.max(...own.map((row) => row.longest)) }))
    .sort((a, b) => name === "hour" ? a.key.localeCompare(b.key) : b.minutes - a.minutes);
  const table = (name, label, shown) => figures("minutes", { key: [label, null, shown], waits: ["Asks", count], minutes: ["Waited", minutes], longest: ["Longest", minutes] })(by(name));
  return el("div", "three", table("user_id", "Person", sessionsWith("userId")), table("reason", "Kind", (kind) => Model.spoken(kind) || "unknown"), table("hour", "Hour (UTC)", (hour) => `${hour}:00`));
}

at("analytics-filter").onsubmit = (event) => { event.preventDefault();
  go({ view: "analytics", query: Object.fromEntries(new FormData(event.target)) }); };
at("analytics-filter").range.onchange = (event) => {
  if (event.target.value !== "days") { go({ view: "analytics", query: { range: event.target.value } }); return; }
  const days = [6, 0].map((ago) => new Date(clock.now() - ago * 86_400_000).toISOString().slice(0, 10));
  go({ view: "analytics", query: { range: "days", from: days[0], to: days[1] } });
};
