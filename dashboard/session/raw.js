/* The files of a session, to the letter, as the tree has them. */
import { askedText, of, query } from "../api.js";
import { LONGEST } from "../blocks.js";
import { copy } from "../doing.js";
import { button, el, fill, link, make, setCurrent } from "../dom.js";
import { LongList } from "../long_list.js";
import * as Model from "../model.js";
import { count, upTo } from "../model.js";
import { route, schedule, sessionHash } from "../route.js";
import { Tab } from "./who.js";

/** A log is asked for a page at a time; the other files are members of the session. */
const FILES = {
  __proto__: null, "metadata.json": null, "initial.json": null, "state.json": null,
  "actions.jsonl": (id) => `api/actions/${encodeURIComponent(id)}?`,
  "responses.jsonl": (id) => `api/actions/${encodeURIComponent(id)}/responses?`,
  "events.jsonl": (id) => of(id, "/events?"), "final.json": null,
};

export default class RawTab extends Tab {
  file = { name: null, lines: [] };
  constructor(session, place) {
    super(session, place, "raws");
    this.links = Object.keys(FILES).map((file) => Object.assign(link(sessionHash(session.id, "raw", { file }), file), { className: "button mono" }));
    this.on("files").append(...this.links, el("span", "grow"), button("Copy", () => copy(this.file.lines.join("\n"))));
    this.list = new LongList(this.on("list"), { key: (line) => line.number, height: () => 22, create: () => make("t-raw"), update: (row, line) => this.drawLine(row, line), near: (_, end) => { if (end) this.more(); } });
  }
  drawLine(row, { number, text }) {
    if (row.dataset.shown === this.file.name) return;
    row.dataset.shown = this.file.name;
    const shown = Model.forReaders(upTo(text, LONGEST)) || " ";
    fill(row, { no: number, text: text.length > LONGEST ? `${shown} … (${count(text.length)} characters)` : shown });
  }
  async more() {
    const { file, session } = this, path = FILES[file.name];
    if (!path || file.ends || file.asking) return;
    file.asking = true;
    try {
      const answer = await askedText(path(session.id) + query({ limit: 200, after: file.after })), isTimeline = file.name === "events.jsonl";
      const lines = Model.itemsOf(isTimeline ? Model.memberOf(answer, "items") : answer), last = lines.length ? JSON.parse(lines.at(-1)) : null;
      Object.assign(file, { lines: [...file.lines, ...lines], ends: !last, after: last ? (isTimeline ? last.cursor : last.seq) : file.after });
    } catch (error) { file.error = error.message; file.ends = true; }
    file.asking = false;
    schedule();
  }
  /** Have the file that the address names: a document is there at once, of a log a page at a time. */
  take(name) {
    const whole = FILES[name] ? null : Model.memberOf(this.session.text, name.replace(".json", "")) ?? "null";
    if (this.file.name === name && (whole === null || this.file.whole === whole)) return;
    this.file = { name, whole, lines: whole === null || whole === "null" ? [] : Model.pretty(whole).split("\n"), ends: false };
    this.list.set([]);
    this.list.to(0);
    this.more();
  }
  draw() {
    const name = route.query.file in FILES ? route.query.file : "metadata.json", { lastCursor } = this.session.document.metadata;
    this.take(name);
    const { file } = this;
    if (file.ends && !file.error && file.seen !== lastCursor) { file.seen = lastCursor; file.ends = false; this.more(); }
    for (const a of this.links) setCurrent(a, a.textContent === name);
    this.list.set(file.lines.map((text, i) => ({ number: i + 1, text })));
    const none = file.error ?? (name === "final.json" ? "The session has not ended: there is no final.json yet." : "It is empty.");
    this.on("none").replaceChildren(...(file.lines.length || file.asking ? [] : [el("p", "empty", none)]));
  }
}
