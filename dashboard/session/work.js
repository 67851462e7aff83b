/* What a session has done to files, as far as its log is there. */
import { el } from "../dom.js";
import * as Model from "../model.js";
import { count } from "../model.js";
import { schedule } from "../route.js";

export class Work {
  constructor(session) { Object.assign(this, { session, rows: null, whole: new Map(), asking: false, read: 0 }); }
  look(most) {
    const { session } = this;
    if (session.rows !== this.rows && !session.isChosen()) { this.rows = session.rows; this.found = Model.workOf(this.rows); this.read++; }
    if (this.found && !this.asking) this.have(most);
    return this.found;
  }
  async have(most) {
    const { edits, tests } = this.found, wanted = [...edits.slice(-most), ...(tests ? [tests] : [])].filter((row) => this.whole.get(row.key)?.length !== row.events.length);
    if (!wanted.length) return;
    this.asking = true;
    for (const row of wanted) try { this.whole.set(row.key, await this.session.whole(row)); } catch { this.whole.set(row.key, row.events); }
    this.asking = false;
    this.read++;
    schedule();
  }
  files() {
    if (this.filesOf !== this.read) { this.filesOf = this.read; this.all = Model.filesOf(this.found.edits.map((row) => [row, this.whole.get(row.key) ?? null])); }
    return this.all;
  }
}
export const sumOf = (files) => ["added", "removed"].map((name) => files.reduce((all, file) => all + file[name], 0));
export const signs = (added, removed) => [el("span", "good", `+${count(added)}`), " ", el("span", "bad", `−${count(removed)}`)];
