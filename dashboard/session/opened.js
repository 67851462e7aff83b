/* The session that is open: its document, a piece of its log, and the tab that shows one of them. */
import { Away, asked, askedText, eventsOf, of, query, shared } from "../api.js";
import { addNote, copy, deleteSession, editTags, finalize, note, pin, rename } from "../doing.js";
import { at, el, failure, link, setCurrent, slot, template } from "../dom.js";
import { state } from "../live.js";
import * as Model from "../model.js";
import { oneLine, said, text } from "../model.js";
import { go, route, schedule, turn } from "../route.js";
import { agentsIn, listIn } from "./who.js";
import ConversationTab from "./conversation.js";
import { drawHead } from "./head.js";

/** The tab that most people open; the others are fetched when they are. */
const TAB_VIEWS = { __proto__: null, conversation: ConversationTab };
const NOT_SHARED = ["usage", "state", "goals", "raw"];
const PAGE = 500;

class Opened {
  constructor(id) {
    Object.assign(this, { id, document: null, text: "", error: null, log: Model.NO_EVENTS, rows: [], lanes: null, filter: null,
      shown: null, why: {}, loading: false, paging: false, missed: 0, tab: null, timer: null, last: 0, successors: [], asked: null, changes: null, changesFrom: 0 });
    this.root = at("session");
    this.root.replaceChildren(el("p", "empty", "Loading …"));
    this.read();
  }
  leave() { clearTimeout(this.timer); this.isLeft = true; this.tab?.leave?.(); }
  name() { return this.document && Model.nameOf(this.document.metadata); }

  async read() {
    this.timer = null;
    try {
      this.text = await askedText(of(this.id, "?limit=0"));
      this.document = JSON.parse(this.text);
      this.error = null;
      if (this.logError) this.need();
      await Promise.all([this.findWhy(), this.findAsked()]);
      if (!shared) this.successors = (await asked(`api/sessions?${query({ origin: this.id, limit: 6 })}`)).items;
    } catch (error) { if (!(error instanceof Away && this.document)) this.error = error; }
    this.last = performance.now();
    if (!this.isLeft) schedule();
  }
  /** What went wrong last in a session that has failed: its end alone may not say it. */
  async findWhy() {
    const { status, ended } = this.document.metadata;
    if (status !== "failed" || this.why.ended === ended) return;
    const items = await eventsOf(this.id, { brief: "true", errors: "true", order: "desc", limit: 5 });
    this.why = { ended, words: items.map((event) => Model.errorLine(event) || oneLine(Model.face(event).text)).find(Boolean) ?? "" };
  }
  /** What a person asked first, which stands among the first events. */
  async findAsked() {
    if (this.asked) return;
    const items = await eventsOf(this.id, { brief: "true", limit: 30 }), input = this.document.initial?.input;
    const prompt = items.find(({ data }) => data.type === "prompt" && !Model.isMachineMade(data));
    this.asked = prompt ? Model.first(prompt.data, ...Model.PROMPTS) : said(typeof input === "object" ? "" : input);
  }
  answer() {
    if (this.rows !== this.answered && !this.isChosen()) { this.answered = this.rows; this.said = this.rows.findLast((row) => row.kind === "answer" && !row.agentId)?.text ?? this.said; }
    return this.said ?? "";
  }
  /** What came of it in files, as the server knows it: asked anew where something has come, but never all the time. */
  async haveChanges() {
    const { lastCursor } = this.document.metadata, begun = performance.now();
    if (this.changesOf === lastCursor || begun < this.changesFrom) return;
    Object.assign(this, { changesOf: lastCursor, changesFrom: Infinity });
    try { this.changes = await asked(of(this.id, "/changes")); } catch { this.changesOf = null; }
    this.changesFrom = performance.now() + Math.max(2000, 10 * (performance.now() - begun));
    if (!this.isLeft) schedule();
  }
  isChosen() { return !this.filter || Object.values(this.filter).some(Boolean); }
  changed() { this.timer ??= setTimeout(() => this.read(), Math.max(120, this.last + 800 - performance.now())); }
  /** Live events of this session. */
  take(events) {
    if (!events.length) return;
    if (events.some((event) => event.type === "session_deleted")) { note(`The session ${this.id} was deleted.`); go({}, { replace: true }); return; }
    this.changed();
    const wanted = events.filter((event) => this.filter && Model.isAskedFor(event, this.filter)).map(Model.brief);
    if (this.log.ends && this.log.events.length + wanted.length > Model.LOG && this.isReadingBack?.()) this.log = { ...this.log, ends: false };
    if (!this.log.ends) this.missed += wanted.length;
    else if (this.filter.errors) this.withCalls(wanted, 1).then((all) => { this.put(all); schedule(); }, () => {});
    else this.put(wanted);
  }
  put(events, edges) {
    this.log = Model.withEvents(this.log, events, edges);
    this.drawRows();
  }
  /** The rows anew: of more events, or because the session has come to something that the log does not tell. */
  drawRows() {
    const about = this.about();
    this.rows = Model.rowsOf(this.log, about);
    this.lanes = null;
    this.known = JSON.stringify([...about.names, about.over, about.idle]);
  }
  about() {
    const names = new Map();
    for (const goal of listIn(this.document?.state.goals)) names.set(`${this.id} ${goal.id}`, said(goal.description));
    for (const agent of agentsIn(this)) names.set(`${this.id} ${agent.agentId}`, Model.agentName(agent));
    return { names, over: this.isOver(), idle: this.document?.metadata.attention?.reason === "input" };
  }
  isOver() { const { ended, status } = this.document?.metadata ?? {}; return Boolean(ended) || status === "lost"; }
  get choice() { const { show = "", agent = "", errors = "" } = route.query; return { show, agent, errors }; }

