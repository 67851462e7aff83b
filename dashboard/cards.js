/* A session or an ask in a list: a row of the table, a card, a column of the board are the same elements, laid out by style. */
import { asked } from "./api.js";
import { asks } from "./asks.js";
import { clock, el, fill, make, since, slot, sync } from "./dom.js";
import { state } from "./live.js";
import * as Model from "./model.js";
import { ago, joined, oneLine, text } from "./model.js";
import { schedule, sessionHash } from "./route.js";

const TOGETHER = 50;       // sessions that are asked for at once
const known = new Map(), sought = new Set();
let asking = null;
/** What is known of a session; one that no list here has is asked for soon, together with others. */
export function cardOf(sessionId) {
  const card = state.cards.get(sessionId);
  if (card) known.delete(sessionId);
  else if (!known.has(sessionId)) { sought.add(sessionId); asking ??= setTimeout(() => soughtOnes().then(schedule), 300); }
  return card ?? known.get(sessionId) ?? { sessionId, userId: "unknown" };
}
export async function soughtOnes() {
  clearTimeout(asking);
  if (known.size > 1000) known.clear();
  while (sought.size) {
    const ids = [...sought].slice(0, TOGETHER);
    for (const id of ids) sought.delete(id);
    const { items } = await asked(`api/sessions?${new URLSearchParams([["limit", TOGETHER], ...ids.map((id) => ["sessionId", id])])}`).catch(() => ({ items: [] }));
    for (const id of ids) known.set(id, items.find((card) => card.sessionId === id));
  }
  asking = null;
}

export const waitsSince = (card) => `for ${since(card.attention?.since ?? card.updated)}`.replace("for now", "now");
/** What a person asked last; a server of an earlier version gives a machine's words for it, too. */
export const promptOf = (card) => Model.isMachineMade({ prompt: card.lastPrompt }) ? "" : oneLine(card.lastPrompt);

export function drawRow(row, card) {
  const is = Model.stateOf(card), key = `${card.lastCursor} ${card.updated} ${Model.nameOf(card)} ${card.cost?.usd} ${card.errors}`;
  if (row.dataset.shown !== key || row.shows !== card) {
    Object.assign(row.dataset, { shown: key, is, pinned: card.pinned === true });
    row.shows = card;
    const place = [Model.project(card), Model.branchOf(card), Model.userOf(card), Model.hostOf(card)];
    const doing = is === "asks" ? joined(Model.askLines(card, state.names).map(oneLine)) : Model.endedBy(card) || Model.step(card) || promptOf(card);
    slot(row, "name").href = sessionHash(card.sessionId);
    fill(row, { status: STATES[is] ?? ASKS[card.attention?.reason] ?? (is === "asks" ? is : card.status), name: Model.nameOf(card), id: Model.idOf(card), doing: doing || " ", ...Model.figuresOf(card),
      agents: card.agentsActive ? Model.few(card.agentsActive, "agent") : "", goals: card.goals ? `${card.goalsCompleted ?? 0}/${card.goals}` : "" });
    slot(row, "doing").classList.toggle("bad", ["failed", "error", "lost"].includes(is));
    slot(row, "status").dataset.is = is;
    slot(row, "place").replaceChildren(...place.map((words) => el("span", "cut", oneLine(words))));
    row.title = Model.forPeople(joined([Model.nameOf(card), doing, joined(place), text(card.model)], "\n"));
  }
  fill(row, { since: ago(clock.now() - Model.quietSince(card)) });
}

/** An open ask: who, where, what to the letter, since when; and what a person can do about it. */
export function drawAsk(row, ask, card = cardOf(ask.sessionId)) {
  const { askId, kind } = ask, what = Model.askText(ask), is = kind === "error" ? kind : "asks", can = asks.can(ask), decides = can && !["question", "interrupt", "elicitation"].includes(kind);
  const agent = ask.agentId ? Model.agentName({ agentId: ask.agentId, type: state.names.get(`${ask.sessionId} ${ask.agentId}`) }) : "";
  Object.assign(row.dataset, { ask: askId, is });
  slot(row, "name").href = sessionHash(ask.sessionId);
  fill(row, { status: kind === "error" ? "stopped by an error" : ASKS[kind] ?? "asks", name: Model.nameOf(card), what: oneLine(what), since: since(ask.since),
    place: joined([agent, Model.project(card), Model.branchOf(card), Model.userOf(card), Model.hostOf(card)]), nobody: can || kind === "error" || !asks.isKnown ? "" : "answer in its terminal",
    allow: decides ? "Allow" : "", deny: decides || (can && kind === "elicitation") ? "Deny" : "", reply: can ? "Reply" : "" });
  slot(row, "status").dataset.is = is;
  slot(row, "what").title = what.length > 80 ? what : "";
  asks.drawOpened(row, ask);
}
const STATES = { idle: "at prompt", error: "stopped" };
const ASKS = { __proto__: null, permission: "permission", question: "question", plan: "plan", elicitation: "form", interrupt: "decision", budget: "budget" };

/** The asks of one session, each in its own line; nothing of one that asks nothing. */
export function drawAsks(place, card) {
  const open = card.sessionId ? Model.openAsks(new Map([[card.sessionId, card]]), asks.served, asks.answered).filter((ask) => ask.sessionId === card.sessionId) : [];
  asks.know(open);
  place.hidden = !open.length;
  place.dataset.is = card.attention?.error ? "bad" : "";
  sync(slot(place, "asks"), open, (ask) => ask.askId, () => make("t-ask"), (row, ask) => drawAsk(row, ask, card));
}
