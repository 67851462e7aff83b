/* A session or an ask in a list: a row of the table, a card, a column of the board are the same elements, laid out by style. */
import { asked } from "./api.js";
import { asks } from "./asks.js";
import { clock, el, fill, make, since, slot, sync } from "./dom.js";
import { state } from "./live.js";
import * as Model from "./model.js";
import { ago, oneLine, text } from "./model.js";
import { schedule, sessionHash } from "./route.js";

const TOGETHER = 50;
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

const doingOf = (card) => Model.stateOf(card) === "asks" ? Model.askLines(card, state.names).map(oneLine).join(" · ")
  : Model.endedBy(card) || Model.step(card) || promptOf(card);
export function drawRow(row, card) {
  const is = Model.stateOf(card), key = `${card.lastCursor} ${card.updated} ${Model.nameOf(card)} ${card.cost?.usd} ${card.errors}`;
  const quiet = ago(clock.now() - Model.quietSince(card));
  if (row.dataset.shown !== key || row.shows !== card) {
    row.dataset.shown = key;
    row.shows = card;
    row.dataset.is = is;
    row.dataset.pinned = card.pinned === true;
    const a = slot(row, "name"), doing = doingOf(card), place = [Model.project(card), Model.branchOf(card), card.userId === "unknown" ? "" : card.userId, Model.hostOf(card)];
    a.href = sessionHash(card.sessionId);
    fill(row, { status: STATES[is] ?? ASKS[card.attention?.reason] ?? (is === "asks" ? "asks" : card.status), name: Model.nameOf(card), id: Model.idOf(card), doing: doing || " ", ...Model.figuresOf(card),
      agents: card.agentsActive ? Model.few(card.agentsActive, "agent") : "", goals: card.goals ? `${card.goalsCompleted ?? 0}/${card.goals}` : "" });
    slot(row, "doing").classList.toggle("bad", ["failed", "error", "lost"].includes(is));
    slot(row, "status").dataset.is = is;
    sync(slot(row, "place"), place.map((words, key) => ({ words, key })), ({ key }) => key, () => el("span", "cut"), (span, { words }) => { span.textContent = Model.forPeople(oneLine(words)); });
    row.title = Model.forPeople([Model.nameOf(card), doing, place.filter(Boolean).join(" · "), text(card.model)].filter(Boolean).join("\n"));
  }
  fill(row, { since: quiet });
}

export function drawAsk(row, ask, card = cardOf(ask.sessionId)) {
  const what = Model.askText(ask), a = slot(row, "name");
  const agent = ask.agentId ? Model.agentName({ agentId: ask.agentId, type: state.names.get(`${ask.sessionId} ${ask.agentId}`) }) : "";
  row.dataset.ask = ask.askId;
  row.dataset.is = ask.kind === "error" ? "error" : "asks";
  a.href = sessionHash(ask.sessionId);
  const can = asks.can(ask), decides = can && !["question", "interrupt", "elicitation"].includes(ask.kind);
  fill(row, { status: ask.kind === "error" ? "stopped by an error" : ASKS[ask.kind] ?? "asks", name: Model.nameOf(card), what: Model.oneLine(what), since: since(ask.since),
    place: [agent, Model.project(card), Model.branchOf(card), card.userId === "unknown" ? "" : card.userId, Model.hostOf(card)].filter(Boolean).join(" · "),
    nobody: can || ask.kind === "error" || !asks.isKnown ? "" : "answer in its terminal", allow: decides ? "Allow" : "", deny: decides || (can && ask.kind === "elicitation") ? "Deny" : "",
    reply: can ? "Reply" : "" });
  slot(row, "status").dataset.is = row.dataset.is;
  slot(row, "what").title = what.length > 80 ? what : "";
  asks.drawOpened(row, ask);
}
const STATES = { __proto__: null, idle: "at prompt", error: "stopped" };
const ASKS = { __proto__: null, permission: "permission", question: "question", plan: "plan", elicitation: "form", interrupt: "decision", budget: "budget" };

/** The asks of one session, each in its own line; nothing of one that asks nothing. */
export function drawAsks(place, card) {
  const open = card.sessionId ? Model.openAsks(new Map([[card.sessionId, card]]), asks.served, asks.answered).filter((ask) => ask.sessionId === card.sessionId) : [];
  asks.know(open);
  place.hidden = !open.length;
  place.dataset.is = card.attention?.error ? "bad" : "";
  sync(slot(place, "asks"), open, (ask) => ask.askId, () => make("t-ask"), (row, ask) => drawAsk(row, ask, card));
}
