/* Home: what people are asked, what runs, what has ended since one looked; sorted, grouped, folded. */
import { asksOf, branchOf, endedBy, hostOf, nameOf, project, step } from "./cards.js";
import { toolGist, toolName } from "./faces.js";
import { ENDED, figure, fullness, isObject, joined, millis, money, oneLine, plain, spoken, text } from "./words.js";

/** What a session is in, as home has it apart: `asks` a person, was stopped by an `error`, is `idle` at its prompt, or its status. */
export const stateOf = ({ status, attention }) => status !== "waiting" ? status
  : attention?.error ? "error" : attention?.reason === "input" ? "idle" : "asks";
const RANKS = ["asks", "error", "failed", "lost", "active", "idle"];
const rankOf = (card) => { const rank = RANKS.indexOf(stateOf(card)); return rank < 0 ? RANKS.length : rank; };
export const worstOf = (cards) => stateOf(cards.reduce((worst, card) => rankOf(card) < rankOf(worst) ? card : worst));

const most = (of) => (a, b) => of(b) - of(a), least = (of) => (a, b) => text(of(a)).localeCompare(text(of(b)));
const contextOf = ({ context }) => context?.tokens ? context.tokens / (context.limit || 1e6) : 0;
export const SORTS = { __proto__: null, "": ["newest first", (a, b) => least((card) => card.created)(b, a)], state: ["state", (a, b) => rankOf(a) - rankOf(b)],
  name: ["name", least(nameOf)], quiet: ["longest quiet", least((card) => card.updated)], errors: ["errors", most((card) => card.errors ?? 0)],
  context: ["context", most(contextOf)], tokens: ["tokens", most((card) => card.tokenUsage?.total ?? 0)], cost: ["cost", most((card) => card.cost?.usd ?? 0)] };
const isPinned = (card) => card.pinned === true;
export const sorted = (cards, sort = "") => [...cards].sort((a, b) => isPinned(b) - isPinned(a) || (SORTS[sort] ?? SORTS[""])[1](a, b)
  || SORTS[""][1](a, b) || least((card) => card.sessionId)(a, b));
export const GROUPS = { __proto__: null, "": ["no groups", null], project: ["project", (card) => [project(card)]], user: ["user", (card) => [card.userId]],
  branch: ["branch", (card) => [branchOf(card)]], host: ["host", (card) => [hostOf(card)]], tag: ["tag", (card) => card.tags?.length ? card.tags.map(oneLine) : [""]] };

/** The figures of a session's row, each a short word; nothing for what is not known. */
export const figuresOf = (card) => ({ errors: card.errors ? figure(card.errors) : "",
  context: fullness(card.context ?? {}, figure),
  tokens: card.tokenUsage?.total ? figure(card.tokenUsage.total) : "", cost: money(card.cost) });

/** The asks that are open, oldest first: what the events tell at once, with what the server says beside it (its input, whether it can
    be answered); and sessions that an error has stopped, which wait for a person as well. */
export function openAsks(cards, served, answered = new Set()) {
  const open = new Map();
  for (const card of cards.values()) {
    const error = stateOf(card) === "error";
    for (const told of error ? [card.attention] : asksOf(card)) {
      const askId = text(told.askId) || `${card.sessionId} ${text(told.since)}`, known = served.get(askId) ?? {};
      open.set(askId, { kind: error ? "error" : told.reason, canAnswer: false, ...told, text: told.message, ...known, askId, sessionId: card.sessionId });
    }
  }
  for (const ask of served.values()) if (ask.status === "open" && !cards.has(ask.sessionId)) open.set(ask.askId, ask);
  return [...open.values()].filter((ask) => !answered.has(ask.askId)).sort(least((ask) => ask.since));
}
export function askText({ kind, tool, input, text: words }) {
  if (tool && isObject(input) && !Array.isArray(input.questions) && kind !== "plan") return joined([toolName(tool), plain(text(input.command)) || toolGist(tool, input)], ": ");
  return plain(words).trim() || toolGist(tool, input) || `waits for ${spoken(kind) || "input"}`;
}
/** The questions of an ask with the answers that it offers: [{question, options}]. */
export const questionsOf = ({ input, text: words, options }) => (Array.isArray(input?.questions) ? input.questions.filter(isObject) : [{ question: words, options }])
  .map((each) => ({ question: text(each.question) || text(each.header), options: (Array.isArray(each.options) ? each.options : []).map((one) => text(one?.label ?? one)) }));

