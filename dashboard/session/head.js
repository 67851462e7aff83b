/* What stands above the tabs of a session: its status, what it asks, how it ended, and facts about it. */
import { drawOrders } from "../asks.js";
import { drawAsks, waitsSince } from "../cards.js";
import { clock, el, fill, link, slot, timeText } from "../dom.js";
import * as Model from "../model.js";
import { ago, count, few, lasting, millis, said, statusWords, text } from "../model.js";
import { sessionHash } from "../route.js";
import { agentsIn } from "./agents.js";

export const TAB_NAMES = { timeline: "Timeline", log: "Log", state: "State", goals: "Goals", agents: "Agents", raw: "Raw" };

export function drawHead(session) {
  const { root } = session, { metadata } = session.document, status = slot(root, "status"), end = endOf(session);
  status.dataset.status = metadata.status;
  fill(root, { status: statusWords(metadata), name: Model.nameOf(metadata), id: session.id,
    asked: metadata.status === "waiting" ? waitsSince(metadata) : "", end: end && `${END_WORDS[metadata.status] ?? "Ended"}: ${end}` });
  slot(root, "end").dataset.status = metadata.status;
  drawAsks(slot(root, "asks-line"), metadata, session.about().names);
  drawOrders(slot(root, "orders"), metadata);
  root.querySelector("[data-do=finalize]").hidden = metadata.ended !== null;
  drawTabs(session);
  slot(root, "name").dataset.from = text(metadata.titleFrom);
  root.dataset.pinned = metadata.pinned === true;
  root.querySelector("[data-do=pin]").textContent = metadata.pinned === true ? "Unpin" : "Pin";
  drawFacts(slot(root, "facts"), factsOf(metadata, session.successors));
}
/** How it went, in a failed one what went wrong last. */
function endOf({ document, why }) {
  const { metadata, final } = document;
  return metadata.ended === null ? "" : (metadata.status === "failed" && why.words)
    || Model.endText({ ...final, ...(metadata.status === "completed" ? { reason: "" } : {}) });
}
/** The names of the tabs, with how much is in each. */
function drawTabs(session) {
  const { metadata, state } = session.document, goals = Array.isArray(state.goals) ? state.goals : [];
  const done = goals.filter((goal) => goal?.status === "completed").length, agents = agentsIn(session).length;
  const entries = metadata.actions + metadata.responses;
  const numbers = { __proto__: null, log: entries && count(entries), goals: metadata.goals && `${done}/${metadata.goals}`,
    agents: agents && count(agents) };
  for (const a of slot(session.root, "tabs").children) {
    const { tab } = a.dataset, words = numbers[tab] ? `${TAB_NAMES[tab]} ${numbers[tab]}` : TAB_NAMES[tab];
    if (a.textContent !== words) a.textContent = words;
  }
}
function drawFacts(place, facts) {
  const key = JSON.stringify(facts
    .map(([name, value]) => [name, typeof value === "string" ? value : value.map((each) => each.textContent ?? each)]));
  if (place.dataset.shown === key) return;
  place.dataset.shown = key;
  place.replaceChildren(...facts.map(([name, value]) => el("div", "", el("dt", "", name), el("dd", "row", ...[value].flat()))));
}

const END_WORDS = { __proto__: null, failed: "Failed", cancelled: "Cancelled" };
function factsOf(metadata, successors) {
  const where = Model.isObject(metadata.where) ? metadata.where : {};
  const took = metadata.duration ?? (metadata.status === "lost" ? millis(metadata.updated) : clock.now()) - millis(metadata.created);
  const container = text(where.container).slice(0, 12) || text(metadata.sandboxId) || text(metadata.container) || text(metadata.hostname);
  const tokens = metadata.tokenUsage?.total || (metadata.tokenUsage?.input ?? 0) + (metadata.tokenUsage?.output ?? 0);
  const toSession = (id) => link(sessionHash(id), Model.shortId(id));
  const toAll = (name, value) => value ? [link(Model.hashOf({ view: "sessions", query: { [name]: value } }), value)] : "";
  const continued = text(metadata.continues) || (metadata.source === "clear" ? metadata.parentSession : null);   // Claude Code's /clear
  return [
    ["User", [link(Model.hashOf({ view: "sessions", query: { userId: metadata.userId } }), metadata.userId)]],
    ["Model", text(metadata.model)],
    ["Started", timeText(metadata.created)],
    [metadata.ended ? "Took" : "Runs for", ago(took) === "now" ? lasting(took) : metadata.ended ? lasting(took) : ago(took)],
    ["Phase", text(metadata.phase) === "initialization" ? "" : text(metadata.phase)],
    ["At", text(metadata.currentStep)],
    ["Project", toAll("project", Model.project(metadata))],
    ["Branch", [toAll("branch", text(where.branch)), text(where.commit).slice(0, 7)].flat().filter(Boolean)],
    ["Host", toAll("host", text(where.host))],
    ["Container", container],
    ["CI run", text(where.ci)],
    ["Folder", text(where.cwd) || text(metadata.cwd)],
    ["Tokens", tokens ? count(tokens) : ""],
    ["Resumed", metadata.resumes ? few(metadata.resumes, "time") : ""],
    ["Continues", continued ? [toSession(continued)] : ""],
    ["Forked from", text(metadata.forkedFrom) ? [toSession(metadata.forkedFrom)] : ""],
    ["Goes on in", successors.map((card) => link(sessionHash(card.sessionId), Model.nameOf(card)))],
    ["Parent", metadata.parentSession && metadata.parentSession !== continued ? [toSession(metadata.parentSession)] : ""],
    ["Sub-sessions", metadata.subsessions?.length
      ? [...metadata.subsessions.slice(0, 6).map(toSession),
      ...(metadata.subsessions.length > 6
      ? [link(Model.hashOf({ view: "sessions", query: { parent: metadata.sessionId } }), `all ${metadata.subsessions.length}`)] : [])]
      : ""],
    ["Tags", (metadata.tags ?? [])
      .map((tag) => { const a = link(Model.hashOf({ view: "sessions", query: { tag: said(tag) } }), said(tag)); a.className = "tag";
      return a; })],
  ].filter(([, value]) => value.length);
}
