/* Search: what was logged with all of some words, the best first. */
import { asked, query } from "./api.js";
import { at, el, failure, fill, fit, icon, make, moveAmong, slot, timeText } from "./dom.js";
import * as Model from "./model.js";
import { count, few } from "./model.js";
import { go, route } from "./route.js";

export const search = {
  shown: null,
  name: () => "Search",
  move: (by) => moveAmong([...at("results").querySelectorAll(".hit")], by),
  async arrive() {
    const form = at("search-filter");
    for (const { name } of [...form.elements].filter((field) => field.name))
      if (document.activeElement !== form[name]) form[name].value = route.query[name] ?? "";
    const { q = "", type = "", session = "", user = "", when = "" } = route.query;
    const wanted = query({ q, type, session, user, when });
    if (this.shown === wanted) return;
    this.shown = wanted;
    at("search-count").textContent = "";
    at("search-none").replaceChildren();
    at("search-behind").hidden = true;
    if (!q.trim()) { at("results").replaceChildren();
      at("search-none").append(el("p", "empty",
      "Words that stand anywhere in what was logged: a command, a file's name, a sentence. Also \u201ca phrase\u201d in quotes, begin*, and -without that word."));
      return; }
    const [, kind] = type.split("kind:");
    const narrowed = { type: kind ? "" : type, kind, sessionId: session, userId: user,
      since: when && new Date(Date.now() - when * 3600000).toISOString() };
    try {
      const { items, total, behind } = await asked(`api/query/search?${query({ q, ...narrowed, limit: 100 })}`);
      if (this.shown !== wanted) return;
      at("results").replaceChildren(...items.map(hitOf));
      at("search-count").textContent = items.length < total ? `the best ${items.length} of ${count(total)}` : few(items.length, "hit");
      at("search-behind").hidden = !behind;
      at("search-behind").textContent = `Search is behind: it does not have the newest ${few(behind, "event")} yet.`;
      if (!items.length) at("search-none").append(el("p", "empty", "Nothing that was logged has all of these words."));
    } catch (error) { at("search-none").append(failure(error.message, () => { this.shown = null; this.arrive(); })); }
  },
};
function hitOf({ event, marked }) {
  const { kind, icon: name, title } = Model.face(event);
  const row = make("t-hit");
  row.dataset.kind = kind;
  icon(row, name);
  row.firstElementChild.href = Model.hashOf({ view: "session", id: event.sessionId, tab: "log", query: { entry: event.cursor } });
  fill(row, { title, session: `${Model.shortId(event.sessionId)}${event.userId === "unknown" ? "" : `, ${event.userId}`}`,
    time: timeText(event.timestamp) });
  slot(row, "snippet").append(...marked.map((part, number) => number % 2 ? el("mark", "", part) : fit(part)));
  return row;
}
at("find").onsubmit = (event) => { event.preventDefault();
  go({ view: "search", query: { ...(route.view === "search" ? route.query : {}), q: event.target.q.value } }); };
at("search-filter").onsubmit = (event) => { event.preventDefault();
  go({ view: "search", query: Object.fromEntries(new FormData(event.target)) }); };
for (const name of ["type", "when"]) at("search-filter")[name].onchange = () => at("search-filter").requestSubmit();
