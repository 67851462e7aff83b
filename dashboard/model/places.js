/* Where one is: the address's hash, a span of time, agents as a tree, and which rows of a long list are in sight. */
import { isObject } from "./words.js";

export function agentTree(agents) {
  const nodes = new Map(agents.filter(isObject).map((agent) => [agent.agentId, { agent, children: [] }]));
  const roots = [];
  for (const node of nodes.values()) {
    const parent = nodes.get(node.agent.parentAgentId);
    (parent && !isAbove(nodes, node, parent) ? parent.children : roots).push(node);
  }
  return roots;
}
/** Whether `node` is `other` or above it, so that nobody becomes their own child. */
function isAbove(nodes, node, other) {
  for (let at = other, steps = 0; at && steps < 100; at = nodes.get(at.agent.parentAgentId), steps++) if (at === node) return true;
  return false;
}

export const TABS = ["conversation", "changes", "usage", "timeline", "log", "state", "goals", "agents", "raw"];
/** #/session/ID/log?entry=7 as {view, id, tab, query}; what is not known is home. */
export function routeOf(hash) {
  const [path, search = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [view, id, tab] = path.split("/").map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
  const members = Object.fromEntries(new URLSearchParams(search));
  if (view === "session" && id) return { view, id, tab: TABS.includes(tab) ? tab : TABS[0], query: members };
  return { view: ["sessions", "search", "analytics"].includes(view) ? view : "home", query: members };
}
export const query = (members) => new URLSearchParams(Object.entries(members).filter(([, value]) => (value ?? "") !== "")).toString();
export function hashOf({ view = "home", id, tab = "conversation", query: members = {} }) {
  const path = view === "home" ? "" : view === "session" ? `session/${encodeURIComponent(id)}/${tab}` : view, search = query(members);
  return `#/${path}${search ? `?${search}` : ""}`;
}

export function isWithin({ span = "" }, when) { const [from, to] = span.split("-").map(Number); return !span || (when >= from && when <= to); }

const DAY = 86_400_000;
const SPANS = { __proto__: null, hour: 3_600_000, day: DAY, week: 7 * DAY, month: 30 * DAY };
const BARS = [60, 300, 900, 3600, 10_800, 86_400, 604_800];
/** What the address says of a span as the times of its ends, "" for none, and the seconds of one of about 60 bars. Days
    are those of UTC, as all that the queries group by is. */
export function spanOf({ range = "day", from = "", to = "" }, now) {
  const ends = range === "from" ? [Date.parse(from), Date.parse(to)] : range === "days" ? [Date.parse(from), Date.parse(to) + DAY] : [now - SPANS[range], NaN];
  const said = (when) => Number.isFinite(when) ? new Date(when).toISOString() : "";
  const seconds = ((Number.isFinite(ends[1]) ? ends[1] : now) - ends[0]) / 1000;
  const step = Number.isFinite(seconds) ? BARS.find((bar) => bar * 62 >= seconds) ?? BARS.at(-1) : 86_400;
  return { from: said(ends[0]), to: said(ends[1]), step };
}
/** A span as long, right before that; null before everything. */
export function spanBefore({ from, to, step }, now) {
  if (!from) return null;
  const begin = Date.parse(from), long = (to ? Date.parse(to) : now) - begin;
  return { from: new Date(begin - long).toISOString(), to: from, step };
}
/** A number for each step of the span, 0 where nothing happened, oldest first; at most the newest 400. */
export function seriesOf(rows, { from, to, step }, now, name) {
  const place = (time) => Math.floor(Date.parse(time) / 1000 / step);
  const numbers = new Map(rows.map((row) => [place(row.at), row[name]]));
  const last = to ? place(to) - (Date.parse(to) / 1000 % step ? 0 : 1) : Math.floor(now / 1000 / step);
  const begin = Math.max(last - 399, from ? place(from) : Math.min(last, ...numbers.keys()));
  return Array.from({ length: Math.max(0, last - begin + 1) },
    (_, i) => ({ at: (begin + i) * step * 1000, number: numbers.get(begin + i) ?? 0 }));
}

/** Where each row begins, and at last where all end. */
export function offsetsOf(items, height) {
  const offsets = new Float64Array(items.length + 1);
  for (let i = 0; i < items.length; i++) offsets[i + 1] = offsets[i] + height(items[i]);
  return offsets;
}
export function rowAt(offsets, y) {
  let low = 0, high = offsets.length - 2;
  while (low < high) { const middle = (low + high + 1) >> 1; if (offsets[middle] <= y) low = middle; else high = middle - 1; }
  return Math.max(0, low);
}
