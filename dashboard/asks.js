/* What agents ask of people: answered from wherever it is shown, told where nobody looks, gone when answered elsewhere; and orders. */
import { asked, of, told } from "./api.js";
import { toolBlocks } from "./blocks.js";
import { cardOf } from "./cards.js";
import { askPerson, note } from "./doing.js";
import { at, button, el, slot, timeText } from "./dom.js";
import { server, state } from "./live.js";
import * as Model from "./model.js";
import { joined, text } from "./model.js";
import { go, route, schedule } from "./route.js";

const FRESH = 5000;        // milliseconds after which it is asked again whether somebody waits for an answer
const DONE = { allow: "Allowed.", deny: "Denied.", answer: "Answered." };
export const asks = {
  served: new Map(), answered: new Set(), opened: "", isKnown: false, asking: null, last: 0, shown: null, list: [],
  /** Those that are open, oldest first; the same list while nothing has changed. */
  open() {
    const from = [state.cards, this.served, this.answered.size];
    if (this.shown?.every((each, place) => each === from[place])) return this.list;
    this.shown = from;
    return this.list = Model.openAsks(state.cards, this.served, this.answered);
  },
  async refresh() {
    const asking = this.asking = {};
    this.last = performance.now();
    const found = await asked("api/asks?limit=500").catch(() => null), served = new Map(found?.items.map((ask) => [ask.askId, ask]));
    this.isKnown = true;
    if (this.asking === asking) this.served = served;
    return found && served;
  },
  know(open) { if (open.some(({ askId, kind }) => kind !== "error" && !this.served.has(askId)) && performance.now() - this.last > 1000) this.refresh().then(schedule); },
  /** Whether somebody waits for the answer, and this person may give it. */
  can: (ask) => ask.canAnswer === true && document.body.dataset.role !== "read",
  drawOpened(row, ask) {
    const place = slot(row, "all"), isOpen = this.opened === ask.askId, of = `${ask.askId} ${Boolean(ask.input)}`;
    slot(row, "what").ariaExpanded = isOpen;
    place.hidden = !isOpen;
    if (!isOpen || place.dataset.of === of) return;
    place.dataset.of = of;
    place.replaceChildren(...(ask.tool && Model.isObject(ask.input) ? toolBlocks(ask.tool, ask.input) : [el("p", "prose", Model.plain(ask.text))]));
  },
  find: (id) => asks.served.get(id) ?? asks.open().find((ask) => ask.askId === id),
  async answer(id, body) {
    this.answered.add(id);
    schedule();
    if (await controlled(`api/asks/${encodeURIComponent(id)}/answer`, body, DONE[body.decision])) return;
    this.answered.delete(id);
    await this.refresh();
    schedule();
  },
  toggle({ askId }) { this.opened = this.opened === askId ? "" : askId; schedule(); },
  allow(ask) { return this.answer(ask.askId, { decision: "allow" }); },
  deny(ask) { return this.answer(ask.askId, { decision: "deny" }); },
  /** Words for the agent: the answers to its questions, or why not and what to do instead. Asked before one types whether somebody waits. */
  async reply(ask) {
    await this.refresh();
    const now = this.find(ask.askId), questions = Model.questionsOf(ask), isDenial = ["permission", "plan", "budget"].includes(ask.kind);
    schedule();
    if (!now || !this.can(now)) { note("Nobody waits for this answer any more.", true); return; }
    at("ask").dataset.ask = ask.askId;
    const said = await askPerson({ title: isDenial ? "Not so, but" : "Answer", words: Model.upTo(Model.askText(ask), 600), yes: isDenial ? "Deny with these words" : "Answer",
      fields: isDenial ? [{ name: "message", label: "What the agent is told", isLong: true }]
        : questions.map(({ question, options }, place) => ({ name: `answer ${place}`, label: Model.oneLine(question) || "Answer", offers: options })) });
    delete at("ask").dataset.ask;
    if (!said) return;
    const words = questions.map((_, place) => said[`answer ${place}`]);
    await this.answer(ask.askId, isDenial ? { decision: "deny", message: said.message } : { decision: "answer", message: words.join("\n"),
      answers: Object.fromEntries(questions.map(({ question }, place) => [question, words[place]])) });
  },
  /** The keys a, d, r, e: about the ask that one is at, else the only one. */
  key(name) {
    const row = document.activeElement?.closest("[data-ask]"), open = this.open(), ask = row ? this.find(row.dataset.ask) : open.length === 1 && open[0];
    if (ask && (name === "toggle" || this.can(ask))) this[name](ask);
  },
};
/** Say what only a token of the role control may; where this browser has none, it is asked for once. */
async function controlled(path, body, done) {
  try {
    const { canControl, pageToken } = await asked("api/login");
    if (canControl) { await asked(path, { method: "POST", body, headers: { "X-Page-Token": pageToken ?? "" } }); note(done); return true; }
    const said = await askPerson({ title: "A token that may answer", words: `Answers and orders are never open. The server keeps such a token in ${server?.storage ?? "its folder"}/tokens/control.`,
      yes: "Use it", fields: [{ name: "token", label: "Token", type: "password" }] });
    if (!said) return false;
    await told("api/login", { token: said.token.trim() });
  } catch (error) { note(error.message, true); return false; }
  return controlled(path, body, done);
}
document.addEventListener("click", (event) => {
  const { order: name, does } = event.target.closest("[data-order], [data-does]")?.dataset ?? {}, ask = does && asks.find(event.target.closest("[data-ask]").dataset.ask);
  if (name) order(route.id, name);
  if (ask) { event.preventDefault(); asks[does](ask); }
});
setInterval(async () => {
  if (document.body.dataset.out === "true" || performance.now() - asks.last < FRESH || !(state.stats?.sessions.waiting || asks.served.size)) return;
  await asks.refresh();
  const { open, dataset } = at("ask"), ask = open && dataset.ask && asks.find(dataset.ask);
  if (open && dataset.ask && !(ask && asks.can(ask))) at("ask").querySelector("p").textContent = "This was answered elsewhere, or nobody waits for it any more.";
  schedule();
}, FRESH);

