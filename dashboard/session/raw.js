/* The files of a session, to the letter, as the tree has them. */
import { askedText, of, query } from "../api.js";
import { LONGEST } from "../blocks.js";
import { copy } from "../doing.js";
import { button, el, fill, link, make, setCurrent, slot, template } from "../dom.js";
import { LongList } from "../long_list.js";
import * as Model from "../model.js";
import { count, upTo } from "../model.js";
import { route, schedule } from "../route.js";

const NAMES = ["metadata.json", "initial.json", "state.json", "actions.jsonl", "responses.jsonl", "events.jsonl", "final.json"];
/** How a page of a log is asked for; the other files are members of the session. */
const READS = {
  __proto__: null,
  "actions.jsonl": (id, page) => `api/actions/${encodeURIComponent(id)}?${page}`,
  "responses.jsonl": (id, page) => `api/actions/${encodeURIComponent(id)}/responses?${page}`,
  "events.jsonl": (id, page) => of(id, `/events?${page}`),
};

export default class RawTab {
  constructor(session, place) {
    Object.assign(this, { session, place, file: { name: null, lines: [] } });
    place.replaceChildren(template("t-raws"));
    this.on("files").append(...NAMES.map((name) => this.linkTo(name)), el("span", "grow"),
      button("Copy", () => copy(this.file.lines.join("\n"))));
    this.list = new LongList(this.on("list"), {
      key: (line) => line.number, height: () => 22, create: () => make("t-raw"), update: (row, line) => this.drawLine(row, line),
      near: (_, end) => { if (end) this.more(); },
    });
  }
  on(name) { return slot(this.place, name); }
  linkTo(name) {
    const a = link(Model.hashOf({ view: "session", id: this.session.id, tab: "raw", query: { file: name } }), name);
    a.className = "button mono";
    a.dataset.file = name;
    return a;
  }
  drawLine(row, { number, text }) {
    if (row.dataset.shown === this.file.name) return;
    row.dataset.shown = this.file.name;
    const shown = Model.forReaders(upTo(text, LONGEST)) || " ";
    fill(row, { no: number, text: text.length > LONGEST ? `${shown} … (${count(text.length)} characters)` : shown });
  }

  async more() {
    const { file, session } = this;
    if (!READS[file.name] || file.ends || file.asking) return;
    file.asking = true;
    try {
      const answer = await askedText(READS[file.name](session.id, query({ limit: 200, after: file.after })));
      const isTimeline = file.name === "events.jsonl";
      const lines = Model.itemsOf(isTimeline ? Model.memberOf(answer, "items") : answer), last = lines.length ? JSON.parse(lines.at(-1)) : null;
      Object.assign(file, { lines: [...file.lines, ...lines], ends: !lines.length, after: last ? (isTimeline ? last.cursor : last.seq) : file.after });
    } catch (error) { file.error = error.message; file.ends = true; }
    file.asking = false;
    schedule();
  }
  take(name) {
    const whole = READS[name] ? null : Model.memberOf(this.session.text, name.replace(".json", ""));
    if (this.file.name === name && (whole === null || this.file.whole === whole)) return;
    const isNothing = whole === null || whole === "null" || whole === undefined;
    this.file = { name, whole, lines: isNothing ? [] : Model.pretty(whole).split("\n"), ends: false };
    for (const row of this.list.rows.values()) row.remove();
    this.list.rows.clear();
    this.list.to(0);
    this.more();
  }
  draw() {
    const name = NAMES.includes(route.query.file) ? route.query.file : "metadata.json", { lastCursor } = this.session.document.metadata;
    this.take(name);
    const { file } = this;
    if (file.ends && !file.error && file.seen !== lastCursor) { file.seen = lastCursor; file.ends = false; this.more(); }
    for (const a of this.on("files").querySelectorAll("a")) setCurrent(a, a.dataset.file === name);
    this.list.set(file.lines.map((line, i) => ({ number: i + 1, text: line })));
    const none = file.error ?? (name === "final.json" ? "The session has not ended: there is no final.json yet." : "It is empty.");
    this.on("none").replaceChildren(...(file.lines.length || file.asking ? [] : [el("p", "empty", none)]));
  }
}
