/* Search: what was logged with all of some words, the best first, by session, with facets. */
import { asked, query } from "./api.js";
import { cardOf, soughtOnes } from "./cards.js";
import { at, button, el, failure, fill, fit, icon, link, make, moveAmong, slot, timeText } from "./dom.js";
import * as Model from "./model.js";
import { count, few } from "./model.js";
import { go, route, sessionHash, turn } from "./route.js";

const ABOUT = 3;
export const search = {
  shown: null, items: [], opened: new Set(),
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
    this.opened.clear();
    for (const id of ["search-none", "facets"]) at(id).replaceChildren();
    at("search-count").textContent = "";
    at("search-behind").hidden = true;
    if (!q.trim()) {
      at("results").replaceChildren();
      at("search-none").append(el("p", "empty",
        "Words that stand anywhere in what was logged: a command, a file's name, a sentence. Also \u201ca phrase\u201d in quotes, begin*, and -without that word."));
      return;
    }
    const [, kind] = type.split("kind:");
    const narrowed = { type: kind ? "" : type, kind, sessionId: session, userId: user,
      since: when && new Date(Date.now() - when * 3600000).toISOString() };
    try {
      const { items, total, behind } = await asked(`api/query/search?${query({ q, ...narrowed, limit: 100 })}`);
      if (this.shown !== wanted) return;
      this.items = items;
      this.drawHits();
      at("search-count").textContent = items.length < total ? `the best ${items.length} of ${count(total)}` : few(items.length, "hit");
      at("search-behind").hidden = !behind;
      at("search-behind").textContent = `Search is behind: it does not have the newest ${few(behind, "event")} yet.`;
      if (!items.length) at("search-none").append(el("p", "empty", "Nothing that was logged has all of these words."));
      await soughtOnes();
      if (this.shown === wanted) this.drawHits();
    } catch (error) { at("search-none").append(failure(error.message, () => { this.shown = null; this.arrive(); })); }
  },
  drawHits() {
    const groups = new Map(), focused = [...at("results").querySelectorAll(".hit")].indexOf(document.activeElement);
    for (const hit of this.items) groups.set(hit.event.sessionId, [...(groups.get(hit.event.sessionId) ?? []), hit]);
    at("results").replaceChildren(...[...groups].map(([id, hits]) => {
      const card = { ...cardOf(id), userId: hits[0].event.userId }, isOpen = this.opened.has(id) || groups.size === 1, more = hits.length - ABOUT;
      const head = el("div", "row", link(sessionHash(id), Model.nameOf(card)), el("span", "dim cut grow", [Model.project(card), card.userId === "unknown" ? "" : card.userId].filter(Boolean).join(" · ")),
        el("span", "faint", few(hits.length, "hit")));
      return el("li", "found", head, el("ol", "", ...(isOpen ? hits : hits.slice(0, ABOUT)).map(hitOf)),
        ...(more > 0 && !isOpen ? [button(`${few(more, "more hit")} in this session`, () => { this.opened.add(id); this.drawHits(); }, "plain")] : []));
    }));
    if (focused >= 0) at("results").querySelectorAll(".hit")[focused]?.focus();
    at("facets").replaceChildren(...FACETS.map(([title, name, valueOf]) => facet(title, name, this.items, valueOf)).filter(Boolean));
  },
};
const FACETS = [["Kind", "type", ({ data, type }) => data.seq ? `kind:${data.type}` : type], ["User", "user", ({ userId }) => userId],
  ["Session", "session", ({ sessionId }) => sessionId]];
/** The values that hits have of something, the most frequent first: each narrows the search to it. */
function facet(title, name, hits, valueOf) {
  const counts = new Map();
  for (const { event } of hits) counts.set(valueOf(event), (counts.get(valueOf(event)) ?? 0) + 1);
  if (counts.size < 2 && !route.query[name]) return null;
  const chosen = route.query[name], words = (value) => name === "session" ? Model.nameOf(cardOf(value)) : Model.words(value.replace("kind:", ""));
  return el("section", "", el("h2", "", title), el("ul", "", ...[...counts].sort((a, b) => b[1] - a[1]).slice(0, 8).map(([value, number]) =>
    el("li", "", button(`${name === "user" ? value : words(value)}  ${number}`, () => turn({ [name]: chosen === value ? "" : value }), "plain cut")))),
    ...(chosen ? [button("All", () => turn({ [name]: "" }), "plain")] : []));
}
/** A hit says what it is; where that has the words in it, they are marked there, and what the index has is not shown. */
function hitOf({ event, marked }) {
  const { kind, icon: name, title, text } = Model.face(event), line = Model.oneLine(text), row = make("t-hit");
  const found = [...new Set(marked.filter((_, number) => number % 2).map((word) => word.toLowerCase()))], isHere = found.every((word) => line.toLowerCase().includes(word));
  row.dataset.kind = kind;
  icon(row, name);
  row.firstElementChild.href = Model.hashOf({ view: "session", id: event.sessionId, tab: "log", query: { entry: event.cursor } });
  fill(row, { title, time: timeText(event.timestamp) });
  const parts = isHere ? line.split(new RegExp(`(${found.map((word) => word.replace(/[\\^$.*+?()[\]{}|\/]/g, "\\$&")).join("|")})`, "giu")) : marked;
  slot(row, "snippet").append(...parts.map((part, number) => number % 2 ? el("mark", "", part) : fit(part)));
  return row;
}
const form = at("search-filter");
form.onsubmit = (event) => { event.preventDefault(); form.q.blur(); go({ view: "search", query: { ...route.query, ...Object.fromEntries(new FormData(form)) } }); };
form.when.onchange = () => form.requestSubmit();
