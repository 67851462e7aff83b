/* The log of one session: a piece of its events, and its rows, a call and its result in one. */
import vocabulary from "../vocabulary.js";
import { ENTRIES, MINOR, contentText, errorLine, face, isCompaction, isError, isMachineMade, isRejected, isTasked, isUnwanted, named } from "./faces.js";
import { ENDED, LOG, isObject, millis, oneLine, plain } from "./words.js";

export const NO_EVENTS = { events: [], begins: false, ends: false, cursors: new Set() };

/** `log` with more events, in cursor order, each once; `begins` and `ends`: nothing is before or after them. */
export function withEvents(log, events, edges = {}) {
  const fresh = events.filter((event) => !log.cursors.has(event.cursor));
  let { begins, ends } = { begins: log.begins, ends: log.ends, ...edges };
  if (!fresh.length) return { ...log, begins, ends };
  let all = joined(log.events, fresh);
  if (all.length > LOG) {      // the other end than the one that grew goes
    const isOlder = fresh.at(-1).cursor < log.events[0]?.cursor, most = LOG * 3 / 4;
    [all, begins, ends] = isOlder ? [all.slice(0, most), begins, false] : [all.slice(-most), false, ends];
  }
  return { events: all, begins, ends, cursors: new Set(all.map((event) => event.cursor)) };
}
function joined(old, fresh) {
  if (!old.length || fresh[0].cursor > old.at(-1).cursor) return [...old, ...fresh];
  if (fresh.at(-1).cursor < old[0].cursor) return [...fresh, ...old];
  return [...old, ...fresh].sort((a, b) => a.cursor - b.cursor);
}

/** The rows of a log: a call and its result are one, an agent's end knows when that run of it began, and what cannot end
    any more is cancelled. What the log does not have may be said: `names`, and whether the session is `over`, or sits
    at its prompt (`idle`), after all that is there. */
export function rowsOf(log, { names = new Map(), known = log.events.reduce(named, new Map(names)), over = false, idle = false } = {}) {
  const rows = [], calls = new Map(), runs = new Map(), open = new Set();
  let speech = null;      // the row of a message that may still grow
  for (const event of log.events) {
    const { type, data } = event, own = data.toolUseId && callOf(calls, event, log.begins);
    if (own && isCall(event) && !isCall(own.events[0])) { begun(own, event); continue; }
    if (own) { takeIn(own, event, open); continue; }
    if (data.type === "post_tool_batch") batched(calls, open, event);
    if (speech && goesOn(speech, event)) { speech = spokenOn(speech, event); continue; }
    for (const row of open) if (isOver(row, event)) cancel(row, open);
    const row = rowOf(event, known);
    rows.push(row);
    if (data.type === "message_display") speech = row;
    if (type.startsWith("agent_")) row.took = lastingOf(runEnded(runs, event));
    if (data.toolUseId && (isCall(event) || isResult(event))) noted(calls, data.toolUseId, row);
    if (isCall(event) && data.toolUseId) { row.state = log.ends ? "running" : "open"; open.add(row); }
  }
  if (log.ends) for (const row of open) if (over || (idle && !row.agentId)) cancel(row, open);
  return rows;
}
/** What came of a call, where no time tells it. */
export const OUTCOMES = { running: "running", error: "failed", rejected: "rejected", cancelled: "no result", open: "…" };
const isCall = ({ type, data }) => type === "action" && data.type === "tool_call";
/** What closes a call: its result, or the word that it may not be. */
const isResult = ({ type, data }) => type === "response" || data.type === "permission_denied";
const cancel = (row, open) => { row.state = "cancelled"; open.delete(row); };
const noted = (calls, toolUseId, row) => calls.set(toolUseId, [...(calls.get(toolUseId) ?? []), row]);

/** The row of the call that an event is about. Ids may restart: a result is the latest call's that has none, of the same
    run where either says one; a call that was told twice is one, and so is one whose result came before it. */
