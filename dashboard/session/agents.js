/* The agents of a session as a tree: what each was to do, what came of it, how long it took. */
import { asked, of, query } from "../api.js";
import { treeOf } from "../blocks.js";
import { clock, el, fill, link, make, slot } from "../dom.js";
import * as Model from "../model.js";
import { count, lasting, millis, said, text, upTo } from "../model.js";
import { schedule, sessionHash } from "../route.js";
import { MANY, agentsIn } from "./who.js";

const TYPES = "agent_spawned,agent_updated,agent_completed";

export default class AgentsTab {
  constructor(session, place) { Object.assign(this, { session, place, shown: null, until: 0, asking: false, events: [] }); }
  /** What the agents' runs are: each began and ended, maybe often, of which the state has the first and the last. */
  async more() {
    const { session, events } = this;
    this.asking = true;
    try {
      for (let items = [0]; items.length && events.length < MANY; events.push(...items))
        ({ items } = await asked(`${of(session.id, "/events")}?${query({ brief: "true", type: TYPES, limit: 1000, after: events.at(-1)?.cursor })}`));
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
    const list = el("ul", "scroll", ...Model.agentTree(agents).map((node) => agentOf(node, session, runs)));
    list.tabIndex = 0;
    list.setAttribute("aria-label", "Agents");
    this.place.replaceChildren(agents.length ? list : el("p", "empty", "No agents were spawned."));
  }
}

function agentOf({ agent, children }, session, runs) {
  const row = make("t-agent"), isOver = Boolean(session.document.metadata.ended) || session.document.metadata.status === "lost";
  const isGone = isOver && !Model.ENDED.includes(agent.status);
  row.dataset.status = text(agent.status);
  slot(row, "status").dataset.status = isGone ? "" : text(agent.status);
  fill(row, { status: isGone ? "no end came" : Model.spoken(agent.status), type: Model.agentName(agent), id: Model.shortId(agent.agentId),
    took: tookByAgent(agent, runs.get(agent.agentId) ?? [], isOver), log: "Its entries" });
  slot(row, "id").title = agent.agentId;
  slot(row, "about").append(...[agent.task, agent.result].filter((value) => !Model.isNothing(value)).map(aboutOf));
  slot(row, "log").href = Model.hashOf({ view: "session", id: session.id, tab: "log", query: { agent: agent.agentId } });
  if (agent.subsession) slot(row, "log").after(link(sessionHash(text(agent.subsession)), "Its session"));
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
function aboutOf(value) {
  let parsed = value;
  try { if (/^\s*[[{]/.test(value)) parsed = JSON.parse(value); } catch { /* it is text */ }
  return parsed !== null && typeof parsed === "object" ? treeOf(parsed, { open: 1 }) : el("p", "prose", upTo(Model.plain(value) || said(value), 4000));
}
