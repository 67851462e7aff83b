/* What stands above the tabs of a session: its status, what it asks, how it ended, and facts about it. */
import { drawOrders } from "../asks.js";
import { drawAsks, waitsSince } from "../cards.js";
import { button, clock, el, fill, link, slot, timeText } from "../dom.js";
import * as Model from "../model.js";
import { ago, count, few, lasting, millis, said, statusWords, text } from "../model.js";
import { route, sessionHash, turn } from "../route.js";
import { agentsIn } from "./who.js";
import { signs, sumOf } from "./work.js";

export const TAB_NAMES = { conversation: "Conversation", changes: "Changes", usage: "Usage", timeline: "Timeline", log: "Log", state: "State", goals: "Goals", agents: "Agents", raw: "Raw" };

export function drawHead(session) {
  const { root } = session, { metadata } = session.document, status = slot(root, "status"), end = endOf(session);
  status.dataset.status = metadata.status;
  const isIdle = metadata.attention?.reason === "input" && !metadata.attention.error, answer = Model.unmarked(session.answer());
  fill(root, { status: statusWords(metadata), name: Model.unmarked(Model.nameOf(metadata)), id: session.id, waits: metadata.status === "waiting" ? waitsSince(metadata) : "",
    asked: Model.unmarked(session.asked), answer: answer && answer !== end ? answer : "", end: end && `${END_WORDS[metadata.status] ?? "Ended"}: ${end}` });
  for (const name of ["asked", "answer"]) slot(root, name).parentElement.hidden = slot(root, name).hidden;
  slot(root, "end").dataset.status = metadata.status;
  drawAsks(slot(root, "asks-line"), isIdle ? {} : metadata, session.about().names);
  drawOrders(slot(root, "orders"), metadata);
  root.querySelector("[data-do=finalize]").hidden = metadata.ended !== null;
  drawTabs(session);
  slot(root, "name").dataset.from = text(metadata.titleFrom);
  root.dataset.pinned = metadata.pinned === true;
  root.querySelector("[data-do=pin]").textContent = metadata.pinned === true ? "Unpin" : "Pin";
  drawFacts(slot(root, "facts"), [...figuresOf(session), ...factsOf(metadata, session.successors)]);
}
function endOf({ document, why }) {
  const { metadata, final } = document;
  return metadata.ended === null ? "" : (metadata.status === "failed" && why.words)
    || Model.endText({ ...final, ...(metadata.status === "completed" ? { reason: "" } : {}) });
}
function drawTabs(session) {
  const { metadata, state } = session.document, goals = Array.isArray(state.goals) ? state.goals : [];
  const done = goals.filter((goal) => goal?.status === "completed").length, agents = agentsIn(session).length;
  const entries = metadata.actions + metadata.responses;
  const numbers = { __proto__: null, log: entries && count(entries), goals: metadata.goals && `${done}/${metadata.goals}`,
    agents: agents && count(agents) };
  for (const a of slot(session.root, "tabs").children) {
    const { tab } = a.dataset, words = numbers[tab] ? `${TAB_NAMES[tab]} ${numbers[tab]}` : TAB_NAMES[tab];
    if (a.textContent !== words) a.textContent = words;
    a.href = Model.hashOf({ view: "session", id: session.id, tab, query: { span: route.query.span, share: route.query.share } });
  }
}
function drawFacts(place, facts) {
  const key = JSON.stringify(facts
    .map(([name, value]) => [name, typeof value === "string" ? value : value.map((each) => each.textContent ?? each)]));
  if (place.dataset.shown === key) return;
  place.dataset.shown = key;
  place.replaceChildren(...facts.map(([name, value]) => el("div", "", el("dt", "", name), el("dd", "row", ...[value].flat()))));
}

export function spanChip() {
  const [from, to] = (route.query.span ?? "").split("-").map(Number);
  return to ? [button(`${timeText(from)} – ${timeText(to)} ×`, () => turn({ span: "" }))] : [];
}
/** What it costs, how full its context is, its plan, and what has changed. */
function figuresOf({ id, document: { metadata, state }, work }) {
  const { tokenUsage: tokens = {}, context } = metadata, goals = (Array.isArray(state.goals) ? state.goals : []).filter(Model.isObject);
  const next = goals.find((goal) => goal.status === "in_progress") ?? goals.find((goal) => !Model.ENDED.includes(goal.status));
  const found = work.look(FILES), files = found?.edits.length ? work.files() : [];
  const sum = tokens.total || (tokens.input ?? 0) + (tokens.output ?? 0), money = Model.isObject(metadata.cost) ? Model.price(metadata.cost) : "";
  return [["Cost", money || sum ? [link(sessionHash(id, "usage"), [money, sum ? `${count(sum)} tokens` : ""].filter(Boolean).join(" · "))] : ""],
    ["Context", context?.tokens ? `${context.limit ? `${Math.round(100 * context.tokens / context.limit)} %` : count(context.tokens)}${context.compactions ? ` ⟳${context.compactions}` : ""}` : ""],
    ["Plan", goals.length ? [`${goals.filter((goal) => goal.status === "completed").length}/${goals.length}`, ...(next ? [el("span", "dim", said(next.description))] : [])] : ""],
    ["Files", files.length ? [link(sessionHash(id, "changes"), few(files.length, "file")), ...(files.some((file) => file.unread) ? [] : signs(...sumOf(files)))] : ""]].filter(([, value]) => value.length);
}
const FILES = 30;
const END_WORDS = { __proto__: null, failed: "Failed", cancelled: "Cancelled" };
function factsOf(metadata, successors) {
  const where = Model.isObject(metadata.where) ? metadata.where : {};
  const took = metadata.duration ?? (metadata.status === "lost" ? millis(metadata.updated) : clock.now()) - millis(metadata.created);
  const container = text(where.container).slice(0, 12) || text(metadata.sandboxId) || text(metadata.container) || text(metadata.hostname);
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
