/* The agents of a session as a tree: what each was to do, what came of it, how long it took. */
import { eventsOf } from "../api.js";
import { treeOf } from "../blocks.js";
import { clock, el, fill, link, make, scrolled, slot } from "../dom.js";
import * as Model from "../model.js";
import { count, lasting, millis, said, text, upTo } from "../model.js";
import { schedule, sessionHash } from "../route.js";
import { MANY, Tab, agentsIn } from "./who.js";

export default class AgentsTab extends Tab {
  until = 0;
  events = [];
  /** What the agents' runs are: each began and ended, maybe often, of which the state has the first and the last. */
  async more() {
    const { session, events } = this;
    this.asking = true;
    try {
      for (let items = [0]; items.length && events.length < MANY; events.push(...items))
        items = await eventsOf(session.id, { brief: "true", type: "agent_spawned,agent_updated,agent_completed", limit: 1000, after: events.at(-1)?.cursor });
    } catch { /* asked again with the next change */ }
    this.asking = false;
    schedule();
  }
  draw() {
    const { session, events } = this, { lastCursor } = session.document.metadata, agents = agentsIn(session);
    if (!this.asking && this.until !== lastCursor) { this.until = lastCursor; this.more(); }
    const key = JSON.stringify([agents, events.length]) + (agents.some((agent) => !agent.completedAt) ? Math.floor(clock.now() / 5000) : "");
    if (this.shown === key) return;
    this.shown = key;
    const runs = Model.runsOf(events);
    this.place.replaceChildren(agents.length ? scrolled(el("ul", "scroll", ...Model.agentTree(agents).map((node) => agentOf(node, session, runs))), "Agents") : el("p", "empty", "No agents were spawned."));
  }
}

function agentOf({ agent, children }, session, runs) {
  const { agentId, status, subsession } = agent, row = make("t-agent"), isOver = session.isOver(), isGone = isOver && !Model.ENDED.includes(status), log = slot(row, "log");
  row.dataset.status = text(status);
  slot(row, "status").dataset.status = isGone ? "" : text(status);
  fill(row, { status: isGone ? "no end came" : Model.spoken(status), type: Model.agentName(agent), id: Model.shortId(agentId), took: tookByAgent(agent, runs.get(agentId) ?? [], isOver) });
  slot(row, "id").title = agentId;
  slot(row, "about").append(...[agent.task, agent.result].filter((value) => !Model.isNothing(value)).map(aboutOf));
  log.href = sessionHash(session.id, "log", { agent: agentId });
  if (subsession) log.after(link(sessionHash(text(subsession)), "Its session"));
  slot(row, "children").append(...children.map((child) => agentOf(child, session, runs)));
  return row;
}
/** How long an agent worked; where it did so several times, how often, all together, and the last time. */
function tookByAgent(agent, runs, isOver) {
  const until = (to) => to ?? (isOver ? NaN : clock.now());
  if (!runs.length) return lasting(until(agent.completedAt ? millis(agent.completedAt) : null) - millis(agent.spawnedAt));
  const took = runs.map(({ from, to }) => until(to) - from), sum = took.filter((each) => each >= 0).reduce((all, each) => all + each, 0);
  return runs.length === 1 ? lasting(took[0]) : `${count(runs.length)} runs, ${lasting(sum)} in all, the last ${lasting(took.at(-1)) || "not ended"}`;
}
/** A task or a result: text as text, and what is JSON, as graphs have it, as a tree. */
function aboutOf(value) {
  let parsed = value;
  try { if (/^\s*[[{]/.test(value)) parsed = JSON.parse(value); } catch { /* it is text */ }
  return typeof parsed === "object" ? treeOf(parsed, { open: 1 }) : el("p", "prose", upTo(Model.plain(value) || said(value), 4000));
}
