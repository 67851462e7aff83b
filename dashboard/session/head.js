/* What stands above the tabs of a session: its status, what it asks, how it ended, and facts about it. */
import { drawOrders } from "../asks.js";
import { drawAsks, waitsSince } from "../cards.js";
import { button, clock, el, fill, link, refill, say, slot, timeText } from "../dom.js";
import * as Model from "../model.js";
import { ago, count, few, joined, lasting, millis, said, text } from "../model.js";
import { route, sessionHash, sessionsHash, turn } from "../route.js";
import { agentsIn, listIn, signs } from "./who.js";
import { spanIn } from "./minimap.js";

const END_WORDS = { failed: "Failed", cancelled: "Cancelled" };

export function drawHead(session) {
  const { root } = session, { metadata } = session.document, { status, ended, attention } = metadata, isPinned = metadata.pinned === true, end = endOf(session);
  const isIdle = attention?.reason === "input" && !attention.error, answer = Model.unmarked(session.answer());
  slot(root, "status").dataset.status = slot(root, "end").dataset.status = status;
  fill(root, { status: Model.statusWords(metadata), name: Model.unmarked(Model.nameOf(metadata)), id: session.id, waits: status === "waiting" ? waitsSince(metadata) : "",
    asked: Model.unmarked(session.asked), answer: answer !== end ? answer : "", end: end && `${END_WORDS[status] ?? "Ended"}: ${end}` });
  for (const name of ["asked", "answer"]) slot(root, name).parentElement.hidden = slot(root, name).hidden;
  drawAsks(slot(root, "asks-line"), isIdle ? {} : metadata);
  drawOrders(slot(root, "orders"), metadata);
  root.querySelector("[data-do=finalize]").hidden = ended !== null;
  drawTabs(session);
  slot(root, "name").dataset.from = text(metadata.titleFrom);
  root.dataset.pinned = isPinned;
  say(root.querySelector("[data-do=pin]"), isPinned ? "Unpin" : "Pin");
  drawFacts(slot(root, "facts"), { ...figuresOf(session), ...factsOf(metadata, session.successors) });
}
/** How it went, in a failed one what went wrong last. */
function endOf({ document: { metadata, final }, why }) {
  return metadata.ended === null ? "" : (metadata.status === "failed" && why.words) || Model.endText(metadata.status === "completed" ? { ...final, reason: "" } : final ?? {});
}
function drawTabs({ id, root, document: { metadata, state } }) {
  const goals = listIn(state.goals), agents = agentsIn({ document: { state } }).length, entries = metadata.actions + metadata.responses, { span, share } = route.query;
  const numbers = { log: entries && count(entries), goals: metadata.goals && `${goals.filter((goal) => goal.status === "completed").length}/${metadata.goals}`, agents: agents && count(agents) };
  for (const a of slot(root, "tabs").children) {
    const { tab } = a.dataset;
    say(a, Model.words(tab) + (numbers[tab] ? ` ${numbers[tab]}` : ""));
    a.href = sessionHash(id, tab, { span, share });
  }
}
function drawFacts(place, facts) {
  const shown = Object.entries(facts).map(([name, value]) => [name, [value].flat().filter(Boolean)]).filter(([, value]) => value.length);
  refill(place, JSON.stringify(shown.map(([name, value]) => [name, value.map((each) => each.textContent ?? each)])), () => shown.map(([name, value]) => el("div", "", el("dt", "", name), el("dd", "row", ...value))));
}

/** The time that was chosen, to be let go of. */
export function spanChip() {
  const [from, to] = spanIn();
  return to ? [button(`${timeText(from)} – ${timeText(to)} ×`, () => turn({ span: "" }))] : [];
}
/** What it costs, how full its context is, its plan, and what has changed. */
function figuresOf({ id, document: { metadata, state }, changes }) {
  const { tokenUsage: tokens = {}, context } = metadata, goals = listIn(state.goals), next = goals.find((goal) => goal.status === "in_progress") ?? goals.find((goal) => !Model.ENDED.includes(goal.status));
  const files = changes?.files ?? [];
  const sum = tokens.total || (tokens.input ?? 0) + (tokens.output ?? 0), cost = joined([Model.isObject(metadata.cost) && Model.price(metadata.cost), sum && `${count(sum)} tokens`]);
  return { Cost: cost && link(sessionHash(id, "usage"), cost),
    Context: context?.tokens && `${Model.fullness(context)}${context.compactions ? ` ⟳${context.compactions}` : ""}`,
    Plan: goals.length && [`${goals.filter((goal) => goal.status === "completed").length}/${goals.length}`, next && el("span", "dim", said(next.description))],
    Files: files.length && [link(sessionHash(id, "changes"), few(files.length, "file")), ...(files.some((file) => file.unknown) ? [] : signs(files))] };
}
function factsOf(metadata, successors) {
  const where = Model.isObject(metadata.where) ? metadata.where : {}, { ended, phase, subsessions = [], parentSession } = metadata;
  const took = metadata.duration ?? (metadata.status === "lost" ? millis(metadata.updated) : clock.now()) - millis(metadata.created);
  const toSession = (id) => id && link(sessionHash(id), Model.shortId(id)), toAll = (name, value) => value && link(sessionsHash({ [name]: value }), value);
  const continued = text(metadata.continues) || (metadata.source === "clear" ? parentSession : null);   // Claude Code's /clear
  return {
    User: toAll("userId", metadata.userId), Model: text(metadata.model), Started: timeText(metadata.created), [ended ? "Took" : "Runs for"]: ended || ago(took) === "now" ? lasting(took) : ago(took),
    Phase: text(phase) !== "initialization" && text(phase), At: text(metadata.currentStep), Project: toAll("project", Model.project(metadata)),
    Branch: [toAll("branch", text(where.branch)), text(where.commit).slice(0, 7)], Host: toAll("host", text(where.host)),
    Container: text(where.container).slice(0, 12) || text(metadata.sandboxId) || text(metadata.container) || text(metadata.hostname), "CI run": text(where.ci), Folder: text(where.cwd) || text(metadata.cwd),
    Resumed: metadata.resumes ? few(metadata.resumes, "time") : "", Continues: toSession(continued), "Forked from": toSession(text(metadata.forkedFrom)),
    "Goes on in": successors.map((card) => link(sessionHash(card.sessionId), Model.nameOf(card))), Parent: parentSession !== continued && toSession(parentSession),
    "Sub-sessions": [...subsessions.slice(0, 6).map(toSession), subsessions.length > 6 && link(sessionsHash({ parent: metadata.sessionId }), `all ${subsessions.length}`)],
    Tags: (metadata.tags ?? []).map((tag) => Object.assign(toAll("tag", said(tag)), { className: "tag" })),
  };
}
