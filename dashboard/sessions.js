/* The table of sessions: filtered, paged, and following along. */
import { asked, query } from "./api.js";
import { promptOf } from "./cards.js";
import { at, fill, make, since, slot } from "./dom.js";
import { LongList } from "./long_list.js";
import * as Model from "./model.js";
import { count, lasting, millis, oneLine } from "./model.js";
import { go, route, sessionHash } from "./route.js";

export const table = {
  items: [], next: null, asking: null, shown: "",
  async arrive() {
    const form = at("sessions-filter");
    for (const name of ["status", "userId", "project", "tag", "q"]) if (document.activeElement !== form[name]) form[name].value = route.query[name]
      ?? "";
    if (this.shown === query(route.query) && this.items.length) return;
    this.shown = query(route.query);
    this.items = [];
    this.next = null;
    tableList.to(0);
    await this.more();
  },
  async page(cursor) {
    const asking = this.asking = {};
    const page = await asked(`api/sessions?${query({ ...route.query, limit: 200, cursor, details: "true" })}`);
    return this.asking === asking ? page : null;
  },
  async more() {
    at("table-none").textContent = "No session is like that.";
    try {
      const page = await this.page(this.next);
      if (page === null) return;
      const known = new Set(page.items.map((item) => item.sessionId));
      this.items = [...this.items.filter((item) => !known.has(item.sessionId)), ...page.items];
      this.next = page.nextCursor;
    } catch (error) { at("table-none").textContent = error.message; }
    this.asking = null;
    this.draw();
  },
  /** The newest changes, on top; what has not changed stays below them. */
  async again() {
    if (this.asking) return;
    const page = await this.page(null);
    if (page === null) return;
    this.asking = null;
    const oldest = page.nextCursor === null ? -Infinity : page.items.at(-1).lastCursor;
    const known = new Set(page.items.map((item) => item.sessionId));
    this.items = [...page.items, ...this.items.filter((item) => item.lastCursor < oldest && !known.has(item.sessionId))];
    if (this.items.length === page.items.length) this.next = page.nextCursor;
    this.draw();
  },
  draw() {
    tableList.set(this.items);
    at("table-none").hidden = this.items.length > 0 || this.asking !== null;
    at("sessions-count").textContent = this.items.length ? `${count(this.items.length)}${this.next ? " and more" : ""}` : "";
  },
  name: () => "Sessions",
  move: (by) => tableList.move(by),
};
const tableList = new LongList(at("table").parentElement, at("table"), {
  key: (card) => card.sessionId, height: () => 42, create: () => make("t-row"),
  update(row, card) {
    row.firstElementChild.href = sessionHash(card.sessionId);
    slot(row, "status").dataset.status = card.status;
    row.dataset.pinned = card.pinned === true;
    const took = card.duration ?? (Model.ENDED.includes(card.status) ? NaN : millis(card.updated) - millis(card.created));
    fill(row, { status: card.status, name: Model.nameOf(card), user: card.userId,
      project: card.title ? Model.project(card) : "", id: Model.idOf(card),
      at: Model.askLines(card).map(oneLine).join(" · ") || Model.endedBy(card) || promptOf(card) || Model.step(card) || " ",
      entries: count(card.actions + card.responses), took: lasting(took) || " ", age: since(card.updated) });
  },
  near(_, end) { if (end && table.next && !table.asking) table.more(); },
});
at("sessions-filter").onsubmit = (event) => {
  event.preventDefault();
  go({ view: "sessions", query: Object.fromEntries(new FormData(event.target)) });
};
at("sessions-filter").status.onchange = () => at("sessions-filter").requestSubmit();
