/* Analytics: what the canned queries and the ledger answer, as figures and pictures. */
import { Refused, asked, query } from "./api.js";
import { at, clock, el, failure, link, moveAmong, scrolled, showIn, since, sync, timeText } from "./dom.js";
import { chart, figures } from "./figures.js";
import * as Model from "./model.js";
import { count, few, lasting, sum, text } from "./model.js";
import { seriesOf, spanBefore, spanOf } from "./model/spans.js";
import { entryHash, go, route, sessionHash, sessionsHash, turn } from "./route.js";

const sessionsWith = (name) => (value) => value ? link(sessionsHash({ [name]: value }), value) : "unknown";
const minutes = (n) => lasting(60_000 * n), percent = (n) => `${n} %`;
const MEASURES = { requests: ["Requests", count], inputTokens: ["Input", count], cacheReadTokens: ["From cache", count], outputTokens: ["Output", count],
  totalTokens: ["Tokens", count], costUsd: ["Cost", (_, row) => Model.price(row)] };
const BY = { __proto__: null, project: "project", user: "userId", model: "", tag: "tag", day: "", session: "" };
/** The canned queries of Datasette, as anybody can ask them, so that each can be looked into. */
const PANELS = [
  { name: "activity", title: "Activity", isWide: true, draw: drawActivity, hasBefore: true },
  { name: "failure-groups", title: "Failures", isWide: true, draw: drawFailures },
  { name: "usage", title: "Tokens and cost", isWide: true, draw: drawUsage },
  { name: "tools", title: "Tools", isWide: true, draw: figures("calls", { tool: ["Tool", null, (tool) => link(`datasette/sessions/tool-failures?${query({ tool })}`, tool)], calls: ["Calls", count],
    failed: ["Failed", count], percent_failed: ["of all", percent], p50: ["p50", lasting], p95: ["p95", lasting] }) },
  { name: "held-up", title: "Held up by people", isWide: true, draw: drawHeldUp },
  { name: "status-mix", title: "Sessions by status", draw: figures("sessions", { status: ["Status", null, sessionsWith("status")], sessions: ["Sessions", count], percent: ["Share", percent] }) },
  { name: "users", title: "Users", draw: figures("sessions", { user_id: ["User", null, sessionsWith("userId")], sessions: ["Sessions", count],
    going_on: ["Going on", count], failed: ["Failed", count], lost: ["Lost", count], tool_calls: ["Tool calls", count], hours: ["Hours", String] }) },
  { name: "models", title: "Models", draw: figures("sessions", { model: ["Model"], sessions: ["Sessions", count], failed: ["Failed", count], tool_calls: ["Tool calls", count],
    tokens_input: ["Input tokens", count], tokens_output: ["Output tokens", count] }) },
];

const form = at("analytics-filter"), panels = at("panels");
export const analytics = {
  shown: null, asking: null, last: -Infinity,
  name: () => "Analytics",
  move: (by) => moveAmong([...panels.querySelectorAll("a")], by),
  arrive(last) {
    const { range = "day", from = "", to = "" } = route.query;
    showIn(form, { range, from, to });
    for (const name of ["from", "to"]) form[name].parentElement.hidden = range !== "days";
    if (this.shown === query(route.query)) { if (last?.view !== "analytics") this.read(); return; }
    this.shown = query(route.query);
    this.read();
  },
  /** What streams in changes little in a picture of hours: it is read every few seconds, the last of it too. */
  again() { this.later ??= setTimeout(() => { this.later = null; if (route.view === "analytics") this.read(); }, Math.max(0, this.last + 5000 - performance.now())); },
  async read() {
    const asking = this.asking = {}, span = spanOf(route.query, clock.now()), before = spanBefore(span, clock.now());
    this.last = performance.now();
    sync(panels, PANELS, (panel) => panel.name, makePanel, () => {});
    for (const panel of PANELS) {       // one after the other: they are not to take the answers' time from each other
      const { name } = panel, members = query({ ...span, step: name === "activity" ? span.step : "" }), place = panels.querySelector(`[data-key="${name}"]`);
      place.querySelector("a").href = `datasette/sessions/${name === "usage" ? `costs-by-${["user", "model", "day"].find((by) => by === route.query.by) ?? "project"}` : `${name}?${members}`}`;
      const content = await this.answer(panel, members, span, before).catch((error) => failure(error.message, () => this.read()));
      if (this.asking !== asking) return;
      place.lastElementChild.replaceChildren(content);
    }
  },
  async answer({ name, draw, hasBefore }, members, span, before) {
    if (name === "usage") return draw(...await Promise.all([span, ...(before ? [before] : [])].map(usageIn)));
    const rows = await rowsOfQuery(name, members);
    return rows.length ? draw(rows, span, hasBefore && before ? await rowsOfQuery(name, query(before)) : [], before) : el("p", "dim", "Nothing in that time.");
  },
};
function makePanel({ title, isWide }) {
  const content = scrolled(el("div", "scroll-x", el("p", "dim", "Loading …")), title);
  return el("section", isWide ? "panel wide" : "panel", el("header", "", el("h2", "", title), Object.assign(link("", "SQL"), { ariaLabel: `SQL behind ${title}` })), content);
}
/** What a canned query answers. It may have been stopped only because much else went on: then it is asked once more. */
async function rowsOfQuery(name, members, again = true) {
  try { return (await asked(`datasette/sessions/${name}.json?_shape=objects&${members}`)).rows; } catch (error) {
    if (!(error instanceof Refused && error.status === 400)) throw error;
    if (again) return rowsOfQuery(name, members, false);
    throw new Error("That took too long. Choose a shorter time, or one nearer to now.");
  }
}
function against(now, before) {
  if (!before) return "none in the time before";
  const by = Math.round(100 * (now - before) / before);
  return by ? `${Math.abs(by)} % ${by > 0 ? "more" : "less"} than in the time before` : "as many as in the time before";
}
function drawActivity(rows, span, rowsBefore, before) {
  const [events, sessions] = ["events", "sessions"].map((name) => seriesOf(rows, span, clock.now(), name)), { step } = span;
  const old = before ? seriesOf(rowsBefore, before, clock.now(), "events").slice(-events.length) : [], all = sum(events, "number");
  const label = `Activity over time: ${few(all, "event")}, ${few(sum(sessions, "number"), "session")} begun${before ? `; ${against(all, sum(old, "number"))}` : ""}`;
  const pick = ({ at }) => { if (step > 60) go({ view: "analytics", query: { range: "from", from: new Date(at).toISOString(), to: new Date(at + 1000 * step).toISOString() } }); };
  return chart(events.map((bar, i) => ({ ...bar, words: `${few(bar.number, "event")}, ${few(sessions[i].number, "session")} begun` })), { label, step, before: old, pick });
}

