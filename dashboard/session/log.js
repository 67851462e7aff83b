/* The log: a row for each entry, a call and its result in one; filtered, and read back as far as one likes. */
import { clock, el, fill, fit, icon, make, refill, setCurrent, slot, template, timeText } from "../dom.js";
import { LongList } from "../long_list.js";
import * as Model from "../model.js";
import { ago, count, lasting, oneLine, text } from "../model.js";
import { route, turn } from "../route.js";
import { agentsIn, nameOfAgent } from "./who.js";
import { Detail } from "./detail.js";
import { spanChip } from "./head.js";

export default class LogTab {
  constructor(session, place) {
    Object.assign(this, { session, place, revealed: null, isNew: true, isFirst: true, offered: null });
    place.replaceChildren(template("t-log"));
    this.detail = new Detail(session, this.on("split"));
    this.on("type").append(...Object.entries(Model.SHOW_NAMES).map(([name, words]) => new Option(words, name)));
    this.on("type").onchange = (event) => turn({ show: event.target.value, entry: "" });
    this.on("agent").onchange = (event) => turn({ agent: event.target.value, entry: "" });
    this.on("errors").onchange = (event) => turn({ errors: event.target.checked ? "yes" : "", entry: "" });
    this.on("minor").onchange = (event) => turn({ minor: event.target.checked ? "yes" : "" });
    this.on("fresh").onclick = () => session.toNewest();
    this.on("find").href = Model.hashOf({ view: "search", query: { session: session.id } });
    this.list = new LongList(this.on("list"), {
      key: (row) => row.key, height: (row) => Model.isTall(row, roomIn(this.list?.wide)) ? 68 : 34, sticks: "bottom",
      create: () => make("t-entry"), update: (row, entry) => drawEntry(session, row, entry, roomIn(this.list.wide)),
      near(start, end) { if (start) session.older(); if (end) session.newer(); },
    });
    session.isReadingBack = () => !this.list.isAtEnd();
  }
  on(name) { return slot(this.place, name); }
  leave() { this.session.isReadingBack = null; }

  /** The rows that were asked for, without the bookkeeping unless that is asked for, or there is nothing else. */
  shownRows() {
    const { rows: all, choice } = this.session, { minor, entry } = route.query;
    const rows = all.filter((row) => (!choice.errors || row.events.some(Model.isError)) && Model.isWithin(route.query, row.time));
    return minor || rows.every((row) => row.minor) ? rows : rows.filter((row) => !row.minor || row.key === Number(entry));
  }
  draw() {
    const rows = this.shownRows();
    this.drawChoice();
    this.list.set(rows);
    this.reveal(rows);
    this.drawSaid(rows);
    this.detail.draw();
  }
  drawChoice() {
    const { session } = this, { show, agent, errors } = session.choice, agents = agentsIn(session);
    const minor = session.rows.filter((row) => row.minor).length;
    this.on("agent-label").hidden = !agents.length;
    if (this.on("agent").options.length !== agents.length + 1) this.on("agent").replaceChildren(new Option("all", ""),
      ...agents.map((each) => new Option(fit(`${Model.agentName(each)} ${Model.shortId(each.agentId)}`), each.agentId)));
    this.offerKinds(show);
    this.on("type").value = show;
    this.on("agent").value = agent;
    this.on("errors").checked = errors !== "";
    this.on("minor").checked = Boolean(route.query.minor);
    this.on("minor-label").hidden = !minor;
    fill(this.place, { "minor-text": `Bookkeeping (${count(minor)})` });
  }
  /** The kinds that are in the log, to choose from; what was offered once stays. */
  offerKinds(show) {
    const { events } = this.session.log;
    if (this.offered === events) return;
    this.offered = events;
    const entries = events.filter((event) => ["action", "response"].includes(event.type));
    const kinds = new Set([...entries.map((event) => text(event.data.type)), ...(Model.SHOWS[show] ? [] : [show])]);
    for (const option of this.on("type").options) kinds.delete(option.value);
    for (const kind of [...kinds].sort()) this.on("type").append(new Option(`only ${Model.forPeople(kind)}`, kind));
  }
  /** At first the newest row comes in sight; then whatever entry the address names. */
  reveal(rows) {
    const { session, list } = this, { entry = null } = route.query;
    if (session.loading) return;
    if (this.isFirst && rows.length) { this.isFirst = false; if (!entry) list.reveal(rows.length - 1); }
    if (entry === this.revealed) return;
    const row = entry === null ? null : session.rowOfEntry(Number(entry));
    if (row) list.reveal(rows.indexOf(row), this.isNew ? "middle" : "nearest");
    if (row || entry === null) { this.revealed = entry; this.isNew = false; }
  }
  drawSaid(rows) {
    const { session } = this, { show, agent, errors } = session.choice, isPiece = !session.log.begins || !session.log.ends;
    refill(this.on("span"), route.query.span ?? "", spanChip);
    this.on("said").textContent = session.logError ?? (session.loading || session.paging ? "Loading …" : isPiece
      ? `${count(rows.length)} rows loaded` : `${count(rows.length)} ${rows.length === 1 ? "row" : "rows"}`);
    this.on("fresh").hidden = session.log.ends;
    this.on("fresh").textContent = session.missed ? `${count(session.missed)} new ↓` : "To the newest ↓";
    this.on("none").replaceChildren(...(rows.length || session.loading ? []
      : [el("p", "empty", show || agent || errors || route.query.span ? "No entry is like that." : "Nothing was logged yet.")]));
  }
  move(by) {
    const rows = this.shownRows(), entry = Number(route.query.entry) || null, last = rows.length - 1, { list } = this;
    if (entry === null) {
      const inSight = list.rows.size ? Model.rowAt(list.offsets, list.top + list.tall - 1) : last;
      if (rows.length) turn({ entry: rows[Math.min(last, inSight)].key });
      return;
    }
    const next = rows[Math.min(last, Math.max(0, rows.indexOf(this.session.rowOfEntry(entry)) + by))];
    if (next) turn({ entry: next.key });
  }
}

