/* The table of sessions: filtered as one types, sorted, paged, and following along; views that a person keeps. */
import { asked, query } from "./api.js";
import { promptOf } from "./cards.js";
import { askPerson } from "./doing.js";
import { at, button, el, fill, hoursAgo, kept, link, make, say, setCurrent, showIn, since, slot } from "./dom.js";
import { refresh } from "./live.js";
import { LongList } from "./long_list.js";
import * as Model from "./model.js";
import { count, joined, lasting, millis, oneLine } from "./model.js";
import { go, route, sessionHash, sessionsHash, turn } from "./route.js";

const MOST = 2000;         // sessions that are sorted by something else than their last change
const form = at("sessions-filter"), none = at("table-none"), heads = document.querySelectorAll(".cols [data-sort]");
const tookOf = (card) => card.duration ?? (Model.ENDED.includes(card.status) ? NaN : millis(card.updated) - millis(card.created));
const entriesOf = (card) => card.actions + card.responses;
const ORDERS = { __proto__: null, name: Model.SORTS.name[1], errors: Model.SORTS.errors[1], cost: Model.SORTS.cost[1],
  entries: (a, b) => entriesOf(b) - entriesOf(a), took: (a, b) => (tookOf(b) || 0) - (tookOf(a) || 0) };
/** Whether the server's order and filters are not enough. */
const isChosenHere = () => Boolean(ORDERS[route.query.sort] || route.query.errors || leastCost());
const leastCost = () => Number(route.query.cost) || 0;
const isShown = (card) => (!route.query.status || card.status === route.query.status) && (!route.query.errors || card.errors || card.status === "failed") && (card.cost?.usd ?? 0) >= leastCost();
export const table = {
  items: [], next: null, asking: null, shown: "",
  async arrive() {
    showIn(form, route.query);
    for (const head of heads) setCurrent(head, head.dataset.sort === (route.query.sort ?? ""));
    drawViews();
    const { name, value } = form.contains(document.activeElement) ? document.activeElement : {};
    if (!this.shown && name && value !== (route.query[name] ?? "")) filter();      // it was typed before this was here
    if (this.shown === query(route.query) && this.items.length) { refresh.soon(); return; }
    this.shown = query(route.query);
    this.next = null;
    this.isOld = true;      // what is shown is of the filter before: it stays until the answer
    tableList.to(0);
    await this.more();
  },
  async page(cursor) {
    const asking = this.asking = {}, { sort, errors, cost, when, ...asks } = route.query;
    const page = await asked(`api/sessions?${query({ ...asks, since: hoursAgo(when), limit: isChosenHere() ? 500 : 200, cursor, details: "true" })}`);
    return this.asking === asking ? page : null;
  },
  async more() {
    none.textContent = "No match.";
    try {
      const page = await this.page(this.next);
      if (page === null) return;
      this.items = [...without(page.items, this.isOld ? [] : this.items), ...page.items];
      this.next = page.nextCursor;
    } catch (error) { none.textContent = error.message; this.items = []; }
    this.isOld = false;
    this.asking = null;
    this.draw();
    if (this.next && this.items.length < MOST && isChosenHere()) await this.more();
  },
  /** The newest changes, on top; what has not changed stays below them. */
  async again() {
    if (this.asking) return;
    const page = await this.page(null);
    if (page === null) return;
    this.asking = null;
    const oldest = page.nextCursor === null ? -Infinity : page.items.at(-1).lastCursor;
    this.items = [...page.items, ...without(page.items, this.items).filter((item) => item.lastCursor < oldest)];
    if (this.items.length === page.items.length) this.next = page.nextCursor;
    this.draw();
  },
  /** What events tell of those that are here, also of those that no first page has. */
  take(events) { this.items = Model.cardsAfter(this.items, events).sort((a, b) => b.lastCursor - a.lastCursor); },
  draw() {
    const { sort } = route.query, some = this.items.filter(isShown);
    const shown = ORDERS[sort] ? [...some].sort(ORDERS[sort]) : some;
    tableList.set(shown);
    none.hidden = shown.length > 0 || this.asking !== null;
    say(at("sessions-count"), shown.length ? `${count(shown.length)}${!this.next ? "" : isChosenHere() ? ` of the newest ${count(this.items.length)}` : " and more"}` : "");
  },
  name: () => "Sessions",
  move: (by) => tableList.move(by),
};
function without(some, items) { const known = new Set(some.map((item) => item.sessionId)); return items.filter((item) => !known.has(item.sessionId)); }
const tableList = new LongList(at("table"), {
  key: (card) => card.sessionId, height: () => 44, create: () => make("t-row"),
  update(row, card) {
    const { errors, cost } = Model.figuresOf(card), noted = card.lastNote ? `✎ ${oneLine(card.lastNote)}` : "";
    row.firstElementChild.href = sessionHash(card.sessionId);
    slot(row, "status").dataset.status = card.status;
    row.dataset.pinned = card.pinned === true;
    slot(row, "at").title = noted;
    fill(row, { status: card.status, name: Model.nameOf(card), user: Model.userOf(card) || " ", project: card.title ? Model.project(card) : "", id: Model.idOf(card), errors: errors || " ", cost: cost || " ",
      at: joined([noted, joined(Model.askLines(card).map(oneLine)) || Model.endedBy(card) || promptOf(card) || Model.step(card)]) || " ",
      entries: count(entriesOf(card)), took: lasting(tookOf(card)) || " ", age: since(card.updated) });
  },
  near(_, end) { if (end && table.next && !table.asking) table.more(); },
});
let typing = null;
const filter = () => go({ view: "sessions", query: { ...Object.fromEntries(new FormData(form)), sort: route.query.sort } }, { replace: true });
form.onsubmit = (event) => { event.preventDefault(); filter(); };
form.oninput = (event) => { clearTimeout(typing); typing = setTimeout(filter, event.target.matches("select, [type=checkbox]") ? 0 : 200); };
for (const head of heads) head.onclick = () => turn({ sort: head.dataset.sort });

// ---- views that a person keeps, in this browser

const others = (name) => kept("views", []).filter((view) => view.name !== name);
const keep = (views) => { kept("views", [], views); drawViews(); };
at("save-view").onclick = async () => {
  const said = await askPerson({ title: "Save this view", words: "In this browser, under a name.", yes: "Save", fields: [{ name: "name", label: "Name" }] }), name = said?.name.trim();
  if (name) keep([...others(name), { name, query: route.query }]);
};
function drawViews() {
  at("views").replaceChildren(...kept("views", []).map(({ name, query }) => {
    const a = link(sessionsHash(query), name);
    a.className = "tag";
    setCurrent(a, a.hash === location.hash);
    return el("li", "", a, Object.assign(button("×", () => keep(others(name)), "plain"), { title: `Forget ${name}` }));
  }));
}
