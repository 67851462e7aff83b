/* The keys, and the buttons of the bar. */
import { asks, notify } from "./asks.js";
import { createTestSession, note } from "./doing.js";
import { at } from "./dom.js";
import { TABS } from "./model.js";
import { palette } from "./palette.js";
import { go, route, turn, views } from "./route.js";

const move = (by) => views[route.view].move?.(by);
const KEYS = {
  __proto__: null,
  "/": () => { at("find").q.focus(); at("find").q.select(); },
  "?": () => at("keys").showModal(),
  j: () => move(1),
  k: () => move(-1),
  "[": () => turnTab(-1),
  "]": () => turnTab(1),
  "{": () => views.session.step(1),
  "}": () => views.session.step(-1),
  p: () => views.home.pause(),
  h: () => go({}),
  s: () => go({ view: "sessions" }),
  a: () => asks.key("allow"),
  d: () => asks.key("deny"),
  r: () => asks.key("reply"),
  e: () => asks.key("toggle"),
  x: () => views.home.acknowledge(),
  X: () => views.home.acknowledge(true),
  Escape: () => { if (route.query.entry) turn({ entry: "" }); else if (route.view === "session") history.back(); },
};
function turnTab(by) {
  if (route.view === "session") go({ view: "session", id: route.id, tab: TABS.at((TABS.indexOf(route.tab) + by) % TABS.length) });
}
addEventListener("keydown", (event) => {
  const { key, target } = event, isWithControl = event.ctrlKey || event.metaKey, isIn = at("login").hidden;
  const act = isWithControl ? key.toLowerCase() === "k" && (() => palette.open()) : !event.altKey && KEYS[key];
  if (document.querySelector("dialog[open]") || (!isWithControl && target.matches("input, select, textarea"))) { if (key === "Escape" && !target.closest("dialog")) target.blur(); return; }
  if (act && isIn) { event.preventDefault(); act(); }
});

at("find").onsubmit = (event) => {
  event.preventDefault();
  event.target.q.blur();      // the keys go through the hits from here
  go({ view: "search", query: { ...(route.view === "search" ? route.query : {}), q: event.target.q.value } }, { again: true });
};
at("show-keys").onclick = KEYS["?"];
at("notify").onclick = notify;
at("new-session").onclick = createTestSession;

const THEMES = ["system", "light", "dark"];
function nameTheme() { at("theme").title = `Theme: ${theme.chosen()}`; }
at("theme").onclick = () => {
  try { localStorage.setItem("theme", THEMES[(THEMES.indexOf(theme.chosen()) + 1) % 3]); } catch { /* it is kept nowhere, then */ }
  theme.show();
  nameTheme();
  note(at("theme").title);
};
nameTheme();
