/* The whole store as a fold over its feed: cards of sessions, counts, the newest lines. */
import vocabulary from "../vocabulary.js";
import { NAMES, PROMPTS, agentName, endText, isMachineMade, named, telling, toolGist, toolName, words } from "./faces.js";
import { fedWith } from "./feed.js";
import { first, isObject, joined, lastPart, oneLine, plain, shortId, spoken, text } from "./words.js";

export const EMPTY = { cursor: null, cards: new Map(), names: new Map(), stats: null, feed: [], missing: 0, stale: false };

/** The state after one more event. An event at or below the cursor changes nothing. */
export const reduce = (state, event) => reduceAll(state, [event]);

/** The events that the state has not seen yet, each once. */
export function unseen(state, events) {
  let seen = state.cursor ?? 0;
  return events.filter((event) => event.cursor > seen && (seen = event.cursor));
}

/** The same for many: one copy for all of them. */
export function reduceAll(state, events) {
  const fresh = unseen(state, events);
  if (!fresh.length) return state;
  const cards = new Map(state.cards), names = fresh.reduce(named, new Map(state.names));
  for (const event of fresh) foldCard(cards, event);
  return { ...state, cursor: fresh.at(-1).cursor, cards, names, feed: fedWith(state.feed, fresh), stats: countedIn(state.stats, fresh), stale: true };
}

/** What is certain at once; the rest (a status that depends on more) comes with the next answer of the server. */
function foldCard(cards, event) {
  if (event.type === "session_deleted") { cards.delete(event.sessionId); return; }
  const card = cards.get(event.sessionId);
  if (!card || event.cursor <= card.lastCursor) return;
  cards.set(event.sessionId,
    { ...card, lastCursor: event.cursor, updated: event.receivedAt, ...(CARD_FOLDS[event.type]?.(card, event.data, event) ?? {}) });
}
const CARD_FOLDS = {
  __proto__: null,
  action: (card, data, event) => ({ actions: card.actions + 1, ...heard(card), ...(data.type === "prompt" ? prompted(card, data) : {}),
    ...attention(card, data, event), ...(vocabulary.noStep.includes(data.type) ? {} : { lastAction: stepOf(data) }) }),
  response: (card, data, event) => ({ responses: card.responses + 1, ...heard(card), ...answered(card, data, event),
    ...attention(card, data, event) }),
  state_updated: (card, data) => ({ phase: text(data.phase) || card.phase, currentStep: text(data.currentStep) || card.currentStep }),
  metadata_updated: (card, data, event) => attention(card, data, event),
  session_resumed: () => ({ status: "active", ended: null, attention: null }),
  session_finalized: (card, data, event) => ({ status: endOf(card, data), ended: event.timestamp, attention: null }),
  session_lost: () => ({ status: "lost" }),
};
const ENDS = { __proto__: null, failed: "failed", cancelled: "cancelled" };
/** The end of a program of Claude Code's does not say how it went: the server does. */
const endOf = (card, data) => ENDS[data.status] ?? (data.hook_event_name && !data.status ? card.status : "completed");
const heard = (card) => card.status === "lost" ? { status: "active" } : {};
const stepOf = (data) => ({ type: data.type, tool: data.tool ?? null, text: oneLine(toolGist(data.tool, data.input ?? telling(data))) });

/* What a session waits for: one question or several, the oldest first, and of each who asked. It merely sits at its
   prompt where the reason is `input`. The server has the last word on what is open. */

export const asksOf = ({ attention }) => !attention || attention.reason === "input" ? []
  : [attention, ...(Array.isArray(attention.others) ? attention.others.filter(isObject) : [])];
function waitingFor(card, asked) {
  const [oldest, ...others] = asked;
  if (!oldest) return { status: card.status === "waiting" ? "active" : card.status, attention: null };
  const { others: _, ...own } = oldest;
  return { status: "waiting", attention: others.length ? { ...own, others } : own };
}
/** A person's prompt answers what the main agent asked; a machine's answers nothing. */
const prompted = (card, data) => isMachineMade(data) ? {}
  : { ...waitingFor({ status: "waiting" }, asksOf(card).filter((asked) => asked.agentId)), lastPrompt: oneLine(first(data, ...PROMPTS)) };
const isBy = (asked, agentId) => (asked.agentId ?? null) === (agentId ?? null);
/** A result answers the oldest question of its call, else of the same agent about the same tool. */
function answered(card, data, { agentId }) {
  if (!["tool_result", "tool_error"].includes(data.type) || card.status !== "waiting") return {};
  const asked = asksOf(card);
  const fits = asked.find((each) => each.toolUseId && each.toolUseId === data.toolUseId)
    ?? asked.find((each) => each.tool && each.tool === data.tool && isBy(each, agentId)
      && (!each.input || !data.input || JSON.stringify(each.input) === JSON.stringify(data.input)));
  return fits ? waitingFor(card, asked.filter((each) => each !== fits)) : {};
}
function attention(card, { attention: said, attentionId, tool, toolUseId, input }, { agentId, eventId, timestamp }) {
  const asked = asksOf(card);
  if (said === null) return waitingFor(card, asked.filter((each) => !isBy(each, agentId) || (attentionId && each.id !== attentionId)));
  if (!isObject(said) || card.ended) return {};
  if (said.reason === "input") {
    const others = asked.filter((each) => !isBy(each, agentId));
    return others.length ? waitingFor(card, others) : { status: "waiting", attention: { since: timestamp, ...said } };
  }
  const known = (each) => each.askId === eventId || (isBy(each, agentId) && each.message === said.message);
  const whole = { since: timestamp, askId: eventId, tool, toolUseId, input, ...(agentId ? { agentId } : {}), ...said };
  return waitingFor(card, asked.some(known) ? asked : [...asked, whole]);
}

