/* A session in a list, large or small: its card, its row among those that have ended, what it asks. */
import { clock, el, fill, since, slot, sync } from "./dom.js";
import { state } from "./live.js";
import * as Model from "./model.js";
import { ago, count, few, millis, oneLine, statusWords, text } from "./model.js";
import { sessionHash } from "./route.js";

export const waitsSince = (card) => `for ${since(card.attention?.since ?? card.updated)}`.replace("for now", "now");
const ASKED = 4;          // questions of a session that are shown at once
/** The questions of a session that waits, each in its own line; nothing of one that does not. */
export function drawAsks(place, card, names) {
  const asked = Model.askLines(card, names), more = asked.length - ASKED;
  place.hidden = !asked.length;
  place.dataset.is = card.attention?.error ? "bad" : "";
  sync(slot(place, "asks"), [...asked.slice(0, ASKED), ...(more > 0 ? [`and ${count(more)} more`] : [])].map((words, key) => ({ words, key })),
    ({ key }) => key, () => el("li", "two-lines"), (line, { words }) => { if (line.textContent !== words) line.textContent = words; });
}
export function drawCard(element, card) {
  element.dataset.status = card.status;
  element.dataset.pinned = card.pinned === true;
  const name = slot(element, "name");
  name.href = sessionHash(card.sessionId);
  name.title = card.sessionId;
  const done = card.goalsCompleted ?? 0;
  fill(element, {
    status: statusWords(card), name: Model.nameOf(card), id: Model.idOf(card), age: card.status === "waiting"
      ? waitsSince(card)
      : `${since(card.updated)}${ago(clock.now() - millis(card.updated)) === "now" ? "" : " ago"}`,
    prompt: promptOf(card), "prompt-line": promptOf(card) ? true : null, step: Model.step(card), "step-line": Model.step(card) ? true : null,
    who: card.userId === "unknown" ? "" : card.userId, where: [Model.project(card), Model.branchOf(card), Model.hostOf(card), text(card.model)].filter(Boolean).join(" · "),
      agents: agentsOf(card) ? `${Math.min(card.agentsActive ?? 0, agentsOf(card))} of ${few(agentsOf(card), "agent")} working` : "",
    "goals-line": card.goals ? true : null, goals: card.goals ? `${done} of ${few(card.goals, "goal")}` : "",
      entries: few(card.actions + card.responses, "entry", "entries"),
  });
  drawAsks(slot(element, "asks-line"), card, state.names);
  slot(element, "meter").style.width = `${card.goals ? 100 * done / card.goals : 0}%`;
  slot(element, "status").dataset.status = card.status;
}
/** What a person asked last; a server of an earlier version gives a machine's words for it, too. */
export const promptOf = (card) => Model.isMachineMade({ prompt: card.lastPrompt }) ? "" : oneLine(card.lastPrompt);
/** How many agents were spawned; an end that none began is Claude Code's own, and is not counted. */
const agentsOf = (card) => Math.min(card.agents ?? 0, card.metrics?.agentsSpawned ?? Infinity);
export function drawEnded(element, card) {
  element.firstElementChild.href = sessionHash(card.sessionId);
  element.firstElementChild.title = card.sessionId;
  element.dataset.pinned = card.pinned === true;
  slot(element, "status").dataset.status = card.status;
  const why = Model.endedBy(card);
  fill(element, { status: card.status, name: Model.nameOf(card), id: Model.idOf(card), prompt: why || promptOf(card) || Model.project(card) || " ",
    who: card.userId === "unknown" ? "" : card.userId,
    age: `${since(card.updated)}${ago(clock.now() - millis(card.updated)) === "now" ? "" : " ago"}` });
  slot(element, "prompt").classList.toggle("bad", card.status === "failed" && why !== "");
}