  /* A page may be shorter than asked for where its events are large: only an empty one says that there are no more. */

  /** Have the piece of the log that the address asks for: around an entry, or the newest. */
  async need() {
    this.isNeeded = true;
    if (this.loading) return;
    this.loading = true;
    this.logError = null;
    try { while (this.isNeeded && !this.isLeft) { this.isNeeded = false; await this.have(); } } catch (error) { this.logError = error.message; this.shown = null; }
    this.loading = false;
    if (!this.isLeft) schedule();
  }
  async have() {
    const choice = route.tab === "log" ? this.choice : {}, entry = Number(route.query.entry) || null;
    if (this.shown !== query(choice)) {
      this.filter = choice;
      this.shown = query(choice);
      this.missed = 0;
      this.begin();
      const floor = state.cursor;
      const newest = await this.events({ order: "desc", limit: PAGE });
      this.begin();
      this.put(newest.reverse(), { begins: newest.length === 0, ends: true });
      if (floor !== state.cursor) await this.catchUp(newest.at(-1)?.cursor ?? 0);
    }
    if (entry !== null && this.rowOfEntry(entry) === null && this.notThere !== entry) await this.around(entry);
  }
  begin() { this.log = Model.NO_EVENTS; this.rows = []; this.lanes = null; }
  async around(entry) {
    const floor = state.cursor;
    const [before, after] = await Promise.all([this.events({ order: "desc", before: entry + 1, limit: 150 }),
      this.events({ after: entry, limit: 250 })]);
    if (before[0]?.cursor !== entry) this.notThere = entry;
    const isJoined = this.log.events.length > 0 && after.some((event) => event.cursor >= this.log.events[0].cursor);
    if (!isJoined) { this.begin(); this.missed = 0; }
    this.put([...before.reverse(), ...after],
      { begins: this.log.begins || before.length === 0, ends: isJoined ? this.log.ends : after.length === 0 });
    if (after.length === 0 && floor !== state.cursor) await this.catchUp(entry);
  }
  /** What came after a cursor while it was asked for what is up to that; from now on it comes live. */
  async catchUp(after) {
    for (const until = state.cursor; after < until;) {
      const events = await this.events({ after, limit: 1000 });
      if (!events.length) return;
      this.put(events);
      after = events.at(-1).cursor;
    }
  }
  async events(which) {
    const items = await eventsOf(this.id, { brief: "true", ...Model.askedFor(this.filter), ...which });
    return this.filter.errors ? this.withCalls(items, which.order === "desc" ? -1 : 1) : items;
  }
  /** The failures with the calls that failed, which no list of failures has: looked for before each, not far back. */
  async withCalls(events, order) {
    const sought = events.filter(({ data }) => data.toolUseId && data.type === "tool_error" && data.input === undefined), found = new Map();
    for (const event of [...sought].sort((a, b) => b.cursor - a.cursor).slice(0, CALLS_SOUGHT)) {
      if ([...this.log.events, ...found.values()].some((call) => isCallOf(call, event))) continue;
      const items = await eventsOf(this.id, { brief: "true", kind: "tool_call", order: "desc", before: event.cursor, limit: 200 });
      for (const wanted of sought) {
        const call = items.find((item) => item.cursor < wanted.cursor && isCallOf(item, wanted));
        if (call) found.set(call.cursor, call);
      }
    }
    const seen = new Set(events.map((event) => event.cursor));
    return [...events, ...[...found.values()].filter((call) => !seen.has(call.cursor))].sort((a, b) => order * (a.cursor - b.cursor));
  }
  async older() {
    const [oldest] = this.log.events;
    if (this.log.begins || !oldest) return;
    await this.page(async () => {
      const events = await this.events({ order: "desc", before: oldest.cursor, limit: PAGE });
      return [events.reverse(), { begins: events.length === 0 }];
    });
  }
  async newer(isFed = true) {
    if ((this.log.ends && isFed) || !this.log.events.length) return;
    const floor = state.cursor, after = this.log.events.at(-1).cursor;
    await this.page(async () => {
      const events = await this.events({ after, limit: PAGE });
      return [events, { ends: events.length === 0 }];
    });
    if (this.log.ends) { this.missed = 0; if (floor !== state.cursor) await this.catchUp(after); }
  }
  async page(read) {
    if (this.loading || this.paging) return;
    const wanted = this.shown;
    this.paging = true;
    this.logError = null;
    try {
      const [events, edges] = await read();
      if (this.shown === wanted) this.put(events, edges);
    } catch (error) {
      this.logError = error.message;
      await new Promise((later) => setTimeout(later, 1500));
    }
    this.paging = false;
    if (!this.isLeft) schedule();
  }
  toNewest() { this.shown = null; turn({ entry: "" }); this.need(); }
  rowOfEntry(entry) { return this.rows.find((row) => row.key === entry || row.events.some((event) => event.cursor === entry)) ?? null; }
  async whole(row) { return Promise.all(row.events.map(async (event) => event.brief ? (await eventsOf(this.id, { after: event.cursor - 1, limit: 1 }))[0] ?? event : event)); }

