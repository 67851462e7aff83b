/* The live feed: a call and its result are one line that grows; levels; what repeats is folded. */
import { isError } from "./faces.js";
import { rowsOf } from "./log.js";
import { FEED, brief, isObject } from "./words.js";

const KEPT = 200;          // asks and failures that are kept when their time is over
/** What is on the last level only, beside bookkeeping. */
const BOOKS = ["model_call", "model_result", "message_display", "user_prompt_expansion"];
const isTrouble = (event) => isError(event) || (isObject(event.data.attention) && event.data.attention.reason !== "input");
/** The newest events with more of them, newest first; asks and failures stay longer, what was deleted does not. */
export function fedWith(feed, events) {
  const gone = new Map(events.filter(({ type }) => type === "session_deleted").map(({ sessionId, cursor }) => [sessionId, cursor]));
  let steps = 0, kept = 0;
  return [...events.slice(-2 * FEED).map(brief).reverse(), ...feed].filter((event) => !(event.cursor < gone.get(event.sessionId)) && (isTrouble(event) ? kept++ < KEPT : steps++ < FEED));
}

const LEVELS = { __proto__: null, asks: 0, all: 2 };
export const FEED_SHOWS = { "": "Steps", asks: "Asks and failures", all: "Everything", talk: "Prompts, answers", tool: "Tools" };
const KINDS = { __proto__: null, talk: ["prompt", "answer", "says"], tool: ["tool", "edit", "agent"] };
const levelOf = ({ kind, state, type, minor }) => state === "error" || ["wait", "error"].includes(kind) ? 0 : minor || BOOKS.includes(type) ? 2 : 1;
function linesOf(feed, names) {
  const sessions = new Map();
  for (const event of feed) if (!sessions.get(event.sessionId)?.push(event)) sessions.set(event.sessionId, [event]);
  return [...sessions].flatMap(([sessionId, events]) => rowsOf({ events: events.reverse(), begins: false, ends: true }, { known: names })
    .map((row) => ({ ...row, sessionId, level: levelOf(row) }))).sort((a, b) => b.key - a.key);
}
/** The lines that are shown; calls of one tool that a session makes within a minute, and that went well, are one. */
export function feedShown(feed, names, { kind = "", words = "" } = {}) {
  const sought = words.toLowerCase(), level = KINDS[kind] ? 2 : LEVELS[kind] ?? 1, runs = new Map(), shown = [];
  for (const line of linesOf(feed, names)) {
    if (line.level > level || (KINDS[kind] && !KINDS[kind].includes(line.kind))) continue;
    if (sought && !`${line.sessionId} ${line.events[0].userId} ${line.title} ${line.text} ${line.error}`.toLowerCase().includes(sought)) continue;
    const run = runs.get(line.sessionId), isCall = line.type === "tool_call" && ["ok", "running"].includes(line.state);
    if (isCall && !sought && run?.title === line.title && run.isCall && run.time - line.time < 60_000) { run.times++; continue; }
    const own = { ...line, isCall, times: 1 };
    runs.set(line.sessionId, own);
    shown.push(own);
  }
  return shown;
}