// ---- told when nobody looks

const notice = { ids: new Set(), of: [], timer: null, note: null };
const isTold = () => { try { return localStorage.getItem("notify") === "yes" && Notification.permission === "granted"; } catch { return false; } };
/** One notice for all that came within a second; it goes when nothing of what it says is open any more. */
export function tell() {
  const ids = new Set(asks.open().map((ask) => ask.askId)), fresh = [...ids].filter((id) => !notice.ids.has(id));
  notice.ids = ids;
  if (!notice.of.some((id) => ids.has(id))) { notice.note?.close(); notice.note = null; }
  if (!fresh.length || !document.hidden || !isTold() || localStorage.getItem("push")) return;
  notice.of = [...notice.of.filter((id) => ids.has(id)), ...fresh];
  notice.timer ??= setTimeout(() => {
    const now = asks.open().filter((ask) => notice.of.includes(ask.askId));
    notice.timer = null;
    if (!now.length) return;
    const lines = now.slice(-3).map((ask) => `${Model.nameOf(cardOf(ask.sessionId))}: ${Model.oneLine(Model.askText(ask))}`);
    notice.note = new Notification(now.length === 1 ? "An agent asks" : `${now.length} agents ask`, { body: lines.join("\n"), tag: "asks" });
    notice.note.onclick = () => { focus(); go({}); };
  }, 1000);
}
const push = async (name) => { try { return await (await import("./push.js"))[name](); } catch { return false; } };
/** The server is told again whom to push to: its log-in may be another. */
export const renew = () => document.body.dataset.out !== "true" && isTold() && localStorage.getItem("push") && push("begin");
export async function notify() {
  if (isTold()) { localStorage.setItem("notify", "no"); await push("end"); note("You are not told any more."); return; }
  const isGranted = globalThis.Notification && await Notification.requestPermission() === "granted";
  if (isGranted) localStorage.setItem("notify", "yes");
  note(!isGranted ? "This browser does not allow it." : await push("begin") ? "You are told when an agent asks or fails, though this page is closed."
    : "You are told when an agent asks and this page is not in sight.", !isGranted);
}

// ---- orders

const ORDERS = { stop: ["Stop", "It ends at its next call, and is told why."], pause: ["Pause", "Its next call waits until it is released; one held for too long is denied."],
  say: ["Say", "The agent reads these words with its next step."] };
async function order(sessionId, name) {
  const [title, words] = ORDERS[name], said = await askPerson({ title, words, yes: title, isDanger: name === "stop", fields: [{ name: "text", label: name === "say" ? "Words" : "Why", isLong: true }] });
  if (said) await ordered(sessionId, { order: name, ...said });
}
async function ordered(id, body) { if (await controlled(of(id, "/orders"), body, "It is carried out at its next step.")) { shown = ""; schedule(); } }
let shown = "";
/** What may be ordered of a session, and the last orders with their fate; asked anew where it has changed, or somebody may have come or gone. */
export async function drawOrders(place, { sessionId, lastCursor, ended }) {
  const key = `${sessionId} ${lastCursor} ${Math.floor(performance.now() / (2 * FRESH))}`;
  place.hidden = ended !== null;
  if (place.hidden || shown === key) return;
  shown = key;
  const { items, reach } = await asked(of(sessionId, "/orders?limit=3")).catch(() => ({ items: [] })), isReachable = reach?.reachable;
  for (const each of place.querySelectorAll("[data-order]")) Object.assign(each, { disabled: !isReachable, title: isReachable ? ORDERS[each.dataset.order][1] : "Nobody asks for orders there" });
  place.querySelector("ol").replaceChildren(...items.map((one) => el("li", "row", el("b", "", Model.words(one.order)), el("span", "cut grow", text(one.text)),
    el("span", "faint", joined([one.status === "waiting" ? "not delivered yet" : one.status, text(one.why), timeText(one.settledAt ?? one.since)])),
    one.order === "pause" && one.isOpen ? button("Release", () => ordered(sessionId, { order: "release", orderId: one.orderId })) : "")));
}