/** Failures whose first lines differ in numbers, ids and quoted names only, put together; the most often first. */
function alike(rows) {
  const same = ({ kind, line }) => `${kind} ${text(line).replace(/0x[0-9a-f]+|[0-9a-f]{8,}|\d+/gi, "#").replace(/(["'`])[^"'`]{1,200}\1/g, "'…'").replace(/(?:\/[\w.#-]+){2,}/g, "/…")}`;
  const names = (own, name) => [...new Set(own.flatMap((row) => text(row[name]).split(",")))];
  return [...Map.groupBy(rows, same).values()].map((own) => ({ ...own.reduce((a, b) => a.cursor > b.cursor ? a : b), times: sum(own, "times"), sessions: names(own, "session_ids").length, users: names(own, "users"),
    first: own.map((row) => row.first).sort()[0] })).sort((a, b) => b.times - a.times || b.cursor - a.cursor);
}
function drawFailures(rows) {
  const groups = alike(rows), table = figures("times", { line: ["Failure", null, (line, row) => el("div", "", el("b", "", row.kind), el("span", "bad", ` ${line || "without a word"}`))], times: ["Times", count],
    sessions: ["Sessions", count], users: ["Users", (users) => users.slice(0, 3).join(", ") + (users.length > 3 ? ` and ${users.length - 3} more` : "")], first: ["Since", timeText],
    last: ["Last", (last, row) => link(entryHash(row.session_id, row.cursor), `${since(last)} ago`.replace("now ago", "now"))] });
  return el("div", "", el("p", "dim", `${few(sum(groups, "times"), "failure")} of ${few(groups.length, "kind")}, in ${few(new Set(rows.flatMap((row) => row.session_ids.split(","))).size, "session")}`), table(groups.slice(0, 50)));
}

async function usageIn({ from, to }) {
  const by = route.query.by in BY ? route.query.by : "project";
  return { by, items: (await asked(`api/query/usage?${query({ by, since: from, until: to })}`)).items };
}
function drawUsage({ by, items }, before) {
  const choice = Object.assign(el("select", "", ...Object.keys(BY).map((name) => new Option(`by ${name}`, name, false, name === by))), { ariaLabel: "Tokens and cost by", onchange: () => turn({ by: choice.value }) });
  const measure = sum(items, "costUsd") ? "costUsd" : "totalTokens", total = `${Model.priceOf(items)}, ${few(sum(items, "totalTokens"), "token")}${
    before ? `; ${against(sum(items, measure), sum(before.items, measure))}` : ""}`;
  const shown = by === "session" ? (id) => link(sessionHash(id, "usage"), Model.shortId(id)) : BY[by] && sessionsWith(BY[by]);
  const rows = by === "day" ? [...items].sort((a, b) => b.day < a.day ? -1 : 1) : items;
  return el("div", "", el("p", "row", choice, el("span", "dim", !items.length ? "Nothing in that time." : by === "tag" ? "a session may have several" : total)),
    items.length ? figures(measure, { [by]: [Model.words(by), null, shown], ...MEASURES })(rows) : "");
}

/** Where people hold agents up. */
function drawHeldUp(rows) {
  const table = (name, label, shown) => figures("minutes", { key: [label, null, shown], waits: ["Asks", count], minutes: ["Waited", minutes], longest: ["Longest", minutes] })(
    [...Map.groupBy(rows, (row) => row[name])].map(([key, own]) => ({ key: String(key), waits: sum(own, "waits"), minutes: sum(own, "minutes"), longest: Math.max(...own.map((row) => row.longest)) }))
      .sort((a, b) => name === "hour" ? a.key.localeCompare(b.key) : b.minutes - a.minutes));
  return el("div", "three", table("user_id", "Person", sessionsWith("userId")), table("reason", "Kind", (kind) => Model.spoken(kind) || "unknown"), table("hour", "Hour (UTC)", (hour) => `${hour}:00`));
}

form.onsubmit = (event) => { event.preventDefault(); go({ view: "analytics", query: Object.fromEntries(new FormData(form)) }); };
form.range.onchange = ({ target: { value: range } }) => {
  const [from, to] = range === "days" ? [6, 0].map((ago) => new Date(clock.now() - ago * 86_400_000).toISOString().slice(0, 10)) : [];
  go({ view: "analytics", query: { range, from, to } });
};
