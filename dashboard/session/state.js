/* The state of a session in all its versions, and what changed with each. */
import { asked, eventsOf, query, stateOf } from "../api.js";
import { treeOf } from "../blocks.js";
import { el, failure, fill, make, setCurrent, timeText } from "../dom.js";
import { LongList } from "../long_list.js";
import * as Model from "../model.js";
import { joined, oneLine, upTo } from "../model.js";
import { hashWith, route, schedule, sessionHash, turn } from "../route.js";
import { Tab } from "./who.js";

const chosen = () => Number(route.query.at) || null;
export default class StateTab extends Tab {
  items = [];
  version = -1;
  constructor(session, place) {
    super(session, place, "state");
    this.list = new LongList(this.on("list"), { key: (event) => event.cursor, height: () => 52, create: () => make("t-version"), update: (...row) => this.drawVersion(...row), near: (_, end) => { if (end) this.more(); } });
    this.on("older").onclick = () => this.step(1);
    this.on("newer").onclick = () => this.step(-1);
    this.on("now").href = sessionHash(session.id, "state");
    this.more();
    this.graphs = el("div");
    this.readGraphs();
  }
  leave() { this.isLeft = true; }

  async history(before) { return (await asked(`${stateOf(this.session.id)}/history?${query({ order: "desc", limit: 100, before })}`)).items; }
  /** Older versions; before them all is the session's beginning. */
  async more() {
    if (this.asking || this.ends) return;
    this.asking = true;
    try {
      let items = await this.history(this.items.at(-1)?.cursor);
      if (!items.length) { this.ends = true; items = await eventsOf(this.session.id, { limit: 1 }); }
      this.items.push(...items.slice(0, this.ends ? 1 : undefined));
    } catch (error) { if (!this.isLeft) this.on("said").textContent = error.message; }
    this.asking = false;
    schedule();
  }
  async newest() {
    try {
      const items = await this.history(), known = new Set(this.items.map((item) => item.cursor));
      this.items.unshift(...items.filter((item) => !known.has(item.cursor)));
      schedule();
    } catch { this.version = null; }
  }
  step(by) {
    const { items, list } = this, from = items.findIndex((event) => event.cursor === chosen());
    const next = items[from < 0 ? (by > 0 ? Math.min(1, items.length - 1) : -1) : from + by];
    if (next) { turn({ at: next.cursor }); list.reveal(items.indexOf(next)); }
  }
  move(by) { this.step(by); }
  /** The steps of its graphs (LangGraph's checkpoints), again every few seconds: no event tells of them. */
  async readGraphs() {
    const steps = async ({ thread }) => [el("h2", "", `Graph ${thread}`), el("div", "changes", ...(await asked(`api/checkpoints/${encodeURIComponent(thread)}/steps`)).items.map(stepOf))];
    try {
      const { items } = await asked(`api/checkpoints?${query({ sessionId: this.session.id })}`);
      this.graphs.replaceChildren(...(await Promise.all(items.map(steps))).flat());
    } catch { /* asked again soon */ }
    if (!this.isLeft) setTimeout(() => this.readGraphs(), 3000);
  }

  draw() {
    const { version } = this.session.document.state;
    if (this.version !== version) { if (this.version !== -1) this.newest(); this.version = version; }
    this.list.set(this.items);
    this.show();
  }
  drawVersion(row, event, number) {
    const { title, text: what } = Model.face(event, this.session.about().names), { version } = this, key = `${number} ${version}`;
    row.firstElementChild.href = hashWith({ at: event.cursor });
    setCurrent(row, chosen() === event.cursor);
    if (row.dataset.number === key) return;
    row.dataset.number = key;
    fill(row, { version: Number.isInteger(version) ? `v${version - number}` : "", what: title, time: timeText(event.timestamp), who: `${event.agentId ?? event.userId}${what ? `: ${oneLine(what)}` : ""}` });
  }

  /** The version that the address names, and what was other before it; else how it is now. */
  async show() {
    const cursor = chosen(), key = `${cursor} ${cursor === null ? `${this.session.document.state.version} ${this.items[0]?.cursor}` : ""}`;
    if (this.shown === key) return;
    this.shown = key;
    try {
      const [now, before] = await this.versions(cursor ?? this.items[0]?.cursor, cursor !== null);
      if (this.shown === key && !this.isLeft) this.drawDocument(cursor, now, before);
    } catch (error) { if (!this.isLeft) this.on("document").replaceChildren(failure(error.message, () => { this.shown = ""; this.show(); })); }
  }
  async versions(cursor, isOld) {
    const { session } = this, at = (when) => asked(`${stateOf(session.id)}?at=${when}`);
    return Promise.all([isOld ? at(cursor) : session.document.state, cursor ? at(cursor - 1).catch(() => ({})) : null]);
  }
  drawDocument(cursor, now, before) {
    fill(this.place, { at: `Version ${now.version}${cursor === null ? ", now" : ""}`, said: cursor === null ? "" : timeText(now.timestamp) });
    const found = before === null ? [] : Model.changes(before, now).filter(({ path }) => !["version", "timestamp"].includes(path));
    const { rest, empty } = withoutEmpty(now), heading = found.length ? `What changed (${found.length === 200 ? "200 or more" : found.length})` : "Nothing changed";
    this.on("document").replaceChildren(...(before === null ? [] : [el("h2", "", heading), el("div", "changes", ...found.slice(0, 60).map(changeOf))]),
      treeOf(rest, { changed: new Set(found.map(({ path }) => path)) }), empty.length ? el("p", "faint", `Empty: ${empty.join(", ")}`) : "", this.graphs);
  }
}

/** A document without its members in which nothing is, and the names of those. */
function withoutEmpty(value, path = "", empty = []) {
  if (!Model.isObject(value)) return { rest: value, empty };
  const rest = {};
  for (const [name, member] of Object.entries(value)) {
    const where = path ? `${path}.${name}` : name;
    if (Model.isNothing(member) && member !== false) { empty.push(where); continue; }
    const own = withoutEmpty(member, where, empty).rest;
    if (!Model.isObject(own) || Object.keys(own).length) rest[name] = own;
  }
  return { rest, empty };
}
function changeOf({ path, before, after }) {
  const shown = (tag, value) => value === undefined ? "" : el(tag, "", upTo(JSON.stringify(value), 400));
  return el("div", "", el("span", "key", `${path}  `), shown("del", before), before !== undefined && after !== undefined ? " → " : "", shown("ins", after));
}
function stepOf({ at, ns, about, written, waits }) {
  return el("div", "", el("span", "key", `${timeText(at)}  `), joined([ns, `step ${about.step ?? "?"}`, about.source, written.length && `wrote ${written.join(", ")}`]), waits ? el("b", "", " waits for a person") : "");
}