export const whyOf = (entry) => entry.error && !oneLine(entry.text).includes(entry.error) ? entry.error : "";
/** Characters of an entry's text that one line holds, in a list so wide. */
const roomIn = (wide) => wide ? Math.max(40, Math.floor((wide - 290) / 7)) : 60;
const TOOK_WORDS = { __proto__: null, cancelled: "no result", open: "…", rejected: "rejected" };
function tookWords({ state, time, took }) {
  return state === "running" ? `running ${ago(clock.now() - time)}` : TOOK_WORDS[state] ?? (took === null ? "" : lasting(took));
}
function drawEntry(session, row, entry, room) {
  const took = tookWords(entry), isTall = Model.isTall(entry, room), chosen = Number(route.query.entry);
  const key = `${entry.key} ${entry.cursor} ${entry.state} ${took} ${entry.events.length} ${entry.title} ${isTall}`;
  setCurrent(row, entry.key === chosen || entry.events.some((event) => event.cursor === chosen));
  row.firstElementChild.href = Model.hashOf({ ...route, query: { ...route.query, entry: entry.key } });
  if (row.dataset.shown === key) return;
  row.dataset.shown = key;
  row.dataset.kind = entry.kind;
  row.dataset.state = entry.state ?? "";
  row.dataset.depth = entry.agentId ? 1 : 0;
  row.toggleAttribute("data-minor", Boolean(entry.minor));
  row.classList.toggle("tall", isTall);
  icon(row, entry.icon);
  fill(row, { title: entry.title, text: entry.kind === "answer" ? Model.unmarked(entry.text) : isTall ? entry.text : oneLine(entry.text), why: whyOf(entry),
    who: entry.agentId ? nameOfAgent(session, entry.agentId) : "", took, time: timeText(entry.time) });
  slot(row, "who").title = entry.agentId ?? "";
  slot(row, "text").hidden = false;
  slot(row, "text").className = `text ${isTall ? "two-lines" : "cut"}${["terminal", "file", "edit", "search"].includes(entry.icon) ? " mono" : ""}`;
}