function callOf(calls, event, isWhole) {
  const { data } = event, run = (row) => row.events[0].data.runId ?? null;
  const rows = (calls.get(data.toolUseId) ?? []).filter((row) => run(row) === (data.runId ?? null));
  if (!rows.length) return null;
  const last = rows.at(-1), isUnique = Boolean(data.hook_event_name);
  if (!isCall(event)) return isResult(event) ? rows.findLast((row) => !isEnded(row)) ?? (isTwin(last.events.at(-1).data, data) ? last : null) : null;
  if (!isCall(last.events[0])) return isUnique || isWhole ? last : null;
  return isUnique || (!isEnded(last) && sameCall(last.events[0].data, data)) ? last : null;
}
const isEnded = (row) => ["ok", "error", "rejected"].includes(row.state);
const isTwin = (a, b) => Boolean(b.hook_event_name) || (a.type === b.type && JSON.stringify([a.output, a.error]) === JSON.stringify([b.output, b.error]));
const sameCall = (a, b) => a.tool === b.tool && JSON.stringify(a.input) === JSON.stringify(b.input);
/** The call of a result that came before it: the row is then the call's. */
function begun(row, event) {
  const [result] = row.events, { state, error } = row;
  Object.assign(row, rowOf(event), { key: row.key, events: [event, ...row.events], state, error, took: tookBy(event, result) });
}
/** A call takes in its result, however late; one that was told twice changes nothing. */
function takeIn(row, event, open) {
  row.events.push(event);
  if (!isResult(event) || isEnded(row)) return;
  open.delete(row);
  ended(row, event, outcomeOf(event));
}
function ended(row, event, state) {
  Object.assign(row, { state, error: state === "ok" ? "" : errorLine(event), took: tookBy(row.events[0], event),
    end: Math.max(row.time, millis(event.timestamp)) });
}
const outcomeOf = (event) => isRejected(event) ? "rejected" : isError(event) ? "error" : "ok";
/** Milliseconds from a call to its result, as it says or by the clocks; null where these differ too much to tell. */
function tookBy(call, result) {
  const said = result.data.durationMs, between = millis(result.timestamp) - millis(call.timestamp);
  return Number.isFinite(said) && said >= 0 ? said : between >= 0 ? between : null;
}
/** All calls of a step have ended once the batch says so, also those of which no hook did. */
function batched(calls, open, event) {
  for (const each of Array.isArray(event.data.tool_calls) ? event.data.tool_calls : []) {
    const row = calls.get(each?.tool_use_id)?.findLast((one) => open.has(one));
    if (!row) continue;
    const answer = contentText(each.tool_response), isRefused = /^\s*<tool_use_error>/.test(answer);
    const said = { ...event, data: { type: isRefused || isUnwanted(answer) ? "tool_error" : "tool_result", error: answer } };
    open.delete(row);
    ended(row, said, isRefused ? "error" : isRejected(said) ? "rejected" : "ok");
  }
}
/** Notes in `runs` what an event says of an agent's; the run that it ends, or undefined. An agent may begin again, and the
    first end of a run is its end, however often that is told. */
