/* The keys, and the buttons of the bar. */
import { asks, notify } from "./asks.js";
import { createTestSession, note } from "./doing.js";
import { at } from "./dom.js";
import * as Model from "./model.js";
import { palette } from "./palette.js";
import { go, route, turn, views } from "./route.js";

const KEYS = {
  __proto__: null,
  "/": () => { at("find").q.focus(); at("find").q.select(); },
  "?": () => at("keys").showModal(),
  j: () => views[route.view].move?.(1),
  k: () => views[route.view].move?.(-1),
  "[": () => turnTab(-1),
  "]": () => turnTab(1),
  "{": () => views.session.step(1),
  "}": () => views.session.step(-1),
  p: () => views.home.pause(),
  h: () => go({ view: "home" }),
  s: () => go({ view: "sessions", query: {} }),
  a: () => asks.key("allow"),
  d: () => asks.key("deny"),
  r: () => asks.key("reply"),
  e: () => asks.key("toggle"),
  x: () => views.home.acknowledge(),
  X: () => views.home.acknowledge(true),
  Escape: () => { if (route.query.entry) turn({ entry: "" }); else if (route.view === "session") history.back(); },
};
function turnTab(by) {
  if (route.view !== "session") return;
  const next = Model.TABS[(Model.TABS.indexOf(route.tab) + by + Model.TABS.length) % Model.TABS.length];
  go({ view: "session", id: route.id, tab: next });
}
addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") { event.preventDefault();
    if (at("login").hidden) palette.open(); return; }
  if (document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, textarea")) { if (event.key === "Escape") event.target.blur(); return; }
  const act = at("login").hidden && KEYS[event.key];
  if (act) { event.preventDefault(); act(); }
});

at("find").onsubmit = (event) => {
  event.preventDefault();
  event.target.q.blur();
  go({ view: "search", query: { ...(route.view === "search" ? route.query : {}), q: event.target.q.value } });
};
at("keys").querySelector("form").onsubmit = (event) => { event.preventDefault(); at("keys").close(); };
at("show-keys").onclick = () => at("keys").showModal();
at("notify").onclick = notify;
at("new-session").onclick = createTestSession;
at("new-session").classList.add("writes");

const THEMES = ["system", "light", "dark"];
function nameTheme() { at("theme-name").textContent = `Theme: ${theme.chosen()}`; at("theme").title = `Theme: ${theme.chosen()}`; }
at("theme").onclick = () => {
  const next = THEMES[(THEMES.indexOf(theme.chosen()) + 1) % THEMES.length];
  try { localStorage.setItem("theme", next); } catch { /* it is kept nowhere, then */ }
  theme.show();
  nameTheme();
  note(`Theme: ${next}`);
};
nameTheme();
