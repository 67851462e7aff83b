/* The detail of an entry, beside the log or under the timeline. */
import { entryBlocks, pre, prose, toolBlocks } from "../blocks.js";
import { copy } from "../doing.js";
import { el, failure, fill, fullDays, icon, link, make, slot } from "../dom.js";
import * as Model from "../model.js";
import { lasting, millis, text } from "../model.js";
import { route, turn } from "../route.js";
import { nameOfAgent } from "./who.js";

export class Detail {
  constructor(session, split) { Object.assign(this, { session, split, element: null, shown: "", isRaw: false }); }
  draw() {
    const entry = Number(route.query.entry) || null;
    const row = entry === null ? null : this.session.rowOfEntry(entry);
    this.split.classList.toggle("has-detail", row !== null);
    if (row === null) { this.element?.remove(); this.element = null; this.shown = ""; return; }
    const key = `${row.key} ${row.state} ${row.events.length} ${this.isRaw}`;
    if (this.shown === key) return;
    this.shown = key;
    this.element ?? this.build();
    const { element } = this;
    element.dataset.kind = row.kind;
    element.dataset.state = row.state ?? "";
    icon(element, row.icon);
    fill(element, { title: row.title, state: STATE_WORDS[row.state] ?? "" });
    slot(element, "state").dataset.status = { ok: "completed", open: "" }[row.state] ?? row.state ?? "";
    slot(element, "raw").setAttribute("aria-pressed", String(this.isRaw));
    slot(element, "to-log").href = Model.hashOf({ view: "session", id: this.session.id, tab: "log", query: { entry: row.key } });
    slot(element, "to-log").hidden = route.tab === "log";
    this.show(row, key);
  }
  async show(row, key) {
    let events = row.events;
    const body = slot(this.element, "body");
    if (events.some((event) => event.brief)) {
      body.replaceChildren(el("p", "dim", "Loading …"));
      try { events = await this.session.whole(row);
        } catch (error) { if (this.shown === key) body.replaceChildren(failure(error.message, () => { this.shown = ""; this.draw(); }));
        return; }
    }
    if (this.shown !== key || !this.element) return;
    this.events = events;
    body.replaceChildren(pairsOf(this.session, row, events),
      ...(this.isRaw ? events.map((event) => pre(Model.forReaders(JSON.stringify(event, null, 2)))) : blocksOf(row, events)));
    body.scrollTop = 0;
  }
  build() {
    this.element = make("t-detail");
    this.split.append(this.element);
    slot(this.element, "close").onclick = () => turn({ entry: "" });
    slot(this.element, "raw").onclick = () => { this.isRaw = !this.isRaw; this.draw(); };
    slot(this.element, "copy").onclick = () => copy(this.events.map((event) => JSON.stringify(event, null, 2)).join("\n"));
  }
}
const STATE_WORDS = { __proto__: null, ok: "done", error: "failed", running: "running", rejected: "rejected", cancelled: "no result came",
  open: "not ended in this piece" };

function pairsOf(session, row, events) {
  const [head] = events, last = events.at(-1), { data } = head;
  const inner = row.agentId ? link(Model.hashOf({ ...route, tab: "log", query: { agent: row.agentId } }),
    [nameOfAgent(session, row.agentId), row.agentId].filter((name, place, all) => all.indexOf(name) === place).join(" · ")) : null;
  const pairs = [["At", fullDays.format(millis(head.timestamp))], ["Took", row.took === null ? "" : lasting(row.took)],
    ["Type", events.map((event) => [event.type, text(event.data.type)].filter(Boolean).join(": ")).join(", ")],
    ["Agent", inner ?? ""], ["Call", text(data.toolUseId)], ["Mode", text(data.permission_mode)],
      ["Cursor", events.map((event) => event.cursor).join(", ")],
      ["Seq", data.seq ? events.map((event) => event.data.seq).filter(Boolean).join(", ") : ""],
      ["By", [...new Set(events.map((event) => text(event.actor)).filter(Boolean))].join(", ")],
      ["Event", events.length === 1 ? last.eventId : ""]];
  return el("dl", "pairs", ...pairs.filter(([, value]) => value !== "")
    .map(([name, value]) => el("div", "", el("dt", "", name), el("dd", "mono", value))));
}
function blocksOf(row, events) {
  const isTool = (event) => ["tool_call", "tool_result", "tool_error", "permission_denied"].includes(event.data.type);
  if (events.every(isTool)) {
    const begun = events.find((event) => event.data.type === "tool_call"), ended = events.find((event) => event.data.type !== "tool_call");
    const { tool, input } = (begun ?? ended).data;
    const extra = { running: "It is still running.", cancelled: "No result came: its turn, or the session, ended without one.",
      open: "Its result is further on.", rejected: "A person did not want it, or broke it off." }[row.state];
    return [...toolBlocks(tool, input, ended?.data.output, ended?.data.error ?? (ended ? undefined : row.error || undefined)),
      ...(extra ? [el("p", "dim", extra)] : [])];
  }
  const answer = events.find((event) => event.data.type === "assistant_message");
  return answer ? entryBlocks(answer) : events[0].data.type === "message_display"
    ? [prose(events.map((event) => text(event.data.delta)).join(""))] : events.flatMap(entryBlocks);
}
