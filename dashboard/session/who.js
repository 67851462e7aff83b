/* Who works in a session, what came of it, and what all of its tabs have in common. */
import { el, slot, template } from "../dom.js";
import * as Model from "../model.js";
import { schedule } from "../route.js";

export const MANY = 5000;       // events of a session that are loaded unasked

export const listIn = (list) => (Array.isArray(list) ? list : []).filter(Model.isObject);
export const agentsIn = ({ document }) => listIn(document?.state.agents?.spawned).filter((agent) => typeof agent.agentId === "string" && !Model.isInternal(agent));
export const nameOfAgent = (session, agentId) => Model.agentName(agentsIn(session).find((agent) => agent.agentId === agentId) ?? { agentId });
export const signs = (files) => [el("span", "good", `+${Model.count(Model.sum(files, "added"))}`), " ", el("span", "bad", `−${Model.count(Model.sum(files, "removed"))}`)];

export class Tab {
  constructor(session, place, name) {
    Object.assign(this, { session, place });
    if (name) place.replaceChildren(template(`t-${name}`));
  }
  on(name) { return slot(this.place, name); }
}

/** What came of a session, of the rows that it has; its newest edits are read whole. */
export class Work {
  constructor(session) { Object.assign(this, { session, rows: null, whole: new Map(), asking: false, read: 0 }); }
  /** Of what the whole log is known, not a choice of it. */
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
    for (const row of wanted) this.whole.set(row.key, await this.session.whole(row).catch(() => row.events));
    this.asking = false;
    this.read++;
    schedule();
  }
  files() {
    if (this.filesOf !== this.read) { this.filesOf = this.read; this.all = Model.filesOf(this.found.edits.map((row) => [row, this.whole.get(row.key) ?? null])); }
    return this.all;
  }
}
