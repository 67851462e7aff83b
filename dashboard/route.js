/* Where one is, and how one gets elsewhere: the address's hash says it. */
import { at } from "./dom.js";
import { hashOf, routeOf } from "./model.js";

/** The views by their names, which main.js brings. All that a view has of these is called: `arrive` where one comes to it or
    its address changes, `leave` where one is elsewhere, `draw`, `name`, `move` with the keyboard, `answers` and `again` when
    the server is asked anew, `take` for events, `reconnected`, `forget`. */
export const views = {};
export let route = routeOf(location.hash);
let before = null;         // the route that one came from; null: nothing was shown yet

/** Go somewhere; with `replace` the back button does not come here again, with `again` one arrives also where one is. */
export function go(to, { replace = false, again = false } = {}) {
  const hash = hashOf(to), isHere = hash === hashOf(route);
  if (isHere && !again) return;
  if (!isHere) history[replace ? "replaceState" : "pushState"](null, "", hash);
  arrive();
}
const turned = (changes) => ({ ...route, query: { ...route.query, ...changes } });
export const turn = (changes, options = { replace: true }) => go(turned(changes), options);
export const hashWith = (changes) => hashOf(turned(changes));
export const sessionHash = (id, tab, query) => hashOf({ view: "session", id, tab, query });
export const entryHash = (id, entry) => sessionHash(id, "log", { entry });
export const sessionsHash = (query) => hashOf({ view: "sessions", query });

export function arrive() {
  const last = before;
  before = route = routeOf(location.hash);
  for (const [name, view] of Object.entries(views)) if (name !== route.view) view.leave?.();
  views[route.view].arrive?.(last);
  if (last?.view !== route.view) { at("main").scrollTop = 0; at("find").q.value = route.view === "search" ? route.query.q ?? "" : ""; }
  drawing.now();
}
export function arriveAnew() { before = null; arrive(); }
export const hasArrived = () => before !== null;
/** All that was shown is of no use any more. */
export function forgetViews() {
  for (const view of Object.values(views)) view.forget?.();
  before = null;
}

/** The page is drawn once for however many reasons; how, main.js says. */
export const drawing = {
  due: null, draw() {},
  now() { this.due = null; this.draw(); },
  /** A frame that was waited for may never come. */
  anew() { this.due = null; schedule(); },
};
export function schedule() {
  drawing.due ??= document.hidden ? setTimeout(() => drawing.now(), 200) : requestAnimationFrame(() => drawing.now());
}
