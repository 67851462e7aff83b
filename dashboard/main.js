/* The page: its views, how they are drawn, and the start. */
import { asks, renew, tell } from "./asks.js";
import { at, setCurrent } from "./dom.js";
import { home } from "./home.js";
import "./keys.js";
import { live } from "./live.js";
import "./login.js";
import * as Model from "./model.js";
import { arrive, drawing, route, schedule, views } from "./route.js";

const later = (name, load, part = name) => ({ take() {}, reconnected() {}, step() {}, move() {}, async arrive() {
  const { [part]: view } = await load().catch(() => ({}));
  if (!view) { setTimeout(() => route.view === name && this.arrive(), 1000); return; }  // the server is away
  if (views[name] === this) views[name] = view;
  if (route.view === name) { await views[name].arrive(null); schedule(); }
} });
const openedLater = () => import("./session/opened.js");
Object.assign(views, { home, session: later("session", openedLater), sessions: later("sessions", () => import("./sessions.js"), "table"),
  search: later("search", () => import("./search.js")), analytics: later("analytics", () => import("./analytics.js")) });

drawing.draw = () => {
  const isOut = !at("login").hidden, waiting = asks.open().length, view = views[route.view];
  document.body.dataset.out = isOut;
  for (const name of Object.keys(views)) at(name).hidden = isOut || route.view !== name;
  for (const a of document.querySelectorAll(".bar nav a")) setCurrent(a, a.dataset.view === route.view, "page");
  document.title = Model.title(waiting, view.name?.());
  drawFavicon(waiting);
  tell();
  if (!isOut) view.draw?.();
};
function drawFavicon(waiting) {
  if (drawFavicon.shown === waiting) return;
  drawFavicon.shown = waiting;
  const badge = waiting ? `<circle cx='17' cy='7' r='7' fill='#f4bd50'/><text x='17' y='10.5' font-size='10' font-weight='700' font-family='sans-serif' text-anchor='middle' fill='#000'>${waiting > 9 ? "9+" : Number(waiting)}</text>` : "";
  at("favicon").href = `data:image/svg+xml,${encodeURIComponent(`<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 24 24'><rect width='24' height='24' rx='6' fill='#2f6fe0'/><path d='M4.5 13h3l2-6 4 11 2.5-7 1 2h2.5' fill='none' stroke='#fff' stroke-width='1.8'/>${badge}</svg>`)}`;
}

const WHENS = [["", "any time"], [1, "last hour"], [24, "last day"], [168, "last week"], [720, "last 30 days"]];      // hours
for (const choice of document.querySelectorAll("[name=when]")) choice.append(...WHENS.map(([hours, words]) => new Option(words, hours)));

addEventListener("hashchange", arrive);
document.addEventListener("visibilitychange", () => {
  live.check();
  drawing.anew();
});
setInterval(schedule, 5000);
arrive();
live.connect().then(renew);
(globalThis.requestIdleCallback ?? setTimeout)(() => openedLater().catch(() => null));