function runEnded(runs, { type, data, agentId, timestamp }) {
  const id = data.agentId ?? agentId, last = runs.get(id)?.at(-1), at = millis(timestamp);
  if (type === "agent_spawned" || (data.status === "running" && last?.to !== null)) {
    if (!runs.has(id)) runs.set(id, []);
    runs.get(id).push({ from: at, to: null });
    return undefined;
  }
  if (last?.to !== null || !(type === "agent_completed" || [...ENDED, "paused"].includes(data.status))) return undefined;
  last.to = at;
  return last;
}
export const lastingOf = (run) => run && run.to >= run.from ? run.to - run.from : null;
/** The runs of each agent in its events, oldest first: {id: [{from, to}]}, `to` null while it goes on. */
export function runsOf(events) {
  const runs = new Map();
  for (const event of events) runEnded(runs, event);
  return runs;
}
/** Whether an event says that an open call will not end any more: its agent's turn is over, or its agent, or all is. */
function isOver(row, { type, data, agentId }) {
  if (type === "session_finalized" || type === "session_lost") return true;
  if (type === "agent_completed") return row.agentId === (data.agentId ?? agentId);
  if (type === "action") return data.type === "prompt" && !agentId && !row.agentId && !isMachineMade(data);
  return type === "response" && row.agentId === (agentId ?? null)
    && (data.type === "assistant_message" || (data.type === "error" && (data.hook_event_name === "StopFailure" || isObject(data.attention))));
}
/** Whether an event is more of a message that is shown in parts, or the answer that has all of it again. */
function goesOn(speech, { data, agentId, type }) {
  if (data.type === "message_display") return Boolean(data.message_id) && speech.events[0].data.message_id === data.message_id;
  return data.type === "assistant_message" && type === "response" && speech.agentId === (agentId ?? null)
    && sameText(speech.text, ENTRIES.assistant_message(data).text);
}
function spokenOn(speech, event) {
  speech.events.push(event);
  if (event.data.type === "message_display") { speech.text += plain(event.data.delta); return speech; }
  Object.assign(speech, face(event), { cursor: event.cursor });
  return null;
}
function sameText(a, b) {
  const [x, y] = [a, b].map((each) => oneLine(each).replace(/…$/, ""));
  return x !== "" && y !== "" && (x.startsWith(y) || y.startsWith(x));
}

/** The row of an event by itself. What follows from the event alone is worked out once: a log is read again and again. */
function rowOf(event, names) {
  if (!alone.has(event)) alone.set(event, aloneOf(event));
  const row = { ...alone.get(event), events: [event] };
  return names?.size && /^(?:agent|goal)_/.test(event.type) ? Object.assign(row, face(event, names)) : row;
}
const alone = new WeakMap();
function aloneOf(event) {
  const { type, data } = event, isLate = type === "response" && ["tool_result", "tool_error"].includes(data.type), took = data.durationMs;
  const isWrong = isError(event);
  return { ...face(event), key: event.cursor, cursor: event.cursor, type: data.type ?? type, time: millis(event.timestamp),
    end: null, agentId: isCompaction(event) ? null : event.agentId ?? null, error: isWrong || isRejected(event) ? errorLine(event) : "",
    took: isLate && Number.isFinite(took) && took >= 0 ? took : null,
    state: isLate || isWrong ? outcomeOf(event) : null,
    minor: MINOR.includes(data.type) || MINOR.includes(type) || (type === "agent_updated" && !data.status && isTasked(data)) };
}

export const isTall = (row, room = 60) => ["prompt", "answer", "says"].includes(row.kind) && row.text.length > room;

/** What the log may show: in words, and what the server is asked for. */
export const SHOWS = { __proto__: null, "": ["everything", {}], talk: ["prompts and answers", { kind: "prompt,assistant_message,message_display" }],
  tools: ["tool calls", { kind: "tool_call,tool_result,tool_error,permission_request,permission_denied" }], actions: ["all actions", { type: "action" }],
  responses: ["all responses", { type: "response" }], state: ["state, goals, agents", { type: "state_updated,goal_added,goal_updated,agent_spawned,agent_updated,agent_completed" }],
  session: ["the session itself", { type: "session_created,session_resumed,session_finalized,session_lost,metadata_updated" }] };
export function askedFor({ show = "", agent = "", errors = "" }) {
  return { ...(SHOWS[show]?.[1] ?? { kind: show }), ...(agent ? { agentId: agent } : {}), ...(errors ? { errors: "true" } : {}) };
}
export function isAskedFor(event, filter) {
  const { type, kind, agentId, errors } = askedFor(filter);
  return (!type || type.split(",").includes(event.type))
    && (!kind || (vocabulary.logs.includes(event.type) && kind.split(",").includes(event.data.type)))
    && (!agentId || event.agentId === agentId) && (!errors || isError(event));
}
