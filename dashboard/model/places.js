/* Where one is: the address's hash, agents as a tree, and which rows of a long list are in sight. */
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
