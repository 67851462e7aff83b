/* The log: a row for each entry, a call and its result in one; filtered, and read back as far as one likes. */
import { clock, el, fill, fit, icon, make, refill, say, setCurrent, slot, timeText } from "../dom.js";
import { LongList } from "../long_list.js";
import * as Model from "../model.js";
import { ago, count, few, lasting, oneLine, text } from "../model.js";
import { hashWith, route, turn } from "../route.js";
import { Tab, agentsIn, nameOfAgent } from "./who.js";
import { Detail } from "./detail.js";
import { spanChip } from "./head.js";

export default class LogTab extends Tab {
  revealed = null;
  isNew = true;
  isFirst = true;
  constructor(session, place) {
    super(session, place, "log");
    this.detail = new Detail(session, this.on("split"));
    this.on("type").append(...Object.entries(Model.SHOWS).map(([name, [words]]) => new Option(words, name)));
    this.on("type").onchange = (event) => turn({ show: event.target.value, entry: "" });
    this.on("agent").onchange = (event) => turn({ agent: event.target.value, entry: "" });
    this.on("errors").onchange = (event) => turn({ errors: event.target.checked ? "yes" : "", entry: "" });
    this.on("minor").onchange = (event) => turn({ minor: event.target.checked ? "yes" : "" });
    this.on("fresh").onclick = () => session.toNewest();
    this.on("find").href = Model.hashOf({ view: "search", query: { session: session.id } });
    this.list = new LongList(this.on("list"), {
      height: (row) => Model.isTall(row, roomIn(this.list?.wide)) ? 68 : this.list?.wide < 640 ? 44 : 34, sticks: "bottom",
      create: () => make("t-entry"), update: (row, entry) => drawEntry(session, row, entry, roomIn(this.list.wide)),
      near(start, end) { if (start) session.older(); if (end) session.newer(); },
    });
    session.isReadingBack = () => !this.list.isAtEnd();
  }
  leave() { this.session.isReadingBack = null; }

  /** The rows that were asked for, without the bookkeeping unless that is asked for, or there is nothing else. */
  shownRows() {
    const { rows: all, choice } = this.session, { minor, entry } = route.query;
    const rows = all.filter((row) => (!choice.errors || row.events.some(Model.isError)) && Model.isWithin(route.query, row.time));
    return minor || choice.show === "state" || rows.every((row) => row.minor) ? rows : rows.filter((row) => !row.minor || row.key === Number(entry));
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
    const { session } = this, { show, agent, errors } = session.choice, agents = agentsIn(session), minor = session.rows.filter((row) => row.minor).length;
    this.on("agent-label").hidden = !agents.length;
    refill(this.on("agent"), `${agents.length}`, () => [new Option("all", ""), ...agents.map((each) => new Option(fit(`${Model.agentName(each)} ${Model.shortId(each.agentId)}`), each.agentId))]);
    this.offerKinds(show);
    this.on("type").value = show;
    this.on("agent").value = agent;
    this.on("errors").checked = errors !== "";
    this.on("minor").checked = Boolean(route.query.minor);
    this.on("minor-label").hidden = !minor;
    say(this.on("minor-text"), `Bookkeeping (${count(minor)})`);
  }
  /** The kinds that are in the log, to choose from; what was offered once stays. */
  offerKinds(show) {
    const { events } = this.session.log, offers = this.on("type");
    if (this.offered === events) return;
    this.offered = events;
    const entries = events.filter((event) => ["action", "response"].includes(event.type)), kinds = new Set([...entries.map((event) => text(event.data.type)), ...(Model.SHOWS[show] ? [] : [show])]);
    for (const option of offers.options) kinds.delete(option.value);
    offers.append(...[...kinds].sort().map((kind) => new Option(`only ${Model.forPeople(kind)}`, kind)));
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
  drawSaid({ length }) {
    const { session } = this, { log, missed, choice, loading } = session, { span = "" } = route.query;
    refill(this.on("span"), span, spanChip);
    say(this.on("said"), session.logError ?? (loading || session.paging ? "Loading …" : !log.begins || !log.ends ? `${count(length)} rows loaded` : few(length, "row")));
    this.on("fresh").hidden = log.ends;
    say(this.on("fresh"), missed ? `${count(missed)} new ↓` : "To the newest ↓");
    const none = length || loading ? "" : span || Object.values(choice).some(Boolean) ? "No entry is like that." : "Nothing was logged yet.";
    refill(this.on("none"), none, () => none ? [el("p", "empty", none)] : []);
  }
  move(by) {
    const rows = this.shownRows(), entry = Number(route.query.entry) || null, last = rows.length - 1, { list } = this;
    const place = entry !== null ? Math.max(0, rows.indexOf(this.session.rowOfEntry(entry)) + by) : list.rows.size ? Model.rowAt(list.offsets, list.top + list.tall - 1) : last;
    const next = rows[Math.min(last, place)];
    if (next) turn({ entry: next.key });
  }
}

/** What went wrong, where the row does not say it already. */
export const whyOf = (entry) => entry.error && !oneLine(entry.text).includes(entry.error) ? entry.error : "";
/** Characters of an entry's text that one line holds, in a list so wide. */
const roomIn = (wide) => wide ? Math.max(40, Math.floor((wide - 290) / 7)) : 60;
const tookWords = ({ state, time, took }) => state === "running" ? `running ${ago(clock.now() - time)}` : state !== "error" && Model.OUTCOMES[state] || lasting(took ?? NaN);
function drawEntry(session, row, entry, room) {
  const { kind, state, agentId } = entry, took = tookWords(entry), isTall = Model.isTall(entry, room), chosen = Number(route.query.entry);
  const key = `${entry.key} ${entry.cursor} ${state} ${took} ${entry.events.length} ${entry.title} ${isTall}`, words = slot(row, "text");
  setCurrent(row, entry.key === chosen || entry.events.some((event) => event.cursor === chosen));
  row.firstElementChild.href = hashWith({ entry: entry.key });
  if (row.dataset.shown === key) return;
  Object.assign(row.dataset, { shown: key, kind, state: state ?? "", depth: agentId ? 1 : 0 });
  row.toggleAttribute("data-minor", Boolean(entry.minor));
  row.classList.toggle("tall", isTall);
  icon(row, entry.icon);
  fill(row, { title: entry.title, text: kind === "answer" ? Model.unmarked(entry.text) : isTall ? entry.text : oneLine(entry.text), why: whyOf(entry),
    who: agentId ? nameOfAgent(session, agentId) : "", took, time: timeText(entry.time) });
  slot(row, "who").title = agentId ?? "";
  words.hidden = false;
  words.className = `text ${isTall ? "two-lines" : "cut"}${["terminal", "file", "edit", "search"].includes(entry.icon) ? " mono" : ""}`;
}
