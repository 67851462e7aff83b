/* The detail of an entry, beside the log or under the timeline. */
import { entryBlocks, pre, prose, toolBlocks } from "../blocks.js";
import { copy } from "../doing.js";
import { el, failure, fill, fullDays, icon, link, make, slot } from "../dom.js";
import * as Model from "../model.js";
import { joined, lasting, millis, text } from "../model.js";
import { CALLS } from "../model/timeline.js";
import { entryHash, route, sessionHash, turn } from "../route.js";
import { nameOfAgent } from "./who.js";

const JSON_OF = (event) => JSON.stringify(event, null, 2);
export class Detail {
  constructor(session, split) { Object.assign(this, { session, split, element: null, shown: "", isRaw: false }); }
  draw() {
    const entry = Number(route.query.entry) || null, row = entry && this.session.rowOfEntry(entry);
    this.split.classList.toggle("has-detail", row !== null);
    if (row === null) { this.element?.remove(); this.element = null; this.shown = ""; return; }
    const key = `${row.key} ${row.state} ${row.events.length} ${this.isRaw}`;
    if (this.shown === key) return;
    this.shown = key;
    this.element ?? this.build();
    const { element } = this, [words, status] = STATES[row.state] ?? ["", ""];
    Object.assign(element.dataset, { kind: row.kind, state: row.state ?? "" });
    icon(element, row.icon);
    fill(element, { title: row.title, state: words });
    slot(element, "state").dataset.status = status ?? row.state;
    slot(element, "raw").ariaPressed = this.isRaw;
    Object.assign(slot(element, "to-log"), { href: entryHash(this.session.id, row.key), hidden: route.tab === "log" });
    this.show(row, key);
  }
  async show(row, key) {
    const body = slot(this.element, "body");
    let { events } = row;
    if (events.some((event) => event.brief)) {
      body.replaceChildren(el("p", "dim", "Loading …"));
      try { events = await this.session.whole(row); } catch (error) {
        if (this.shown === key) body.replaceChildren(failure(error.message, () => { this.shown = ""; this.draw(); }));
        return;
      }
    }
    if (this.shown !== key || !this.element) return;
    this.events = events;
    body.replaceChildren(pairsOf(this.session, row, events), ...(this.isRaw ? events.map((event) => pre(Model.forReaders(JSON_OF(event)))) : blocksOf(row, events)));
    body.scrollTop = 0;
  }
  build() {
    const element = this.element = make("t-detail");
    this.split.append(element);
    slot(element, "close").onclick = () => turn({ entry: "" });
    slot(element, "raw").onclick = () => { this.isRaw = !this.isRaw; this.draw(); };
    slot(element, "copy").onclick = () => copy(this.events.map(JSON_OF).join("\n"));
  }
}
/** Of each state of a row its words, and its status where that has another name. */
const STATES = { ok: ["done", "completed"], error: ["failed"], running: ["running"], rejected: ["rejected"], cancelled: ["no result came"], open: ["not ended in this piece", ""] };

function pairsOf(session, row, events) {
  const [{ data, timestamp }] = events, all = (of) => [...new Set(events.map(of).filter(Boolean))].join(", "), { agentId } = row;
  const pairs = { At: fullDays.format(millis(timestamp)), Took: row.took === null ? "" : lasting(row.took), Type: all((event) => joined([event.type, text(event.data.type)], ": ")),
    Agent: agentId ? link(sessionHash(session.id, "log", { agent: agentId }), [...new Set([nameOfAgent(session, agentId), agentId])].join(" · ")) : "", Call: text(data.toolUseId), Mode: text(data.permission_mode),
    Cursor: all((event) => event.cursor), Seq: data.seq ? all((event) => event.data.seq) : "", By: all((event) => text(event.actor)), Event: events.length === 1 ? events[0].eventId : "" };
  return el("dl", "pairs", ...Object.entries(pairs).filter(([, value]) => value !== "").map(([name, value]) => el("div", "", el("dt", "", name), el("dd", "mono", value))));
}
const EXTRA = { running: "It is still running.", cancelled: "No result came: its turn, or the session, ended without one.", open: "Its result is further on.",
  rejected: "A person did not want it, or broke it off." };
function blocksOf(row, events) {
  const isTool = (event) => [...CALLS, "permission_denied"].includes(event.data.type), isCall = (event) => event.data.type === "tool_call";
  if (events.every(isTool)) {
    const ended = events.find((event) => !isCall(event)), { tool, input } = (events.find(isCall) ?? ended).data, extra = EXTRA[row.state];
    return [...toolBlocks(tool, input, ended?.data.output, ended ? ended.data.error : row.error), ...(extra ? [el("p", "dim", extra)] : [])];
  }
  const answer = events.find((event) => event.data.type === "assistant_message");
  return answer ? entryBlocks(answer) : events[0].data.type === "message_display" ? [prose(events.map((event) => text(event.data.delta)).join(""))] : events.flatMap(entryBlocks);
}