export const unseenOf = (cards, { upTo = 0, ids = [] } = {}) => [...cards.values()]
  .filter((card) => [...ENDED, "lost"].includes(card.status) && card.lastCursor > upTo && !ids.includes(`${card.sessionId} ${card.lastCursor}`))
  .sort((a, b) => rankOf(a) - rankOf(b) || b.lastCursor - a.lastCursor);

const SHOWN = { __proto__: null, waiting: ["asks", "idle"], active: ["running"], idle: ["idle"] };
/** The sections of home: [{key, title, asks or cards, groups}]; `seen` is what was acknowledged. */
export function sectionsOf(cards, asks, { status = "", group = "", sort = "", words = "", seen } = {}) {
  const sought = words.toLowerCase(), fits = (card) => !sought || haystackOf(card).includes(sought);
  const all = [...cards.values()].filter(fits), live = sorted(all.filter((card) => ["active", "waiting"].includes(card.status)), sort);
  const isHere = (ask) => { const card = cards.get(ask.sessionId); return card ? fits(card) : !sought; };
  if (["failed", "lost"].includes(status)) return [{ key: status, title: status === "lost" ? "Lost" : "Failed", cards: sorted(all.filter((card) => card.status === status), sort) }];
  const grouped = GROUPS[group]?.[1], unseen = unseenOf(new Map(all.map((card) => [card.sessionId, card])), seen);
  const running = grouped ? groupsOf([...unseen.filter((card) => rankOf(card) < 4), ...live], group, grouped)
    : [{ key: "running", title: "Running", cards: live.filter((card) => card.status === "active") }];
  return [{ key: "asks", title: "Waiting for you", asks: asks.filter(isHere) }, ...running,
    ...(grouped ? [] : [{ key: "idle", title: "At the prompt", cards: live.filter((card) => stateOf(card) === "idle") }]),
    { key: "ended", title: "Ended since you looked", cards: unseen }]
    .filter(({ key, asks, cards }) => (asks ?? cards).length && (!SHOWN[status] || SHOWN[status].includes(key)));
}
function groupsOf(cards, by, keysOf) {
  const groups = new Map();
  for (const card of cards) for (const name of keysOf(card)) groups.set(name, [...(groups.get(name) ?? []), card]);
  return [...groups].map(([name, members]) => ({ key: `${by}:${name}`, title: oneLine(name) || `no ${by}`, cards: members, worst: worstOf(members) }))
    .sort((a, b) => RANKS.indexOf(a.worst) - RANKS.indexOf(b.worst) || a.title.localeCompare(b.title));
}
const haystacks = new WeakMap();
export function haystackOf(card) {
  if (!haystacks.has(card)) haystacks.set(card, [nameOf(card), card.sessionId, card.userId, project(card), branchOf(card), hostOf(card), card.status, text(card.model),
    text(card.lastPrompt), step(card), endedBy(card), ...(card.tags ?? [])].join(" ").toLowerCase());
  return haystacks.get(card);
}
export const listOf = (sections, folded) => sections.flatMap((section) => {
  const { key, asks, cards } = section, head = { key: `head ${key}`, section, number: (asks ?? cards).length };
  return [head, ...(folded.has(key) ? [] : asks ? asks.map((ask) => ({ key: `ask ${ask.askId}`, ask })) : cards.map((card) => ({ key: `row ${key} ${card.sessionId}`, card, within: key })))];
});
export const tilesOf = ({ stats, cards }, asks, seen) => stats && { waiting: asks.length, active: stats.sessions.active ?? 0,
  idle: Math.max(0, (stats.sessions.waiting ?? 0) - new Set(asks.map((ask) => ask.sessionId)).size),
  lost: unseenOf(cards, seen).filter((card) => card.status === "lost").length, failed: unseenOf(cards, seen).filter((card) => card.status === "failed").length };
/** How long since it said anything, as a time; a session that waits, since it does. */
export const quietSince = (card) => millis(card.status === "waiting" ? card.attention?.since ?? card.updated : card.updated);