  arrive() {
    this.need();
    this.draw();
  }
  draw() {
    if (this.isLeft) return;
    const { error } = this;
    if (error) {
      this.root.replaceChildren(error.status === 404 ? el("div", "empty", el("h1", "", `There is no session ${this.id}.`), link("#/sessions", "All sessions")) : failure(error.message, () => this.read()));
      this.isBuilt = false;
      return;
    }
    if (!this.document) return;
    if (!this.isBuilt) this.build();
    const { names, over, idle } = this.about();
    if (this.known !== JSON.stringify([...names, over, idle])) this.drawRows();
    this.haveChanges();
    drawHead(this);
    if (this.tabName !== route.tab) this.turnTo(route.tab); else this.tab?.draw();
  }
  async turnTo(name) {
    const place = slot(this.root, "tab");
    this.tab?.leave?.();
    Object.assign(this, { tab: null, tabName: name });
    try { TAB_VIEWS[name] ??= (await import(`./${name}.js`)).default; } catch { place.replaceChildren(failure("The server does not answer", () => { this.tabName = null; this.draw(); })); return; }
    if (this.isLeft || this.tabName !== name) return;
    this.tab = new TAB_VIEWS[name](this, place);
    for (const a of slot(this.root, "tabs").children) { setCurrent(a, a.dataset.tab === name, "page"); if (a.ariaCurrent) a.scrollIntoView({ block: "nearest", inline: "center" }); }
    this.tab.draw();
  }
  build() {
    const { root } = this;
    root.replaceChildren(template("t-session"));
    Object.assign(this, { isBuilt: true, tabName: null });
    slot(root, "tabs").append(...Model.TABS.filter((name) => !shared || !NOT_SHARED.includes(name)).map((name) => { const a = link(""); a.dataset.tab = name; return a; }));
    for (const [name, path] of Object.entries({ archive: "/archive", markdown: "/conversation?format=markdown", html: "/conversation?format=html" })) slot(root, name).href = of(this.id, path);
    const menu = root.querySelector(".menu");
    menu.onclick = ({ target }) => { if (target.closest(".panel")) menu.open = false; };
    menu.onkeydown = (event) => { if (event.key === "Escape" && menu.open) { menu.open = false; menu.firstElementChild.focus(); event.stopPropagation(); } };
    menu.addEventListener("focusout", ({ relatedTarget }) => { if (relatedTarget && !menu.contains(relatedTarget)) menu.open = false; });
    for (const each of root.querySelectorAll("[data-do]")) each.onclick = () => DOES[each.dataset.do](this);
  }
}

const DOES = { __proto__: null, copy: ({ id }) => copy(id), rename, pin, note: addNote, tags: editTags, finalize, delete: deleteSession,
  share: async (session) => (await import("./shares.js")).share(session), resume: (session) => copy(Model.resumeLine(session.document.metadata)) };
const CALLS_SOUGHT = 20;      // questions for the calls of one page of failures
const isCallOf = (call, { data }) => call.data.type === "tool_call" && call.data.toolUseId === data.toolUseId
  && (call.data.runId ?? null) === (data.runId ?? null);

let opened = null;
export const session = {
  arrive() {
    if (opened?.id !== route.id) { opened?.leave(); opened = new Opened(route.id); }
    opened.arrive();
  },
  leave() {
    if (!opened) return;
    opened.leave();
    opened = null;
    at("session").replaceChildren();
  },
  forget() { this.leave(); },
  draw() { opened?.draw(); },
  name: () => opened?.name() ?? route.id,
  take(events) { opened?.take(events.filter((event) => event.sessionId === opened.id)); },
  reconnected() { opened?.changed(); if (shared) opened?.newer(false); opened?.arrive(); },
  move(by) { opened?.tab?.move?.(by); },
  step(by) { opened?.tab?.step?.(by); },
};