function countedIn(stats, events) {
  if (!stats) return stats;
  const minutes = [...stats.eventsPerMinute];
  minutes[minutes.length - 1] += events.length;
  return { ...stats, events: stats.events + events.length, eventsToday: stats.eventsToday + events.length, eventsPerMinute: minutes };
}

const byId = (cards) => new Map(cards.map((card) => [card.sessionId, card]));
/** Cards with what events tell of them. */
export function cardsAfter(cards, events) {
  const known = byId(cards);
  for (const event of events) foldCard(known, event);
  return [...known.values()];
}
/** The server's answer, and over it what events have told since. */
export function loaded(state, { cards, stats }) {
  const known = byId(cards), newer = state.feed.filter(({ cursor, sessionId }) => cursor > (known.get(sessionId)?.lastCursor ?? Infinity));
  return { ...state, cards: byId(cardsAfter(cards, newer.reverse())), stats, stale: newer.length > 0 };
}
export const webhooksLine = ({ status, pending }) => `Webhooks: ${status}${pending ? `, ${pending} waiting` : ""}`;
export function webhookRow({ name, place, on, rules, delivered, pending, held, lastDelivery }) {
  const quiet = rules.noProgressMinutes && `quiet for ${rules.noProgressMinutes} min`;
  const same = rules.sameCallTimes && `same call ${rules.sameCallTimes} times`;
  const told = lastDelivery ? lastDelivery.replace("T", " ").replace(/\.\d+Z$/, " UTC") : "never";
  return [`${name} (${place})`, joined([...on, quiet, same], ", "), String(delivered), String(pending + held), told];
}
export const title = (waiting, name) => `${waiting ? `(${waiting}) ` : ""}${name ? `${oneLine(name)} · ` : ""}Session store`;

/** What a person knows a session by, the same everywhere: its title, else the project and the user, else its id. */
export const nameOf = (card) => oneLine(first(card, "title", "session_title", "name"))
  || (project(card) ? joined([project(card), userOf(card)]) : shortId(card.sessionId));
export const idOf = (card) => nameOf(card) === shortId(card.sessionId) ? "" : shortId(card.sessionId);
export const userOf = ({ userId }) => userId === "unknown" ? "" : oneLine(userId);
export const branchOf = (card) => oneLine(card.where?.branch);
export const hostOf = ({ where }) => oneLine(first(where, "container")).slice(0, 12) || oneLine(first(where, "host"));
const WAITS = { __proto__: null, permission: "asks permission", question: "asks a question", plan: "asks about a plan", input: "waits for input" };
export function statusWords(card) {
  if (card.status !== "waiting") return card.status;
  const asked = asksOf(card).length;
  return asked > 1 ? `asks ${asked} things` : card.attention?.error ? "stopped by an error" : WAITS[card.attention?.reason] ?? "waiting";
}
/** What a session that waits asks, a line for each question, with the agent's name where one of its agents asks. */
export function askLines(card, names = NAMES) {
  if (card.status !== "waiting") return [];
  const asked = asksOf(card), all = asked.length ? asked : [card.attention ?? {}];
  return all.map(({ agentId, message, reason }) => {
    const what = plain(message).trim() || `waits for ${spoken(reason) || "input"}`;
    return agentId ? `${agentName({ agentId, type: names.get(`${card.sessionId} ${agentId}`) })}: ${what}` : what;
  });
}
export const endedBy = (card) => ["failed", "cancelled"].includes(card.status) ? endText(isObject(card.end) ? card.end : card) : "";
/** The folder of the repository, also where one works in a worktree of it. */
export function project(card) {
  const [, home] = /^(.*?[^/\\])[/\\](?:\.[^/\\]+[/\\])?\.?worktrees[/\\][^/\\]/.exec(text(card.cwd)) ?? [];
  return oneLine(card.project) || oneLine(lastPart(home ?? card.cwd));
}
/** What it is at; nothing where it asks, for then the question says it. */
export function step(card) {
  if (card.status === "waiting" && asksOf(card).length) return "";
  const { lastAction } = card, phase = card.phase === "initialization" ? "" : oneLine(card.phase);
  const done = lastAction && [lastAction.tool ? toolName(lastAction.tool) : words(lastAction.type), oneLine(lastAction.text)];
  return oneLine(card.currentStep) || (done ? joined(done, ": ") : "") || phase;
}

/** What one types to go on with a session of Claude Code: in its container, if it has one, else in its folder. */
export function resumeLine({ sessionId, where, cwd }) {
  const quoted = (value) => /^[\w./@:-]+$/.test(value) ? value : `'${oneLine(value).replaceAll("'", "'\\''")}'`;
  const folder = text(where?.cwd) || text(cwd), container = text(where?.container), line = `claude --resume ${quoted(text(sessionId))}`;
  if (container) return `docker exec -it ${folder ? `-w ${quoted(folder)} ` : ""}${quoted(container.slice(0, 64))} ${line}`;
  return folder ? `cd ${quoted(folder)} && ${line}` : line;
}
