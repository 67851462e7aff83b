/* Search: what was logged with all of some words, the best first, by session, with facets. */
import { asked, query } from "./api.js";
import { cardOf, soughtOnes } from "./cards.js";
import { at, button, el, failure, fill, fit, hoursAgo, icon, link, make, moveAmong, showIn, slot, timeText } from "./dom.js";
import { count, face, few, idOf, joined, nameOf, oneLine, project, userOf, words } from "./model.js";
import { entryHash, go, route, sessionHash, turn } from "./route.js";

const ABOUT = 3;           // hits of a session that are shown at once
const form = at("search-filter"), results = at("results"), none = at("search-none");
const hits = () => [...results.querySelectorAll(".hit")];
export const search = {
  shown: null, items: [], opened: new Set(),
  name: () => "Search",
  move: (by) => moveAmong(hits(), by),
  /** Whoever asks for the same again, where one is, gets what is found now. */
  async arrive(last) {
    showIn(form, route.query);
    const { q = "", type = "", session = "", user = "", when = "" } = route.query, wanted = query({ q, type, session, user, when });
    if (this.shown === wanted && last?.view !== "search") return;
    this.shown = wanted;
    this.opened.clear();
    for (const place of [none, at("facets"), at("search-count")]) place.replaceChildren();
    at("search-behind").hidden = true;
    if (!q.trim()) {
      results.replaceChildren();
      none.append(el("p", "empty", "Words that stand anywhere in what was logged: a command, a file's name, a sentence. Also “a phrase” in quotes, begin*, and -without that word."));
      return;
    }
    const [, kind] = type.split("kind:"), since = hoursAgo(when);
    try {
      const { items, total, behind } = await asked(`api/query/search?${query({ q, type: kind ? "" : type, kind, sessionId: session, userId: user, since, limit: 100 })}`);
      if (this.shown !== wanted) return;
      this.items = items;
      this.drawHits();
      at("search-count").textContent = items.length < total ? `the best ${items.length} of ${count(total)}` : few(items.length, "hit");
      at("search-behind").hidden = !behind;
      at("search-behind").textContent = `Search is behind: it does not have the newest ${few(behind, "event")} yet.`;
      if (!items.length) none.append(el("p", "empty", "Nothing that was logged has all of these words."));
      await soughtOnes();
      if (this.shown === wanted) this.drawHits();
    } catch (error) { none.append(failure(error.message, () => { this.shown = null; this.arrive(); })); }
  },
  drawHits() {
    const groups = Map.groupBy(this.items, ({ event }) => event.sessionId), focused = hits().indexOf(document.activeElement);
    results.replaceChildren(...[...groups].map(([id, found]) => {
      const card = { ...cardOf(id), userId: found[0].event.userId }, shown = this.opened.has(id) || groups.size === 1 ? found : found.slice(0, ABOUT), more = found.length - shown.length;
      return el("li", "found", el("div", "row", link(sessionHash(id), nameOf(card)), el("span", "dim cut grow", joined([project(card), userOf(card), idOf(card)])), el("span", "faint", few(found.length, "hit"))),
        el("ol", "", ...shown.map(hitOf)), more ? button(`${few(more, "more hit")} in this session`, () => { this.opened.add(id); this.drawHits(); }, "plain") : "");
    }));
    hits()[focused]?.focus();
    at("facets").replaceChildren(...FACETS.map((facet) => facetOf(this.items, ...facet)));
  },
};
const FACETS = [["Kind", "type", ({ data, type }) => data.seq ? `kind:${data.type}` : type, (type) => words(type.replace("kind:", ""))], ["User", "user", ({ userId }) => userId, (user) => user],
  ["Session", "session", ({ sessionId }) => sessionId, (id) => nameOf(cardOf(id))]];
/** The values that hits have of something, the most frequent first: each narrows the search to it. */
function facetOf(items, title, name, valueOf, told) {
  const values = Map.groupBy(items, ({ event }) => valueOf(event)), chosen = route.query[name];
  if (values.size < 2 && !chosen) return "";
  return el("section", "", el("h2", "", title), el("ul", "", ...[...values].sort((a, b) => b[1].length - a[1].length).slice(0, 8).map(([value, { length }]) =>
    el("li", "", button(`${length}  ${told(value)}`, () => turn({ [name]: chosen === value ? "" : value }), "plain cut")))), chosen ? button("All", () => turn({ [name]: "" }), "plain") : "");
}
/** A hit says what it is; where that has the words in it, they are marked there, and what the index has is not shown. */
function hitOf({ event, marked }) {
  const { kind, icon: name, title, text } = face(event), line = oneLine(text), row = make("t-hit");
  const found = [...new Set(marked.filter((_, number) => number % 2).map((word) => word.toLowerCase()))], isHere = found.every((word) => line.toLowerCase().includes(word));
  row.dataset.kind = kind;
  icon(row, name);
  row.firstElementChild.href = entryHash(event.sessionId, event.cursor);
  fill(row, { title, time: timeText(event.timestamp) });
  const parts = isHere ? line.split(new RegExp(`(${found.map((word) => word.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")).join("|")})`, "giu")) : marked;
  slot(row, "snippet").append(...parts.map((part, number) => number % 2 ? el("mark", "", part) : fit(part)));
  return row;
}
form.onsubmit = (event) => { event.preventDefault(); form.q.blur(); go({ view: "search", query: { ...route.query, ...Object.fromEntries(new FormData(form)) } }, { again: true }); };
form.when.onchange = () => form.requestSubmit();
